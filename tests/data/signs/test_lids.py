import numpy as np
import pytest

from medeid.data.simulate import simulate
from medeid.faces.eyeball import IRIS_RADIUS
from medeid.faces.mesh import LEFT_EYE, LEFT_IRIS
from medeid.manifestations.taxonomy import Finding

SEVERITIES = (0.1, 0.3, 0.6, 1.0)


def with_sign(face, name: str, severity: float, side: str = "left", seed: int = 0):
    return simulate(*face, [Finding(name, side, severity)], np.random.default_rng(seed))


def margin_distances(landmarks: np.ndarray) -> np.ndarray:
    """MRD1 and MRD2 of the left eye in mm."""
    contour, iris = landmarks[list(LEFT_EYE), :2], landmarks[list(LEFT_IRIS), :2]
    mm = np.linalg.norm(iris[1:] - iris[0], axis=1).mean() / IRIS_RADIUS
    upper, lower = contour[8::-1], np.concatenate([contour[8:], contour[:1]])
    heights = [np.interp(iris[0, 0], line[:, 0], line[:, 1]) for line in (upper, lower)]
    return np.array([iris[0, 1] - heights[0], heights[1] - iris[0, 1]]) / mm


def after(face, name: str, severity: float) -> np.ndarray:
    return margin_distances(with_sign(face, name, severity).landmarks)


@pytest.mark.parametrize("skin", ["light_face", "dark_face"])
def test_ptosis_lowers_the_lid_by_its_anchors(skin, request):
    face = request.getfixturevalue(skin)
    own = margin_distances(face[1])[0]
    mild, half, severe = (after(face, "ptosis", severity)[0] for severity in (0.3, 0.6, 1.0))
    assert mild == pytest.approx(own - 1.0, abs=0.15)
    assert half <= 1.1  # within the pupil, whose radius is some 2 mm
    assert severe < 0 and after(face, "ptosis", 1.0).sum() > 0.5  # below its middle, but not shut


def blue(image: np.ndarray, landmarks: np.ndarray) -> int:
    """How many pixels of the iris of the left eye show."""
    x, y = np.rint(landmarks[473, :2]).astype(int)
    part = image[y - 10 : y + 11, x - 14 : x + 15].astype(int)
    return int((part[..., 2] > 1.6 * part[..., 0]).sum())


def test_ptosis_hides_the_iris(drawn_eyes):
    shown = [blue(*drawn_eyes)]
    for severity in SEVERITIES:
        shown.append(blue(with_sign(drawn_eyes, "ptosis", severity).image, drawn_eyes[1]))
    assert all(np.diff(shown) < 0)
    assert shown[-1] < 0.5 * shown[0]


def test_ptosis_raises_the_brow_of_some(light_face):
    heights = [with_sign(light_face, "ptosis", 0.8, seed=seed).landmarks[334, 1] for seed in range(12)]
    rise = light_face[1][334, 1] - np.array(heights)
    assert (rise > 0.3).any() and (rise == 0).any() and (rise >= 0).all()


@pytest.mark.parametrize("name", ["lid_retraction", "proptosis"])
@pytest.mark.parametrize("skin", ["light_face", "dark_face"])
def test_lids_part_more_with_severity(name, skin, request):
    face = request.getfixturevalue(skin)
    apart = np.array([margin_distances(face[1])] + [after(face, name, severity) for severity in SEVERITIES])
    assert all(np.diff(apart[:, 0]) > 0.2)
    assert all(np.diff(apart[:, 1]) > (-1e-3 if name == "lid_retraction" else 0.1))


def test_lid_retraction_shows_white_above_the_iris(drawn_eyes):
    assert after(drawn_eyes, "lid_retraction", 0.3)[0] == pytest.approx(IRIS_RADIUS, abs=0.5)
    result = with_sign(drawn_eyes, "lid_retraction", 1.0)
    x, y = result.landmarks[473, :2]
    top = round(float(y - np.ptp(result.landmarks[list(LEFT_IRIS), 1]) / 2))
    white = result.image[top - 4 : top, round(float(x))].astype(int)
    assert (white[:, 0] > 0.9 * white[:, 2]).any() and white.max() > 130


def test_proptosis_shows_white_below_and_enlarges_the_eye(drawn_eyes):
    image, landmarks = drawn_eyes
    result = with_sign(drawn_eyes, "proptosis", 1.0)
    assert after(drawn_eyes, "proptosis", 1.0)[1] > IRIS_RADIUS + 1.0
    for points in (list(LEFT_IRIS), list(LEFT_EYE)):
        assert 1.01 < np.ptp(result.landmarks[points, 0]) / np.ptp(landmarks[points, 0]) < 1.12


@pytest.mark.parametrize("name", ["ptosis", "lid_retraction", "proptosis"])
def test_cases_differ(name, light_face):
    one, other = (with_sign(light_face, name, 0.7, seed=seed).landmarks for seed in (1, 2))
    assert np.abs(one - other)[list(LEFT_EYE)].max() > 0.02


def test_ptosis_leaves_a_slit_of_a_narrow_eye(light_face):
    landmarks = light_face[1].copy()
    middle = landmarks[list(LEFT_EYE), 1].mean()
    landmarks[list(LEFT_EYE), 1] = middle + 0.6 * (landmarks[list(LEFT_EYE), 1] - middle)
    apart = [after((light_face[0], landmarks), "ptosis", severity).sum() for severity in SEVERITIES]
    assert all(np.diff(apart) < -0.2) and apart[-1] > 0.3
