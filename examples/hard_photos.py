"""Photos that are hard to de-identify, made of portraits of nobody: bad light, bad cameras, things in the way, disease.

Every maker takes one portrait or two, and a source of randomness, and returns a photo uint8 [H, W, 3].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from medeid.data.simulate import simulate
from medeid.faces.canvas import Canvas, smoothstep
from medeid.faces.mesh import (
    CHIN,
    INNER_LIPS,
    LEFT_EYE,
    MOUTH_CORNERS,
    NOSE_BRIDGE,
    OUTER_LIPS,
    OVAL,
    RIGHT_EYE,
    head_mask,
)
from medeid.faces.pigments import to_linear, to_srgb
from medeid.faces.reposing import repose_eye
from medeid.faces.warp import Warp
from medeid.manifestations.taxonomy import Finding

Portrait = tuple[np.ndarray, np.ndarray]  # uint8 [256, 256, 3] and landmarks float32 [478, 3]
Maker = Callable[[list[Portrait], np.random.Generator], np.ndarray]

ZOOM = 5.7  # makes the face 800 px wide


@dataclass(frozen=True)
class Case:
    """One photo of the gallery.

    Args:
        title (`str`):
            What is hard about it.
        seeds (`tuple[int, ...]`):
            Of the people in it.
        make (`Callable`):
            Makes the photo of their portraits.
        window (`tuple`, *optional*):
            Left, top and side of what the gallery shows of it, as shares of its width; by default all.
    """

    title: str
    seeds: tuple[int, ...]
    make: Maker
    window: tuple[float, float, float] | None = None


def _canvas(portrait: Portrait) -> Canvas:
    image, landmarks = portrait
    return Canvas(image.astype(np.float32) / 255.0, landmarks)


def _pixels(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)


def _laid_over(image: np.ndarray, colour: np.ndarray | tuple[float, float, float], alpha: np.ndarray) -> np.ndarray:
    """A colour [3] or [S, S, 3] on a picture float32 [S, S, 3]."""
    return image + alpha[..., None] * (np.asarray(colour, np.float32) - image)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Blurred noise of unit deviation."""
    noise = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), sigma)
    return noise / noise.std()


def as_it_is(portraits: list[Portrait], rng: np.random.Generator) -> np.ndarray:
    return portraits[0][0]


# Light and camera


def large(portraits: list[Portrait], rng: np.random.Generator) -> np.ndarray:
    """A photo of many megapixels, with pores as fine as its pixels."""
    fine = cv2.resize(portraits[0][0], None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_LANCZOS4).astype(np.float32)
    pores = 0.6 * _noise(rng, fine.shape[:2], 1.0) + 0.8 * _noise(rng, fine.shape[:2], 2.2)
    return _pixels(fine / 255.0 * (1.0 + 0.035 * pores[..., None]))


def exposed(stops: float, signs: tuple[Finding, ...] = ()) -> Maker:
    def make(portraits: list[Portrait], rng: np.random.Generator) -> np.ndarray:
        image = simulate(*portraits[0], signs, rng).image
        return _pixels(to_srgb(to_linear(image.astype(np.float32) / 255.0) * 2.0**stops))

    return make


def side_light(portraits: list[Portrait], rng: np.random.Generator) -> np.ndarray:
    """A window on one side, no lamp on the other: five stops between the cheeks."""
    canvas = _canvas(portraits[0])
    shade = smoothstep(canvas.uv[..., 0], -0.45, 0.5)
    return _pixels(to_srgb(to_linear(canvas.image) * (0.05 + 1.5 * shade)[..., None]))


def lamp_and_grain(portraits: list[Portrait], rng: np.random.Generator) -> np.ndarray:
    """A lamp's yellow that no white balance took away, and a sensor at its end."""
    light = to_linear(_canvas(portraits[0]).image) * np.array([1.15, 0.72, 0.3], np.float32) * 0.7
    return _pixels(to_srgb(np.clip(light + np.sqrt(light + 0.01) * 0.07 * rng.standard_normal(light.shape), 0.0, 1.0)))


def sent_often(portraits: list[Portrait], rng: np.random.Generator) -> np.ndarray:
    """Out of focus, and compressed by one messenger after another."""
    image = cv2.GaussianBlur(portraits[0][0], (0, 0), 2.2)
    for quality in (25, 10):
        coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = cv2.imdecode(coded, cv2.IMREAD_UNCHANGED)
    return image


