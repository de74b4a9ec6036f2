import numpy as np
import pytest

from medeid.data.signs.close_up import CloseUp
from medeid.faces.canvas import Canvas
from medeid.faces.mesh import LEFT_EYE, LEFT_IRIS


def drawn_eye(centre_x: float, radius: float, landmarks: np.ndarray) -> Canvas:
    """A face whose left eye is a dark disc on white, between lids as the landmarks have them."""
    image = np.full((256, 256, 3), 0.6, np.float32)
    blank = Canvas(image, landmarks)
    image = image + blank.aperture("left")[..., None] * (np.float32(0.85) - image)
    disc = blank.disc(np.array([centre_x, landmarks[LEFT_IRIS[0], 1]]), radius) * blank.aperture("left")
    return Canvas(image + disc[..., None] * (np.float32(0.15) - image), landmarks)


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.6, 0.95), (-0.6, 1.05)])
def test_the_limbus_is_found_where_the_picture_has_it(light_face, shift, scale):
    landmarks = light_face[1]
    told = Canvas(light_face[0].astype(np.float32) / 255, landmarks).eye("left")
    x, radius = told.centre[0] + shift, told.radius * scale
    eye = CloseUp(drawn_eye(x, radius, landmarks), "left")
    assert eye.centre[0] == pytest.approx(x, abs=0.35)
    assert eye.radius == pytest.approx(radius, rel=0.06)


@pytest.mark.parametrize("side", ["left", "right"])
def test_its_axes_point_to_nose_and_chin_on_either_side(light_face, side):
    eye = CloseUp(Canvas(light_face[0].astype(np.float32) / 255, light_face[1]), side)
    assert eye.inner[0] > eye.cornea > -eye.cornea > eye.outer[0]
    assert eye.down[1] > 0.9
    points = np.array([[3.0, -2.0], [0.0, 5.0]])
    np.testing.assert_allclose(eye.to_mm(eye.to_pixels(points)), points, atol=1e-6)


def test_white_lies_between_the_lids_beside_the_iris(dark_face):
    canvas = Canvas(dark_face[0].astype(np.float32) / 255, dark_face[1])
    eye = CloseUp(canvas, "left")
    white = eye.shrink(eye.white) > 0.5
    y, x = np.nonzero(white)
    contour = canvas.points[list(LEFT_EYE)]
    assert white.sum() > 10
    assert x.min() > contour[:, 0].min() - 1 and x.max() < contour[:, 0].max() + 1
    assert y.min() > contour[:, 1].min() - 1 and y.max() < contour[:, 1].max() + 1
    assert canvas.distance(eye.centre)[white].min() > 0.8 * eye.radius


def test_distance_from_a_lid_is_measured_at_right_angles_to_it(light_face):
    eye = CloseUp(Canvas(light_face[0].astype(np.float32) / 255, light_face[1]), "left")
    far = eye.from_lid("upper")
    assert far[eye.between_lids > 0.99].max() < 0.5
    down, right = np.gradient(far)
    above = (far > 1.5) & (far < 6.0)
    per_mm = np.hypot(down, right)[above]
    # One fine pixel is a quarter of a picture's pixel.
    assert np.median(per_mm) == pytest.approx(0.25 / eye.mm, rel=0.05)


def test_noise_has_mean_0_and_deviation_1(light_face):
    eye = CloseUp(Canvas(light_face[0].astype(np.float32) / 255, light_face[1]), "left")
    fields = np.stack([eye.noise(3.0, np.random.default_rng(seed)) for seed in range(20)])
    assert fields.mean() == pytest.approx(0.0, abs=0.1)
    assert fields.std() == pytest.approx(1.0, abs=0.2)


def test_a_stroke_too_thin_to_draw_is_fainter_instead(light_face):
    eye = CloseUp(Canvas(light_face[0].astype(np.float32) / 255, light_face[1]), "left")
    way = np.array([[-6.0, 0.3], [6.0, 1.1]])
    fine, thin = eye.strokes([way], 0.2), eye.strokes([way], 0.1)
    np.testing.assert_allclose(thin, fine / 2, atol=1e-6)
    assert eye.square_mm(eye.strokes([way], 1.0)) == pytest.approx(12.0, rel=0.2)


def test_both_eyes_at_once_are_refused(light_face):
    with pytest.raises(ValueError, match="one eye at a time"):
        CloseUp(Canvas(light_face[0].astype(np.float32) / 255, light_face[1]), "both")
