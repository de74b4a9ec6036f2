"""The diffusion step of the method: fill the masked part of face crops, under a structure sketch and an identity."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC, AutoencoderKL, T2IAdapter, UNet2DConditionModel
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor

from .identity.adapter import IdentitySuppressionAdapter

Autoencoder: TypeAlias = AutoencoderDC | AutoencoderKL
_SDXL_TIME_IDS = 6  # original size, corner of the crop, target size
_ERROR_AT = 0.3  # of the noise schedule: where broken faces stand out most
_SDXL_FACTOR = 8  # pixels of a latent, for every autoencoder that SDXL's UNets have learned with


def check_backbone(vae: Autoencoder, unet: UNet2DConditionModel) -> None:
    """Checks that a UNet can fill in an autoencoder's latents, with what the method has to tell it.

    Raises:
        ValueError: it takes other channels, or needs more than a text and SDXL's sizes.
    """
    config, channels = unet.config, vae.config.latent_channels
    if config.in_channels not in (channels, 2 * channels + 1) or config.out_channels != channels:
        raise ValueError(
            f"`unet` takes {config.in_channels} channels and gives {config.out_channels}, but `vae` has latents of "
            f"{channels}: an inpainting UNet takes {2 * channels + 1} (latents, mask and masked latents), another one "
            f"{channels}. Give the UNet and the autoencoder of one Stable Diffusion model."
        )
    extra = {
        "addition_embed_type": config.addition_embed_type not in (None, "text_time"),
        "class_embed_type": config.class_embed_type is not None or config.num_class_embeds is not None,
        "encoder_hid_dim_type": config.encoder_hid_dim_type not in (None, "ip_image_proj"),
    }
    if any(extra.values()):
        needs = ", ".join(f"`{name}`" for name, needed in extra.items() if needed)
        raise ValueError(
            f"`unet` has to be told what this method cannot tell it (by {needs} of its config). Give the UNet of "
            "Stable Diffusion 1, 2 or XL."
        )


@contextmanager
def _without_overflow(vae: Autoencoder) -> Iterator[torch.dtype]:
    """Where float16 is too narrow for an autoencoder (its `force_upcast` says so), it runs in float32 in the block.

    Yields the dtype of what it is to be given.
    """
    own, kind = vae.dtype, vae.device.type
    automatic = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else own
    if not vae.config.get("force_upcast") or torch.float16 not in (own, automatic):
        yield own
        return
    torch.nn.Module.to(vae, torch.float32)  # without the warning of diffusers' own, at each face
    try:
        with torch.autocast(kind, enabled=False):
            yield torch.float32
    finally:
        torch.nn.Module.to(vae, own)


def encode_images(vae: Autoencoder, images: torch.Tensor) -> torch.Tensor:
    """Images float [B, 3, S, S] in [-1, 1] -> scaled latents [B, C, S / f, S / f] (of a distribution, its mean)."""
    with _without_overflow(vae) as dtype:
        encoded = vae.encode(images.to(dtype))
    latents = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latent
    return latents.to(images) * vae.config.scaling_factor


def decode_latents(vae: Autoencoder, latents: torch.Tensor) -> torch.Tensor:
    """The inverse of [`encode_images`], clamped to [-1, 1]."""
    with _without_overflow(vae) as dtype:
        decoded = vae.decode((latents / vae.config.scaling_factor).to(dtype)).sample
    return decoded.to(latents).clamp(-1.0, 1.0)


def latent_mask(masks: torch.Tensor, side: int) -> torch.Tensor:
    """Masks float [B, 1, S, S] -> [B, 1, side, side]: a latent that covers any masked pixel is masked."""
    return F.adaptive_max_pool2d(masks, side)


def sees_hole(unet: UNet2DConditionModel) -> bool:
    """Whether a UNet is an inpainting one, which is given mask and masked latents beside the noisy latents."""
    return unet.config.in_channels > unet.config.out_channels


def no_text(unet: UNet2DConditionModel, latents: torch.Tensor) -> dict[str, torch.Tensor]:
    """What SDXL's UNet is told besides: a text of zeros, and that the picture is whole and of its own size."""
    if unet.config.addition_embed_type != "text_time":
        return {}
    width = unet.config.projection_class_embeddings_input_dim - _SDXL_TIME_IDS * unet.config.addition_time_embed_dim
    height, side = (_SDXL_FACTOR * length for length in latents.shape[-2:])
    time_ids = latents.new_tensor([height, side, 0, 0, height, side])
    return {
        "text_embeds": latents.new_zeros(latents.shape[0], width),
        "time_ids": time_ids.repeat(latents.shape[0], 1),
    }


