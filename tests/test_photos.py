"""Photos come back in the form they came in, and unchanged outside of the mask."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from medeid.photos import Photo, open_mask

ASTRONAUT = data.astronaut()[:128, 160:300]
MODES = ["RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr"]


def change(photo):
    changed = np.zeros(photo.rgb.shape[:2], bool)
    changed[20:60, 30:70] = True
    rgb = photo.rgb.copy()
    rgb[changed] = (200, 30, 40)
    return rgb, changed


@pytest.mark.parametrize("mode", MODES)
def test_pil_modes_come_back_and_keep_what_is_outside(mode):
    source = Image.fromarray(ASTRONAUT)
    source = source.quantize(64) if mode == "P" else source.convert(mode)
    photo = Photo.open(source)
    rgb, changed = change(photo)
    result = photo.restore(rgb, changed)
    assert (result.mode, result.size) == (source.mode, source.size)
    assert np.array_equal(np.asarray(result)[~changed], np.asarray(source)[~changed])
    assert not np.array_equal(np.asarray(result)[changed], np.asarray(source)[changed])


def test_sixteen_bit_grey_keeps_its_depth_outside():
    values = (ASTRONAUT[..., 0].astype(np.uint16) << 8) + 7
    photo = Photo.open(Image.fromarray(values))
    rgb, changed = change(photo)
    result = np.asarray(photo.restore(rgb, changed))
    assert result.dtype == np.uint16
    assert np.array_equal(result[~changed], values[~changed])


@pytest.mark.parametrize(
    "source", [ASTRONAUT, ASTRONAUT.astype(np.uint16) * 256 + 7, (ASTRONAUT / 255.0).astype(np.float32)]
)
def test_arrays_come_back(source):
    photo = Photo.open(source)
    rgb, changed = change(photo)
    result = photo.restore(rgb, changed)
    assert result.dtype == source.dtype and np.array_equal(result[~changed], source[~changed])
    assert np.array_equal(Photo.open(result).rgb[changed], rgb[changed])


def test_tensors_come_back():
    source = torch.rand(3, 64, 80)
    photo = Photo.open(source)
    rgb, changed = change(photo)
    result = photo.restore(rgb, changed)
    outside = torch.from_numpy(~changed)
    assert torch.equal(result[:, outside], source[:, outside])
    assert torch.allclose(result[:, ~outside].mean(1) * 255, torch.tensor([200.0, 30.0, 40.0]))


@pytest.mark.parametrize("output_type, kind", [("pil", Image.Image), ("np", np.ndarray), ("pt", torch.Tensor)])
def test_output_type_wins_over_the_type_of_the_source(output_type, kind):
    photo = Photo.open(ASTRONAUT)
    assert isinstance(photo.restore(*change(photo), output_type), kind)


def test_exif_orientation_is_applied_and_metadata_dropped():
    source = Image.fromarray(ASTRONAUT)
    exif = source.getexif()
    exif[0x0112], exif[0x010E] = 6, "Jane Doe"
    source.info["exif"] = exif.tobytes()
    photo = Photo.open(source)
    assert photo.rgb.shape[:2] == ASTRONAUT.shape[1::-1]
    result = photo.restore(*change(photo))
    assert "exif" not in result.info and not result.getexif()


@pytest.mark.parametrize(
    "image, error",
    [
        ("photo.png", TypeError),
        (np.zeros((4, 4), np.uint8), ValueError),
        (np.zeros((4, 4, 3), np.int32), ValueError),
        (np.full((4, 4, 3), 255.0), ValueError),
        (torch.zeros(1, 4, 4), ValueError),
        (Image.new("F", (4, 4)), ValueError),
    ],
)
def test_what_is_no_photo_is_refused(image, error):
    with pytest.raises(error, match="`image`"):
        Photo.open(image)


def test_masks_of_every_kind_mean_the_same():
    marked = np.zeros((6, 8), bool)
    marked[2:4, 3:7] = True
    kinds = (marked, marked.astype(np.uint8) * 255, marked * 1.0, Image.fromarray(marked.astype(np.uint8) * 255))
    for mask in (*kinds, Image.fromarray(marked)):
        assert np.array_equal(open_mask(mask, (6, 8)), marked)


def test_what_is_no_mask_is_refused():
    with pytest.raises(TypeError, match="PIL image or a numpy array, got list"):
        open_mask([[0, 1]], (1, 2))
