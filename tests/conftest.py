"""What the tests share: a real photo, and the embedded model, loaded once."""

import numpy as np
import pytest
from PIL import Image
from skimage import data

from medeid import MedicalDeIDPipeline


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """uint8 [512, 512, 3]: a photo with one face, NASA, public domain."""
    photo = data.astronaut()
    photo.setflags(write=False)
    return photo


@pytest.fixture(scope="session")
def portrait(astronaut) -> Image.Image:
    return Image.fromarray(astronaut)


@pytest.fixture(scope="session")
def pipeline() -> MedicalDeIDPipeline:
    loaded = MedicalDeIDPipeline.from_pretrained("medeid-tiny")
    loaded.set_progress_bar_config(disable=True)
    return loaded
