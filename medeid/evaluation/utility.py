"""How well signs of disease are read: labels, calibration, masks, colour."""

from __future__ import annotations

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab


def f1_scores(claimed: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """F1 of each label.

    Args:
        claimed (`np.ndarray`):
            bool `[N, L]`: what was read.
        labels (`np.ndarray`):
            bool `[N, L]`: what is there.

    Returns:
        `np.ndarray`: float64 `[L]` in [0, 1]; NaN for a label that is nowhere there.
    """
    hits = (claimed & labels).sum(0)
    total = claimed.sum(0) + labels.sum(0)
    there = labels.any(0)
    return np.where(there, 2 * hits / np.maximum(total, 1), np.nan)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean difference of probability and frequency over bins of equal width, weighted by their counts.

    Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599, equation 3.

    Args:
        probabilities (`np.ndarray`):
            float in [0, 1], any shape.
        labels (`np.ndarray`):
            bool, the same shape.
        bins (`int`, *optional*, defaults to 15):
            Number of bins.

    Returns:
        `float`: in [0, 1].
    """
    probabilities, labels = probabilities.ravel(), labels.ravel().astype(np.float64)
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = np.bincount(place, probabilities - labels, bins)
    return float(np.abs(gaps).sum() / len(labels))


def dice_scores(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Dice overlap of masks.

    Args:
        predicted (`np.ndarray`):
            bool `[..., H, W]`.
        true (`np.ndarray`):
            bool, the same shape.

    Returns:
        `np.ndarray`: float64 `[...]` in [0, 1]; 1 where both are empty.
    """
    overlap = (predicted & true).sum((-2, -1))
    total = predicted.sum((-2, -1)) + true.sum((-2, -1))
    return np.where(total > 0, 2 * overlap / np.maximum(total, 1), 1.0)


def cohens_kappa(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Agreement of two readings of the same faces, beyond that of chance.

    Cohen, "A Coefficient of Agreement for Nominal Scales", 1960.

    Args:
        first (`np.ndarray`):
            bool `[N, L]`.
        second (`np.ndarray`):
            bool `[N, L]`.

    Returns:
        `np.ndarray`: float64 `[L]`, 1 for full agreement and 0 for that of chance; NaN for a label that the first
        reading has nowhere.
    """
    agreed = (first == second).mean(0)
    shares = first.mean(0), second.mean(0)
    chance = shares[0] * shares[1] + (1 - shares[0]) * (1 - shares[1])
    there = first.any(0) & (chance < 1)
    return np.where(there, (agreed - chance) / np.where(there, 1 - chance, 1.0), np.nan)


def colour_change(results: np.ndarray, sources: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """How far the mean colour of a sign is from that in the source.

    CIEDE2000 (Sharma et al., "The CIEDE2000 Color-Difference Formula", 2005) of the means in CIELAB.

    Args:
        results (`np.ndarray`):
            uint8 `[N, S, S, 3]`, RGB.
        sources (`np.ndarray`):
            uint8 `[N, S, S, 3]`, RGB.
        masks (`np.ndarray`):
            bool `[N, S, S]`: where the sign is.

    Returns:
        `np.ndarray`: float64 `[N]`, at least 0, about 1 for what can just be seen; NaN where the mask is empty.
    """
    changes = np.full(len(masks), np.nan)
    for face in np.flatnonzero(masks.any((1, 2))):
        after, before = (rgb2lab(pictures[face][masks[face]]).mean(0) for pictures in (results, sources))
        changes[face] = deltaE_ciede2000(before, after)
    return changes


def mean_told(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN if nothing is."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else float("nan")
