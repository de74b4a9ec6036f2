"""Features of a CLIP model that knows three colours."""

import numpy as np
import pytest
import torch

from medeid.evaluation.clip_features import ClipFeatures
from medeid.evaluation.quality import kernel_distance


def coloured(channel: int, count: int) -> np.ndarray:
    pictures = np.random.default_rng(channel).integers(0, 30, (count, 64, 64, 3), np.uint8)
    pictures[..., channel] += 220
    return pictures


def test_pictures_are_near_those_that_show_the_same(clip_folder):
    features = ClipFeatures(clip_folder)
    red, again, blue = (features(coloured(channel, 17)) for channel in (0, 0, 2))
    assert red.shape == (17, 16) and red.dtype == torch.float32
    assert torch.equal(red, again)
    within = kernel_distance(red[:8], red[8:])
    assert kernel_distance(red, blue) > 10 * abs(within)


def test_a_folder_without_a_model_is_told(tmp_path):
    with pytest.raises(ValueError, match="has no open_clip_config.json"):
        ClipFeatures(tmp_path)
