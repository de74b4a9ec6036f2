"""The distribution of face shapes, for drawing faces of nobody that have no source to take their pose from."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

from .mesh import NUM_LANDMARKS


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
