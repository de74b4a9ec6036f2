"""Do landmarks, masks and labels of a face fit each other and the picture?"""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np

from ...faces.mesh import (
    CHIN,
    FOREHEAD,
    LANDMARK_SIZE,
    LEFT_BROW,
    LEFT_EYE,
    NOSE_ALA,
    OUTER_LIPS,
    RIGHT_BROW,
    RIGHT_EYE,
    inter_ocular_distance,
    points5_from_mesh,
    region_mask,
    scale_points,
)
from ...manifestations.taxonomy import LABELS, Finding, Region, Side, encode_findings
from ...types import FaceBox
from .limits import Limit
from .rows import Face

PLAUSIBILITY_LIMITS = (
    Limit(
        "landmarks_outside",
        "landmarks outside of the picture",
        "Absolute. Share of the 478 points; a crop may cut chin or forehead.",
        high=0.05,
    ),
    Limit(
        "landmark_offset",
        "landmarks off the face",
        "Absolute. Mean distance of eyes, nose and mouth from where the detector sees them, in eye distances.",
        high=0.2,
    ),
    Limit(
        "mask_pixels",
        "empty mask",
        "Absolute. Pixels, scaled to a 256 px crop, of the smallest mask of a finding.",
        low=1.0,
        digits=0,
    ),
    Limit(
        "mask_in_region",
        "mask off its region",
        "Absolute. Share of a finding's mask that lies where the taxonomy says that the sign is.",
        low=0.8,
    ),
    Limit(
        "mask_on_side",
        "mask on the wrong side",
        "Absolute. Share of a one-sided finding's mask on its side of the midline of the face; half is enough, as a "
        "palsy pulls the mouth across. For a sign on both sides: 0 if a side has less than a twentieth of it, else 1.",
        low=0.5,
    ),
)
PREDICTION_LIMIT = Limit(
    "disagreement",
    "the predictor disagrees",
    "Absolute. Largest distance of a label (0 or 1) from its predicted probability.",
    high=0.9,
)

_MIDLINE = (10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 2, 164, 0, 17, 18, 200, 199, 175, 152)
_LEAST_SHARE_OF_A_SIDE = 0.05

_PointsBySide = dict[str, tuple[int, ...]]
_EYES: _PointsBySide = {"right": RIGHT_EYE, "left": LEFT_EYE}
_AROUND_EYES: _PointsBySide = {"right": RIGHT_EYE + RIGHT_BROW, "left": LEFT_EYE + LEFT_BROW}
_BROWS: _PointsBySide = {"right": RIGHT_BROW, "left": LEFT_BROW}
_LIPS: _PointsBySide = {
    "right": OUTER_LIPS + NOSE_ALA,
    "left": OUTER_LIPS + NOSE_ALA,
}  # a cleft's scar reaches the nostril

# Where a region lies: within this distance, in inter-ocular distances, of the hull of these points; None: the face.
_REGIONS: dict[Region, tuple[_PointsBySide | None, float]] = {
    "upper_lid": (_EYES, 0.25),
    "lower_lid": (_EYES, 0.25),
    "lids": (_EYES, 0.25),
    "globe": (_EYES, 0.25),
    "conjunctiva": (_EYES, 0.05),
    "pupil": (_EYES, 0.05),
    "periorbital": (_AROUND_EYES, 0.25),
    "brow": (_BROWS, 0.15),
    "lips": (_LIPS, 0.2),
    "cheeks": (None, 0.05),
    "half_face": (None, 0.1),
    "face": (None, 0.1),
}


