import numpy as np
import pytest

from medeid.data.simulate import simulate
from medeid.faces.canvas import NotVisibleError
from medeid.faces.eyeball import IRIS_DEPTH, IRIS_RADIUS
from medeid.faces.mesh import LEFT_EYE, LEFT_IRIS, RIGHT_EYE, RIGHT_IRIS
from medeid.manifestations.taxonomy import Finding

IRIS = {"left": LEFT_IRIS, "right": RIGHT_IRIS}
EYE = {"left": LEFT_EYE, "right": RIGHT_EYE}


def with_sign(face, name: str, severity: float, side: str = "left", seed: int = 0):
    return simulate(*face, [Finding(name, side, severity)], np.random.default_rng(seed))


def turned_by(face, name: str, severity: float, side: str) -> np.ndarray:
    """How far the iris moved towards the nose and upwards, in mm."""
    before, after = face[1], with_sign(face, name, severity, side).landmarks
    iris = list(IRIS[side])
    mm = np.linalg.norm(before[iris[1:], :2] - before[iris[0], :2], axis=1).mean() / IRIS_RADIUS
    axis = before[EYE[side][8], :2] - before[EYE[side][0], :2]
    axis /= np.linalg.norm(axis)
    up = np.array([axis[1], -axis[0]]) if axis[0] > 0 else np.array([-axis[1], axis[0]])
    return np.stack([axis, up]) @ (after - before)[iris[0], :2] / mm


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("skin", ["light_face", "dark_face"])
def test_the_iris_goes_where_the_name_says(side, skin, request):
    face = request.getfixturevalue(skin)
    for name, direction in (("esotropia", [1, 0]), ("exotropia", [-1, 0]), ("hypertropia", [0, 1])):
        ways = np.array([turned_by(face, name, severity, side) for severity in (0.1, 0.3, 0.6, 1.0)])
        along = ways @ direction
        assert along[0] > 0.5 and all(np.diff(along) > 0.3), name
        assert all(np.abs(ways - along[:, None] * direction).max(1) < 0.5), name  # hardly any other way


@pytest.mark.parametrize(("severity", "angle"), [(0.3, 10.0), (1.0, 24.0)])
def test_severity_is_an_angle(severity, angle, light_face):
    rise = turned_by(light_face, "hypertropia", severity, "left")[1]
    assert np.degrees(np.arcsin(rise / IRIS_DEPTH)) == pytest.approx(angle, abs=0.3)


@pytest.mark.parametrize("name", ["esotropia", "exotropia"])
def test_lids_stay_when_the_eye_turns_sideways(name, light_face):
    landmarks = with_sign(light_face, name, 1.0).landmarks
    others = np.setdiff1d(np.arange(478), LEFT_IRIS)
    np.testing.assert_array_equal(landmarks[others], light_face[1][others])


def test_lids_follow_an_eye_that_turns_up(light_face):
    rise = light_face[1] - with_sign(light_face, "hypertropia", 1.0).landmarks
    iris, upper, lower = rise[473, 1], rise[386, 1], rise[374, 1]
    assert 0.2 * iris < upper < 0.6 * iris and 0 < lower < upper


def test_white_shows_where_the_iris_was(drawn_eyes):
    image, landmarks = drawn_eyes
    result = with_sign(drawn_eyes, "esotropia", 0.9)
    x, y = landmarks[473, :2]
    radius = np.ptp(landmarks[list(LEFT_IRIS), 0]) / 2
    place = round(float(y)) + 1, round(float(x + 0.5 * radius))  # on the outer half of the iris
    assert image[place][0] < 60 and result.image[place].min() > 130


def test_mask_is_the_opening_of_the_lids(light_face):
    mask = with_sign(light_face, "exotropia", 0.5).masks[0]
    rows, columns = np.nonzero(mask)
    contour = light_face[1][list(LEFT_EYE), :2]
    assert columns.min() == pytest.approx(contour[:, 0].min(), abs=1.5)
    assert columns.max() == pytest.approx(contour[:, 0].max(), abs=1.5)
    assert rows.min() == pytest.approx(contour[:, 1].min(), abs=1.5)
    assert rows.max() == pytest.approx(contour[:, 1].max(), abs=1.5)


def test_eye_that_looks_outwards_already_cannot_turn_further(light_face):
    landmarks = light_face[1].copy()
    outer = landmarks[LEFT_EYE[0], 0]
    landmarks[list(LEFT_IRIS), 0] += outer - 4.0 - landmarks[473, 0]
    with pytest.raises(NotVisibleError, match="cannot turn further"):
        with_sign((light_face[0], landmarks), "exotropia", 0.5)
