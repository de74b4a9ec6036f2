"""Reading gives one clear error for whatever is wrong; writing is whole or not at all, and without metadata."""

import hashlib
import io

import numpy as np
import pytest
from dicom_samples import NAME, srgb_profile
from PIL import Image
from skimage import data

from medeid.clinical.images import ImageFileError, lossless_format, read_image, write_image


@pytest.fixture
def photo():
    return Image.fromarray(data.astronaut()[:64, :64])


def test_a_photo_comes_back(photo, tmp_path):
    photo.save(tmp_path / "photo.png")
    assert np.array_equal(np.asarray(read_image(tmp_path / "photo.png")), np.asarray(photo))


def truncated_jpeg(path, photo):
    photo.save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:700])


def animation(path, photo):
    photo.save(path, "GIF", save_all=True, append_images=[photo.rotate(90)])


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda path, photo: None, "no such file"),
        (lambda path, photo: path.write_bytes(b""), "empty"),
        (lambda path, photo: path.write_text("This is no picture."), "no image"),
        (truncated_jpeg, "damaged or incomplete"),
        (animation, "2 frames"),
    ],
)
def test_a_bad_file_gets_one_clear_error_without_its_name(write, message, photo, tmp_path):
    path = tmp_path / "jane_doe.jpg"
    write(path, photo)
    with pytest.raises(ImageFileError, match=message) as caught:
        read_image(path)
    assert "jane" not in str(caught.value)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch, photo):
    photo.save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageFileError, match="megapixels"):
        read_image(tmp_path / "large.png")


def test_written_files_hold_no_metadata(photo, tmp_path):
    photo.info["comment"] = "Jane Doe"
    exif = photo.getexif()
    exif[0x010E] = "Jane Doe"
    digest = write_image(photo, tmp_path / "result.png", "PNG")
    content = (tmp_path / "result.png").read_bytes()
    assert b"Jane" not in content
    assert hashlib.sha256(content).hexdigest() == digest


def test_a_failed_write_leaves_nothing(photo, tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError):
        write_image(photo, tmp_path / "result.png", "PNG")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "I;16"])
def test_the_lossless_format_keeps_every_mode(mode, photo, tmp_path):
    if mode == "I;16":
        image = Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64))
    else:
        image = photo.quantize(32) if mode == "P" else photo.convert(mode)
    image_format, suffix = lossless_format(image)
    write_image(image, tmp_path / f"result{suffix}", image_format)
    back = read_image(tmp_path / f"result{suffix}")
    assert back.mode == mode and np.array_equal(np.asarray(back), np.asarray(image))


def test_photos_of_phones_are_read(photo, tmp_path):
    photo.save(tmp_path / "phone.heic", quality=95)
    photo.save(tmp_path / "depth.jpg", "MPO", quality=95, save_all=True, append_images=[photo.rotate(90)])
    for name in ("phone.heic", "depth.jpg"):
        difference = np.asarray(read_image(tmp_path / name)).astype(int) - np.asarray(photo)
        assert np.abs(difference).mean() < 5


def test_no_thumbnail_comes_along(photo, tmp_path):
    """Phones write a small picture of the unturned photo into EXIF; it would show the patient's face."""
    thumbnail = io.BytesIO()
    photo.resize((64, 64)).save(thumbnail, "JPEG")
    exif = photo.getexif()
    exif[0x0112] = 6
    exif[0xC4A5] = thumbnail.getvalue()
    photo.save(tmp_path / "in.jpg", exif=exif, xmp=b"<x>Jane</x>", comment=b"Jane", icc_profile=srgb_profile())
    assert thumbnail.getvalue() in (tmp_path / "in.jpg").read_bytes()
    write_image(read_image(tmp_path / "in.jpg"), tmp_path / "out.png", "PNG")
    written = (tmp_path / "out.png").read_bytes()
    assert thumbnail.getvalue() not in written and b"Jane" not in written
    assert b"eXIf" not in written
    profile = Image.open(tmp_path / "out.png").info["icc_profile"]
    assert profile and NAME.encode("utf-16be") not in profile
