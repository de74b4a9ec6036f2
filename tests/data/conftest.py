"""Faces of nobody, drawn by medeid, that signs are painted on."""

from pathlib import Path

import numpy as np
import pytest

from medeid.data.faces import FaceFolder

FACES = Path(__file__).parents[2] / "examples" / "faces"


def _face(index: int) -> tuple[np.ndarray, np.ndarray]:
    folder = FaceFolder(FACES, "train")
    return folder.image(index), folder.landmarks(index)


@pytest.fixture(scope="session")
def faces_dir() -> Path:
    """A folder of twelve faces in imagefolder style, with landmarks and two splits."""
    return FACES


@pytest.fixture(scope="session")
def dark_face() -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 [256, 256, 3] and landmarks float32 [478, 3] of a face with brown skin."""
    return _face(0)


@pytest.fixture(scope="session")
def light_face() -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 [256, 256, 3] and landmarks float32 [478, 3] of a face with light skin."""
    return _face(8)
