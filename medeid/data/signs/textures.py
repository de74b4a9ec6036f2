"""Irregular patterns: fractal noise, patches with ragged edges, scattered spots, vessel trees."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt

from ...faces.canvas import Canvas, smoothstep

_PLANE = 4.0  # inter-ocular distances covered by a noise plane; the crop sees less


def noise(
    canvas: Canvas, scale: float, rng: np.random.Generator, octaves: int = 4, roughness: float = 0.5
) -> np.ndarray:
    """Fractal noise on the face, turning with the head.

    Args:
        canvas (`Canvas`):
            The face.
        scale (`float`):
            Size of the largest features in inter-ocular distances.
        rng (`np.random.Generator`):
            The source of randomness.
        octaves (`int`, *optional*, defaults to 4):
            Number of layers, each half as large as the one before.
        roughness (`float`, *optional*, defaults to 0.5):
            Strength of a layer relative to the one before.

    Returns:
        `np.ndarray`: float32 [S, S] of mean 0 and standard deviation 1 over the plane.
    """
    side = int(np.clip(_PLANE * canvas.iod / 4, 64, 256)) * 4  # as fine as the picture
    plane = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        cells = int(np.ceil(_PLANE / scale * 2**octave)) + 3
        if cells > side:
            break
        layer = rng.standard_normal((cells, cells)).astype(np.float32)
        plane += roughness**octave * cv2.resize(layer, (side, side), interpolation=cv2.INTER_CUBIC)
    plane = (plane - plane.mean()) / max(float(plane.std()), 1e-6)
    place = (canvas.uv / _PLANE + np.array([0.5, 0.35], np.float32)) * side
    return cv2.remap(plane, place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Distance to the border of a mask in pixels, positive inside; float32 [S, S].

    Of an empty mask everything is a diagonal of the picture away.
    """
    inside = mask > 0.5
    if not inside.any():
        return np.full(mask.shape, -np.hypot(*mask.shape), np.float32)
    inner, outer = distance_transform_edt(inside), distance_transform_edt(~inside)
    return np.where(inside, inner - 0.5, 0.5 - outer).astype(np.float32)


def ragged(distance: np.ndarray, pattern: np.ndarray, raggedness: float, softness: float) -> np.ndarray:
    """A patch whose border wanders with a noise pattern.

    Args:
        distance (`np.ndarray`):
            float32 [S, S], pixels to the even border, positive inside (`signed_distance`).
        pattern (`np.ndarray`):
            float32 [S, S], noise of standard deviation 1.
        raggedness (`float`):
            How far the border wanders, in pixels.
        softness (`float`):
            Width of the border in pixels.

    Returns:
        `np.ndarray`: float32 [S, S] in [0, 1].
    """
    return smoothstep(distance + raggedness * pattern, -softness / 2, softness / 2)


