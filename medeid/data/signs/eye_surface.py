"""Signs on the surface of the eye: red eye, blood under the conjunctiva, pterygium, white pupil."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from ...faces.canvas import Canvas, NotVisibleError, smoothstep
from ...faces.pigments import BILIRUBIN, DEOXYHAEMOGLOBIN, Pigment, absorb, emboss
from ...manifestations.taxonomy import Side
from .close_up import CloseUp
from .registry import Change, Stage, simulates

_LEAST_WHITE = 16.0  # square millimetres
# Blood in open conjunctival vessels: well oxygenated and not seen through skin, so blue is absorbed as much as green.
_ARTERIAL: Pigment = (0.07, 1.00, 1.02)


def _open_eye(canvas: Canvas, side: Side, sign: str) -> CloseUp:
    """The eye, if enough of its white is seen to show the sign."""
    eye = CloseUp(canvas, side)
    if eye.square_mm(eye.white) < _LEAST_WHITE:
        raise NotVisibleError(f"The white of the {side} eye does not show; {sign} needs an open eye.")
    return eye


def _vessel(start: np.ndarray, goal: np.ndarray, rng: np.random.Generator, wander: float) -> np.ndarray:
    """A tortuous way [N, 2] from start to goal, in steps of about 0.3 mm."""
    way = goal - start
    length = np.linalg.norm(way)
    count = max(int(length / 0.3), 3)
    t = np.linspace(0.0, 1.0, count)
    across = np.array([-way[1], way[0]]) / max(length, 1e-6)
    bends = np.cumsum(rng.normal(0.0, 1.0, count))
    bends = (bends - t * bends[-1]) * 0.12 * wander + 0.1 * wander * np.sin(
        2 * np.pi * (t * length / rng.uniform(1.2, 2.5) + rng.random())
    )
    return start + t[:, None] * way + (bends * np.sin(np.pi * np.sqrt(t)))[:, None] * across


def _vessel_tree(eye: CloseUp, count: int, width: float, rng: np.random.Generator) -> np.ndarray:
    """Fine map of conjunctival vessels, which come from under the lids and the canthi and thin out at the limbus."""
    stems, twigs = [], []
    for _ in range(count):
        # More in the fissure, which is all that is seen, than straight up and down.
        angle = rng.choice([0.0, np.pi]) + rng.normal(0.0, 0.8)
        start = rng.uniform(9.0, 14.0) * np.array([np.cos(angle), np.sin(angle)])
        angle += rng.normal(0.0, 0.25)
        goal = (eye.cornea + abs(rng.normal(0.0, 1.2))) * np.array([np.cos(angle), np.sin(angle)])
        stem = _vessel(start, goal, rng, 1.6)
        stems.append(stem)
        for _ in range(rng.integers(1, 4)):
            root = stem[rng.integers(len(stem) // 4, len(stem))]
            turn = np.arctan2(root[1], root[0]) + rng.normal(0.0, 0.4)
            tip = np.array([np.cos(turn), np.sin(turn)]) * max(
                np.linalg.norm(root) - rng.uniform(1.0, 3.5), eye.cornea + 0.1
            )
            twigs.append(_vessel(root, tip, rng, 1.3))
    return np.maximum(eye.strokes(stems, width), 0.8 * eye.strokes(twigs, 0.6 * width))


@simulates("conjunctival_injection", Stage.EYE_SURFACE)
def conjunctival_injection(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """Dilated vessels: densest towards lids and canthi as in conjunctivitis, or around the limbus (ciliary flush).

    At severity 0.3 the white is pinkish with some vessels (grade 1 of 4), at 1.0 it is beefy red (grade 4).
    """
    eye = _open_eye(canvas, side, "injection")
    ciliary = rng.random() < 0.25
    from_limbus = np.maximum(eye.from_limbus, 0.0)
    if ciliary:
        profile = 0.45 + 0.9 * np.exp(-from_limbus / 2.2)
    else:
        lids = np.minimum(-eye.from_lid("upper"), -eye.from_lid("lower"))
        profile = 0.55 + 0.45 * smoothstep(from_limbus, 0.3, 5.0) + 0.35 * np.exp(-np.maximum(lids, 0.0) / 0.9)
    blush = profile * (1.0 + 0.28 * eye.noise(4.0, rng)).clip(0.3)
    vessels = _vessel_tree(eye, int(10 + 26 * severity), rng.uniform(0.22, 0.30) + 0.16 * severity, rng)
    vessels = np.maximum(vessels, 0.5 * _vessel_tree(eye, int(20 + 30 * severity), 0.18, rng))
    amount = (0.02 + 0.23 * severity**1.3) * blush + (0.12 + 0.38 * severity) * vessels
    margin = 0.16 * smoothstep(np.asarray(severity), 0.35, 1.0) * _lid_margins(eye)
    amount = eye.shrink(amount * eye.white + margin * (1.0 - eye.white)) * (1.0 - eye.glint)
    dark = 0.35 if ciliary else rng.uniform(0.0, 0.2)
    image = absorb(canvas.image, (_ARTERIAL, (1.0 - dark) * amount), (DEOXYHAEMOGLOBIN, dark * amount))
    return Change(image, eye.shrink(eye.white))


def _lid_margins(eye: CloseUp) -> np.ndarray:
    """Fine map of the edges of the lids, which are inflamed together with the conjunctiva."""
    outside = np.maximum(eye.from_lid("upper"), eye.from_lid("lower")).clip(0.0)
    x = eye.xy[..., 0]
    within = smoothstep(x, eye.inner[0] + 1.5, eye.inner[0]) * smoothstep(x, eye.outer[0] - 1.0, eye.outer[0])
    return np.exp(-((outside / 0.9) ** 2)) * within * smoothstep(eye.from_limbus, -0.2, 0.3)


@simulates("subconjunctival_haemorrhage", Stage.EYE_SURFACE)
def subconjunctival_haemorrhage(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """Fresh blood between conjunctiva and white, which ends flat at the limbus.

    At severity 0.3 it fills a third of the white, to one side of the iris, at 1.0 nearly all of the white.
    """
    eye = _open_eye(canvas, side, "a haemorrhage")
    patch = _blood(eye, severity, rng)
    area = eye.shrink(eye.white * patch)
    # The blood hides the white's own vessels; what shades the white shades it.
    alpha = (0.4 * area * (1.0 - eye.glint))[..., None]
    image = canvas.image + alpha * (eye.plain_white - canvas.image)
    thick = rng.uniform(0.85, 1.15) + 0.16 * eye.noise(5.0, rng) + 0.25 * smoothstep(eye.from_limbus, 1.0, 6.0)
    # Up to the very limbus: on the dark rim of the iris it is not seen.
    under = smoothstep(eye.from_limbus, -0.9, -0.2) * eye.between_lids * eye.pale
    thick = eye.shrink(under * patch * thick.clip(0.6)) * (1.0 - 0.9 * eye.glint)
    old = rng.uniform(0.0, 0.4)
    image = absorb(image, (_ARTERIAL, (1.0 - old) * thick), (DEOXYHAEMOGLOBIN, 1.2 * old * thick))
    return Change(image, area)


def _blood(eye: CloseUp, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Fine map of a sharp patch over the wanted share of the visible white, spread around the iris from one place."""
    nasal = (eye.white * (eye.xy[..., 0] > 0)).sum() / max(float(eye.white.sum()), 1e-6)
    towards = 0.0 if rng.random() < nasal else np.pi
    # More often below than above, where it sinks to.
    source = towards + rng.normal(0.2, 0.35) * (1.0 if towards == 0.0 else -1.0)
    x, y = eye.xy[..., 0], eye.xy[..., 1]
    turn = np.abs((np.arctan2(y, x) - source + np.pi) % (2 * np.pi) - np.pi)
    spread = np.hypot(7.0 * turn, 0.8 * (eye.from_limbus - rng.uniform(0.0, 4.0)))
    spread += rng.uniform(0.5, 1.1) * eye.noise(4.5, rng, octaves=2)
    reach = np.quantile(spread[eye.white > 0.5], min(0.1 + 0.88 * severity, 1.0))
    return smoothstep(spread, reach + 0.2, reach - 0.2)


