"""Signs in the skin of the lids and around them: chalazion, blepharitis, a black eye, xanthelasma."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from ...faces.canvas import Canvas, NotVisibleError, smoothstep
from ...faces.pigments import (
    BILIRUBIN,
    BILIVERDIN,
    DEOXYHAEMOGLOBIN,
    HAEMOGLOBIN,
    HAEMOSIDERIN,
    Pigment,
    absorb,
    cover,
    emboss,
)
from ...manifestations.taxonomy import Side
from .close_up import CloseUp, Lid
from .registry import Change, Stage, simulates
from .textures import noise

_OUTER_CANTHI_MM = 88.0  # from one outer canthus to the other, in adults


def _local_lab(canvas: Canvas, weight: np.ndarray) -> np.ndarray:
    """float [3]: the mean CIELAB of a place, or of the skin of the face where nothing of it is seen."""
    total = float(weight.sum())
    return (canvas.lab * weight[..., None]).sum((0, 1)) / total if total > 0.5 else canvas.skin_lab


@simulates("chalazion", Stage.LESION)
def chalazion(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """A firm round lump in the lid, of the colour of skin or reddish; in a third a hordeolum: red, with a yellow point.

    Its diameter is 4 mm at severity 0.3 and 8 mm at 1.0.
    """
    eye = CloseUp(canvas, side)
    lid: Lid = "upper" if rng.random() < 0.6 else "lower"
    hordeolum = rng.random() < 0.35
    radius = (2.4 + 5.6 * severity) / 2 * rng.uniform(0.95, 1.05)
    x = rng.uniform(0.75 * eye.outer[0], 0.65 * eye.inner[0])
    depth = radius * 0.55 + 0.2 if hordeolum else radius * 0.9 + rng.uniform(0.6, 1.6)
    offset = np.stack([(eye.xy[..., 0] - x) / rng.uniform(1.0, 1.2), eye.from_lid(lid) - depth])
    distance = np.hypot(*offset) + 0.06 * radius * eye.noise(6.0, rng, octaves=2)
    skin = 1.0 - eye.between_lids
    dome = np.clip(1.0 - (distance / (1.15 * radius)) ** 2, 0.0, None) ** 1.8
    swelling = np.exp(-((distance / (2.0 * radius)) ** 2))
    # The lump smooths the lid's crease and comes out of the shade that lies around it.
    around = canvas.skin * eye.shrink(smoothstep(distance, radius + 5.0, radius + 1.0))
    image = cover(canvas.image, tuple(_local_lab(canvas, around)), 0.8 * eye.shrink(np.sqrt(dome) * skin), 3 * eye.mm)
    red = rng.uniform(0.22, 0.32) if hordeolum else rng.uniform(0.06, 0.18)
    blood = red * (0.5 + 0.5 * severity) * (0.6 * smoothstep(distance, 1.5 * radius, 0.3 * radius) + 0.4 * swelling)
    image = absorb(image, (HAEMOGLOBIN, eye.shrink(blood * skin)))
    height = eye.shrink(radius * (0.3 * dome + 0.1 * swelling) * skin) * eye.mm
    image = emboss(image, height, canvas.light, gloss=0.3)
    if hordeolum:
        point = np.hypot(eye.xy[..., 0] - x, eye.from_lid(lid) - 0.6 * depth)
        pus = eye.shrink(smoothstep(point, 0.3 + 0.35 * radius, 0.1 + 0.15 * radius) * skin)
        lab = _local_lab(canvas, pus)
        image = cover(image, (lab[0] + 0.45 * (95 - lab[0]), 0.4 * lab[1], lab[2] + 10.0), 0.8 * pus, 2 * canvas.px)
    return Change(image, eye.shrink(smoothstep(distance, radius + 0.2, radius - 0.2) * skin))


@simulates("blepharitis", Stage.LESION)
def blepharitis(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """Inflamed lid margins.

    At severity 0.3 the margins are pinkish with a few scales, at 1.0 red and thick with crusts and matted lashes.
    """
    eye = CloseUp(canvas, side)
    outside = np.where(eye.from_lid("upper") > -0.2, eye.from_lid("upper"), eye.from_lid("lower"))
    outside = np.maximum(outside, 0.0)
    length = smoothstep(eye.xy[..., 0], eye.outer[0] - 1.5, eye.outer[0] + 1.0) * smoothstep(
        eye.xy[..., 0], eye.inner[0] + 0.5, eye.inner[0] - 2.0
    )
    skin = (1.0 - eye.between_lids) * length
    uneven = (1.0 + 0.3 * eye.noise(5.0, rng)).clip(0.3)
    band = np.exp(-((outside / 1.9) ** 2))
    blood = skin * uneven * ((0.07 + 0.30 * severity) * band + 0.10 * severity * np.exp(-((outside / 4.5) ** 2)))
    image = absorb(canvas.image, (HAEMOGLOBIN, eye.shrink(blood)))
    ridge = eye.shrink(skin * uneven * np.exp(-(((outside - 1.0) / 0.9) ** 2))) * eye.mm
    image = emboss(image, gaussian_filter(ridge, 0.4 * eye.mm) * 0.55 * severity, canvas.light, gloss=0.2)
    matted = eye.shrink(_matted_lashes(eye, int(4 + 10 * severity), rng) * skin)
    image = image * (1.0 - (0.12 + 0.33 * severity) * matted)[..., None]
    crusts = eye.shrink(_crusts(eye, int(12 + 40 * severity), severity, rng) * skin)
    lab = _local_lab(canvas, crusts)
    image = cover(image, (lab[0] + 0.32 * (92 - lab[0]), 0.6 * lab[1], lab[2] + 7.0), 0.7 * crusts, 2 * canvas.px)
    area = skin * smoothstep(outside, 2.4, 2.0)
    return Change(image, eye.shrink(area))


def _lid_place(eye: CloseUp, lid: Lid, x: float, depth: float) -> np.ndarray:
    """float [2]: a place in the eye's coordinates, `depth` millimetres from the margin in the skin of the lid."""
    margin = float(eye.margin(lid, np.array(x)))
    return np.array([x, margin - depth if lid == "upper" else margin + depth])


