"""Privacy levels: nested masks from all but the eyes to the whole head."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from medeid.data.faces import FaceFolder
from medeid.faces.mesh import head_mask, region_mask
from medeid.faces.privacy import fitted_mask, identity_mask, spared_eyes

LANDMARKS = FaceFolder(Path(__file__).parents[2] / "examples" / "faces", "train").landmarks(0)


def test_a_higher_level_covers_all_that_a_lower_one_does():
    masks = [identity_mask(LANDMARKS, level, 256) for level in np.linspace(0.05, 1.0, 20)]
    assert all((more >= less - 1e-6).all() and more.sum() > less.sum() for less, more in pairwise(masks))


def test_the_eyes_are_spared_below_the_whole_face():
    eyes = region_mask(LANDMARKS, "left_eye", 256) + region_mask(LANDMARKS, "right_eye", 256) > 0
    assert identity_mask(LANDMARKS, 0.25, 256)[eyes].max() == 0.0
    assert identity_mask(LANDMARKS, 0.75, 256)[eyes].min() == 1.0
    assert spared_eyes(LANDMARKS, 0.25, 256)[eyes].all() and not spared_eyes(LANDMARKS, 0.75, 256).any()


def test_the_face_is_covered_at_three_quarters_and_the_head_at_one():
    face = region_mask(LANDMARKS, "face", 256) > 0
    assert np.array_equal(head_mask(LANDMARKS, 0.0, 256) > 0, face)
    assert identity_mask(LANDMARKS, 0.75, 256)[face].min() > 0.99
    assert head_mask(LANDMARKS, 1.0, 256).sum() > 1.5 * face.sum()


def test_a_level_means_the_same_at_any_size():
    small, large = (identity_mask(LANDMARKS, 0.4, size) for size in (256, 512))
    assert np.abs(small - large.reshape(256, 2, 256, 2).mean((1, 3))).mean() < 0.01


@pytest.mark.parametrize("level", [0.0, -0.1, 1.01])
def test_levels_out_of_range_are_an_error(level):
    with pytest.raises(ValueError, match="`privacy`"):
        identity_mask(LANDMARKS, level, 256)


def test_a_fitted_mask_covers_both_faces_and_no_more_beside_the_jaw(light_face):
    landmarks = light_face[1]
    mask = identity_mask(landmarks, 0.75, 256)
    centre = landmarks.mean(0)
    broader = centre + (landmarks - centre) * (1.08, 1.0, 1.0)
    fitted = fitted_mask(mask, landmarks, broader.astype(np.float32))
    assert (fitted <= mask).all()
    oval = region_mask(landmarks, "oval") > 0
    both = (oval | (region_mask(broader, "oval") > 0)) & (mask == 1)
    assert (fitted[both] > 0.99).all()
    brows = int(landmarks[:, 1].min() + 20)
    np.testing.assert_array_equal(fitted[:brows], mask[:brows])
    assert (fitted > 0)[150:].sum() < 0.95 * (mask > 0)[150:].sum()
