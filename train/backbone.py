"""What an adapter is trained on: a pipeline of medeid, or one around a Stable Diffusion model."""

from __future__ import annotations

import json
from pathlib import Path

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from huggingface_hub import hf_hub_download

from medeid import MedicalDeIDPipeline
from medeid.backbones import pipeline_around
from medeid.pipeline import PACKAGED_WEIGHTS


def load_backbone(name: str) -> tuple[MedicalDeIDPipeline, bool]:
    """The pipeline to train the adapter of, and whether its structure adapter is new."""
    if _is_medeid(name):
        pipeline, is_new = MedicalDeIDPipeline.from_pretrained(name), False
    else:
        pipeline, is_new = _from_stable_diffusion(name), True
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


def _from_stable_diffusion(name: str) -> MedicalDeIDPipeline:
    """A pipeline around a Stable Diffusion model."""
    try:
        unet = UNet2DConditionModel.from_pretrained(name, subfolder="unet", use_safetensors=True)
        vae = AutoencoderKL.from_pretrained(name, subfolder="vae", use_safetensors=True)
        # By DDIM whatever the folder's scheduler is, as training asks for its alphas. Other schedulers' configs say
        # nothing of clipping, which DDIM does by default; latents have no bounds.
        scheduler = DDIMScheduler.from_pretrained(name, subfolder="scheduler", clip_sample=False)
    except OSError as error:
        raise ValueError(
            f"`pretrained_model_name_or_path` {name!r} holds neither a medeid pipeline nor the folders unet, vae and "
            f"scheduler of a Stable Diffusion model, with weights as safetensors: {error}"
        ) from error
    return pipeline_around(vae, unet, scheduler)
