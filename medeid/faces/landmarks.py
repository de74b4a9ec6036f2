"""Dense landmarks of an aligned face crop."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from .mesh import (
    INNER_LIPS,
    LANDMARK_SIZE,
    MIRROR,
    MOUTH_CORNERS,
    NUM_LANDMARKS,
    OUTER_LIPS,
    RIGHT_BROW,
    RIGHT_EYE,
    RIGHT_IRIS,
    RIGHT_LIDS,
)

_PATCH_SIZE = 64  # px
_EYE = RIGHT_EYE + RIGHT_IRIS + RIGHT_LIDS + RIGHT_BROW
_LIPS = OUTER_LIPS + INNER_LIPS
_EYE_CORNERS = (33, 133)  # of the right eye, outer and inner
# Half a patch, in distances between the corners of the eye or of the mouth.
_EYE_REACH, _LIPS_REACH = 1.0, 0.85


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


class _Refiner(nn.Module):
    """Looks at one part of the face close up and corrects its points.

    Grishchenko et al., "Attention Mesh: High-fidelity Face Mesh Prediction in Real-time", arXiv:2006.10962.
    """

    def __init__(self, num_points: int, block_out_channels: Sequence[int], norm_num_groups: int):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for out_channels in block_out_channels:
            kernel = 5 if channels == 3 else 3
            layers += [
                nn.Conv2d(channels, out_channels, kernel, stride=2, padding=kernel // 2, bias=False),
                nn.GroupNorm(norm_num_groups, out_channels),
                nn.ReLU(),
                _ResidualBlock(out_channels, norm_num_groups),
            ]
            channels = out_channels
        side = _PATCH_SIZE // 2 ** len(block_out_channels)
        self.features = nn.Sequential(*layers, nn.Conv2d(channels, 16, 1), nn.ReLU(), nn.Flatten())
        self.offsets = nn.Linear(16 * side * side, 2 * num_points)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.offsets.bias)

    def forward(self, images: torch.Tensor, corners: torch.Tensor, reach: float, mirrored: bool) -> torch.Tensor:
        """
        Args:
            images (`torch.Tensor`):
                `[B, 3, 256, 256]` in [-1, 1].
            corners (`torch.Tensor`):
                `[B, 2, 2]`, two points (x, y) that the patch lies level with.
            reach (`float`):
                Half of its side, in distances between the corners.
            mirrored (`bool`):
                The patch is taken mirrored, so that a left eye looks like a right one.

        Returns:
            `torch.Tensor`: `[B, P, 2]`, by how many pixels of the crop each point is to be moved.
        """
        corners = corners.detach()
        centre = corners.mean(1)
        across = (corners[:, 1] - corners[:, 0]) * reach
        down = torch.stack([-across[:, 1], across[:, 0]], 1) * (-1.0 if mirrored else 1.0)
        axes = torch.stack([across, down], 2)  # [B, 2, 2]: patch coordinates in [-1, 1] to crop pixels
        scale = 2.0 / LANDMARK_SIZE
        theta = torch.cat([axes * scale, ((centre + 0.5) * scale - 1.0)[..., None]], 2)
        grid = F.affine_grid(theta, [len(images), 3, _PATCH_SIZE, _PATCH_SIZE], align_corners=False)
        patches = F.grid_sample(images, grid, align_corners=False, padding_mode="border")
        offsets = self.offsets(self.features(patches)).unflatten(1, (-1, 2))
        return offsets @ axes.transpose(1, 2)


class LandmarkNet(ModelMixin, ConfigMixin):
    """Regresses the 478 points of the face mesh (see `medeid.faces.mesh`) from a face crop.

    A small residual network predicts the coefficients of a linear shape model, as active shape models do
    (Cootes et al., "Active Shape Models - Their Training and Application", 1995): points = mean shape + basis
    x coefficients. Training starts from the principal components of the training shapes and then adapts the
    basis too. A shape model knows faces as they mostly are; a drooping lid, a squint or a palsied mouth is read by two
    more networks, which look at each eye and at the mouth close up and correct their points.

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
        refiner_channels (`Sequence[int]`, *optional*, defaults to `()`):
            Channels of the networks for eyes and mouth at 1/2, 1/4, ... of a patch of 64 px. Without them there are
            none of these networks.
    """

    @register_to_config
    def __init__(
        self,
        block_out_channels: Sequence[int] = (32, 64, 128, 192),
        layers_per_block: Sequence[int] = (0, 1, 1, 1),
        head_channels: int = 32,
        num_components: int = 128,
        norm_num_groups: int = 8,
        refiner_channels: Sequence[int] = (),
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
        self.refiners = nn.ModuleDict()
        if refiner_channels:
            self.refiners["eye"] = _Refiner(len(_EYE), refiner_channels, norm_num_groups)
            self.refiners["lips"] = _Refiner(len(_LIPS), refiner_channels, norm_num_groups)

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
        images = 2.0 * images - 1.0
        hidden = self.features(images)
        hidden = self.head_conv(F.relu(self.head_norm(hidden)))
        offsets = self.shape_basis(self.coefficients(hidden.flatten(1)))
        landmarks = self.mean_shape + offsets.unflatten(1, (NUM_LANDMARKS, 3))
        return self._refine(images, landmarks) if self.refiners else landmarks

    def _refine(self, images: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:
        xy = landmarks[..., :2]
        correction = torch.zeros_like(xy)
        left, left_corners = (MIRROR[list(points)].tolist() for points in (_EYE, _EYE_CORNERS))
        correction[:, list(_EYE)] = self.refiners["eye"](images, xy[:, list(_EYE_CORNERS)], _EYE_REACH, False)
        correction[:, left] = self.refiners["eye"](images, xy[:, left_corners], _EYE_REACH, True)
        correction[:, list(_LIPS)] = self.refiners["lips"](images, xy[:, list(MOUTH_CORNERS)], _LIPS_REACH, False)
        return torch.cat([xy + correction, landmarks[..., 2:]], dim=-1)
