"""The masks of a face's findings as one picture file: a bit field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..manifestations.taxonomy import TAXONOMY, Finding

MAX_FINDINGS = 8  # a pixel of a mask file is one byte, a bit for each finding

# One colour for each bit; a pixel of several findings shows their mean.
_COLOURS = (
    (230, 25, 75),
    (60, 180, 75),
    (0, 130, 200),
    (255, 225, 25),
    (145, 30, 180),
    (70, 240, 240),
    (245, 130, 48),
    (250, 190, 212),
)


def _palette() -> bytes:
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    mean = bits @ np.array(_COLOURS) / np.maximum(bits.sum(axis=1, keepdims=True), 1)
    return np.rint(mean).astype(np.uint8).tobytes()


_PALETTE = _palette()


def encode_masks(masks: np.ndarray) -> Image.Image:
    """The masks of one face as one picture: bit *i* of a pixel is set where finding *i* covers it.

    Args:
        masks (`np.ndarray`):
            bool `[F, H, W]`, one mask a finding, at most 8; `[0, H, W]` for a healthy face.

    Returns:
        `PIL.Image.Image`: of mode `"P"`; its palette gives each finding a colour, black is none. Save it as PNG.

    Raises:
        `ValueError`: another shape or dtype, or more than 8 findings.
    """
    if masks.ndim != 3 or masks.dtype != np.bool_:
        raise ValueError(f"`masks` must be bool [F, H, W], but is {masks.dtype} {list(masks.shape)}. Compare with 0.")
    if len(masks) > MAX_FINDINGS:
        raise ValueError(f"`masks` holds {len(masks)} findings, but a mask file has {MAX_FINDINGS} bits a pixel.")
    weights = (1 << np.arange(len(masks))).astype(np.uint8)
    picture = Image.fromarray(np.einsum("f,fhw->hw", weights, masks.astype(np.uint8)))
    picture.putpalette(_PALETTE)
    return picture


def decode_masks(picture: Image.Image, count: int) -> np.ndarray:
    """The inverse of [`encode_masks`].

    Args:
        picture (`PIL.Image.Image`):
            8-bit, of mode `"P"` or `"L"`.
        count (`int`):
            The number of findings F.

    Returns:
        `np.ndarray`: bool `[F, H, W]`.

    Raises:
        `ValueError`: another mode, or a pixel with a bit beyond the last finding.
    """
    if picture.mode not in ("P", "L"):
        raise ValueError(
            f"`picture` must have mode P or L (a bit field), but has {picture.mode}. Save it as 8-bit PNG."
        )
    field = np.asarray(picture)
    beyond = int(field.max(initial=0)) >> count
    if beyond:
        last = count + beyond.bit_length() - 1
        raise ValueError(f"`picture` has bit {last} set, but there are {count} findings. Are all of them listed?")
    return np.unpackbits(field[None], axis=0, count=count, bitorder="little").astype(bool)


def masks_by_manifestation(mask: Image.Image | None, findings: Sequence[Mapping[str, Any] | Finding]) -> np.ndarray:
    """What an encoder learns to segment: a mask of each manifestation of the taxonomy.

    Left and right share one, as the place tells them apart.

    Args:
        mask (`PIL.Image.Image` or None):
            The bit field of a row.
        findings (`Sequence`):
            The findings of the same row.

    Returns:
        `np.ndarray`: bool `[len(TAXONOMY), H, W]`, in the order of the taxonomy.

    Raises:
        `ValueError`: the mask is None, or has a bit beyond the last finding.
    """
    if mask is None:
        raise ValueError("`mask` is None: nobody segmented this row, which is not the same as empty. Filter it out.")
    names = [each.manifestation if isinstance(each, Finding) else each["manifestation"] for each in findings]
    masks = decode_masks(mask, len(names))
    result = np.zeros((len(TAXONOMY), *masks.shape[1:]), bool)
    rows = list(TAXONOMY)
    for name, single in zip(names, masks, strict=True):
        result[rows.index(name)] |= single
    return result
