"""Reading which signs of disease are in a face, where and how severe, and telling them on without the person."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from open_clip.transformer import VisionTransformer
from torch import nn

from .taxonomy import LABELS, TAXONOMY

TOWERS = Path(__file__).with_name("towers")  # configs of vision towers that open_clip does not bring
_MEMORY_SIZE = 32  # side of the map that the queries attend over
MASK_SIZE = 128
_MAX_LOG_VARIANCE = 4.0
_RARE = -3.0  # log odds of a sign, before anything is known
_NUM_BLOCKS = 4  # of a plain transformer, whose maps all have one size


@dataclass
class ManifestationOutput(BaseOutput):
    """What the encoder reads.

    Args:
        logits (`torch.Tensor`):
            `[B, L]`: evidence for each label, calibrated so that their sigmoid is a probability.
        severities (`torch.Tensor`):
            `[B, L]` in [0, 1]: how severe each sign is, if it is there.
        mask_logits (`torch.Tensor`):
            `[B, M, 128, 128]`: evidence that a pixel belongs to a manifestation, both sides in one map.
        tokens (`torch.Tensor`):
            `[B, T, D]`: the manifestation tokens for cross-attention, drawn from the bottleneck while training and its
            mean otherwise.
        token_mean, token_log_variance (`torch.Tensor`):
            `[B, T, D]`: the bottleneck's normal distribution.
        token_logits (`torch.Tensor`):
            `[B, L]`: what the tokens alone say of the labels.
        token_severities (`torch.Tensor`):
            `[B, L]` in [0, 1].
        features (`torch.Tensor`):
            `[B, C]`: pooled features before the bottleneck, which do know who it is.
    """

    logits: torch.Tensor
    severities: torch.Tensor
    mask_logits: torch.Tensor
    tokens: torch.Tensor
    token_mean: torch.Tensor
    token_log_variance: torch.Tensor
    token_logits: torch.Tensor
    token_severities: torch.Tensor
    features: torch.Tensor


@dataclass(frozen=True)
class Reading:
    """A sign that the encoder found on a face.

    Args:
        manifestation (`str`):
            A name of the taxonomy.
        side (`str`):
            The patient's own: `"left"`, `"right"`, or `"both"` for a sign of the whole face.
        probability (`float`):
            In [0, 1].
        severity (`float`):
            In [0, 1].
    """

    manifestation: str
    side: str
    probability: float
    severity: float

    def __str__(self) -> str:
        row = TAXONOMY[self.manifestation]
        where = f" ({self.side})" if row.lateral else ""
        return f"{row.title}{where}: {self.probability:.0%}, severity {self.severity:.1f}, {row.region}"


class _Pyramid(nn.Module):
    """A feature pyramid (Lin et al., arXiv:1612.03144) of sides 128, 64, 32 ... whatever the tower's own sides are.

    The finest level, which only the masks are read from, has a quarter of the channels.
    """

    def __init__(self, in_channels: list[int], channels: int):
        super().__init__()
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
            side = MASK_SIZE >> index
            lateral = _resized(self.laterals[index](features[index]), side)
            if above is not None:
                above = self.narrow(above) if index == 0 else above
                lateral = lateral + _resized(above, side)
            above = lateral + self.smooths[index](lateral)
            maps.insert(0, above)
        return maps


def _resized(maps: torch.Tensor, side: int) -> torch.Tensor:
    if maps.shape[-1] == side:
        return maps
    return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)


class _Queries(nn.Module):
    """Learned questions that each gather an answer from a map by attention.

    Liu et al., "Query2Label: A Simple Transformer Way to Multi-Label Classification", arXiv:2107.10834.
    """

    def __init__(self, count: int, channels: int, heads: int = 4):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(count, channels) * channels**-0.5)
        self.norm = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.norm_out = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, memory: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Answers `[B, count, C]` from a memory `[B, N, C]` with positions `[N, C]`."""
        memory = self.norm(memory)
        queries = self.queries.expand(len(memory), -1, -1)
        answers, _ = self.attention(queries, memory + position, memory, need_weights=False)
        answers = queries + answers
        return answers + self.mlp(self.norm_out(answers))


