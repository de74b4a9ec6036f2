"""The three ways in which a sign of disease outlives its face: its pixels, its shape, its colour."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from ..faces.canvas import Canvas, EyeSide
from ..faces.compositing import feathered_mask
from ..faces.mesh import INNER_LIPS, LEFT_IRIS, MIRROR, RIGHT_IRIS, draw_sketch, region_mask, scale_points
from ..faces.reposing import repose_eye, reshape_mouth
from ..faces.shape import FEATURES, relax_landmarks
from .taxonomy import TAXONOMY, Channel, Finding, Region

ColourArea = Literal["skin", "sclera", "lips"]

# In shares of the crop's side.
_GROWTH = 1.5 / 256  # a mask's border is known to about a pixel
_FEATHER = 4 / 256
_EYE_FEATHER = 2 / 256
_AREA_SIGMAS = {"skin": 4 / 256, "sclera": 0.7 / 256, "lips": 1.5 / 256}

_SIDES: tuple[EyeSide, ...] = ("right", "left")
_EYE_SURFACE: tuple[Region, ...] = ("globe", "conjunctiva", "pupil")
_FEATURES_OF_REGION: dict[Region, tuple[str, ...]] = {
    "upper_lid": ("eyes", "brows"),
    "lower_lid": ("eyes",),
    "lids": ("eyes",),
    "globe": ("eyes",),
    "conjunctiva": ("eyes",),
    "pupil": ("eyes",),
    "periorbital": ("eyes", "brows"),
    "brow": ("brows",),
    "cheeks": (),
    "lips": ("mouth",),
    "half_face": ("eyes", "brows", "mouth"),
    "face": (),
}

# Tone along the rim: ratios are averaged over this far, first near, and further where nothing is near.
_RIM_SIGMAS = (3, 6, 12, 24, 48, 96)
_RIM = 6  # how broad the rim is
_RIM_TRUST = 0.02  # of the rim within reach, from which an average counts
_MAX_LOG_RATIO = 1.0  # of brightness: what differs more is no skin
_LOG_RATIO_SPREAD = 0.2  # of brightness, about its median along the rim, on skin; the rest is hair, or a shadow
_MAX_LOG_TINT = 0.15  # of a channel against the others
_DARK = 8.0  # levels; below, ratios are mostly noise
_WORKING_SIDE = 256  # tone varies slowly, so it is worked out in few pixels

_MAX_SPREAD = 1.3  # at most so much more or less contrast of colour


@dataclass(frozen=True)
class Preservation:
    """What of one face outlives it.

    Attributes:
        skin (`np.ndarray`): float32 [S, S] in [0, 1], feathered: pixels that stay, in the new face's tone.
        eyes (`np.ndarray`): float32 [S, S] in [0, 1], feathered: pixels that stay just as they are.
        held (`frozenset[str]`): Features whose landmarks stay, of `medeid.faces.shape.FEATURES`.
        posed (`frozenset[str]`): Those of them that are set in the picture, too: a sign is in their shape, or pixels of
            theirs stay.
        areas (`tuple[str, ...]`): Where the source's tone is carried over, of `"skin"`, `"sclera"` and `"lips"`.
    """

    skin: np.ndarray
    eyes: np.ndarray
    held: frozenset[str]
    posed: frozenset[str]
    areas: tuple[ColourArea, ...]


def plan_preservation(
    findings: Iterable[Finding], masks: np.ndarray, landmarks: np.ndarray, size: int, drawn: np.ndarray | None = None
) -> Preservation:
    """Decides by the taxonomy's channels what of a face is to stay.

    Of a sign on the surface of the eye the whole opening of the lids stays: half an iris of each face would be neither.
    The tone of the skin stays in any case, as neck and ears show it, too.

    Args:
        findings (`Iterable[Finding]`):
            The signs that are to be preserved.
        masks (`np.ndarray`):
            bool `[M, S', S']`: where each manifestation of the taxonomy is, both sides in one, in any resolution.
        landmarks (`np.ndarray`):
            float32 `[478, 3]` in pixels of a 256 px crop.
        size (`int`):
            Side S of the crop in px.
        drawn (`np.ndarray`, *optional*):
            bool `[S, S]`: what a clinician has marked; it stays, too.

    Returns:
        `Preservation`
    """
    names = list(TAXONOMY)
    skin = np.zeros((size, size), bool) if drawn is None else drawn.astype(bool)
    eyes = np.zeros((size, size), bool)
    held: set[str] = set()
    posed: set[str] = set()
    channels: set[Channel] = set()
    for finding in findings:
        row = finding.row
        channels.update(row.channels)
        held.update(_FEATURES_OF_REGION[row.region])
        if "geometry" in row.channels or row.region in _EYE_SURFACE:
            posed.update(_FEATURES_OF_REGION[row.region])
        if "appearance" not in row.channels:
            continue
        if row.region in _EYE_SURFACE:
            for side in finding.single_sides:
                eyes |= region_mask(landmarks, "left_eye" if side == "left" else "right_eye", size) > 0
        else:
            mask = one_side(masks[names.index(row.name)], finding.single_sides)
            skin |= cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR) > 0.5
    held.update(touched_features(skin, landmarks))
    return Preservation(
        skin=feathered_mask(_grown(skin, _GROWTH * size), _FEATHER * size),
        eyes=feathered_mask(eyes, _EYE_FEATHER * size),
        held=frozenset(held),
        posed=frozenset(posed),
        areas=("skin", "sclera", "lips") if "colour" in channels else ("skin",),
    )


def one_side(mask: np.ndarray, sides: Sequence[str]) -> np.ndarray:
    """A sign's mask `[S', S']` without the half where the sign is not; the patient's left is on the crop's right."""
    mask, middle = mask.copy(), mask.shape[1] // 2
    if list(sides) == ["left"]:
        mask[:, :middle] = False
    elif list(sides) == ["right"]:
        mask[:, middle:] = False
    return mask


