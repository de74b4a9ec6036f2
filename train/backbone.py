"""What an adapter is trained on: a pipeline of medeid, or one around a Stable Diffusion inpainting model."""

from __future__ import annotations

import json
from pathlib import Path

from diffusers import AutoencoderKL, DDIMScheduler, T2IAdapter, UNet2DConditionModel
from huggingface_hub import hf_hub_download

from medeid import MedicalDeIDPipeline
from medeid.identity.adapter import IdentitySuppressionAdapter
from medeid.pipeline import PACKAGED_WEIGHTS


def load_backbone(name: str) -> tuple[MedicalDeIDPipeline, bool]:
    """The pipeline to train the adapter of, and whether its structure adapter is new."""
    if _is_medeid(name):
        pipeline, is_new = MedicalDeIDPipeline.from_pretrained(name), False
    else:
        pipeline, is_new = _from_inpainting_model(name), True
    adapter, encoder = pipeline.identity_adapter, pipeline.manifestation_encoder
    if not adapter.config.token_dim:
        adapter = adapter.with_manifestations(encoder.config.token_dim, encoder.config.num_tokens)
        pipeline.register_modules(identity_adapter=adapter)
        adapter.attach(pipeline.unet)
    return pipeline, is_new


def _is_medeid(name: str) -> bool:
    folder = PACKAGED_WEIGHTS / name if (PACKAGED_WEIGHTS / name).is_dir() else Path(name)
    index = folder / "model_index.json"
    if not folder.is_dir():
        try:
            index = Path(hf_hub_download(name, "model_index.json"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"`pretrained_model_name_or_path` {name!r} is no folder, and no model of the Hub that can be reached. "
                "Give medeid-tiny, the folder of a pipeline, or the name of a repository."
            ) from error
    return index.is_file() and json.loads(index.read_text())["_class_name"] == MedicalDeIDPipeline.__name__


def _from_inpainting_model(name: str) -> MedicalDeIDPipeline:
    """A pipeline around a Stable Diffusion inpainting model: new adapters, and medeid-tiny's for all that looks."""
    try:
        unet = UNet2DConditionModel.from_pretrained(name, subfolder="unet", use_safetensors=True)
        vae = AutoencoderKL.from_pretrained(name, subfolder="vae", use_safetensors=True)
        # PNDM's configs say nothing of clipping, which DDIM does by default; latents have no bounds.
        scheduler = DDIMScheduler.from_pretrained(name, subfolder="scheduler", clip_sample=False)
    except OSError as error:
        raise ValueError(
            f"`pretrained_model_name_or_path` {name!r} holds neither a medeid pipeline nor the folders unet, vae and "
            f"scheduler of an inpainting model, with weights as safetensors: {error}"
        ) from error
    channels = vae.config.latent_channels
    if unet.config.in_channels != 2 * channels + 1:
        raise ValueError(
            f"The UNet of {name!r} takes {unet.config.in_channels} channels; an inpainting model takes "
            f"{2 * channels + 1}: latents, mask and masked latents. Give the inpainting variant of the model."
        )
    if unet.config.addition_embed_type or unet.config.encoder_hid_dim_type:
        raise ValueError(f"The UNet of {name!r} needs more than a text (SDXL does). Give a Stable Diffusion 1 or 2.")
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    tiny = MedicalDeIDPipeline.from_pretrained("medeid-tiny")
    encoder = tiny.manifestation_encoder
    return MedicalDeIDPipeline(
        vae=vae,
        unet=unet,
        scheduler=scheduler,
        structure_adapter=T2IAdapter(
            in_channels=3, channels=list(unet.config.block_out_channels), num_res_blocks=2, downscale_factor=factor
        ),
        identity_adapter=IdentitySuppressionAdapter.for_unet(
            unet, token_dim=encoder.config.token_dim, num_manifestation_tokens=encoder.config.num_tokens
        ),
        surrogate_prior=tiny.surrogate_prior,
        landmark_net=tiny.landmark_net,
        shape_prior=tiny.shape_prior,
        manifestation_encoder=encoder,
        crop_size=unet.config.sample_size * factor,
        num_inference_steps=30,
    )
