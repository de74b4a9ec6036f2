"""The adapter that tells a frozen UNet who the new face is and which disease it has, and nothing of who it was.

IP-Adapter (Ye et al., https://huggingface.co/papers/2308.06721) gives each cross-attention layer further pairs of key
and value projections, whose results are added to the first; here one pair attends to tokens made from the surrogate's
identity embedding, and another one to the manifestation tokens of the encoder. The adapter owns these weights, so that
the UNet's own folder stays that of a plain UNet.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor2_0,
    IPAdapterAttnProcessor2_0,
    IPAdapterXFormersAttnProcessor,
    XFormersAttnProcessor,
)
from diffusers.models.embeddings import MultiIPAdapterImageProjection
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn


class IdentityProjection(nn.Module):
    """Turns an identity embedding [B, embed_dim] into tokens [B, num_tokens, cross_attention_dim]."""

    def __init__(self, embed_dim: int, num_tokens: int, cross_attention_dim: int):
        super().__init__()
        self.num_tokens = num_tokens
        self.project = nn.Sequential(
            nn.Linear(embed_dim, 2 * embed_dim),
            nn.GELU(),
            nn.Linear(2 * embed_dim, num_tokens * cross_attention_dim),
        )
        self.norm = nn.LayerNorm(cross_attention_dim)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        tokens = self.project(embeddings)
        return self.norm(tokens.unflatten(-1, (self.num_tokens, -1)))


class ManifestationProjection(nn.Module):
    """Turns manifestation tokens [B, T, token_dim] into tokens [B, T, cross_attention_dim].

    Each token has a place of its own, as the encoder's queries have: the first may tell of lids, the second of skin.
    """

    def __init__(self, token_dim: int, num_tokens: int, cross_attention_dim: int):
        super().__init__()
        self.project = nn.Sequential(
            nn.Linear(token_dim, cross_attention_dim), nn.GELU(), nn.Linear(cross_attention_dim, cross_attention_dim)
        )
        self.place = nn.Parameter(0.02 * torch.randn(num_tokens, cross_attention_dim))
        self.norm = nn.LayerNorm(cross_attention_dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.norm(self.project(tokens) + self.place)


class IdentitySuppressionAdapter(ModelMixin, ConfigMixin):
    """Decoupled cross-attention from a UNet to the tokens of a surrogate identity, and to manifestation tokens.

    Args:
        cross_attention_dim (`int`):
            Width of the tokens: the UNet's own `cross_attention_dim`.
        hidden_sizes (`tuple[int, ...]`):
            Width of each cross-attention layer of the UNet, in the order of `unet.attn_processors`.
        embed_dim (`int`, *optional*, defaults to 128):
            Width of an identity embedding.
        num_tokens (`int`, *optional*, defaults to 4):
            Number of tokens that an embedding becomes.
        token_dim (`int`, *optional*, defaults to 0):
            Width D of a manifestation token; 0: the adapter knows identities only.
        num_manifestation_tokens (`int`, *optional*, defaults to 8):
            Number T of manifestation tokens.
    """

    @register_to_config
    def __init__(
        self,
        cross_attention_dim: int,
        hidden_sizes: tuple[int, ...],
        embed_dim: int = 128,
        num_tokens: int = 4,
        token_dim: int = 0,
        num_manifestation_tokens: int = 8,
    ):
        super().__init__()
        projections: list[nn.Module] = [IdentityProjection(embed_dim, num_tokens, cross_attention_dim)]
        groups = [num_tokens]
        if token_dim:
            projections.append(ManifestationProjection(token_dim, num_manifestation_tokens, cross_attention_dim))
            groups.append(num_manifestation_tokens)
        self.projection = MultiIPAdapterImageProjection(projections)
        self.processors = nn.ModuleList(
            IPAdapterAttnProcessor2_0(size, cross_attention_dim, num_tokens=tuple(groups), scale=[1.0] * len(groups))
            for size in hidden_sizes
        )

    @classmethod
    def for_unet(
        cls,
        unet: UNet2DConditionModel,
        embed_dim: int = 128,
        num_tokens: int = 4,
        token_dim: int = 0,
        num_manifestation_tokens: int = 8,
    ) -> IdentitySuppressionAdapter:
        """A new adapter whose keys and values start as copies of the UNet's own.

        The values for manifestation tokens start at zero: until they have learned, the tokens change nothing.
        """
        layers = _cross_attention_layers(unet)
        adapter = cls(
            cross_attention_dim=unet.config.cross_attention_dim,
            hidden_sizes=tuple(layer.inner_dim for layer in layers.values()),
            embed_dim=embed_dim,
            num_tokens=num_tokens,
            token_dim=token_dim,
            num_manifestation_tokens=num_manifestation_tokens,
        )
        for processor, layer in zip(adapter.processors, layers.values(), strict=True):
            for keys, values in zip(processor.to_k_ip, processor.to_v_ip, strict=True):
                keys.load_state_dict(layer.to_k.state_dict())
                values.load_state_dict(layer.to_v.state_dict())
            if token_dim:
                nn.init.zeros_(processor.to_v_ip[1].weight)
        return adapter

    def with_manifestations(self, token_dim: int, num_manifestation_tokens: int) -> IdentitySuppressionAdapter:
        """A copy of an adapter for identities that attends to manifestation tokens, too, which change nothing yet."""
        # As arguments: of a loaded config, `from_config` leaves out what its file did not tell.
        options = {"token_dim": token_dim, "num_manifestation_tokens": num_manifestation_tokens}
        adapter = IdentitySuppressionAdapter.from_config(self.config, **options)
        adapter.load_state_dict(self.state_dict(), strict=False)
        for processor in adapter.processors:
            processor.to_k_ip[1].load_state_dict(processor.to_k_ip[0].state_dict())
            nn.init.zeros_(processor.to_v_ip[1].weight)
        return adapter

    def attach(self, unet: UNet2DConditionModel) -> None:
        """Makes `unet` attend to the tokens; it then needs `added_cond_kwargs` (see [`condition`]).

        Attention to the tokens is calculated by what the UNet's self-attention is: torch's SDPA, or xformers where that
        was switched on before. On a UNet that has the adapter already, xformers must not be switched: diffusers would
        put copies in the place of its weights. [`MedicalDeIDPipeline`] keeps to that order by itself.

        Args:
            unet (`UNet2DConditionModel`):
                It is changed; its own weights are not.

        Raises:
            ValueError: the UNet's cross-attention layers are not those that the adapter was made for.
        """
        layers = _cross_attention_layers(unet)
        sizes = [layer.inner_dim for layer in layers.values()]
        dim = unet.config.cross_attention_dim
        if sizes != list(self.config.hidden_sizes) or dim != self.config.cross_attention_dim:
            raise ValueError(
                f"`unet` has cross-attention layers of widths {sizes} to tokens of width {dim}, but the adapter was "
                f"made for {list(self.config.hidden_sizes)} and {self.config.cross_attention_dim}. Load the adapter "
                "that was trained with this UNet, or make a new one by `IdentitySuppressionAdapter.for_unet(unet)`."
            )
        plain = _plain_processor(unet)
        self.processors = nn.ModuleList(_like(processor, plain) for processor in self.processors)
        unet.set_attn_processor(unet.attn_processors | dict(zip(layers, self.processors, strict=True)))
        unet.encoder_hid_proj = self.projection
        unet.config.encoder_hid_dim_type = "ip_image_proj"

    @staticmethod
    def detach(unet: UNet2DConditionModel) -> None:
        """Makes `unet` plain again."""
        plain = dict.fromkeys(_cross_attention_layers(unet), _plain_processor(unet))
        unet.set_attn_processor(unet.attn_processors | plain)
        unet.encoder_hid_proj = None
        unet.config.encoder_hid_dim_type = None

    def set_scale(self, identity: float = 1.0, manifestations: float = 1.0) -> None:
        """How much each group of tokens has to say; without either the UNet is the plain one.

        Args:
            identity (`float`, *optional*, defaults to 1.0):
                Of the tokens of the surrogate identity.
            manifestations (`float`, *optional*, defaults to 1.0):
                Of the manifestation tokens, if the adapter attends to them.
        """
        for processor in self.processors:
            groups = len(processor.to_k_ip)  # type: ignore[arg-type]
            processor.scale = [identity, manifestations][:groups]  # type: ignore[assignment]

    def no_tokens(self, count: int) -> torch.Tensor | None:
        """Manifestation tokens [count, T, token_dim] that tell of nothing; None if the adapter attends to none."""
        if not self.config.token_dim:
            return None
        return torch.zeros(count, self.config.num_manifestation_tokens, self.config.token_dim)

    @staticmethod
    def condition(embeddings: torch.Tensor, tokens: torch.Tensor | None = None) -> dict[str, list[torch.Tensor]]:
        """The UNet's `added_cond_kwargs`.

        Args:
            embeddings (`torch.Tensor`):
                Standardised identity embeddings [B, embed_dim]; zeros are nobody.
            tokens (`torch.Tensor`, *optional*):
                Manifestation tokens [B, T, token_dim]: for an adapter that attends to them, and for no other.
        """
        return {"image_embeds": [group[:, None] for group in (embeddings, tokens) if group is not None]}


def _plain_processor(unet: UNet2DConditionModel) -> AttnProcessor2_0 | XFormersAttnProcessor:
    """What calculates attention to a text in a UNet without an adapter, by that of its self-attention."""
    found = (each for each in unet.attn_processors.values() if isinstance(each, XFormersAttnProcessor))
    return next(found, None) or AttnProcessor2_0()


def _like(processor: nn.Module, plain: AttnProcessor2_0 | XFormersAttnProcessor) -> nn.Module:
    """A processor that calculates as `plain` does, with the very same projections: those of an optimizer stay."""
    options = [processor.hidden_size, processor.cross_attention_dim, processor.num_tokens, processor.scale]
    if isinstance(plain, XFormersAttnProcessor):
        twin = IPAdapterXFormersAttnProcessor(*options, attention_op=plain.attention_op)
    elif isinstance(processor, IPAdapterAttnProcessor2_0):
        return processor
    else:
        twin = IPAdapterAttnProcessor2_0(*options)
    twin.to_k_ip, twin.to_v_ip = processor.to_k_ip, processor.to_v_ip
    return twin


def _cross_attention_layers(unet: UNet2DConditionModel) -> dict[str, Attention]:
    """The cross-attention layers by the name of their processor, in the UNet's own order."""
    layers = {name: unet.get_submodule(name.removesuffix(".processor")) for name in unet.attn_processors}
    return {name: layer for name, layer in layers.items() if layer.is_cross_attention}
