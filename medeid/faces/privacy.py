"""How much of what tells a person is replaced: from all but the eyes to the whole head."""

from __future__ import annotations

import cv2
import numpy as np

from ..types import WHOLE_FACE
from .compositing import feathered_mask
from .mesh import head_mask, region_mask

_FEATHER = 10 / 256  # of the crop's side: the width over which a new face fades into the photo
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


def spared_eyes(landmarks: np.ndarray, privacy: float, size: int) -> np.ndarray:
    """bool `[S, S]`: what around the eyes stays just as it is at a privacy level, see [`identity_mask`]."""
    eyes = region_mask(landmarks, "left_eye", size) + region_mask(landmarks, "right_eye", size) > 0
    outside, inside = (
        cv2.distanceTransform(each.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for each in (~eyes, eyes)
    )
    share = 1.0 - privacy / WHOLE_FACE
    reach = share * _MOST_SPARED - (1.0 - share) * _EYE_DEPTH
    return (outside - inside < reach * size) & (share > 0.0)
