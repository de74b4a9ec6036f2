import cv2
import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.stats import norm
from skimage.color import lab2rgb, rgb2lab

from medeid.evaluation.quality import (
    frechet_distance,
    kernel_distance,
    outside_change,
    picture_features,
    seam_visibility,
    surrogate_diversity,
)


def _normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_features_are_those_before_the_bottleneck(encoder):
    crops = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    features = picture_features(encoder, crops, batch_size=2)
    with torch.no_grad():
        expected = encoder(torch.from_numpy(crops).permute(0, 3, 1, 2) / 255.0).features
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-4)


def test_kernel_distance_is_that_of_all_pairs():
    first, second = _normal(7, 3), _normal(5, 3, seed=1) + 0.5

    def mean(rows: torch.Tensor, others: torch.Tensor, same: bool) -> float:
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(others)) if not (same and i == j)]
        return float(np.mean([(float(rows[i] @ others[j]) / 3 + 1) ** 3 for i, j in pairs]))

    expected = mean(first, first, True) + mean(second, second, True) - 2 * mean(first, second, False)
    assert kernel_distance(first, second) == pytest.approx(expected, rel=1e-5)


def test_kernel_distance_of_a_shift():
    # The kernel sees the first three moments, weighted 3, 3 and 1: (0, 1, 0) against (1, 2, 4).
    values = torch.from_numpy(norm.ppf((np.arange(2000) + 0.5) / 2000))[:, None]
    assert kernel_distance(values, values + 1.0) == pytest.approx(3 * 1 + 3 * 1 + 16, rel=0.02)


def test_kernel_distance_of_one_kind_is_0_in_the_mean():
    draws = [_normal(400, 8, seed=seed) for seed in range(50)]
    distances = [kernel_distance(features[:200], features[200:]) for features in draws]
    assert min(distances) < 0.0 < max(distances) and abs(np.mean(distances)) < 0.015
    assert np.mean([kernel_distance(features[:200], features[200:] + 0.3) for features in draws]) > 0.2


def test_kernel_distance_needs_pairs():
    with pytest.raises(ValueError, match="at least two rows"):
        kernel_distance(_normal(4, 4), _normal(1, 4))


def _standard(count: int, dimensions: int, seed: int) -> torch.Tensor:
    """Samples whose own mean is 0 and whose own covariance is the unit matrix."""
    samples = _normal(count, dimensions, seed=seed).double()
    samples = samples - samples.mean(0)
    return samples @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(samples.T))).T


def test_frechet_distance_of_normal_distributions():
    first, second = _standard(50, 4, 0), _standard(60, 4, 1)
    shift, scale = torch.tensor([1.0, 0.0, -2.0, 0.5]), torch.tensor([2.0, 1.0, 0.5, 3.0])
    expected = shift.square().sum() + (scale - 1.0).square().sum()
    assert frechet_distance(first, second * scale + shift) == pytest.approx(expected.item())
    assert frechet_distance(first, first) == pytest.approx(0.0, abs=1e-9)

    one, other = _normal(4, 4, seed=2).double(), _normal(4, 4, seed=3).double()
    covariances = (one @ one.T).numpy(), (other @ other.T).numpy()
    expected = np.trace(covariances[0] + covariances[1] - 2 * sqrtm(covariances[0] @ covariances[1]).real)
    assert frechet_distance(first @ one.T, second @ other.T) == pytest.approx(expected)


def test_frechet_distance_needs_more_pictures_than_features():
    with pytest.raises(ValueError, match="`kernel_distance`"):
        frechet_distance(_normal(4, 4), _normal(9, 4))


@pytest.fixture(scope="module")
def square() -> np.ndarray:
    mask = np.zeros((64, 64), bool)
    mask[20:44, 20:44] = True
    return mask


def test_a_hard_border_is_a_seam(light_face, square):
    photo = light_face[0][80:144, 80:144]
    weight = square.astype(np.float32)
    soft = cv2.GaussianBlur(weight, (0, 0), 6)
    pasted, blended = (np.rint((photo + 40 * each[..., None]).clip(0, 255)).astype(np.uint8) for each in (weight, soft))
    untouched, hard, feathered = seam_visibility(
        np.stack([photo, pasted, blended]), np.stack(3 * [photo]), [square] * 3
    )
    assert untouched == 0.0
    assert hard > 1.0 and hard > 4 * abs(feathered)


