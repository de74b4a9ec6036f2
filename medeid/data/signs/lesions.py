"""Single lesions that sit in the skin: acne, moles, seborrhoeic keratoses.

On the crop 1 px of 256 is about 1 mm, as the outer corners of the eyes are about 90 mm apart.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from ...faces.canvas import Canvas, NotVisibleError, smoothstep
from ...faces.pigments import HAEMOGLOBIN, MELANIN, absorb, cover, emboss
from ...manifestations.taxonomy import Side
from .areas import off_midline
from .registry import Change, Stage, simulates
from .textures import bumps, noise, ragged, scatter

_DENSE = (0.85, 0.95, 1.0)  # pigment packed so densely that it swallows red light, too


@simulates("acne", Stage.LESION)
def acne(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """Comedones, papules, pustules and the marks they leave; 0.3 is mild (about 15 lesions), 1.0 severe (about 70)."""
    u, v = canvas.uv[..., 0], canvas.uv[..., 1]
    cheeks = np.exp(-(((np.abs(u) - 0.42) / 0.22) ** 2) - ((v - 0.55) / 0.35) ** 2)
    forehead = np.exp(-((u / 0.5) ** 2) - ((v + 0.38) / 0.18) ** 2)
    chin = np.exp(-((u / 0.35) ** 2) - ((v - 1.15) / 0.22) ** 2)
    weights = rng.uniform(0.3, 1.0, 3)
    where = sum(weight * zone for weight, zone in zip(weights, (cheeks, forehead, chin), strict=True))
    where = where * (canvas.skin > 0.8) * canvas.region("skin") * np.exp(0.8 * noise(canvas, 0.5, rng))
    count = round(4 + 62 * severity**1.2 * rng.uniform(0.8, 1.2))
    places = scatter(where, count, 2.5 * canvas.px, rng)
    if len(places) < 2:
        raise NotVisibleError("Too little skin shows for acne.")
    kind = rng.choice(4, len(places), p=_acne_kinds(severity))
    radii = canvas.px * np.choose(
        kind,
        [
            rng.uniform(0.5, 0.8, len(places)),
            rng.uniform(1.1, 1.7 + 0.9 * severity, len(places)),
            rng.uniform(1.2, 2.0, len(places)),
            rng.uniform(1.0, 2.2, len(places)),
        ],
    )
    comedones, papules, pustules, marks = (bumps(canvas, places[kind == k], radii[kind == k], 0.8) for k in range(4))
    halo = bumps(canvas, places[(kind == 1) | (kind == 2)], 2.0 * radii[(kind == 1) | (kind == 2)], 1.0)
    red = 0.22 * papules + 0.16 * pustules + 0.10 * halo + 0.10 * marks
    brown = 0.30 * comedones + 0.06 * papules + 0.10 * marks
    image = absorb(canvas.image, (HAEMOGLOBIN, red), (MELANIN, brown))
    image = emboss(image, canvas.px * 0.55 * (papules + pustules), canvas.light, gloss=0.5)
    tops = bumps(canvas, places[kind == 2], 0.55 * radii[kind == 2], 0.7)
    image = cover(image, (min(canvas.skin_lab[0] + 12, 86), 4, 24), 0.75 * tops, 4.0 * canvas.px)
    area = np.maximum.reduce([comedones, papules, pustules, marks, halo]) * 2.0
    return Change(image, np.clip(area, 0, 1))


def _acne_kinds(severity: float) -> np.ndarray:
    """Shares of comedones, papules, pustules and marks."""
    shares = np.array([0.45 - 0.3 * severity, 0.35, 0.05 + 0.2 * severity, 0.15 + 0.1 * severity])
    return shares / shares.sum()


def _place_of_lesion(canvas: Canvas, side: Side, radius: float, rng: np.random.Generator) -> np.ndarray:
    """A place float32 [2] on the skin of one side with `radius` pixels of skin around it."""
    face = canvas.region("skin") * (canvas.skin > 0.85)
    free = gaussian_filter(face, 0.5 * radius) * smoothstep(off_midline(canvas, side), 0.02, 0.08)
    v = canvas.uv[..., 1]
    places = scatter(np.where(free > 0.97, smoothstep(v, -0.75, -0.4), 0.0), 1, 0.0, rng)
    if len(places) == 0:
        raise NotVisibleError(f"No skin of the {side} side shows that is large enough.")
    return places[0]


@simulates("naevus", Stage.LESION)
def naevus(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """A mole: flat or domed, light brown to nearly black; 0.3 is 3 mm across, 1.0 about 9 mm."""
    radius = canvas.px * (0.9 + 3.6 * severity) * rng.uniform(0.9, 1.1)
    place = _place_of_lesion(canvas, side, radius, rng)
    distance = radius - _oval(canvas, place, rng.uniform(1.0, 1.25), rng)
    shape = ragged(distance, noise(canvas, 0.08, rng, octaves=2), 0.12 * radius, 0.9 * canvas.px + 0.25 * radius)
    mottled = 1.0 + 0.15 * noise(canvas, 0.05, rng, octaves=3)
    darkness = rng.uniform(0.3, 0.8)
    nests = shape * mottled * darkness
    image = absorb(canvas.image, (MELANIN, 0.75 * nests), (_DENSE, 0.45 * nests), (HAEMOGLOBIN, 0.04 * shape))
    if rng.random() < 0.6:
        dome = np.sqrt(np.clip(distance / radius, 0.0, 1.0)) * radius * rng.uniform(0.2, 0.45)
        image = emboss(image, gaussian_filter(dome, 0.5 * canvas.px), canvas.light, gloss=0.25)
    return Change(image, np.clip(1.4 * shape, 0, 1))


def _oval(canvas: Canvas, place: np.ndarray, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Distance in pixels from a place, with ovals of that ratio of axes for circles; float32 [S, S]."""
    angle = rng.uniform(0, np.pi)
    x = np.arange(canvas.size, dtype=np.float32)[None, :] - place[0]
    y = np.arange(canvas.size, dtype=np.float32)[:, None] - place[1]
    along = (np.cos(angle) * x + np.sin(angle) * y) / np.sqrt(ratio)
    across = (np.cos(angle) * y - np.sin(angle) * x) * np.sqrt(ratio)
    return np.hypot(along, across)


