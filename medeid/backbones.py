"""From a Stable Diffusion model to a pipeline: new adapters, and medeid-tiny's networks for all that looks at faces."""

from __future__ import annotations

from diffusers import AutoencoderKL, T2IAdapter, UNet2DConditionModel
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from .diffusion import check_backbone
from .identity.adapter import IdentitySuppressionAdapter
from .pipeline import MedicalDeIDPipeline

_STEPS = 30  # what Stable Diffusion needs without a scheduler or a distillation for fewer


def pipeline_around(vae: AutoencoderKL, unet: UNet2DConditionModel, scheduler: SchedulerMixin) -> MedicalDeIDPipeline:
    """A pipeline around a Stable Diffusion model, whose adapters have yet to be trained (train/train_adapter.py).

    Args:
        vae (`AutoencoderKL`):
            The model's autoencoder.
        unet (`UNet2DConditionModel`):
            Of Stable Diffusion 1, 2 or XL, better for inpainting than not. The adapters are made to fit its config.
        scheduler (`SchedulerMixin`):
            One for the UNet's prediction type.

    Returns:
        `MedicalDeIDPipeline`, for crops of the size that the UNet was trained on.

    Raises:
        ValueError: the UNet is not one of these, or not of that autoencoder.
    """
    check_backbone(vae, unet)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    tiny = MedicalDeIDPipeline.from_pretrained("medeid-tiny")
    encoder = tiny.manifestation_encoder
    return MedicalDeIDPipeline(
        vae=vae,
        unet=unet,
        scheduler=scheduler,
        structure_adapter=structure_adapter_for(unet, factor),
        identity_adapter=IdentitySuppressionAdapter.for_unet(
            unet, token_dim=encoder.config.token_dim, num_manifestation_tokens=encoder.config.num_tokens
        ),
        surrogate_prior=tiny.surrogate_prior,
        landmark_net=tiny.landmark_net,
        shape_prior=tiny.shape_prior,
        manifestation_encoder=encoder,
        crop_size=unet.config.sample_size * factor,
        num_inference_steps=_STEPS,
    )


def structure_adapter_for(unet: UNet2DConditionModel, factor: int) -> T2IAdapter:
    """A new structure adapter, whose features have the sizes of what a UNet adds them to.

    Args:
        unet (`UNet2DConditionModel`):
            Its blocks decide: one with attention takes a feature before it makes the picture smaller, one without
            takes it afterwards.
        factor (`int`):
            Pixels of a latent.

    Raises:
        ValueError: no T2IAdapter of diffusers has features of these sizes.
    """
    channels = list(unet.config.block_out_channels)
    attends = ["CrossAttn" in kind for kind in unet.config.down_block_types]
    if all(attends[:-1]):
        return T2IAdapter(in_channels=3, channels=channels, num_res_blocks=2, downscale_factor=factor)
    if attends == [False, True, True]:
        return T2IAdapter(
            in_channels=3,
            channels=[*channels, channels[-1]],  # the last is for the block in the middle
            num_res_blocks=2,
            downscale_factor=2 * factor,
            adapter_type="full_adapter_xl",
        )
    raise ValueError(
        f"`unet` has the blocks {', '.join(unet.config.down_block_types)}, which no structure adapter fits. Give the "
        "UNet of Stable Diffusion 1, 2 or XL (its base, not its refiner)."
    )