@dataclass(frozen=True)
class _Wing:
    """The outline of a pterygium.

    Attributes:
        along: fine map, 0 at the tip of the head, 1 at the base near the canthus.
        edge: fine map, millimetres to the outline, positive inside.
        spine: float [N, 2], from the base to the tip, in the eye's coordinates.
        half: float [N], half of the width at each point of the spine.
    """

    along: np.ndarray
    edge: np.ndarray
    spine: np.ndarray
    half: np.ndarray


def _wing(eye: CloseUp, onto_cornea: float, severity: float, rng: np.random.Generator) -> _Wing:
    canthus, towards = (eye.inner - [2.2, 0.0], 1.0) if rng.random() < 0.9 else (eye.outer + [1.0, 0.0], -1.0)
    turn = rng.normal(0.05, 0.12)
    tip = (eye.cornea - onto_cornea) * np.array([towards * np.cos(turn), np.sin(turn)])
    base = np.array([towards * max(abs(canthus[0]), eye.cornea + 2.5), 0.3 * canthus[1] + 0.7 * tip[1]])
    axis = base - tip
    length = float(np.linalg.norm(axis))
    axis /= length
    offset = eye.xy - tip.astype(np.float32)
    along = (offset @ axis / length).astype(np.float32)
    across = offset @ np.array([-axis[1], axis[0]])
    head, foot = rng.uniform(0.6, 0.9) + 0.6 * severity, rng.uniform(2.3, 3.0) + 1.3 * severity

    def half_width(t: np.ndarray) -> np.ndarray:
        t = np.clip(t, 0.0, 1.2)
        blunt = np.sqrt(1.0 - (1.0 - np.clip(t * length / (1.2 * head), 0.0, 1.0)) ** 2)
        return blunt * (head + (foot - head) * t)

    bend = 0.3 * eye.noise(5.0, rng, octaves=1)
    edge = half_width(along) - np.abs(across + bend) + 0.16 * eye.noise(1.5, rng)
    edge = np.where(along < 0, -np.hypot(along * length, across), edge)
    t = np.linspace(1.15, 0.0, 32)
    return _Wing(along, edge, tip + t[:, None] * length * axis, half_width(t))


