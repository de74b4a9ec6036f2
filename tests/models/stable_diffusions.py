"""Stable Diffusion models with random weights: the true architectures, scaled down to crops of 64 px."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, UNet2DConditionModel

VAE = {
    "latent_channels": 4,
    "block_out_channels": [4, 4, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 64,
}
SD15_INPAINTING = {
    "sample_size": 8,
    "in_channels": 9,
    "out_channels": 4,
    "block_out_channels": [8, 16, 16, 16],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "cross_attention_dim": 12,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
SD2_INPAINTING = {
    **SD15_INPAINTING,
    "cross_attention_dim": 16,
    "attention_head_dim": [1, 2, 4, 4],
    "use_linear_projection": True,
}
SD15 = {**SD15_INPAINTING, "in_channels": 4}
SDXL_INPAINTING = {
    **SD15_INPAINTING,
    "block_out_channels": [8, 16, 16],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 3],
    "cross_attention_dim": 24,
    "attention_head_dim": [1, 2, 4],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 20,
}
# What each UNet predicts.
MODELS = {
    "sd15-inpainting": (SD15_INPAINTING, "epsilon"),
    "sd2-inpainting": (SD2_INPAINTING, "v_prediction"),
    "sd15": (SD15, "epsilon"),
    "sdxl-inpainting": (SDXL_INPAINTING, "epsilon"),
}
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def build_model(name: str, **changes) -> tuple[AutoencoderKL, UNet2DConditionModel, DDIMScheduler]:
    """Autoencoder, UNet and scheduler of a model by its name; `changes` are of the UNet's config."""
    config, prediction_type = MODELS[name]
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**{**config, **changes})
    scheduler = DDIMScheduler(**SCHEDULER, clip_sample=False, prediction_type=prediction_type)
    return AutoencoderKL(**VAE).eval(), unet.eval(), scheduler


def save_model(folder: Path, name: str, **changes) -> Path:
    """The folder of a model, in the layout and with the scheduler of those on the Hub; without the text encoder."""
    vae, unet, scheduler = build_model(name, **changes)
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    PNDMScheduler(**SCHEDULER, skip_prk_steps=True, prediction_type=scheduler.config.prediction_type).save_pretrained(
        folder / "scheduler"
    )
    index = {"_class_name": "StableDiffusionInpaintPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
