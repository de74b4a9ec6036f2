import cv2
import numpy as np
import pytest

from medeid.data.signs.close_up import CloseUp
from medeid.data.simulate import simulate
from medeid.faces.canvas import Canvas, NotVisibleError
from medeid.faces.mesh import LEFT_EYE
from medeid.manifestations.taxonomy import Finding

SEVERITIES = (0.3, 0.6, 1.0)
ON_THE_EYE = ("conjunctival_injection", "subconjunctival_haemorrhage", "pterygium", "leukocoria")


def lab(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.float32(image / 255), cv2.COLOR_RGB2LAB)


def close_up(face, side="left") -> CloseUp:
    return CloseUp(Canvas(face[0].astype(np.float32) / 255, face[1]), side)


def shown(face, name: str, severity: float, side="left", seed: int = 0):
    return simulate(*face, [Finding(name, side, severity)], np.random.default_rng(seed))


def mean_over(values: np.ndarray, weight: np.ndarray) -> float:
    return float((values * weight).sum() / weight.sum())


@pytest.mark.parametrize("skin", ["light_face", "dark_face"])
def test_injection_reddens_the_white_more_with_severity(skin, request):
    face = request.getfixturevalue(skin)
    eye = close_up(face)
    white = eye.shrink(eye.white)
    red = [mean_over(lab(face[0])[..., 1], white)]
    red += [mean_over(lab(shown(face, "conjunctival_injection", s).image)[..., 1], white) for s in SEVERITIES]
    assert all(np.diff(red) > 2.0), red


def test_injection_leaves_the_iris(light_face):
    eye = close_up(light_face)
    iris = eye.shrink((eye.from_limbus < -1.0) * eye.between_lids) > 0.9
    after = shown(light_face, "conjunctival_injection", 1.0).image
    assert np.abs(after[iris].astype(int) - light_face[0][iris]).max() <= 3


def test_haemorrhage_covers_the_stated_share_of_the_white(light_face):
    eye = close_up(light_face)
    white = eye.shrink(eye.white) > 0.5
    shares = []
    for severity in SEVERITIES:
        masks = [shown(light_face, "subconjunctival_haemorrhage", severity, seed=seed).masks[0] for seed in range(5)]
        shares.append(np.mean([(mask & white).sum() / white.sum() for mask in masks]))
    assert shares[0] == pytest.approx(0.36, abs=0.12)
    assert shares[2] > 0.85
    assert shares[0] < shares[1] < shares[2]


def test_haemorrhage_is_blood_red_with_a_sharp_edge(light_face):
    result = shown(light_face, "subconjunctival_haemorrhage", 0.5)
    eye = close_up(light_face)
    white = eye.shrink(eye.white) > 0.9
    blood = cv2.erode(result.masks[0].astype(np.uint8), np.ones((2, 2))) > 0
    red = lab(result.image)[..., 1] - lab(light_face[0])[..., 1]
    assert np.median(red[blood & white]) > 25
    beyond = cv2.dilate(result.masks[0].astype(np.uint8), np.ones((5, 5))) == 0
    assert np.abs(red[white & beyond]).max() < 3


@pytest.mark.parametrize("severity", SEVERITIES)
def test_pterygium_reaches_as_far_onto_the_cornea_as_stated(light_face, severity):
    eye = close_up(light_face)
    depth = np.where(eye.between_lids > 0.5, -eye.from_limbus, -np.inf)
    reached = []
    for seed in range(6):
        mask = shown(light_face, "pterygium", severity, seed=seed).masks[0].astype(np.float32)
        reached.append(depth[eye.enlarge(mask) > 0.5].max())
    assert np.median(reached) == pytest.approx(0.5 + 3.0 * severity, abs=0.8)


def test_pterygium_grows_mostly_from_the_nasal_side(light_face):
    eye = close_up(light_face)
    nasal = 0
    for seed in range(20):
        mask = shown(light_face, "pterygium", 0.6, seed=seed).masks[0].astype(np.float32)
        nasal += eye.xy[..., 0][eye.enlarge(mask) > 0.5].mean() > 0
    assert 14 <= nasal < 20


def test_pterygium_pales_the_dark_iris(dark_face):
    eye = close_up(dark_face)
    result = shown(dark_face, "pterygium", 0.9)
    on_iris = result.masks[0] & (eye.shrink((eye.from_limbus < -0.8).astype(np.float32)) > 0.9)
    assert on_iris.any()
    assert (lab(result.image) - lab(dark_face[0]))[on_iris][:, 0].mean() > 10


@pytest.mark.parametrize("skin", ["light_face", "dark_face"])
def test_the_pupil_brightens_with_severity_and_the_rim_of_the_iris_stays(skin, request):
    face = request.getfixturevalue(skin)
    eye = close_up(face)
    rim = eye.shrink((np.abs(eye.from_limbus + 0.7) < 0.3) * eye.between_lids) > 0.6
    brightness = []
    for severity in SEVERITIES:
        result = shown(face, "leukocoria", severity)
        brightness.append((lab(result.image) - lab(face[0]))[result.masks[0]][:, 0].mean())
        assert np.abs(result.image[rim].astype(int) - face[0][rim]).max() <= 2
    assert brightness[0] > 4
    assert all(np.diff(brightness) > 4)


def test_leukocoria_keeps_the_glint(light_face):
    eye = close_up(light_face)
    sparks = eye.glint > 0.9
    after = lab(shown(light_face, "leukocoria", 1.0).image)[..., 0]
    assert (after[sparks] > lab(light_face[0])[..., 0][sparks] - 6).all()


@pytest.mark.parametrize("name", ON_THE_EYE)
@pytest.mark.parametrize(("side", "other"), [("left", np.s_[:, :118]), ("right", np.s_[:, 138:])])
def test_the_other_eye_stays_healthy(light_face, name, side, other):
    result = shown(light_face, name, 1.0, side)
    np.testing.assert_array_equal(result.image[other], light_face[0][other])
    assert result.masks[0].any() and not result.masks[0][other].any()


@pytest.mark.parametrize("name", ON_THE_EYE)
def test_a_closed_eye_is_refused(light_face, name):
    image, landmarks = light_face
    closed = landmarks.copy()
    for upper, lower in zip(LEFT_EYE[1:8], LEFT_EYE[:8:-1], strict=True):
        closed[upper] = closed[lower] - [0, 0.3, 0]
    with pytest.raises(NotVisibleError, match="left eye does not show"):
        shown((image, closed), name, 0.6)


@pytest.mark.parametrize("name", ON_THE_EYE)
def test_the_same_state_paints_the_same_bytes(dark_face, name):
    first, second = (shown(dark_face, name, 0.7, seed=3).image for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (first != shown(dark_face, name, 0.7, seed=4).image).any()
