"""Pixel data of DICOM images: decoded by pydicom and its plugins, and put back uncompressed.

Needs the extra `dicom`. What a file declares is checked before anything is decoded, as a decoder reserves memory for
whatever size a codestream claims to have.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from pydicom import Dataset, encaps, uid
from pydicom.pixels import apply_color_lut, get_decoder, set_pixel_data

from .images import MAX_PIXELS, ImageFileError

MOST_FRAMES = 4096
_UNCOMPRESSED = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
_JPEG = (
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
)
_JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
_READABLE = (*_UNCOMPRESSED, uid.RLELossless, *_JPEG, *_JPEG_2000)
LOSSY_METHODS = {
    uid.JPEGBaseline8Bit: "ISO_10918_1",
    uid.JPEGExtended12Bit: "ISO_10918_1",
    uid.JPEGLSNearLossless: "ISO_14495_1",
}

_SAMPLES = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_ICT": 3,
    "YBR_RCT": 3,
}
# Start-of-frame markers of JPEG, and of JPEG-LS (0xF7).
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


def check_transfer_syntax(meta: Dataset) -> None:
    """Checks how a file is coded, by its file meta information alone: a deflated one may swell without bounds.

    Raises:
        ImageFileError: in a way that cannot be read.
    """
    syntax = meta.TransferSyntaxUID
    if syntax not in _READABLE:
        video = "MPEG" in syntax.name or "HEVC" in syntax.name
        what = "it holds a video, but only stills can be used" if video else "its transfer syntax is not supported"
        raise ImageFileError(f"{what}; export it uncompressed (Explicit VR Little Endian)")


def check_pixels(dataset: Dataset) -> None:
    """Checks all that the header says about the pixels.

    Raises:
        ImageFileError: they are absent, of a kind that cannot be used, or too many.
    """
    if "PixelData" not in dataset:
        raise ImageFileError("it holds no pixel data; export the image, not a report or a reference to it")
    photometric = str(dataset.get("PhotometricInterpretation", "")).strip()
    if _SAMPLES.get(photometric) != number(dataset, "SamplesPerPixel", 1):
        known = ", ".join(_SAMPLES)
        raise ImageFileError(f"its photometric interpretation is not supported (known: {known}); export it as RGB")
    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        raise ImageFileError("its palette is segmented, which is not supported; export it as RGB")
    allocated, stored = number(dataset, "BitsAllocated"), number(dataset, "BitsStored")
    if allocated not in (8, 16) or not 1 <= stored <= allocated or number(dataset, "HighBit", stored - 1) != stored - 1:
        raise ImageFileError("its bit depth is not supported; export it with 8 or 16 bits allocated")
    if number(dataset, "PixelRepresentation", 0) != 0:
        raise ImageFileError("its pixel values are signed, as no photo's are; export it unsigned")
    frames, rows, columns = _size(dataset)
    if min(frames, rows, columns) < 1:
        raise ImageFileError("its size makes no sense; copy it again from where it came")
    if frames > MOST_FRAMES:
        raise ImageFileError(f"it has more than {MOST_FRAMES} frames; split it")
    if frames * rows * columns > MAX_PIXELS:
        raise ImageFileError(f"it has more than {MAX_PIXELS / 1e6:.0f} megapixels; scale it down or split its frames")


def decode(dataset: Dataset) -> tuple[np.ndarray, str, int]:
    """Decodes all frames.

    Args:
        dataset (`Dataset`):
            One that passed [`check_pixels`].

    Returns:
        The stored values, uint8 or uint16 [N, H, W] or [N, H, W, 3]; MONOCHROME1, MONOCHROME2 or RGB; and the bits
        that are used.

    Raises:
        ImageFileError: the pixel data do not fit the header, or no decoder is installed.
        Exception: they are damaged; pydicom and its plugins raise what they like.
    """
    frames, rows, columns = _size(dataset)
    syntax = dataset.file_meta.TransferSyntaxUID
    samples, stored = _SAMPLES[dataset.PhotometricInterpretation.strip()], dataset.BitsStored
    if syntax in (*_JPEG, *_JPEG_2000):
        for frame in encaps.generate_frames(dataset.PixelData, number_of_frames=frames):
            declared = _jpeg_2000_size(frame) if syntax in _JPEG_2000 else _jpeg_size(frame)
            if declared != (rows, columns, samples):
                raise ImageFileError("its pixel data do not fit its header; copy it again from where it came")
    decoder = get_decoder(syntax)
    if not decoder.is_available:
        raise ImageFileError("no decoder for its transfer syntax is installed; `pip install medeid[dicom]`")
    options: dict[str, Any] = {"allow_excess_frames": False}
    pixels, decoded = decoder.as_array(dataset, **options)
    pixels = pixels & pixels.dtype.type((1 << stored) - 1)
    photometric = decoded["photometric_interpretation"]
    if photometric == "PALETTE COLOR":
        pixels, photometric = apply_color_lut(pixels, dataset), "RGB"
        stored, samples = 8 * pixels.dtype.itemsize, 3
    shape = (frames, rows, columns) + ((3,) if samples == 3 else ())
    if pixels.size != np.prod(shape) or pixels.dtype not in (np.uint8, np.uint16):
        raise ImageFileError("its pixel data do not fit its header; copy it again from where it came")
    return pixels.reshape(shape), str(photometric), stored


def encode(dataset: Dataset, pixels: np.ndarray, photometric: str, stored: int, multi_frame: bool) -> None:
    """Puts stored values, see [`decode`], uncompressed into a data set."""
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    values = pixels if multi_frame else pixels[0]
    set_pixel_data(dataset, values, photometric, stored, generate_instance_uid=False)


def number(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """A whole number in the header.

    Raises:
        ImageFileError: it is absent and has no default, or no number.
    """
    value = dataset.get(keyword)
    value = default if value is None else value
    if not isinstance(value, int):
        raise ImageFileError(f"its header has no usable {keyword}; copy it again from where it came")
    return int(value)


def _size(dataset: Dataset) -> tuple[int, int, int]:
    return number(dataset, "NumberOfFrames", 1), number(dataset, "Rows"), number(dataset, "Columns")


def _jpeg_size(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components that a JPEG or JPEG-LS codestream declares; None where it is none."""
    place = 2
    while frame[place : place + 1] == b"\xff" and place + 10 <= len(frame):
        marker, length = frame[place + 1], int.from_bytes(frame[place + 2 : place + 4], "big")
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker in _FRAME_MARKERS:
            return struct.unpack_from(">HHB", frame, place + 5)
        else:
            place += 2 + length
    return None


def _jpeg_2000_size(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components that a JPEG 2000 codestream, bare or in a JP2 file, declares; None if it is none."""
    start = frame.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(frame) < start + 42:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", frame, start + 8)
    (components,) = struct.unpack_from(">H", frame, start + 40)
    return bottom - top, right - left, components
