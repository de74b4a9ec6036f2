"""The three channels on drawn faces: pixels, lines and tones of the source, where a sign is, on another face."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.color import rgb2lab

from medeid.data.faces import FaceFolder
from medeid.data.simulate import simulate
from medeid.faces.mesh import draw_sketch, region_mask
from medeid.faces.shape import FEATURES
from medeid.manifestations.channels import (
    keep_appearance,
    keep_colour,
    keep_geometry,
    keep_shape,
    plan_preservation,
)
from medeid.manifestations.taxonomy import TAXONOMY, Finding

LIGHT, DARK = (222, 180, 160), (110, 76, 60)


def skin(tone, size=256):
    """A flat patch of skin with a little grain."""
    grain = np.random.default_rng(0).normal(0, 2, (size, size, 1))
    return np.clip(np.array(tone) + grain, 0, 255).astype(np.uint8)


def disc(radius, size=256, centre=None):
    mask = np.zeros((size, size), np.float32)
    return cv2.circle(mask, centre or (size // 2, size // 2), radius, 1.0, cv2.FILLED)


def feathered(radius, size=256):
    return cv2.GaussianBlur(disc(radius, size), (0, 0), 2.0) * disc(radius + 8, size)


def no_masks():
    return np.zeros((len(TAXONOMY), 128, 128), bool)


@pytest.mark.parametrize("size", [256, 640])
def test_a_mole_keeps_its_contrast_and_takes_the_new_skin_around_it(size):
    source, generated = skin(LIGHT, size), skin(DARK, size)
    mole = disc(size // 20, size) > 0
    source[mole] //= 2
    result = keep_appearance(generated, source, feathered(size // 12, size), unit=size / 256)
    ring = (disc(size // 13, size) > 0) & (disc(size // 17, size) == 0)  # kept skin around the mole
    assert result[ring].mean(0) == pytest.approx(generated.mean((0, 1)), abs=4)
    assert result[mole].mean() / result[ring].mean() == pytest.approx(0.5, abs=0.06)


def test_hair_beside_a_lesion_does_not_set_it_aglow():
    source, generated, weight = skin(LIGHT), skin(DARK), feathered(40)
    source[:, 160:] = (40, 30, 25)  # where the new face has skin
    result = keep_appearance(generated, source, weight)
    beside = (weight > 0.99) & (np.arange(256) < 158)
    assert np.abs(result[beside].mean(0) - generated[beside].mean(0)).max() < 4
    assert np.percentile(result[beside].max(1), 99) < np.percentile(generated[beside].max(1), 99) + 4


def test_outside_of_its_weight_nothing_changes():
    source, generated, weight = skin(LIGHT), skin(DARK), feathered(20)
    result = keep_appearance(generated, source, weight)
    assert np.array_equal(result[weight == 0], generated[weight == 0])
    assert not np.array_equal(result[weight > 0.5], generated[weight > 0.5])
    assert np.array_equal(keep_appearance(generated, source, np.zeros_like(weight)), generated)


def test_in_the_eye_pixels_stay_as_they_are():
    source, generated, weight = skin(LIGHT), skin(DARK), disc(20)
    result = keep_appearance(generated, source, weight, harmonise=False)
    assert np.array_equal(result[weight == 1], source[weight == 1])


def test_parts_of_different_sizes():
    with pytest.raises(ValueError, match="`generated`, `source` and `weight` must fit"):
        keep_appearance(skin(LIGHT), skin(LIGHT, 128), disc(20))


@pytest.fixture(scope="module")
def faces():
    return FaceFolder(Path(__file__).parents[2] / "examples" / "faces", "train")


@pytest.fixture(scope="module")
def landmarks(faces):
    return faces.landmarks(0)


def test_lines_move_towards_the_surrogate_but_not_where_they_are_held(faces, landmarks):
    surrogate = faces.landmarks(1)
    source = draw_sketch(landmarks)
    free = keep_geometry(landmarks, surrogate, (), 256)
    held = keep_geometry(landmarks, surrogate, ("eyes", "brows"), 256)
    low, high = (edge(landmarks[list(FEATURES["eyes"]), :2], axis=0).astype(int) for edge in (np.min, np.max))
    eye = (slice(low[1], high[1] + 1), slice(low[0], high[0] + 1))
    assert not np.array_equal(free[eye], source[eye])
    assert np.array_equal(held[eye], source[eye])
    assert not np.array_equal(held, source)
    assert np.array_equal(keep_geometry(landmarks, surrogate, FEATURES, 256), source)


def test_a_lid_hangs_and_a_mouth_is_drawn_aside_only_where_a_sign_is(faces):
    healthy, landmarks = faces.image(8), faces.landmarks(8)
    palsy = simulate(healthy, landmarks, [Finding("facial_palsy", "left", 0.8)], np.random.default_rng(0))
    areas = {name: region_mask(landmarks, name) > 0 for name in ("left_eye", "lips")}
    for posed, changed in ((("eyes", "brows"), "left_eye"), (("mouth",), "lips")):
        result = keep_shape(healthy, landmarks, palsy.landmarks, posed, np.random.default_rng(0))
        errors = {
            name: [np.abs(image[area].astype(int) - palsy.image[area]).mean() for image in (healthy, result)]
            for name, area in areas.items()
        }
        before, after = errors.pop(changed)
        assert after < 0.7 * before
        (other,) = errors.values()
        assert other[0] == other[1]
    assert np.array_equal(keep_shape(healthy, landmarks, palsy.landmarks, (), np.random.default_rng(0)), healthy)


def test_a_yellow_skin_stays_yellow(landmarks):
    generated, source = skin(LIGHT), skin((215, 175, 110))
    result = keep_colour(generated, landmarks, source, landmarks, ("skin",))
    area = cv2.erode(region_mask(landmarks, "skin"), np.ones((15, 15))) > 0
    assert rgb2lab(result)[area].mean(0) == pytest.approx(rgb2lab(source)[area].mean(0), abs=1.0)
    outside = cv2.dilate(region_mask(landmarks, "oval"), np.ones((41, 41))) == 0
    assert np.abs(result[outside].astype(int) - generated[outside]).max() <= 1


def test_a_lesion_does_not_count_as_tone(landmarks):
    generated, source = skin(LIGHT), skin(LIGHT)
    lesion = (region_mask(landmarks, "nose") > 0) & (region_mask(landmarks, "skin") > 0)
    source[lesion] = (180, 40, 60)
    counted = keep_colour(generated, landmarks, source, landmarks, ("skin",))
    apart = keep_colour(generated, landmarks, source, landmarks, ("skin",), apart=lesion)
    area = region_mask(landmarks, "skin") > 0
    shift = [np.abs(result[area].astype(int) - generated[area]).mean() for result in (counted, apart)]
    assert shift[1] < 1 < shift[0]


def test_lips_and_sclera_only_when_asked(landmarks):
    generated, source = skin(LIGHT), skin(LIGHT)
    lips = region_mask(landmarks, "lips") > 0
    source[lips] = (90, 80, 140)  # cyanosis
    without = keep_colour(generated, landmarks, source, landmarks, ("skin",))
    carried = keep_colour(generated, landmarks, source, landmarks, ("skin", "lips"))
    core = cv2.erode(lips.astype(np.uint8), np.ones((3, 3))) > 0
    blue = [rgb2lab(result)[core][:, 2].min() for result in (without, carried)]
    assert blue[1] < blue[0] - 10


def test_the_plan_follows_the_taxonomy(landmarks):
    masks = no_masks()
    masks[list(TAXONOMY).index("naevus"), 80:84, 84:88] = True  # in 128 px: on the left cheek
    plan = plan_preservation([Finding("naevus", "left")], masks, landmarks, 256)
    assert plan.skin[164, 172] == 1 and not plan.eyes.any() and plan.areas == ("skin",)
    other_side = plan_preservation([Finding("naevus", "right")], masks, landmarks, 256)
    assert not other_side.skin.any()
    ptosis = plan_preservation([Finding("ptosis", "left")], masks, landmarks, 256)
    assert ptosis.held == ptosis.posed == {"eyes", "brows"} and not ptosis.skin.any()
    jaundice = plan_preservation([Finding("jaundice")], masks, landmarks, 256)
    assert jaundice.areas == ("skin", "sclera", "lips") and not jaundice.held
    healthy = plan_preservation([], masks, landmarks, 256)
    assert not healthy.skin.any() and not healthy.eyes.any() and not healthy.held


def test_of_a_sign_on_the_eye_the_whole_opening_stays(landmarks):
    plan = plan_preservation([Finding("pterygium", "right")], no_masks(), landmarks, 256)
    right, left = (region_mask(landmarks, eye) > 0 for eye in ("right_eye", "left_eye"))
    assert (plan.eyes[right] == 1).all() and not plan.eyes[left].any()
    assert plan.held == plan.posed == {"eyes"}  # lids must fit the pixels between them


def test_what_a_clinician_draws_stays_and_holds_the_lines_under_it(landmarks):
    drawn = region_mask(landmarks, "lips") > 0
    plan = plan_preservation([], no_masks(), landmarks, 256, drawn)
    assert (plan.skin[drawn] == 1).all() and "mouth" in plan.held and not plan.posed
    assert plan.skin.sum() < 4 * drawn.sum()
