"""Image files: read with one clear error for whatever is wrong, written without metadata and never by halves."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageOps, UnidentifiedImageError

from ..files import write_file
from .colour_profile import colours_only

# Photographic formats only: others of Pillow's start programs (EPS) or are no photos at all.
FORMATS = ("JPEG", "MPO", "PNG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000", "PPM", "AVIF", "HEIF")
MAX_PIXELS = 178_956_970  # Pillow's own limit, beyond which it takes a file for a decompression bomb

_Taken = TypeVar("_Taken")

try:
    from pillow_heif import register_heif_opener
except ImportError:
    pass
else:
    register_heif_opener(thumbnails=False)
Image.init()  # or only the commonest formats are known, and the others no sooner than one of them is met


class ImageFileError(ValueError):
    """A file that cannot be used. The message says why and what to do, without the file's name."""


def picture_suffixes() -> set[str]:
    """Suffixes of the formats that can be read, in lower case."""
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in set(FORMATS) & set(Image.OPEN)}


def read_image(path: str | Path) -> Image.Image:
    """Reads a still image and decodes it completely.

    Args:
        path (`str` or `Path`):
            JPEG, PNG, TIFF, WebP, BMP, GIF, JPEG 2000, PPM, AVIF, or, where pillow-heif is installed, HEIC. Of the
            pictures in a JPEG of a phone (MPO: depth, motion) the first.

    Returns:
        `PIL.Image.Image`: in its own mode, turned as its EXIF says, without metadata but a colour profile.

    Raises:
        ImageFileError: the file is missing, empty, no image, damaged, too large, or an animation.
    """
    return open_image(Path(path), upright)


def open_image(path: Path, take: Callable[[Image.Image], _Taken]) -> _Taken:
    """Opens a file, and gives what is taken of the still image in it, or one clear error.

    Args:
        path (`Path`):
            As for [`read_image`].
        take (`Callable`):
            Decodes the image, and may raise what it likes.

    Raises:
        ImageFileError: as [`read_image`].
    """
    if not path.is_file():
        raise ImageFileError("there is no such file; check the path")
    if path.stat().st_size == 0:
        raise ImageFileError("the file is empty; copy it again from where it came")
    try:
        with warnings.catch_warnings():
            # Pillow warns of half of its limit, though a photo of 100 megapixels is no attack, and of damaged metadata.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
                frames = getattr(image, "n_frames", 1)
                if frames > 1 and image.format != "MPO":
                    raise ImageFileError(
                        f"it holds {frames} frames, but only stills can be used; save the frames apart"
                    )
                return take(image)
    except UnidentifiedImageError as error:
        raise ImageFileError("it is no image, or of an unknown format; convert it to PNG or JPEG") from error
    except Image.DecompressionBombError as error:
        raise ImageFileError(f"it has more than {MAX_PIXELS / 1e6:.0f} megapixels; scale it down") from error
    except PermissionError as error:
        raise ImageFileError("it may not be read; give yourself the right to read it") from error
    except ImageFileError:
        raise
    except MemoryError as error:
        raise ImageFileError("there is not memory enough to decode it; scale it down") from error
    except Exception as error:  # decoders raise whatever they run into
        raise ImageFileError("it is damaged or incomplete; copy it again from where it came") from error


def upright(image: Image.Image) -> Image.Image:
    """A decoded copy without metadata, turned as EXIF says; EXIF that cannot be read says nothing."""
    image.load()
    try:
        turned = ImageOps.exif_transpose(image)
    except Exception:  # whatever is wrong with it
        turned = image.copy()
    turned.info = {name: turned.info[name] for name in ("icc_profile", "transparency") if name in turned.info}
    return turned


def lossless_format(image: Image.Image) -> tuple[str, str]:
    """Pillow's name and the suffix of a lossless format that can hold this image: PNG, or TIFF where PNG cannot."""
    return ("TIFF", ".tif") if image.mode in ("CMYK", "YCbCr") else ("PNG", ".png")


def write_image(image: Image.Image, path: str | Path, image_format: str) -> str:
    """Writes an image under a temporary name and renames it, so that no half-written file is ever seen.

    A colour profile is kept without the texts in it.

    Args:
        image (`PIL.Image.Image`):
            The image.
        path (`str` or `Path`):
            Where to.
        image_format (`str`):
            Pillow's name of the format.

    Returns:
        `str`: SHA-256 of the file, hexadecimal.

    Raises:
        OSError: the folder cannot be written to.
    """
    buffer = io.BytesIO()
    profile = colours_only(image.info.get("icc_profile") or b"")
    image.save(buffer, format=image_format, **({"icc_profile": profile} if profile else {}))
    data = buffer.getvalue()
    write_file(Path(path), data)
    return hashlib.sha256(data).hexdigest()
