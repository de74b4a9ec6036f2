"""Maps of a tower brought to one width, in sides that halve."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Pyramid(nn.Module):
    """A feature pyramid (Lin et al., arXiv:1612.03144) whose sides halve from `side` on, whatever the tower's own are.

    The finest level, which only the masks are read from, has a quarter of the channels.

    Args:
        in_channels (`list[int]`):
            Widths of the tower's maps, fine to coarse.
        channels (`int`):
            Width C of all levels but the finest.
        side (`int`):
            Side of the finest level.
    """

    def __init__(self, in_channels: list[int], channels: int, side: int):
        super().__init__()
        self.side = side
        widths = [channels // 4] + [channels] * (len(in_channels) - 1)
        self.laterals = nn.ModuleList(nn.Conv2d(*pair, 1) for pair in zip(in_channels, widths, strict=True))
        self.narrow = nn.Conv2d(channels, widths[0], 1)
        self.smooths = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
                nn.BatchNorm2d(width),
                nn.Conv2d(width, width, 1),
                nn.SiLU(),
            )
            for width in widths
        )

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Maps `[B, C, side, side]`, fine to coarse, from the tower's maps in that order."""
        maps: list[torch.Tensor] = []
        above = None
        for index in reversed(range(len(features))):
            side = self.side >> index
            lateral = resized(self.laterals[index](features[index]), side)
            if above is not None:
                above = self.narrow(above) if index == 0 else above
                lateral = lateral + resized(above, side)
            above = lateral + self.smooths[index](lateral)
            maps.insert(0, above)
        return maps


def resized(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Maps `[B, C, H, W]` in the size `[B, C, side, side]`."""
    if maps.shape[-1] == side:
        return maps
    return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)
