"""Closer looks than that of the tower for the whole face, at all the resolution there is: at the eyes, and at the skin.

An eye is 28 px of a 256 px crop wide, a lid that hangs by a millimetre is one pixel lower, and a mole is 4 px across. A
tower for whole faces, whose maps have a cell for 4 to 32 px, spends most of its work where such things do not show.
Both towers here are small, see pixels before they see cells, and can be trained by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg
from torch import nn

from .pyramid import Pyramid, resized
from .taxonomy import TAXONOMY, Region

_EYE_REGIONS: tuple[Region, ...] = (
    "upper_lid",
    "lower_lid",
    "lids",
    "globe",
    "conjunctiva",
    "pupil",
    "periorbital",
    "brow",
)
_SIDES = ("right", "left")

# Window of the patient's right eye, in shares of the crop's side; the left one's is its mirror image. Faces aligned as
# FFHQ have their eyes so firmly in place (to 0.6 px of 256) that no landmarks are needed.
_LEFT_EDGE, _TOP_EDGE, _WINDOW = 1 / 4, 11 / 32, 1 / 4
_EYE_SIDE = 128  # px that a window is seen in: twice those of a 256 px crop, as the tower's stem halves them
_EYE_WIDTHS, _EYE_DEPTHS = (32, 64, 96, 160), (1, 2, 2, 2)
_SUMMARY = 32  # channels of the coarsest map that are compared between the eyes
_HIDDEN = 192
_SKIN_WIDTHS, _SKIN_DEPTHS = (24, 48, 96, 128), (1, 1, 2, 1)
_RARE = -3.0  # log odds of a sign, before anything is known


@dataclass
class CloseUpOutput:
    """What is seen on both sides, the patient's right one first.

    Args:
        answers (`torch.Tensor`):
            `[B, 2, K, 2]`: evidence for each of the tower's signs on each side, and for its severity.
        mask_logits (`torch.Tensor`):
            `[B, K, H, W]`: evidence that a pixel belongs to a sign, in the part of the encoder's masks that is seen.
        memory (`torch.Tensor`):
            `[B, N, C]`: what else was seen, place by place; `CloseUp.position` tells the places.
    """

    answers: torch.Tensor
    mask_logits: torch.Tensor
    memory: torch.Tensor


class CloseUp(nn.Module):
    """A tower that answers for some of the signs, and what its answers count for.

    Args:
        signs (`Sequence[str]`):
            The K signs that it answers for.
        labels (`Sequence[str]`):
            The encoder's labels.
        manifestations (`Sequence[str]`):
            The encoder's manifestations.
        widths, depths (`Sequence[int]`):
            Channels and blocks of each stage of its trunk.
        channels (`int`):
            Width of its pyramid.
        side (`int`):
            Side of the finest level, half of what the trunk sees.

    Raises:
        `ValueError`: if a sign has no label.
    """

    label_index: torch.Tensor
    sign_index: torch.Tensor
    share: torch.Tensor
    position: nn.Parameter

    def __init__(
        self,
        signs: Sequence[str],
        labels: Sequence[str],
        manifestations: Sequence[str],
        widths: Sequence[int],
        depths: Sequence[int],
        channels: int,
        side: int,
    ):
        super().__init__()
        names = [[sign if sign in labels else f"{sign}:{side}" for sign in signs] for side in _SIDES]
        missing = {name for row in names for name in row} - set(labels)
        if missing:
            raise ValueError(f"`labels` must have all of the manifestations, but lacks {', '.join(sorted(missing))}.")
        index = [[labels.index(name) for name in row] for row in names]
        self.register_buffer("label_index", torch.tensor(index), persistent=False)
        self.register_buffer(
            "sign_index", torch.tensor([manifestations.index(sign) for sign in signs]), persistent=False
        )
        # A sign of the whole face is told by both sides, each with half of the say.
        whole = torch.tensor([0.5 if sign in labels else 1.0 for sign in signs])
        self.register_buffer("share", whole[None, :, None], persistent=False)
        self.trunk = _trunk(widths, depths)
        self.pyramid = Pyramid(list(widths), channels, side)
        self.fine_mask_head = nn.Conv2d(channels // 4, len(signs), 1, bias=False)
        self.mask_head = nn.Conv2d(channels, len(signs), 1)
        self.mask_head.bias = nn.Parameter(torch.full((len(signs),), _RARE))
        self.evidence_scale = nn.Parameter(torch.full((len(signs),), 0.5))

    def look(self, pictures: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The pyramid's maps of pictures in [0, 1], fine to coarse, and masks of the size of the finest."""
        pictures = pictures.contiguous(memory_format=torch.channels_last)  # a CPU's convolutions like it by a third
        maps = self.pyramid(self.trunk.forward_intermediates((pictures - 0.5) * 4.0, intermediates_only=True))
        return maps, self.fine_mask_head(maps[0]) + resized(self.mask_head(maps[1]), maps[0].shape[-1])

    def add_answers(self, answers: torch.Tensor, output: CloseUpOutput) -> torch.Tensor:
        """The encoder's answers `[B, L, 2]` with those of this tower added."""
        own = (self.share * output.answers).flatten(1, 2)
        return answers.index_add(1, self.label_index.flatten(), own.to(answers.dtype))

    def add_masks(self, mask_logits: torch.Tensor, output: CloseUpOutput) -> torch.Tensor:
        """The encoder's masks `[B, M, S/2, S/2]` with those of this tower added."""
        return mask_logits.index_add(1, self.sign_index, self.placed(output.mask_logits).to(mask_logits.dtype))

    def visible(self, masks: torch.Tensor) -> torch.Tensor:
        """What this tower sees `[..., H, W]` of masks of the encoder's size."""
        return masks

    def placed(self, mask_logits: torch.Tensor) -> torch.Tensor:
        """The inverse of [`visible`], with zeros elsewhere."""
        return mask_logits