class ManifestationEncoder(ModelMixin, ConfigMixin):
    """Which signs, where, how severe; and tokens that carry them through an information bottleneck.

    A vision tower of open_clip sees the face crop. A pyramid over its maps gives a mask for each manifestation. One
    query for each label asks the pyramid whether that sign is there on that side, and how severe; the strongest place
    of the sign's mask on that side is evidence, too. A few more queries gather what the generator needs; they pass a
    variational information bottleneck (Alemi et al., arXiv:1612.00410), which charges for every bit, so that what tells
    the signs goes through and the person stays behind; this is the minimum description length idea of arXiv:2507.21703.

    Args:
        tower (`str`, *optional*, defaults to `"medeid-tiny"`):
            Name of an open_clip model config: one of `medeid/manifestations/towers`, or any that open_clip knows
            (`hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224` ...).
        image_size (`int`, *optional*, defaults to 256):
            Side of the crops that the tower sees; others are resized.
        channels (`int`, *optional*, defaults to 64):
            Width of pyramid and queries.
        num_tokens (`int`, *optional*, defaults to 8):
            Number T of manifestation tokens.
        token_dim (`int`, *optional*, defaults to 32):
            Width D of a token.
        labels (`tuple[str, ...]`, *optional*):
            The labels, in order; the taxonomy's by default.
        manifestations (`tuple[str, ...]`, *optional*):
            The manifestations with a mask, in order; the taxonomy's by default.

    Raises:
        `ValueError`: if open_clip does not know the tower; the message lists what it knows.
    """

    image_mean: torch.Tensor
    image_std: torch.Tensor
    evidence_index: torch.Tensor
    position: torch.Tensor
    temperature: torch.Tensor
    threshold: torch.Tensor

    @register_to_config
    def __init__(
        self,
        tower: str = "medeid-tiny",
        image_size: int = 256,
        channels: int = 64,
        num_tokens: int = 8,
        token_dim: int = 32,
        labels: tuple[str, ...] = LABELS,
        manifestations: tuple[str, ...] = tuple(TAXONOMY),
    ):
        super().__init__()
        self.vision: Any = _create_tower(tower)
        self.pyramid = _Pyramid(self._widths(), channels)
        self.mask_head = nn.Conv2d(channels // 4, len(manifestations), 1)
        self.mask_head.bias = nn.Parameter(torch.full((len(manifestations),), _RARE))
        self.label_queries = _Queries(len(labels), channels)
        self.label_head = nn.Linear(channels, 2)
        self.label_bias = nn.Parameter(torch.tensor([_RARE, 0.0]).repeat(len(labels), 1))
        self.evidence_scale = nn.Parameter(torch.full((len(labels),), 0.5))
        self.token_queries = _Queries(num_tokens, channels)
        self.to_bottleneck = nn.Linear(channels, 2 * token_dim)
        self.token_reader = nn.Sequential(
            nn.Flatten(1), nn.Linear(num_tokens * token_dim, 256), nn.GELU(), nn.Linear(256, 2 * len(labels))
        )
        for name in ("image_mean", "image_std"):
            values = torch.tensor(getattr(self.vision, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)
        halves = ("right", "left", "")
        index = [
            halves.index(side) * len(manifestations) + manifestations.index(name)
            for name, _, side in (label.partition(":") for label in labels)
        ]
        self.register_buffer("evidence_index", torch.tensor(index), persistent=False)
        position = get_2d_sincos_pos_embed(channels, _MEMORY_SIZE, output_type="pt")
        self.register_buffer("position", position.float(), persistent=False)
        self.register_buffer("temperature", torch.ones(len(labels)))
        self.register_buffer("threshold", torch.full((len(labels),), 0.5))

    def _widths(self) -> list[int]:
        """Widths of the tower's maps, fine to coarse."""
        if isinstance(self.vision, VisionTransformer):
            return [self.vision.conv1.out_channels] * _NUM_BLOCKS
        return [level["num_chs"] for level in self.vision.trunk.feature_info]

    def _maps(self, normalised: torch.Tensor) -> list[torch.Tensor]:
        """The tower's maps, fine to coarse: of its stages, or of four blocks spread over a plain transformer."""
        indices = None
        if isinstance(self.vision, VisionTransformer):
            depth = len(self.vision.transformer.resblocks)
            indices = [depth * (i + 1) // _NUM_BLOCKS - 1 for i in range(_NUM_BLOCKS)]
        return self.vision.forward_intermediates(normalised, indices, intermediates_only=True)["image_intermediates"]

    def forward(self, images: torch.Tensor, generator: torch.Generator | None = None) -> ManifestationOutput:
        """
        Args:
            images (`torch.Tensor`):
                float `[B, 3, S, S]`, RGB in [0, 1]: aligned face crops.
            generator (`torch.Generator`, *optional*):
                Of the noise in the bottleneck while training.

        Returns:
            `ManifestationOutput`

        Raises:
            `ValueError`: if the images are no square RGB crops.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ValueError(f"`images` must have shape [B, 3, S, S], but has {list(images.shape)}. Align the faces.")
        size = self.config.image_size
        if images.shape[-1] != size:
            images = F.interpolate(images, size=(size, size), mode="bicubic", antialias=True).clamp(0.0, 1.0)
        maps = self.pyramid(self._maps((images - self.image_mean) / self.image_std))
        memory = _resized(maps[2], _MEMORY_SIZE).flatten(2).transpose(1, 2)

        answers = self.label_head(self.label_queries(memory, self.position)) + self.label_bias
        mask_logits = self.mask_head(maps[0])
        logits, severities = answers.unbind(-1)
        logits = logits + self.evidence_scale * self._evidence(mask_logits)
        mean, log_variance = self.to_bottleneck(self.token_queries(memory, self.position)).chunk(2, dim=-1)
        log_variance = log_variance.clamp(-_MAX_LOG_VARIANCE, _MAX_LOG_VARIANCE)
        tokens = mean
        if self.training:
            tokens = mean + randn_tensor(mean.shape, generator, mean.device, mean.dtype) * (0.5 * log_variance).exp()
        token_logits, token_severities = self.token_reader(tokens).chunk(2, dim=-1)
        return ManifestationOutput(
            logits=logits / self.temperature,
            severities=severities.sigmoid(),
            mask_logits=mask_logits,
            tokens=tokens,
            token_mean=mean,
            token_log_variance=log_variance,
            token_logits=token_logits,
            token_severities=token_severities.sigmoid(),
            features=maps[-1].mean((2, 3)),
        )

    def _evidence(self, mask_logits: torch.Tensor) -> torch.Tensor:
        """The strongest place of each label's sign on its side, `[B, L]`; the patient's left is on the crop's right."""
        coarse = F.avg_pool2d(mask_logits, 4)
        right, left = (half.amax((2, 3)) for half in coarse.chunk(2, dim=3))
        return torch.cat([right, left, torch.maximum(left, right)], 1)[:, self.evidence_index]

    @torch.no_grad()
    def describe(self, images: torch.Tensor) -> list[list[Reading]]:
        """The signs whose probability is above their threshold, the likeliest first.

        Args:
            images (`torch.Tensor`):
                float `[B, 3, S, S]`, RGB in [0, 1]: aligned face crops.

        Returns:
            `list[list[Reading]]`: one list for each face.
        """
        output = self(images)
        probabilities = output.logits.sigmoid()
        readings: list[list[Reading]] = []
        for chances, severities in zip(probabilities, output.severities, strict=True):
            found = []
            for number in torch.nonzero(chances > self.threshold).flatten().tolist():
                name, _, side = self.config.labels[number].partition(":")
                found.append(Reading(name, side or "both", chances[number].item(), severities[number].item()))
            readings.append(sorted(found, key=lambda reading: -reading.probability))
        return readings


def _create_tower(name: str) -> nn.Module:
    """The vision tower of an open_clip model, with random weights: they come from the encoder's own file."""
    if name not in open_clip.list_models():
        open_clip.add_model_config(TOWERS)
    if name not in open_clip.list_models():
        raise ValueError(f"`tower` must be a model that open_clip knows, but is {name!r}: {open_clip.list_models()}")
    # Without memory for weights while `from_pretrained` is building the model, which will bring them.
    device = nn.Linear(1, 1).weight.device
    return open_clip.create_model(name, load_weights=False, device=device).visual
