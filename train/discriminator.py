"""What tells decoded pictures from real ones, so that the decoder learns what skin and hair look like close up."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

_GROUPS = 8
_LOUDER = 8.0


class PatchDiscriminator(nn.Module):
    """Judges each patch of 70 px by itself (Isola et al., arXiv:1611.07004).

    Args:
        widths (`tuple[int, ...]`, *optional*):
            Channels of its layers; all but the last halve the picture's side.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 128)):
        super().__init__()
        pairs = zip((6, *widths[:-1]), widths, strict=True)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(*pair, 4, stride=1 if index == len(widths) - 1 else 2, padding=1),
                # Of each picture by itself, unlike batch norm: the batch does not matter. The first layer sees colours.
                nn.GroupNorm(min(_GROUPS, pair[1]), pair[1]) if index else nn.Identity(),
                nn.LeakyReLU(0.2),
            )
            for index, pair in enumerate(pairs)
        )
        self.verdict = nn.Conv2d(widths[-1], 1, 4, padding=1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Of images `[B, 3, S, S]` the features of each layer, and last the evidence `[B, 1, H, W]` for being real."""
        # What is finer than its surroundings by itself, and louder: it is texture that is missing.
        fine = images - F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
        images = torch.cat([images, _LOUDER * fine], 1)
        features = []
        for layer in self.layers:
            images = layer(images)
            features.append(images)
        return *features, self.verdict(images)

    def losses(self, decoded: torch.Tensor, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Losses of both sides, in one graph: each side gets gradients of its own alone.

        `adversarial`: decoded patches are not taken for real. `matching`: mean absolute difference of the features of
        decoded and real pictures (Wang et al., arXiv:1711.11585), which keeps the texture where it belongs.
        `discriminator`: hinge loss of its errors (Lim and Ye, arXiv:1705.02894).
        """
        *real, is_real = self(images)
        is_fake = self(decoded.detach())[-1]
        fixed = {name: value.detach() for name, value in self.named_parameters()}
        *drawn, verdict = functional_call(self, fixed, decoded)
        matching = [F.l1_loss(feature, target.detach()) for feature, target in zip(drawn, real, strict=True)]
        return {
            "adversarial": -verdict.mean(),
            "matching": torch.stack(matching).mean(),
            "discriminator": (1.0 - is_real).relu().mean() + (1.0 + is_fake).relu().mean(),
        }
