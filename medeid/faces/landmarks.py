"""Dense landmarks of an aligned face crop."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from .mesh import LANDMARK_SIZE, NUM_LANDMARKS


class _ResidualBlock(nn.Module):
    """Pre-activation residual block (He et al., arXiv:1603.05027) with GroupNorm."""

    def __init__(self, channels: int, norm_num_groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(norm_num_groups, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(norm_num_groups, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        residual = self.conv1(F.relu(self.norm1(hidden)))
        return hidden + self.conv2(F.relu(self.norm2(residual)))


class LandmarkNet(ModelMixin, ConfigMixin):
    """Regresses the 478 points of the face mesh (see `medeid.faces.mesh`) from a face crop.

    A small residual network predicts the coefficients of a linear shape model, as active shape models do
    (Cootes et al., "Active Shape Models - Their Training and Application", 1995): points = mean shape + basis
    x coefficients. Training starts from the principal components of the training shapes and then adapts the
    basis too.

    Args:
        block_out_channels (`Sequence[int]`, *optional*, defaults to `(32, 64, 128, 192)`):
            Channels at 1/4, 1/8, 1/16, ... of the crop's resolution.
        layers_per_block (`Sequence[int]`, *optional*, defaults to `(0, 1, 1, 1)`):
            Residual blocks at each of these resolutions.
        head_channels (`int`, *optional*, defaults to 32):
            Channels that the last feature map is reduced to before it is flattened.
        num_components (`int`, *optional*, defaults to 128):
            Components of the shape model.
        norm_num_groups (`int`, *optional*, defaults to 8):
            Groups of the group normalisations.
    """

    @register_to_config
    def __init__(
        self,
        block_out_channels: Sequence[int] = (32, 64, 128, 192),
        layers_per_block: Sequence[int] = (0, 1, 1, 1),
        head_channels: int = 32,
        num_components: int = 128,
        norm_num_groups: int = 8,
    ):
        super().__init__()
        if len(layers_per_block) != len(block_out_channels):
            raise ValueError(
                f"`layers_per_block` must have one number for each of the {len(block_out_channels)} entries "
                f"of `block_out_channels`, but has {len(layers_per_block)}."
            )
        channels = block_out_channels[0]
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 7, stride=4, padding=3)]
        for level, (out_channels, num_layers) in enumerate(zip(block_out_channels, layers_per_block, strict=True)):
            if level > 0:
                layers.append(nn.Conv2d(channels, out_channels, 3, stride=2, padding=1))
                channels = out_channels
            layers += [_ResidualBlock(channels, norm_num_groups) for _ in range(num_layers)]
        self.features = nn.Sequential(*layers)

        side = LANDMARK_SIZE // 4 // 2 ** (len(block_out_channels) - 1)
        self.head_norm = nn.GroupNorm(norm_num_groups, channels)
        self.head_conv = nn.Conv2d(channels, head_channels, 1)
        self.coefficients = nn.Linear(head_channels * side * side, num_components)
        self.shape_basis = nn.Linear(num_components, NUM_LANDMARKS * 3, bias=False)
        mean_shape = torch.full((NUM_LANDMARKS, 3), (LANDMARK_SIZE - 1) / 2)
        mean_shape[:, 2] = 0.0
        self.register_buffer("mean_shape", mean_shape)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """
        Args:
            images (`torch.Tensor`):
                float32 `[B, 3, 256, 256]`, RGB in [0, 1]: aligned face crops.

        Returns:
            `torch.Tensor`: float32 `[B, 478, 3]`: x and y in pixels of the crop, pixel centres at integers; z
            (depth, smaller is nearer) on the same scale.

        Raises:
            `ValueError`: if the images have another size.
        """
        if images.ndim != 4 or images.shape[1:] != (3, LANDMARK_SIZE, LANDMARK_SIZE):
            raise ValueError(
                f"`images` must have shape [B, 3, {LANDMARK_SIZE}, {LANDMARK_SIZE}], but has "
                f"{list(images.shape)}. Resize the crops first."
            )
        hidden = self.features(2.0 * images - 1.0)
        hidden = self.head_conv(F.relu(self.head_norm(hidden)))
        offsets = self.shape_basis(self.coefficients(hidden.flatten(1)))
        return self.mean_shape + offsets.unflatten(1, (NUM_LANDMARKS, 3))
