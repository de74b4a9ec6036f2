"""Is a face overlooked beside others? `python -m medeid.evaluation.several_faces FACES`.

Faces are put into photos together, of which one is hard to find: turned in the picture or away from the camera, small,
partly covered, or cut by the photo's edge. As it is known where they are, it is seen whether one was left.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from tqdm import tqdm

from ..data.faces import FaceFolder
from ..faces.alignment import crop_face, ffhq_matrix, transform_points
from ..faces.mesh import CHIN, FOREHEAD, LANDMARK_SIZE, LEFT_EYE, NOSE_TIP, OVAL, RIGHT_EYE, points5_from_mesh
from ..pipeline import MedicalDeIDPipeline
from ..records import NoFaceFoundError, VerificationError

WIDTH, HEIGHT = 800, 600  # px, of a photo
PLAIN = "plain"
SMALL = (24.0, 48.0)  # px, width of a small face
LARGE = (80.0, 160.0)  # px, of any other
LEFT = 0.5  # share of a face's pixels that must have changed, or it counts as left

_TURN = (30.0, 90.0)  # degrees in the picture
_YAW = (25.0, 45.0)  # degrees away from the camera
_HEAD = 0.48  # radius of the head in crops, as a share of their side
_SHOWN_AT_EDGE = (0.5, 0.75)  # share of a face that the photo's edge leaves
_ROOM = 1.5  # of a face's width, from the middle of one to that of its neighbour, at least


@dataclass(frozen=True)
class DrawnFace:
    """A face in a photo.

    Attributes:
        kind (`str`): `"plain"` or what makes it hard to find.
        landmarks (`np.ndarray`): float [478, 2] in photo pixels, also of what is not seen.
        shown (`np.ndarray`): bool [H, W], the pixels of it that are seen.
    """

    kind: str
    landmarks: np.ndarray
    shown: np.ndarray


@dataclass(frozen=True)
class Portrait:
    """A face before it is put into a photo.

    Attributes:
        image (`np.ndarray`): uint8 [S, S, 3].
        head (`np.ndarray`): float32 [S, S] in [0, 1], what of the image goes into the photo.
        cover (`np.ndarray`): bool [S, S], what lies over the face.
        landmarks (`np.ndarray`): float [478, 2] in pixels of the image.
    """

    image: np.ndarray
    head: np.ndarray
    cover: np.ndarray
    landmarks: np.ndarray


def _turned_away(face: Portrait, rng: np.random.Generator) -> Portrait:
    """Turned about the neck, as if painted on a cylinder."""
    yaw = np.radians(rng.uniform(*_YAW)) * rng.choice((-1, 1))
    size = face.image.shape[0]
    radius, middle = _HEAD * size, face.landmarks[list(OVAL), 0].mean()
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    seen = np.abs(x - middle) < radius
    angle = np.arcsin(((x - middle) / radius).clip(-1, 1)) - yaw
    seen &= np.abs(angle) < np.pi / 2
    place = ((middle + radius * np.sin(angle)).astype(np.float32), y.astype(np.float32))
    landmarks = face.landmarks.copy()
    angle = np.arcsin(((landmarks[:, 0] - middle) / radius).clip(-1, 1)) + yaw
    landmarks[:, 0] = middle + radius * np.sin(angle)
    head = cv2.GaussianBlur(cv2.remap(face.head, *place, cv2.INTER_LINEAR) * seen, (0, 0), 2)
    image = cv2.remap(face.image, *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return Portrait(image, head, face.cover, landmarks)


def _covered(face: Portrait, parts: np.ndarray, colour: np.ndarray) -> Portrait:
    """With something over it: what is marked (bool [S, S]), a little shaded."""
    shade = np.linspace(1.0, 0.85, face.image.shape[0])[:, None, None]
    image = np.where(parts[..., None], (colour * shade).clip(0, 255), face.image).astype(np.uint8)
    return Portrait(image, np.maximum(face.head, parts.astype(np.float32)), face.cover | parts, face.landmarks)


def _behind_bar(face: Portrait, rng: np.random.Generator) -> Portrait:
    """With a black bar over the eyes, as in newspapers."""
    eyes = face.landmarks[list(LEFT_EYE + RIGHT_EYE)]
    reach = 0.25 * np.ptp(eyes[:, 0])
    (left, top), (right, bottom) = (eyes.min(0) - reach).astype(int), (eyes.max(0) + reach).astype(int)
    bar = np.zeros_like(face.cover)
    bar[top:bottom, left:right] = True
    return _covered(face, bar, np.zeros(3))


def _behind_mask(face: Portrait, rng: np.random.Generator) -> Portrait:
    """With a surgical mask from the nose to the chin."""
    lower = [point for point in face.landmarks[list(OVAL)] if point[1] > face.landmarks[NOSE_TIP, 1]]
    outline = np.array([*lower, face.landmarks[NOSE_TIP] - (0, 8)])
    mask = np.zeros(face.cover.shape, np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(outline.astype(np.int32)), 1)
    return _covered(face, mask > 0, np.array([150.0, 190.0, 215.0]))


def _behind_hand(face: Portrait, rng: np.random.Generator) -> Portrait:
    """With four fingers over one half of it, in the colour of its skin."""
    size = face.image.shape[0]
    nose, width = face.landmarks[NOSE_TIP], np.ptp(face.landmarks[list(OVAL), 0])
    side, angle = rng.choice((-1, 1)), rng.uniform(-0.5, 0.5)
    along = np.array([np.cos(angle) * side, np.sin(angle)]) * width
    thick = max(2, round(width * 0.19))
    hand = np.zeros((size, size), np.uint8)
    for finger in range(4):
        tip = nose + along * 0.05 + (0, (finger - 1.5) * thick * 1.05)
        cv2.line(hand, np.rint(tip).astype(int).tolist(), np.rint(tip + along).astype(int).tolist(), 1, thick)
    cheek = np.rint(nose + (0.2 * width, 0)).astype(int)
    return _covered(face, hand > 0, face.image[cheek[1], cheek[0]].astype(float))


_CHANGES: dict[str, Callable[[Portrait, np.random.Generator], Portrait]] = {
    "turned away": _turned_away,
    "bar": _behind_bar,
    "mask": _behind_mask,
    "hand": _behind_hand,
}
KINDS = ("turned", "turned away", "small", "bar", "mask", "hand", "cut")


def draw_photo(folder: FaceFolder, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, list[DrawnFace]]:
    """Puts two to four different faces into a photo.

    Args:
        folder (`FaceFolder`):
            Aligned crops with landmarks, at least four.
        kind (`str`):
            Of [`KINDS`], what the first face is; the second is plain, and others are anything.
        rng (`np.random.Generator`):
            Draws all the rest.

    Returns:
        The photo uint8 [H, W, 3], and its faces.
    """
    kinds = [kind, PLAIN, *rng.choice((PLAIN, *KINDS), rng.integers(0, 3))]
    photo, faces, taken = _background(rng), [], np.zeros((0, 3))
    for index, each in zip(rng.choice(len(folder), len(kinds), replace=False), kinds, strict=True):
        width = rng.uniform(*(SMALL if each == "small" else LARGE))
        place = _free_place(each == "cut", width, taken, rng)
        taken = np.vstack([taken, [*place, width]])
        portrait = _portrait(folder, int(index))
        if each in _CHANGES:
            portrait = _CHANGES[each](portrait, rng)
        turn = rng.uniform(*_TURN) * rng.choice((-1, 1)) if each == "turned" else rng.uniform(-10.0, 10.0)
        photo, face = _put(photo, portrait, str(each), place, width, turn)
        faces.append(face)
    return photo, faces


def _portrait(folder: FaceFolder, index: int) -> Portrait:
    image = folder.image(index)
    size = image.shape[0]
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    distance = np.hypot(x - (size - 1) / 2, y - (size - 1) / 2) / (_HEAD * size)
    head = ((1.0 - distance) / 0.12).clip(0, 1).astype(np.float32)
    landmarks = (folder.landmarks(index)[:, :2] + 0.5) * size / LANDMARK_SIZE - 0.5
    return Portrait(image, head, np.zeros((size, size), bool), landmarks.astype(np.float64))


def _background(rng: np.random.Generator) -> np.ndarray:
    """A wall with light and shade on it."""
    coarse = rng.uniform(60, 220, 3) + rng.normal(0, 25, (4, 5, 3))
    wall = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.rint(wall + rng.normal(0, 3, wall.shape)).clip(0, 255).astype(np.uint8)


def _free_place(at_edge: bool, width: float, taken: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The middle (x, y) of a face, where it does not cover another."""
    size = np.array([WIDTH, HEIGHT], float)
    while True:
        place = rng.uniform(width, size - width)
        if at_edge:
            axis, far = rng.integers(2), rng.integers(2)
            inside = (rng.uniform(*_SHOWN_AT_EDGE) - 0.5) * width
            place[axis] = size[axis] - 1 - inside if far else inside
        distance = np.hypot(*(taken[:, :2] - place).T)
        if (distance > _ROOM * (width + taken[:, 2]) / 2).all():
            return place


