"""Types that the rooms share: where a face is in a photo, the aligned square cut out of it, what to do on failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

WHOLE_FACE = 0.75  # the privacy level from which on no part of the face is spared
MAX_ATTEMPTS = 12  # surrogates for a face; half of them pass the checks
OnFail = Literal["withhold", "blur"]  # what becomes of a photo with a face that does not pass the checks


@dataclass(frozen=True)
class FaceBox:
    """A face found in a photo (or given by the user).

    Args:
        box (`tuple[float, float, float, float]`):
            Left, top, right and bottom in photo pixels.
        score (`float`):
            The detector's confidence in [0, 1]; 1.0 for a box given by the user.
        points5 (`np.ndarray`, *optional*):
            float32 [5, 2], (x, y) in photo pixels: image-left eye centre, image-right eye centre, nose tip, image-left
            and image-right corner of the mouth.
        detector (`str`):
            Name of the detector, or `"user"`.
    """

    box: tuple[float, float, float, float]
    score: float
    points5: np.ndarray | None
    detector: str

    @property
    def width(self) -> float:
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]

    @property
    def area(self) -> float:
        return max(self.width, 0.0) * max(self.height, 0.0)


@dataclass(frozen=True)
class FaceCrop:
    """The aligned square around a face.

    Args:
        image (`np.ndarray`):
            uint8 [S, S, 3], RGB.
        matrix (`np.ndarray`):
            float64 [2, 3], the similarity that maps photo (x, y) to crop (x, y); pixel centres lie at integers.
    """

    image: np.ndarray
    matrix: np.ndarray

    @property
    def size(self) -> int:
        return int(self.image.shape[0])
