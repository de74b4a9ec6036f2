"""Pictures as files that hold them exactly."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from ..clinical.images import read_image
from ..files import write_file


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes a picture uint8 [H, W, 3] as PNG; none is ever seen half written."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    write_file(path, buffer.getvalue())


def read_picture(path: Path) -> np.ndarray:
    """A picture uint8 [H, W, 3], RGB."""
    return np.array(read_image(path).convert("RGB"))
