"""A cleaned colour profile converts as before, and holds no text."""

import io
import struct

import numpy as np
import pytest
from dicom_samples import NAME, srgb_profile
from PIL import Image, ImageCms
from skimage import data

from medeid.clinical.colour_profile import colours_only


def in_lab(profile):
    image = Image.fromarray(data.astronaut()[::8, ::8])
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return np.asarray(ImageCms.profileToProfile(image, opened, ImageCms.createProfile("LAB"), outputMode="LAB"))


def test_colours_are_converted_as_before():
    clean = colours_only(srgb_profile())
    assert np.array_equal(in_lab(clean), in_lab(srgb_profile()))
    assert len(clean) == len(srgb_profile())


def test_texts_dates_and_private_tags_go():
    profile = bytearray(srgb_profile())
    assert NAME.encode("utf-16be") in profile
    profile[4:8] = profile[48:52] = profile[80:84] = b"ZEBE"
    (count,) = struct.unpack_from(">I", profile, 128)
    profile[132 + 12 * (count - 1) : 136 + 12 * (count - 1)] = b"priv"
    clean = colours_only(bytes(profile))
    assert NAME.encode("utf-16be") not in clean and b"ZEBE" not in clean
    assert struct.unpack_from(">I", clean, 128)[0] < count
    assert clean[24:36] == bytes(12)  # when it was made
    assert ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(clean))).strip() == ""


@pytest.mark.parametrize(
    "change",
    [
        lambda profile: b"",
        lambda profile: profile[:131],
        lambda profile: profile[:36] + b"none" + profile[40:],
        lambda profile: profile[:128] + b"\xff\xff\xff\xff" + profile[132:],  # more tags than there is room for
        lambda profile: profile[:-1],  # the last tag ends outside
    ],
)
def test_what_is_no_profile_is_told(change):
    assert colours_only(change(srgb_profile())) is None