def _put(
    photo: np.ndarray, portrait: Portrait, kind: str, place: np.ndarray, width: float, turn: float
) -> tuple[np.ndarray, DrawnFace]:
    """Puts a portrait into a photo, its face `width` px wide around `place`, turned by `turn` degrees."""
    height, wide = photo.shape[:2]
    middle = portrait.landmarks[[FOREHEAD, CHIN]].mean(0)
    scale = width / np.ptp(portrait.landmarks[list(OVAL), 0])
    matrix = cv2.getRotationMatrix2D(tuple(middle), turn, scale)
    matrix[:, 2] += place - middle
    # From fine to coarse by way of an average, or a small face would be coarser than a camera makes it.
    blur = max(0.0, 0.5 / scale - 0.5)
    layers = [portrait.image.astype(np.float32), portrait.head, portrait.cover.astype(np.float32)]
    layers = [cv2.GaussianBlur(layer, (0, 0), blur) if blur > 0 else layer for layer in layers]
    image, head, cover = (cv2.warpAffine(layer, matrix, (wide, height), flags=cv2.INTER_LINEAR) for layer in layers)
    weight = head[..., None]
    result = np.rint(photo * (1 - weight) + image * weight).clip(0, 255).astype(np.uint8)
    landmarks = transform_points(portrait.landmarks, matrix)
    shown = np.zeros((height, wide), np.uint8)
    cv2.fillConvexPoly(shown, cv2.convexHull(np.rint(landmarks[list(OVAL)]).astype(np.int32)), 1)
    return result, DrawnFace(kind, landmarks, (shown > 0) & (cover < 0.5))


