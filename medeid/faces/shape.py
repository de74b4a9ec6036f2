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
    OVAL,
    RIGHT_BROW,
    RIGHT_EYE,
    RIGHT_IRIS,
    RIGHT_LIDS,
    flip_landmarks,
)

_MAX_STEP = 7.0  # px of a 256 px crop that a feature moves at most
_MAX_GROWTH = 1.12  # of the eyes
_MAX_TURN = 6.0  # degrees
_MAX_NARROWING = 1.0  # px that an outline moves inwards: neck, hair and what is behind them would have to be drawn anew


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
    "outline": OVAL,
}
# How far each point of a feature moves on by itself, px: a smile stays a smile, and ears, hair and neck where they are.
_GIVE = {"eyes": 0.0, "brows": 4.0, "nose": 4.0, "mouth": 3.0, "outline": 6.0}


def relax_landmarks(
    source: np.ndarray, surrogate: np.ndarray, held: Collection[str] = (), amount: float = 1.0
) -> np.ndarray:
    """Moves the features of a face towards where another face has them, so that its shape tells less who it is.

    The head turns and nods by a few degrees. Each feature moves as a whole, and then its points by a few pixels more;
    eyes are scaled instead. Both sides do so alike. So lid aperture, gaze and every asymmetry stay, and nearly so the
    expression. The outline moves outwards only, but for a pixel. On a head that is turned, where breadths are
    foreshortened, all of them move less.

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
        `np.ndarray`: float32 `[478, 3]`, a new array. Points of no feature stay, as do depths.

    Raises:
        `ValueError`: if a held feature is none of `FEATURES`.
    """
    unknown = set(held) - set(FEATURES)
    if unknown:
        raise ValueError(f"`held` must be of {', '.join(FEATURES)}, but has {', '.join(sorted(unknown))}.")
    turned = _turned(source, surrogate, amount)
    amount *= _frontality(turned)
    result = source.copy()
    for name in (name for name in FEATURES if name not in held):
        right = list(FEATURES[name])
        left = MIRROR[right]
        steps = amount * _steps(surrogate - turned, right, _GIVE[name])
        result[right, :2] = turned[right, :2] + steps
        result[left, :2] = turned[left, :2] + steps * (-1, 1)
        if name == "eyes":
            _scale_eyes(result, surrogate, (right, left), amount)
        if name == "outline":
            _keep_breadth(result, source, [*right, *left])
    return result


def _turned(source: np.ndarray, surrogate: np.ndarray, amount: float) -> np.ndarray:
    """The face, turned and nodding a little more as another one does. How it is tilted stays: crops are upright."""
    centre = source.mean(0)
    onto, _ = Rotation.align_vectors(surrogate - surrogate.mean(0), source - centre)
    nod, turn, _ = onto.as_euler("xyz", degrees=True).clip(-_MAX_TURN, _MAX_TURN) * amount
    rotation = Rotation.from_euler("xy", (nod, turn), degrees=True)
    return (rotation.apply(source - centre) + centre).astype(np.float32)


def _steps(difference: np.ndarray, points: list[int], give: float) -> np.ndarray:
    """float32 `[K, 2]`: how far points move of what a face `[478, 3]` differs from another in, both sides alike."""
    alike = ((difference + difference[MIRROR] * (-1, 1, 1)) / 2)[points, :2]
    whole = alike.mean(0)
    own = alike - whole
    length = np.linalg.norm(own, axis=1, keepdims=True)
    return whole.clip(-_MAX_STEP, _MAX_STEP) + own * np.minimum(1.0, give / np.maximum(length, 1e-6))


def _scale_eyes(
    landmarks: np.ndarray, surrogate: np.ndarray, sides: tuple[list[int], np.ndarray], amount: float
) -> None:
    """Scales both eyes in place, each about its middle, as much as another face's differ from them."""
    widths = [np.ptp(surrogate[side, 0]) / max(np.ptp(landmarks[side, 0]), 1e-3) for side in sides]
    growth = np.clip(np.mean(widths) ** amount, 1 / _MAX_GROWTH, _MAX_GROWTH)
    for side in sides:
        centre = landmarks[side, :2].mean(0)
        landmarks[side, :2] = centre + (landmarks[side, :2] - centre) * growth


def _keep_breadth(landmarks: np.ndarray, source: np.ndarray, points: list[int]) -> None:
    """Moves the points of an outline back outwards, as seen from between the eyes, where they lie inside of another."""
    outwards = source[points, :2] - source[list(RIGHT_EYE + LEFT_EYE), :2].mean(0)
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    moved = ((landmarks[points, :2] - source[points, :2]) * outwards).sum(1, keepdims=True)
    landmarks[points, :2] += outwards * (-_MAX_NARROWING - moved).clip(min=0.0)


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