def predict(
    unet: UNet2DConditionModel,
    structure: list[torch.Tensor],
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    masks: torch.Tensor,
    masked_latents: torch.Tensor,
    identities: torch.Tensor,
    tokens: torch.Tensor | None = None,
) -> torch.Tensor:
    """One UNet pass: what the scheduler's `prediction_type` asks for, [B, C, H, W].

    Args:
        unet (`UNet2DConditionModel`):
            With 2C + 1 input channels, or with C, which sees neither masks nor masked latents; an
            [`IdentitySuppressionAdapter`] is attached.
        structure (`list[torch.Tensor]`):
            Features of the structure adapter. The UNet empties the list it is given, so it gets a copy.
        latents (`torch.Tensor`):
            Noisy latents [B, C, H, W].
        timesteps (`torch.Tensor`):
            int64 [B] or [].
        masks (`torch.Tensor`):
            [B, 1, H, W], 1 where the UNet is to fill in.
        masked_latents (`torch.Tensor`):
            Latents [B, C, H, W] of the images with the masked pixels set to grey.
        identities (`torch.Tensor`):
            Standardised identity embeddings [B, D]; zeros are no identity.
        tokens (`torch.Tensor`, *optional*):
            Manifestation tokens [B, T, E], for an adapter that attends to them.
    """
    # No text goes in: what there is to say is in the structure and the identity.
    context = latents.new_zeros(latents.shape[0], 1, unet.config.cross_attention_dim)
    return unet(
        torch.cat([latents, masks, masked_latents], dim=1) if sees_hole(unet) else latents,
        timesteps,
        encoder_hidden_states=context,
        added_cond_kwargs=IdentitySuppressionAdapter.condition(identities, tokens) | no_text(unet, latents),
        down_intrablock_additional_residuals=[feature.clone() for feature in structure],
    ).sample


def noised(scheduler: SchedulerMixin, latents: torch.Tensor, noise: torch.Tensor, step: int) -> torch.Tensor:
    """Clean latents as noisy as they are before a denoising step; clean after the last."""
    if step == len(scheduler.timesteps):
        return latents
    return scheduler.add_noise(latents, noise, scheduler.timesteps[step : step + 1])


