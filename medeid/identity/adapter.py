"""The adapter that tells the UNet who the new face is: decoupled cross-attention to identity tokens.

IP-Adapter (Ye et al., https://huggingface.co/papers/2308.06721) gives each cross-attention layer a second pair of key
and value projections, whose result is added to the first; here they attend to tokens made from an identity embedding.
The adapter owns these weights, so that the UNet's own folder stays that of a plain UNet.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, IPAdapterAttnProcessor2_0
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


class IdentityAdapter(ModelMixin, ConfigMixin):
    """Decoupled cross-attention from a UNet to the tokens of a surrogate identity.

    Args:
        cross_attention_dim (`int`):
            Width of the tokens: the UNet's own `cross_attention_dim`.
        hidden_sizes (`tuple[int, ...]`):
            Width of each cross-attention layer of the UNet, in the order of `unet.attn_processors`.
        embed_dim (`int`, *optional*, defaults to 128):
            Width of an identity embedding.
        num_tokens (`int`, *optional*, defaults to 4):
            Number of tokens that an embedding becomes.
    """

    @register_to_config
    def __init__(
        self,
        cross_attention_dim: int,
        hidden_sizes: tuple[int, ...],
        embed_dim: int = 128,
        num_tokens: int = 4,
    ):
        super().__init__()
        self.projection = MultiIPAdapterImageProjection(
            [IdentityProjection(embed_dim, num_tokens, cross_attention_dim)]
        )
        self.processors = nn.ModuleList(
            IPAdapterAttnProcessor2_0(size, cross_attention_dim, num_tokens=(num_tokens,), scale=1.0)
            for size in hidden_sizes
        )

    @classmethod
    def for_unet(cls, unet: UNet2DConditionModel, embed_dim: int = 128, num_tokens: int = 4) -> IdentityAdapter:
        """A new adapter whose keys and values start as copies of the UNet's own."""
        layers = _cross_attention_layers(unet)
        adapter = cls(
            cross_attention_dim=unet.config.cross_attention_dim,
            hidden_sizes=tuple(layer.inner_dim for layer in layers.values()),
            embed_dim=embed_dim,
            num_tokens=num_tokens,
        )
        for processor, layer in zip(adapter.processors, layers.values(), strict=True):
            processor.to_k_ip[0].load_state_dict(layer.to_k.state_dict())
            processor.to_v_ip[0].load_state_dict(layer.to_v.state_dict())
        return adapter

    def attach(self, unet: UNet2DConditionModel) -> None:
        """Makes `unet` attend to the identity tokens; it then needs `added_cond_kwargs` (see [`condition`]).

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
                "that was trained with this UNet, or make a new one by `IdentityAdapter.for_unet(unet)`."
            )
        processors: dict[str, nn.Module | AttnProcessor2_0] = dict.fromkeys(unet.attn_processors, AttnProcessor2_0())
        processors.update(zip(layers, self.processors, strict=True))
        unet.set_attn_processor(processors)
        unet.encoder_hid_proj = self.projection
        unet.config.encoder_hid_dim_type = "ip_image_proj"

    @staticmethod
    def detach(unet: UNet2DConditionModel) -> None:
        """Makes `unet` plain again."""
        unet.set_attn_processor(AttnProcessor2_0())
        unet.encoder_hid_proj = None
        unet.config.encoder_hid_dim_type = None

    @staticmethod
    def condition(embeddings: torch.Tensor) -> dict[str, list[torch.Tensor]]:
        """The UNet's `added_cond_kwargs` for standardised identity embeddings [B, embed_dim]."""
        return {"image_embeds": [embeddings[:, None]]}


def _cross_attention_layers(unet: UNet2DConditionModel) -> dict[str, Attention]:
    """The cross-attention layers by the name of their processor, in the UNet's own order."""
    return {
        name: unet.get_submodule(name.removesuffix(".processor"))
        for name in unet.attn_processors
        if name.endswith("attn2.processor")
    }
