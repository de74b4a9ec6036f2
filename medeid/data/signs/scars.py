"""Scars: of cuts and operations anywhere on the face, and that of a mended cleft lip."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.spatial.distance import cdist

from ...faces.canvas import Canvas, EyeSide, NotVisibleError, smoothstep
from ...faces.pigments import HAEMOGLOBIN, MELANIN, absorb, cover, emboss
from ...faces.warp import Warp, own_point
from ...manifestations.taxonomy import Side
from .areas import bearing_skin, lids
from .areas import half as half_of_face
from .brow import bare_brow, brow_shows
from .registry import Change, Stage, simulates

_HALF_BROW = 0.035  # of the inter-ocular distance: from the upper edge of the brow to its middle
_TRIES = 12  # at each place
_DARK_SKIN = 10.0  # individual typology angle in degrees; darker skin answers to a wound with pigment

# Points of the mesh on the patient's right half, and which way scars run there: degrees from outwards to downwards.
_PLACES: dict[str, tuple[tuple[int, ...], tuple[float, float]]] = {
    "cheek": ((50, 205, 101, 187, 207, 118, 123, 147), (-110.0, -20.0)),
    "forehead": ((108, 69, 104, 66), (-60.0, 60.0)),
    "chin": ((32, 170, 211, 194, 201, 208), (-50.0, 35.0)),
    "brow": ((105, 63, 66), (50.0, 110.0)),
    "jaw": ((192, 214, 135, 169, 138), (-60.0, 20.0)),
}
_PLACE_WEIGHTS = (0.34, 0.24, 0.14, 0.18, 0.10)


# Where a mended cleft on the patient's right draws the points: outwards, downwards, in inter-ocular distances.
_CLEFT = {
    37: (-0.005, -0.044),
    39: (-0.008, -0.026),
    0: (-0.005, -0.008),
    72: (-0.004, -0.042),
    82: (0.0, -0.034),
    38: (-0.001, -0.036),
    87: (0.0, -0.016),
    97: (-0.013, -0.005),
    2: (-0.021, 0.003),
    98: (0.021, 0.016),
    129: (0.039, 0.023),
    64: (0.036, 0.029),
    49: (0.023, 0.023),
    1: (-0.008, 0.003),
    4: (-0.008, 0.003),
    165: (0.005, -0.013),
}
_CLEFT_HELD = (
    61, 291, 17, 86, 15, 316, 178, 14, 312, 267, 269, 40, 78,
    6, 197, 195, 36, 203, 206, 216, 142, 358, 294, 326, 327, 391,
)  # fmt: skip


@dataclass(frozen=True)
class _Look:
    """How a scar has healed.

    Attributes:
        blood, melanin (`float`): Density of pigment added at its middle; negative: lost.
        height (`float`): In millimetres above the skin.
        width (`float`): Relative to others of its severity.
        halo (`float`): Blood in the skin beside it.
        stitch (`float`): Distance of the marks of stitches in millimetres; 0: none.
    """

    blood: float
    melanin: float
    height: float
    width: float
    halo: float
    stitch: float


@dataclass(frozen=True)
class _Trace:
    """Where a scar runs.

    Attributes:
        way (`np.ndarray`): float32 [N, 2], its line in pixels.
        across (`np.ndarray`): float32 [S, S], distance from the line in pixels.
        along (`np.ndarray`): float32 [S, S], place along it from 0 to 1.
        half (`np.ndarray`): float32 [S, S], half its width in pixels.
    """

    way: np.ndarray
    across: np.ndarray
    along: np.ndarray
    half: np.ndarray


@simulates("scar", Stage.LESION)
def scar(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """A healed cut.

    At severity 0.3 it is a fine line of some 2 cm, a little paler, pinker or browner than the skin; at 1.0 it is some
    5 cm long, up to 4 mm wide, raised or sunken, and plain from afar.
    """
    assert side != "both"
    look = _look(canvas, severity, rng)
    wobble = gaussian_filter1d(rng.standard_normal(64), 3.0, mode="wrap")
    way, place = _place(canvas, side, severity, rng)
    image, width = canvas.image, (1.0 + 1.5 * severity) * look.width
    if place == "brow":  # what shows there is the gap
        width, look = 0.6 * width, replace(look, height=0.3 * look.height, blood=0.5 * look.blood, stitch=0.0)
    trace = _trace(canvas, way, width, wobble)
    if place == "brow":
        mm = canvas.iod / 90
        gap = gaussian_filter(smoothstep(trace.across - trace.half, 1.6 * mm, 0.2 * mm), 0.7 * canvas.px)
        image = image + gap[..., None] * (bare_brow(canvas, side).image - image)
    return _drawn(canvas, image, trace, look, rng)


@simulates("cleft_lip_scar", Stage.FACE_SHAPE)
def cleft_lip_scar(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """A mended cleft of the lip on one side.

    At severity 0.3 it is a fine line from the peak of the lip to the nostril; at 1.0 it is broad, the peak is drawn up
    by 4 mm, the red of the lip notched, the nostril wide and flat.
    """
    assert side != "both"
    if np.linalg.norm(canvas.points[own_point(37, side)] - canvas.points[0]) < 0.025 * canvas.iod:
        raise NotVisibleError(f"The {side} half of the upper lip is turned out of sight.")
    warp = _cleft_pull(canvas, side, severity, rng)
    shaped = Canvas(warp.image(canvas.image), warp.landmarks(canvas))
    look = _look(canvas, severity, rng)
    look = replace(look, stitch=0.0, width=min(look.width, 1.2), height=0.6 * look.height)
    wobble = 0.5 * gaussian_filter1d(rng.standard_normal(64), 3.0, mode="wrap")
    trace = _trace(shaped, _cleft_line(shaped, side, rng), (0.9 + 1.3 * severity) * look.width, wobble)
    # No beard grows in a scar.
    hairy = smoothstep(canvas.skin_lab[0] - shaped.lab[..., 0], 8.0, 16.0) * (1.0 - shaped.region("lips"))
    lightness, a, b = (float(value) for value in canvas.skin_lab)
    bald = 0.8 * hairy * _covered(trace.across, trace.half + 0.3 * canvas.px)
    image = cover(shaped.image, (0.93 * lightness, a, b), bald, 3.0 * canvas.px)
    change = _drawn(shaped, image, trace, look, rng)
    assert change.area is not None
    moved = np.linalg.norm(warp.dense(), axis=-1)
    area = np.maximum(change.area, smoothstep(moved, 0.2 * canvas.px, 0.5 * canvas.px))
    area = np.maximum(change.area, gaussian_filter(area, 2.5 * canvas.px))
    return Change(change.image, area, shaped.landmarks)


def _cleft_pull(canvas: Canvas, side: EyeSide, severity: float, rng: np.random.Generator) -> Warp:
    moves = {index: severity * rng.uniform(0.7, 1.3) * np.array(move) for index, move in _CLEFT.items()}
    return Warp.of_face(canvas, side, moves, _CLEFT_HELD, reach=0.3)


def _cleft_line(canvas: Canvas, side: EyeSide, rng: np.random.Generator) -> np.ndarray:
    """From the sill of the nostril over the peak of the lip to its free edge, float32 [N, 2] in pixels."""
    sill, wing, peak, edge = (canvas.points[own_point(k, side)] for k in (97, 98, 37, 82))
    top = sill + rng.uniform(0.1, 0.45) * (wing - sill)
    bow = rng.uniform(-0.12, 0.12) * np.array([peak[1] - top[1], top[0] - peak[0]])
    stops = np.stack([top, 0.5 * (top + peak) + bow, peak, 0.35 * peak + 0.65 * edge])
    line = CubicSpline(np.linspace(0, 1, 4), stops)(np.linspace(0, 1, 40))
    return line.astype(np.float32)


def _look(canvas: Canvas, severity: float, rng: np.random.Generator) -> _Look:
    strength = 0.5 + 0.5 * severity
    stitch = rng.uniform(4.0, 7.0) * (rng.random() < 0.25)
    kind = rng.choice(["mature", "recent", "hypertrophic"], p=[0.45, 0.3, 0.25])
    draw = rng.uniform(0.7, 1.0, 4) * strength
    if canvas.ita < _DARK_SKIN:
        pale = rng.random() < 0.4
        if kind == "hypertrophic":
            return _Look(0.06 * draw[0], 0.16 * draw[1], 0.8 * draw[2], 1.4, 0.0, stitch)
        melanin = -0.26 * draw[1] if pale else 0.22 * draw[1]
        return _Look(0.04 * draw[0], melanin, (-0.5 if kind == "mature" else 0.5) * draw[2], 1.0, 0.0, stitch)
    if kind == "mature":
        return _Look(-0.09 * draw[0], -0.08 * draw[1], -0.55 * draw[2], 1.0, 0.0, stitch)
    if kind == "recent":
        return _Look(0.17 * draw[0], 0.02 * draw[1], 0.35 * draw[2], 1.0, 0.06 * draw[3], stitch)
    return _Look(0.20 * draw[0], 0.0, 0.8 * draw[2], 1.5, 0.03 * draw[3], stitch)


def _place(canvas: Canvas, side: EyeSide, severity: float, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A line over visible skin, float32 [N, 2] in pixels, and the part of the face that it is on."""
    brow = canvas.brow(side)
    skin = bearing_skin(canvas)
    half = half_of_face(canvas, side, softness=0.03) * (lids(canvas) < 0)
    away = gaussian_filter(skin, 3.0 * canvas.px) * half > 0.85
    beside = np.maximum(skin, gaussian_filter(brow, 2.0 * canvas.px) * 4.0) * half > 0.5
    spread = rng.uniform(0.85, 1.15) / 90
    for place in rng.choice(list(_PLACES), len(_PLACES), replace=False, p=_PLACE_WEIGHTS).tolist():
        if place == "brow" and not brow_shows(canvas, side):
            continue
        # A cut through the brow ends before the lid.
        length = 13.0 + 7.0 * severity if place == "brow" else 10.0 + 42.0 * severity
        for _ in range(_TRIES):
            way = _way(canvas, side, place, length * spread, rng)
            x, y = np.rint(way).astype(int).clip(0, canvas.size - 1).T
            free = (beside if place == "brow" else away)[y, x]
            if free.mean() > 0.94 and (place == "brow") == bool((brow[y, x] > 0.5).any()):
                return way, place
    raise NotVisibleError(f"No skin of the {side} half of the face is free enough to bear a scar.")


