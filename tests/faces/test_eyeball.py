import numpy as np
import pytest

from medeid.faces.canvas import Canvas, NotVisibleError
from medeid.faces.eyeball import IRIS_DEPTH, IRIS_RADIUS, EyeLayers
from medeid.faces.mesh import LEFT_EYE, RIGHT_EYE


def eye_of(face, side: str = "left", image: np.ndarray | None = None, landmarks: np.ndarray | None = None) -> EyeLayers:
    image = face[0] if image is None else image
    return EyeLayers(Canvas(image.astype(np.float32) / 255, face[1] if landmarks is None else landmarks), side)


@pytest.mark.parametrize("side", ["left", "right"])
def test_close_up_gives_the_picture_back(side, light_face):
    eye = eye_of(light_face, side)
    back = eye.reduced(eye.picture)
    inside = eye.reduced(np.ones_like(eye.picture[..., 0])) > 0
    assert inside.sum() > 1000
    assert np.abs(back - light_face[0] / 255)[inside].max() < 1 / 255


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_nose_is_on_the_right_and_points_go_both_ways(side, light_face):
    eye = eye_of(light_face, side)
    assert eye.inner[0] > eye.outer[0]
    points = eye.canvas.points[list(LEFT_EYE if side == "left" else RIGHT_EYE)]
    np.testing.assert_allclose(eye.from_work(eye.to_work(points)), points, atol=1e-4)


def test_lengths_are_in_millimetres(light_face):
    eye = eye_of(light_face)
    assert eye.iris_disc[1] / eye.mm == pytest.approx(IRIS_RADIUS, abs=0.7)
    above, below = eye.margin_distances
    assert above + below == pytest.approx(eye.open[eye.pupil_column], abs=1e-4)


def test_eyeball_is_whole_behind_the_lids(drawn_eyes):
    eye = eye_of(drawn_eyes)
    ball = eye.eyeball((0.0, 0.0))
    centre, radius = eye.iris_disc
    for angle in np.radians([0, 90, 180, 270]):  # the lids hide the upper part of the iris
        x, y = np.rint(centre + 0.7 * radius * np.array([np.cos(angle), np.sin(angle)])).astype(int)
        assert ball[y, x, 2] > 2 * ball[y, x, 0], "blue is missing"
    x, y = np.rint(centre - [0, 1.4 * radius]).astype(int)
    assert ball[y, x].min() > 0.6, "white is missing above the iris"


def test_turn_is_a_rotation(light_face):
    eye = eye_of(light_face)
    shift, squeeze = eye.turned((30.0, 0.0))
    assert np.linalg.norm(shift) == pytest.approx(0.5 * IRIS_DEPTH * eye.mm)
    assert shift[0] > 0
    np.testing.assert_allclose(squeeze, [np.cos(np.pi / 6), 1.0])


def test_glints_stay_behind_the_iris(drawn_eyes):
    image, landmarks = drawn_eyes
    x, y = np.rint(landmarks[473, :2]).astype(int)
    image = image.copy()
    image[y, x - 1 : x + 1] = 255
    eye = eye_of((image, landmarks))
    moved = eye.turned((15.0, 0.0))[0][0]
    glint = [np.clip(eye.eyeball(turn)[..., 0] - 0.4, 0, None) for turn in ((0.0, 0.0), (15.0, 0.0))]
    column = []
    for picture, shift in zip(glint, (0.0, moved), strict=True):
        centre = eye.iris_disc[0] + [shift, 0]
        disc = np.hypot(eye.x - centre[0], eye.y - centre[1]) < 0.6 * eye.iris_disc[1]
        column.append((picture * disc * eye.x).sum() / (picture * disc).sum())
    assert 0.3 * moved < column[1] - column[0] < 0.8 * moved


def test_closed_eye_is_refused(light_face):
    landmarks = light_face[1].copy()
    landmarks[list(LEFT_EYE[9:])] = landmarks[list(LEFT_EYE[7:0:-1])] + [0, 1, 0]
    with pytest.raises(NotVisibleError, match="left eye is closed"):
        eye_of(light_face, landmarks=landmarks)
    eye_of(light_face, "right", landmarks=landmarks)


def test_eye_behind_dark_glasses_is_refused(light_face):
    image = light_face[0].copy()
    image[90:150] = 8
    with pytest.raises(NotVisibleError, match="dark glasses"):
        eye_of(light_face, image=image)


def test_eye_turned_away_is_refused(light_face):
    landmarks = light_face[1].copy()
    middle = landmarks[list(LEFT_EYE)].mean(0)
    landmarks[list(LEFT_EYE), 0] = middle[0] + 0.25 * (landmarks[list(LEFT_EYE), 0] - middle[0])
    with pytest.raises(NotVisibleError, match="turned out of sight"):
        eye_of(light_face, landmarks=landmarks)
