"""What happens to pictures on their way: poor cameras and other light."""

from __future__ import annotations

import cv2
import numpy as np


def degrade(rng: np.random.Generator, image: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """What a poor camera does: blur, few pixels, noise, JPEG.

    Args:
        rng (`np.random.Generator`):
            What it is drawn from.
        image (`np.ndarray`):
            uint8 [S, S, 3].
        strength (`float`, *optional*, defaults to 1.0):
            How bad it may get, in (0, 1]; less where fine signs must stay visible.

    Returns:
        `np.ndarray`: uint8 [S, S, 3].
    """
    size = image.shape[0]
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 0.5 + 2.5 * strength))
    if rng.random() < 0.25:
        small = int(size * rng.uniform(0.8 - 0.6 * strength, 0.8))
        image = cv2.resize(cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA), (size, size))
    if rng.random() < 0.25:
        noise = rng.normal(0, rng.uniform(2, 2 + 16 * strength), (size, size, 1)).astype(np.float32)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.25:
        quality = int(rng.integers(90 - round(75 * strength), 90))
        _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    return image


def change_light(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Exposure, contrast and white balance, as little as still leaves jaundice and pallor what they are.

    Args:
        rng (`np.random.Generator`):
            What it is drawn from.
        image (`np.ndarray`):
            uint8 [S, S, 3].

    Returns:
        `np.ndarray`: uint8 [S, S, 3].
    """
    values = np.linspace(0, 1, 256) ** np.exp(rng.normal(0, 0.12))
    values = (values - 0.5) * rng.uniform(0.85, 1.15) + 0.5 + rng.normal(0, 0.03)
    tables = values[:, None] * np.exp(rng.normal(0, 0.02, 3))
    return cv2.LUT(image, np.clip(tables * 255, 0, 255).astype(np.uint8)[None])
