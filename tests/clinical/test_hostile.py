"""Files that are broken, dangerous or not what they seem: each gets one answer, and no face gets through.

`python -m pytest tests/clinical/test_hostile.py` counts the kinds.
"""

import gzip
import io
import struct
import time
import zipfile
import zlib

import numpy as np
import pytest
from dicom_samples import sample, save
from PIL import Image, TiffImagePlugin

from medeid.clinical.batch import Deidentifier
from medeid.clinical.images import FORMATS
from medeid.clinical.sources import PhotoFile

SECONDS = 30.0  # for one file, on a slow machine


@pytest.fixture(scope="module")
def worker():
    return Deidentifier(num_inference_steps=1, preserve="none", seed=0, max_attempts=1)


@pytest.fixture(scope="module")
def face(astronaut) -> Image.Image:
    return Image.fromarray(astronaut[:256, 100:356])


def encoded(image, image_format="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def png(width, height, content=b"", chunks=b"") -> bytes:
    """A PNG that says it is so large, whatever is in it."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def text_chunk(size) -> bytes:
    """A compressed text that is a thousand times as long when it is unpacked."""
    data = b"Comment\x00\x00" + zlib.compress(b"A" * size)
    return struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))


def zipped(name="jane_doe.txt") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "Jane Doe")
    return buffer.getvalue()


def tiff(width, height, offset=8) -> bytes:
    """A TIFF of one strip that is not there; its directory may follow itself."""
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    entries += [(278, 4, 1, height), (279, 4, 1, width * height & 0xFFFFFFFF)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\x00" + struct.pack("<I", 8) + directory + struct.pack("<I", offset)


def bmp(width, height) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def without_face(face) -> dict[str, bytes]:
    """Files with no picture, or one that shows nobody, or that cannot be decoded."""
    jpeg, flat = encoded(face, "JPEG"), Image.new("RGB", (64, 64), (90, 80, 70))
    whole = encoded(face)
    kinds = {
        "empty.jpg": b"",
        "one-byte.jpg": b"\xff",
        "text.jpg": b"This is no picture.",
        "page.png": b"<!DOCTYPE html><img src='http://example.org/a.png'>",
        "vector.png": b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>",
        "document.jpg": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj<</Type/Catalog>>endobj",
        "program.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(ls) system\n",
        "executable.jpg": b"\x7fELF" + bytes(200),
        "archive.jpg": zipped(),
        "traversal.jpg": zipped("../../../etc/passwd"),
        "packed.jpg": gzip.compress(jpeg),
        "layers.tif": b"8BPS\x00\x01" + bytes(26),
        "icon.png": encoded(flat, "ICO"),
        "zeros.png": bytes(4096),
        "ones.jpg": b"\xff" * 4096,
        "noise.webp": np.random.default_rng(0).bytes(4096),
        "only-start.jpg": b"\xff\xd8\xff\xe0",
        "no-scan.jpg": b"\xff\xd8\xff\xd9",
        "huge-frame.jpg": b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01",
        "bomb.png": png(60_000, 60_000, zlib.compress(bytes(1000))),
        "largest.png": png(2**31 - 1, 2**31 - 1),
        "no-size.png": png(0, 0),
        "no-data.png": png(64, 64),
        "too-short.png": png(64, 64, zlib.compress(bytes(100))),
        "text-bomb.png": png(64, 64, zlib.compress(bytes(64 * 193)), text_chunk(200_000_000)),
        "wrong-checksum.png": whole[:60] + bytes([whole[60] ^ 255]) + whole[61:],
        "huge.tif": tiff(2**31, 2**31),
        "circle.tif": tiff(64, 64, offset=8),
        "far.tif": b"II*\x00\xff\xff\xff\xff",
        "big.bmp": bmp(2**30, 2**30),
        "negative.bmp": bmp(-64, 64),
        "huge.ppm": b"P6 99999999 99999999 255\n",
        "words.ppm": b"P6 many more 255\n",
        "short.ppm": b"P6 64 64 255\n123",
        "garbage.jp2": b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(100),
        "garbage.heic": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100),
        "garbage.avif": b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00mif1avif" + bytes(100),
        "header-only.gif": b"GIF89a",
        "header-only.webp": b"RIFF\x00\x00\x00\x00WEBPVP8 ",
        "moving.gif": encoded(face, "GIF", save_all=True, append_images=[face.rotate(90)]),
        "moving.webp": encoded(face, "WEBP", save_all=True, append_images=[face.rotate(90)]),
        "moving.png": encoded(face, "PNG", save_all=True, append_images=[face.rotate(90)]),
        "pages.tif": encoded(face, "TIFF", save_all=True, append_images=[face.rotate(90)]),
        "pixel.png": encoded(Image.new("RGB", (1, 1))),
        "thread.png": encoded(Image.new("RGB", (20_000, 1))),
        "flat.jpg": encoded(flat, "JPEG"),
        "black-and-white.png": encoded(flat.convert("1")),
        "float.tif": encoded(flat.convert("F"), "TIFF"),
        "integers.tif": encoded(flat.convert("I"), "TIFF"),
        "lab.tif": encoded(flat.convert("LAB"), "TIFF"),
        "transparent.png": encoded(Image.new("RGBA", (64, 64), (0, 0, 0, 0))),
    }
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        kinds[f"cut-{share}.jpg"] = jpeg[: int(share * len(jpeg))]
        kinds[f"cut-{share}.png"] = whole[: int(share * len(whole))]
    return kinds


def with_face(face) -> dict[str, bytes]:
    """Pictures that can be decoded, with something odd about them."""
    jpeg = encoded(face, "JPEG", quality=95)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 99, "Jane Doe"
    nested = TiffImagePlugin.ImageFileDirectory_v2()
    nested[270] = "Jane Doe"
    return {
        "jpeg-in-disguise.png": jpeg,
        "png-in-disguise.jpg": encoded(face),
        "archive-behind.jpg": jpeg + zipped(),
        "picture-behind.jpg": jpeg + encoded(face.rotate(90), "JPEG"),
        "script-in-comment.jpg": encoded(face, "JPEG", comment=b"<script>Jane Doe</script>"),
        "broken-exif.jpg": encoded(face, "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff" + bytes(50)),
        "wrong-orientation.jpg": encoded(face, "JPEG", exif=exif),
        "broken-profile.jpg": encoded(face, "JPEG", icc_profile=b"Jane Doe" * 20),
        "long-text.png": png_with_text(face),
        "tags.tif": encoded(face, "TIFF", tiffinfo=nested),
    }


def png_with_text(face) -> bytes:
    whole = encoded(face)
    return whole[:33] + text_chunk(1000) + whole[33:]


def dicom(face, folder) -> dict[str, bytes]:
    def written(dataset) -> bytes:
        return save(dataset, folder / "made.dcm").read_bytes()

    whole = written(sample(np.asarray(face)))
    kinds = {f"cut-{share}.dcm": whole[: int(share * len(whole))] for share in (0.002, 0.005, 0.01, 0.5, 0.99)}
    kinds["preamble.dcm"] = bytes(128) + b"DICM"
    kinds["after-preamble.dcm"] = bytes(128) + b"DICM" + b"\xff" * 500
    for name, values in {
        "rows": {"Rows": 65535, "Columns": 65535},
        "frames": {"NumberOfFrames": 2**31 - 1},
        "samples": {"SamplesPerPixel": 7},
        "colours": {"PhotometricInterpretation": "HSV"},
        "bits": {"BitsAllocated": 1},
        "report": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"},
        "burned-in": {"BurnedInAnnotation": "YES"},
    }.items():
        dataset = sample(np.asarray(face))
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        kinds[f"{name}.dcm"] = written(dataset)
    dataset = sample(np.asarray(face))
    del dataset.PixelData
    kinds["no-pixels.dcm"] = written(dataset)
    return kinds


def run(worker, path, out):
    began = time.monotonic()
    result = worker.run(PhotoFile(0, path, path.name, "result"), out)
    assert time.monotonic() - began < SECONDS
    assert path.name not in result.reason and str(path.parent) not in result.reason
    return result


def test_what_is_no_photo_of_a_face_is_told_and_not_released(worker, face, tmp_path):
    kinds = {**without_face(face), **dicom(face, tmp_path)}
    assert len(kinds) + len(with_face(face)) >= 80
    out = tmp_path / "out"
    for name, content in kinds.items():
        path = tmp_path / name
        path.write_bytes(content)
        result = run(worker, path, out)
        assert result.record.status in ("unusable", "no_face", "withheld") and result.reason, name
        assert not [found for found in out.rglob("*") if found.is_file()], name
        assert path.read_bytes() == content


def test_a_face_in_an_odd_file_is_replaced_or_withheld(worker, face, astronaut, tmp_path):
    out, released = tmp_path / "out", 0
    for name, content in with_face(face).items():
        path = tmp_path / name
        path.write_bytes(content)
        result = run(worker, path, out)
        found = [each for each in out.rglob("*") if each.is_file()]
        assert bool(found) == (result.record.status == "released"), name
        for each in found:
            released += 1
            written = each.read_bytes()
            assert not any(planted in written for planted in (b"Jane", b"jane", b"script", b"PK\x03\x04")), name
            with Image.open(each) as image:
                middle = np.asarray(image.convert("RGB"))[80:170, 90:160].astype(int)
            assert np.abs(middle - np.asarray(face)[80:170, 90:160]).mean() > 5, name
            each.unlink()
    assert released >= 5


@pytest.mark.parametrize("name", ["..\\..\\up.png", "-rf.png", "a\nb.png", "\u202egnp.exe.png", "x" * 200 + ".png"])
def test_odd_names_are_but_names(worker, face, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(encoded(face))
    out = tmp_path / "out"
    result = worker.run(PhotoFile(0, path, path.name, path.stem), out)
    assert {each.parent for each in out.rglob("*.png")} <= {out}
    assert result.record.status in ("released", "withheld")


def test_formats_that_start_programs_are_not_read():
    assert not {"EPS", "WMF", "FPX", "PDF"} & set(FORMATS)
