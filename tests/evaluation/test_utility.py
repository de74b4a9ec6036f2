import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from medeid.evaluation.utility import (
    cohens_kappa,
    colour_change,
    dice_scores,
    expected_calibration_error,
    f1_scores,
    mean_told,
)


def test_f1_of_each_label():
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0]], bool)
    claimed = np.array([[1, 0, 0], [1, 0, 1], [0, 0, 0], [1, 1, 0]], bool)
    np.testing.assert_allclose(f1_scores(claimed, labels), [0.8, 2 / 3, np.nan])


def test_calibration_error_is_the_gap_of_probability_and_frequency():
    labels = np.arange(1000) % 10 < 3
    assert expected_calibration_error(np.full(1000, 0.3), labels) == pytest.approx(0.0, abs=1e-9)
    assert expected_calibration_error(np.full(1000, 0.9), labels) == pytest.approx(0.6)
    assert expected_calibration_error(labels.astype(float), labels) == 0.0


def test_dice_of_masks():
    one = np.zeros((3, 8, 8), bool)
    other = one.copy()
    one[0, :4], other[0, 2:6] = True, True
    one[1, 0] = True
    np.testing.assert_allclose(dice_scores(one, other), [0.5, 0.0, 1.0])


def test_mean_of_what_is_told():
    assert mean_told(np.array([1.0, np.nan, 2.0])) == 1.5
    assert np.isnan(mean_told(np.array([np.nan])))


def test_kappa_is_agreement_beyond_chance():
    first = np.zeros((100, 4), bool)
    first[:50, 0] = first[:20, 1] = first[:10, 2] = True
    second = first.copy()
    second[:25, 0], second[50:75, 0] = False, True  # half of the answers agree, as by chance
    second[:, 2] = False
    second[0, 3] = True  # never read before
    np.testing.assert_allclose(cohens_kappa(first, second), [0.0, 1.0, 0.0, np.nan], atol=1e-12)


def test_colour_change_is_that_of_the_mean_inside_the_mask():
    sources = np.full((3, 8, 8, 3), (200, 150, 130), np.uint8)
    results = sources.copy()
    masks = np.zeros((3, 8, 8), bool)
    masks[:2, 2:6, 2:6] = True
    results[0][masks[0]] = (190, 110, 120)
    results[1][~masks[1]] = 0
    results[2] = 0
    expected = deltaE_ciede2000(*rgb2lab(np.array([[200, 150, 130], [190, 110, 120]], np.uint8)))
    np.testing.assert_allclose(colour_change(results, sources, masks), [expected, 0.0, np.nan])
