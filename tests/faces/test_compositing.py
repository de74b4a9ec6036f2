"""Compositing: the soft mask, pasting back, seam colour and grain."""

import cv2
import numpy as np
import pytest
import skimage.data

from medeid.faces.alignment import crop_face, ffhq_matrix, invert, transform_points
from medeid.faces.compositing import feathered_mask, match_colour, match_grain, paste_face, project_mask, warped_mask

FACE = np.array([[202.5, 100.8], [246.7, 103.7], [225, 122], [204.2, 141.2], [243.8, 141.7]])  # astronaut


def disc(size=256, radius=70):
    y, x = np.mgrid[:size, :size]
    return (np.hypot(x - (size - 1) / 2, y - (size - 1) / 2) <= radius * size / 256).astype(np.float32)


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()


def test_mask_covers_the_region_and_ends_at_the_stated_width():
    region = disc()
    mask = feathered_mask(region, feather=12)
    assert mask.dtype == np.float32 and mask.min() == 0
    assert (mask[region > 0] == 1).all()
    y, x = np.mgrid[:256, :256]
    distance = np.hypot(x - 127.5, y - 127.5) - 70
    assert (mask[distance > 13] == 0).all()
    ring = mask[(distance > 2) & (distance < 10)]
    assert 0 < ring.min() and ring.max() < 1


def test_mask_is_zero_along_the_border_of_the_crop():
    mask = feathered_mask(np.ones((256, 256), np.float32), feather=10)
    border = np.ones((256, 256), bool)
    border[4:-4, 4:-4] = False
    assert (mask[border] == 0).all()
    assert (mask[14:-14, 14:-14] == 1).all()


def test_empty_region_gives_an_empty_mask():
    assert not feathered_mask(np.zeros((64, 64)), feather=4).any()


@pytest.mark.parametrize(("region", "feather"), [(np.ones((8, 9)), 2), (np.ones((8, 8)), 0)])
def test_wrong_mask_arguments_are_refused(region, feather):
    with pytest.raises(ValueError, match="region|feather"):
        feathered_mask(region, feather)


@pytest.mark.parametrize("angle", [0, 40])
@pytest.mark.parametrize("grain", [False, True])
def test_outside_the_mask_nothing_changes(astronaut, angle, grain):
    turn = np.vstack([cv2.getRotationMatrix2D((225, 120), angle, 1.0)])
    matrix = ffhq_matrix(transform_points(FACE, turn), 256)
    mask = feathered_mask(disc(), feather=12)
    generated = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    before = astronaut.copy()
    result = paste_face(astronaut, generated, matrix, mask, np.random.default_rng(0) if grain else None)
    weight = warped_mask(mask, matrix, astronaut.shape)

    np.testing.assert_array_equal(astronaut, before)  # the input is left alone
    np.testing.assert_array_equal(result[weight == 0], astronaut[weight == 0])
    assert 0.02 < (weight == 1).mean() < 0.2
    assert (result[weight == 1] != astronaut[weight == 1]).mean() > 0.9


def test_nothing_of_the_original_remains_inside(astronaut):
    """Two photos that differ only within the region give the same result, grain included."""
    matrix = ffhq_matrix(FACE, 256)
    region = disc()
    mask = feathered_mask(region, feather=12)
    weight = warped_mask(mask, matrix, astronaut.shape)
    other = astronaut.copy()
    other[weight == 1] = 0
    generated = np.full((256, 256, 3), 150, np.uint8)
    a = paste_face(astronaut, generated, matrix, mask, np.random.default_rng(3))
    b = paste_face(other, generated, matrix, mask, np.random.default_rng(3))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [256, 512])
def test_pasting_the_crop_itself_changes_little(astronaut, size):
    matrix = ffhq_matrix(FACE, size)
    crop = crop_face(astronaut, matrix, size)
    result = paste_face(astronaut, crop.image, matrix, feathered_mask(disc(size), feather=size / 20))
    error = np.abs(result.astype(int) - astronaut)[warped_mask(disc(size), matrix, astronaut.shape) == 1]
    assert error.mean() < 2.5


def test_later_paste_shows_no_original_below_an_earlier_one(astronaut):
    mask = feathered_mask(disc(), feather=12)
    first, second = ffhq_matrix(FACE, 256), ffhq_matrix(FACE + (15, 5), 256)
    done = paste_face(astronaut, np.zeros((256, 256, 3), np.uint8), first, mask)
    both = paste_face(done, crop_face(done, second, 256).image, second, mask)
    covered = warped_mask(mask, first, astronaut.shape) == 1
    assert np.median(both[covered]) == 0 and both[covered].mean() < 10