def test_a_seam_is_a_step_in_multiples_of_what_can_be_seen():
    mask = np.zeros((32, 32), bool)
    mask[:, :16] = True
    source = np.full((32, 32, 3), 120, np.uint8)
    result = source.copy()
    result[mask] = 140
    step = np.linalg.norm(rgb2lab(result[0, 0]) - rgb2lab(source[0, 0]))
    seams = seam_visibility(np.stack([result, source]), np.stack([source, result]), np.stack([mask, mask]))
    np.testing.assert_allclose(seams, [step / 2 / (2.3 / 2), -step / 2 / (2.3 / 2)], rtol=1e-6)


def test_texture_hides_a_seam():
    mask = np.zeros((32, 32), bool)
    mask[:, :16] = True
    lab = np.full((32, 32, 3), (60.0, 0.0, 0.0))
    lab[:, :, 0] += 8 * np.sin(np.arange(32))
    seams = []
    for source in (np.full((32, 32, 3), (60.0, 0.0, 0.0)), lab):
        pictures = [np.rint(lab2rgb(each) * 255).astype(np.uint8) for each in (source + 10 * mask[..., None], source)]
        seams.append(seam_visibility(*(each[None] for each in pictures), mask[None])[0])
    assert seams[0] > 2 * abs(seams[1])


def test_a_mask_without_a_border_has_no_seam():
    masks = np.stack([np.zeros((16, 16), bool), np.ones((16, 16), bool)])
    pictures = np.zeros((2, 16, 16, 3), np.uint8)
    assert np.isnan(seam_visibility(pictures, pictures, masks)).all()


def test_one_pixel_outside_is_counted(light_face, square):
    photo = light_face[0][80:144, 80:144]
    inside = photo.copy()
    inside[square] = 255 - inside[square]
    assert outside_change(inside[None], photo[None], square[None]) == {
        "pixels_changed_outside": 0,
        "ssim_outside": pytest.approx(1.0),
    }
    beyond = inside.copy()
    beyond[5, 5, 1] ^= 128
    change = outside_change(np.stack([beyond, inside]), np.stack([photo, photo]), np.stack([square, square]))
    assert change["pixels_changed_outside"] == 1
    assert 0.9 < change["ssim_outside"] < 1.0


def test_nothing_is_outside_of_a_whole_mask():
    pictures = np.zeros((1, 16, 16, 3), np.uint8)
    change = outside_change(pictures + 1, pictures, np.ones((1, 16, 16), bool))
    assert change["pixels_changed_outside"] == 0 and np.isnan(change["ssim_outside"])


def test_surrogates_as_different_as_people():
    people = torch.eye(8)
    diversity = surrogate_diversity(torch.stack([people, people.roll(1, 0), people.roll(3, 0)], 1), people)
    expected = dict.fromkeys(("key_distance", "original_distance", "diversity", "effective_share"), 1.0)
    assert diversity == pytest.approx(expected | dict.fromkeys(("effective_surrogates", "effective_originals"), 8.0))


def test_surrogates_that_are_a_few_faces_are_counted():
    people = torch.eye(8)
    few = people[torch.arange(8) % 4]
    diversity = surrogate_diversity(torch.stack([few, few], 1), people)
    assert diversity["diversity"] == pytest.approx(0.0, abs=1e-9)
    assert diversity["effective_surrogates"] == pytest.approx(4.0)
    assert diversity["effective_share"] == pytest.approx(0.5)


@pytest.mark.parametrize("everybody", [False, True])
def test_collapsed_surrogates_are_one_face(everybody):
    people = _normal(60, 32) + 1.0
    collapsed = people.mean(0) if everybody else people[0]
    diversity = surrogate_diversity(collapsed + 0.01 * _normal(60, 3, 32, seed=1), people)
    assert diversity["diversity"] < 0.01
    assert diversity["effective_surrogates"] == pytest.approx(1.0, abs=0.02)
    assert diversity["effective_originals"] > 10.0
    with pytest.raises(ValueError, match="two keys"):
        surrogate_diversity(people[:, None], people)
