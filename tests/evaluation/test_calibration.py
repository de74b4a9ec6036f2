import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from medeid.data.table import subject_split
from medeid.evaluation.calibration import calibrate, calibration_half, fit_temperatures, fit_thresholds, is_calibrated
from medeid.evaluation.outputs import read_faces
from medeid.evaluation.utility import expected_calibration_error, f1_scores

RNG = np.random.default_rng(0)


def draw_faces(count: int, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Log odds [N, L] of rare signs, and labels that come true as often as they say."""
    scores = RNG.normal(-4.0, 2.0, (count, num_labels))
    return scores, RNG.random(scores.shape) < expit(scores)


def healthy_share(probabilities: np.ndarray, labels: np.ndarray, thresholds: np.ndarray) -> float:
    return (probabilities > thresholds)[~labels.any(1)].any(1).mean()


def test_the_halves_part_subjects_and_not_faces():
    subjects = [str(number // 3) for number in range(3000)]
    half = calibration_half(subjects).reshape(1000, 3)
    assert (half == half[:, :1]).all()
    assert half.mean() == pytest.approx(0.5, abs=0.05)


def test_the_halves_are_others_than_those_that_a_digest_of_the_subject_gives_a_set_without_splits():
    held_out = [name for name in map(str, range(5000)) if subject_split(name, 0.1) == "validation"]
    assert calibration_half(held_out).mean() == pytest.approx(0.5, abs=0.1)


def test_temperatures_undo_too_much_and_too_little_confidence():
    scores, labels = draw_faces(5000, 3)
    true = np.array([0.5, 1.0, 2.0])
    temperatures = fit_temperatures(scores * true, labels)
    np.testing.assert_allclose(temperatures, true, rtol=0.12)
    before, after = (expit(scores * true / each) for each in (1.0, temperatures))
    assert expected_calibration_error(after, labels) < 0.5 * expected_calibration_error(before, labels)


def test_a_label_with_few_positives_is_left_to_the_shared_temperature():
    scores, labels = draw_faces(60, 40)
    scores[:, 0], labels[:, 0] = -4.0, False
    assert labels.sum(0).mean() < 6
    temperatures = fit_temperatures(2.0 * scores, labels)
    np.testing.assert_allclose(temperatures, 2.0, rtol=0.4)


def test_thresholds_favour_f1_as_far_as_healthy_faces_allow():
    scores, labels = draw_faces(4000, 8)
    new_scores, new_labels = draw_faces(4000, 8)
    free, bound = (fit_thresholds(expit(scores), labels, share) for share in (1.0, 0.02))
    f1 = [np.mean(f1_scores(expit(new_scores) > each, new_labels)) for each in (free, bound, np.full(8, 0.5))]
    assert f1[0] > max(f1[1:])
    assert healthy_share(expit(new_scores), new_labels, free) > 0.1
    assert 0.015 < healthy_share(expit(scores), labels, bound) <= 0.02
    assert healthy_share(expit(new_scores), new_labels, bound) == pytest.approx(0.02, abs=0.01)


def test_the_bound_holds_even_for_a_reader_that_is_sure_of_everything():
    labels = RNG.random((300, 5)) < 0.05
    probabilities = 1.0 - 1e-9 * RNG.random((300, 5))
    probabilities[:, 0] = 1.0
    assert healthy_share(probabilities, labels, fit_thresholds(probabilities, labels)) <= 0.02


def test_healthy_faces_that_look_ill_raise_their_own_label_only():
    scores, labels = draw_faces(500, 4)
    labels[:, 0] |= scores[:, 0] > 3.0
    healthy = ~labels.any(1)
    scores[healthy] = np.minimum(scores[healthy], -3.0)
    calm = fit_thresholds(expit(scores), labels)
    alike = np.flatnonzero(healthy)[: int(0.02 * healthy.sum()) + 5]
    scores[alike, 0] = 4.0
    thresholds = fit_thresholds(expit(scores), labels)
    assert logit(thresholds[0]) == pytest.approx(4.0, abs=0.1)
    assert (thresholds[1:] <= 0.5).all() and (calm < 0.5).all()


def test_thresholds_are_those_of_the_probabilities_where_no_face_shows_the_sign():
    scores, labels = draw_faces(4000, 2)
    assert fit_thresholds(expit(scores), np.zeros_like(labels), 1.0) == pytest.approx(
        fit_thresholds(expit(scores), labels, 1.0), abs=0.08
    )


def test_what_cannot_be_fitted():
    nothing = np.zeros((0, 4))
    with pytest.raises(ValueError, match="no rows"):
        fit_temperatures(nothing, nothing.astype(bool))
    with pytest.raises(ValueError, match="no rows"):
        fit_thresholds(nothing, nothing.astype(bool))
    with pytest.raises(ValueError, match="`healthy_claimed`"):
        fit_thresholds(np.ones((2, 4)), np.ones((2, 4), bool), 2.0)


def test_calibrating_twice_changes_nothing(encoder, rows):
    assert not is_calibrated(encoder)
    calibrate(encoder, read_faces(encoder, rows))
    assert is_calibrated(encoder)
    temperature, threshold = encoder.temperature.clone(), encoder.threshold.clone()
    assert (temperature != 1.0).any()
    calibrate(encoder, read_faces(encoder, rows))
    torch.testing.assert_close(encoder.temperature, temperature)
    torch.testing.assert_close(encoder.threshold, threshold)


def test_a_calibrated_encoder_claims_nothing_on_the_healthy_faces_of_a_small_set(encoder, rows):
    calibrate(encoder, read_faces(encoder, rows))
    outputs = read_faces(encoder, rows)
    probabilities = outputs.probabilities(encoder.temperature)
    assert not (probabilities > encoder.threshold.numpy())[~outputs.labels.any(1)].any()
