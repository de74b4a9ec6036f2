"""Too much and too little melanin: melasma and vitiligo."""

from __future__ import annotations

import cv2
import numpy as np

from ...faces.canvas import Canvas, smoothstep
from ...faces.pigments import MELANIN, absorb, to_linear, to_srgb
from ...manifestations.taxonomy import Side
from .areas import Stop, bearing_skin, check_visible, inside, lids
from .registry import Change, Stage, simulates
from .textures import noise

# Melasma

# u and v of the middle, half width, half height, turn in radians; mirrored unless u is 0.
_MELASMA_SITES = {
    "cheek": (0.46, 0.39, 0.30, 0.17, -0.2),
    "nose": (0.0, 0.24, 0.09, 0.14, 0.0),
    "forehead": (0.22, -0.36, 0.32, 0.14, 0.15),
    "chin": (0.0, 1.18, 0.17, 0.10, 0.0),
    "jaw": (0.52, 0.96, 0.12, 0.24, 0.6),
}
# Sites of each pattern, and its share of patients (Sanchez et al., "Melasma: a clinical, light microscopic,
# ultrastructural, and immunofluorescence study", J Am Acad Dermatol 1981).
_MELASMA_PATTERNS = {
    "centrofacial": (("cheek", "forehead", "nose", "chin", "lip"), 0.63),
    "malar": (("cheek", "nose"), 0.21),
    "mandibular": (("jaw", "chin"), 0.16),
}
_MOUSTACHE: tuple[Stop, ...] = ((167, -0.01, 0), 165, 92, 186, 40, 39, (37, -0.01, 0))


