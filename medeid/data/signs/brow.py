"""Loss of the brow, and the skin beneath its hairs."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve

from ...faces.canvas import Canvas, EyeSide, NotVisibleError, ellipse, smoothstep
from ...manifestations.taxonomy import Side
from .registry import Change, Stage, simulates
from .textures import averaged, noise

_LEAST_CONTRAST = 7.0  # CIELAB lightness; a fainter brow is not missed
_RIDGE = 10.0  # how much the lighter side of a gap outweighs the darker one, per unit of sRGB
_LEAST_SKIN = 0.55  # share of the skin above a brow that no fringe hides


@dataclass(frozen=True)
class BareBrow:
    """A brow and what it would be without hairs.

    Args:
        image (`np.ndarray`):
            float32 [S, S, 3]: the picture with the hairs replaced by the skin beneath them.
        hair (`np.ndarray`):
            float32 [S, S] in [0, 1]: where hairs are.
        along (`np.ndarray`):
            float32 [S, S]: place along the brow, 0 at its inner and 1 at its outer end.
        contrast (`float`):
            How much darker the brow is than its skin, in CIELAB lightness.
    """

    image: np.ndarray
    hair: np.ndarray
    along: np.ndarray
    contrast: float


def brow_shows(canvas: Canvas, side: EyeSide) -> bool:
    """Whether there is skin above a brow, or else a fringe, a hat or the border of the face."""
    zone = _zone(canvas, side)
    above = np.clip(np.roll(zone, -round(5 * canvas.px), axis=0) - zone, 0.0, 1.0)
    return bool((above * canvas.skin).sum() >= _LEAST_SKIN * max(above.sum(), 1.0))


def bare_brow(canvas: Canvas, side: EyeSide) -> BareBrow:
    """Takes the hairs off a brow.

    The colour runs on evenly from the skin above and below; pores and grain are those of the skin near by.

    Raises:
        `NotVisibleError`: if the brow lies under hair.
    """
    if not brow_shows(canvas, side):
        raise NotVisibleError(f"The {side} brow lies under hair or out of sight.")
    points = canvas.brow_points(side)
    middle = (points[:5] + points[:4:-1]) / 2  # the outer end first
    middle[0] += 0.6 * (middle[0] - middle[1])  # hairs go on beyond the last points
    zone = _zone(canvas, side)
    window = _window(zone, round(14 * canvas.px))
    image, zone, skin = canvas.image[window], zone[window], canvas.skin[window]
    known = skin * (1.0 - zone) + 1e-4
    base = _carried_on(canvas, image, known, zone > 0.02)
    darkness = cv2.cvtColor(base, cv2.COLOR_RGB2LAB)[..., 0] - canvas.lab[window][..., 0]
    inside = canvas.brow(side)[window]
    hair = zone * smoothstep(gaussian_filter(darkness, 0.5 * canvas.px), 1.5, 5.0)
    hair = _touching(hair, inside)
    bare = base + _grain(canvas, image, known, zone)
    cover = gaussian_filter(cv2.dilate(hair, ellipse(canvas.px)), 0.6 * canvas.px)[..., None]

    result = canvas.image.copy()
    hairs, along = np.zeros_like(canvas.skin), np.zeros_like(canvas.skin)
    result[window] = np.clip(image + cover * (bare - image), 0.0, 1.0)
    hairs[window] = hair
    along[window] = _along(canvas, middle, window)
    contrast = float((inside * darkness).sum() / max(inside.sum(), 1e-6))
    return BareBrow(result, hairs, along, contrast)


@simulates("brow_alopecia", Stage.SKIN)
def brow_alopecia(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """A brow loses hairs: from its outer end (Hertoghe's sign), in patches, or everywhere.

    The severity is the share that is lost: 0.3 is the outer third, at 1.0 a few hairs are left.
    """
    assert side != "both"
    bare = bare_brow(canvas, side)
    if bare.contrast < _LEAST_CONTRAST:
        raise NotVisibleError(f"The {side} brow is hardly darker than the skin; a loss of it would not be seen.")
    strands = _strands(canvas, side, rng)
    order, softness = _order_of_loss(canvas, bare, strands, rng)
    weight = bare.hair.ravel()
    ranks = np.argsort(order.ravel())
    share = np.cumsum(weight[ranks]) / weight.sum()
    rank = np.empty_like(share)
    rank[ranks] = share
    rank = gaussian_filter(rank.reshape(order.shape), 0.6 * canvas.px)
    reached = severity + softness / 2 * severity**3  # so that at 1.0 nothing is left of the thinning edge
    lost = smoothstep(rank, reached + softness / 2, reached - softness / 2)
    # Some hairs are always spared, and those are thin. No edge is sharper than the photo.
    lost = gaussian_filter(lost * (1.0 - 0.3 * smoothstep(strands, 1.0, 2.5)), 0.6 * canvas.px)
    grown = cv2.dilate(bare.hair, ellipse(canvas.px))
    image = canvas.image + lost[..., None] * (bare.image - canvas.image)
    return Change(image, grown * gaussian_filter(lost, canvas.px))


def _order_of_loss(
    canvas: Canvas, bare: BareBrow, strands: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Which hairs go first (low), and over which share of the brow they thin out."""
    kind = rng.choice(["outer", "patches", "diffuse"], p=[0.4, 0.4, 0.2])
    if kind == "outer":
        return 0.035 * strands + 0.05 * noise(canvas, 0.08, rng) - bare.along, 0.35
    if kind == "diffuse":
        return 0.5 * strands + 0.7 * noise(canvas, 0.15, rng) - 2.0 * bare.along, 1.6
    places = rng.permutation([0.15, 0.4, 0.65, 0.9])[: rng.integers(1, 4)] + rng.uniform(-0.1, 0.1)
    nearest = np.min([np.abs(bare.along - place) / rng.uniform(0.7, 1.4) for place in places], axis=0)
    return nearest + 0.02 * strands + 0.06 * noise(canvas, 0.1, rng), 0.4


def _strands(canvas: Canvas, side: EyeSide, rng: np.random.Generator) -> np.ndarray:
    """A pattern as fine as hairs, running as those of the brow do; float32 [S, S], mean 0, standard deviation 1."""
    points = canvas.brow_points(side)
    outwards = points[0] - points[4]
    angle = np.arctan2(outwards[1], outwards[0]) + (-1 if side == "left" else 1) * rng.uniform(0.2, 0.5)
    length = round(4 * canvas.px)
    kernel = np.zeros((2 * length + 1,) * 2, np.float32)
    tip = length * np.array([np.cos(angle), np.sin(angle)])
    start, end = (np.rint((length + sign * tip) * 16).astype(int).tolist() for sign in (-0.5, 0.5))
    cv2.line(kernel, start, end, 1.0, max(1, round(0.7 * canvas.px)), cv2.LINE_AA, 4)
    pattern = cv2.filter2D(rng.standard_normal((canvas.size,) * 2).astype(np.float32), -1, kernel)
    pattern = gaussian_filter(pattern, 0.5 * canvas.px)
    return pattern / pattern.std()


def _zone(canvas: Canvas, side: EyeSide) -> np.ndarray:
    """Where hairs of the brow may be: around its contour, but not on the lid."""
    points = canvas.brow_points(side)
    outer = points[[0, 9]].mean(0)
    tail = outer + 0.05 * canvas.iod * (outer - points[[1, 8]].mean(0)) / np.linalg.norm(outer - points[[1, 8]].mean(0))
    contour = np.concatenate([points, tail[None]])
    zone = cv2.dilate(canvas.polygon(contour), ellipse(4.5 * canvas.px))
    lid = cv2.dilate(canvas.aperture(side), ellipse(3.5 * canvas.px))
    return np.clip(gaussian_filter(zone * (1.0 - lid), 0.8 * canvas.px), 0.0, 1.0)


def _along(canvas: Canvas, middle: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
    """Place along a line from the outer to the inner end, 1 to 0, of every pixel in a window."""
    dense = np.stack([np.interp(np.linspace(0, 4, 41), range(5), middle[:, k]) for k in range(2)], 1)
    y, x = np.mgrid[window]
    distance = np.hypot(x[..., None] - dense[:, 0], y[..., None] - dense[:, 1])
    weight = np.exp(-((distance - distance.min(-1, keepdims=True)) ** 2) / (2 * (1.5 * canvas.px) ** 2))
    return (weight @ np.linspace(1, 0, 41) / weight.sum(-1)).astype(np.float32)


def _window(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """Rows and columns of a mask and of `margin` pixels around it."""
    at = np.argwhere(mask)
    (top, left), (bottom, right) = np.maximum(at.min(0) - margin, 0), at.max(0) + margin + 1
    return slice(top, min(bottom, mask.shape[0])), slice(left, min(right, mask.shape[1]))


def _carried_on(canvas: Canvas, image: np.ndarray, known: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The colour of the skin around a brow, carried on beneath it without detail."""
    lightness = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[..., 0]
    # Stray hairs and the brow's own blur darken the skin beside it, so what is lighter there counts for more.
    lighter = np.exp(np.clip(0.25 * (lightness - averaged(lightness, known, 5 * canvas.px)), -6, 3))
    smooth = averaged(image, known * lighter, 2.5 * canvas.px)
    # By exponentials, in which the lit ridge outweighs the shadow of the lid below it.
    return np.log(_harmonic(np.exp(_RIDGE * smooth), hole)) / _RIDGE


def _harmonic(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fills a hole with the smoothest surface that meets its border: the solution of Laplace's equation."""
    index = np.full(hole.shape, -1)
    index[hole] = np.arange(hole.sum())
    padded = np.pad(index, 1, mode="edge")
    colour = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    own, right = index[hole], np.zeros((int(hole.sum()), 3))
    equations, unknowns = [own], [own]
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        view = (slice(dy, dy + hole.shape[0]), slice(dx, dx + hole.shape[1]))
        neighbour = padded[view][hole]
        free = neighbour >= 0
        equations.append(own[free])
        unknowns.append(neighbour[free])
        right[~free] += colour[view][hole][~free]
    rows, columns = np.concatenate(equations), np.concatenate(unknowns)
    values = np.r_[np.full(len(own), 4.0), np.full(len(rows) - len(own), -1.0)]
    system = coo_array((values, (rows, columns)), shape=(len(own), len(own))).tocsc()
    result = image.copy()
    result[hole] = spsolve(system, right)
    return result.astype(np.float32)


def _touching(mask: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """The parts of a mask that meet a seed."""
    _, labels = cv2.connectedComponents((mask > 0.3).astype(np.uint8))
    kept = np.isin(labels, np.unique(labels[(seed > 0.5) & (labels > 0)]))
    return mask * cv2.dilate(kept.astype(np.float32) * (labels > 0), np.ones((3, 3), np.uint8))


def _grain(canvas: Canvas, image: np.ndarray, known: np.ndarray, zone: np.ndarray) -> np.ndarray:
    """Pores and grain for the bare skin: those of a piece of skin above or below, moved over."""
    clear = cv2.erode(known, ellipse(2.5 * canvas.px)) > 0.9
    detail = image - averaged(image, known, 1.6 * canvas.px)
    if clear.sum() < 50:
        return np.zeros_like(image)
    limit = 2.5 * detail[clear].std(0)
    height = max(1, round(float(np.percentile(zone.sum(0), 90))))
    steps = (-height, height, -height - round(4 * canvas.px), height + round(4 * canvas.px))
    step = max(steps, key=lambda rows: float((zone * np.roll(clear, -rows, axis=0)).sum()))
    donor, present = np.roll(detail, -step, axis=0), np.roll(clear, -step, axis=0)
    # Where that piece has a gap, grain from elsewhere.
    loose = detail[clear]
    donor[~present] = loose[np.arange((~present).sum()) * 7919 % len(loose)]
    return np.clip(donor, -limit, limit)