@torch.no_grad()
def measure(pipeline: MedicalDeIDPipeline, folder: FaceFolder, kinds: Sequence[str], seed: int) -> dict:
    """De-identifies photos of several faces with the default settings, and looks for faces that were left.

    Args:
        pipeline (`MedicalDeIDPipeline`):
            The model.
        folder (`FaceFolder`):
            Aligned crops with landmarks.
        kinds (`Sequence[str]`):
            For each photo one of [`KINDS`].
        seed (`int`):
            Seed of the photos, the surrogates and the noise.

    Returns:
        `dict`: `photos`, `released` and `released_with_a_face_left`; `withheld_because`, by the name of the error; and
        `by_kind` how many faces were `drawn`, how many of those are in photos that were `released`, how many of these
        were `left` (see [`is_left`]), and how many were replaced and are still `recognised`: the pipeline asks the
        recognizers where it has found a face, here they are asked where it is.
    """
    counts = {each: Counter[str]() for each in ("drawn", "released", "left", "recognised")}
    reasons, with_one_left = Counter[str](), 0
    for number, kind in enumerate(tqdm(kinds, desc="De-identifying")):
        photo, faces = draw_photo(folder, kind, np.random.default_rng((seed, number)))
        counts["drawn"].update(face.kind for face in faces)
        try:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
            (result,), _, _ = pipeline(photo, generator=generator, return_dict=False)
        except (NoFaceFoundError, VerificationError) as error:
            reasons[type(error).__name__] += 1
            continue
        counts["released"].update(face.kind for face in faces)
        left = [is_left(photo, result, face) for face in faces]
        counts["left"].update(face.kind for face, was_left in zip(faces, left, strict=True) if was_left)
        replaced = [face for face, was_left in zip(faces, left, strict=True) if not was_left]
        counts["recognised"].update(face.kind for face in replaced if is_recognised(pipeline, photo, result, face))
        with_one_left += any(left)
    return {
        "photos": len(kinds),
        "released": len(kinds) - reasons.total(),
        "released_with_a_face_left": with_one_left,
        "withheld_because": dict(reasons),
        "by_kind": {kind: {each: count[kind] for each, count in counts.items()} for kind in (PLAIN, *KINDS)},
    }


def is_left(before: np.ndarray, after: np.ndarray, face: DrawnFace) -> bool:
    """Whether less than half of what is seen of a face has changed."""
    return float((before != after).any(-1)[face.shown].mean()) < LEFT


def is_recognised(pipeline: MedicalDeIDPipeline, before: np.ndarray, after: np.ndarray, face: DrawnFace) -> bool:
    """Whether any recognizer still takes a face for that of the same person."""
    points5 = points5_from_mesh(face.landmarks)
    size = pipeline.config.crop_size
    matrix = ffhq_matrix(points5, size)
    crops = [crop_face(photo, matrix, size).image for photo in (before, after)]
    points = np.stack([transform_points(points5, matrix).astype(np.float32)] * 2)
    for recognizer in pipeline.recognizers:
        source, result = pipeline.embed(recognizer, crops, points)
        if float(source @ result) >= recognizer.match_threshold:
            return True
    return False


def main(
    data_dir: Annotated[Path, typer.Argument(help="Face crops in imagefolder style with landmarks.npz.")],
    model: Annotated[str, typer.Option(help="medeid-tiny, a folder, or a name on the Hub.")] = "medeid-tiny",
    split: Annotated[str, typer.Option(help="Split of the folder.")] = "train",
    count: Annotated[int, typer.Option(help="Photos of each kind.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the photos, the surrogates and the noise.")] = 0,
) -> None:
    """Print as JSON how many photos were released with a face left original, by what made it hard to find."""
    pipeline = MedicalDeIDPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    print(json.dumps(measure(pipeline, FaceFolder(data_dir, split), KINDS * count, seed), indent=2))


if __name__ == "__main__":
    typer.run(main)