class Predictor(Protocol):
    """Reads labels off pictures: the manifestation encoder, or anything else of this form."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """
        Args:
            images (`np.ndarray`):
                uint8 `[B, H, W, 3]`, RGB: aligned face crops.

        Returns:
            `np.ndarray`: float32 `[B, len(LABELS)]`, the probability of each label.
        """
        ...


def measure_landmarks(face: Face, found: FaceBox | None) -> dict[str, float]:
    """`landmarks_outside` and `landmark_offset`; the latter is NaN where the detector sees no face."""
    xy = face.landmarks[:, :2]
    outside = (xy < -0.5).any(axis=1) | (xy > LANDMARK_SIZE - 0.5).any(axis=1)
    offset = float("nan")
    if found is not None and found.points5 is not None:
        own = scale_points(points5_from_mesh(face.landmarks), face.image.shape[0])
        eye_distance = max(float(np.linalg.norm(own[1] - own[0])), 1e-3)
        offset = float(np.linalg.norm(own - found.points5, axis=1).mean()) / eye_distance
    return {"landmarks_outside": float(outside.mean()), "landmark_offset": offset}


def measure_mask(face: Face, index: int) -> dict[str, float]:
    """`mask_pixels`, `mask_in_region` and `mask_on_side` of one finding; the last two are NaN for an empty mask.

    `mask_on_side` is NaN for a sign of the whole face as well.
    """
    finding, mask = face.findings[index], face.masks[index]
    size = mask.shape[0]
    pixels = int(mask.sum())
    measures = {
        "mask_pixels": pixels * (LANDMARK_SIZE / size) ** 2,
        "mask_in_region": float("nan"),
        "mask_on_side": float("nan"),
    }
    if pixels == 0:
        return measures
    measures["mask_in_region"] = int((mask & sign_region(face.landmarks, finding, size)).sum()) / pixels
    if finding.row.lateral:
        left = int((mask & left_half(face.landmarks, size)).sum()) / pixels
        shares = {"left": left, "right": 1.0 - left, "both": float(min(left, 1.0 - left) >= _LEAST_SHARE_OF_A_SIDE)}
        measures["mask_on_side"] = shares[finding.side]
    return measures


def sign_region(landmarks: np.ndarray, finding: Finding, size: int) -> np.ndarray:
    """Where the taxonomy says that a finding is, generously: bool `[size, size]`."""
    points, reach = _REGIONS[finding.row.region]
    if points is None:
        region = region_mask(landmarks, "face", size).astype(np.uint8)
    else:
        region = np.zeros((size, size), np.uint8)
        scaled = scale_points(landmarks[:, :2], size)
        sides: tuple[Side, ...] = finding.single_sides if finding.row.lateral else ("left", "right")
        for side in sides:
            hull = cv2.convexHull(scaled[list(points[side])].astype(np.float32))
            cv2.fillConvexPoly(region, np.rint(hull).astype(np.int32), 1)
    width = 2 * round(reach * float(inter_ocular_distance(landmarks)) * size / LANDMARK_SIZE) + 1
    return cv2.dilate(region, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))) > 0


def left_half(landmarks: np.ndarray, size: int) -> np.ndarray:
    """The patient's left, the image's right, of the face's midline, bent as it may be: bool `[size, size]`."""
    xy = scale_points(landmarks[:, :2].astype(np.float64), size)
    down = xy[CHIN] - xy[FOREHEAD]
    down /= max(float(np.linalg.norm(down)), 1e-6)
    across = np.array([down[1], -down[0]])
    middle = xy[list(_MIDLINE)]
    order = np.argsort(middle @ down)
    y, x = np.mgrid[:size, :size]
    along_pixels = x * down[0] + y * down[1]
    border = np.interp(along_pixels, (middle @ down)[order], (middle @ across)[order])
    return x * across[0] + y * across[1] > border


def disagreement(probabilities: np.ndarray, findings: tuple[Finding, ...]) -> tuple[float, str]:
    """How far the worst label is from its predicted probability, and which label that is.

    Args:
        probabilities (`np.ndarray`):
            float `[len(LABELS)]`.
        findings (`tuple[Finding, ...]`):
            The labels.
    """
    labels, _ = encode_findings(findings)
    distances = np.abs(labels - probabilities)
    worst = int(np.argmax(distances))
    return float(distances[worst]), LABELS[worst]


def predict(predictor: Predictor, images: np.ndarray) -> np.ndarray:
    """Calls a predictor and checks what it returns.

    Raises:
        `ValueError`: if that is of another shape, or no probabilities.
    """
    probabilities = np.asarray(predictor(images))
    if probabilities.shape != (len(images), len(LABELS)):
        raise ValueError(
            f"`predictor` must return [{len(images)}, {len(LABELS)}], a probability for each of `LABELS`, but returned "
            f"{list(probabilities.shape)}."
        )
    if not ((probabilities >= 0.0) & (probabilities <= 1.0)).all():
        raise ValueError("`predictor` must return probabilities in [0, 1]. Apply the sigmoid to its logits.")
    return probabilities
