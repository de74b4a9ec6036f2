"""Where rashes and patches lie: outlines through points of the mesh, and the skin that can bear them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from ...faces.canvas import Canvas, NotVisibleError, ellipse, smoothstep
from ...faces.mesh import MIRROR
from ...manifestations.taxonomy import Side

# A point of the mesh, or one beside it: index, then steps to the image's right and downwards in inter-ocular distances
# (for the image-left half of the face; to the image's left on the other).
Stop = int | tuple[int, float, float]

# From the brow to the rim of the orbit, right half of the face: thin skin, much of it too shaded to pass for skin.
_ORBIT: tuple[Stop, ...] = (70, 63, 105, 66, 107, 55, 193, 122, 128, 121, 120, 119, 118, 117, 111, 143, 156)
# Lids alone, from the crease above to the groove below.
_LIDS: tuple[Stop, ...] = (46, 225, 224, 223, 222, 221, 189, 244, 233, 232, 231, 230, 229, 228, 31, 226, 113)


def outline(canvas: Canvas, stops: Sequence[Stop], side: Side) -> np.ndarray:
    """A closed, rounded line past points of the mesh.

    Args:
        canvas (`Canvas`):
            The face.
        stops (`Sequence[int or tuple]`):
            Points on the right half of the patient's face.
        side (`str`):
            `"right"` for that half, `"left"` for its mirror image, `"both"` for one outline over both: then the stops
            lead from the midline to the midline.

    Returns:
        `np.ndarray`: float32 [N, 2] in pixels.
    """
    if side == "both":
        half = _points(canvas, stops, "right")
        line = np.concatenate([half, _points(canvas, stops, "left")[::-1]])
    else:
        line = _points(canvas, stops, side)
    for _ in range(2):  # Chaikin's corner cutting
        following = np.roll(line, -1, axis=0)
        line = np.stack([0.75 * line + 0.25 * following, 0.25 * line + 0.75 * following], 1).reshape(-1, 2)
    return line.astype(np.float32)


def _points(canvas: Canvas, stops: Sequence[Stop], side: Side) -> np.ndarray:
    steps = [stop if isinstance(stop, tuple) else (stop, 0.0, 0.0) for stop in stops]
    index = np.array([step[0] for step in steps])
    offset = np.array([step[1:] for step in steps]) * canvas.iod
    if side == "left":
        index, offset = MIRROR[index], offset * (-1.0, 1.0)
    return canvas.points[index] + offset


def inside(canvas: Canvas, stops: Sequence[Stop], side: Side) -> np.ndarray:
    """How deep each pixel lies within an outline.

    Args:
        canvas, stops, side:
            See `outline`.

    Returns:
        `np.ndarray`: float32 [S, S], inter-ocular distances to the outline, negative outside of it.
    """
    mask = (canvas.polygon(outline(canvas, stops, side)) > 0.5).astype(np.uint8)
    inner, outer = (cv2.distanceTransform(part, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for part in (mask, 1 - mask))
    return gaussian_filter(inner - outer, 0.7 * canvas.px) / canvas.iod


def half(canvas: Canvas, side: Side, softness: float) -> np.ndarray:
    """One half of the face, float32 [S, S]: its edge at the midline is `softness` inter-ocular distances wide."""
    return smoothstep(off_midline(canvas, side), -softness / 2, softness / 2)


def off_midline(canvas: Canvas, side: Side) -> np.ndarray:
    """Inter-ocular distances from the midline, positive on that side, float32 [S, S]."""
    return (1.0 if side == "left" else -1.0) * canvas.uv[..., 0]


def lids(canvas: Canvas) -> np.ndarray:
    """How deep each pixel lies within the nearer pair of lids; see `inside`."""
    return np.maximum(inside(canvas, _LIDS, "left"), inside(canvas, _LIDS, "right"))


def bearing_skin(canvas: Canvas, lips: bool = False) -> np.ndarray:
    """Skin that can bear a rash.

    `Canvas.skin` leaves out what is too dark or too bright to be told from hair and glasses: the folds of the lids, the
    brows, the shadow under the nose, the highlight on the forehead. Pigment belongs there as well.

    Args:
        canvas (`Canvas`):
            The face.
        lips (`bool`, *optional*, defaults to False):
            Whether the vermilion counts as skin.

    Returns:
        `np.ndarray`: float32 [S, S] in [0, 1].
    """
    shaded = np.maximum.reduce(
        [canvas.polygon(outline(canvas, _ORBIT, "left")), canvas.polygon(outline(canvas, _ORBIT, "right")),
         cv2.dilate(canvas.region("nose"), ellipse(4 * canvas.px))]
    )  # fmt: skip
    base = canvas.skin_lab[0]
    not_black = smoothstep(canvas.lab[..., 0], 0.2 * base, 0.4 * base)
    shaded = shaded * not_black
    closed = cv2.morphologyEx(canvas.skin, cv2.MORPH_CLOSE, ellipse(8 * canvas.px))
    bright = closed * canvas.region("skin") * smoothstep(canvas.lab[..., 0], base, base + 6)
    skin = np.maximum.reduce([canvas.skin, shaded, bright])
    mouth = canvas.region("lips")
    if lips:
        vermilion = cv2.dilate(mouth, ellipse(1.5 * canvas.px)) * not_black
        skin = np.maximum(skin, vermilion) * (1.0 - canvas.mouth())
    else:
        skin = skin * (1.0 - mouth)
    return skin * (1.0 - canvas.aperture("left")) * (1.0 - canvas.aperture("right"))


def check_visible(canvas: Canvas, amount: np.ndarray, title: str) -> None:
    """Raises `NotVisibleError` if less than a hundredth of a square inter-ocular distance bears the sign."""
    if float(amount.sum()) < 0.01 * canvas.iod**2:
        raise NotVisibleError(
            f"{title} would hardly be seen: the skin that it needs is hidden or turned out of sight, or it is too mild."
        )
