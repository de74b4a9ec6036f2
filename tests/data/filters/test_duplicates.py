import io

import cv2
import numpy as np
import pytest
from PIL import Image

from medeid.data.filters.duplicates import DuplicateFinder


def repeats(*pictures) -> dict:
    finder = DuplicateFinder()
    for picture in pictures:
        finder.add(*picture)
    return finder.repeats()


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def shifted(image: np.ndarray, distance: float) -> np.ndarray:
    matrix = np.float32([[1, 0, distance], [0, 1, 0]])
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REFLECT_101)


def test_the_first_of_equal_pictures_stays(light_face, dark_face):
    light, dark = light_face[0], dark_face[0]
    assert repeats((light, "a"), (dark, "b"), (light, "c"), (light.copy(), "a")) == {2: (0, True), 3: (0, True)}


@pytest.mark.parametrize(
    "again",
    [
        lambda image: as_jpeg(image, 95),
        lambda image: cv2.resize(image, (512, 512), interpolation=cv2.INTER_CUBIC),
        lambda image: cv2.resize(image, (192, 192), interpolation=cv2.INTER_AREA),
    ],
)
def test_the_same_picture_encoded_or_resized_is_a_repeat_whoever_it_is(light_face, again):
    image = light_face[0]
    for subject in ("a", "b"):
        assert repeats((image, "a"), (again(image), subject)) == {1: (0, False)}


def test_a_small_sign_makes_another_version_of_a_subject(light_face):
    image = light_face[0]
    with_naevus = image.copy()
    with_naevus[159:161, 89:91] -= 20
    assert repeats((image, "a", []), (with_naevus, "a", ["naevus:right"])) == {}
    assert repeats((image, "a", []), (with_naevus, "a", [])) == {1: (0, False)}
    assert repeats((image, "a", []), (image, "a", ["naevus:right"])) == {1: (0, True)}


def test_between_subjects_a_picture_that_only_moved_is_a_repeat(light_face):
    image = light_face[0]
    moved = shifted(as_jpeg(image, 80), 0.25)
    assert repeats((image, "a"), (moved, "b")) == {1: (0, False)}
    assert repeats((image, "a"), (moved, "a")) == {}


def test_different_faces_are_none(varied):
    different = {face.subject_id.split("-")[0]: face.image for face in varied}
    assert len(different) > 5
    assert repeats(*((image, name) for name, image in different.items())) == {}
    assert repeats() == {}
