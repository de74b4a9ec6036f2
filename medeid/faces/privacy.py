"""How much of what tells a person is replaced: from all but the eyes to the whole head."""

from __future__ import annotations

import cv2
import numpy as np

from ..types import WHOLE_FACE
from .compositing import feathered_mask
from .mesh import LEFT_BROW, RIGHT_BROW, head_mask, region_mask, scale_points

_FEATHER = 10 / 256  # of the crop's side: the width over which a new face fades into the photo
_RIM, _NARROW_FEATHER = 2 / 256, 7 / 256  # what is covered beside a face, and the width of the fading along it
_MOST_SPARED = 20 / 256  # around the opening of the lids: the lids, and what lies between them and the brow
_EYE_DEPTH = 5 / 256  # from the lids to the middle of the opening


def identity_mask(landmarks: np.ndarray, privacy: float, size: int) -> np.ndarray:
    """What of a crop is replaced at a privacy level, as a share of the regions that tell who somebody is.

    After the adjustable privacy of arXiv:2507.21703. Below 0.75 the eyes are spared, for ophthalmology: near 0 with
    lids and periorbital skin, at 0.5 little more than their opening. At 0.75 the face is replaced, from the chin to
    near the hairline; above it hairline and ears come along, and at 1 the head. A higher level covers all that a lower
    one does.

    Args:
        landmarks (`np.ndarray`):
            float32 `[478, 3]` in pixels of a 256 px crop.
        privacy (`float`):
            The level in (0, 1].
        size (`int`):
            Side S of the crop in px.

    Returns:
        `np.ndarray`: float32 `[S, S]` in [0, 1], feathered: how far a new face covers the old one.

    Raises:
        `ValueError`: if the level is out of range.
    """
    if not 0.0 < privacy <= 1.0:
        raise ValueError(f"`privacy` must lie in (0, 1], but is {privacy}.")
    beyond = max(privacy - WHOLE_FACE, 0.0) / (1.0 - WHOLE_FACE)
    mask = feathered_mask(head_mask(landmarks, beyond, size), _FEATHER * size)
    spared = spared_eyes(landmarks, privacy, size)
    return mask * (1.0 - feathered_mask(spared, _FEATHER * size)) if spared.any() else mask


def fitted_mask(mask: np.ndarray, landmarks: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """What of a mask a new face needs: all from the brows upwards, and below them no more than the two faces cover.

    So beside cheeks and jaw stays what was there, where a generator would have to draw neck, hair and background anew.

    Args:
        mask (`np.ndarray`):
            float32 `[S, S]` in [0, 1], as [`identity_mask`] gives it.
        landmarks, drawn (`np.ndarray`):
            float32 `[478, 3]` in pixels of a 256 px crop: of the source and of the new face.

    Returns:
        `np.ndarray`: float32 `[S, S]` in [0, 1], nowhere more than the mask.
    """
    size = mask.shape[0]
    faces = np.zeros((size, size), np.uint8)
    for points in (landmarks, drawn):
        cv2.fillConvexPoly(faces, cv2.convexHull(np.rint(scale_points(points[:, :2], size)).astype(np.int32)), 1)
    faces = cv2.dilate(faces, None, iterations=max(1, round(_RIM * size)))
    brows = scale_points(landmarks[list(LEFT_BROW + RIGHT_BROW), :2], size)[:, 1].min()
    share = np.clip((np.arange(size, dtype=np.float32) - brows) / (_FEATHER * size), 0.0, 1.0)[:, None]
    return mask - share * (mask - feathered_mask(faces, _NARROW_FEATHER * size)).clip(min=0.0)


def spared_eyes(landmarks: np.ndarray, privacy: float, size: int) -> np.ndarray:
    """bool `[S, S]`: what around the eyes stays just as it is at a privacy level, see [`identity_mask`]."""
    eyes = region_mask(landmarks, "left_eye", size) + region_mask(landmarks, "right_eye", size) > 0
    outside, inside = (
        cv2.distanceTransform(each.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for each in (~eyes, eyes)
    )
    share = 1.0 - privacy / WHOLE_FACE
    reach = share * _MOST_SPARED - (1.0 - share) * _EYE_DEPTH
    return (outside - inside < reach * size) & (share > 0.0)
