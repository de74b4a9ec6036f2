"""Colour and relief of skin: light is absorbed by pigments, covered by deposits, and shaded by bumps.

A pigment multiplies the light that comes back, so pores, hairs, shadows and highlights stay, and one amount of blood is
plain to see on light skin and faint on dark skin, as in the clinic. The two-pigment model of skin is Tsumura et al.,
"Image-based skin color and texture analysis/synthesis by extracting hemoglobin and melanin information in the skin",
SIGGRAPH 2003.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

# Absorbance in the camera's red, green and blue for one unit of density. Melanin: the power law of eumelanin, exponent
# -3.33 (Jacques, "Origins of tissue optical properties in the UVA, visible, and NIR regions", 1996), at 610, 545 and
# 460 nm. Haemoglobin and bilirubin: after the extinction tabulated by Prahl, averaged over broad bands; red light goes
# deeper and meets more blood, so its share is raised. Haemosiderin is brown iron,
# biliverdin the green of an old bruise.
MELANIN = (0.39, 0.57, 1.00)
HAEMOGLOBIN = (0.10, 1.00, 0.88)
DEOXYHAEMOGLOBIN = (0.42, 1.00, 0.66)
BILIRUBIN = (0.02, 0.14, 1.00)
HAEMOSIDERIN = (0.25, 0.65, 1.00)
BILIVERDIN = (0.75, 0.35, 1.00)

Pigment = tuple[float, float, float]


def to_linear(image: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] to linear light."""
    image = np.maximum(image, 0.0)  # a resampled picture overshoots
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] to sRGB."""
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


def absorb(image: np.ndarray, *layers: tuple[Pigment, np.ndarray]) -> np.ndarray:
    """Adds pigment to skin.

    Args:
        image (`np.ndarray`):
            float32 [S, S, 3], sRGB in [0, 1].
        layers (`tuple[tuple, np.ndarray]`):
            A pigment's absorbance in red, green and blue, and its density float32 [S, S] (decadic: 0.3 halves the light
            where the absorbance is 1). A negative density takes pigment away.

    Returns:
        `np.ndarray`: float32 [S, S, 3], sRGB in [0, 1]. Pixels where every density is 0 keep their values.
    """
    density = np.zeros_like(image)
    for pigment, amount in layers:
        density += amount[..., None] * np.asarray(pigment, np.float32)
    touched = (density != 0).any(-1)
    result = image.copy()
    light = to_linear(image[touched]) * 10.0 ** -density[touched]
    # Where pigment was taken away, highlights run into white softly.
    light = np.where(light > 0.8, 0.8 + 0.2 * np.tanh((light - 0.8) / 0.2), light)
    result[touched] = to_srgb(light)
    return result


def cover(image: np.ndarray, lab: tuple[float, float, float], alpha: np.ndarray, softness: float) -> np.ndarray:
    """Lays a deposit of a given colour (pus, crust, fat, scar) over the skin, lit as the skin beneath it.

    Args:
        image (`np.ndarray`):
            float32 [S, S, 3], sRGB in [0, 1].
        lab (`tuple[float, float, float]`):
            CIELAB of the deposit in the mean light of its place.
        alpha (`np.ndarray`):
            float32 [S, S] in [0, 1]: how opaque it is.
        softness (`float`):
            Details of the skin smaller than this many pixels are covered, larger shades stay.

    Returns:
        `np.ndarray`: float32 [S, S, 3].
    """
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    if len(rows) == 0:
        return image
    reach = int(4.0 * softness + 0.5)  # of the blur: what lies farther has no say
    near = (
        slice(max(rows[0] - reach, 0), rows[-1] + reach + 1),
        slice(max(columns[0] - reach, 0), columns[-1] + reach + 1),
    )
    part, opaque = image[near], alpha[near]
    lightness = cv2.cvtColor(part, cv2.COLOR_RGB2LAB)[..., 0]
    shade = gaussian_filter(lightness, softness)
    mean = float((shade * opaque).sum() / opaque.sum())
    colour = np.empty_like(part)
    colour[..., 0] = np.clip(lab[0] * (0.4 + 0.6 * shade / max(mean, 1.0)) + 0.35 * (lightness - shade), 0, 100)
    colour[..., 1:] = lab[1:]
    deposit = np.clip(cv2.cvtColor(colour, cv2.COLOR_LAB2RGB), 0.0, 1.0)
    result = image.copy()
    result[near] = part + opaque[..., None] * (deposit - part)
    return result


def emboss(image: np.ndarray, height: np.ndarray, light: np.ndarray, gloss: float = 0.0) -> np.ndarray:
    """Shades bumps and dents.

    Args:
        image (`np.ndarray`):
            float32 [S, S, 3], sRGB in [0, 1].
        height (`np.ndarray`):
            float32 [S, S], in pixels above the skin (negative: sunken).
        light (`np.ndarray`):
            float32 [2], unit vector towards the light in the picture (`Canvas.light`).
        gloss (`float`, *optional*, defaults to 0.0):
            Strength of the highlight on slopes that face the light, in [0, 1].

    Returns:
        `np.ndarray`: float32 [S, S, 3]. Flat places keep their values.
    """
    down, right = np.gradient(height)
    # Lambert's law for a light 45 degrees above the skin, relative to flat skin.
    facing = -(right * light[0] + down * light[1])
    shading = np.clip((1.0 + facing) / np.sqrt(1.0 + right**2 + down**2), 0.25, 1.6)
    shine = gloss * np.clip(facing - 0.25, 0.0, 0.5) ** 2
    flat = (right == 0) & (down == 0)
    lit = to_srgb(to_linear(image) * shading[..., None] + shine[..., None])
    return np.where(flat[..., None], image, lit)
