"""Painting manifestations of disease on a healthy face: the face of nobody becomes that of a patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from ..faces.canvas import Canvas, NotVisibleError, check_landmarks, ellipse
from ..manifestations.taxonomy import Finding, with_implied
from .signs import SIMULATORS, Change

_JUST_NOTICEABLE = 2.3  # CIELAB; Mahy et al., "Evaluation of uniform color differences", 1994
_RIM = 4 / 256  # of the picture's side: a sign may fade out this far beyond its mask


@dataclass(frozen=True)
class Simulation:
    """A face with its signs.

    Args:
        image (`np.ndarray`):
            uint8 [S, S, 3], RGB.
        findings (`tuple[Finding, ...]`):
            What was painted, implied signs included.
        masks (`np.ndarray`):
            bool [F, S, S]: where each finding is.
        landmarks (`np.ndarray`):
            float32 [478, 3], in pixels of the 256 px crop, as they are now.
    """

    image: np.ndarray
    findings: tuple[Finding, ...]
    masks: np.ndarray
    landmarks: np.ndarray


def simulate(
    image: np.ndarray,
    landmarks: np.ndarray,
    findings: Sequence[Finding],
    generator: np.random.Generator,
) -> Simulation:
    """Paints signs of disease on a face.

    What changes shape comes first, then the tone of the skin, then what lies on it, whatever the order given. Outside
    of a sign's mask, grown by 4 px of 256, an appearance sign changes no pixel.

    Args:
        image (`np.ndarray`):
            uint8 [S, S, 3], RGB: an aligned face crop.
        landmarks (`np.ndarray`):
            float32 [478, 3], in pixels of the 256 px crop.
        findings (`Sequence[Finding]`):
            The signs. Those that they imply are added.
        generator (`np.random.Generator`):
            The only source of randomness: the same state gives the same bytes.

    Returns:
        `Simulation`: picture, findings, masks and landmarks after.

    Raises:
        `NotVisibleError`: if a sign cannot be shown on this face.
        `ValueError`: if the picture or the landmarks are no face crop.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.shape[0] != image.shape[1]:
        raise ValueError(f"`image` must be uint8 [S, S, 3], but is {image.dtype} {list(image.shape)}. Align it first.")
    check_landmarks(landmarks)
    findings = with_implied(findings)
    canvas = Canvas(image.astype(np.float32) / 255.0, landmarks.astype(np.float32))
    masks = np.zeros((len(findings), *image.shape[:2]), bool)
    streams = generator.spawn(len(findings))
    order = sorted(range(len(findings)), key=lambda i: SIMULATORS[findings[i].manifestation][0])
    for index in order:
        finding = findings[index]
        simulator = SIMULATORS[finding.manifestation][1]
        for side in finding.single_sides:
            change = simulator(canvas, side, finding.severity, streams[index])
            mask = _mask(canvas, change)
            if not mask.any():
                raise NotVisibleError(f"{finding.row.title} ({side}) left no visible trace on this face.")
            masks[index] |= mask
            canvas = _apply(canvas, change, mask, confined=finding.row.channels[0] == "appearance")
    result = np.rint(np.clip(canvas.image, 0.0, 1.0) * 255.0).astype(np.uint8)
    return Simulation(result, findings, masks, canvas.landmarks)


def _mask(canvas: Canvas, change: Change) -> np.ndarray:
    """Where the sign is: as its simulator says, or else wherever the change is just noticeable, holes filled."""
    if change.area is not None:
        return change.area >= 0.5
    difference = cv2.cvtColor(change.image, cv2.COLOR_RGB2LAB) - canvas.lab
    distance = gaussian_filter(np.linalg.norm(difference, axis=-1), 0.8 * canvas.px)
    mask = (distance >= _JUST_NOTICEABLE).astype(np.uint8)
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, ellipse(1.5 * canvas.px)) > 0


def _apply(canvas: Canvas, change: Change, mask: np.ndarray, confined: bool) -> Canvas:
    image = change.image
    if confined:
        # Full strength on the mask, fading to nothing over the rim around it.
        distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
        rim = _RIM * canvas.size
        weight = np.clip((rim - distance) / (0.5 * rim), 0.0, 1.0)[..., None]
        image = canvas.image + weight * (image - canvas.image)
    if change.landmarks is None:
        return canvas.painted(image)
    return Canvas(image, change.landmarks)
