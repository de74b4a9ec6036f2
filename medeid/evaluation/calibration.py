"""Making the encoder's probabilities mean what they say, and choosing from which on a sign is claimed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from scipy.special import expit, logit

from ..manifestations.encoder import ManifestationEncoder
from .outputs import EncoderOutputs

HEALTHY_CLAIMED = 0.02

_TEMPERATURES = np.geomspace(0.1, 10.0, 401)
_PRIOR_WIDTH = 0.3  # standard deviation of a label's log temperature around the shared one
_TRUSTED_POSITIVES = 20  # faces with a sign from which on its labels outweigh its probabilities
_CERTAIN = 1e-6  # probabilities nearer to 0 or 1 than this count as this
_STEPS = np.linspace(0.0, -2.0 * logit(_CERTAIN), 600)  # in log odds; the last one lifts any threshold to 1/2
_MARGIN = 0.02  # in log odds: more than float16, in which encoders are saved, rounds off


def calibration_half(subject_ids: Iterable[str]) -> np.ndarray:
    """Which rows of a validation split calibrate; the others are measured. All faces of a subject are on one side.

    Args:
        subject_ids (`Iterable[str]`):
            The subject of each row.

    Returns:
        `np.ndarray`: bool `[N]`; by a digest of the subject, so it is the same in training and in every evaluation.
    """
    # Not the bare subject: where a set has no splits, its digest has already told validation from training.
    digests = [hashlib.sha256(f"calibration {subject}".encode()).digest() for subject in subject_ids]
    return np.array([digest[0] < 128 for digest in digests], bool)


def fit_temperatures(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The temperature of each label that makes its probabilities likeliest.

    Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599, section 4.2, for each label. A few
    positives do not tell a temperature: each label's is drawn to the one that suits all labels together best, and that
    one to 1, as by a normal prior on the logarithm. With many faces the data outweigh it; a label that no face has
    gets little more than the shared temperature.

    Args:
        logits (`np.ndarray`):
            float `[N, L]`, not divided by any temperature yet.
        labels (`np.ndarray`):
            bool `[N, L]`: what is there.

    Returns:
        `np.ndarray`: float64 `[L]` in [0.1, 10].

    Raises:
        `ValueError`: there is no row.
    """
    if len(labels) == 0:
        raise ValueError("`labels` has no rows. Calibrate on some faces.")
    losses = np.stack([_cross_entropy(logits / temperature, labels) for temperature in _TEMPERATURES])
    shared = _likeliest(losses.sum(1, keepdims=True), centre=1.0)
    return _likeliest(losses, centre=float(shared[0]))


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Negative log likelihood `[L]`, summed over the faces, in nats."""
    return (np.logaddexp(0.0, logits) - logits * labels).sum(0)


def _likeliest(losses: np.ndarray, centre: float) -> np.ndarray:
    """The temperature of each column of losses `[K, L]`, under a prior around `centre`."""
    deviations = np.log(_TEMPERATURES / centre)[:, None] / _PRIOR_WIDTH
    return _TEMPERATURES[(losses + 0.5 * deviations**2).argmin(0)]


def fit_thresholds(
    probabilities: np.ndarray, labels: np.ndarray, healthy_claimed: float = HEALTHY_CLAIMED
) -> np.ndarray:
    """The probability of each label from which on it is claimed: for F1, but seldom on a healthy face.

    First each label gets the threshold of the highest F1. A few positives tell F1 badly, but where the probabilities
    are calibrated it can be expected without labels (Lipton et al., "Thresholding Classifiers to Maximize F1 Score",
    arXiv:1402.1892): so each face counts by a mean of label and probability, in which labels weigh by how many there
    are. Such thresholds are low, and with dozens of labels nearly every healthy face gets some claim. So then all
    thresholds below 1/2 rise towards it by one step in log odds, the smallest that keeps within the bound. One number
    for all labels is little to fit: on other faces the bound holds nearly as well, which it does not if each label
    rises just above the healthy faces at hand. Where 1/2 does not do, a few healthy faces look ill indeed; the labels
    that they are claimed to have rise beyond them, the nearest ones first, and those alone.

    The bound holds for these faces. Of new ones one more in their number must be expected: with n healthy faces here, k
    of them claimed, a share of (k + 1) / (n + 1). Give a hundred or more.

    Args:
        probabilities (`np.ndarray`):
            float `[N, L]`, calibrated.
        labels (`np.ndarray`):
            bool `[N, L]`: what is there.
        healthy_claimed (`float`, *optional*, defaults to 0.02):
            The largest share of the faces without any label that may get any claim.

    Returns:
        `np.ndarray`: float64 `[L]` in (0, 1]; a label is claimed where its probability is *above* it.

    Raises:
        `ValueError`: there is no row, or the share is out of range.
    """
    if len(labels) == 0:
        raise ValueError("`labels` has no rows. Choose thresholds on some faces.")
    if not 0.0 <= healthy_claimed <= 1.0:
        raise ValueError(f"`healthy_claimed` must be a share in [0, 1], but is {healthy_claimed}.")
    scores = logit(np.clip(probabilities.astype(np.float64), _CERTAIN, 1.0 - _CERTAIN))
    thresholds = np.array([_best_threshold(*column) for column in zip(scores.T, labels.T, strict=True)])
    healthy = scores[~labels.any(1)]
    allowed = int(healthy_claimed * len(healthy))
    for step in _STEPS:
        risen = np.maximum(thresholds, np.minimum(thresholds + step, 0.0))
        if (healthy > risen).any(1).sum() <= allowed:
            break
    final = _above_faces(healthy, risen, allowed)
    return np.where(final > -logit(_CERTAIN), 1.0, expit(final))


def _above_faces(healthy: np.ndarray, thresholds: np.ndarray, allowed: int) -> np.ndarray:
    """Thresholds in log odds that claim at most `allowed` of the faces `[N, L]`, raised for single labels."""
    nearest = np.argsort((healthy - thresholds).max(1))
    for scores in healthy[nearest[: len(healthy) - allowed]]:
        thresholds = np.where(scores > thresholds, scores + _MARGIN, thresholds)
    return thresholds


def _best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The log odds of the highest F1 for scores `[N]` in log odds, halfway between two of them."""
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    weight = labels.sum() / (labels.sum() + _TRUSTED_POSITIVES)
    expected = weight * labels[order] + (1.0 - weight) * expit(scores)
    f1 = 2.0 * expected.cumsum() / (np.arange(1, len(scores) + 1) + expected.sum())
    below = np.append(scores[1:], scores[-1] - 1.0)
    best = np.where(scores > below, f1, -1.0).argmax()  # a threshold cannot part equal scores
    return float(scores[best] + below[best]) / 2.0


def calibrate(encoder: ManifestationEncoder, outputs: EncoderOutputs, healthy_claimed: float = HEALTHY_CLAIMED) -> None:
    """Sets an encoder's temperatures and thresholds. What they were before makes no difference.

    Args:
        encoder (`ManifestationEncoder`):
            It is changed.
        outputs (`EncoderOutputs`):
            Of this encoder, on faces that it was not trained on and will not be measured on.
        healthy_claimed (`float`, *optional*, defaults to 0.02):
            See [`fit_thresholds`].
    """
    temperatures = fit_temperatures(outputs.raw_logits, outputs.labels)
    encoder.temperature.copy_(torch.from_numpy(temperatures))
    probabilities = outputs.probabilities(encoder.temperature)
    encoder.threshold.copy_(torch.from_numpy(fit_thresholds(probabilities, outputs.labels, healthy_claimed)))


def is_calibrated(encoder: ManifestationEncoder) -> bool:
    """Whether temperatures and thresholds are other than those of a new encoder."""
    return bool((encoder.temperature != 1.0).any() or (encoder.threshold != 0.5).any())
