"""Where the aligned square lies around a face, and cutting it out of the photo.

The square is that of the FFHQ data set: Karras, Laine and Aila, "A Style-Based Generator Architecture for
Generative Adversarial Networks", CVPR 2019 (arXiv:1812.04948), `recreate_aligned_images` in its data set
tool. As a photo is cut just as the training crops were, the networks see the faces where they expect them.

A matrix is float64 `[2, 3]` and maps photo (x, y) to crop (x, y), with pixel centres at integers (OpenCV's
convention).
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from ..types import FaceBox, FaceCrop

# Half a side of the square: 2 eye distances or 1.8 times the way from the eyes to the mouth, whichever is
# more (so that a profile, whose eyes lie close together, still fits). Its centre: this share of the way from
# the eyes down to the mouth.
_EYE_FACTOR, _MOUTH_FACTOR, _CENTRE_FACTOR = 2.0, 1.8, 0.1

# Where the five points lie in a detector's box, as shares of its width and height: the mean over 480
# generated faces at six sizes, made symmetric (deviation 0.05 in x, mostly the turn of the head, and 0.03 in
# y).
_POINTS5_IN_BOX = np.array(
    [[0.285, 0.392], [0.715, 0.392], [0.5, 0.575], [0.301, 0.734], [0.699, 0.734]], dtype=np.float64
)

_ROI_MARGIN = 4  # px; more than the reach of cubic interpolation


def ffhq_matrix(points5: np.ndarray, size: int) -> np.ndarray:
    """The similarity that maps a face in a photo to an FFHQ-aligned crop.

    Args:
        points5 (`np.ndarray`):
            `[5, 2]` in photo pixels: image-left eye centre, image-right eye centre, tip of the nose (unused),
            image-left and image-right corner of the mouth, as named when the face is upright. It may be
            turned by any angle; the crop shows it upright.
        size (`int`):
            Side of the crop in px.

    Returns:
        `np.ndarray`: float64 `[2, 3]`, photo (x, y) -> crop (x, y).

    Raises:
        `ValueError`: if the points have a wrong shape, are not finite, or do not determine a square.
    """
    points = np.asarray(points5, dtype=np.float64)
    if points.shape != (5, 2):
        raise ValueError(
            f"`points5` must have shape [5, 2], but has {list(points.shape)}. Pass the points of one face."
        )
    if not np.isfinite(points).all():
        raise ValueError(f"`points5` must be finite, but is {points.tolist()}. Detect the face again.")
    if size < 1:
        raise ValueError(f"`size` must be at least 1 px, but is {size}.")

    eye_centre = (points[0] + points[1]) / 2
    eye_to_eye = points[1] - points[0]
    eye_to_mouth = (points[3] + points[4]) / 2 - eye_centre
    half_side = max(_EYE_FACTOR * math.hypot(*eye_to_eye), _MOUTH_FACTOR * math.hypot(*eye_to_mouth))
    # The crop's x axis: the line of the eyes and the normal of the line from the eyes to the mouth, added.
    axis = eye_to_eye + np.array([eye_to_mouth[1], -eye_to_mouth[0]])
    length = math.hypot(*axis)
    if length <= 1e-6 * max(1.0, half_side):
        raise ValueError(
            f"`points5` are degenerate, no direction follows from them: {points.tolist()}. The order is "
            "image-left eye, image-right eye, nose, image-left and image-right corner of the mouth."
        )
    cos, sin = axis / length * (size / (2 * half_side))
    linear = np.array([[cos, sin], [-sin, cos]])
    shift = (size - 1) / 2 - linear @ (eye_centre + _CENTRE_FACTOR * eye_to_mouth)
    return np.column_stack([linear, shift])


def invert(matrix: np.ndarray) -> np.ndarray:
    """The inverse map, crop (x, y) -> photo (x, y).

    Args:
        matrix (`np.ndarray`):
            `[2, 3]`, affine.

    Returns:
        `np.ndarray`: float64 `[2, 3]`.

    Raises:
        `ValueError`: if the matrix has a wrong shape or no inverse.
    """
    scale = matrix_scale(matrix)
    if not np.isfinite(matrix).all() or scale == 0:
        raise ValueError(f"`matrix` has no inverse: {np.asarray(matrix).tolist()}.")
    linear = np.linalg.inv(np.asarray(matrix[:, :2], dtype=np.float64))
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def matrix_scale(matrix: np.ndarray) -> float:
    """How many crop pixels one photo pixel is wide: the root of the determinant of a `[2, 3]` matrix."""
    if np.shape(matrix) != (2, 3):
        raise ValueError(f"`matrix` must have shape [2, 3], but has {list(np.shape(matrix))}.")
    return math.sqrt(abs(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]))


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Map points by a matrix; photo -> crop, or back with `invert(matrix)`.

    Args:
        points (`np.ndarray`):
            `[..., 2]`, (x, y).
        matrix (`np.ndarray`):
            `[2, 3]`.

    Returns:
        `np.ndarray`: float64 `[..., 2]`.
    """
    return np.asarray(points, dtype=np.float64) @ matrix[:, :2].T + matrix[:, 2]


