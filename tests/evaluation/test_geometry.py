from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from medeid.data.faces import FaceFolder
from medeid.data.simulate import simulate
from medeid.evaluation.geometry import (
    SHAPE_SIGNS,
    asymmetries,
    brow_asymmetry,
    draw_shape_sign,
    geometry_errors,
    head_pose,
    iris_offsets,
    lid_apertures,
    margin_reflex_distances,
    mouth_corner_asymmetry,
    slopes,
)
from medeid.faces.mesh import (
    LEFT_BROW,
    LEFT_EYE,
    LEFT_IRIS,
    MOUTH_CORNERS,
    NOSE_TIP,
    RIGHT_EYE,
    RIGHT_IRIS,
    flip_landmarks,
    inter_ocular_distance,
)
from medeid.manifestations.taxonomy import Finding

FACES = Path(__file__).parents[2] / "examples" / "faces"


@pytest.fixture(scope="module")
def face() -> tuple[np.ndarray, np.ndarray]:
    folder = FaceFolder(FACES, "train")
    return folder.image(8), folder.landmarks(8)


@pytest.mark.parametrize(
    ("name", "side", "index", "sign"),
    [
        ("ptosis", "left", 0, -1),
        ("ptosis", "right", 0, 1),
        ("esotropia", "left", 1, -1),
        ("facial_palsy", "left", 2, 1),
    ],
)
def test_signs_on_one_side_are_asymmetric(face, name, side, index, sign):
    after = simulate(*face, [Finding(name, side, 0.8)], np.random.default_rng(0)).landmarks
    before, after = (asymmetries(torch.from_numpy(points)[None])[0] for points in (face[1], after))
    assert sign * (after - before)[index] > 0.01


def test_slope_is_the_share_of_the_asymmetry_that_is_seen():
    true = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert slopes(true * torch.tensor([1.0, 0.5, 0.0]) + 2.0, true) == pytest.approx(
        {"aperture": 1.0, "gaze": 0.5, "mouth": 0.0}, abs=1e-5
    )


def test_drawn_signs_change_the_shape():
    drawn = {draw_shape_sign(np.random.default_rng(seed)).manifestation for seed in range(200)}
    assert drawn == set(SHAPE_SIGNS)


@pytest.fixture
def points(face) -> torch.Tensor:
    """[1, 478, 3]: the face made symmetric, its eyes level."""
    landmarks = torch.from_numpy(face[1]).double()[None]
    return (landmarks + flip_landmarks(landmarks)) / 2


def _turned(points: torch.Tensor, yaw: float, pitch: float, roll: float) -> torch.Tensor:
    # A positive angle about the axis downwards turns a face to the image's left.
    rotation = Rotation.from_euler("ZYX", (roll, -yaw, pitch), degrees=True).as_matrix()
    centre = points.mean(1, keepdim=True)
    return (points - centre) @ torch.from_numpy(rotation).T + centre


def test_pose_of_a_turned_mesh(points):
    level = head_pose(points)[0]
    assert level[[0, 2]].abs().max() < 1e-6 and level[1].abs() < 20
    for angles in ((25.0, 0.0, 0.0), (0.0, -15.0, 0.0), (0.0, 0.0, 30.0), (-40.0, 12.0, -8.0)):
        turn = head_pose(_turned(points, *angles))[0] - level
        torch.testing.assert_close(turn, torch.tensor(angles).double(), atol=1e-4, rtol=0)


def test_the_nose_points_where_the_head_is_turned(points):
    def nose(turned: torch.Tensor) -> torch.Tensor:
        return (turned[:, NOSE_TIP] - turned.mean(1))[0, :2]

    assert nose(_turned(points, 20.0, 0.0, 0.0))[0] > nose(points)[0] + 5
    assert nose(_turned(points, 0.0, 20.0, 0.0))[1] > nose(points)[1] + 5


