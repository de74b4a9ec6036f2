"""Time and memory of a call with a Stable Diffusion of full size, whose weights are random, so that none are fetched.

python examples/benchmark_backbones.py --steps 2
python examples/benchmark_backbones.py --steps 30 --device cuda --dtype float16
"""

from __future__ import annotations

import json
import time
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.utils import logging
from PIL import Image

from medeid import MedicalDeIDPipeline
from medeid.backbones import pipeline_around
from medeid.evaluation.overhead import measure, peak_memory
from medeid.pipeline import DRAWING

PORTRAIT = Path(__file__).parent / "portrait.png"
CUDA_BATCHES = (1, 16)
OVERHEAD_STEPS = 5  # timed with and without the adapter; on a CPU, where a step takes half a minute, only one

# Of stable-diffusion-v1-5/stable-diffusion-inpainting, where it is not the class's default.
UNET = {"sample_size": 64, "in_channels": 9, "cross_attention_dim": 768}
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}


class Dtype(str, Enum):
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


def time_call(pipeline: MedicalDeIDPipeline, photo: np.ndarray, count: int, steps: int) -> dict[str, Any]:
    """Times one call on a batch of photos with a face each, from detection to verification.

    Args:
        pipeline (`MedicalDeIDPipeline`):
            Of random weights, so that every face fails once and is blurred.
        photo (`np.ndarray`):
            uint8 `[H, W, 3]`.
        count (`int`):
            Photos in the batch.
        steps (`int`):
            Denoising steps.

    Returns:
        `dict`: `photos`; `seconds` of the call and `seconds_a_photo`; `memory`, the peak in MiB: of a GPU's in this
        call, or of the process so far.
    """
    device = pipeline._execution_device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    pipeline([photo] * count, num_inference_steps=steps, max_attempts=1, on_fail="blur")
    seconds = time.perf_counter() - began
    return {"photos": count, "seconds": seconds, "seconds_a_photo": seconds / count, "memory": peak_memory(device)}


def benchmark(
    vae: AutoencoderKL, unet: UNet2DConditionModel, steps: int, batches: tuple[int, ...], overhead_steps: int
) -> dict[str, Any]:
    """What the adapter adds to a step of the UNet, and the time and memory of a call on each size of batch."""
    adapter = measure(unet, overhead_steps)
    pipeline = pipeline_around(vae, unet, DDIMScheduler(**SCHEDULER)).to(unet.device)
    for name in DRAWING:
        getattr(pipeline, name).to(unet.dtype)
    pipeline.set_progress_bar_config(disable=True)
    photo = np.asarray(Image.open(PORTRAIT).convert("RGB"))
    calls = [time_call(pipeline, photo, count, steps) for count in batches]
    return {"crop_size": pipeline.config.crop_size, "steps": steps, "calls": calls, "adapter": adapter}


def main(
    steps: Annotated[int, typer.Option(help="Denoising steps of a call.")] = 30,
    device: Annotated[str, typer.Option(help="A torch device.")] = "cpu",
    dtype: Annotated[Dtype, typer.Option(help="Of what draws.")] = Dtype.float32,
) -> None:
    """Print time and memory of calls at 512 px, and what the adapter adds to a step, as JSON."""
    logging.set_verbosity_error()  # random weights lose nothing when they are cast
    torch.manual_seed(0)
    kind = getattr(torch, dtype.value)
    unet = UNet2DConditionModel(**UNET).to(device, kind).eval()
    vae = AutoencoderKL(**VAE).to(device, kind).eval()
    on_gpu = unet.device.type == "cuda"
    figures = benchmark(vae, unet, steps, CUDA_BATCHES if on_gpu else (1,), OVERHEAD_STEPS if on_gpu else 1)
    print(json.dumps({"device": device, "dtype": dtype.value, **figures}, indent=2))


if __name__ == "__main__":
    typer.run(main)