def _trunk(widths: Sequence[int], depths: Sequence[int]) -> ByobNet:
    """A residual network of 3 x 3 convolutions, which begins at half of the resolution and halves it each stage."""
    blocks = tuple(
        ByoBlockCfg(type="basic", d=depth, c=width, s=2 if stage else 1, gs=0, br=1.0)
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True))
    )
    config = ByoModelCfg(blocks=blocks, stem_chs=widths[0], stem_type="3x3", stem_pool="", act_layer="silu")
    return ByobNet(config, num_classes=0)


class EyeTower(CloseUp):
    """Sees the right eye and the mirrored left one with the same weights, and compares the two.

    Whether an eye is turned, or a lid hangs, often shows only beside the other one: what is said of an eye is read from
    the summaries of both.

    Args:
        labels, manifestations:
            See [`CloseUp`]; it answers for those of lids, globes and brows.
        channels (`int`):
            Width C of the pyramid, as in the encoder's.
        mask_size (`int`):
            Side of the encoder's masks; a window is a quarter of it, W.
    """

    def __init__(self, labels: Sequence[str], manifestations: Sequence[str], channels: int, mask_size: int):
        signs = [name for name in manifestations if TAXONOMY[name].region in _EYE_REGIONS]
        side = _EYE_SIDE // 2
        super().__init__(signs, labels, manifestations, _EYE_WIDTHS, _EYE_DEPTHS, channels, side)
        self.mask_size = mask_size
        coarse = side >> (len(_EYE_WIDTHS) - 1)
        self.summary = nn.Sequential(nn.Conv2d(channels, _SUMMARY, 1), nn.SiLU(), nn.Flatten(1), nn.Dropout(0.1))
        self.compare = nn.Sequential(nn.Linear(2 * _SUMMARY * coarse**2, _HIDDEN), nn.GELU(), nn.Dropout(0.1))
        self.answer = nn.Linear(_HIDDEN, 2 * len(signs))
        self.answer.bias = nn.Parameter(torch.tensor([_RARE, 0.0]).repeat(len(signs)))
        self.position = nn.Parameter(0.02 * torch.randn(2 * coarse**2, channels))

    @property
    def window(self) -> int:
        """Side W of a window in the encoder's masks."""
        return round(_WINDOW * self.mask_size)

    def forward(self, images: torch.Tensor) -> CloseUpOutput:
        """
        Args:
            images (`torch.Tensor`):
                float `[B, 3, S, S]`, RGB in [0, 1]: aligned face crops.

        Returns:
            `CloseUpOutput`: masks of both windows side by side, as they lie in the crop, `[B, K, W, 2W]`.
        """
        maps, mask_logits = self.look(self._windows(images))
        # In float32, as no antialiasing on a CPU knows the half floats of mixed precision.
        mask_logits = F.interpolate(mask_logits.float(), size=(self.window,) * 2, mode="bilinear", antialias=True)

        summaries = self.summary(maps[-1]).unflatten(0, (2, -1))
        pairs = torch.cat([summaries, summaries.flip(0)], dim=2)
        answers = self.answer(self.compare(pairs)).unflatten(2, (-1, 2))
        evidence = F.avg_pool2d(mask_logits, 2).amax((2, 3)).unflatten(0, (2, -1))
        answers = torch.stack([answers[..., 0] + self.evidence_scale * evidence, answers[..., 1]], dim=-1)

        right, left = mask_logits.chunk(2)
        seen = maps[-1].flatten(2).transpose(1, 2).chunk(2)
        return CloseUpOutput(
            answers=answers.transpose(0, 1),
            mask_logits=torch.cat([right, left.flip(3)], dim=3),
            memory=torch.cat(seen, dim=1),
        )

    def _windows(self, images: torch.Tensor) -> torch.Tensor:
        """The right eyes and then the left ones, mirrored: `[2B, 3, 128, 128]`."""
        windows = torch.cat([_right_eye(images), _right_eye(images.flip(3))])
        return resized(windows, _EYE_SIDE)

    def visible(self, masks: torch.Tensor) -> torch.Tensor:
        """Both windows side by side, `[..., W, 2W]`, of masks of the encoder's size."""
        return torch.cat([_right_eye(masks), _right_eye(masks.flip(-1)).flip(-1)], dim=-1)

    def placed(self, mask_logits: torch.Tensor) -> torch.Tensor:
        """Both windows where they lie in the crop, zero elsewhere: `[B, K, mask_size, mask_size]`."""
        top, left = (round(share * self.mask_size) for share in (_TOP_EDGE, _LEFT_EDGE))
        below, right = self.mask_size - top - self.window, self.mask_size - left - 2 * self.window
        return F.pad(mask_logits, (left, right, top, below))