def prediction_target(
    scheduler: SchedulerMixin, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """What a UNet should say of noised latents [B, C, H, W]: their velocity or the noise, by `prediction_type`."""
    is_velocity = scheduler.config.prediction_type == "v_prediction"
    return scheduler.get_velocity(latents, noise, timesteps) if is_velocity else noise


def denoising_errors(
    unet: UNet2DConditionModel, scheduler: SchedulerMixin, latents: torch.Tensor, masks: torch.Tensor, **given: Any
) -> torch.Tensor:
    """How badly a UNet predicts what it was trained to, where it has drawn: high for what it finds unlikely itself.

    The mean of this error over all timesteps bounds how likely a picture is to the model (Song et al., "Maximum
    Likelihood Training of Score-Based Diffusion Models", arXiv:2101.09258). At one timestep of little noise, with the
    same noise for all, it tells broken faces from whole ones.

    Args:
        latents (`torch.Tensor`):
            Clean latents [B, C, H, W].
        masks (`torch.Tensor`):
            [B, 1, H, W], 1 where to look.
        given:
            Of [`predict`].

    Returns:
        `torch.Tensor`: float [B], mean squared error of what the scheduler's `prediction_type` asks for.
    """
    generator = torch.Generator().manual_seed(0)
    noise = randn_tensor((1, *latents.shape[1:]), generator, latents.device, latents.dtype).expand_as(latents)
    timesteps = torch.full(
        (len(latents),), int(_ERROR_AT * scheduler.config.num_train_timesteps), device=latents.device
    )
    noisy = scheduler.add_noise(latents, noise, timesteps)
    output = predict(unet, latents=noisy, timesteps=timesteps, masks=masks, **given)
    target = prediction_target(scheduler, latents, noise, timesteps)
    errors = (output - target).square().mean(1, keepdim=True) * masks
    return errors.sum((1, 2, 3)) / masks.sum((1, 2, 3))


class Inpainted(NamedTuple):
    """What [`inpaint`] draws.

    Attributes:
        images (`torch.Tensor`): float [B, 3, S, S] in [0, 1].
        errors (`torch.Tensor`, *optional*): float [B], see [`denoising_errors`], where they were asked for.
    """

    images: torch.Tensor
    errors: torch.Tensor | None


@torch.no_grad()
def inpaint(
    vae: Autoencoder,
    unet: UNet2DConditionModel,
    structure_adapter: T2IAdapter,
    scheduler: SchedulerMixin,
    images: torch.Tensor,
    masks: torch.Tensor,
    sketches: torch.Tensor,
    identities: torch.Tensor,
    num_inference_steps: int,
    guidance_scale: float,
    tokens: torch.Tensor | None = None,
    sources: torch.Tensor | None = None,
    identity_guidance_scale: float | Sequence[float] = 0.0,
    generator: torch.Generator | list[torch.Generator] | None = None,
    on_step: Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    return_errors: bool = False,
) -> Inpainted:
    """Fills the masked part of face crops from noise. The source's masked pixels are not seen by any network here.

    A UNet that is not told of the hole finds around it, at every step, the source's latents in the noise of that step
    (Lugmayr et al., "RePaint", https://huggingface.co/papers/2201.09865, without its resampling).

    Args:
        images (`torch.Tensor`):
            float [B, 3, S, S] in [0, 1].
        masks (`torch.Tensor`):
            float [B, 1, S, S] of {0, 1}, 1 where to fill in.
        sketches (`torch.Tensor`):
            float [B, 3, S, S] in [0, 1], see [`medeid.faces.mesh.draw_sketch`].
        identities (`torch.Tensor`):
            Standardised identity embeddings [B, D].
        num_inference_steps (`int`):
            Denoising steps.
        guidance_scale (`float`):
            Classifier-free guidance (Ho and Salimans, https://huggingface.co/papers/2207.12598) towards the identity;
            1 is none.
        tokens (`torch.Tensor`, *optional*):
            Manifestation tokens [B, T, E], for an adapter that attends to them. The guidance leaves them alone.
        sources (`torch.Tensor`, *optional*):
            Standardised identity embeddings [B, D] of the faces that are replaced.
        identity_guidance_scale (`float` or B of them, *optional*, defaults to 0):
            Suppression guidance: how far each step goes away from the sources, by the same rule with the other sign, as
            with a negative prompt (Liu et al., "Compositional Visual Generation with Composable Diffusion Models",
            https://huggingface.co/papers/2206.01714, equation 13). 0 is none; else a step takes one more pass.
        generator (`torch.Generator` or a list of B of them, *optional*):
            Makes the noise reproducible.
        on_step (`Callable`, *optional*):
            Called after each step with its index, its timestep and the latents; returns the latents to go on with.
        return_errors (`bool`, *optional*, defaults to `False`):
            Whether to ask the UNet, in one more pass, how likely it finds what it has drawn.

    Returns:
        [`Inpainted`]
    """
    masked_latents = around = encode_images(vae, (images * 2.0 - 1.0).masked_fill(masks > 0, 0.0))
    masks = hole = latent_mask(masks, masked_latents.shape[-1])
    structure = structure_adapter(sketches)

    conditions = {"surrogate": identities}
    suppression = torch.tensor(identity_guidance_scale).to(images).reshape(-1, 1, 1, 1)
    if guidance_scale > 1.0 or suppression.any():
        conditions["nobody"] = torch.zeros_like(identities)
    if suppression.any():
        if sources is None:
            raise ValueError("`identity_guidance_scale` needs `sources`: the identities to move away from.")
        conditions["source"] = sources
    copies = (len(conditions), 1, 1, 1)
    masks, masked_latents = masks.repeat(copies), masked_latents.repeat(copies)
    structure = [feature.repeat(copies) for feature in structure]
    identities = torch.cat(list(conditions.values()))
    if tokens is not None:
        tokens = tokens.to(images).repeat(len(conditions), 1, 1)

    scheduler.set_timesteps(num_inference_steps, device=images.device)
    noise = randn_tensor(around.shape, generator, images.device, images.dtype)
    latents = noise * scheduler.init_noise_sigma
    drawn = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for index, timestep in enumerate(scheduler.timesteps):
        noisy = scheduler.scale_model_input(latents, timestep).repeat(copies)
        passes = predict(unet, structure, noisy, timestep, masks, masked_latents, identities, tokens)
        told = dict(zip(conditions, passes.chunk(len(conditions)), strict=True))
        output = told["surrogate"]
        if "nobody" in told:
            output = told["nobody"] + guidance_scale * (told["surrogate"] - told["nobody"])
        if "source" in told:
            output = output - suppression * (told["source"] - told["nobody"])
        latents = scheduler.step(output, timestep, latents, **drawn).prev_sample
        if not sees_hole(unet):
            latents = torch.where(hole > 0, latents, noised(scheduler, around, noise, index + 1))
        if on_step is not None:
            latents = on_step(index, timestep, latents)
    errors = None
    if return_errors:
        first = slice(len(latents))  # the pass that is told of the surrogate
        errors = denoising_errors(
            unet,
            scheduler,
            latents,
            masks[first],
            structure=[feature[first] for feature in structure],
            masked_latents=masked_latents[first],
            identities=identities[first],
            tokens=None if tokens is None else tokens[first],
        )
    return Inpainted(decode_latents(vae, latents) / 2.0 + 0.5, errors)
