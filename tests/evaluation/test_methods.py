"""The methods that a benchmark compares: what each changes, what it leaves, and whom it takes a patient for."""

import json
import sys

import cv2
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from medeid.evaluation.classical import BlackBox, Blur, EyeBar, KSameAverage, Pixelate
from medeid.evaluation.methods import (
    METHODS,
    Command,
    Deface,
    DiffusersInpainting,
    Identity,
    Medeid,
    create_method,
)
from medeid.evaluation.protocol import Alias, MethodError
from medeid.faces.alignment import transform_points
from medeid.faces.mesh import MOUTH_CORNERS, OVAL, points5_from_mesh, region_mask
from medeid.records import VerificationError
from medeid.types import FaceBox

ALIAS = Alias(b"k" * 16, "patient 1")
OTHER_KEY = Alias(b"o" * 16, "patient 1")


def box_of(landmarks: np.ndarray) -> FaceBox:
    """The box of a face's oval, with its five points."""
    oval = landmarks[list(OVAL), :2]
    return FaceBox((*oval.min(0).tolist(), *oval.max(0).tolist()), 1.0, points5_from_mesh(landmarks), "user")


def change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Levels by which pixels differ at most, [H, W]."""
    return np.abs(after.astype(int) - before).max(-1)


@pytest.mark.parametrize("method", [Blur(), Pixelate(), BlackBox(), EyeBar()], ids=lambda method: method.name)
def test_classical_methods_change_the_face_and_leave_what_is_outside_of_its_box(method, light_face):
    image, landmarks = light_face
    box, before = box_of(landmarks), image.copy()
    (result,) = method([image], [box], [ALIAS])
    assert np.array_equal(image, before) and result.shape == image.shape and result.dtype == np.uint8
    x0, y0, x1, y1 = np.array(box.box).astype(int)
    inside = np.zeros(image.shape[:2], bool)
    inside[y0 : y1 + 1, x0 : x1 + 1] = True
    eyes = region_mask(landmarks, "left_eye") + region_mask(landmarks, "right_eye") > 0
    changed = change(image, result)
    assert not changed[~inside].any()
    assert np.mean(changed[eyes] > 5) > 0.8


def test_a_blurred_face_has_tones_and_no_feature(light_face):
    image, landmarks = light_face
    (result,) = Blur()([image], [box_of(landmarks)], [ALIAS])
    x0, y0, x1, y1 = np.array(box_of(landmarks).box).astype(int)
    faces = [each[y0:y1, x0:x1] / 255.0 for each in (image, result)]
    detail = [(each - cv2.GaussianBlur(each, (0, 0), 5)).std() for each in faces]
    assert detail[1] < 0.1 * detail[0]
    assert np.abs(faces[1].mean((0, 1)) - faces[0].mean((0, 1))).max() < 0.04


def test_eight_blocks_are_left_across_a_face(light_face):
    image, landmarks = light_face
    (result,) = Pixelate()([image], [box_of(landmarks)], [ALIAS])
    x0, y0, x1, y1 = np.array(box_of(landmarks).box).astype(int)
    face = result[y0 : y1 + 1, x0 : x1 + 1]
    edges = change(face[:, :-1], face[:, 1:]).any(0)
    assert np.count_nonzero(edges) == 7
    assert np.ptp(np.diff(np.flatnonzero(edges))) <= 1


def test_the_bar_lies_over_the_eyes_of_a_tilted_head_and_spares_the_mouth(light_face):
    image, landmarks = light_face
    turn = cv2.getRotationMatrix2D((127.5, 127.5), 40.0, 1.0)
    tilted = landmarks.copy()
    tilted[:, :2] = transform_points(landmarks[:, :2], turn)
    photo = cv2.warpAffine(image, turn, (256, 256))
    (result,) = EyeBar()([photo], [box_of(tilted)], [ALIAS])
    eyes = region_mask(tilted, "left_eye") + region_mask(tilted, "right_eye") > 0
    assert not result[eyes].any()
    assert not change(photo, result)[region_mask(tilted, "lips") > 0].any()


def test_a_box_outside_of_its_photo_is_no_place_to_hide_anything(light_face):
    with pytest.raises(ValueError, match="lies outside of its photo of 256 x 256 px"):
        BlackBox()([light_face[0]], [FaceBox((-50.0, 0.0, -10.0, 40.0), 1.0, None, "user")], [ALIAS])


def test_the_original_is_given_back(light_face, dark_face):
    photos = [light_face[0], dark_face[0]]
    results = Identity()(photos, [box_of(light_face[1]), box_of(dark_face[1])], [ALIAS, ALIAS])
    assert all(np.array_equal(*pair) for pair in zip(photos, results, strict=True))


def test_an_alias_is_always_the_same_person_and_under_another_key_another(pipeline, light_face):
    image, landmarks = light_face
    first, again, other = Medeid(pipeline)([image] * 3, [box_of(landmarks)] * 3, [ALIAS, ALIAS, OTHER_KEY])
    assert np.array_equal(first, again) and first.shape == image.shape and first.dtype == np.uint8
    face = region_mask(landmarks, "face") > 0
    assert change(first, other)[face].mean() > 10
    assert change(image, first)[face].mean() > 10


def test_a_withheld_photo_costs_no_other(light_face, dark_face):
    def withholding(photo, boxes, **arguments):
        if np.array_equal(photo, light_face[0]):
            raise VerificationError(0, "no face is found where it was replaced", [])
        return [255 - photo], [], []

    photos = [light_face[0], dark_face[0]]
    results = Medeid(withholding)(photos, [box_of(light_face[1]), box_of(dark_face[1])], [ALIAS, ALIAS])
    assert results[0] is None and np.array_equal(results[1], 255 - dark_face[0])


def test_the_average_of_copies_of_one_face_is_that_face(pipeline, dark_face):
    image, landmarks = dark_face
    photo = image.copy()
    photo[:20] = 0  # not the same photo, so that the reference faces count as others
    found = pipeline.find_landmarks([image])
    method = KSameAverage(image[None].repeat(3, 0), found.repeat(3, 0), 3, pipeline)
    (result,) = method([photo], [box_of(landmarks)], [ALIAS])
    face = cv2.erode(region_mask(landmarks, "face"), np.ones((9, 9))) > 0
    around = cv2.dilate(region_mask(landmarks, "face"), np.ones((61, 61))) == 0
    assert np.median(change(image, result)[face]) <= 3
    assert np.array_equal(result[around], photo[around])


def test_a_face_gives_way_to_the_nearest_others_in_its_own_shape(pipeline, light_face, dark_face):
    (image, landmarks), (other, points) = light_face, dark_face
    crops, shapes = np.stack([image, other]), np.stack([landmarks, points])
    (result,) = KSameAverage(crops, shapes, 1, pipeline)([image], [box_of(landmarks)], [ALIAS])
    skin = region_mask(landmarks, "skin") > 0
    tone = other[region_mask(points, "skin") > 0].mean(0)
    assert np.abs(result[skin].mean(0) - tone).max() < 12 < np.abs(image[skin].mean(0) - tone).max()
    corners, own, foreign = (
        found[list(MOUTH_CORNERS), :2] for found in (pipeline.find_landmarks([result])[0], landmarks, points)
    )
    assert np.linalg.norm(corners - own) < 0.5 * np.linalg.norm(corners - foreign)
    with pytest.raises(ValueError, match="without the photo itself the reference set has 1 faces"):
        KSameAverage(crops, shapes, 2, pipeline)([image], [box_of(landmarks)], [ALIAS])
    with pytest.raises(ValueError, match="`k` must lie between 1 and the 2 faces"):
        KSameAverage(crops, shapes, 3, pipeline)


def test_deface_blurs_what_it_finds_and_leaves_what_it_does_not(light_face):
    image, landmarks = light_face
    blank = np.full_like(image, 127)
    results = Deface()([image, blank], [box_of(landmarks)] * 2, [ALIAS, ALIAS])
    eyes = region_mask(landmarks, "left_eye") + region_mask(landmarks, "right_eye") > 0
    assert change(image, results[0])[eyes].mean() > 10
    assert np.array_equal(results[1], blank)


def command(tmp_path, body: str) -> Command:
    """A command that runs a script with the paths of its input and output."""
    script = tmp_path / "a tool.py"
    script.write_text(f"import sys\nfrom PIL import Image\nsource, target = sys.argv[1:]\n{body}\n")
    return Command(f"'{sys.executable}' '{script}' {{input}} {{output}}")


def run(method: Command, face: tuple[np.ndarray, np.ndarray]) -> np.ndarray | None:
    (result,) = method([face[0]], [box_of(face[1])], [ALIAS])
    return result


def test_a_command_reads_a_picture_and_writes_one(tmp_path, light_face):
    flip = command(tmp_path, "Image.open(source).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(target)")
    assert np.array_equal(run(flip, light_face), light_face[0][:, ::-1])


def test_a_command_that_writes_nothing_withholds_the_photo(tmp_path, light_face):
    assert run(command(tmp_path, "print('no face found')"), light_face) is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('loading\\nout of memory', file=sys.stderr)\nsys.exit(3)", "exited with status 3: out of memory$"),
        (
            "sys.stderr.write('scaled')\nImage.open(source).resize((128, 64)).save(target)",
            "wrote 128 x 64 px for a photo of 256 x 256 px: scaled$",
        ),
        ("open(target, 'w').write('a face')", "wrote no picture"),
    ],
)
def test_a_broken_command_is_named_with_its_last_words(tmp_path, light_face, body, message):
    broken = command(tmp_path, body)
    with pytest.raises(MethodError, match=message) as error:
        run(broken, light_face)
    assert str(error.value).startswith(broken.name)


def test_commands_that_cannot_run(monkeypatch, tmp_path, light_face):
    with pytest.raises(ValueError, match="must name {input} and {output}"):
        Command("tool {input}")
    with pytest.raises(MethodError, match="cannot be started"):
        run(Command("/no/such/tool {input} {output}"), light_face)
    monkeypatch.setattr("medeid.evaluation.methods._TIME_LIMIT", 0.5)
    with pytest.raises(MethodError, match="still running after 0.5 s"):
        run(command(tmp_path, "import time\ntime.sleep(60)"), light_face)


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory):
    """Random weights in the layout of a Stable Diffusion inpainting model, that draws 32 px."""
    folder = tmp_path_factory.mktemp("inpainting") / "tiny"
    words = ["<|startoftext|>", "<|endoftext|>", *(letter + end for letter in "aef c" for end in ("", "</w>"))]
    (folder.parent / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder.parent / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder.parent, model_max_length=8)
    sizes = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    torch.manual_seed(0)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words), hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        )
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=9,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=2,
        **sizes,
    )
    vae = AutoencoderKL(
        latent_channels=4, down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2, **sizes
    )
    StableDiffusionInpaintPipeline(
        vae, text_encoder, tokenizer, unet, DDIMScheduler(steps_offset=1), None, None, requires_safety_checker=False
    ).save_pretrained(folder)
    return folder


def test_inpainting_draws_an_alias_the_same_within_the_ellipse_alone(inpainting, light_face):
    image, landmarks = light_face
    method, box = DiffusersInpainting(inpainting, "a face"), box_of(landmarks)
    first, again, other = method([image] * 3, [box] * 3, [ALIAS, ALIAS, OTHER_KEY])
    assert np.array_equal(first, again)
    y, x = np.mgrid[:256, :256]
    x0, y0, x1, y1 = box.box
    radius = np.hypot((2 * x - x0 - x1) / box.width, (2 * y - y0 - y1) / box.height)
    assert not change(image, first)[radius > 1.03].any()
    assert change(image, first)[radius < 0.97].mean() > 10
    assert change(first, other)[radius < 0.97].mean() > 3


def test_an_inpainting_model_is_named_by_its_folder(inpainting, pipeline, light_face, tmp_path):
    method = create_method(f"inpaint:{inpainting}", pipeline)
    assert method.name == "inpaint-tiny"
    result = run(method, light_face)
    assert result.shape == light_face[0].shape and change(light_face[0], result).max() > 10
    with pytest.raises(ValueError, match="must be an inpainting model of diffusers, but '.*nowhere' cannot be loaded"):
        create_method(f"inpaint:{tmp_path / 'nowhere'}", pipeline)
    (tmp_path / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    with pytest.raises(ValueError, match="cannot be loaded"):
        create_method(f"inpaint:{tmp_path}", pipeline)


def test_methods_go_by_their_names(pipeline, light_face):
    reference = light_face[0][None].repeat(10, 0), light_face[1][None].repeat(10, 0)
    for name in METHODS.keys() - {"phi-anonymize-face"}:
        assert create_method(name, pipeline, reference).name == name
    assert create_method("medeid-0.5", pipeline).name == "medeid-0.5"
    assert create_method("medeid-0.75", pipeline).name == "medeid"


def test_names_that_give_no_method(monkeypatch, pipeline):
    with pytest.raises(ValueError, match="Unknown method 'pixelated'; did you mean pixelate"):
        create_method("pixelated", pipeline)
    with pytest.raises(ValueError, match="the names are: medeid, original"):
        create_method("zzz", pipeline)
    with pytest.raises(ValueError, match="`privacy` must lie in"):
        create_method("medeid-1.5", pipeline)
    with pytest.raises(ValueError, match="k-same averages the faces of other people"):
        create_method("k-same", pipeline)
    monkeypatch.setitem(sys.modules, "phi_anonymize_face", None)
    with pytest.raises(ValueError, match="pip install phi-anonymize-face"):
        create_method("phi-anonymize-face", pipeline)


def test_a_key_is_not_shown():
    assert repr(ALIAS) == "Alias(pseudonym='patient 1')"
