"""Reading which signs of disease are in a face, where and how severe, and telling them on without the person."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from open_clip import CustomTextCLIP
from torch import nn

from .close_ups import EyeTower, SkinTower
from .fusion import Replaced, fuse_batch_norms
from .pyramid import Pyramid, resized
from .taxonomy import LABELS, TAXONOMY, Manifestation, Side, label_name
from .tower import adaptable_layers, create_clip, create_tokenizer, find_weights, map_widths, read_config, tower_maps

_MAX_LOG_VARIANCE = 4.0
_RARE = -3.0  # log odds of a sign, before anything is known
_REST: Any = None  # accelerate makes an output anew from a dict, which it hands over as the first field
_FRAMES = ("{}", "a photo of {}", "a clinical photograph of {}")


@dataclass
class ManifestationOutput(BaseOutput):
    """What the encoder reads.

    Args:
        logits (`torch.Tensor`):
            `[B, L]`: evidence for each label, calibrated so that their sigmoid is a probability.
        severities (`torch.Tensor`):
            `[B, L]` in [0, 1]: how severe each sign is, if it is there.
        mask_logits (`torch.Tensor`):
            `[B, M, S/2, S/2]` for crops of S px: evidence that a pixel belongs to a manifestation, both sides in one
            map.
        tokens (`torch.Tensor`):
            `[B, T, D]`: the manifestation tokens for cross-attention, drawn from the bottleneck. Draw them once for a
            face: it is the noise that hides the person, and many draws average it away.
        token_mean, token_log_variance (`torch.Tensor`):
            `[B, T, D]`: the bottleneck's normal distribution. The mean alone does know who it is.
        token_logits (`torch.Tensor`):
            `[B, L]`: what the tokens alone say of the labels.
        token_severities (`torch.Tensor`):
            `[B, L]` in [0, 1].
        features (`torch.Tensor`):
            `[B, C]`: pooled features before the bottleneck, which do know who it is.
    """

    logits: torch.Tensor
    severities: torch.Tensor = _REST
    mask_logits: torch.Tensor = _REST
    tokens: torch.Tensor = _REST
    token_mean: torch.Tensor = _REST
    token_log_variance: torch.Tensor = _REST
    token_logits: torch.Tensor = _REST
    token_severities: torch.Tensor = _REST
    features: torch.Tensor = _REST


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
    side: Side
    probability: float
    severity: float

    @property
    def label(self) -> str:
        """`"ptosis:left"`, `"jaundice"`."""
        return label_name(self.manifestation, self.side)

    @property
    def row(self) -> Manifestation:
        return TAXONOMY[self.manifestation]

    def __str__(self) -> str:
        row = self.row
        where = f" ({self.side})" if row.lateral else ""
        return f"{row.title}{where}: {self.probability:.0%}, severity {self.severity:.1f}, {row.region}"


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


class ManifestationEncoder(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Which signs, where, how severe; and tokens that carry them through an information bottleneck.

    A vision tower of open_clip sees the face crop. A pyramid over its maps gives a mask for each manifestation. One
    query for each label asks the pyramid whether that sign is there on that side, and how severe; the strongest place
    of the sign's mask on that side is evidence, too. Two small towers look closer, at the eyes ([`EyeTower`]) and at
    the skin ([`SkinTower`]), and add their evidence. A few more queries gather what the generator needs; they pass a
    variational information bottleneck (Alemi et al., arXiv:1612.00410), which charges for every bit, so that what tells
    the signs goes through and the person stays behind; this is the minimum description length idea of arXiv:2507.21703.

    The weights of a new encoder are random; `from_tower` takes a tower that has learned to see.

    Args:
        tower (`str`, *optional*, defaults to `"medeid-tiny"`):
            Name of an open_clip model config: one of `medeid/manifestations/towers`, or any that open_clip knows
            (`hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224`, `local-dir:/path` ...).
        image_size (`int`, *optional*, defaults to 256):
            Side S of the crops that the tower sees, a multiple of 32; others are resized.
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
        text_tower (`bool`, *optional*, defaults to `False`):
            Whether to keep the model's text tower, too, which `score_text` needs.
        tower_config (`dict[str, Any]`, *optional*):
            What `tower` stands for, as in an `open_clip_config.json`. It is looked up and saved with the encoder, which
            then loads without the folder or repository of its tower.

    Raises:
        `ValueError`: if open_clip does not know the tower; the message lists what it knows.
    """

    vision: Any
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
        text_tower: bool = False,
        tower_config: dict[str, Any] | None = None,
    ):
        super().__init__()
        if tower_config is None:
            tower_config = read_config(tower)
            self.register_to_config(tower_config=tower_config)
        self._frozen: tuple[str, ...] = ()
        self._replaced: Replaced = []
        self._take_towers(create_clip(tower_config, image_size, text_tower))
        self.pyramid = Pyramid(map_widths(self.vision), channels, self.mask_size)
        self.mask_head = nn.Conv2d(channels, len(manifestations), 1)
        self.mask_head.bias = nn.Parameter(torch.full((len(manifestations),), _RARE))
        self.fine_mask_head = nn.Conv2d(channels // 4, len(manifestations), 1, bias=False)
        self.label_queries = _Queries(len(labels), channels)
        self.label_weight = nn.Parameter(torch.randn(len(labels), channels, 2) * channels**-0.5)
        self.label_bias = nn.Parameter(torch.tensor([_RARE, 0.0]).repeat(len(labels), 1))
        self.evidence_scale = nn.Parameter(torch.full((len(labels),), 0.5))
        self.eyes = EyeTower(labels, manifestations, channels, self.mask_size)
        self.skin = SkinTower(labels, manifestations, channels, self.mask_size)
        self.token_queries = _Queries(num_tokens, channels)
        self.to_bottleneck = nn.Linear(channels, 2 * token_dim)
        self.token_reader = nn.Sequential(
            nn.Flatten(1), nn.Linear(num_tokens * token_dim, 256), nn.GELU(), nn.Linear(256, 2 * len(labels))
        )
        for name in ("mean", "std"):
            values = torch.tensor(tower_config["preprocess_cfg"][name]).view(1, 3, 1, 1)
            self.register_buffer(f"image_{name}", values, persistent=False)
        halves = ("right", "left", "")
        index = [
            halves.index(side) * len(manifestations) + manifestations.index(name)
            for name, _, side in (label.partition(":") for label in labels)
        ]
        self.register_buffer("evidence_index", torch.tensor(index), persistent=False)
        position = get_2d_sincos_pos_embed(channels, self.mask_size // 4, output_type="pt")
        self.register_buffer("position", position.float(), persistent=False)
        self.register_buffer("temperature", torch.ones(len(labels)))
        self.register_buffer("threshold", torch.full((len(labels),), 0.5))

    @property
    def mask_size(self) -> int:
        """Side of the masks in px."""
        return self.config.image_size // 2

    @classmethod
    def from_tower(cls, tower: str, weights: str = "", **options: Any) -> ManifestationEncoder:
        """A new encoder on a tower that has learned to see; its pyramid and heads are still to be trained.

        Args:
            tower (`str`):
                As for the class.
            weights (`str`, *optional*):
                A safetensors file, or a tag of open_clip's weights (`"laion2b_s34b_b88k"`). Models of the Hub and of
                folders bring their own (`open_clip_model.safetensors`); others are random without.
            options:
                The class's other arguments.

        Raises:
            `ValueError`: if there is no such tower, or no safetensors of it.
        """
        file = find_weights(tower, weights)
        encoder = cls(tower, tower_config=read_config(tower, weights), **options)
        if file is not None:
            config = encoder.config
            encoder._take_towers(create_clip(config.tower_config, config.image_size, config.text_tower, file))
        return encoder

    def _take_towers(self, clip: CustomTextCLIP) -> None:
        self.vision = clip.visual
        if self.config.text_tower:
            self.text, self.logit_scale = clip.text, clip.logit_scale

    def freeze_tower(self) -> None:
        """Keeps the towers as they are while pyramid and heads learn, statistics of batches and dropout included."""
        self._freeze("vision", "text", "logit_scale")

    def freeze_all_but_bottleneck(self) -> None:
        """Keeps all as it is but what makes tokens and reads them, so that their price can be tuned by itself."""
        learning = ("token_queries", "to_bottleneck", "token_reader")
        self._freeze(*(name for name, _ in self.named_children() if name not in learning))
        for parameter in self.parameters(recurse=False):
            parameter.requires_grad_(False)

    def _freeze(self, *names: str) -> None:
        self._frozen = tuple(name for name in names if hasattr(self, name))
        for name in self._frozen:
            getattr(self, name).requires_grad_(False)
        self.train(self.training)

    def fuse_batch_norms(self) -> None:
        """Makes an encoder that only reads faster; the answers are the same to rounding. Training undoes it."""
        if self.training:
            raise RuntimeError("An encoder in training needs its batch norms: call `eval()` first.")
        if not self._replaced:
            self._replaced = fuse_batch_norms(self)
            self.to(memory_format=torch.channels_last)

    def unfuse_batch_norms(self) -> None:
        """Makes it one again that can learn and be saved."""
        for parent, name, part in self._replaced:
            setattr(parent, name, part.to(self.device, self.dtype))
        self._replaced = []

    def train(self, mode: bool = True) -> ManifestationEncoder:
        if mode:
            self.unfuse_batch_norms()
        super().train(mode)
        for name in self._frozen:
            part = getattr(self, name)
            if isinstance(part, nn.Module):
                part.eval()
        return self

    def add_lora(self, rank: int) -> None:
        """Freezes the tower and lets low-rank additions to its linear layers learn instead, beside pyramid and heads.

        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685; with diffusers' and peft's
        means. `save_pretrained` saves an encoder whose weights have taken them up.

        Args:
            rank (`int`):
                Rank of the additions, at least 1.

        Raises:
            `ImportError`: if peft is not installed.
            `ValueError`: if the tower has no linear layers in its blocks.
        """
        try:
            from peft import LoraConfig
        except ImportError as error:
            raise ImportError("LoRA needs peft: install `medeid[lora]`.") from error
        layers = [f"vision.{name}" for name in adaptable_layers(self.vision)]
        if not layers:
            raise ValueError(f"The tower {self.config.tower} has no linear layers for LoRA. Train or freeze all of it.")
        self.freeze_tower()
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        self.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers))
        for parameter in learning:  # peft has frozen all that is not its own
            parameter.requires_grad_(True)

    def save_pretrained(self, save_directory: Any, **options: Any) -> None:
        """As any diffusers model; fused or after `add_lora`, what is saved is a plain encoder nevertheless."""
        if self._replaced:
            self.unfuse_batch_norms()
            try:
                self.save_pretrained(save_directory, **options)
            finally:
                self.fuse_batch_norms()
            return
        if not self._hf_peft_config_loaded:
            super().save_pretrained(save_directory, **options)
            return
        plain = copy.deepcopy(self)
        plain.fuse_lora()
        plain.unload_lora()
        plain.save_pretrained(save_directory, **options)

    def forward(self, images: torch.Tensor, generator: torch.Generator | None = None) -> ManifestationOutput:
        """
        Args:
            images (`torch.Tensor`):
                float `[B, 3, S, S]`, RGB in [0, 1]: aligned face crops.
            generator (`torch.Generator`, *optional*):
                Of the noise in the bottleneck.

        Returns:
            `ManifestationOutput`

        Raises:
            `ValueError`: if the images are no square RGB crops.
        """
        images = self._fitted(images)
        maps = self.pyramid(tower_maps(self.vision, self._normalised(images)))
        close_ups = [(tower, tower(images)) for tower in (self.eyes, self.skin)]
        memory = torch.cat([maps[2].flatten(2).transpose(1, 2), *(seen.memory for _, seen in close_ups)], dim=1)
        position = torch.cat([self.position, *(tower.position for tower, _ in close_ups)])

        answers = self.label_queries(memory, position)
        answers = torch.einsum("blc,lco->blo", answers, self.label_weight) + self.label_bias
        mask_logits = self.fine_mask_head(maps[0]) + resized(self.mask_head(maps[1]), self.mask_size)
        evidence = self.evidence_scale * self._evidence(mask_logits)
        for tower, seen in close_ups:
            answers = tower.add_answers(answers, seen)
            mask_logits = tower.add_masks(mask_logits, seen)
        logits, severities = answers.unbind(-1)
        logits = logits + evidence
        mean, log_variance = self.to_bottleneck(self.token_queries(memory, position)).chunk(2, dim=-1)
        log_variance = log_variance.clamp(-_MAX_LOG_VARIANCE, _MAX_LOG_VARIANCE)
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

    def _fitted(self, images: torch.Tensor) -> torch.Tensor:
        """The crops in the size that the towers have learned."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ValueError(f"`images` must have shape [B, 3, S, S], but has {list(images.shape)}. Align the faces.")
        size = self.config.image_size
        if images.shape[-1] != size:
            images = F.interpolate(images, size=(size, size), mode="bicubic", antialias=True).clamp(0.0, 1.0)
        return images.contiguous(memory_format=torch.channels_last)  # convolutions on a CPU are faster by a tenth

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Fitted crops in the range that the tower has learned."""
        return (images - self.image_mean) / self.image_std

    def _evidence(self, mask_logits: torch.Tensor) -> torch.Tensor:
        """The strongest place of each label's sign on its side, `[B, L]`; the patient's left is on the crop's right."""
        smooth = F.avg_pool2d(mask_logits, 2)
        right, left = (half.amax((2, 3)) for half in smooth.chunk(2, dim=3))
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
        return self.readings(self(images))

    def readings(self, output: ManifestationOutput) -> list[list[Reading]]:
        """What an output of the encoder says, see [`describe`]."""
        probabilities = output.logits.sigmoid()
        readings: list[list[Reading]] = []
        for chances, severities in zip(probabilities, output.severities, strict=True):
            found = []
            for number in torch.nonzero(chances > self.threshold).flatten().tolist():
                name, _, side = self.config.labels[number].partition(":")
                found.append(Reading(name, side or "both", chances[number].item(), severities[number].item()))
            readings.append(sorted(found, key=lambda reading: -reading.probability))
        return readings

    @torch.no_grad()
    def score_text(
        self,
        images: torch.Tensor,
        texts: Sequence[str],
        baseline: str | Sequence[str] = "a healthy face",
        subject: str = "a face with {}",
    ) -> torch.Tensor:
        """How much better each text fits a face than the baseline does, in the eyes of the CLIP model as it was taken.

        Text and baseline are put into the same few sentences, whose embeddings are averaged, as for CLIP's zero-shot
        classification (Radford et al., arXiv:2103.00020). The score is the softmax over the pair at the model's own
        temperature, so that texts do not compete with each other: a face may show several signs, or none.

        It is not calibrated: 0.5 says that both fit alike. Choose thresholds on faces whose signs are known.

        Args:
            images (`torch.Tensor`):
                float `[B, 3, S, S]`, RGB in [0, 1]: aligned face crops.
            texts (`Sequence[str]`):
                K signs in words: `["a drooping left upper eyelid", ...]`.
            baseline (`str` or `Sequence[str]`, *optional*, defaults to `"a healthy face"`):
                What a face without them is, in one wording or several, which are averaged.
            subject (`str`, *optional*, defaults to `"a face with {}"`):
                What to put a text into; `"{}"` for texts that speak of the face themselves.

        Returns:
            `torch.Tensor`: float `[B, K]` in [0, 1], in the order of the texts.

        Raises:
            `ValueError`: if the encoder has no text tower, or if there is no text.
        """
        if not self.config.text_tower:
            raise ValueError(
                "`score_text` needs a text tower, which this encoder was made without. Make one of a CLIP model with "
                "`ManifestationEncoder.from_tower(..., text_tower=True)`; see docs/encoder.md."
            )
        if isinstance(texts, str) or not texts:
            raise ValueError(f"`texts` must be a list of one text or more, but is {texts!r}.")
        seen = F.normalize(self.vision(self._normalised(self._fitted(images))), dim=-1)
        signs = torch.cat([self._embed([subject.replace("{}", text)]) for text in texts])
        healthy = self._embed([baseline] if isinstance(baseline, str) else baseline)
        return torch.sigmoid(self.logit_scale.exp() * seen @ (signs - healthy).T)

    def _embed(self, wordings: Sequence[str]) -> torch.Tensor:
        """Embedding `[1, C]` of what all of the wordings say."""
        sentences = [frame.replace("{}", wording) for wording in wordings for frame in _FRAMES]
        embeddings = self.text(self.tokenizer(sentences).to(self.device))
        return F.normalize(F.normalize(embeddings, dim=-1).mean(0, keepdim=True), dim=-1)

    @cached_property
    def tokenizer(self) -> Any:
        """Turns texts into what the text tower reads."""
        return create_tokenizer(self.config.tower, self.config.tower_config)
