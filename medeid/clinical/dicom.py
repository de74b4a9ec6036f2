"""DICOM photos: read with one clear error for whatever is wrong, and written with pixels and header de-identified.

[`DicomFile.read`] gives the frames in a form that the pipeline takes; [`DicomFile.deidentified`] puts what the
pipeline made of them back, with a header that is built anew (see [`medeid.clinical.dicom_header`]); [`write_dicom`]
writes it. Reading needs the extra `dicom`; [`is_dicom`] does not.
"""

from __future__ import annotations

import hashlib
import io
import logging
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..files import write_file
from .dicom_pseudonyms import Pseudonyms
from .images import MAX_PIXELS, ImageFileError

if TYPE_CHECKING:
    from pydicom import Dataset

Frame = Image.Image | np.ndarray

_DAMAGED = "it is damaged or incomplete; copy it again from where it came"
_MAX_BYTES = 6 * MAX_PIXELS + 2**24  # all pixels in RGB of 16 bits, and a header
_PREAMBLE = 128
_SILENCE = threading.Lock()  # warnings and levels of logging belong to the process


def is_dicom(path: str | Path) -> bool:
    """Whether a file says that it is DICOM: a preamble of 128 bytes, then DICM."""
    if not Path(path).is_file():
        return False
    try:
        with open(path, "rb") as file:
            return file.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"
    except OSError:
        return False


@dataclass(frozen=True, repr=False)
class DicomFile:
    """A DICOM image, completely decoded.

    Attributes:
        header (`Dataset`): The source's header, which identifies the patient, without the pixel data.
        pixels (`np.ndarray`): Stored values, uint8 or uint16 [N, H, W] or [N, H, W, 3].
        photometric (`str`): `"MONOCHROME1"`, `"MONOCHROME2"` or `"RGB"`; YBR and palettes are RGB by now.
        stored (`int`): Bits used of each value.
        burned_in_checked (`bool`): See [`read`].
    """

    header: Dataset
    pixels: np.ndarray
    photometric: str
    stored: int
    burned_in_checked: bool

    @classmethod
    def read(cls, path: str | Path, burned_in_checked: bool = False) -> DicomFile:
        """Reads and decodes one file.

        Text that is burned into the pixels (a name, a date) would stay, as only faces are replaced. So a file is
        refused that says it holds such text or that has overlays; and a file that does not say it holds none is
        refused unless somebody has looked.

        Args:
            path (`str` or `Path`):
                A VL Photographic, Ophthalmic Photography or Secondary Capture image, with one frame or several.
            burned_in_checked (`bool`, *optional*, defaults to `False`):
                That somebody has looked at the pixels, and nothing in them but the face identifies anybody.

        Raises:
            ImageFileError: the file cannot be used, or pydicom is missing.
        """
        data = _content(Path(path))
        try:
            from pydicom import dcmread
            from pydicom.filereader import read_file_meta_info

            from .dicom_header import check_header
            from .dicom_pixels import check_pixels, check_transfer_syntax, decode
        except ImportError as error:
            raise ImageFileError("reading DICOM needs more packages; `pip install medeid[dicom]`") from error
        # pydicom and its plugins raise whatever they run into; their messages quote header values, so no cause is kept.
        try:
            with _silence():
                check_transfer_syntax(read_file_meta_info(path))
                dataset = dcmread(io.BytesIO(data))
                check_header(dataset, burned_in_checked)
                check_pixels(dataset)
                pixels, photometric, stored = decode(dataset)
        except ImageFileError:
            raise
        except MemoryError:
            raise ImageFileError("there is not memory enough to decode it; split its frames") from None
        except Exception:
            raise ImageFileError(_DAMAGED) from None
        del dataset.PixelData
        return cls(dataset, pixels, photometric, stored, burned_in_checked)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.pixels.shape))
        return f"DicomFile({shape} {self.photometric}, {self.stored} of {8 * self.pixels.itemsize} bits)"

    @property
    def frames(self) -> list[Frame]:
        """The frames as the pipeline takes them, see [`medeid.photos.Photo.open`].

        8 bits are PIL images of mode L or RGB, 16 bits of grey of mode I;16, 16 bits of colour float32 [H, W, 3] in
        [0, 1]. Of MONOCHROME1 the pipeline sees the positive, and values of fewer bits are scaled up; windows of the
        header (VOI) are not applied.
        """
        return [self._shown(values) for values in self.pixels]

    def deidentified(self, frames: Iterable[Frame], pseudonyms: Pseudonyms, pseudonym: str | None = None) -> Dataset:
        """A new data set, uncompressed, with the given frames and a header that identifies nobody.

        Args:
            frames (iterable of `PIL.Image.Image` or `np.ndarray`):
                What the pipeline made of [`frames`], in their order and form.
            pseudonyms (`Pseudonyms`):
                Where UIDs, dates and codes come from: the same object, or one with the same key, for all files.
            pseudonym (`str`, *optional*):
                What the patient is called in the study: the new Patient ID and Patient's Name. Without one, a code in
                place of the source's Patient ID.

        Raises:
            ImageFileError: the header is damaged or lacks what a DICOM image must have.
            ValueError: the frames are not the source's, or the pseudonym is none.
        """
        from .dicom_header import deidentified_header, is_identifier
        from .dicom_pixels import encode

        if pseudonym is not None and not is_identifier(pseudonym):
            raise ValueError("`pseudonym` must have 1 to 64 characters, none of them \\, ^, = or a control character.")
        pixels = np.empty_like(self.pixels)
        for index, frame in enumerate(_as_many(frames, len(pixels))):
            pixels[index] = self._stored(frame)
        try:
            with _silence():
                dataset = deidentified_header(self.header, self.burned_in_checked, pseudonyms, pseudonym)
                encode(dataset, pixels, self.photometric, self.stored, "NumberOfFrames" in self.header)
        except ImageFileError:
            raise
        except Exception:
            raise ImageFileError(_DAMAGED) from None
        return dataset

    def _shown(self, values: np.ndarray) -> Frame:
        most = (1 << self.stored) - 1
        if self.photometric == "MONOCHROME1":
            values = most - values
        if values.dtype == np.uint16 and values.ndim == 3:
            return (values / most).astype(np.float32)
        return Image.fromarray(values << (8 * values.itemsize - self.stored))

    def _stored(self, frame: Frame) -> np.ndarray:
        """What [`_shown`] was made of."""
        shown = np.asarray(frame)
        source, most = self.pixels, (1 << self.stored) - 1
        colour16 = source.dtype == np.uint16 and source.ndim == 4
        if shown.shape != source.shape[1:] or shown.dtype != (np.float32 if colour16 else source.dtype):
            raise ValueError("`frames` must have the shape and type of `DicomFile.frames`, in the same order.")
        if colour16:
            return np.rint(shown * most).astype(np.uint16)
        values = shown >> (8 * source.itemsize - self.stored)
        return most - values if self.photometric == "MONOCHROME1" else values