def _crusts(eye: CloseUp, count: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Fine map of flecks at the roots of the lashes."""
    flecks = np.zeros(eye.xy.shape[:2], np.float32)
    for _ in range(count):
        lid: Lid = "upper" if rng.random() < 0.55 else "lower"
        x = rng.uniform(eye.outer[0] + 1.5, eye.inner[0] - 3.0)
        way = _lid_place(eye, lid, x, rng.uniform(0.5, 1.6)) + np.cumsum(rng.normal(0.0, 0.22, (3, 2)), 0)
        flecks = np.maximum(
            flecks, rng.uniform(0.4, 1.0) * eye.strokes([way], rng.uniform(0.27, 0.48 + 0.27 * severity))
        )
    return flecks


def _matted_lashes(eye: CloseUp, count: int, rng: np.random.Generator) -> np.ndarray:
    """Fine map of lashes stuck together in tufts."""
    result = np.zeros(eye.xy.shape[:2], np.float32)
    for _ in range(count):
        lid: Lid = "upper" if rng.random() < 0.6 else "lower"
        x = rng.uniform(eye.outer[0] + 1.0, eye.inner[0] - 5.0)
        reach = rng.uniform(2.0, 3.5) if lid == "upper" else rng.uniform(1.2, 2.2)
        # Lashes fan out from the middle of the lid.
        tip = _lid_place(eye, lid, x + 0.22 * x * rng.uniform(0.6, 1.4), reach)
        roots = [_lid_place(eye, lid, x + shift, -0.1) for shift in rng.uniform(-0.6, 0.6, 3)]
        result = np.maximum(result, eye.strokes([np.stack([root, tip]) for root in roots], 0.3))
    return result


# Densities of a bruise by its age: a fresh one, after two, five, eight and twelve days.
_DAYS = (0.0, 2.0, 5.0, 8.0, 12.0)
_CORE: tuple[tuple[Pigment, tuple[float, ...]], ...] = (
    (HAEMOGLOBIN, (0.22, 0.10, 0.06, 0.04, 0.02)),
    (DEOXYHAEMOGLOBIN, (0.26, 0.42, 0.36, 0.20, 0.06)),
    ((0.60, 0.62, 0.40), (0.08, 0.20, 0.14, 0.04, 0.0)),  # blood deep in the skin looks blue-black
    (HAEMOSIDERIN, (0.0, 0.0, 0.04, 0.10, 0.13)),
)
_RIM: tuple[tuple[Pigment, tuple[float, ...]], ...] = (
    (BILIVERDIN, (0.0, 0.02, 0.07, 0.08, 0.03)),
    (BILIRUBIN, (0.0, 0.03, 0.12, 0.18, 0.15)),
)


@simulates("periorbital_ecchymosis", Stage.SKIN)
def periorbital_ecchymosis(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """A black eye: blood in the loose skin of the lids, held by the rim of the orbit, of any age up to twelve days.

    At severity 0.3 a faint crescent under the eye, at 1.0 dark, swollen-looking lids all round.
    """
    eye = CloseUp(canvas, side)
    rim, angle = _orbit(canvas, eye)
    day = 12.0 * rng.random() ** 1.3  # seen sooner rather than later
    upper = rng.uniform(0.35, 1.0) * smoothstep(np.asarray(severity), 0.0, 0.7)
    medial = rng.uniform(-0.1, 0.25)
    pattern = noise(canvas, 0.3, rng, octaves=5, roughness=0.6)
    patches = noise(canvas, 0.12, rng, octaves=4, roughness=0.6)
    weight = np.where(np.sin(angle) > 0, 1.0, upper + (1 - upper) * smoothstep(np.sin(angle), -0.45, 0.1))
    weight = weight * (1.0 + medial * np.cos(angle))
    spread = 0.72 + 0.33 * severity
    edge = rim / (spread * weight.clip(0.3)) + 0.13 * pattern
    core = weight * smoothstep(edge, 1.0, 0.35) * (1.0 + 0.22 * patches).clip(0.2)
    # The breakdown products lie at the border, and sink.
    border = smoothstep(edge, 1.3, 0.85) * (0.55 + 0.45 * smoothstep(edge, 0.3, 0.8)) * (1.0 + 0.15 * pattern)
    hole = np.maximum(eye.shrink(eye.between_lids), canvas.aperture(eye.side))
    skin = np.maximum(canvas.skin, smoothstep(rim, 0.9, 0.6)) * (1.0 - hole)
    strength = 0.25 + 0.95 * severity
    layers = [
        (pigment, np.interp(day, _DAYS, amounts) * strength * place * skin)
        for place, table in ((core, _CORE), (border, _RIM))
        for pigment, amounts in table
    ]
    return Change(absorb(canvas.image, *layers))


def _orbit(canvas: Canvas, eye: CloseUp) -> tuple[np.ndarray, np.ndarray]:
    """Maps [S, S]: distance from the slit of the eye in units of its distance from the rim of the orbit, and direction.

    The direction is in radians, 0 towards the nose and a quarter turn below.
    """
    ends = np.clip(np.rint(eye.to_pixels(np.stack([eye.outer, eye.inner]))), 0, canvas.size - 1).astype(int)
    outer, inner = (canvas.uv[y, x] for x, y in ends)
    middle, nasal = (outer + inner) / 2, -1.0 if eye.side == "left" else 1.0
    x = (canvas.uv[..., 0] - middle[0]) * nasal * _OUTER_CANTHI_MM
    y = (canvas.uv[..., 1] - middle[1]) * _OUTER_CANTHI_MM
    half = 0.32 * float(np.abs(inner[0] - outer[0])) * _OUTER_CANTHI_MM
    beyond = np.sign(x) * np.maximum(np.abs(x) - half, 0.0)
    # From the middle of the lids to the rim: 16 mm up (the brow), 20 mm down; beyond the canthi 12 to 15 mm.
    across = beyond / np.where(beyond > 0, 12.0, 15.0)
    return np.hypot(across, y / np.where(y > 0, 20.0, 16.0)).astype(np.float32), np.arctan2(y, beyond)


@simulates("xanthelasma", Stage.LESION)
def xanthelasma(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """Yellow plaques of fat near the inner canthus, mostly of the upper lid.

    At severity 0.3 one of about 5 x 2 mm, at 1.0 up to three of about 11 x 4 mm, the lower lid included.
    """
    eye = CloseUp(canvas, side)
    count = 1 + int(severity > 0.45) * int(rng.random() < 0.7) + int(severity > 0.75) * int(rng.random() < 0.7)
    plaques = np.zeros(eye.xy.shape[:2], np.float32)
    wavy = eye.noise(2.5, rng)
    room = np.median(eye.inner[1] - eye.to_mm(canvas.brow_points(eye.side)[5:])[:, 1])
    place = np.array([eye.inner[0] + rng.uniform(-1.5, 1.0), min(rng.uniform(3.2, 4.6), 0.35 * room)])
    for index in range(count):
        lid: Lid = "lower" if index == 2 or (index == 1 and rng.random() < 0.5) else "upper"
        half = np.array([1.5, 0.9]) + np.array([3.2, 1.2]) * severity * rng.uniform(0.7, 1.0) * 0.85**index
        # A second one on the same lid lies further along it.
        x = place[0] - half[0] - (0.0 if lid == "lower" or index == 0 else 2.2 * half[0])
        depth = place[1] + 0.6 * half[1] + rng.uniform(-0.6, 0.6)
        offset = np.stack([eye.xy[..., 0] - x, eye.from_lid(lid) - depth]) / half[:, None, None]
        edge = (1.0 - np.hypot(*offset)) * half[1] + 0.28 * wavy
        plaques = np.maximum(plaques, smoothstep(edge, -0.3, 0.4))
    area = eye.shrink(plaques * (1.0 - eye.between_lids)) * (1.0 - canvas.brow(eye.side))
    if not (area > 0.5).any():
        raise NotVisibleError(f"The inner lids of the {side} eye are out of sight; xanthelasma needs them.")
    lab = _local_lab(canvas, area)
    fat = (lab[0] + 0.3 * (90.0 - lab[0]), 0.7 * lab[1] + 1.0, lab[2] + 9.0 + 6.0 * severity)
    mottled = eye.shrink(0.9 + 0.1 * np.tanh(eye.noise(1.5, rng)))
    image = cover(canvas.image, fat, area * mottled * (0.55 + 0.25 * severity), 2.5 * canvas.px)
    height = gaussian_filter(area, 0.5 * eye.mm) * (0.3 + 0.4 * severity) * eye.mm * mottled
    return Change(emboss(image, height, canvas.light, gloss=0.15), area)
