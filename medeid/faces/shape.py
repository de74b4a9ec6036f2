"""Shapes of faces of nobody: their distribution, and how the shape of a face gives way to another's."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from scipy.spatial.transform import Rotation

from .mesh import (
    INNER_LIPS,
    LEFT_EYE,
    MIRROR,
    NOSE,
    NOSE_BRIDGE,
    NOSE_TIP,
    NUM_LANDMARKS,
    OUTER_LIPS,
    RIGHT_BROW,
    RIGHT_EYE,
    RIGHT_IRIS,
    RIGHT_LIDS,
    flip_landmarks,
)

_MAX_STEP = 7.0  # px of a 256 px crop that a feature moves at most
_MAX_GROWTH = 1.12


class ShapePrior(ModelMixin, ConfigMixin):
    """A normal distribution over dense landmarks along their principal components.

    The shape model of Cootes et al., "Active Shape Models - Their Training and Application", 1995.

    Args:
        num_components (`int`, *optional*, defaults to 32):
            Number K of principal components.
    """

    mean: torch.Tensor
    components: torch.Tensor

    @register_to_config
    def __init__(self, num_components: int = 32):
        super().__init__()
        self.register_buffer("mean", torch.zeros(NUM_LANDMARKS * 3))
        self.register_buffer("components", torch.zeros(num_components, NUM_LANDMARKS * 3))

    @torch.no_grad()
    def fit(self, landmarks: torch.Tensor) -> ShapePrior:
        """Fits mean and components (each as long as its standard deviation) to landmarks float32 [N, 478, 3]."""
        flat = landmarks.flatten(1)
        count = self.config.num_components
        if len(flat) <= count:
            raise ValueError(f"`landmarks` has {len(flat)} faces; more than the {count} components are needed.")
        self.mean.copy_(flat.mean(0))
        _, lengths, axes = torch.linalg.svd(flat - self.mean, full_matrices=False)
        self.components.copy_(axes[:count] * lengths[:count, None] / (len(flat) - 1) ** 0.5)
        return self

    @torch.no_grad()
    def draw(self, generator: torch.Generator, spread: float = 0.8) -> torch.Tensor:
        """Draws the landmarks of a face.

        Args:
            generator (`torch.Generator`):
                A generator on the CPU.
            spread (`float`, *optional*, defaults to 0.8):
                Standard deviations are shrunk by this, as extreme shapes are rarely believable.

        Returns:
            `torch.Tensor`: float32 [478, 3] in pixels of a 256 px crop, on the CPU.
        """
        weights = torch.randn(self.config.num_components, generator=generator) * spread
        points = self.mean.float().cpu() + weights @ self.components.float().cpu()
        return points.unflatten(0, (NUM_LANDMARKS, 3))


# Points that move together, on the patient's right and on the midline; those on the left mirror them.
FEATURES: dict[str, tuple[int, ...]] = {
    "eyes": RIGHT_EYE + RIGHT_LIDS + RIGHT_IRIS,
    "brows": RIGHT_BROW,
    "nose": NOSE + NOSE_BRIDGE,
    "mouth": OUTER_LIPS + INNER_LIPS,
}


def relax_landmarks(
    source: np.ndarray, surrogate: np.ndarray, held: Collection[str] = (), amount: float = 1.0
) -> np.ndarray:
    """Moves the features of a face towards where another face has them, so that its shape tells less who it is.

    Each feature moves as a whole and is scaled, both sides alike. So expression, lid aperture, gaze and every asymmetry
    stay, and so do pose and outline. On a head that is turned, where breadths are foreshortened, it moves less.

    Args:
        source (`np.ndarray`):
            float32 `[478, 3]` in pixels of a 256 px crop.
        surrogate (`np.ndarray`):
            The other face's, likewise.
        held (`Collection[str]`, *optional*):
            Those of `FEATURES` that stay as they are.
        amount (`float`, *optional*, defaults to 1.0):
            In [0, 1]: share of the way.

    Returns:
        `np.ndarray`: float32 `[478, 3]`, a new array.

    Raises:
        `ValueError`: if a held feature is none of `FEATURES`.
    """
    unknown = set(held) - set(FEATURES)
    if unknown:
        raise ValueError(f"`held` must be of {', '.join(FEATURES)}, but has {', '.join(sorted(unknown))}.")
    amount *= _frontality(source)
    result = source.copy()
    for name, points in FEATURES.items():
        if name in held:
            continue
        sides = [list(points), MIRROR[list(points)].tolist()]
        pairs = [(source[side, :2], surrogate[side, :2]) for side in sides]
        right, left = (amount * (other.mean(0) - own.mean(0)) for own, other in pairs)
        apart, down = np.clip(((left - right)[0] / 2, (left + right)[1] / 2), -_MAX_STEP, _MAX_STEP)
        growth = np.mean([np.ptp(other[:, 0]) / max(np.ptp(own[:, 0]), 1e-3) for own, other in pairs]) ** amount
        growth = np.clip(growth, 1 / _MAX_GROWTH, _MAX_GROWTH)
        for side, (own, _), outwards in zip(sides, pairs, (-1, 1), strict=True):
            centre = own.mean(0)
            result[side, :2] = centre + (own - centre) * growth + (outwards * apart, down)
    return result


def with_asymmetry(landmarks: np.ndarray, more: np.ndarray) -> np.ndarray:
    """A face with more of its asymmetry, or less: of what differs from its mirror image once that lies on it.

    Args:
        landmarks (`np.ndarray`):
            float32 `[478, 3]` in pixels of a 256 px crop.
        more (`np.ndarray`):
            float32 `[478]`: how far each point moves on, in its distances to its mirror image. 0 leaves it where it
            is; -1 moves it onto its mirror image, and -0.5 on both sides makes them the same.

    Returns:
        `np.ndarray`: float32 `[478, 3]`, a new array. Pose and size stay.
    """
    middle, mirrored = landmarks.mean(0), flip_landmarks(landmarks)
    mirrored -= mirrored.mean(0)
    onto, _ = Rotation.align_vectors(landmarks - middle, mirrored)
    asymmetry = landmarks - middle - onto.apply(mirrored)
    return (landmarks + more[:, None] * asymmetry).astype(np.float32)


def _frontality(landmarks: np.ndarray) -> float:
    """1 for a face that looks ahead, 0 from where a turn of the head (about 40 degrees) has the nose below an eye."""
    eyes = [landmarks[list(eye), 0].mean() for eye in (RIGHT_EYE, LEFT_EYE)]
    share = (landmarks[NOSE_TIP, 0] - eyes[0]) / max(eyes[1] - eyes[0], 1e-3)
    return float(np.clip(1.0 - 2.0 * abs(share - 0.5), 0.0, 1.0))
