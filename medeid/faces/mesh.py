"""What the points of the dense face mesh mean: contours, region masks and the structure sketch.

The indices are those of MediaPipe's face mesh (Kartynnik et al., "Real-time Facial Surface Geometry from
Monocular Video on Mobile GPUs", arXiv:1907.06724): 468 surface points, then five points for each iris
(Ablavatski et al., "Real-time Pupil Tracking from Monocular Video for Digital Puppetry", arXiv:2006.11341).
*Left* and *right* are the patient's own: the patient's right eye lies on the left of the image. Landmarks are
float32 `[478, 3]` in pixels of a 256 px crop, pixel centres at integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import cv2
import numpy as np

if TYPE_CHECKING:
    import torch

NUM_LANDMARKS = 478
LANDMARK_SIZE = 256  # px; the crop in whose pixels landmarks are given

Region = Literal["skin", "left_eye", "right_eye", "left_brow", "right_brow", "nose", "lips", "oval", "face"]
ArrayOrTensor = TypeVar("ArrayOrTensor", np.ndarray, "torch.Tensor")

# Closed contours, each ordered along the line.
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
RIGHT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
LEFT_EYE = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)
RIGHT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)  # upper edge inwards, lower edge back
LEFT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
# The rings of points around the eye's contour, from the brow to the lower lid's crease.
RIGHT_LIDS = (
    247, 30, 29, 27, 28, 56, 190, 130, 25, 110, 24, 23, 22, 26, 112, 243,
    113, 225, 224, 223, 222, 221, 189, 226, 31, 228, 229, 230, 231, 232, 233, 244,
)  # fmt: skip
OUTER_LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
NOSE = (
    168, 122, 188, 217, 126, 209, 49, 129, 64, 98, 97,
    2, 326, 327, 294, 358, 279, 429, 355, 437, 412, 351,
)  # fmt: skip

# Open lines.
NOSE_BRIDGE = (168, 6, 197, 195, 5, 4)
NOSE_ALA = (49, 129, 64, 98, 97, 2, 326, 327, 294, 358, 279)  # around one wing, the base, the other wing

# Centre, then four points on the rim.
RIGHT_IRIS = (468, 469, 470, 471, 472)
LEFT_IRIS = (473, 474, 475, 476, 477)

NOSE_TIP = 1
MOUTH_CORNERS = (61, 291)  # image-left, image-right
OUTER_EYE_CORNERS = (33, 263)  # image-left, image-right
FOREHEAD, CHIN = 10, 152  # the ends of the face's long axis

# On the mean face every point has its mirror image within 1 % of the inter-ocular distance. The numbering is
# such that all points off the midline pair up in ascending order: the image-left half below 248, the
# image-right half from there.
_MIDLINE = (
    0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15,
    16, 17, 18, 19, 94, 151, 152, 164, 168, 175, 195, 197, 199, 200,
)  # fmt: skip
_IRIS_PAIRS = ((468, 473), (469, 476), (470, 475), (471, 474), (472, 477))


def _mirror_permutation() -> np.ndarray:
    permutation = np.arange(NUM_LANDMARKS)
    image_left = np.setdiff1d(np.arange(248), _MIDLINE)
    image_right = np.arange(248, 468)
    permutation[image_left], permutation[image_right] = image_right, image_left
    for a, b in _IRIS_PAIRS:
        permutation[a], permutation[b] = b, a
    return permutation


MIRROR = _mirror_permutation()
MIRROR.setflags(write=False)

# The face mask goes beyond the mesh, as shares of the face's height (forehead to chin): the mesh ends below
# the hairline, and the jaw line, which also tells who someone is, runs slightly outside it.
_FACE_EXTRA = (0.13, 0.03, 0.03)  # up, down, to each side
_HEAD_EXTRA = (0.36, 0.05, 0.17)  # with the hairline, the hair above it, and the ears
_SKIN_MARGIN = 0.012  # of the picture's side: lashes, brow hairs and vermilion border are not skin
_SUBPIXEL_BITS = 4  # OpenCV draws at 1/16 px


def _check_landmarks(landmarks: np.ndarray) -> None:
    if landmarks.ndim != 2 or landmarks.shape[0] != NUM_LANDMARKS or landmarks.shape[1] not in (2, 3):
        raise ValueError(
            f"`landmarks` must have shape [{NUM_LANDMARKS}, 3] or [{NUM_LANDMARKS}, 2], but has "
            f"{list(landmarks.shape)}. Pass the landmarks of one face at a time."
        )


def scale_points(points: np.ndarray, size: int) -> np.ndarray:
    """Map points `[..., 2]` from pixels of the 256 px crop to pixels of the same crop at `size`."""
    if size < 1:
        raise ValueError(f"`size` must be at least 1 px, but is {size}.")
    return (points + 0.5) * (size / LANDMARK_SIZE) - 0.5


def _fixed_point(points: np.ndarray) -> np.ndarray:
    """Points `[N, 2]` as the int32 `[N, 1, 2]` that OpenCV draws with `shift=_SUBPIXEL_BITS`."""
    return np.rint(points * (1 << _SUBPIXEL_BITS)).astype(np.int32).reshape(-1, 1, 2)


def points5_from_mesh(landmarks: ArrayOrTensor) -> ArrayOrTensor:
    """The five points that detectors and recognizers align by.

    The centre of an eye is the mean of its lid contour, not its iris: a squint must not turn the face.

    Args:
        landmarks (`np.ndarray` or `torch.Tensor`):
            `[..., 478, 2 or 3]` in any pixels.

    Returns:
        `np.ndarray` or `torch.Tensor`: `[..., 5, 2]` in the same pixels: image-left eye, image-right eye, tip
        of the nose, image-left and image-right corner of the mouth.
    """
    if landmarks.ndim < 2 or landmarks.shape[-2] != NUM_LANDMARKS:
        raise ValueError(
            f"`landmarks` must have shape [..., {NUM_LANDMARKS}, 3], but has {list(landmarks.shape)}. "
            "Put the points on the last axis but one."
        )
    xy = landmarks[..., :2]
    points = [xy[..., list(eye), :].mean(-2) for eye in (RIGHT_EYE, LEFT_EYE)]
    points += [xy[..., index, :] for index in (NOSE_TIP, *MOUTH_CORNERS)]
    if isinstance(xy, np.ndarray):
        return np.stack(points, axis=-2)
    import torch  # here, as the workers that simulate would wait seconds for it and have no tensors

    return torch.stack(points, dim=-2)


def inter_ocular_distance(landmarks: ArrayOrTensor) -> ArrayOrTensor:
    """Distance between the outer corners of the eyes (points 33 and 263), the usual unit of landmark errors.

    Args:
        landmarks (`np.ndarray` or `torch.Tensor`):
            `[..., 478, 2 or 3]`. Only x and y count.

    Returns:
        `np.ndarray` or `torch.Tensor`: `[...]` in the same pixels.
    """
    right, left = OUTER_EYE_CORNERS
    return ((landmarks[..., right, :2] - landmarks[..., left, :2]) ** 2).sum(-1) ** 0.5


def flip_landmarks(landmarks: ArrayOrTensor, size: int = LANDMARK_SIZE) -> ArrayOrTensor:
    """Landmarks of the horizontally flipped picture, with left and right points renamed.

    Args:
        landmarks (`np.ndarray` or `torch.Tensor`):
            `[..., 478, 2 or 3]` in pixels of a picture of width `size`.
        size (`int`, *optional*, defaults to 256):
            Width of the picture in px.

    Returns:
        `np.ndarray` or `torch.Tensor`: a new array of the same shape. Flipping twice changes nothing.
    """
    flipped = landmarks[..., MIRROR.tolist(), :]  # indexing by a list copies
    flipped[..., 0] = (size - 1) - flipped[..., 0]
    return flipped


def _face_polygon(landmarks: np.ndarray, head: float) -> np.ndarray:
    """The identity-bearing part of the face as a convex polygon `[N, 2]` in pixels of the 256 px crop.

    With `head` from 0 to 1 it widens to the outline of the head.
    """
    xy = landmarks[:, :2].astype(np.float64)
    axis = xy[FOREHEAD] - xy[CHIN]
    height = float(np.linalg.norm(axis))
    if height == 0:
        raise ValueError("`landmarks` are degenerate: forehead and chin coincide. Detect the face again.")
    up = axis / height
    side = np.array([-up[1], up[0]])
    # All points, not the oval alone: on a turned head the nose stands out beyond it.
    centre = (xy.max(0) + xy.min(0)) / 2
    along = (xy - centre) @ up
    across = (xy - centre) @ side
    extra_up, extra_down, extra_side = np.array(_FACE_EXTRA) + head * (np.array(_HEAD_EXTRA) - _FACE_EXTRA)
    # Squared, so that the forehead rises in an arc while the temples stay.
    rise = extra_up * height * (along.clip(min=0) / along.max()) ** 2
    sink = extra_down * height * (along.clip(max=0) / along.min()) ** 2
    along = along + rise - sink
    across = across + extra_side * height * across / np.abs(across).max()
    grown = centre + along[:, None] * up + across[:, None] * side
    return cv2.convexHull(grown.astype(np.float32)).reshape(-1, 2)


_CONTOURS: dict[str, tuple[int, ...]] = {
    "left_eye": LEFT_EYE,
    "right_eye": RIGHT_EYE,
    "left_brow": LEFT_BROW,
    "right_brow": RIGHT_BROW,
    "nose": NOSE,
    "lips": OUTER_LIPS,
    "oval": OVAL,
}


def region_mask(landmarks: np.ndarray, region: Region, size: int = LANDMARK_SIZE) -> np.ndarray:
    """Mask of one region of the face.

    Args:
        landmarks (`np.ndarray`):
            `[478, 2 or 3]` in pixels of the 256 px crop.
        region (`str`):
            `"left_eye"`, `"right_eye"`, `"left_brow"`, `"right_brow"`, `"nose"`, `"lips"` (with the opening
            of the mouth) or `"oval"`: the inside of that contour. `"skin"`: the oval without eyes, brows and
            lips. `"face"`: the identity-bearing hull that is generated anew, from the chin to near the
            hairline and slightly wider than the mesh.
        size (`int`, *optional*, defaults to 256):
            Side of the mask in px; the landmarks are scaled to it.

    Returns:
        `np.ndarray`: float32 `[size, size]`, each pixel 0 or 1.

    Raises:
        `ValueError`: if the region is unknown, or the landmarks have a wrong shape.
    """
    _check_landmarks(landmarks)
    if region not in get_args(Region):
        raise ValueError(f"`region` must be one of {', '.join(get_args(Region))}, but is {region!r}.")

    if region == "face":
        return head_mask(landmarks, 0.0, size)
    mask = np.zeros((size, size), np.uint8)
    polygon = landmarks[list(_CONTOURS["oval" if region == "skin" else region]), :2]
    cv2.fillPoly(mask, [_fixed_point(scale_points(polygon, size))], 1, shift=_SUBPIXEL_BITS)
    if region == "skin":
        margin = 2 * max(1, round(_SKIN_MARGIN * size)) + 1  # a line lies half inside its contour
        for name in ("left_eye", "right_eye", "left_brow", "right_brow", "lips"):
            contour = [_fixed_point(scale_points(landmarks[list(_CONTOURS[name]), :2], size))]
            cv2.fillPoly(mask, contour, 0, shift=_SUBPIXEL_BITS)
            cv2.polylines(mask, contour, True, 0, margin, shift=_SUBPIXEL_BITS)
    return mask.astype(np.float32)


def head_mask(landmarks: np.ndarray, share: float, size: int = LANDMARK_SIZE) -> np.ndarray:
    """Mask between the region `"face"` and the outline of the whole head, with hairline and ears.

    Args:
        landmarks (`np.ndarray`):
            `[478, 2 or 3]` in pixels of the 256 px crop.
        share (`float`):
            From 0, the face, to 1, the head. More of it covers all that less of it does.
        size (`int`, *optional*, defaults to 256):
            Side of the mask in px; the landmarks are scaled to it.

    Returns:
        `np.ndarray`: float32 `[size, size]`, each pixel 0 or 1.
    """
    _check_landmarks(landmarks)
    mask = np.zeros((size, size), np.uint8)
    polygon = scale_points(_face_polygon(landmarks, share), size)
    cv2.fillPoly(mask, [_fixed_point(polygon)], 1, shift=_SUBPIXEL_BITS)
    return mask.astype(np.float32)


# Contour, closed, RGB. Drawn in this order, so that lids cross irises: that is what shows a drooping lid.
_SKETCH_LINES: tuple[tuple[tuple[int, ...], bool, tuple[int, int, int]], ...] = (
    (OVAL, True, (0, 0, 255)),
    (RIGHT_BROW, True, (0, 255, 255)),
    (LEFT_BROW, True, (0, 255, 255)),
    (NOSE_BRIDGE, False, (255, 255, 255)),
    (NOSE_ALA, False, (255, 255, 255)),
    (OUTER_LIPS, True, (255, 0, 0)),
    (INNER_LIPS, True, (255, 0, 255)),
    (RIGHT_EYE, True, (0, 255, 0)),
    (LEFT_EYE, True, (0, 255, 0)),
)
_IRIS_COLOUR = (255, 255, 0)
_SKETCH_LINE_WIDTH = 1 / 256  # of the picture's side; thin, since an open eye is only 3 % high


def draw_sketch(landmarks: np.ndarray, size: int = LANDMARK_SIZE) -> np.ndarray:
    """The structure condition: pose, expression, lid aperture, gaze and mouth as coloured lines on black.

    Each kind of contour has a corner of the RGB cube as its colour. The irises are discs under the lids'
    lines.

    Args:
        landmarks (`np.ndarray`):
            `[478, 2 or 3]` in pixels of the 256 px crop.
        size (`int`, *optional*, defaults to 256):
            Side of the sketch in px; the landmarks and the width of the lines are scaled to it.

    Returns:
        `np.ndarray`: uint8 `[size, size, 3]`, RGB.
    """
    _check_landmarks(landmarks)
    points = scale_points(landmarks[:, :2], size)
    fixed = _fixed_point(points)
    width = max(1, round(_SKETCH_LINE_WIDTH * size))
    sketch = np.zeros((size, size, 3), np.uint8)
    for iris in (RIGHT_IRIS, LEFT_IRIS):
        centre, rim = points[iris[0]], points[list(iris[1:])]
        radius = float(np.linalg.norm(rim - centre, axis=1).mean())
        cv2.circle(
            sketch,
            tuple(int(v) for v in fixed[iris[0], 0]),
            round(radius * (1 << _SUBPIXEL_BITS)),
            _IRIS_COLOUR,
            cv2.FILLED,
            cv2.LINE_AA,
            _SUBPIXEL_BITS,
        )
    for contour, closed, colour in _SKETCH_LINES:
        cv2.polylines(sketch, [fixed[list(contour)]], closed, colour, width, cv2.LINE_AA, _SUBPIXEL_BITS)
    return sketch