@simulates("melasma", Stage.SKIN)
def melasma(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """Brown patches with jagged edges, much alike on both halves, in one of three patterns.

    0.3: light brown veil on the main site; 0.6: plain patches on most sites of the pattern; 1.0: dark, run together. On
    dark skin, and where the pigment lies deep, they are greyer.
    """
    names = list(_MELASMA_PATTERNS)
    pattern = _MELASMA_PATTERNS[str(rng.choice(names, p=[_MELASMA_PATTERNS[name][1] for name in names]))][0]
    net = noise(canvas, 0.05, rng, octaves=2, roughness=0.8)
    jagged = 0.22 * noise(canvas, 0.22, rng, octaves=5, roughness=0.68) + 0.08 * net
    patch = smoothstep(_melasma_field(canvas, pattern, severity, rng) + jagged, -0.05, 0.6)
    patch = patch * smoothstep(lids(canvas), 0.0, -0.05) * bearing_skin(canvas)
    check_visible(canvas, patch, "Melasma")
    dark = float(smoothstep(np.array(canvas.ita), 30.0, -20.0))
    density = patch * np.clip(0.9 + 0.12 * net, 0.4, 1.3) * (0.09 + 0.24 * severity)
    density *= 1.0 + 0.6 * dark  # what a clinician calls as severe, relative to that skin
    deep = np.clip(rng.uniform(0.2, 0.7) + 0.5 * dark, 0.0, 1.0)
    image = absorb(canvas.image, (MELANIN, density * (1.0 - deep)), (_DEEP_MELANIN, density * deep))
    return Change(image, np.clip(1.7 * patch, 0.0, 1.0))


# Melanin in the dermis: more of the blue light comes back from the skin above it (Tyndall effect).
_DEEP_MELANIN = (0.48, 0.64, 0.80)


def _melasma_field(canvas: Canvas, sites: tuple[str, ...], severity: float, rng: np.random.Generator) -> np.ndarray:
    """1 in the middle of a patch, 0 around its border, negative outside."""
    u, v = canvas.uv[..., 0], canvas.uv[..., 1]
    field = np.full_like(u, -2.0)
    for rank, site in enumerate(sites):
        # The sites of a pattern fill one after the other.
        grown = rng.uniform(0.85, 1.15) * (0.65 + 0.45 * severity) - 0.25 * rank * max(0.6 - severity, 0.0)
        if site == "lip":
            edge = inside(canvas, _MOUSTACHE, "left"), inside(canvas, _MOUSTACHE, "right")
            field = np.maximum(field, 0.25 + (np.maximum(*edge) - 0.06 * (1.0 - grown)) / 0.08)
            continue
        u0, v0, width, height, turn = _MELASMA_SITES[site]
        du, dv = np.abs(u) - u0 - rng.normal(0.0, 0.02), v - v0 - rng.normal(0.0, 0.015)
        if u0 == 0:
            du = u
        along, across = np.cos(turn) * du + np.sin(turn) * dv, np.cos(turn) * dv - np.sin(turn) * du
        field = np.maximum(field, 1.0 - np.hypot(along / width, across / height) / max(grown, 0.2))
    return field


# Vitiligo

# u and v around which the patches lie, spread of their discs to the side and downwards, radius of the discs.
_VITILIGO_SITES = {
    "eye": (0.35, 0.09, 0.20, 0.11, 0.13),
    "mouth": (0.17, 0.80, 0.20, 0.17, 0.11),
    "nostril": (0.13, 0.54, 0.06, 0.04, 0.08),
    "forehead": (0.25, -0.36, 0.16, 0.08, 0.10),
    "cheek": (0.52, 0.52, 0.10, 0.13, 0.10),
    "chin": (0.08, 1.14, 0.11, 0.08, 0.11),
    "temple": (0.66, 0.02, 0.05, 0.14, 0.09),
}
_VITILIGO_RANK = (0.0, 0.0, 0.4, 0.7, 0.6, 0.6, 0.7)  # openings of the face come first, mostly


@simulates("vitiligo", Stage.SKIN)
def vitiligo(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """Patches without pigment, sharp and scalloped, around eyes, mouth and nostrils, or all on one half (segmental).

    0.3: two or three patches of a thumb's breadth; 0.6: around eyes and mouth; 1.0: they run together over most sites,
    and brow hair within them is white.
    """
    edge = _vitiligo_edge(canvas, severity, rng)
    edge = edge + 0.012 * noise(canvas, 0.10, rng, octaves=4, roughness=0.55)
    skin = bearing_skin(canvas)
    shape = smoothstep(edge, -0.010, 0.012) * skin
    check_visible(canvas, shape, "Vitiligo")
    dark = float(smoothstep(np.array(canvas.ita), 50.0, 10.0))
    rim = np.exp(-(((edge + 0.025) / 0.02) ** 2)) * (edge < 0.01) * skin
    image = absorb(canvas.image, (MELANIN, rim * rng.uniform(0.0, 0.10) * dark))
    # Islands of pigment around hair follicles, where it comes back.
    dots = smoothstep(noise(canvas, 0.05, rng, octaves=1) + 0.8 * noise(canvas, 0.4, rng, octaves=1), 2.0, 2.8)
    loss = shape * (0.75 + 0.25 * severity) * (1.0 - 0.6 * dots)
    image = _depigment(canvas, image, loss, white_hair=max(severity - 0.7, 0.0) / 0.3)
    return Change(image, shape)


def _vitiligo_edge(canvas: Canvas, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Signed depth within the patches in inter-ocular distances: unions of discs, so that all edges bulge outwards."""
    # At half the resolution: a field of distances has no detail to lose.
    u, v = np.moveaxis(cv2.resize(canvas.uv, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), -1, 0)
    segment = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.8, 0.1])
    edge = np.full_like(u, -1.0)
    order = np.argsort(rng.random(len(_VITILIGO_SITES)) + _VITILIGO_RANK)
    for rank, site in enumerate(np.array(list(_VITILIGO_SITES))[order]):
        u0, v0, across, down, radius = _VITILIGO_SITES[str(site)]
        grown = (0.25 + 1.0 * severity) * rng.uniform(0.8, 1.2) - 0.13 * rank
        angle, out = rng.uniform(0.0, 2 * np.pi, (2, 8)), rng.uniform(0.5, 1.0, (2, 8))
        discs = np.stack([across * out * np.cos(angle), down * out * np.sin(angle)], -1)
        radii = rng.uniform(0.35, 1.1, (2, 8)) * radius
        missing = rng.random(2) < 0.15
        for sign, places, sizes, absent in zip((-1.0, 1.0), discs, radii, missing, strict=True):
            if segment not in (0.0, sign) or grown <= 0.1 or (absent and not segment):
                continue
            for (du, dv), size in zip(places, sizes, strict=True):
                near = size * min(grown, 1.3) ** 0.7
                edge = np.maximum(edge, near - np.hypot(u * sign - u0 - du * grown, v - v0 - dv * grown))
    if segment:
        edge = np.minimum(edge, segment * u)
    return cv2.resize(edge, (canvas.size, canvas.size), interpolation=cv2.INTER_LINEAR)


def _depigment(canvas: Canvas, image: np.ndarray, loss: np.ndarray, white_hair: float) -> np.ndarray:
    """Takes the melanin away, down to the ivory and pink of skin without it, in the light that falls there."""
    touched = loss > 0
    base, bare = (_linear_colour(lab) for lab in (canvas.skin_lab, _bare_skin(canvas)))
    light = to_linear(image[touched])
    weights = np.array((0.2126, 0.7152, 0.0722), np.float32)
    shade = np.maximum(light @ weights / float(base @ weights), 1e-3)
    tint = np.clip(light / (base * shade[:, None]), 0.25, 4.0)
    # Gloss is the same on bare skin, so contrast falls; hair keeps its colour unless it went white.
    dark = float(smoothstep(np.array(canvas.ita), 45.0, -10.0))
    brows = np.maximum(canvas.brow("left"), canvas.brow("right"))[touched]
    hair = np.where(brows > 0, smoothstep(shade, 0.55, 0.3), smoothstep(shade, 0.25, 0.12))
    contrast = (0.95 - 0.38 * dark) * (1.0 - 0.7 * white_hair * hair * brows)
    new = bare * shade[:, None] ** contrast[:, None] * tint**0.6
    new = np.where(new > 0.75, 0.75 + 0.2 * np.tanh((new - 0.75) / 0.2), new)
    amount = loss[touched] * (1.0 - hair * (1.0 - white_hair * brows))
    result = image.copy()
    result[touched] = to_srgb(light + amount[:, None] * (new - light))
    return result


def _bare_skin(canvas: Canvas) -> np.ndarray:
    """CIELAB of this skin without melanin in the light of this picture."""
    lightness, a, b = canvas.skin_lab
    bare = 69.0 + 0.20 * lightness
    white = np.maximum(canvas.sclera("left"), canvas.sclera("right")) > 0.5
    if white.sum() >= 8:
        # A dim picture has dim whites of the eyes; bare skin is hardly brighter than they are.
        bare = min(bare, max(float(np.percentile(canvas.lab[white][:, 0], 90)) + 8.0, lightness + 22.0))
    return np.array([max(bare, lightness + 7.0), 0.5 * a, 0.45 * b], np.float32)


def _linear_colour(lab: np.ndarray) -> np.ndarray:
    return to_linear(cv2.cvtColor(lab.reshape(1, 1, 3).astype(np.float32), cv2.COLOR_LAB2RGB).reshape(3))