# The place in the photo


def small(portraits: list[Portrait], rng: np.random.Generator) -> np.ndarray:
    """A face 44 px wide at the bottom of a wide wall."""
    image = cv2.resize(portraits[0][0], (80, 80), interpolation=cv2.INTER_AREA)
    photo = np.empty((240, 320, 3), np.uint8)
    photo[:] = np.median(image[:12, :12], axis=(0, 1)).astype(np.uint8)
    ramp = np.clip(np.minimum(np.arange(80), np.arange(80)[::-1]) / 10.0, 0.0, 1.0)
    alpha = (np.minimum(ramp, np.clip(np.arange(80) / 10.0, 0.0, 1.0)[:, None]))[..., None]
    part = photo[160:, 120:200]
    part[:] = np.rint(part + alpha * (image.astype(np.float32) - part)).astype(np.uint8)
    return _pixels(photo / 255.0 + 0.008 * rng.standard_normal(photo.shape))


def two_people(portraits: list[Portrait], rng: np.random.Generator) -> np.ndarray:
    """Cheek to cheek, one before the other."""
    left, right = portraits[0][0], portraits[1][0]
    photo = np.zeros((256, 256 + 112, 3), np.float32)
    photo[:, :256], photo[:, 256:] = left, left[:, -1:]
    head = cv2.dilate(head_mask(portraits[1][1], 1.0), np.ones((9, 9), np.uint8))
    head[200:] = np.maximum(head[200:], head[199])
    alpha = cv2.GaussianBlur(np.maximum(head, np.arange(256)[None] > 128).astype(np.float32), (0, 0), 3.0)[..., None]
    photo[:, 112:] += alpha * (right - photo[:, 112:])
    return np.rint(photo).astype(np.uint8)


def cut_off(portraits: list[Portrait], rng: np.random.Generator) -> np.ndarray:
    """The edge of the photo runs through cheek and forehead."""
    return portraits[0][0][62:, :178].copy()


# Pose and expression


def turned(portraits: list[Portrait], rng: np.random.Generator) -> np.ndarray:
    """A head that is turned a little, turned on by 30 degrees, as far as a warp can."""
    canvas = _canvas(portraits[0])
    depth = canvas.landmarks[:, 2] - canvas.landmarks[list(OVAL), 2].mean()
    angle = np.radians(30.0)
    middle = canvas.points[list(OVAL), 0].mean()
    across = (canvas.points[:, 0] - middle) * np.cos(angle) + depth * np.sin(angle) + middle
    chosen = np.arange(0, 468, 3)
    moves = np.stack([across - canvas.points[:, 0], np.zeros(478)], 1)[chosen]
    edge = np.array([(x, y) for x in range(0, 257, 32) for y in range(0, 257, 32) if {x, y} & {0, 256}], np.float32)
    handles = np.concatenate([canvas.points[chosen], edge])
    warp = Warp.from_handles(canvas.size, handles, np.concatenate([moves, np.zeros_like(edge)]), 1.5 * canvas.iod)
    return _pixels(warp.image(canvas.image))


def open_mouth(portraits: list[Portrait], rng: np.random.Generator) -> np.ndarray:
    """As a dentist or a laryngologist asks for."""
    canvas = _canvas(portraits[0])
    lower = [point for point in OUTER_LIPS[10:] + INNER_LIPS[10:] if point not in MOUTH_CORNERS]
    upper = list(OUTER_LIPS[:11] + INNER_LIPS[:11])
    jaw = [CHIN, 148, 377, 176, 400, 199, 200]
    still = [*upper, *NOSE_BRIDGE, *RIGHT_EYE, *LEFT_EYE, 234, 454, 132, 361]
    down = np.array([0.0, 0.42 * canvas.iod])
    moves = np.concatenate([np.tile(down, (len(lower + jaw), 1)), np.zeros((len(still), 2))])
    warp = Warp.from_handles(canvas.size, canvas.points[lower + jaw + still], moves, 0.8 * canvas.iod)
    opened = Canvas(warp.image(canvas.image), warp.landmarks(canvas))
    mouth = cv2.GaussianBlur(opened.mouth(), (0, 0), 0.8)
    image = _laid_over(opened.image, (0.20, 0.06, 0.06), mouth)
    rim = opened.points[list(INNER_LIPS[:11])]
    floor = opened.points[list(INNER_LIPS[:10:-1])]
    upper_teeth = np.concatenate([rim[1:-1], rim[-2:0:-1] + (0.0, 0.075 * canvas.iod)])
    tongue = np.concatenate([floor[1:-1], floor[-2:0:-1] - (0.0, 0.11 * canvas.iod)])
    image = _laid_over(image, (0.62, 0.28, 0.28), mouth * cv2.GaussianBlur(opened.polygon(tongue), (0, 0), 1.5))
    image = _laid_over(image, (0.76, 0.72, 0.66), mouth * cv2.GaussianBlur(opened.polygon(upper_teeth), (0, 0), 0.7))
    return _pixels(image)