def _way(canvas: Canvas, side: EyeSide, place: str, length: float, rng: np.random.Generator) -> np.ndarray:
    """A line with the curvature and the small turns of a healed cut, laid on the skin."""
    starts, (low, high) = _PLACES[place]
    index = own_point(int(rng.choice(starts)), side)
    outwards = -1.0 if side == "right" else 1.0
    count = max(12, round(length * 120))
    bend = rng.normal(0.0, 0.6) * np.linspace(-0.5, 0.5, count)
    if rng.random() < 0.2:  # torn rather than cut
        bend = bend + rng.choice([-1, 1]) * rng.uniform(0.5, 1.0) * (np.arange(count) > rng.uniform(0.3, 0.7) * count)
    jitter = gaussian_filter1d(rng.standard_normal(count), 3.0) * 0.5
    heading = np.radians(rng.uniform(low, high)) + bend + jitter
    steps = np.stack([outwards * np.cos(heading), np.sin(heading)], 1) * (length / (count - 1))
    line = np.cumsum(steps, 0)
    middle = _at(canvas.uv, canvas.points[index]) + rng.normal(0.0, 0.03, 2) * (place != "brow")
    line += middle + (0.0, _HALF_BROW * (place == "brow")) - line[count // 2]
    return _on_skin(canvas, line)


def _at(field: np.ndarray, point: np.ndarray) -> np.ndarray:
    x, y = np.rint(point).astype(int).clip(0, field.shape[0] - 1)
    return field[y, x]


def _on_skin(canvas: Canvas, line: np.ndarray) -> np.ndarray:
    """Where a line [N, 2], in inter-ocular distances on the face, is in the picture: float32 [N, 2] in pixels."""
    step = max(1, round(2 * canvas.px))  # the line is smoothed afterwards
    field = canvas.uv[::step, ::step].reshape(-1, 2)
    near = np.flatnonzero((np.abs(field - line.mean(0)) < 0.6).all(1))
    if not len(near):
        return np.full((len(line), 2), -1.0, np.float32)
    nearest = near[cdist(line, field[near]).argmin(1)]
    columns = canvas.uv[::step, ::step].shape[1]
    pixels = np.stack([nearest % columns, nearest // columns], 1) * float(step)
    return gaussian_filter1d(pixels, 2.0, axis=0, mode="nearest").astype(np.float32)


def _trace(canvas: Canvas, way: np.ndarray, width: float, wobble: np.ndarray) -> _Trace:
    """A scar of a width in millimetres along a line [N, 2], tapered at its ends and uneven by `wobble` [64] between."""
    across, along = _coordinates(canvas, way)
    uneven = np.clip(1.0 + wobble[np.clip(along * 64, 0, 63).astype(int)], 0.6, 1.5)
    tapered = np.sqrt(np.clip(4.0 * along * (1.0 - along), 0.1, 1.0))
    half = 0.5 * width * canvas.iod / 90 * uneven * tapered
    return _Trace(way, across, along, half.astype(np.float32))


def _coordinates(canvas: Canvas, way: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance from a line in pixels, and place along it from 0 to 1, float32 [S, S] each."""
    at, index = np.linspace(0, len(way) - 1, 160), np.arange(len(way))
    dense = np.stack([np.interp(at, index, way[:, k]) for k in range(2)], 1)
    margin = 12 * canvas.px
    low = np.clip(np.floor(dense.min(0) - margin), 0, canvas.size - 1).astype(int)
    high = np.clip(np.ceil(dense.max(0) + margin) + 1, low + 1, canvas.size).astype(int)
    y, x = np.mgrid[low[1] : high[1], low[0] : high[0]]
    distance = cdist(np.stack([x.ravel(), y.ravel()], 1), dense)
    across = np.full((canvas.size, canvas.size), margin, np.float32)
    along = np.zeros((canvas.size, canvas.size), np.float32)
    across[low[1] : high[1], low[0] : high[0]] = distance.min(1).reshape(x.shape)
    along[low[1] : high[1], low[0] : high[0]] = (distance.argmin(1) / 159).reshape(x.shape)
    return across, along


def _drawn(canvas: Canvas, image: np.ndarray, trace: _Trace, look: _Look, rng: np.random.Generator) -> Change:
    mm = canvas.iod / 90
    tissue = gaussian_filter(_covered(trace.across, trace.half), 0.5 * canvas.px)
    marks = _stitches(canvas, trace.way, look.stitch, rng)
    # Scar tissue has neither pores nor fine lines.
    smooth = gaussian_filter(image, (1.3 * canvas.px, 1.3 * canvas.px, 0))
    image = image + (0.7 * tissue)[..., None] * (smooth - image)
    patchy = np.clip(1.0 + 0.25 * rng.standard_normal(24), 0.4, 1.6)
    amount = np.maximum(tissue * np.interp(trace.along, np.linspace(0, 1, 24), patchy), 0.6 * marks)
    halo = look.halo * np.exp(-((trace.across / (trace.half + 1.8 * mm)) ** 2)) * (trace.across < 4.0 * mm)
    image = absorb(image, (HAEMOGLOBIN, look.blood * amount + halo), (MELANIN, look.melanin * amount))
    profile = np.sqrt(np.clip(1.0 - (trace.across / (trace.half + mm)) ** 2, 0.0, 1.0))
    height = look.height * mm * gaussian_filter(tissue * profile, 0.5 * canvas.px)
    line = _covered(trace.across, np.maximum(trace.half, 0.6 * canvas.px) + 0.4 * canvas.px)
    return Change(emboss(image, height, canvas.light, gloss=0.3), np.maximum(line, smoothstep(marks, 0.1, 0.5)))


def _covered(across: np.ndarray, half: np.ndarray) -> np.ndarray:
    """How much of each pixel a line of some half width covers."""
    return np.clip(half + 0.5 - across, 0.0, np.minimum(2.0 * half, 1.0))


def _stitches(canvas: Canvas, way: np.ndarray, spacing: float, rng: np.random.Generator) -> np.ndarray:
    """Short marks across a line, `spacing` millimetres apart (none if 0), float32 [S, S] in [0, 1]."""
    if spacing == 0:
        return np.zeros((canvas.size, canvas.size), np.float32)
    mm = canvas.iod / 90
    reached = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(way, axis=0), axis=1))]
    tangents = gaussian_filter1d(np.gradient(way, axis=0), 2.0, axis=0)
    strokes = []
    for at in np.arange(0.5 * spacing * mm, reached[-1], spacing * mm):
        k = int(np.searchsorted(reached, at).clip(0, len(way) - 1))
        normal = np.array([-tangents[k, 1], tangents[k, 0]]) / max(float(np.linalg.norm(tangents[k])), 1e-6)
        reach = mm * rng.uniform(1.8, 2.6, 2)
        strokes.append(np.stack([way[k] - reach[0] * normal, way[k] + reach[1] * normal]))
    return gaussian_filter(canvas.lines(strokes, 0.7 * canvas.px), 0.4 * canvas.px)