def scatter(density: np.ndarray, count: int, spacing: float, rng: np.random.Generator) -> np.ndarray:
    """Random places, likelier where the density is high, no two nearer than `spacing` pixels.

    Args:
        density (`np.ndarray`):
            float32 [S, S], not negative.
        count (`int`):
            How many places are wanted; fewer come where they do not fit.
        spacing (`float`):
            Least distance in pixels.
        rng (`np.random.Generator`):
            The source of randomness.

    Returns:
        `np.ndarray`: float32 [N, 2], (x, y) in pixels.
    """
    cumulative = np.cumsum(density.ravel(), dtype=np.float64)
    if cumulative[-1] <= 0 or count < 1:
        return np.zeros((0, 2), np.float32)
    flat = np.searchsorted(cumulative, rng.random(4 * count) * cumulative[-1], side="right")
    columns = density.shape[1]
    candidates = np.stack([flat % columns, flat // columns], 1) + rng.uniform(-0.5, 0.5, (4 * count, 2))
    kept: list[np.ndarray] = []
    for place in candidates:
        if len(kept) == count:
            break
        if all(np.hypot(*(place - other)) >= spacing for other in kept):
            kept.append(place)
    return np.array(kept, np.float32).reshape(-1, 2)


def vessels(
    canvas: Canvas,
    starts: np.ndarray,
    headings: np.ndarray,
    length: float,
    width: float,
    rng: np.random.Generator,
    branching: float = 0.12,
    wander: float = 0.35,
) -> np.ndarray:
    """Trees of small vessels, drawn from their roots.

    Args:
        canvas (`Canvas`):
            The face.
        starts (`np.ndarray`):
            float32 [N, 2], the roots in pixels.
        headings (`np.ndarray`):
            float32 [N], the first direction of each in radians, image x to image y.
        length (`float`):
            Mean length of a stem in pixels.
        width (`float`):
            Width at the root in pixels; branches are thinner.
        rng (`np.random.Generator`):
            The source of randomness.
        branching (`float`, *optional*, defaults to 0.12):
            Chance of a branch at each step of the way, a pixel of the 256 px crop.
        wander (`float`, *optional*, defaults to 0.35):
            How much the direction changes at each step, in radians.

    Returns:
        `np.ndarray`: float32 [S, S] in [0, 1]: how much of a pixel is vessel.
    """
    result = np.zeros((canvas.size, canvas.size), np.float32)
    queue = [
        (np.asarray(start, np.float64), float(heading), length * rng.uniform(0.6, 1.4), width)
        for start, heading in zip(starts, headings, strict=True)
    ]
    strands: dict[float, list[np.ndarray]] = {}
    while queue and sum(map(len, strands.values())) < 400:
        place, heading, left, thick = queue.pop(0)
        way = [place]
        while left > 0:
            heading += rng.normal(0.0, wander)
            place = place + canvas.px * np.array([np.cos(heading), np.sin(heading)])
            way.append(place)
            left -= canvas.px
            if rng.random() < branching and thick > 0.25 * width:
                queue.append((place, heading + rng.choice([-1, 1]) * rng.uniform(0.4, 0.9), left * 0.7, thick * 0.65))
        strands.setdefault(round(thick, 3), []).append(np.array(way))
    for thick, ways in strands.items():
        # Thinner than the finest stroke: drawn at that width, and fainter.
        drawn = max(thick, 0.25)
        result = np.maximum(result, canvas.lines(ways, drawn) * min(1.0, thick / drawn))
    return result


def bumps(canvas: Canvas, places: np.ndarray, radii: np.ndarray, softness: float = 0.5) -> np.ndarray:
    """Round spots: 1 in the middle, 0 beyond the radius.

    Args:
        canvas (`Canvas`):
            The face.
        places (`np.ndarray`):
            float32 [N, 2] in pixels.
        radii (`np.ndarray`):
            float32 [N] in pixels.
        softness (`float`, *optional*, defaults to 0.5):
            Share of the radius over which a spot fades.

    Returns:
        `np.ndarray`: float32 [S, S] in [0, 1].
    """

    def profile(distance: np.ndarray, radius: float) -> np.ndarray:
        return smoothstep(distance, radius + 0.5, max(radius * (1 - softness) - 0.5, 0.0))

    return _stamped(canvas, places, radii, profile)


def domes(canvas: Canvas, places: np.ndarray, radii: np.ndarray, steepness: float = 2.0) -> np.ndarray:
    """Round elevations: 1 at the top, 0 beyond the radius.

    Args:
        canvas, places, radii:
            See `bumps`.
        steepness (`float`, *optional*, defaults to 2.0):
            1 rises from the skin at an edge, 2 without one.

    Returns:
        `np.ndarray`: float32 [S, S] in [0, 1].
    """
    return _stamped(
        canvas, places, radii, lambda distance, radius: np.clip(1.0 - (distance / radius) ** 2, 0.0, 1.0) ** steepness
    )


def _stamped(
    canvas: Canvas, places: np.ndarray, radii: np.ndarray, profile: Callable[[np.ndarray, float], np.ndarray]
) -> np.ndarray:
    """The highest of many round spots; a profile is a function of the distances from the middle and of the radius."""
    result = np.zeros((canvas.size, canvas.size), np.float32)
    for place, radius in zip(places, radii, strict=True):
        x0, y0 = np.floor(place - radius - 1).astype(int).clip(0)
        x1, y1 = np.ceil(place + radius + 2).astype(int)
        y, x = np.ogrid[y0 : min(y1, canvas.size), x0 : min(x1, canvas.size)]
        part = result[y0:y1, x0:x1]
        np.maximum(part, profile(np.hypot(x - place[0], y - place[1]), float(radius)), out=part)
    return result


def averaged(image: np.ndarray, weight: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur to which each pixel contributes by its weight.

    Args:
        image (`np.ndarray`):
            float32 [S, S] or [S, S, C].
        weight (`np.ndarray`):
            float32 [S, S], not negative.
        sigma (`float`):
            In pixels.
    """
    by = weight if image.ndim == 2 else weight[..., None]
    total = cv2.GaussianBlur(np.float32(weight), (0, 0), sigma) + np.float32(1e-6)
    mean = cv2.GaussianBlur(np.float32(image * by), (0, 0), sigma)
    return mean / (total if image.ndim == 2 else total[..., None])
