"""The benchmark of backbones, on a small one."""

import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from stable_diffusions import build_model

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import benchmark_backbones

    yield benchmark_backbones
    sys.modules.pop("benchmark_backbones")


def test_it_tells_time_memory_and_what_the_adapter_adds(script):
    vae, unet, _ = build_model("sd15-inpainting")
    figures = script.benchmark(vae, unet, steps=1, batches=(1, 2), overhead_steps=1)
    assert figures["crop_size"] == 64 and [call["photos"] for call in figures["calls"]] == [1, 2]
    for call in figures["calls"]:
        assert call["seconds"] > 0 and call["memory"] > 0
        assert call["seconds_a_photo"] == call["seconds"] / call["photos"]
    assert figures["adapter"]["adapter_parameters"] > 0


def test_the_sizes_are_those_of_stable_diffusion(script):
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**script.UNET), AutoencoderKL(**script.VAE)
    assert (unet.num_parameters(), vae.num_parameters()) == (859_535_364, 83_653_863)
