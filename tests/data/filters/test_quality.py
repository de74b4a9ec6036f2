from dataclasses import replace

import cv2
import numpy as np
import pytest

from medeid.data.filters.quality import QUALITY_LIMITS, detail, find_face, measure_quality
from medeid.faces.detection import CenterFaceDetector
from medeid.faces.mesh import points5_from_mesh

LIMITS = {limit.measure: limit for limit in QUALITY_LIMITS}


@pytest.fixture(scope="module")
def detector() -> CenterFaceDetector:
    return CenterFaceDetector(max_enlargement=1.0)


def reasons(face, detector) -> set[str]:
    measures = measure_quality(face, find_face(detector, face.image))
    assert set(measures) == set(LIMITS)
    return {limit.reason for name, limit in LIMITS.items() if limit.judge(measures[name])}


def test_a_good_picture_has_no_fault(healthy, detector):
    assert reasons(healthy, detector) == set()


def test_dark_skin_is_not_underexposed(healthy, dark_face, detector):
    image, landmarks = dark_face
    assert reasons(replace(healthy, image=image, landmarks=landmarks), detector) == set()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda image: cv2.GaussianBlur(image, (0, 0), 2.0), "blurred"),
        (lambda image: cv2.resize(cv2.resize(image, (64, 64)), (256, 256)), "blurred below its noise"),
        (lambda image: (image * 0.03).astype(np.uint8), "underexposed"),
        (lambda image: np.clip(image * 3.0, 0, 255).astype(np.uint8), "overexposed"),
        (lambda image: np.full_like(image, 128), "no face found"),
    ],
)
def test_a_spoilt_picture_is_told_by_its_fault(healthy, detector, spoil, reason):
    assert reason in reasons(replace(healthy, image=spoil(healthy.image)), detector)


def test_a_small_crop_is_too_small(healthy, detector):
    small = replace(healthy, image=cv2.resize(healthy.image, (96, 96), interpolation=cv2.INTER_AREA))
    assert reasons(small, detector) == {"face too small"}


def test_noise_does_not_hide_a_blur(healthy, detector):
    noise = np.random.default_rng(0).normal(0, 4, healthy.image.shape)
    noisy = np.clip(cv2.GaussianBlur(healthy.image, (0, 0), 2.5) + noise, 0, 255).astype(np.uint8)
    assert reasons(replace(healthy, image=noisy), detector) == {"blurred below its noise"}


@pytest.mark.parametrize("level", [0, 1])
def test_detail_tells_blur_whatever_the_contrast(healthy, level):
    grey = cv2.cvtColor(healthy.image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    inside = np.ones_like(grey)
    assert detail(0.4 * grey, inside, level) == pytest.approx(detail(grey, inside, level), abs=0.01)
    softened = cv2.GaussianBlur(grey, (0, 0), 1.5)
    assert detail(softened, inside, level) < detail(grey, inside, level) - 0.4
    assert np.isnan(detail(grey, np.zeros_like(grey), level))


def test_a_large_crop_is_searched_small_but_told_in_its_own_pixels(healthy, detector):
    large = cv2.resize(healthy.image, (512, 512), interpolation=cv2.INTER_CUBIC)
    found = find_face(detector, large)
    eyes = (points5_from_mesh(healthy.landmarks)[:2] + 0.5) * 2 - 0.5
    np.testing.assert_allclose(found.points5[:2], eyes, atol=12)
    assert found.score > 0.5 and 0 < found.box[0] < found.box[2] < 512
