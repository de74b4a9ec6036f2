"""What tells decoded pictures from real ones, so that the decoder learns what skin and hair look like close up."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """Judges each patch of 70 px by itself (Isola et al., arXiv:1611.07004), with spectral norm (arXiv:1802.05957).

    Args:
        widths (`tuple[int, ...]`, *optional*):
            Channels of its layers; all but the last halve the picture's side.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 128)):
        super().__init__()
        pairs = zip((3, *widths[:-1]), widths, strict=True)
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(*pair, 4, stride=1 if index == len(widths) - 1 else 2, padding=1))
            for index, pair in enumerate(pairs)
        )
        self.verdict = spectral_norm(nn.Conv2d(widths[-1], 1, 4, padding=1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Of images `[B, 3, S, S]` the features of each layer, and last the evidence `[B, 1, H, W]` for being real."""
        features = []
        for layer in self.layers:
            images = F.leaky_relu(layer(images), 0.2)
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
