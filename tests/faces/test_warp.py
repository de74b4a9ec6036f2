import numpy as np
import pytest

from medeid.faces.canvas import Canvas
from medeid.faces.mesh import OVAL, flip_landmarks
from medeid.faces.warp import Warp

SIZE = 256


@pytest.fixture
def warp() -> Warp:
    handles = np.array([[100, 120], [150, 120], [128, 90], [128, 160], [60, 60]])
    moves = np.array([[6, 4], [-3, 5], [0, 0], [0, 0], [0, 0]])
    return Warp.from_handles(SIZE, handles, moves, reach=60)


def canvas(face) -> Canvas:
    return Canvas(np.float32(face[0] / 255), face[1])


def test_handles_go_where_they_are_told(warp):
    assert warp.displacement(np.array([[100, 120], [150, 120], [128, 90]])) == pytest.approx(
        np.array([[6, 4], [-3, 5], [0, 0]]), abs=0.2
    )


def test_picture_and_points_move_alike(warp):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    for point in rng.uniform([80, 90], [170, 150], (20, 2)):
        dot = np.float32(np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * 1.5**2)))
        moved = warp.image(dot)
        moved[moved < 0.3] = 0
        centre = np.array([(moved * x).sum(), (moved * y).sum()]) / moved.sum()
        assert np.linalg.norm(centre - warp.points(point[None])[0]) < 0.3


def test_nothing_moves_beyond_the_reach(warp):
    picture = np.float32(np.random.default_rng(0).random((SIZE, SIZE, 3)))
    moved = warp.image(picture)
    assert np.array_equal(moved[:, 215:], picture[:, 215:]) and np.array_equal(moved[225:], picture[225:])
    assert not np.array_equal(moved, picture)


def test_torn_field_is_weakened_until_it_does_not_fold():
    torn = Warp.from_handles(SIZE, np.array([[120, 128], [124, 128]]), np.array([[20, 0], [-20, 0]]), reach=40)
    columns = torn.points(np.stack([np.arange(80.0, 180.0, 0.5), np.full(200, 128.0)], 1))[:, 0]
    assert (np.diff(columns) > 0).all()
    assert np.abs(torn.field).max() > 0.5


def test_left_half_moves_as_the_mirror_image_of_the_right_one(light_face):
    mirrored = light_face[0][:, ::-1], flip_landmarks(light_face[1])
    moves = {61: (-0.03, 0.05), 205: (0.0, 0.03), 0: (-0.02, 0.0), 214: (-0.01, 0.03)}
    right = Warp.of_face(canvas(light_face), "right", moves, OVAL, reach=0.5)
    left = Warp.of_face(canvas(mirrored), "left", moves, OVAL, reach=0.5)
    assert left.field[:, ::-1] * [-1, 1] == pytest.approx(right.field, abs=0.3)
    assert np.abs(right.field).max() > 1


def test_background_and_hair_stay(light_face):
    face = canvas(light_face)
    warp = Warp.of_face(face, "right", {61: (-0.05, 0.08)}, OVAL, reach=0.6)
    outside = face.region("face") == 0
    assert np.array_equal(warp.image(face.image)[outside], face.image[outside])
