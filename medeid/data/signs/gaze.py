"""The eyeball turned while the other eye looks at the camera: esotropia, exotropia, hypertropia."""

from __future__ import annotations

import numpy as np

from ...faces.canvas import Canvas, NotVisibleError
from ...faces.eye_pose import Pose, PosedEye
from ...faces.eyeball import IRIS_DEPTH, EyeLayers
from ...manifestations.taxonomy import Side
from .registry import Change, Stage, simulates

_LEAST, _MOST = 4.0, 35.0  # degrees
_MOST_UP = 24.0
_LEAST_ROOM = 12.0  # degrees; a turn that stops before is no squint to see
_LID_FOLLOWS = (0.4, 0.15)  # share of the iris' way that the upper and the lower lid go along upwards


@simulates("esotropia", Stage.GAZE)
def esotropia(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """The eye turned inwards, by 13 degrees (a fifth of the iris' width) at severity 0.3 and up to 35 at 1.0."""
    return _sideways(canvas, side, severity, rng, inwards=True)


@simulates("exotropia", Stage.GAZE)
def exotropia(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """The eye turned outwards, by 13 degrees (a fifth of the iris' width) at severity 0.3 and up to 35 at 1.0."""
    return _sideways(canvas, side, severity, rng, inwards=False)


def _sideways(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator, inwards: bool) -> Change:
    assert side != "both"
    eye = EyeLayers(canvas, side)
    centre, radius = eye.iris_disc
    axis = (eye.inner - eye.outer) / np.linalg.norm(eye.inner - eye.outer)
    # A third of the iris stays in sight, so that the eye is still one that looks somewhere.
    room = ((eye.inner - centre) if inwards else (centre - eye.outer)) @ axis - 0.35 * radius
    farthest = float(np.degrees(np.arcsin(np.clip(room / (IRIS_DEPTH * eye.mm), 0.0, 1.0))))
    if farthest < _LEAST_ROOM:
        raise NotVisibleError(f"The {side} eye looks so far to that side already that it cannot turn further.")
    angle = _LEAST + (min(_MOST, farthest) - _LEAST) * severity
    return _turned(eye, (angle if inwards else -angle, rng.uniform(-2.0, 2.0)), 0.0, rng)


@simulates("hypertropia", Stage.GAZE)
def hypertropia(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """The eye turned up, by 10 degrees (1.7 mm) at severity 0.3 and 24 (4 mm) at 1.0; the lids follow a little."""
    assert side != "both"
    eye = EyeLayers(canvas, side)
    angle = _LEAST + (_MOST_UP - _LEAST) * severity
    rise = IRIS_DEPTH * float(np.sin(np.radians(angle)))
    return _turned(eye, (rng.uniform(-2.0, 2.0), -angle), rise, rng)


def _turned(eye: EyeLayers, turn: tuple[float, float], rise: float, rng: np.random.Generator) -> Change:
    shape = eye.open / max(float(eye.open[eye.pupil_column]), 1e-6)
    upper, lower = (-share * rise * shape for share in _LID_FOLLOWS)
    posed = PosedEye(eye, Pose(upper=upper, lower=lower, turn=turn))
    seen = posed.area(posed.upper - 0.5 * eye.mm, posed.lower + 0.5 * eye.mm)
    return Change(posed.image(rng), seen, posed.landmarks)
