import io

import numpy as np
import pytest
from PIL import Image

from medeid.data.masks import decode_masks, encode_masks, masks_by_manifestation
from medeid.manifestations.taxonomy import TAXONOMY, Finding


def _boxes(count: int) -> np.ndarray:
    """bool [count, 24, 32]: boxes that overlap their neighbours."""
    masks = np.zeros((count, 24, 32), bool)
    for i in range(count):
        masks[i, 2 * i : 2 * i + 8, 3 * i : 3 * i + 8] = True
    return masks


@pytest.mark.parametrize("count", range(9))
@pytest.mark.parametrize("optimize", [False, True])
def test_masks_survive_a_png(count, optimize):
    file = io.BytesIO()
    encode_masks(_boxes(count)).save(file, "PNG", optimize=optimize)
    decoded = decode_masks(Image.open(file), count)
    assert decoded.dtype == bool
    np.testing.assert_array_equal(decoded, _boxes(count))


def test_bits_and_colours():
    masks = _boxes(3)
    picture = encode_masks(masks)
    assert picture.mode == "P" and picture.size == (32, 24)
    np.testing.assert_array_equal(np.asarray(picture), masks[0] + 2 * masks[1] + 4 * masks[2])
    colours = np.asarray(picture.convert("RGB"))
    assert not colours[~masks.any(axis=0)].any()
    alone = [colours[masks[i] & (masks.sum(axis=0) == 1)] for i in range(3)]
    assert all(len(np.unique(each, axis=0)) == 1 for each in alone)
    assert len({tuple(each[0]) for each in alone}) == 3


def test_a_grey_bit_field_is_one_too():
    np.testing.assert_array_equal(decode_masks(Image.fromarray(np.uint8([[0, 1], [2, 3]])), 2)[1], [[0, 0], [1, 1]])


def test_encode_masks_says_what_is_wrong():
    with pytest.raises(ValueError, match="9 findings"):
        encode_masks(_boxes(9))
    with pytest.raises(ValueError, match=r"bool \[F, H, W\]"):
        encode_masks(_boxes(1).astype(np.float32))
    with pytest.raises(ValueError, match=r"\[24, 32\]"):
        encode_masks(_boxes(1)[0])


def test_decode_masks_says_what_is_wrong():
    with pytest.raises(ValueError, match="bit 2 set, but there are 2 findings"):
        decode_masks(encode_masks(_boxes(3)), 2)
    with pytest.raises(ValueError, match="RGB"):
        decode_masks(encode_masks(_boxes(3)).convert("RGB"), 3)


def test_masks_by_manifestation_joins_the_sides():
    masks = _boxes(3)
    findings = [Finding("ptosis", "left"), {"manifestation": "rosacea"}, Finding("ptosis", "right")]
    planes = masks_by_manifestation(encode_masks(masks), findings)
    assert planes.shape == (len(TAXONOMY), 24, 32) and planes.dtype == bool
    names = list(TAXONOMY)
    np.testing.assert_array_equal(planes[names.index("ptosis")], masks[0] | masks[2])
    np.testing.assert_array_equal(planes[names.index("rosacea")], masks[1])
    assert planes.sum() == (masks[0] | masks[2]).sum() + masks[1].sum()


def test_a_row_that_is_not_segmented():
    with pytest.raises(ValueError, match="not the same as empty"):
        masks_by_manifestation(None, [Finding("ptosis", "left")])
