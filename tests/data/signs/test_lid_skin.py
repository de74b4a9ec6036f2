import cv2
import numpy as np
import pytest

from medeid.data.signs.close_up import CloseUp
from medeid.data.simulate import simulate
from medeid.faces.canvas import Canvas
from medeid.manifestations.taxonomy import Finding

SEVERITIES = (0.3, 0.6, 1.0)
ON_THE_LIDS = ("chalazion", "blepharitis", "periorbital_ecchymosis", "xanthelasma")


def lab(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.float32(image / 255), cv2.COLOR_RGB2LAB)


def close_up(face, side="left") -> CloseUp:
    return CloseUp(Canvas(face[0].astype(np.float32) / 255, face[1]), side)


def shown(face, name: str, severity: float, side="left", seed: int = 0):
    return simulate(*face, [Finding(name, side, severity)], np.random.default_rng(seed))


def difference(face, result) -> np.ndarray:
    """float32 [S, S, 3]: what the sign adds in CIELAB."""
    return lab(result.image) - lab(face[0])


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_chalazion_is_a_round_lump_of_the_stated_size(light_face, severity):
    eye = close_up(light_face)
    expected = 2.4 + 5.6 * severity
    for seed in range(6):
        mask = shown(light_face, "chalazion", severity, seed=seed).masks[0]
        if severity < 0.5 and mask.sum() < 9:  # too few pixels to tell a shape
            continue
        (_, (width, height), _) = cv2.minAreaRect(np.argwhere(mask).astype(np.float32))
        diameter = 2 * np.sqrt(mask.sum() / np.pi) / eye.mm
        assert diameter == pytest.approx(expected, rel=0.3)
        assert max(width, height) < 2.0 * (min(width, height) + 1)


def test_a_chalazion_has_a_light_and_a_dark_side(light_face):
    light = Canvas(light_face[0].astype(np.float32) / 255, light_face[1]).light
    for seed in range(4):
        result = shown(light_face, "chalazion", 1.0, seed=seed)
        y, x = np.nonzero(result.masks[0])
        towards = (x - x.mean()) * light[0] + (y - y.mean()) * light[1]
        brighter = difference(light_face, result)[y, x, 0]
        assert brighter[towards > 1].mean() > brighter[towards < -1].mean() + 3


def test_about_a_third_of_lumps_are_hordeola_with_a_yellow_point(light_face):
    yellow = 0
    for seed in range(30):
        result = shown(light_face, "chalazion", 0.8, seed=seed)
        added = difference(light_face, result)[result.masks[0]]
        yellow += np.percentile(added[:, 2] - added[:, 1], 97) > 2
    assert 4 <= yellow <= 18


@pytest.mark.parametrize("skin", ["light_face", "dark_face"])
def test_blepharitis_reddens_the_whole_margin_of_both_lids(skin, request):
    face = request.getfixturevalue(skin)
    eye = close_up(face)
    x, outside = eye.xy[..., 0], 1.0 - eye.between_lids
    mean_red = []
    for severity in SEVERITIES:
        result = shown(face, "blepharitis", severity)
        red = difference(face, result)[..., 1]
        parts = []
        for lid in ("upper", "lower"):
            for low, high in ((-7, -2), (-2, 2), (2, 7)):
                gap = eye.from_lid(lid)
                margin = eye.shrink(((x > low) & (x < high) & (gap > 0.2) & (gap < 1.6)) * outside)
                parts.append((red * margin).sum() / margin.sum())
        assert min(parts) > 0.2
        mean_red.append(np.mean(parts))
    assert all(np.diff(mean_red) > 0.8)
    assert mean_red[0] > 1.0


def test_blepharitis_sheds_crusts_paler_than_the_skin_beside_them(light_face):
    result = shown(light_face, "blepharitis", 1.0)
    lighter = difference(light_face, result)[..., 0]
    flecks = (lighter - cv2.GaussianBlur(lighter, (0, 0), 2))[result.masks[0]]
    assert np.percentile(flecks, 95) > 4


@pytest.mark.parametrize("skin", ["light_face", "dark_face"])
def test_a_bruise_darkens_the_lids_more_with_severity(skin, request):
    face = request.getfixturevalue(skin)
    eye = close_up(face)
    below = (eye.from_lid("lower") > 1) & (eye.from_lid("lower") < 8) & (np.abs(eye.xy[..., 0]) < 8)
    below = eye.shrink(below) > 0.5
    darker = [difference(face, shown(face, "periorbital_ecchymosis", s))[below][:, 0].mean() for s in SEVERITIES]
    assert darker[0] < -2
    assert all(np.diff(darker) < -1.5)


def test_a_bruise_turns_from_purple_to_yellow(light_face):
    """The age is drawn: the seeds give fresh and old ones."""
    hues = []
    for seed in range(12):
        result = shown(light_face, "periorbital_ecchymosis", 0.8, seed=seed)
        added = difference(light_face, result)[result.masks[0]].mean(0)
        hues.append(np.degrees(np.arctan2(added[2], added[1])))
    assert min(hues) < 20  # red to purple
    assert max(hues) > 60  # yellow


def test_a_bruise_stays_within_the_orbit_and_off_the_eye(light_face):
    eye = close_up(light_face)
    for seed in range(4):
        mask = shown(light_face, "periorbital_ecchymosis", 1.0, seed=seed).masks[0]
        y, x = np.nonzero(mask)
        place = eye.to_mm(np.stack([x, y], 1))
        assert np.abs(place[:, 1]).max() < 36
        globe = eye.shrink(eye.between_lids) > 0.99
        np.testing.assert_array_equal(
            shown(light_face, "periorbital_ecchymosis", 1.0, seed=seed).image[globe], light_face[0][globe]
        )


@pytest.mark.parametrize("skin", ["light_face", "dark_face"])
def test_xanthelasma_is_yellow_and_paler_than_the_skin(skin, request):
    face = request.getfixturevalue(skin)
    for seed in range(4):
        result = shown(face, "xanthelasma", 0.8, seed=seed)
        added = difference(face, result)[result.masks[0]].mean(0)
        assert added[0] > 2 and added[2] > 6


def test_xanthelasma_grows_and_lies_near_the_nose(light_face):
    eye = close_up(light_face)
    areas = []
    for severity in SEVERITIES:
        masks = [shown(light_face, "xanthelasma", severity, seed=seed).masks[0] for seed in range(6)]
        areas.append(np.mean([mask.sum() for mask in masks]) / eye.mm**2)
        y, x = np.nonzero(np.any(masks, axis=0))
        assert np.median(eye.to_mm(np.stack([x, y], 1))[:, 0]) > eye.cornea
    assert 4 < areas[0] < 20
    assert areas[0] < areas[1] < areas[2]


@pytest.mark.parametrize("name", ON_THE_LIDS)
@pytest.mark.parametrize(("side", "other"), [("left", np.s_[:, :118]), ("right", np.s_[:, 138:])])
def test_the_other_side_stays_healthy(light_face, name, side, other):
    result = shown(light_face, name, 1.0, side)
    np.testing.assert_array_equal(result.image[other], light_face[0][other])
    assert result.masks[0].any() and not result.masks[0][other].any()


@pytest.mark.parametrize("name", ON_THE_LIDS)
def test_the_same_state_paints_the_same_bytes(dark_face, name):
    first, second = (shown(dark_face, name, 0.7, seed=3).image for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (first != shown(dark_face, name, 0.7, seed=4).image).any()