@simulates("seborrhoeic_keratosis", Stage.LESION)
def seborrhoeic_keratosis(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """A stuck-on plaque with a dull, pitted surface; 0.3 is 6 mm across, 1.0 about 15 mm."""
    radius = canvas.px * (1.6 + 5.6 * severity) * rng.uniform(0.9, 1.1)
    place = _place_of_lesion(canvas, side, radius, rng)
    distance = radius - _oval(canvas, place, rng.uniform(1.15, 1.6), rng)
    grain = noise(canvas, 0.045, rng, octaves=3, roughness=0.7)
    shape = ragged(distance, noise(canvas, 0.12, rng, octaves=3), 0.10 * radius, 1.8 * canvas.px)
    dull = cover(canvas.image, (0.92 * canvas.skin_lab[0], 11, 20), 0.4 * shape, softness=1.5 * canvas.px)
    plugs = scatter((shape > 0.9).astype(np.float32), int(3 + 10 * severity), 1.6 * canvas.px, rng)
    pits = bumps(canvas, plugs, np.full(len(plugs), 0.7 * canvas.px))
    brown = shape * np.clip(rng.uniform(0.18, 0.42) * (1.0 + 0.2 * grain), 0.05, None) + 0.12 * pits * shape
    image = absorb(dull, (MELANIN, 0.8 * brown), (_DENSE, 0.4 * brown))
    height = gaussian_filter(shape**2 * (0.3 + 0.15 * severity) * (1.0 + 0.15 * grain) - 0.1 * pits, 0.7 * canvas.px)
    image = emboss(image, canvas.px * height * (shape > 0), canvas.light)
    return Change(image, np.clip(1.2 * shape, 0, 1))
