import cv2
import numpy as np
import pytest
import torch
from skimage import data

from medeid.faces import mesh
from medeid.faces.landmarks import LandmarkNet
from medeid.faces.mesh import LANDMARK_SIZE, NUM_LANDMARKS
from medeid.faces.shape import ShapePrior
from medeid.pipeline import PACKAGED_WEIGHTS

# Read off skimage's astronaut by eye: both eyes' centres, tip of the nose, both corners of the mouth.
ASTRONAUT_POINTS = np.array([[202.5, 101.0], [247.5, 104.0], [225.0, 127.0], [204.0, 140.0], [243.5, 141.5]])
CROP_EYES = np.float32([[96.0, 121.0], [160.0, 121.0]])  # where the aligned crops have the centres of the eyes


def _tiny_net() -> LandmarkNet:
    torch.manual_seed(0)
    net = LandmarkNet(block_out_channels=(8, 16), layers_per_block=(1, 1), head_channels=4, num_components=6)
    return net.eval()


def test_output_shape_and_gradients():
    net = _tiny_net()
    points = net(torch.rand(2, 3, 256, 256))
    assert points.shape == (2, mesh.NUM_LANDMARKS, 3)
    points.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_default_size_fits_the_budget():
    assert sum(parameter.numel() for parameter in LandmarkNet().parameters()) <= 4_000_000


def test_zero_coefficients_give_the_mean_shape():
    net = _tiny_net()
    torch.nn.init.zeros_(net.coefficients.weight)
    torch.nn.init.zeros_(net.coefficients.bias)
    net.mean_shape.copy_(torch.arange(mesh.NUM_LANDMARKS * 3.0).reshape(-1, 3))
    torch.testing.assert_close(net(torch.rand(1, 3, 256, 256))[0], net.mean_shape)


@pytest.mark.parametrize("shape", [(1, 3, 128, 128), (3, 256, 256), (1, 1, 256, 256)])
def test_rejects_other_sizes(shape):
    with pytest.raises(ValueError, match="`images` must have shape"):
        _tiny_net()(torch.zeros(shape))


def test_rejects_mismatched_levels():
    with pytest.raises(ValueError, match="`layers_per_block`"):
        LandmarkNet(block_out_channels=(8, 16), layers_per_block=(1,))


def test_save_and_load(tmp_path):
    net = _tiny_net()
    net.mean_shape.add_(torch.rand_like(net.mean_shape))
    net.save_pretrained(tmp_path)
    loaded = LandmarkNet.from_pretrained(tmp_path)
    assert loaded.config.layers_per_block == [1, 1]
    images = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), net(images))


def _aligned_astronaut() -> tuple[np.ndarray, np.ndarray]:
    """The crop that the network expects, and the five points in it."""
    source, target = ASTRONAUT_POINTS[:2], CROP_EYES
    turn = complex(*(target[1] - target[0])) / complex(*(source[1] - source[0]))
    rotation = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    shift = target[0] - rotation @ source[0]
    crop = cv2.warpAffine(data.astronaut(), np.column_stack([rotation, shift]), (256, 256))
    return crop, ASTRONAUT_POINTS @ rotation.T + shift


def test_trained_network_on_a_photo():
    net = LandmarkNet.from_pretrained(PACKAGED_WEIGHTS / "medeid-tiny" / "landmark_net").float().eval()
    crop, points5 = _aligned_astronaut()
    images = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        plain, mirrored = net(torch.cat([images, images.flip(-1)])).numpy()
    unit = mesh.inter_ocular_distance(plain)
    errors = np.linalg.norm(mesh.points5_from_mesh(plain) - points5, axis=1)
    assert errors[[0, 1, 3, 4]].max() < 0.06 * unit
    assert errors[2] < 0.12 * unit  # where a nose has its tip is a matter of taste
    differences = np.linalg.norm((mesh.flip_landmarks(mirrored) - plain)[:, :2], axis=1)
    assert differences.mean() < 0.03 * unit


def test_close_up_networks_move_eyes_and_lips_alone():
    torch.manual_seed(0)
    net = LandmarkNet(refiner_channels=(8, 16)).eval()
    images = torch.rand(1, 3, LANDMARK_SIZE, LANDMARK_SIZE)
    points = torch.zeros(1, NUM_LANDMARKS, 3)
    points[..., :2] = torch.rand(NUM_LANDMARKS, 2) * 200 + 20
    with torch.no_grad():
        net.mean_shape.copy_(points[0])
        net.shape_basis.weight.zero_()
        assert torch.equal(net(images), points)  # untrained they correct nothing
        for refiner in net.refiners.values():
            refiner.offsets.bias.fill_(0.1)
        moved = (net(images) - points).abs().sum(-1)[0] > 0
    assert moved[list(mesh.RIGHT_EYE + mesh.LEFT_EYE + mesh.LEFT_IRIS + mesh.OUTER_LIPS)].all()
    assert not moved[list(mesh.OVAL + mesh.NOSE)].any()


def test_a_mirrored_face_gets_mirrored_corrections(astronaut):
    torch.manual_seed(0)
    net = LandmarkNet(refiner_channels=(8, 16)).eval()
    crop = torch.from_numpy(astronaut[:256, 96:352].copy()).permute(2, 0, 1)[None] / 255.0
    shape = ShapePrior.from_pretrained(PACKAGED_WEIGHTS / "medeid-tiny" / "shape_prior").mean.float().view(478, 3)
    with torch.no_grad():
        net.shape_basis.weight.zero_()
        torch.nn.init.normal_(net.refiners["eye"].offsets.weight, std=0.01)
        net.mean_shape.copy_(shape)
        straight = net(crop)[0, list(mesh.RIGHT_EYE)]
        net.mean_shape.copy_(mesh.flip_landmarks(shape))
        flipped = mesh.flip_landmarks(net(crop.flip(-1))[0])[list(mesh.RIGHT_EYE)]
    torch.testing.assert_close(straight, flipped, atol=0.02, rtol=0)