def closed_eyes(portraits: list[Portrait], rng: np.random.Generator) -> np.ndarray:
    canvas = _canvas(portraits[0])
    wanted = canvas.landmarks.copy()
    for contour in (RIGHT_EYE, LEFT_EYE):
        wanted[list(contour[1:8])] = wanted[list(contour[:8:-1])]
    for side in ("right", "left"):
        canvas = repose_eye(canvas, wanted, side, rng)
    return _pixels(canvas.image)


# What is worn, or in the way


def glasses(portraits: list[Portrait], rng: np.random.Generator) -> np.ndarray:
    """Dark frames, a reflection on each lens."""
    canvas = _canvas(portraits[0])
    image, unit = canvas.image, canvas.iod
    across = canvas.points[263] - canvas.points[33]
    across, down = across / np.linalg.norm(across), np.array([-across[1], across[0]]) / np.linalg.norm(across)
    turn = np.linspace(0.0, 2.0 * np.pi, 60)
    oblong = np.stack([np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** 0.6, np.sin(turn)], 1)
    frames, centres = [], []
    for contour in (RIGHT_EYE, LEFT_EYE):
        centre = canvas.points[list(contour)].mean(0) + 0.04 * unit * down
        centres.append(centre)
        frames.append(centre + oblong[:, :1] * 0.30 * unit * across + oblong[:, 1:] * 0.21 * unit * down)
        lens = canvas.polygon(frames[-1])
        stripe = canvas.polygon(centre + np.array([[-18, 14], [-6, 14], [10, -14], [-2, -14]]) * unit / 80)
        image = _laid_over(image, (0.75, 0.8, 0.85), 0.06 * lens + 0.35 * lens * cv2.GaussianBlur(stripe, (0, 0), 1.5))
    bridge = np.stack([centres[0] + 0.30 * unit * across, centres[1] - 0.30 * unit * across]) - 0.05 * unit * down
    temples = [
        np.stack([c + s * 0.30 * unit * across, canvas.points[p]])
        for c, s, p in zip(centres, (-1, 1), (127, 356), strict=True)
    ]
    ways = [np.concatenate([frame, frame[:1]]) for frame in frames]
    return _pixels(_laid_over(image, (0.07, 0.06, 0.07), 0.95 * canvas.lines([*ways, bridge, *temples], 0.045 * unit)))


def fringe(portraits: list[Portrait], rng: np.random.Generator) -> np.ndarray:
    """Strands of the person's own hair down to the brows, and over one eye."""
    canvas = _canvas(portraits[0])
    top, unit = canvas.points[10], canvas.iod
    image = canvas.image
    crown = image[4:40, int(top[0]) - 30 : int(top[0]) + 30].reshape(-1, 3)
    hair = crown[crown.sum(1) < np.median(crown.sum(1))]  # without wall and forehead
    fall = np.linspace(0.0, 1.0, 12)
    for _ in range(260):
        x = rng.uniform(-0.62, 0.62)
        length = (0.72 + 0.30 * max(x - 0.1, 0.0) / 0.5) * rng.uniform(0.75, 1.05)
        bend = 0.16 * np.sin(np.pi * fall * rng.uniform(0.5, 0.9)) + 0.12 * x * fall
        way = top + unit * np.stack([x + bend, -0.32 + 0.25 * abs(x) + length * fall], 1)
        colour = hair[rng.integers(len(hair))] * rng.uniform(0.6, 1.25)
        image = _laid_over(image, np.clip(colour, 0.0, 1.0), 0.75 * canvas.lines([way], rng.uniform(0.6, 1.8)))
    return _pixels(image)