def _right_eye(maps: torch.Tensor) -> torch.Tensor:
    """The window of the right eye in maps `[..., S, S]`."""
    top, left, side = (round(share * maps.shape[-1]) for share in (_TOP_EDGE, _LEFT_EDGE, _WINDOW))
    return maps[..., top : top + side, left : left + side]


class SkinTower(CloseUp):
    """Sees the whole crop, and says of each sign where it is before it says whether it is there.

    What is said of a sign on a side is read from where on that side its mask is strongest.

    Args:
        labels, manifestations:
            See [`CloseUp`]; it answers for all that the eyes' tower does not.
        channels (`int`):
            Width C of the pyramid, as in the encoder's.
        mask_size (`int`):
            Side of the encoder's masks.
    """

    def __init__(self, labels: Sequence[str], manifestations: Sequence[str], channels: int, mask_size: int):
        signs = [name for name in manifestations if TAXONOMY[name].region not in _EYE_REGIONS]
        super().__init__(signs, labels, manifestations, _SKIN_WIDTHS, _SKIN_DEPTHS, channels, mask_size)
        self.answer_weight = nn.Parameter(torch.randn(len(signs), channels, 2) * channels**-0.5)
        self.answer_bias = nn.Parameter(torch.tensor([_RARE, 0.0]).repeat(len(signs), 1))
        self.position = nn.Parameter(0.02 * torch.randn((mask_size >> (len(_SKIN_WIDTHS) - 1)) ** 2, channels))

    def forward(self, images: torch.Tensor) -> CloseUpOutput:
        """
        Args:
            images (`torch.Tensor`):
                float `[B, 3, S, S]`, RGB in [0, 1]: aligned face crops.

        Returns:
            `CloseUpOutput`: masks of the encoder's size.
        """
        maps, mask_logits = self.look(images)
        evidence = F.avg_pool2d(mask_logits, 2)
        seen = maps[2]
        places = F.adaptive_max_pool2d(evidence, seen.shape[-1])
        answers = []
        for half, where, what in zip(evidence.chunk(2, 3), places.chunk(2, 3), seen.chunk(2, 3), strict=True):
            weight = where.flatten(2).softmax(-1)
            gathered = weight @ what.flatten(2).transpose(1, 2)
            told = torch.einsum("bkc,kco->bko", gathered, self.answer_weight) + self.answer_bias
            told = torch.stack([told[..., 0] + self.evidence_scale * half.amax((2, 3)), told[..., 1]], dim=-1)
            answers.append(told)
        memory = maps[-1].flatten(2).transpose(1, 2)
        return CloseUpOutput(answers=torch.stack(answers, 1), mask_logits=mask_logits, memory=memory)
