import numpy as np
import pytest

from medeid.data.simulate import simulate
from medeid.faces.canvas import Canvas, NotVisibleError
from medeid.manifestations.taxonomy import Finding

RIGHT_PEAK, LEFT_PEAK = 37, 267  # of the Cupid's bow
RIGHT_WING, LEFT_WING = 129, 358  # of the nose


def paint(face, name: str, side: str, severity: float, seed: int = 0):
    return simulate(*face, [Finding(name, side, severity)], np.random.default_rng(seed))


def lab(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    return Canvas(np.float32(image / 255), landmarks).lab


def extent(mask: np.ndarray) -> float:
    y, x = np.nonzero(mask)
    return float(np.hypot(np.ptp(x), np.ptp(y)))


def test_scar_is_a_line_that_grows_with_severity(light_face):
    lengths = []
    for severity in (0.3, 0.6, 1.0):
        masks = [paint(light_face, "scar", "left", severity, seed).masks[0] for seed in range(5)]
        assert all(mask.sum() < 9 * extent(mask) for mask in masks)
        lengths.append(np.mean([extent(mask) for mask in masks]))
    assert 10 < lengths[0] < lengths[1] < lengths[2] < 65


def test_scars_are_pale_or_red_on_light_skin_and_may_be_brown_on_dark(light_face, dark_face):
    shifts = {}
    for name, face in (("light", light_face), ("dark", dark_face)):
        before = lab(*face)
        results = [paint(face, "scar", "right", 0.9, seed) for seed in range(9)]
        shifts[name] = np.array([(lab(r.image, face[1]) - before)[r.masks[0]].mean(0) for r in results])
        assert (np.linalg.norm(shifts[name], axis=1) > 2.3).mean() > 0.8
    assert (shifts["light"][:, 0] > 2).any() and (shifts["light"][:, 1] > 3).any()
    assert (shifts["dark"][:, 0] < -2).any()


def test_scar_spares_eyes_and_lips(light_face):
    canvas = Canvas(np.float32(light_face[0] / 255), light_face[1])
    spared = np.maximum.reduce([canvas.aperture("left"), canvas.aperture("right"), canvas.region("lips")]) > 0.5
    assert not any((paint(light_face, "scar", "left", 1.0, seed).masks[0] & spared).any() for seed in range(5))


def test_scar_through_the_brow_leaves_a_gap(dark_face):
    brow = Canvas(np.float32(dark_face[0] / 255), dark_face[1]).region("left_brow") > 0.5
    results = (paint(dark_face, "scar", "left", 0.6, seed) for seed in range(40))
    crossing = next(result for result in results if (result.masks[0] & brow).sum() > 8)
    gap = crossing.masks[0] & brow
    assert (lab(crossing.image, dark_face[1]) - lab(*dark_face))[gap, 0].mean() > 4


def test_scar_needs_free_skin(light_face):
    image = light_face[0].copy()
    image[:, 128:] = (20, 60, 160)  # a cloth over one half
    with pytest.raises(NotVisibleError, match="left"):
        paint((image, light_face[1]), "scar", "left", 0.8)


def test_mended_cleft_draws_up_the_lip_and_widens_the_nostril(light_face, dark_face):
    for face in (light_face, dark_face):
        moves = [paint(face, "cleft_lip_scar", "right", s).landmarks - face[1] for s in (0.3, 0.6, 1.0)]
        peaks = [-move[RIGHT_PEAK, 1] for move in moves]
        wings = [-move[RIGHT_WING, 0] for move in moves]
        assert 0.5 < peaks[0] < peaks[1] < peaks[2] < 7
        assert 0.4 < wings[0] < wings[1] < wings[2] < 7
        assert np.abs(moves[2][[LEFT_PEAK, LEFT_WING]]).max() < 0.5


def test_scar_of_a_cleft_runs_from_the_lip_to_the_nostril(light_face):
    result = paint(light_face, "cleft_lip_scar", "left", 0.6)
    y, _ = np.nonzero(result.masks[0])
    assert y.min() < result.landmarks[326, 1] and y.max() > result.landmarks[LEFT_PEAK, 1]


def test_cleft_on_the_half_that_is_turned_away_cannot_be_shown(light_face):
    image, landmarks = light_face
    turned = landmarks.copy()
    turned[RIGHT_PEAK] = turned[0]
    with pytest.raises(NotVisibleError, match="upper lip"):
        paint((image, turned), "cleft_lip_scar", "right", 0.5)