def box_points5(box: FaceBox) -> np.ndarray:
    """The face's own five points, or, for a box without any, those of an upright mean face in that box.

    The latter are good for a first crop, in which dense landmarks are then found.

    Args:
        box (`FaceBox`):
            The face, in photo pixels.

    Returns:
        `np.ndarray`: float32 `[5, 2]` in photo pixels.
    """
    if box.points5 is not None:
        return np.asarray(box.points5, dtype=np.float32)
    corner = np.array(box.box[:2])
    return (corner + _POINTS5_IN_BOX * (box.width, box.height)).astype(np.float32)


def crop_face(photo: np.ndarray, matrix: np.ndarray, size: int) -> FaceCrop:
    """Cut the aligned square out of a photo.

    A face larger than the crop is sampled on a grid that is finer by a whole number and then averaged
    (supersampling), so that nothing aliases; a smaller one is interpolated (cubic). What lies outside the
    photo is mirrored in.

    Args:
        photo (`np.ndarray`):
            uint8 `[H, W, 3]`, RGB.
        matrix (`np.ndarray`):
            `[2, 3]`, photo -> crop, as `ffhq_matrix` gives it.
        size (`int`):
            Side of the crop in px.

    Returns:
        `FaceCrop`: the crop, uint8 `[size, size, 3]`, with its matrix.

    Raises:
        `ValueError`: if the photo is of another type, or the square lies outside of it.
    """
    check_photo(photo)
    x0, y0, x1, y1 = photo_window(matrix, size, photo.shape)
    if x1 <= x0 or y1 <= y0:
        raise ValueError(
            f"the crop of `matrix` {np.asarray(matrix).tolist()} lies outside of the photo of "
            f"{photo.shape[1]} x {photo.shape[0]} px. Check that the points belong to this photo."
        )
    factor = max(1, math.ceil(1 / matrix_scale(matrix) - 1e-6))
    fine = np.array(matrix, dtype=np.float64)
    fine[:, 2] += fine[:, :2] @ (x0, y0)
    fine *= factor
    fine[:, 2] += (factor - 1) / 2  # the centre of a crop pixel is the centre of its factor x factor fine ones
    image = cv2.warpAffine(
        photo[y0:y1, x0:x1],
        fine,
        (size * factor, size * factor),
        flags=cv2.INTER_CUBIC if factor == 1 else cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    if factor > 1:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return FaceCrop(image=image, matrix=np.array(matrix, dtype=np.float64))


def crop_mask(mask: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Cut the aligned square out of a mask bool `[H, W]` of the photo: bool `[size, size]`, see [`crop_face`]."""
    picture = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)
    return crop_face(picture, matrix, size).image[..., 0] > 127


def photo_window(matrix: np.ndarray, size: int, photo_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The part of the photo that a crop touches, with a margin for interpolation.

    Args:
        matrix (`np.ndarray`):
            `[2, 3]`, photo -> crop.
        size (`int`):
            Side of the crop in px.
        photo_shape (`tuple[int, ...]`):
            Height and width of the photo, further entries do not count.

    Returns:
        `tuple[int, int, int, int]`: x0, y0, x1, y1, so that the part is `photo[y0:y1, x0:x1]`; x1 <= x0 or
        y1 <= y0 if the crop lies outside of the photo.
    """
    low, high = -0.5, size - 0.5
    corners = transform_points(np.array([[low, low], [high, low], [low, high], [high, high]]), invert(matrix))
    x0, y0 = np.floor(corners.min(0)).astype(int) - _ROI_MARGIN
    x1, y1 = np.ceil(corners.max(0)).astype(int) + _ROI_MARGIN + 1
    height, width = photo_shape[:2]
    return max(int(x0), 0), max(int(y0), 0), min(int(x1), width), min(int(y1), height)


def check_photo(photo: np.ndarray) -> None:
    """Raise a `ValueError` unless `photo` is a non-empty uint8 `[H, W, 3]` array."""
    if not isinstance(photo, np.ndarray) or photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        got = f"{photo.dtype} {list(photo.shape)}" if isinstance(photo, np.ndarray) else type(photo).__name__
        raise ValueError(f"`photo` must be a uint8 array [H, W, 3] in RGB, but is {got}. Convert it first.")
    if photo.size == 0:
        raise ValueError(f"`photo` is empty: {list(photo.shape)}.")
