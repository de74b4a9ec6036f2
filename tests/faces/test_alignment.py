"""Alignment: the FFHQ square, cutting it out, and the way back."""

import math

import cv2
import numpy as np
import pytest

from medeid.faces.alignment import (
    box_points5,
    crop_face,
    ffhq_matrix,
    invert,
    matrix_scale,
    transform_points,
)
from medeid.types import FaceBox

# A face of which the FFHQ square is the whole 256 px picture: eyes 64 px apart, and 64 px from the mouth.
ALIGNED = np.array([[95.5, 121.1], [159.5, 121.1], [127.5, 155.0], [103.5, 185.1], [151.5, 185.1]])


def similarity(angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    cos, sin = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])


def test_aligned_face_gives_identity():
    np.testing.assert_allclose(ffhq_matrix(ALIGNED, 256), [[1, 0, 0], [0, 1, 0]], atol=1e-9)


@pytest.mark.parametrize("angle", [0, 17, 90, 180, -120])
@pytest.mark.parametrize("scale", [0.2, 1.0, 5.3])
def test_matrix_undoes_any_similarity(angle, scale):
    placed = similarity(angle, scale, (412.3, -57.0))
    matrix = ffhq_matrix(transform_points(ALIGNED, placed), 256)
    np.testing.assert_allclose(matrix, invert(placed), atol=1e-9)


def test_matrix_matches_the_data_set_tool():
    """The quad of FFHQ's `recreate_aligned_images`, in its corner convention."""
    points = np.array([[310.0, 222.0], [395.0, 240.0], [350.0, 290.0], [318.0, 330.0], [380.0, 335.0]])
    eye_avg, mouth_avg = points[:2].mean(0), points[3:].mean(0)
    eye_to_eye, eye_to_mouth = points[1] - points[0], mouth_avg - eye_avg
    x = eye_to_eye - np.flipud(eye_to_mouth) * [-1, 1]
    x /= np.hypot(*x)
    x *= max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8)
    y = np.flipud(x) * [-1, 1]
    c = eye_avg + eye_to_mouth * 0.1
    quad = np.stack([c - x - y, c - x + y, c + x + y, c + x - y])

    corners = transform_points(quad, ffhq_matrix(points, 512))
    edge = 511.5
    np.testing.assert_allclose(corners, [[-0.5, -0.5], [-0.5, edge], [edge, edge], [edge, -0.5]], atol=1e-9)


def test_larger_crop_is_the_same_square():
    to_256, to_512 = ffhq_matrix(ALIGNED, 256), ffhq_matrix(ALIGNED, 512)
    points = np.random.default_rng(0).uniform(0, 255, (20, 2))
    np.testing.assert_allclose(transform_points(points, to_512), 2 * transform_points(points, to_256) + 0.5, atol=1e-9)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((5, 2)), "degenerate"),
        (np.zeros((5, 3)), "shape"),
        (np.full((5, 2), np.nan), "finite"),
    ],
)
def test_unusable_points_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        ffhq_matrix(points, 256)


def test_round_trip_is_exact():
    matrix = ffhq_matrix(transform_points(ALIGNED, similarity(33, 7.7, (2000, 900))), 256)
    points = np.random.default_rng(0).uniform(0, 4000, (1000, 2))
    back = transform_points(transform_points(points, matrix), invert(matrix))
    assert np.abs(back - points).max() <= 1e-9


def test_singular_matrix_is_refused():
    with pytest.raises(ValueError, match="no inverse"):
        invert(np.zeros((2, 3)))


def test_identity_crop_is_the_photo():
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    crop = crop_face(photo, np.eye(2, 3), 64)
    assert crop.size == 64
    np.testing.assert_array_equal(crop.image, photo)


@pytest.mark.parametrize("scale", [0.5, 1.7, 6.0])
def test_points_and_pixels_move_alike(scale):
    """A blob drawn in the photo is found in the crop where the matrix says."""
    placed = similarity(25, scale, (300.0, 60.0))
    matrix = invert(placed)
    centre = transform_points(np.array([100.0, 140.0]), placed)
    y, x = np.mgrid[:1400, :1400]
    blob = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * (6 * scale) ** 2))
    photo = np.repeat((blob * 255).astype(np.uint8)[..., None], 3, axis=2)

    crop = crop_face(photo, matrix, 256).image[..., 0].astype(float)
    y, x = np.mgrid[:256, :256]
    crop[np.hypot(x - 100, y - 140) > 30] = 0  # what is mirrored in does not count
    found = np.array([(x * crop).sum(), (y * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(found, [100.0, 140.0], atol=0.1)


def test_reduction_does_not_alias():
    """Stripes finer than the crop's pixels must turn grey, not into coarser stripes."""
    photo = np.zeros((1600, 1600, 3), np.uint8)
    photo[:, ::3] = 255
    matrix = ffhq_matrix(transform_points(ALIGNED, similarity(8, 6.1, (10, 10))), 256)
    assert matrix_scale(matrix) < 0.17
    centre = crop_face(photo, matrix, 256).image[64:192, 64:192, 0].astype(float)
    assert abs(centre.mean() - 85) < 2
    assert centre.std() < 12  # nearest sampling: 120, bilinear: 70


def test_crop_beyond_the_border_is_mirrored():
    photo = np.full((100, 100, 3), 200, np.uint8)
    crop = crop_face(photo, similarity(0, 1.0, (60, 60)), 128)
    assert (crop.image == 200).all()


def test_crop_outside_of_the_photo_is_refused():
    with pytest.raises(ValueError, match="outside"):
        crop_face(np.zeros((50, 50, 3), np.uint8), similarity(0, 1.0, (-500, 0)), 64)


@pytest.mark.parametrize("photo", [np.zeros((9, 9)), np.zeros((9, 9, 3)), np.zeros((9, 9, 4), np.uint8)])
def test_other_arrays_are_refused(photo):
    with pytest.raises(ValueError, match="uint8"):
        crop_face(photo, np.eye(2, 3), 8)


def test_box_without_points_gives_a_whole_upright_face():
    box = FaceBox((100.0, 50.0, 300.0, 310.0), 1.0, None, "user")
    points = box_points5(box)
    assert points.dtype == np.float32 and points.shape == (5, 2)
    matrix = ffhq_matrix(points, 256)
    assert abs(matrix[0, 1]) < 1e-6  # upright
    corners = transform_points(np.array([[100.0, 50.0], [300.0, 310.0]]), matrix)
    assert corners.min() > 0 and corners.max() < 256


def test_box_with_points_keeps_them():
    box = FaceBox((0.0, 0.0, 256.0, 256.0), 1.0, ALIGNED.astype(np.float32), "user")
    np.testing.assert_array_equal(box_points5(box), ALIGNED.astype(np.float32))


def test_quarter_turned_face_is_cropped_upright():
    upright = np.zeros((256, 256, 3), np.uint8)
    cv2.circle(upright, (128, 60), 20, (255, 255, 255), cv2.FILLED)
    lying = np.rot90(upright).copy()  # (x, y) -> (y, 255 - x)
    points = np.stack([ALIGNED[:, 1], 255 - ALIGNED[:, 0]], axis=1)
    crop = crop_face(lying, ffhq_matrix(points, 256), 256).image
    assert np.abs(crop.astype(int) - upright).max() <= 2