def _grown(mask: np.ndarray, radius: float) -> np.ndarray:
    if not mask.any():
        return mask
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= radius


def touched_features(mask: np.ndarray, landmarks: np.ndarray) -> set[str]:
    """The features with a point under the mask: pixels that stay must fit the lines that are drawn through them."""
    size = mask.shape[0]
    x, y = np.rint(scale_points(landmarks[:, :2], size)).astype(int).clip(0, size - 1).T
    under = mask[y, x]
    under |= under[MIRROR]
    return {name for name, points in FEATURES.items() if under[list(points)].any()}


def keep_appearance(
    generated: np.ndarray, source: np.ndarray, weight: np.ndarray, unit: float = 1.0, harmonise: bool = True
) -> np.ndarray:
    """The appearance channel: the source's pixels where a sign is, on the new face.

    Light skin with a mole, put onto dark skin, would be a light patch. So the kept pixels are multiplied by the ratio
    of the two faces' tones along the rim, which is averaged there and fills the inside smoothly. A lesion's contrast
    to the skin around it, by which it is read, stays.

    Args:
        generated (`np.ndarray`):
            uint8 `[H, W, 3]`, RGB: the new face in its photo, or in its crop.
        source (`np.ndarray`):
            uint8 `[H, W, 3]`, RGB: the same part of the source.
        weight (`np.ndarray`):
            float32 `[H, W]` in [0, 1], feathered: how far the source's pixels stay.
        unit (`float`, *optional*, defaults to 1.0):
            How many pixels here are one of a 256 px crop.
        harmonise (`bool`, *optional*, defaults to `True`):
            Whether to adapt the tone; not in the eye, whose white does not follow the skin.

    Returns:
        `np.ndarray`: uint8 `[H, W, 3]`. Where `weight` is 0 it equals `generated`.

    Raises:
        `ValueError`: if the shapes differ.
    """
    if generated.shape != source.shape or generated.shape[:2] != weight.shape:
        raise ValueError(
            f"`generated`, `source` and `weight` must fit, but are {list(generated.shape)}, {list(source.shape)} and "
            f"{list(weight.shape)}. Give the same part of the photo for each."
        )
    if not (weight > 0).any():
        return generated.copy()
    margin = int(np.ceil(3 * _RIM * unit))
    left, top, width, height = cv2.boundingRect((weight > 0).astype(np.uint8))
    rows = slice(max(top - margin, 0), top + height + margin)
    columns = slice(max(left - margin, 0), left + width + margin)
    new, old, alpha = generated[rows, columns], source[rows, columns], weight[rows, columns, None]
    kept: np.ndarray = old.astype(np.float32)
    if harmonise:
        kept = (kept + _DARK) * np.exp(_tone_ratio(new, old, weight[rows, columns], unit)) - _DARK
    result = generated.copy()
    blended = new + alpha * (kept - new)
    result[rows, columns] = np.where(alpha > 0, np.rint(blended).clip(0, 255).astype(np.uint8), new)
    return result


