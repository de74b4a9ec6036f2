"""PNG and TIFF of 16 bits of colour keep all their bits, and nothing that tells of the patient."""

import hashlib
import io

import cv2
import numpy as np
import pytest
import tifffile
from dicom_samples import NAME, photo, srgb_profile
from PIL import Image, ImageOps
from PIL.PngImagePlugin import putchunk

from medeid.clinical.deep_images import DeepImage, read_photo, write_deep_image
from medeid.clinical.images import ImageFileError

PIXELS = photo(bits=16)
WITH_OPACITY = np.concatenate([PIXELS, PIXELS[..., :1] // 2 + 3], axis=2)
PNG_HEADER = 33


def png(pixels, exif=None) -> bytes:
    swap = cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    data = cv2.imencode(".png", cv2.cvtColor(pixels, swap))[1].tobytes()
    chunk = io.BytesIO()
    if exif is not None:
        putchunk(chunk, b"eXIf", exif.tobytes()[6:])
    return data[:PNG_HEADER] + chunk.getvalue() + data[PNG_HEADER:]


def tiff(pixels, **options) -> bytes:
    buffer = io.BytesIO()
    extra = {"extrasamples": ["unassalpha"]} if pixels.shape[-1] == 4 else {}
    tifffile.imwrite(buffer, pixels, photometric="rgb", **extra, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data, pixels",
    [
        (png(PIXELS), PIXELS),
        (png(WITH_OPACITY), WITH_OPACITY),
        (tiff(PIXELS), PIXELS),
        (tiff(WITH_OPACITY), WITH_OPACITY),
        (tiff(PIXELS, byteorder=">", compression="zlib"), PIXELS),
        (cv2.imencode(".tif", cv2.cvtColor(PIXELS, cv2.COLOR_RGB2BGR))[1].tobytes(), PIXELS),  # LZW
    ],
)
def test_all_bits_come_back_from_a_file_and_into_one(data, pixels, tmp_path):
    (tmp_path / "photo").write_bytes(data)
    read = read_photo(tmp_path / "photo")
    assert isinstance(read, DeepImage) and np.array_equal(read.pixels, pixels)
    digest = write_deep_image(read, tmp_path / "out.png")
    assert digest == hashlib.sha256((tmp_path / "out.png").read_bytes()).hexdigest()
    assert Image.open(tmp_path / "out.png").format == "PNG"
    assert np.array_equal(read_photo(tmp_path / "out.png").pixels, pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_it_is_turned_as_its_orientation_says(kind, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    tag = (0x0112, "H", 1, orientation, True)
    (tmp_path / "photo").write_bytes(png(PIXELS, exif) if kind == "png" else tiff(PIXELS, extratags=[tag]))
    grey = Image.fromarray(PIXELS[..., 1])
    grey.info["exif"] = exif.tobytes()
    assert np.array_equal(read_photo(tmp_path / "photo").pixels[..., 1], np.asarray(ImageOps.exif_transpose(grey)))


def test_of_the_profile_the_colours_stay_and_of_the_rest_nothing(tmp_path):
    tags = [(270, "s", 0, f"photo of {NAME}", True)]
    (tmp_path / "in.tif").write_bytes(tiff(PIXELS, iccprofile=srgb_profile(), extratags=tags, software=NAME))
    assert NAME.encode() in (tmp_path / "in.tif").read_bytes()
    write_deep_image(read_photo(tmp_path / "in.tif"), tmp_path / "out.png")
    written = Image.open(tmp_path / "out.png")
    profile = written.info["icc_profile"]
    assert b"rTRC" in profile and NAME.encode("utf-16be") not in profile
    assert NAME.encode() not in (tmp_path / "out.png").read_bytes()


def test_other_pictures_are_read_as_ever(tmp_path):
    Image.fromarray(photo()).save(tmp_path / "8.png")
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "grey.tif")
    assert read_photo(tmp_path / "8.png").mode == "RGB"
    assert read_photo(tmp_path / "grey.tif").mode == "I;16"


@pytest.mark.parametrize(
    "data, message",
    [
        (tiff(np.moveaxis(PIXELS, 2, 0), planarconfig="separate"), "stored in planes"),
        (png(PIXELS)[:4000], "damaged or incomplete"),
        (tiff(PIXELS)[:4000], "damaged or incomplete"),
    ],
)
def test_what_cannot_be_read_is_told(data, message, tmp_path):
    (tmp_path / "jane_doe.png").write_bytes(data)
    with pytest.raises(ImageFileError, match=message) as caught:
        read_photo(tmp_path / "jane_doe.png")
    assert "jane" not in str(caught.value)
