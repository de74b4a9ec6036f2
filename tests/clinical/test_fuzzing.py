"""Bytes changed at random: whatever comes of it, reading gives a picture or the one error.

`pytest tests/clinical/test_fuzzing.py --mutations 5000` tries harder.
"""

import io
import random

import pytest
from dicom_samples import sample, save
from PIL import Image
from skimage import data

from medeid.clinical.dicom import DicomFile, is_dicom
from medeid.clinical.images import ImageFileError, read_image
from medeid.photos import Photo

FORMATS = ("JPEG", "MPO", "PNG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000", "PPM", "AVIF", "HEIF")


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A file with bytes changed, cut out, doubled or appended, mostly near its start, where the structure is."""
    result = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = int(len(result) * rng.random() ** 3)
        kind = rng.randrange(4)
        if kind == 0:
            result[place : place + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            result[place : place + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\x80\0\0\0"))
        elif kind == 2:
            del result[place : place + rng.randrange(1, 64)]
        else:
            result[place:place] = result[place : place + rng.randrange(1, 64)]
    return bytes(result)


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_changed_picture_is_read_or_refused(image_format, tmp_path, request):
    buffer, rng = io.BytesIO(), random.Random(image_format)
    picture = Image.fromarray(data.astronaut()[:48, 100:148])
    exif = picture.getexif()
    exif[0x010E] = "Jane Doe"
    picture.save(buffer, image_format, **({} if image_format in ("BMP", "GIF", "PPM", "JPEG2000") else {"exif": exif}))
    path = tmp_path / "Jane"
    for _ in range(request.config.getoption("--mutations")):
        path.write_bytes(mutated(buffer.getvalue(), rng))
        try:
            image = read_image(path)
        except ImageFileError as error:
            assert "Jane" not in str(error)
            continue
        try:
            Photo.open(image)
        except ValueError as error:  # of a mode that no photo has
            assert "Jane" not in str(error)


def test_a_changed_dicom_file_is_read_or_refused(tmp_path, request):
    content = save(sample(data.astronaut()[:48, 100:148]), tmp_path / "made").read_bytes()
    rng, path = random.Random(0), tmp_path / "Jane"
    for _ in range(request.config.getoption("--mutations")):
        path.write_bytes(content[:132] + mutated(content[132:], rng))
        assert is_dicom(path)
        try:
            DicomFile.read(path)
        except ImageFileError as error:
            assert "Jane" not in str(error)
