"""Photos in whatever form the caller has them, as the uint8 RGB array that the method works on, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps

PhotoInput = Image.Image | np.ndarray | torch.Tensor
OutputType = Literal["pil", "np", "pt"]

_MODES_16_BIT = ("I;16", "I;16B", "I;16L")
_MODES = ("RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr", *_MODES_16_BIT)


@dataclass(frozen=True)
class Photo:
    """A photo as the method sees it, and the form in which the caller gave it.

    Attributes:
        rgb (`np.ndarray`): uint8 [H, W, 3].
        source (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`): What was given, upright.
    """

    rgb: np.ndarray
    source: PhotoInput

    @classmethod
    def open(cls, image: PhotoInput) -> Photo:
        """Reads one photo; a PIL image's EXIF orientation is applied.

        Args:
            image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`):
                A PIL image of any photographic mode (16-bit grey too), an array uint8 or uint16 [H, W, 3] or float
                [H, W, 3] in [0, 1], or a tensor float [3, H, W] or [1, 3, H, W] in [0, 1].

        Raises:
            TypeError: another type.
            ValueError: another shape, mode, dtype or range.
        """
        if isinstance(image, Image.Image):
            image = ImageOps.exif_transpose(image)
            return cls(_pil_to_rgb(image), image)
        if isinstance(image, torch.Tensor):
            if image.ndim == 4 and image.shape[0] == 1:
                image = image[0]
            if image.ndim != 3 or image.shape[0] != 3:
                raise ValueError(
                    f"`image` must be a tensor [3, H, W], got {list(image.shape)}. Pass several as a list."
                )
            return cls(_float_to_uint8(image.detach().float().cpu().permute(1, 2, 0).numpy()), image.detach())
        if isinstance(image, np.ndarray):
            if image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(
                    f"`image` must be an array [H, W, 3], got {list(image.shape)}. Pass several as a list."
                )
            return cls(_array_to_uint8(image), image)
        raise TypeError(f"`image` must be a PIL image, a numpy array or a torch tensor, got {type(image).__name__}.")

    def restore(self, rgb: np.ndarray, changed: np.ndarray, output_type: OutputType | None = None) -> PhotoInput:
        """A copy of the source with the changed pixels put in.

        Args:
            rgb (`np.ndarray`):
                uint8 [H, W, 3], the result.
            changed (`np.ndarray`):
                bool [H, W]. Where it is False, the source's own values stay, bit for bit.
            output_type (`str`, *optional*):
                `"pil"` (RGB), `"np"` (uint8 [H, W, 3]) or `"pt"` (float32 [3, H, W] in [0, 1]); by default the type,
                mode and dtype of the source.

        Returns:
            The photo, without metadata other than a colour profile.
        """
        if output_type == "np":
            return rgb
        if output_type == "pt":
            return torch.from_numpy(rgb).permute(2, 0, 1).float() / 255.0
        if output_type == "pil" and not isinstance(self.source, Image.Image):
            return Image.fromarray(rgb)
        if isinstance(self.source, Image.Image):
            return _restore_pil(self.source, rgb, changed)
        if isinstance(self.source, torch.Tensor):
            values = torch.from_numpy(rgb).permute(2, 0, 1).to(self.source) / 255.0
            return torch.where(torch.from_numpy(changed).to(self.source.device), values, self.source)
        result = self.source.copy()
        x, y, width, height = cv2.boundingRect(changed.view(np.uint8))  # of a large photo a face is a small part
        part = np.s_[y : y + height, x : x + width]
        new = _scaled(rgb[part], self.source.dtype)
        result[part] = np.where(changed[part][..., None], new, self.source[part])
        return result


def open_mask(mask: PhotoInput, shape: tuple[int, int]) -> np.ndarray:
    """Reads a mask that was drawn on a photo.

    Args:
        mask (`PIL.Image.Image` or `np.ndarray`):
            A PIL image of mode 1 or L, upright, or an array bool, uint8 or float [H, W]. What is above the middle of
            its range (127 of 255) is marked.
        shape (`tuple[int, int]`):
            Height and width of the upright photo.

    Returns:
        `np.ndarray`: bool [H, W].

    Raises:
        TypeError: another type.
        ValueError: another mode, dtype or size.
    """
    if isinstance(mask, Image.Image):
        if mask.mode not in ("1", "L"):
            raise ValueError(f"`manifestation_mask` has mode {mask.mode}; convert it to black and white, mode 1 or L.")
        mask = np.array(mask)
    if not isinstance(mask, np.ndarray):
        raise TypeError(f"`manifestation_mask` must be a PIL image or a numpy array, got {type(mask).__name__}.")
    if mask.ndim != 2 or not (mask.dtype in (bool, np.uint8) or np.issubdtype(mask.dtype, np.floating)):
        raise ValueError(
            f"`manifestation_mask` must be bool, uint8 or float [H, W], got {mask.dtype} {list(mask.shape)}."
        )
    if mask.shape != tuple(shape):
        raise ValueError(
            f"`manifestation_mask` is {mask.shape[1]} x {mask.shape[0]} px, but the upright photo is {shape[1]} x "
            f"{shape[0]} px. Draw it on the photo in its own size."
        )
    if mask.dtype == bool:
        return mask
    return mask > (127 if mask.dtype == np.uint8 else 0.5)


def _array_to_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array.copy()
    return (array >> 8).astype(np.uint8) if array.dtype == np.uint16 else _float_to_uint8(array)


def _scaled(rgb: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Values uint8 in the range of another type."""
    if dtype == np.uint8:
        return rgb
    return rgb.astype(np.uint16) * 257 if dtype == np.uint16 else (rgb / 255.0).astype(dtype)


def _float_to_uint8(array: np.ndarray) -> np.ndarray:
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"`image` must be uint8, uint16, or float in [0, 1], got {array.dtype}.")
    if not (np.isfinite(array).all() and array.min() >= 0.0 and array.max() <= 1.0):
        raise ValueError("`image` holds floats outside of [0, 1]. Divide 8-bit values by 255 first.")
    return np.rint(array * 255.0).astype(np.uint8)


def _pil_to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode not in _MODES:
        raise ValueError(f"`image` has mode {image.mode}, which is none of a photo's: {', '.join(_MODES)}. Convert it.")
    if image.mode in _MODES_16_BIT:
        grey = _array_to_uint8(np.asarray(image).astype(np.uint16))
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def _restore_pil(source: Image.Image, rgb: np.ndarray, changed: np.ndarray) -> Image.Image:
    new = Image.fromarray(rgb)
    if source.mode in _MODES_16_BIT:
        grey = _scaled(np.asarray(new.convert("L")), np.dtype(np.uint16))
        return Image.fromarray(np.where(changed, grey, np.asarray(source).astype(np.uint16)))
    # A new image, as a copy would carry the source's metadata along.
    result = Image.new(source.mode, source.size)
    if source.palette is not None:
        result.putpalette(source.palette)
        new = new.quantize(palette=source, dither=Image.Dither.NONE)
    else:
        new = new.convert(source.mode)
    if "A" in source.getbands():
        new.putalpha(source.getchannel("A"))
    result.paste(source)
    result.paste(new, mask=Image.fromarray(changed.astype(np.uint8) * 255))
    for kept in ("icc_profile", "transparency"):
        if kept in source.info:
            result.info[kept] = source.info[kept]
    return result
