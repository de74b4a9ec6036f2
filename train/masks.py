"""The shapes of what the UNet learns to fill in: mostly the face, at times a part of it, the head, or everything."""

from __future__ import annotations

import cv2
import numpy as np

from medeid.faces.mesh import LEFT_BROW, LEFT_EYE, RIGHT_BROW, RIGHT_EYE, head_mask

# Share of each shape among the training masks. "all" is what whole faces of nobody are drawn with.
SHAPES = {"face": 0.54, "head": 0.14, "half": 0.08, "eyes": 0.06, "random": 0.08, "all": 0.1}


def _dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.dilate(mask, kernel)


def _half_plane(centre: np.ndarray, angle: float, size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size].astype(np.float32)
    side = (x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)
    return (side > 0).astype(np.float32)


def _eye_band(landmarks: np.ndarray, size: int) -> np.ndarray:
    points = landmarks[list(RIGHT_EYE + LEFT_EYE + RIGHT_BROW + LEFT_BROW), :2]
    mask = np.zeros((size, size), np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(points).astype(np.int32)), 1.0)
    return mask


def _ellipses(rng: np.random.Generator, size: int) -> np.ndarray:
    mask = np.zeros((size, size), np.float32)
    for _ in range(rng.integers(1, 4)):
        centre = tuple(int(v) for v in rng.integers(0, size, 2))
        axes = tuple(int(v) for v in rng.integers(size // 16, size // 3, 2))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, cv2.FILLED)
    return mask


def training_mask(landmarks: np.ndarray, rng: np.random.Generator, size: int = 256) -> np.ndarray:
    """A random training mask, float32 [size, size], 1 where the UNet is to fill in.

    Args:
        landmarks (`np.ndarray`):
            Dense landmarks [478, 3] in pixels of a crop of side `size`.
        rng (`np.random.Generator`):
            Decides on the shape and its size.
        size (`int`, *optional*, defaults to 256):
            Side of the crop in pixels.
    """
    shape = rng.choice(list(SHAPES), p=list(SHAPES.values()))
    if shape == "all":
        return np.ones((size, size), np.float32)
    if shape == "random":
        return _ellipses(rng, size)
    if shape == "eyes":
        return _dilate(_eye_band(landmarks, size), int(rng.integers(size // 32, size // 12)))
    head = rng.uniform(0.3, 1.0) if shape == "head" else 0.0
    mask = _dilate(head_mask(landmarks, head, size), int(rng.integers(0, size // 20)))
    if shape == "half":
        centre = landmarks[:, :2].mean(0) + rng.normal(0, size / 20, 2)
        mask *= _half_plane(centre, float(rng.uniform(0, 2 * np.pi)), size)
    return mask