def _tone_ratio(generated: np.ndarray, source: np.ndarray, weight: np.ndarray, unit: float) -> np.ndarray:
    """Logarithm of generated over source along the rim of the weight, filled in smoothly: float32 [H, W, 3].

    Where one of the two has skin on the rim and the other hair, their ratio is none of tones, and would set a lesion
    aglow or in the dark: what is far from the median counts little, and its place is filled from further away.
    """
    shrink = min(1.0, 1.0 / unit, _WORKING_SIDE / max(weight.shape))
    small = (max(round(weight.shape[1] * shrink), 1), max(round(weight.shape[0] * shrink), 1))
    new, old, inside = (
        cv2.resize(image, small, interpolation=cv2.INTER_AREA).astype(np.float32)
        for image in (generated, source, (weight > 0).astype(np.float32))
    )
    ratio = np.log((new + _DARK) / (old + _DARK))
    brightness = ratio.mean(axis=2, keepdims=True)
    tint = (ratio - brightness).clip(-_MAX_LOG_TINT, _MAX_LOG_TINT)
    ratio = brightness.clip(-_MAX_LOG_RATIO, _MAX_LOG_RATIO) + tint
    inside, reach = (inside > 0).astype(np.uint8), max(round(_RIM * unit * shrink), 1)
    near = cv2.dilate(inside, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)))
    rim = (near - inside).astype(np.float32)
    if rim.any():
        off = (brightness[..., 0] - np.median(brightness[rim > 0])) / _LOG_RATIO_SPREAD
        rim *= np.exp(-0.5 * off**2)
    field, trust = np.zeros_like(ratio), np.zeros_like(rim)
    for sigma in _RIM_SIGMAS:
        seen = cv2.GaussianBlur(rim, (0, 0), sigma * unit * shrink)
        mean = (
            cv2.GaussianBlur(ratio * rim[..., None], (0, 0), sigma * unit * shrink) / np.maximum(seen, 1e-6)[..., None]
        )
        share = (1.0 - trust) * (seen / _RIM_TRUST).clip(0.0, 1.0)
        field, trust = field + share[..., None] * mean, trust + share
    return cv2.resize(field, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)


def keep_geometry(source: np.ndarray, surrogate: np.ndarray, held: Collection[str], size: int) -> np.ndarray:
    """The geometry channel: the structure condition with the source's lines where a sign is, another's elsewhere.

    Args:
        source (`np.ndarray`):
            float32 `[478, 3]` in pixels of a 256 px crop.
        surrogate (`np.ndarray`):
            The landmarks of a face of nobody, likewise.
        held (`Collection[str]`):
            Features whose lines are the source's, of `medeid.faces.shape.FEATURES`.
        size (`int`):
            Side S of the sketch in px.

    Returns:
        `np.ndarray`: uint8 `[S, S, 3]`, see [`draw_sketch`].
    """
    return draw_sketch(relax_landmarks(source, surrogate, held), size)


