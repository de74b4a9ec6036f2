"""What holds for every sign of the taxonomy, on light and on dark skin."""

import cv2
import numpy as np
import pytest

from medeid.data.signs import SIMULATORS, Stage
from medeid.data.simulate import simulate
from medeid.faces.canvas import NotVisibleError
from medeid.faces.mesh import LEFT_EYE, region_mask
from medeid.manifestations.taxonomy import TAXONOMY, Finding

SIGNS = list(TAXONOMY)
RIM = 4


def paint(face, *findings: Finding, seed: int = 0):
    image, landmarks = face
    return simulate(image, landmarks, findings, np.random.default_rng(seed))


def one_side(name: str, severity: float = 0.7) -> Finding:
    return Finding(name, TAXONOMY[name].sides[0], severity)


def test_every_manifestation_has_a_simulator():
    assert set(SIMULATORS) == set(TAXONOMY)


@pytest.mark.parametrize("name", SIGNS)
@pytest.mark.parametrize("skin", ["light_face", "dark_face"])
def test_sign_is_seen_and_stays_in_its_place(name, skin, request):
    face = request.getfixturevalue(skin)
    result = paint(face, one_side(name))
    changed = (result.image != face[0]).any(-1)
    mask = result.masks.any(0)
    assert changed.any() and mask.any()
    lab = [cv2.cvtColor(np.float32(image / 255), cv2.COLOR_RGB2LAB) for image in (face[0], result.image)]
    assert np.linalg.norm(lab[1] - lab[0], axis=-1)[mask].max() > 2.3  # just noticeable
    if TAXONOMY[name].channels[0] == "appearance":
        grown = cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RIM + 1,) * 2))
        assert not (changed & (grown == 0)).any()


@pytest.mark.parametrize("name", SIGNS)
def test_same_generator_gives_same_bytes(name, light_face):
    one, other = (paint(light_face, one_side(name), seed=5) for _ in range(2))
    assert np.array_equal(one.image, other.image) and np.array_equal(one.masks, other.masks)
    assert np.array_equal(one.landmarks, other.landmarks)


@pytest.mark.parametrize("name", [name for name in SIGNS if TAXONOMY[name].lateral])
def test_sign_lies_on_the_patients_own_side(name, light_face):
    for side, sign in (("left", 1), ("right", -1)):
        mask = paint(light_face, Finding(name, side, 0.7)).masks[0]
        x = np.nonzero(mask)[1].mean()
        midline = light_face[1][168, 0]
        assert sign * (x - midline) > 0


@pytest.mark.parametrize("name", SIGNS)
def test_landmarks_move_with_geometry_alone(name, light_face):
    moved = np.abs(paint(light_face, one_side(name)).landmarks - light_face[1]).max()
    assert (moved > 0.5) == ("geometry" in TAXONOMY[name].channels)


@pytest.mark.parametrize("name", SIGNS)
def test_works_at_512_px(name, light_face):
    image = cv2.resize(light_face[0], (512, 512), interpolation=cv2.INTER_CUBIC)
    small = paint(light_face, one_side(name), seed=1)
    large = simulate(image, light_face[1], [one_side(name)], np.random.default_rng(1))
    assert large.masks.shape == (len(large.findings), 512, 512)
    assert large.masks[0].mean() == pytest.approx(small.masks[0].mean(), rel=0.5, abs=2e-4)


@pytest.mark.parametrize("name", SIGNS)
def test_face_that_is_partly_out_of_the_picture_is_painted_or_refused(name, light_face):
    aside = np.array([95, 100])
    image, landmarks = np.roll(light_face[0], aside[::-1], (0, 1)), light_face[1].copy()
    landmarks[:, :2] += aside
    finding = Finding(name, "left" if "left" in TAXONOMY[name].sides else "both", 1.0)
    try:
        result = paint((image, landmarks), finding)
    except NotVisibleError:
        return
    assert result.masks[0].any() and np.isfinite(result.landmarks).all()


def test_what_moves_the_face_comes_before_what_lies_on_it():
    moving = [name for name, row in TAXONOMY.items() if "geometry" in row.channels]
    assert max(SIMULATORS[name][0] for name in moving) < Stage.TONE


def test_findings_are_painted_together_and_implied_ones_added(light_face):
    result = paint(light_face, Finding("acne"), Finding("jaundice", "both", 0.8), Finding("ptosis", "left"))
    assert [finding.manifestation for finding in result.findings] == ["acne", "jaundice", "ptosis", "scleral_icterus"]
    assert result.findings[3].severity == 0.8
    assert result.masks.shape == (4, 256, 256) and result.masks.any((1, 2)).all()


def test_no_finding_leaves_the_picture_alone(light_face):
    result = paint(light_face)
    assert np.array_equal(result.image, light_face[0]) and result.masks.shape == (0, 256, 256)


def test_source_is_not_changed(light_face):
    before = light_face[0].copy(), light_face[1].copy()
    paint(light_face, Finding("ptosis", "both"), Finding("rosacea"))
    assert np.array_equal(before[0], light_face[0]) and np.array_equal(before[1], light_face[1])


def test_sign_of_a_closed_eye_is_refused(light_face):
    image, landmarks = light_face[0], light_face[1].copy()
    upper, lower = list(LEFT_EYE[1:8]), list(LEFT_EYE[:8:-1])
    landmarks[upper, :2] = landmarks[lower, :2]
    assert region_mask(landmarks, "left_eye").sum() < region_mask(light_face[1], "left_eye").sum() / 4
    for name in ("leukocoria", "esotropia", "ptosis"):
        with pytest.raises(NotVisibleError):
            simulate(image, landmarks, [Finding(name, "left")], np.random.default_rng(0))


@pytest.mark.parametrize(
    ("image", "landmarks", "message"),
    [
        (np.zeros((256, 200, 3), np.uint8), np.ones((478, 3), np.float32), "uint8 \\[S, S, 3\\]"),
        (np.zeros((256, 256, 3), np.float32), np.ones((478, 3), np.float32), "float32"),
        (np.zeros((256, 256, 3), np.uint8), np.ones((68, 2), np.float32), "\\[478, 3\\]"),
        (np.zeros((256, 256, 3), np.uint8), np.full((478, 3), np.nan, np.float32), "finite"),
        (np.zeros((256, 256, 3), np.uint8), np.full((478, 3), 700.0, np.float32), "inside the 256 px crop"),
    ],
)
def test_what_is_no_face_crop_is_refused(image, landmarks, message):
    with pytest.raises(ValueError, match=message):
        simulate(image, landmarks, [Finding("acne")], np.random.default_rng(0))
