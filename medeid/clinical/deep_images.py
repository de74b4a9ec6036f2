"""Pictures of 16 bits of colour, for which Pillow has no mode: OpenCV reads and writes them with all their bits."""

from __future__ import annotations

import hashlib
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import putchunk
from PIL.TiffImagePlugin import BITSPERSAMPLE, PLANAR_CONFIGURATION, TiffImageFile

from ..files import write_file
from .colour_profile import colours_only
from .images import ImageFileError, open_image, upright

_DEEP = ("RGB;16", "RGBA;16", "LA;16")  # how Pillow names stored values of 16 bits, of which it reads 8
_PLANES = 2  # of a TIFF's planar configuration
_ORIENTATION = 0x0112  # of EXIF
_PNG_HEADER = 33  # bytes, after which a colour profile may come


@dataclass(frozen=True, repr=False)
class DeepImage:
    """A colour picture of 16 bits, for which Pillow has no mode.

    Attributes:
        pixels (`np.ndarray`): uint16 [H, W, 3], or [H, W, 4] with opacity; upright.
        icc_profile (`bytes`): Its colour profile; empty if it has none.
    """

    pixels: np.ndarray
    icc_profile: bytes = b""


def read_photo(path: str | Path) -> Image.Image | DeepImage:
    """Reads a still image with all of its bits: as [`read_image`], but for PNG and TIFF of 16 bits of colour.

    Args:
        path (`str` or `Path`):
            As for [`read_image`].

    Returns:
        `PIL.Image.Image` or `DeepImage`: the latter for 16 bits of red, green and blue.

    Raises:
        ImageFileError: as [`read_image`], or 16 bits are stored in a way that cannot be read.
    """
    return open_image(Path(path), lambda image: _with_all_bits(image, Path(path)))


def _with_all_bits(image: Image.Image, path: Path) -> Image.Image | DeepImage:
    stored, turn = _stored_mode(image), _orientation(image)
    seen = upright(image)
    if not stored.startswith(_DEEP):
        return seen
    # OpenCV keeps the bits. It turns a TIFF as its tag says, and no PNG.
    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is not None and pixels.ndim == 3 and pixels.dtype == np.uint16:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
        pixels = _turned(pixels, turn) if image.format == "PNG" else pixels
        if np.array_equal(pixels[..., :3] >> 8, np.asarray(seen)[..., :3]):
            return DeepImage(np.ascontiguousarray(pixels), seen.info.get("icc_profile") or b"")
    raise ImageFileError("its 16 bits of colour are stored in a way that is not supported; save it as PNG")


def _stored_mode(image: Image.Image) -> str:
    """How Pillow is to read the values of an image that is not loaded yet: `"RGB;16B"`."""
    if image.format not in ("PNG", "TIFF") or not isinstance(image, ImageFile) or not image.tile:
        return ""
    if isinstance(image, TiffImageFile):
        tags = image.tag_v2
        if tags.get(PLANAR_CONFIGURATION) == _PLANES and 16 in tags.get(BITSPERSAMPLE, ())[1:]:
            raise ImageFileError("its 16 bits of colour are stored in planes, which is not supported; save it as PNG")
    arguments = image.tile[0].args
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # whatever is wrong with it
        return 1


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels [H, W, C] turned as Pillow's `exif_transpose` does."""
    lying = pixels.swapaxes(0, 1)
    turns = {
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: lying,
        6: lying[:, ::-1],
        7: lying[::-1, ::-1],
        8: lying[::-1],
    }
    return turns.get(orientation, pixels)


def write_deep_image(image: DeepImage, path: str | Path) -> str:
    """Writes a picture of 16 bits as PNG, see [`write_image`].

    Args:
        image (`DeepImage`):
            The image.
        path (`str` or `Path`):
            Where to.

    Returns:
        `str`: SHA-256 of the file, hexadecimal.

    Raises:
        OSError: the folder cannot be written to.
    """
    swap = cv2.COLOR_RGB2BGR if image.pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    png = cv2.imencode(".png", cv2.cvtColor(image.pixels, swap))[1].tobytes()
    chunk = io.BytesIO()
    if profile := colours_only(image.icc_profile):
        putchunk(chunk, b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))
    data = png[:_PNG_HEADER] + chunk.getvalue() + png[_PNG_HEADER:]
    write_file(Path(path), data)
    return hashlib.sha256(data).hexdigest()