def keep_shape(
    generated: np.ndarray, found: np.ndarray, wanted: np.ndarray, posed: Collection[str], rng: np.random.Generator
) -> np.ndarray:
    """The geometry channel once more, in the picture: lids, gaze, brows and mouth as the source has them.

    Args:
        generated (`np.ndarray`):
            uint8 `[S, S, 3]`, RGB: the new face's crop.
        found (`np.ndarray`):
            float32 `[478, 3]` in pixels of a 256 px crop: its landmarks.
        wanted (`np.ndarray`):
            Those that it is to have, likewise.
        posed (`Collection[str]`):
            Features that are set, of `"eyes"` (with the brows) and `"mouth"`; others are left alone.
        rng (`np.random.Generator`):
            Of the grain of what is drawn anew.

    Returns:
        `np.ndarray`: uint8 `[S, S, 3]`. An eye that cannot be seen well enough stays as it is.
    """
    canvas = Canvas(generated.astype(np.float32) / 255.0, found)
    if "mouth" in posed:
        canvas = reshape_mouth(canvas, wanted)
    if "eyes" in posed:
        for side in _SIDES:
            canvas = repose_eye(canvas, wanted, side, rng)
    return np.rint(canvas.image.clip(0.0, 1.0) * 255.0).astype(np.uint8)


def keep_colour(
    generated: np.ndarray,
    drawn: np.ndarray,
    source: np.ndarray,
    landmarks: np.ndarray,
    areas: Collection[ColourArea],
    apart: np.ndarray | None = None,
) -> np.ndarray:
    """The colour channel: the tone of the source's skin, sclera and lips on the new face.

    Mean of all three axes of CIELAB and spread of the two of colour, area by area (Reinhard et al., "Color Transfer
    between Images", 2001). The spread of brightness is that of the new face, whose shape it shows.

    Args:
        generated (`np.ndarray`):
            uint8 `[S, S, 3]`, RGB: the new face's crop.
        drawn (`np.ndarray`):
            float32 `[478, 3]`: its landmarks, in pixels of a 256 px crop.
        source (`np.ndarray`):
            uint8 `[S, S, 3]`, RGB: the source's crop.
        landmarks (`np.ndarray`):
            The source's, likewise.
        areas (`Collection[str]`):
            Of `"skin"`, `"sclera"` and `"lips"`.
        apart (`np.ndarray`, *optional*):
            bool `[S, S]`: does not count, since it is lesion and not the area's tone.

    Returns:
        `np.ndarray`: uint8 `[S, S, 3]`.
    """
    if not areas:
        return generated
    size = generated.shape[0]
    new, old = (cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB) for image in (generated, source))
    shifted = new.copy()
    apart = np.zeros((size, size), bool) if apart is None else apart
    areas_new, areas_old = colour_areas(drawn, size), colour_areas(landmarks, size)
    for name in areas:
        area = areas_new[name]
        here, there = ((soft > 0.5) & ~apart for soft in (area, areas_old[name]))
        if not (here.any() and there.any()):  # closed eyes show no sclera
            continue
        mean, wanted = new[here].mean(0), old[there].mean(0)
        spread = old[there].std(0) / np.maximum(new[here].std(0), 1e-3)
        spread = spread.clip(1 / _MAX_SPREAD, _MAX_SPREAD)
        spread[0] = 1.0
        shifted += area[..., None] * ((new - mean) * spread + wanted - new)
    return np.rint(cv2.cvtColor(shifted, cv2.COLOR_LAB2RGB).clip(0, 1) * 255).astype(np.uint8)


def colour_areas(landmarks: np.ndarray, size: int) -> dict[ColourArea, np.ndarray]:
    """Soft masks float32 [S, S] of skin, scleras and lips."""
    points = scale_points(landmarks[:, :2], size)
    eyes = region_mask(landmarks, "left_eye", size) + region_mask(landmarks, "right_eye", size)
    for iris in (RIGHT_IRIS, LEFT_IRIS):
        radius = float(np.linalg.norm(points[list(iris[1:])] - points[iris[0]], axis=1).mean())
        cv2.circle(eyes, np.rint(points[iris[0]]).astype(int).tolist(), round(radius), 0.0, cv2.FILLED)
    lips = region_mask(landmarks, "lips", size)
    cv2.fillPoly(lips, [np.rint(points[list(INNER_LIPS)]).astype(np.int32)], 0.0)  # teeth
    areas: dict[ColourArea, np.ndarray] = {"skin": region_mask(landmarks, "skin", size), "sclera": eyes, "lips": lips}
    return {name: cv2.GaussianBlur(area, (0, 0), _AREA_SIGMAS[name] * size) for name, area in areas.items()}