def test_a_symmetric_face_has_no_asymmetry_however_it_is_tilted(points):
    tilted = 0.5 * _turned(points, 0.0, 0.0, 20.0)
    for turned in (points, tilted):
        assert mouth_corner_asymmetry(turned).abs().max() < 1e-6
        assert brow_asymmetry(turned).abs().max() < 1e-6
        for measure in (lid_apertures, margin_reflex_distances):
            right, left = measure(turned)[0]
            assert right == pytest.approx(left.item()) and 0.02 < right < 0.2
            torch.testing.assert_close(measure(turned), measure(points))
        offsets = iris_offsets(turned)[0]
        torch.testing.assert_close(offsets[0] * torch.tensor([-1.0, 1.0]), offsets[1])


def test_a_lid_that_droops_is_a_smaller_reflex_distance(points):
    drooping = points.clone()
    down = 0.3 * inter_ocular_distance(points).item()
    drooping[:, list(LEFT_EYE[1:8]), 1] += down
    change = margin_reflex_distances(drooping) - margin_reflex_distances(points)
    torch.testing.assert_close(change, torch.tensor([[0.0, -0.3]]).double())
    assert margin_reflex_distances(drooping)[0, 1] < 0.0
    assert lid_apertures(drooping)[0, 0] == lid_apertures(points)[0, 0]


def test_reflex_distance_is_taken_at_the_iris(points):
    eye = points.clone()
    unit = inter_ocular_distance(points).item()
    eye[:, list(RIGHT_EYE[:9]), 0] = 50.0 + 5.0 * torch.arange(9).double()
    eye[:, list(RIGHT_EYE[:9]), 1] = 100.0 - torch.tensor([0, 4, 6, 8, 8, 8, 6, 4, 0]).double()
    eye[:, RIGHT_IRIS[0], :2] = torch.tensor([52.5, 101.0])
    # The eyes stay level, and as far apart, by the corner on the other side.
    eye[:, LEFT_EYE[0], :2] = torch.tensor([50.0 + unit, 100.0])
    assert margin_reflex_distances(eye)[0, 0] == pytest.approx(3.0 / unit)
    eye[:, RIGHT_EYE[3], :2] = eye[:, RIGHT_EYE[4], :2]  # two points of a turned head in one place
    assert margin_reflex_distances(eye)[0, 0] == pytest.approx(3.0 / unit)


def test_what_hangs_or_squints_is_measured(points):
    unit = inter_ocular_distance(points).item()
    changed = points.clone()
    changed[:, MOUTH_CORNERS[1], 1] += 0.1 * unit
    changed[:, list(LEFT_BROW), 1] += 0.05 * unit
    changed[:, LEFT_IRIS[0], :2] += torch.tensor([-0.04, 0.02]) * unit
    assert mouth_corner_asymmetry(changed).item() == pytest.approx(0.1)
    assert brow_asymmetry(changed).item() == pytest.approx(0.05)
    offsets = (iris_offsets(changed) - iris_offsets(points))[0]
    torch.testing.assert_close(offsets, torch.tensor([[0.0, 0.0], [-0.04, 0.02]]).double())
    # Half of the faces are changed, and half of the sides.
    errors = geometry_errors(torch.cat([changed, points]), torch.cat([points, points]))
    assert errors["lid_aperture"] == pytest.approx(0.0, abs=1e-9)
    assert errors["mouth_corner_asymmetry"] == pytest.approx(0.1 / 2)
    assert errors["brow_asymmetry"] == pytest.approx(0.05 / 2)
    assert errors["iris_offset"] == pytest.approx((0.04 + 0.02) / 8)
    reflexes = margin_reflex_distances(changed) - margin_reflex_distances(points)
    assert errors["margin_reflex_distance"] == pytest.approx(reflexes.abs().sum().item() / 4)
    assert max(errors["yaw"], errors["pitch"], errors["roll"]) < 1e-6


def test_pose_errors_are_in_degrees(points):
    errors = geometry_errors(_turned(points, 6.0, 0.0, 0.0), points)
    assert errors["yaw"] == pytest.approx(6.0, abs=1e-4) and errors["roll"] == pytest.approx(0.0, abs=1e-4)