def headscarf(portraits: list[Portrait], rng: np.random.Generator) -> np.ndarray:
    canvas = _canvas(portraits[0])
    oval = canvas.points[list(OVAL)]
    centre = oval.mean(0)
    opening = cv2.GaussianBlur(canvas.polygon(centre + (oval - centre) * (1.0, 0.97)), (0, 0), 0.8)
    turn = np.linspace(0.0, 2.0 * np.pi, 60)
    wide, high = np.ptp(oval, axis=0) / 2
    outline = centre + np.stack([1.85 * wide * np.cos(turn), 1.65 * high * np.sin(turn)], 1)
    shoulders = np.array([centre - (1.85 * wide, 0), centre + (1.85 * wide, 0), (252, 256), (4, 256)])
    cloth = np.maximum(canvas.polygon(outline), canvas.polygon(shoulders)) * (1.0 - opening)
    far = cv2.distanceTransform((opening < 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    folds = np.sin(far / 5.0 + 1.5 * _noise(rng, far.shape, 14.0)) + 0.5 * _noise(rng, far.shape, 5.0)
    colour = np.array([0.20, 0.33, 0.42], np.float32) * (1.0 + 0.13 * folds)[..., None]
    near = cv2.GaussianBlur(cloth, (0, 0), 4.0) * opening
    return _pixels(_laid_over(canvas.image * (1.0 - 0.45 * near)[..., None], colour, cloth))


def gloved_finger(portraits: list[Portrait], rng: np.random.Generator) -> np.ndarray:
    """The examiner's finger, in a blue glove, draws the lower lid down."""
    canvas = _canvas(portraits[0])
    eye, unit = canvas.eye("left"), canvas.iod
    tip = eye.lower[4] + (0.02 * unit, 0.2 * unit)
    way = np.linspace(tip, tip + (0.95 * unit, 1.15 * unit), 40)
    wide = canvas.lines([way], 0.34 * unit)
    inside = cv2.distanceTransform((wide > 0.5).astype(np.uint8), cv2.DIST_L2, 5) / (0.17 * unit)
    shade = 0.55 + 0.55 * np.sqrt(np.clip(inside, 0.0, 1.0)) + 0.05 * _noise(rng, wide.shape, 3.0)
    shadow = cv2.GaussianBlur(canvas.lines([way + (2.0, 4.0)], 0.34 * unit), (0, 0), 3.0)
    image = canvas.image * (1.0 - 0.35 * shadow)[..., None]
    return _pixels(_laid_over(image, np.array([0.36, 0.52, 0.78], np.float32) * shade[..., None], wide))


# Disease


def ill(*signs: Finding) -> Maker:
    return lambda portraits, rng: simulate(*portraits[0], signs, rng).image


NAEVUS = (Finding("naevus", "left", 1.0),)

CASES = (
    Case("100 % of a large photo, its face 800 px wide", (20,), large, (0.22, 0.36, 224 / 1459)),
    Case("very dark skin, two stops too dark", (22,), exposed(-2.0)),
    Case("very light skin, one stop too bright, a naevus", (15,), exposed(1.0, NAEVUS)),
    Case("an older face", (19,), as_it_is),
    Case("a full beard", (25,), as_it_is),
    Case("glasses", (28,), glasses),
    Case("hair over forehead and eye", (6,), fringe),
    Case("a headscarf", (13,), headscarf),
    Case("the head turned", (42,), turned),
    Case("mouth open", (18,), open_mouth),
    Case("eyes closed", (21,), closed_eyes),
    Case("light from one side", (3,), side_light),
    Case("a lamp's colour cast, grain", (34,), lamp_and_grain),
    Case("out of focus, JPEG at quality 10", (36,), sent_often),
    Case("a face 44 px wide", (9,), small, (0.35, 0.45, 0.3)),
    Case("cheek to cheek", (24, 2), two_people),
    Case("a gloved finger at the lid", (0,), gloved_finger),
    Case("cut off by the edge of the photo", (7,), cut_off),
    Case(
        "left ptosis, right esotropia", (14,), ill(Finding("ptosis", "left", 0.8), Finding("esotropia", "right", 0.8))
    ),
    Case("left facial palsy", (23,), ill(Finding("facial_palsy", "left", 0.8))),
    Case("port-wine stain", (10,), ill(Finding("port_wine_stain", "right", 0.9))),
    Case("vitiligo on dark skin", (16,), ill(Finding("vitiligo", "both", 0.8))),
    Case("jaundice with yellow sclerae", (30,), ill(Finding("jaundice", "both", 0.8))),
    Case("scar of a cleft lip", (31,), ill(Finding("cleft_lip_scar", "left", 1.0))),
)
