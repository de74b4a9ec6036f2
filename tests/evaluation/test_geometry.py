from pathlib import Path

import numpy as np
import pytest
import torch

from medeid.data.faces import FaceFolder
from medeid.data.simulate import simulate
from medeid.evaluation.geometry import SHAPE_SIGNS, asymmetries, draw_shape_sign, slopes
from medeid.manifestations.taxonomy import Finding

FACES = Path(__file__).parents[2] / "examples" / "faces"


@pytest.fixture(scope="module")
def face() -> tuple[np.ndarray, np.ndarray]:
    folder = FaceFolder(FACES, "train")
    return folder.image(8), folder.landmarks(8)


@pytest.mark.parametrize(
    ("name", "side", "index", "sign"),
    [
        ("ptosis", "left", 0, -1),
        ("ptosis", "right", 0, 1),
        ("esotropia", "left", 1, -1),
        ("facial_palsy", "left", 2, 1),
    ],
)
def test_signs_on_one_side_are_asymmetric(face, name, side, index, sign):
    after = simulate(*face, [Finding(name, side, 0.8)], np.random.default_rng(0)).landmarks
    before, after = (asymmetries(torch.from_numpy(points)[None])[0] for points in (face[1], after))
    assert sign * (after - before)[index] > 0.01


def test_slope_is_the_share_of_the_asymmetry_that_is_seen():
    true = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert slopes(true * torch.tensor([1.0, 0.5, 0.0]) + 2.0, true) == pytest.approx(
        {"aperture": 1.0, "gaze": 0.5, "mouth": 0.0}, abs=1e-5
    )


def test_drawn_signs_change_the_shape():
    drawn = {draw_shape_sign(np.random.default_rng(seed)).manifestation for seed in range(200)}
    assert drawn == set(SHAPE_SIGNS)
