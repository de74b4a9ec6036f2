"""What the adapter costs on a Stable Diffusion UNet, in time and memory: `python -m medeid.evaluation.overhead`."""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer
from diffusers import UNet2DConditionModel
from tqdm import tqdm

from ..identity.adapter import IdentitySuppressionAdapter

# Of stable-diffusion-v1-5/stable-diffusion-inpainting, where it is not the class's default.
_STABLE_DIFFUSION = {"sample_size": 64, "in_channels": 9, "cross_attention_dim": 768}
_TEXT_TOKENS = 77
_TOKEN_DIM, _NUM_TOKENS = 32, 8  # of medeid-tiny's manifestation encoder


@torch.no_grad()
def measure(unet: UNet2DConditionModel, steps: int) -> dict[str, Any]:
    """Times denoising steps of one face, without and with the adapter in turn, in one run.

    Args:
        unet (`UNet2DConditionModel`):
            A plain one.
        steps (`int`):
            Timed steps of each kind, after one of each that warms up.

    Returns:
        `dict`: `parameters` of the UNet and `adapter_parameters`; `seconds` a step and `adapted_seconds`, medians;
        `memory` and `adapted_memory`, peaks in MiB, of the process or of the GPU; the shares that the adapter adds.
        Peaks only grow, so that the adapter's share is never told too low.
    """
    device, dtype = unet.device, unet.dtype
    unet.eval()
    latents = torch.randn(1, unet.config.in_channels, *[unet.config.sample_size] * 2).to(device, dtype)
    text = torch.zeros(1, _TEXT_TOKENS, unet.config.cross_attention_dim).to(latents)

    def plain() -> None:
        unet(latents, 500, encoder_hidden_states=text)

    seconds = {"plain": [_timed(plain, device)]}
    memory = peak_memory(device)
    adapter = IdentitySuppressionAdapter.for_unet(unet, token_dim=_TOKEN_DIM, num_manifestation_tokens=_NUM_TOKENS)
    adapter.to(device, dtype).eval()
    tokens = adapter.no_tokens(1).to(latents)
    condition = adapter.condition(torch.zeros(1, adapter.config.embed_dim).to(latents), tokens)

    def adapted() -> None:
        unet(latents, 500, encoder_hidden_states=text, added_cond_kwargs=condition)

    seconds["adapted"] = []
    for _ in tqdm(range(steps + 1), desc="Denoising steps", leave=False):
        adapter.attach(unet)
        seconds["adapted"].append(_timed(adapted, device))
        adapter.detach(unet)
        seconds["plain"].append(_timed(plain, device))
    adapted_memory = peak_memory(device)
    without, with_it = (statistics.median(seconds[name][-steps:]) for name in ("plain", "adapted"))
    return {
        "parameters": unet.num_parameters(),
        "adapter_parameters": adapter.num_parameters(),
        "seconds": without,
        "adapted_seconds": with_it,
        "added_time": with_it / without - 1.0,
        "memory": memory,
        "adapted_memory": adapted_memory,
        "added_memory": adapted_memory / memory - 1.0,
    }


def _timed(step: Callable[[], None], device: torch.device) -> float:
    """Seconds of a step, until a GPU is done, too."""
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def peak_memory(device: torch.device) -> float:
    """The most memory that was ever in use, in MiB: of a GPU's by tensors, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def main(
    model: Annotated[
        str, typer.Option(help="Folder or Hub id of a Stable Diffusion model; without one, random weights.")
    ] = "",
    steps: Annotated[int, typer.Option(help="Timed steps without and with the adapter.")] = 7,
    device: Annotated[str, typer.Option(help="A torch device.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
) -> None:
    """Print time and memory of a step of a Stable Diffusion inpainting UNet, without and with the adapter, as JSON."""
    torch.manual_seed(0)
    if model:
        unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet", use_safetensors=True)
    else:
        unet = UNet2DConditionModel(**_STABLE_DIFFUSION)
    print(json.dumps(measure(unet.to(device, getattr(torch, dtype)), steps), indent=2))


if __name__ == "__main__":
    typer.run(main)
