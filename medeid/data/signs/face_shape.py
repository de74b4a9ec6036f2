"""Signs that move large parts of the face: facial palsy and swelling around the eyes."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from ...faces.canvas import Canvas, EyeSide, NotVisibleError, smoothstep
from ...faces.eye_pose import Pose, PosedEye
from ...faces.eyeball import EyeLayers
from ...faces.mesh import LEFT_EYE, OVAL, RIGHT_EYE
from ...faces.pigments import HAEMOGLOBIN, absorb, emboss, to_linear, to_srgb
from ...faces.warp import Warp, axes, own_point
from ...manifestations.taxonomy import Side
from .areas import Stop, inside, off_midline
from .registry import Change, Stage, simulates
from .textures import averaged, noise, signed_distance

# Where points go in a complete palsy of the patient's right side (image-left), at rest: index of the mesh, towards the
# palsied side, downwards; in inter-ocular distances, which is about 90 mm.
_BROW_FALL = {70: (0.01, 0.052), 63: (0.008, 0.060), 105: (0.004, 0.062), 66: (0.0, 0.054), 107: (-0.004, 0.034)}
_MOUTH_FALL = {
    61: (-0.050, 0.085),
    40: (-0.044, 0.045),
    37: (-0.042, 0.014),
    0: (-0.040, 0.000),
    17: (-0.034, 0.004),
    91: (-0.044, 0.066),
    84: (-0.038, 0.026),
    267: (-0.042, -0.006),
    291: (-0.045, -0.030),
    321: (-0.038, -0.018),
    2: (-0.014, 0.000),
    1: (-0.010, 0.000),
    129: (-0.008, 0.016),
    206: (-0.010, 0.038),
    216: (-0.016, 0.055),
    205: (-0.004, 0.026),
    207: (-0.006, 0.042),
    50: (0.0, 0.014),
    212: (-0.030, 0.070),
    214: (-0.012, 0.052),
    202: (-0.024, 0.058),
    426: (-0.022, -0.014),
    436: (-0.026, -0.020),
    199: (-0.014, 0.002),
}
# How much of the smile each point loses.
_SMILING = {61: 1.0, 40: 0.7, 91: 0.75, 202: 0.75, 216: 0.6, 206: 0.3, 212: 0.75, 214: 0.3, 207: 0.35}
_HELD = (168, 6, 197, 195, 9, 151, 10, 117, 118, 119, 346, 347, 348, 108)
_NASOLABIAL = (129, 203, 206, 216, 212)
# From the brow to the rim of the orbit, on the right half of the face.
_SWELLING: tuple[Stop, ...] = (
    (156, 0.02, 0.0), 46, 53, 52, 65, 55, (193, -0.02, 0.0), (245, 0.0, 0.0), (121, 0.0, -0.03), (120, 0.0, -0.025),
    (119, 0.0, -0.02), (118, 0.0, -0.02), (117, 0.0, -0.02), (111, 0.01, -0.02), (35, -0.02, 0.0),
)  # fmt: skip
_REST_WIDTH, _REST_RISE = 0.58, 0.04  # of a mouth that does not smile: width, corners above its middle


@simulates("facial_palsy", Stage.FACE_SHAPE)
def facial_palsy(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """One half of the face hangs, and the mouth is drawn to the other.

    Severity 0.3 is House-Brackmann grade II to III, with the corner of the mouth some 4 mm too low; 0.6 is grade IV;
    1.0 is grade VI, with the corner 8 to 10 mm too low, no folds, and 2 mm of white below the iris. The smile is lost
    on that side.
    """
    assert side != "both"
    outwards, _ = axes(canvas, side)
    if (canvas.points[own_point(61, side)] - canvas.points[0]) @ outwards < 0.12 * canvas.iod**2:
        raise NotVisibleError(f"The {side} half of the mouth is turned out of sight.")
    amount = 0.12 + severity
    warp = _mouth_fall(canvas, side, amount, rng) + _brow_fall(canvas, side, amount * rng.uniform(0.7, 1.15))
    fallen = Canvas(warp.image(canvas.image), warp.landmarks(canvas))
    other: EyeSide = "left" if side == "right" else "right"
    folds = 0.9 * _nasolabial(fallen, side) - 0.35 * _nasolabial(fallen, other)
    folds = folds + 0.8 * _half_forehead(fallen, side)
    image = _flattened(fallen.image, warp.image(canvas.skin), severity * folds, canvas.px, 5.5 * canvas.px)
    moved = smoothstep(np.linalg.norm(warp.dense(), axis=-1) / canvas.iod, 0.006, 0.014)
    return _slack_lids(Canvas(image, fallen.landmarks), side, severity * rng.uniform(0.8, 1.2), moved, rng)


def _slack_lids(canvas: Canvas, side: EyeSide, amount: float, area: np.ndarray, rng: np.random.Generator) -> Change:
    """The slack lower lid sinks and the upper one, unopposed, rises a little. A closed eye stays as it is.

    To the area of the palsy that of the eye is added.
    """
    try:
        eye = EyeLayers(canvas, side)
    except NotVisibleError:
        return Change(canvas.image, area, canvas.landmarks)
    shape = eye.open / eye.open.max()
    posed = PosedEye(eye, Pose(upper=-0.5 * amount * shape, lower=2.1 * amount * shape**0.8))
    lids = cv2.dilate(eye.reduced(posed.opening), np.ones((3, 3), np.uint8))
    return Change(posed.image(rng), np.maximum(area, lids), posed.landmarks)


@simulates("periorbital_oedema", Stage.EYE_SHAPE)
def periorbital_oedema(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """Both lids swell.

    At severity 0.3 they are puffy and a quarter of the slit is covered; at 0.6 the crease is gone and half is covered;
    at 1.0 they are tense, a bag hangs below and the eye is nearly shut.
    """
    assert side != "both"
    eye = EyeLayers(canvas, side)
    covered = 0.04 + 0.78 * severity**1.2
    from_above = rng.uniform(0.65, 0.9)
    pose = Pose(upper=covered * from_above * eye.open, lower=-covered * (1 - from_above) * eye.open)
    posed = PosedEye(eye, pose)
    shut = Canvas(posed.image(rng), posed.landmarks)
    depth, slit = inside(shut, _SWELLING, side), _from_slit(shut, side)
    image = _smooth_lids(shut, depth, slit, severity)
    swollen = smoothstep(depth, 0.0, 0.07)
    blood = rng.uniform(0.0, 0.11) * severity * swollen * smoothstep(slit, -0.005, 0.02)
    image = absorb(image, (HAEMOGLOBIN, blood * np.clip(1.0 + 0.2 * noise(shut, 0.15, rng), 0.0, None)))
    # A dome over each lid: its height falls to the border of the swelling and to the lashes.
    dome = np.sin(0.5 * np.pi * np.clip(depth / rng.uniform(0.10, 0.13), 0, 1)) * smoothstep(slit, -0.005, 0.08)
    height = gaussian_filter(dome * swollen, 1.5 * shut.px) * 3.1 * severity**0.4 * shut.px
    image = emboss(image, height, shut.light, gloss=0.5 * severity)
    return Change(image, smoothstep(depth, -0.01, 0.01), shut.landmarks)


def _from_slit(canvas: Canvas, side: EyeSide) -> np.ndarray:
    """Distance from the opening of the lids and the lashes beside its outer end, in inter-ocular distances."""
    eye = canvas.eye(side)
    tip = eye.outer + 0.12 * (eye.outer - eye.inner)
    return signed_distance(canvas.polygon(np.concatenate([tip[None], eye.contour[1:]]))) / -canvas.iod


def _smooth_lids(canvas: Canvas, depth: np.ndarray, slit: np.ndarray, severity: float) -> np.ndarray:
    """Lids without crease, hollow and shade, which hang over the roots of the lashes the more they are swollen."""
    swollen = smoothstep(depth, 0.0, 0.07)
    lashless = np.maximum(smoothstep(depth, -0.01, 0.01) * smoothstep(slit, 0.02, 0.05), 1e-3)
    image = _flattened(canvas.image, lashless, (0.25 + 0.7 * severity) * swollen, canvas.px, 8.0 * canvas.px)
    above = smoothstep(-np.gradient(gaussian_filter(slit, canvas.px), axis=0) * canvas.iod, 0.3, 0.8)
    hanging = 0.8 * severity * above * swollen * smoothstep(slit, 0.002, 0.02)
    image = image + hanging[..., None] * (averaged(image, lashless, 2.5 * canvas.px) - image)
    return _filled(canvas, image, swollen * smoothstep(slit, 0.0, 0.03), lashless, severity)


def _filled(canvas: Canvas, image: np.ndarray, area: np.ndarray, clear: np.ndarray, share: float) -> np.ndarray:
    """Fills the hollow between brow and eye: its shade goes, so that the lid is as light as the skin beside it."""
    lightness = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[..., 0]
    low = averaged(lightness, clear, 5.0 * canvas.px)
    missing = np.clip(0.92 * canvas.skin_lab[0] - low, 0.0, 30.0)
    gain = ((low + 0.75 * share * missing) / np.maximum(low, 5.0)) ** 2.2  # from lightness to light
    lit = to_srgb(to_linear(image) * gain[..., None])
    return image + area[..., None] * (lit - image)


def _flattened(image: np.ndarray, skin: np.ndarray, share: np.ndarray, fine: float, coarse: float) -> np.ndarray:
    """Takes a share of the folds out of the skin, or deepens them where it is negative; its grain stays.

    Folds are what is between two scales, in pixels. Only skin is averaged, so that nothing else bleeds in.
    """
    folds = averaged(image, skin, fine) - averaged(image, skin, coarse)
    return np.clip(image - (share * skin)[..., None] * folds, 0.0, 1.0)


def _nasolabial(canvas: Canvas, side: EyeSide) -> np.ndarray:
    way = canvas.points[[own_point(index, side) for index in _NASOLABIAL]]
    return np.clip(1.4 * gaussian_filter(canvas.lines([way], 16 * canvas.px), 4 * canvas.px), 0.0, 1.0)


def _half_forehead(canvas: Canvas, side: EyeSide) -> np.ndarray:
    """The half of the forehead above the brow, fading at the midline."""
    half = smoothstep(off_midline(canvas, side), 0.0, 0.12)
    return half * smoothstep(canvas.uv[..., 1], -0.12, -0.2) * canvas.region("face")


def _mouth_fall(canvas: Canvas, side: EyeSide, amount: float, rng: np.random.Generator) -> Warp:
    points = canvas.points
    _, down = axes(canvas, side)
    corners = points[61], points[291]
    rise = float((points[0] + points[17] - corners[0] - corners[1]) @ down) / 2 / canvas.iod**2
    width = float(np.linalg.norm(corners[0] - corners[1])) / canvas.iod
    # A palsied corner does not smile: it goes where it is at rest, and falls from there.
    unsmile = np.array([-0.5 * np.clip(width - _REST_WIDTH, 0.0, 0.2), np.clip(rise - _REST_RISE, 0.0, 0.1)])
    moves = {
        index: amount * (rng.uniform(0.85, 1.15) * np.array(move) + _SMILING.get(index, 0.0) * unsmile)
        for index, move in _MOUTH_FALL.items()
    }
    return Warp.of_face(canvas, side, moves, (*OVAL, *RIGHT_EYE, *LEFT_EYE, *_HELD), reach=0.6)


def _brow_fall(canvas: Canvas, side: EyeSide, amount: float) -> Warp:
    moves = {index: amount * np.array(move) for index, move in _BROW_FALL.items()}
    return Warp.of_face(canvas, side, moves, (*OVAL, *RIGHT_EYE, *_HELD), reach=0.4)
