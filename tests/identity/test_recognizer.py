import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from skimage import data

from medeid.identity import recognizer as recognizer_module
from medeid.identity.dlib_resnet import DlibResNet, find_dlib_weights, read_dlib_tensors
from medeid.identity.recognizer import (
    ArcFaceRecognizer,
    DlibRecognizer,
    align_faces,
    load_recognizers,
    similarity,
)

# Image-left eye, image-right eye, nose tip, image-left and image-right corner of the mouth.
ASTRONAUT_POINTS = ((203.2, 101.7), (247.0, 104.5), (223.3, 125.1), (203.4, 142.3), (241.3, 144.4))
CAT_POINTS = ((172.0, 115.0), (318.0, 137.0), (265.0, 240.0), (215.0, 262.0), (300.0, 262.0))


@pytest.fixture(scope="module")
def recognizer():
    return DlibRecognizer()


def to_images(photo):
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() / 255.0


def to_points(points):
    return torch.tensor([points], dtype=torch.float32)


def astronaut_chips():
    photo = Image.fromarray(data.astronaut())
    face = photo.crop((150, 40, 300, 190))
    return [
        face,
        face.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        ImageEnhance.Brightness(face).enhance(0.6),
        ImageEnhance.Brightness(face).enhance(1.5),
        face.rotate(20, Image.Resampling.BILINEAR),
        photo.crop((175, 60, 275, 160)).resize((150, 150)),
        photo.crop((140, 20, 340, 220)).resize((150, 150)),
    ]


def test_port_equals_dlib(recognizer):
    dlib = pytest.importorskip("dlib")
    original = dlib.face_recognition_model_v1(str(find_dlib_weights()))
    chips = astronaut_chips()
    expected = np.array([original.compute_face_descriptor(np.array(chip)) for chip in chips])
    found = recognizer.network(torch.cat([to_images(chip) for chip in chips])).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_alignment_equals_dlib(recognizer):
    dlib = pytest.importorskip("dlib")
    weights = find_dlib_weights()
    photo = data.astronaut()
    shape_predictor = dlib.shape_predictor(str(weights.with_name("shape_predictor_5_face_landmarks.dat")))
    [face] = dlib.get_frontal_face_detector()(photo)
    expected = dlib.face_recognition_model_v1(str(weights)).compute_face_descriptor(photo, shape_predictor(photo, face))
    found = recognizer.descriptor(to_images(photo), to_points(ASTRONAUT_POINTS))[0].numpy()
    assert np.linalg.norm(found - np.array(expected)) < 0.2


def test_embeddings_are_unit_vectors_along_descriptors(recognizer):
    images, points = to_images(data.astronaut()), to_points(ASTRONAUT_POINTS)
    embedding = recognizer(images, points)
    descriptor = recognizer.descriptor(images, points)
    assert embedding.shape == (1, recognizer.embedding_dim)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(1))
    torch.testing.assert_close(embedding * descriptor.norm(dim=1), descriptor)


def test_gradient_reaches_image_and_not_weights(recognizer):
    images = to_images(data.astronaut()).requires_grad_()
    recognizer(images, to_points(ASTRONAUT_POINTS))[0, 0].backward()
    assert images.grad is not None
    assert images.grad[:, :, 80:160, 190:260].abs().sum() > 0
    assert images.grad[:, :, 400:].abs().sum() == 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in recognizer.parameters())


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_photo_keeps_embedding(recognizer, turns):
    images, points = to_images(data.astronaut()), to_points(ASTRONAUT_POINTS)
    turned = points
    for _ in range(turns):  # counterclockwise: (x, y) -> (y, width - 1 - x)
        turned = torch.stack([turned[..., 1], images.shape[3] - 1 - turned[..., 0]], dim=-1)
    found = recognizer(torch.rot90(images, turns, dims=(2, 3)), turned)
    torch.testing.assert_close(found, recognizer(images, points), atol=1e-3, rtol=0.0)


def test_large_photo_is_antialiased(recognizer):
    photo = data.astronaut()
    expected = recognizer.descriptor(to_images(photo), to_points(ASTRONAUT_POINTS))
    # Every pixel becomes a square of 8 x 8 with strong noise, which an average over the square takes away.
    images = to_images(photo).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)[:, :, :1600, 1200:2400]
    images = images + 0.4 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    points = to_points(ASTRONAUT_POINTS) * 8.0 + 3.5 - torch.tensor([1200.0, 0.0])
    assert (recognizer.descriptor(images, points) - expected).norm() < 0.2


def test_brightness_changes_less_than_another_face(recognizer):
    photo = data.astronaut()
    points = to_points(ASTRONAUT_POINTS)
    face = recognizer.descriptor(to_images(photo), points)
    brighter = recognizer.descriptor(to_images(photo) * 0.8 + 0.1, points)
    other = recognizer.descriptor(to_images(data.cat()), to_points(CAT_POINTS))
    assert (face - brighter).norm() < 0.1
    assert (face - other).norm() > 0.5


def test_chip_does_not_depend_on_batch(recognizer):
    images = to_images(data.astronaut()).expand(3, -1, -1, -1)
    points = to_points(ASTRONAUT_POINTS) * torch.tensor([1.0, 2.0, 0.5]).view(3, 1, 1)
    chips = recognizer.chips(images, points)
    for row in range(3):
        torch.testing.assert_close(chips[row], recognizer.chips(images[row : row + 1], points[row : row + 1])[0])