def write_dicom(dataset: Dataset, path: str | Path) -> str:
    """Writes a data set under a temporary name and renames it, so that no half-written file is ever seen.

    Args:
        dataset (`Dataset`):
            From [`DicomFile.deidentified`].
        path (`str` or `Path`):
            Where to.

    Returns:
        `str`: SHA-256 of the file, hexadecimal.

    Raises:
        OSError: the folder cannot be written to.
    """
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue()
    write_file(Path(path), data)
    return hashlib.sha256(data).hexdigest()


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise ImageFileError("there is no such file; check the path")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ImageFileError(f"it is larger than {_MAX_BYTES / 1e6:.0f} MB; split its frames")
        data = path.read_bytes()
    except PermissionError:
        raise ImageFileError("it may not be read; give yourself the right to read it") from None
    except OSError:
        raise ImageFileError(_DAMAGED) from None
    if not data:
        raise ImageFileError("the file is empty; copy it again from where it came")
    if data[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        raise ImageFileError("it is no DICOM file; export it as DICOM (PS3.10), with preamble")
    return data


def _as_many(frames: Iterable[Frame], number: int) -> list[Frame]:
    listed = list(frames)
    if len(listed) != number:
        raise ValueError(f"`frames` has {len(listed)} frames, but the source {number}. Give them all, in their order.")
    return listed


@contextmanager
def _silence() -> Iterator[None]:
    """No warnings and no log from pydicom: they quote header values."""
    logger = logging.getLogger("pydicom")
    with _SILENCE, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)