def _wing_vessels(eye: CloseUp, wing: _Wing, count: int, rng: np.random.Generator) -> np.ndarray:
    """Fine map of vessels that run from the base to the head and draw together there."""
    axis = wing.spine[-1] - wing.spine[0]
    normal = np.array([-axis[1], axis[0]]) / np.linalg.norm(axis)
    ways = []
    for _ in range(count):
        last = rng.integers(len(wing.spine) // 2, len(wing.spine) - 1)
        lane = rng.uniform(-0.85, 0.85) * wing.half[:last]
        lane += np.cumsum(rng.normal(0.0, 0.13, last))
        ways.append(wing.spine[:last] + lane[:, None] * normal)
    thick = ways[: count // 3]
    return np.maximum(eye.strokes(thick, 0.3), 0.7 * eye.strokes(ways, 0.18))


@simulates("pterygium", Stage.EYE_SURFACE)
def pterygium(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """A wing of vascular tissue that grows from the canthus, mostly the inner one, over the limbus.

    Its head lies 1.4 mm inside of the limbus at severity 0.3 and 3.5 mm at 1.0.
    """
    eye = _open_eye(canvas, side, "a pterygium")
    wing = _wing(eye, 0.5 + 3.0 * severity, severity, rng)
    shape = smoothstep(wing.edge, -0.2, 0.2) * smoothstep(wing.along, 1.15, 0.9) * eye.between_lids
    if eye.square_mm(shape * (eye.from_limbus < 0)) < 0.5:
        raise NotVisibleError(f"The limbus of the {side} eye does not show beside the lids; a pterygium needs it.")
    head = smoothstep(wing.along, 0.25, 0.06)
    fleshy = rng.uniform(0.45, 1.0)
    mottled = 1.0 + 0.25 * eye.noise(2.0, rng)
    streaks = _wing_vessels(eye, wing, int(9 + 10 * severity), rng)
    blood = (0.05 + 0.15 * fleshy * (0.4 + 0.6 * severity)) * mottled + (0.17 + 0.28 * severity) * streaks
    blood = eye.shrink(shape * blood * (1.0 - 0.65 * head))
    # On the white the tissue only adds to what is there; the iris it hides, at the head less.
    opacity = 0.3 + 0.3 * fleshy + (0.35 * (1.0 - head) + 0.1 * severity) * smoothstep(eye.from_limbus, 0.6, -0.4)
    tissue = eye.plain_white * (0.92 - 0.1 * eye.shrink(head))[..., None]
    image = canvas.image + eye.shrink(shape * opacity.clip(0.0, 0.92))[..., None] * (tissue - canvas.image)
    image = absorb(image, (_ARTERIAL, blood))
    # The lids lie over it and cast no step into its relief.
    thickness = gaussian_filter(smoothstep(wing.edge, -0.2, 1.4) * smoothstep(wing.along, 1.15, 0.7), 2.0)
    raised = emboss(image, eye.shrink(thickness) * (0.3 + 0.3 * severity) * eye.mm, canvas.light, gloss=0.4)
    image = image + eye.shrink(eye.between_lids)[..., None] * (raised - image)
    return Change(_with_glint(canvas, eye, image), eye.shrink(shape))


@simulates("leukocoria", Stage.EYE_SURFACE)
def leukocoria(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """A white, grey or yellow-white reflex fills the pupil.

    At severity 0.3 the pupil is grey as with an immature cataract, at 1.0 it shines nearly as bright as the white.
    """
    eye = CloseUp(canvas, side)
    chance = rng.uniform(0.4, 0.52) * eye.cornea
    centre, radius = eye.pupil() or (np.zeros(2), chance)
    radius = max(radius, 0.4 * eye.cornea)  # behind a white pupil there is little light to narrow it
    offset = (eye.xy - centre) / radius
    from_centre = np.hypot(offset[..., 0], offset[..., 1])
    disc = smoothstep(from_centre, 1.0, 1.0 - 0.35 / radius)
    visible = disc * eye.between_lids
    if visible.sum() < 0.5 * disc.sum() or eye.square_mm(eye.white) < _LEAST_WHITE:
        raise NotVisibleError(f"The pupil of the {side} eye does not show; leukocoria needs an open eye.")
    yellow = np.float32(rng.choice([0.0, rng.uniform(0.03, 0.1)]))
    # The reflex comes from behind: brighter on one side, clouded, without the shade of the lid.
    tilt = 0.05 * np.clip(offset @ rng.normal(0.0, 1.0, 2), -1.5, 1.5)
    cloud = 1.0 + 0.05 * eye.noise(1.4, rng) + tilt - 0.12 * np.minimum(from_centre, 1.0) ** 2
    bright = (0.4 * eye.white_colour + 0.6 * eye.white_colour.mean()) * (0.65 + 0.45 * severity)
    reflex = np.clip(bright * eye.shrink(cloud)[..., None], 0.0, 0.97).astype(np.float32)
    reflex = absorb(reflex, (BILIRUBIN, np.full(reflex.shape[:2], yellow)))
    alpha = eye.shrink(visible) * (0.35 + 0.6 * severity)
    image = canvas.image + alpha[..., None] * (reflex - canvas.image)
    area = eye.shrink(smoothstep(from_centre, 1.0, 1.0 - 0.2 / radius) * eye.between_lids)
    return Change(_with_glint(canvas, eye, image), area)


def _with_glint(canvas: Canvas, eye: CloseUp, image: np.ndarray) -> np.ndarray:
    """What the wet surface reflects lies above whatever has come beneath it."""
    return np.where(eye.glint[..., None] > 0, np.maximum(image, eye.glint[..., None] * canvas.image), image)