def test_similarity_recovers_transform():
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(5, 2, generator=generator) * 100.0
    expected = torch.tensor([[[0.6, -0.8, 5.0], [0.8, 0.6, -7.0]], [[-2.0, 0.0, 1.0], [0.0, -2.0, 2.0]]])
    target = source @ expected[:, :, :2].transpose(1, 2) + expected[:, None, :, 2]
    torch.testing.assert_close(similarity(source, target), expected, atol=1e-3, rtol=1e-4)


def test_alignment_puts_points_at_template():
    x, y = torch.meshgrid(torch.arange(100.0), torch.arange(80.0), indexing="xy")
    ramp = torch.stack([x, y])[None]
    template = torch.tensor([[10.0, 10.0], [20.0, 10.0], [15.0, 20.0]])
    points = template[None].flip(-1) * torch.tensor([-1.0, 1.0]) * 1.4 + torch.tensor([60.0, 20.0])
    chips = align_faces(ramp, points, template, 32)
    found = chips[0, :, template[:, 1].long(), template[:, 0].long()].T
    torch.testing.assert_close(found, points[0], atol=1e-3, rtol=0.0)


@pytest.mark.parametrize(
    ("images", "points", "message"),
    [
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.rand(1, 5, 2), "`images` must be a float"),
        (torch.zeros(3, 64, 64), torch.rand(1, 5, 2), "`images` must be a float"),
        (torch.zeros(2, 3, 64, 64), torch.rand(1, 5, 2), "`points` must be"),
        (torch.zeros(1, 3, 64, 64), torch.ones(1, 5, 2), "differ from each other"),
        (torch.zeros(1, 3, 64, 64), torch.full((1, 5, 2), torch.nan), "must be finite"),
    ],
)
def test_bad_input_is_named(recognizer, images, points, message):
    with pytest.raises(ValueError, match=message):
        recognizer(images, points)


def test_features_take_any_size(recognizer):
    sides = [[feature.shape[-1] for feature in recognizer.features(torch.rand(1, 3, s, s))] for s in (64, 150)]
    assert sides == [[29, 14, 7, 3, 1], [72, 35, 17, 8, 4]]
    assert [f.shape[1] for f in recognizer.features(torch.rand(2, 3, 80, 96))] == [32, 32, 64, 128, 256]
    with pytest.raises(ValueError, match="at least 64 px"):
        recognizer.features(torch.rand(1, 3, 63, 64))


def test_network_wants_its_chip_size(recognizer):
    with pytest.raises(ValueError, match="`chips` must be"):
        recognizer.network(torch.rand(1, 3, 149, 150))


def test_reader_finds_all_tensors():
    tensors = read_dlib_tensors(find_dlib_weights())
    assert len(tensors) == 59
    assert sum(tensor.size for tensor in tensors) == 5_614_592
    assert tensors[-1].shape == (256, 128, 1, 1)


@pytest.mark.parametrize("size", [344, 5_000, 19_391, 1_000_000])
def test_truncated_file_is_named(tmp_path, size):
    path = tmp_path / "weights.dat"
    path.write_bytes(find_dlib_weights().read_bytes()[:size])
    with pytest.raises(ValueError, match="truncated"):
        DlibResNet.from_dlib(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "weights.dat"
    path.write_bytes(b"not a network")
    with pytest.raises(ValueError, match="0 weight tensors"):
        DlibResNet.from_dlib(path)
    path.write_bytes(b"\x01\x05con_4\x01\x01")
    with pytest.raises(ValueError, match="version 1"):
        DlibResNet.from_dlib(path)


def test_missing_wheel_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install face_recognition_models"):
        DlibRecognizer()
    assert not ArcFaceRecognizer.available()
    with pytest.raises(FileNotFoundError, match="ArcFace's weights are missing"):
        ArcFaceRecognizer()


@pytest.fixture
def arcface_weights(tmp_path):
    arch = pytest.importorskip("facexlib.recognition.arcface_arch")
    torch.manual_seed(0)
    path = tmp_path / "recognition_arcface_ir_se50.pth"
    torch.save(arch.Backbone(num_layers=50, drop_ratio=0.6, mode="ir_se").state_dict(), path)
    yield path
    path.unlink()  # 170 MB, too much to leave behind


def test_arcface_follows_the_protocol(monkeypatch, arcface_weights):
    monkeypatch.setattr(recognizer_module, "_find_arcface_weights", lambda: arcface_weights)
    assert ArcFaceRecognizer.available()
    recognizers = load_recognizers()
    assert [recognizer.name for recognizer in recognizers] == ["dlib", "arcface"]

    arcface = recognizers[1].train()
    images = to_images(data.astronaut()).requires_grad_()
    embedding = arcface(images, to_points(ASTRONAUT_POINTS))
    assert embedding.shape == (1, arcface.embedding_dim)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(1))
    torch.testing.assert_close(arcface(images, to_points(ASTRONAUT_POINTS)), embedding)  # no dropout

    embedding[0, 0].backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in arcface.parameters())


def test_only_dlib_where_arcface_is_missing(monkeypatch):
    monkeypatch.setattr(recognizer_module, "_find_arcface_weights", lambda: None)
    assert [recognizer.name for recognizer in load_recognizers()] == ["dlib"]
