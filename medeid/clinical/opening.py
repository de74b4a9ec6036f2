"""A photo's file, whatever its format: opened as the frames that the pipeline takes, and written back from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ..photos import PhotoInput
from .deep_images import DeepImage, read_photo, write_deep_image
from .dicom import DicomFile, is_dicom, write_dicom
from .dicom_pseudonyms import Pseudonyms
from .images import lossless_format, write_image


class OpenPhoto(Protocol):
    """One source, open."""

    @property
    def frames(self) -> Sequence[PhotoInput]:
        """What is to be de-identified."""

    @property
    def suffix(self) -> str:
        """Of the result's file."""

    def write(self, frames: Sequence[PhotoInput], target: Path, pseudonym: str | None) -> str:
        """Writes the results, and returns the file's SHA-256."""


@dataclass
class OpenImage:
    """A still picture."""

    image: Image.Image

    @property
    def frames(self) -> Sequence[PhotoInput]:
        return [self.image]

    @property
    def suffix(self) -> str:
        return lossless_format(self.image)[1]

    def write(self, frames: Sequence[PhotoInput], target: Path, pseudonym: str | None) -> str:
        (image,) = frames
        assert isinstance(image, Image.Image)  # what came in as one comes out as one
        return write_image(image, target, lossless_format(self.image)[0])


@dataclass
class OpenDeepImage:
    """A still picture of 16 bits of colour. The pipeline sees no opacity; it stays as it was."""

    image: DeepImage
    suffix: str = ".png"

    @property
    def frames(self) -> Sequence[PhotoInput]:
        return [self.image.pixels[..., :3]]

    def write(self, frames: Sequence[PhotoInput], target: Path, pseudonym: str | None) -> str:
        pixels = np.concatenate([*frames, self.image.pixels[..., 3:]], axis=2)
        return write_deep_image(replace(self.image, pixels=pixels), target)


@dataclass
class OpenDicom:
    """A DICOM file of one frame or several."""

    source: DicomFile
    pseudonyms: Pseudonyms
    suffix: str = ".dcm"

    @property
    def frames(self) -> Sequence[PhotoInput]:
        return self.source.frames

    def write(self, frames: Sequence[PhotoInput], target: Path, pseudonym: str | None) -> str:
        return write_dicom(self.source.deidentified(frames, self.pseudonyms, pseudonym), target)  # type: ignore[arg-type]


def open_photo(path: Path, pseudonyms: Pseudonyms, burned_in_checked: bool) -> OpenPhoto:
    """Opens a photo by its content.

    Args:
        path (`Path`):
            The photo; it is only read.
        pseudonyms (`Pseudonyms`):
            For the headers of DICOM.
        burned_in_checked (`bool`):
            See [`DicomFile.read`].

    Raises:
        ImageFileError: it cannot be used.
    """
    if is_dicom(path):
        return OpenDicom(DicomFile.read(path, burned_in_checked), pseudonyms)
    image = read_photo(path)
    return OpenDeepImage(image) if isinstance(image, DeepImage) else OpenImage(image)
