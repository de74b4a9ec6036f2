"""Is the picture good enough: sharpness, exposure and size of the face, and whether a detector sees one."""

from __future__ import annotations

import cv2
import numpy as np

from ...faces.detection import MIN_SCORE, CenterFaceDetector
from ...faces.mesh import LANDMARK_SIZE, inter_ocular_distance, region_mask, scale_points
from ...types import FaceBox
from .limits import Limit
from .rows import Face

# 8-bit levels: at or below in all three channels a pixel is black, at or above in all three it is white.
_BLACK, _WHITE = 5, 250

QUALITY_LIMITS = (
    Limit(
        "detail_1px",
        "blurred",
        "Absolute. Octaves by which detail of 1 px is stronger than detail of 4 px on the face, whatever the contrast. "
        "Sharp faces lie above -1.2 (all of 4,516), those that medeid-tiny draws, which are soft, at -2.2 to -2.0; "
        "under a Gaussian blur of 1.5 px at 256 px 99 % of the sharp ones lie below the limit.",
        low=-2.25,
    ),
    Limit(
        "detail_2px",
        "blurred below its noise",
        "Absolute. The same of 2 px and 8 px, which neither noise nor enlargement feigns. Sharp faces lie above -1.51 "
        "(all of 4,516); under a blur of 2 px 99 % lie below the limit, with noise or without.",
        low=-1.65,
    ),
    Limit("shadows", "underexposed", "Absolute. Share of the skin that is black in all channels.", high=0.05),
    Limit("highlights", "overexposed", "Absolute. Share of the skin that is white in all channels.", high=0.05),
    Limit(
        "eye_distance",
        "face too small",
        "Absolute, in px between the outer corners of the eyes. An iris is an eighth of it, and signs of the eye need "
        "an iris of 5 px.",
        low=40.0,
        digits=0,
    ),
    Limit(
        "detector_score",
        "no face found",
        f"Absolute. CenterFace's score, from {MIN_SCORE:g} on a face for the whole of medeid.",
        low=MIN_SCORE,
    ),
)


def measure_quality(face: Face, found: FaceBox | None) -> dict[str, float]:
    """The measures of `QUALITY_LIMITS`.

    Args:
        face (`Face`):
            The row.
        found (`FaceBox`, *optional*):
            What [`find_face`] says.
    """
    size = face.image.shape[0]
    grey = cv2.cvtColor(face.image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    inside = region_mask(face.landmarks, "oval", size)
    skin = face.image[region_mask(face.landmarks, "skin", size) > 0]
    shown = max(len(skin), 1)
    return {
        "detail_1px": detail(grey, inside, level=0),
        "detail_2px": detail(grey, inside, level=1),
        "shadows": int((skin.max(axis=1, initial=0) <= _BLACK).sum()) / shown,
        "highlights": int((skin.min(axis=1, initial=255) >= _WHITE).sum()) / shown,
        "eye_distance": float(inter_ocular_distance(face.landmarks)) * size / LANDMARK_SIZE,
        "detector_score": found.score if found is not None else 0.0,
    }


def detail(grey: np.ndarray, inside: np.ndarray, level: int) -> float:
    """Octaves by which detail of `2 ** level` px is stronger than detail of four times that size.

    The variance of the Laplacian alone (Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000)
    also grows with contrast, so that a young face in soft light looks blurred. The ratio of two scales does not.

    Args:
        grey (`np.ndarray`):
            float32 `[S, S]`.
        inside (`np.ndarray`):
            float32 `[S, S]`; pixels that are not 0 count.
        level (`int`):
            How often the picture is halved first.

    Returns:
        `float`: NaN where nothing is inside.
    """
    strengths = []
    for step in range(level + 3):
        if step in (level, level + 2):
            chosen = cv2.resize(inside, grey.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
            if not chosen.any():
                return float("nan")
            # A plain area has no detail at any scale.
            strengths.append(max(float(cv2.Laplacian(grey, cv2.CV_32F)[chosen].std()), 1e-3))
        grey = cv2.pyrDown(grey)
    fine, coarse = strengths
    return float(np.log2(fine / coarse))


def find_face(detector: CenterFaceDetector, image: np.ndarray) -> FaceBox | None:
    """The face of a crop in its own pixels; None if the detector sees none.

    A crop of more than 256 px is searched at 256 px: its face is large enough there, and the search four times as fast.
    """
    size = image.shape[0]
    small = image
    if size > LANDMARK_SIZE:
        small = cv2.resize(image, (LANDMARK_SIZE, LANDMARK_SIZE), interpolation=cv2.INTER_AREA)
    found = detector(small)
    if not found:
        return None
    best = max(found, key=lambda box: box.score)
    if small is image or best.points5 is None:
        return best
    corners = scale_points(np.array(best.box).reshape(2, 2), size).ravel().tolist()
    return FaceBox(tuple(corners), best.score, scale_points(best.points5, size), best.detector)
