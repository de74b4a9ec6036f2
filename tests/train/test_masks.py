import numpy as np
import pytest
from masks import training_mask

from medeid.faces.mesh import region_mask
from medeid.faces.shape import ShapePrior
from medeid.pipeline import PACKAGED_WEIGHTS


@pytest.fixture(scope="module")
def landmarks():
    prior = ShapePrior.from_pretrained(PACKAGED_WEIGHTS / "medeid-tiny" / "shape_prior")
    return prior.mean.float().view(478, 3).numpy()


def test_masks_are_binary_varied_and_repeatable(landmarks):
    masks = np.stack([training_mask(landmarks, np.random.default_rng(seed)) for seed in range(100)])
    assert set(np.unique(masks)) == {0.0, 1.0}
    assert np.array_equal(masks[7], training_mask(landmarks, np.random.default_rng(7)))
    shares = masks.mean(axis=(1, 2))
    assert shares.min() < 0.1 and (shares == 1.0).any()


def test_most_masks_cover_the_whole_face(landmarks):
    face = region_mask(landmarks, "face") > 0
    covered = [training_mask(landmarks, np.random.default_rng(seed))[face].all() for seed in range(200)]
    assert 0.6 < np.mean(covered) < 0.9