def test_mask_of_a_neighbour_lies_where_both_matrices_say():
    mask = feathered_mask(disc(), feather=12)
    here, there = ffhq_matrix(FACE, 256), ffhq_matrix(FACE + (20, 0), 512)
    np.testing.assert_allclose(project_mask(mask, here, here, 256), mask, atol=1e-6)
    projected = project_mask(mask, here, there, 512)
    y, x = np.mgrid[:512, :512]
    centre = np.array([(x * projected).sum(), (y * projected).sum()]) / projected.sum()
    expected = transform_points(transform_points(np.array([127.5, 127.5]), invert(here)), there)
    np.testing.assert_allclose(centre, expected, atol=0.5)
    assert not project_mask(mask, here, ffhq_matrix(FACE + 5000, 256), 256).any()


def test_mask_beside_the_photo_is_refused(astronaut):
    matrix = ffhq_matrix(FACE + 5000, 256)
    with pytest.raises(ValueError, match="nothing"):
        paste_face(astronaut, np.zeros((256, 256, 3), np.uint8), matrix, feathered_mask(disc(), 9))


def test_sizes_must_agree(astronaut):
    with pytest.raises(ValueError, match="generated"):
        paste_face(astronaut, np.zeros((128, 128, 3), np.uint8), ffhq_matrix(FACE, 256), disc())


@pytest.fixture
def skin():
    """Skin with a little light and shade, and a mask in its middle."""
    y, x = np.mgrid[:256, :256]
    picture = np.array([200, 150, 120]) + (10 * np.sin(x / 60) + 10 * np.cos(y / 80))[..., None]
    return np.rint(picture).astype(np.uint8), feathered_mask(disc(), feather=12)


def test_a_tint_is_taken_off_the_whole_face(skin):
    original, mask = skin
    tinted = (original.astype(int) + (12, -8, 5)).astype(np.uint8)
    error = np.abs(match_colour(tinted, original, mask).astype(int) - original)
    assert error[mask > 0].max() <= 2


def test_a_tint_of_one_side_fades_towards_the_other(skin):
    original, mask = skin
    tint = np.linspace(-15, 15, 256)[None, :, None]
    tinted = np.rint(original + tint).astype(np.uint8)
    matched = match_colour(tinted, original, mask)
    before, after = (np.abs(picture.astype(float) - original)[mask >= 1].mean() for picture in (tinted, matched))
    assert after < before / 2


def test_hair_along_the_seam_tints_nothing(skin):
    original, mask = skin
    haired = original.copy()
    haired[:110] = (40, 30, 25)  # a fringe, which the new face does not have
    matched = match_colour(original, haired, mask)
    assert np.abs(matched.astype(int) - original).max() <= 2
    bald = match_colour(haired, original, mask)  # the other way round
    assert np.abs(bald.astype(int) - haired).max() <= 2


@pytest.mark.parametrize("sigma", [2.0, 6.0])
@pytest.mark.parametrize("blur", [0.0, 0.7, 1.2])
def test_grain_matches_the_photo(sigma, blur):
    """White noise, and noise that a camera has smoothed: alike at full and at half resolution."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(400, 400, 1)) + 0.2 * rng.normal(size=(400, 400, 3))  # mostly brightness
    if blur:
        noise = cv2.GaussianBlur(noise, None, blur)
    y, x = np.mgrid[:400, :400]
    clean = 90 + 0.1 * x + 0.08 * y
    photo = np.rint(clean[..., None] + sigma * noise / noise.std()).clip(0, 255).astype(np.uint8)
    mask = cv2.resize(feathered_mask(disc(), 12), (400, 400))
    patch = np.repeat(clean[..., None], 3, axis=2).astype(np.float32)

    result = match_grain(patch, photo, mask, np.random.default_rng(2))
    rest, added = photo - clean[..., None], result - patch
    assert abs(added.std() / rest.std() - 1) < 0.25
    halves = [cv2.resize(n, (200, 200), interpolation=cv2.INTER_AREA).std() for n in (added, rest)]
    assert abs(halves[0] / halves[1] - 1) < 0.25
    # Channels vary together as they do in the photo.
    correlation = [np.corrcoef(n[..., 0].ravel(), n[..., 1].ravel())[0, 1] for n in (added, rest)]
    assert abs(correlation[0] - correlation[1]) < 0.1


def test_pasted_face_is_as_grainy_as_a_large_photo():
    rng = np.random.default_rng(0)
    clean = np.full((1200, 1200, 3), 128.0)
    photo = np.rint(clean + rng.normal(0, 5, clean.shape)).clip(0, 255).astype(np.uint8)
    matrix = ffhq_matrix((FACE - FACE.mean(0)) * 6 + 600, 256)
    mask = feathered_mask(disc(), feather=12)
    smooth = np.full((256, 256, 3), 140, np.uint8)
    inside = np.s_[520:680, 520:680]
    assert (warped_mask(mask, matrix, photo.shape)[inside] == 1).all()

    without = paste_face(photo, smooth, matrix, mask)
    assert without[inside].std() < 0.5
    grainy = paste_face(photo, smooth, matrix, mask, np.random.default_rng(1))
    assert abs(grainy[inside].std() / 5 - 1) < 0.25
    again = paste_face(photo, smooth, matrix, mask, np.random.default_rng(1))
    np.testing.assert_array_equal(grainy, again)
