"""Lids, gaze, brows and mouth of a face set as landmarks say, in the picture: what is drawn need not be as it was told.

A generator that has learned from healthy faces draws a drooping lid or a squint half as far as it was told, or not at
all. So the drawn eye is taken apart into lids and eyeball, as for painting such signs, and put together again in the
pose that is wanted; the mouth is warped.
"""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, EyeSide, NotVisibleError
from .eye_pose import Pose, PosedEye
from .eyeball import IRIS_DEPTH, EyeLayers
from .mesh import (
    INNER_LIPS,
    LEFT_BROW,
    LEFT_EYE,
    LEFT_IRIS,
    NOSE_BRIDGE,
    OUTER_LIPS,
    OVAL,
    RIGHT_BROW,
    RIGHT_EYE,
    RIGHT_IRIS,
    scale_points,
)
from .warp import Warp

_ABOVE = 14.0  # mm above the brow that move along
_MOST_TURN = 0.6  # sine of the angle between two gazes
_MOST_BROW = 6.0  # mm
_MOST_BULGE = 0.12
_MOUTH_REACH = 0.6  # inter-ocular distances

_PARTS = {"right": (RIGHT_EYE, RIGHT_IRIS, RIGHT_BROW), "left": (LEFT_EYE, LEFT_IRIS, LEFT_BROW)}


def repose_eye(canvas: Canvas, wanted: np.ndarray, side: EyeSide, rng: np.random.Generator) -> Canvas:
    """An eye whose lids, gaze and brow are as in other landmarks; its place and its tilt stay.

    Args:
        canvas (`Canvas`):
            The face.
        wanted (`np.ndarray`):
            float32 `[478, 3]` in pixels of a 256 px crop.
        side (`str`):
            `"left"` or `"right"`, the patient's own.
        rng (`np.random.Generator`):
            Of the grain of what is drawn anew.

    Returns:
        `Canvas`: picture and landmarks after; the same canvas if the eye cannot be seen well enough to be set.
    """
    try:
        eye = EyeLayers(canvas, side, above=_ABOVE)
        posed = PosedEye(eye, _pose_between(eye, scale_points(wanted[:, :2], canvas.size)))
        image = posed.image(rng)
    except NotVisibleError:
        return canvas
    return Canvas(np.clip(image, 0.0, 1.0).astype(np.float32), posed.landmarks)


def _pose_between(eye: EyeLayers, wanted: np.ndarray) -> Pose:
    """What leads from an eye to the one of the points float [478, 2], once both have their canthi in one place."""
    contour, iris, brow = _PARTS[eye.side]
    outer, inner = contour[0], contour[8]
    found = eye.to_work(eye.canvas.points)
    goal = eye.to_work(wanted)
    bulge = np.linalg.norm(goal[inner] - goal[outer]) / np.linalg.norm(found[inner] - found[outer]) - 1.0
    goal = _carried(goal, (goal[outer], goal[inner]), (found[outer], found[inner]))
    between = (eye.x > eye.outer[0]) & (eye.x < eye.inner[0])
    upper, lower = (
        np.where(between, eye.line_through(goal[list(points)]) - margin, 0.0) / eye.mm
        for points, margin in (
            (contour[:9], eye.upper),
            ((contour[0], *contour[:7:-1]), eye.lower),
        )
    )
    upper = np.minimum(upper, eye.open + lower)  # lids touch, they do not cross
    along = (eye.inner - eye.outer) / np.linalg.norm(eye.inner - eye.outer)
    across = np.array([-along[1], along[0]])
    shift = (goal[iris[0]] - found[iris[0]]) / (IRIS_DEPTH * eye.mm)
    turn = np.degrees(np.arcsin(np.clip([shift @ along, shift @ across], -_MOST_TURN, _MOST_TURN)))
    rise = float((goal[list(brow), 1] - found[list(brow), 1]).mean()) / eye.mm
    return Pose(
        upper=upper.astype(np.float32),
        lower=lower.astype(np.float32),
        turn=(float(turn[0]), float(turn[1])),
        brow=float(np.clip(rise, -_MOST_BROW, _MOST_BROW)),
        bulge=float(np.clip(bulge, 0.0, _MOST_BULGE)),
    )


def _carried(
    points: np.ndarray, pair: tuple[np.ndarray, np.ndarray], onto: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Points `[N, 2]` under the similarity that carries one pair of points onto another."""
    (start, end), (new_start, new_end) = pair, onto
    factor = complex(*(new_end - new_start)) / complex(*(end - start))
    turned = ((points - start) @ [1, 1j]) * factor
    return np.stack([turned.real, turned.imag], -1) + new_start


def reshape_mouth(canvas: Canvas, wanted: np.ndarray) -> Canvas:
    """A mouth whose lips are where other landmarks have them; eyes, bridge of the nose and outline stay.

    Args:
        canvas, wanted:
            See [`repose_eye`].
    """
    goal, found = scale_points(wanted[:, :2], canvas.size), canvas.points
    lips, held = list(OUTER_LIPS + INNER_LIPS), list(OVAL + RIGHT_EYE + LEFT_EYE + NOSE_BRIDGE)
    moves = np.concatenate([goal[lips] - found[lips], np.zeros((len(held), 2))])
    warp = Warp.from_handles(canvas.size, found[lips + held], moves, _MOUTH_REACH * canvas.iod)
    return Canvas(warp.image(canvas.image), warp.landmarks(canvas))
