"""Lids that hang too low or stand too high, and the eye that stands out: ptosis, lid retraction, proptosis."""

from __future__ import annotations

import numpy as np

from ...faces.canvas import Canvas
from ...faces.eye_pose import Pose, PosedEye
from ...faces.eyeball import IRIS_RADIUS, EyeLayers
from ...manifestations.taxonomy import Side
from .registry import Change, Stage, simulates

_SLIT = 0.9  # mm that stay open under the worst ptosis


@simulates("ptosis", Stage.EYE_SHAPE)
def ptosis(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """The upper lid hangs; often the brow is raised to make up for it.

    Its distance from the middle of the pupil (MRD1, about 3.5 mm in health) is 1 mm less at severity 0.3, so low at 0.6
    that the lid covers the upper part of the pupil, and negative at 1.0: the pupil is covered and a slit is left.
    """
    assert side != "both"
    eye = EyeLayers(canvas, side, above=14.0)
    own, below = eye.margin_distances
    lowest = max(min(own - 3.0, -1.9), _SLIT - below)
    half = max(min(own - 1.8, 0.9), lowest + 0.4)
    goal = np.interp(severity, [0.0, 0.3, 0.6, 1.0], [own - 0.4, max(own - 1.0, half + 0.2), half, lowest])
    shape = _shape(eye, outwards=rng.uniform(-0.12, 0.2))
    drop = np.minimum((own - goal) * shape, 0.93 * eye.open).astype(np.float32)
    frontalis = rng.uniform(0.5, 2.2) * (rng.random() < 0.6)
    posed = PosedEye(eye, Pose(upper=drop, brow=-frontalis * severity))
    fold = eye.upper - 4.0 * eye.mm * _width(eye)
    return Change(posed.image(rng), posed.area(fold, posed.upper + 0.8 * eye.mm), posed.landmarks)


@simulates("lid_retraction", Stage.EYE_SHAPE)
def lid_retraction(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """The upper lid stands too high, most of all outwards; the lower lid often too low.

    At severity 0.3 the margin is at the upper limbus, at 1.0 about 2 mm of white show above the iris.
    """
    assert side != "both"
    eye = EyeLayers(canvas, side)
    own, below = eye.margin_distances
    goal = _up_to(severity, own, [own + 0.9, own + 2.3], [IRIS_RADIUS - 0.2, IRIS_RADIUS + 1.9])
    upper = (own - goal) * _shape(eye, outwards=rng.uniform(0.05, 0.3))
    lower = rng.uniform(0.0, 1.1) * severity * _shape(eye, outwards=0.1)
    posed = PosedEye(eye, Pose(upper=upper, lower=lower))
    return Change(posed.image(rng), _with_lids(posed, above=4.0, beneath=1.5), posed.landmarks)


@simulates("proptosis", Stage.EYE_SHAPE)
def proptosis(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """The eyeball stands out: nearer and so larger, the lids apart and full, white below and then above the iris.

    At severity 0.3 the lower lid is at the limbus and the upper one 1 mm higher than before; at 1.0 nearly 2 mm of
    white show below and 1 mm above.
    """
    assert side != "both"
    eye = EyeLayers(canvas, side)
    own, below = eye.margin_distances
    up = _up_to(severity, own, [own + 0.8, own + 1.9], [IRIS_RADIUS - 1.0, IRIS_RADIUS + 0.9])
    down = _up_to(severity, below, [below + 0.4, below + 1.2], [IRIS_RADIUS + 0.1, IRIS_RADIUS + 1.7])
    shape = _shape(eye, outwards=rng.uniform(0.0, 0.2))
    pose = Pose(
        upper=(own - up) * shape,
        lower=(down - below) * _shape(eye, outwards=rng.uniform(-0.1, 0.15)),
        bulge=0.015 + rng.uniform(0.05, 0.075) * severity,
        fullness=0.2 + rng.uniform(0.8, 1.3) * severity,
    )
    posed = PosedEye(eye, pose)
    return Change(posed.image(rng), _with_lids(posed, above=6.0, beneath=5.0), posed.landmarks)


def _up_to(severity: float, own: float, at_least: list[float], place: list[float]) -> float:
    """A margin's distance from the pupil, which grows with severity: the larger of two at 0.3, and at 1.0."""
    mild, severe = (max(pair) for pair in zip(at_least, place, strict=True))
    return float(np.interp(severity, [0.0, 0.3, 1.0], [own + 0.3, mild, max(severe, mild + 0.8)]))


def _shape(eye: EyeLayers, outwards: float) -> np.ndarray:
    """Line: how much of its movement a margin makes at every column; 1 at the pupil, 0 at the canthi.

    `outwards` is by how much more the outer end moves, as a share.
    """
    across = (eye.x - eye.outer[0]) / (eye.inner[0] - eye.outer[0])
    shape = eye.open**1.05 * (1.0 + outwards * (1.0 - 2.0 * np.clip(across, 0.0, 1.0)))
    return shape / shape[eye.pupil_column]


def _width(eye: EyeLayers) -> np.ndarray:
    """Line: how much of its full height a lid has at every column."""
    return np.sqrt(eye.open / eye.open.max())


def _with_lids(posed: PosedEye, above: float, beneath: float) -> np.ndarray:
    """Area of the eye with some mm of the upper and of the lower lid."""
    lid = posed.layers.mm * _width(posed.layers)
    return posed.area(posed.upper - above * lid, posed.lower + beneath * lid)
