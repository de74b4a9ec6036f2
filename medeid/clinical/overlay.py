"""A picture of what was read: boxes of faces, coloured masks of signs and a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from ..records import FaceManifestations

# Okabe and Ito's palette, which the colour-blind can tell apart, without black.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
_LINE = 1.5  # height of a line of the legend in heights of its font


def draw_manifestations(photo: np.ndarray, faces: Sequence[FaceManifestations]) -> Image.Image:
    """Draws the signs that were read onto a photo.

    Args:
        photo (`np.ndarray`):
            uint8 [H, W, 3], upright.
        faces (`Sequence[FaceManifestations]`):
            What [`MedicalDeIDPipeline.encode_manifestations`] gives for this photo.

    Returns:
        `PIL.Image.Image`: RGB, W wide and higher than the photo by a legend. It shows the face: it is as sensitive as
        the photo.
    """
    masks = [(face.masks[reading.label], str(reading)) for face in faces for reading in face.readings]
    colours = [_COLOURS[number % len(_COLOURS)] for number in range(len(masks))]
    canvas = torch.from_numpy(photo.copy()).permute(2, 0, 1)
    drawn = [number for number, (mask, _) in enumerate(masks) if mask.any()]
    if drawn:
        layers = torch.from_numpy(np.stack([masks[number][0] for number in drawn]))
        canvas = draw_segmentation_masks(canvas, layers, alpha=0.45, colors=[colours[number] for number in drawn])
    boxes = torch.tensor([face.box for face in faces])
    canvas = draw_bounding_boxes(canvas, boxes, colors="white", width=max(1, photo.shape[1] // 400))
    return _with_legend(Image.fromarray(canvas.permute(1, 2, 0).numpy()), [text for _, text in masks], colours)


def _with_legend(picture: Image.Image, texts: list[str], colours: list[str]) -> Image.Image:
    size = max(12, picture.width // 45)
    line, texts = int(size * _LINE), texts or ["no sign found"]
    result = Image.new("RGB", (picture.width, picture.height + line * len(texts) + line // 2), "white")
    result.paste(picture)
    pen = ImageDraw.Draw(result)
    font = ImageFont.load_default(size)
    for row, text in enumerate(texts):
        top = picture.height + line // 4 + row * line
        if row < len(colours):
            pen.rectangle((size // 2, top + size // 4, size // 2 + size, top + size // 4 + size), fill=colours[row])
        pen.text((2 * size, top), text, "black", font)
    return result
