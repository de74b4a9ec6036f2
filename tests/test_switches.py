"""What users of diffusers switch on to save time and memory: each does so here, too, and the adapter stays."""

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import (
    AttnProcessor2_0,
    IPAdapterAttnProcessor2_0,
    IPAdapterXFormersAttnProcessor,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
)
from diffusers.utils import is_xformers_available
from stable_diffusions import build_model

from medeid import MedicalDeIDPipeline
from medeid.backbones import pipeline_around
from medeid.diffusion import decode_latents, encode_images, inpaint
from medeid.types import FaceBox

FACE = FaceBox((177.0, 65.0, 272.0, 190.0), 1.0, None, "user")
CAN_RUN_XFORMERS = is_xformers_available() and torch.cuda.is_available()


@pytest.fixture
def small() -> MedicalDeIDPipeline:
    """A Stable Diffusion of random weights for crops of 64 px."""
    pipeline = pipeline_around(*build_model("sd15-inpainting"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def draw(pipeline, batch=2) -> torch.Tensor:
    """Faces drawn from nothing, of an identity each."""
    generator = torch.Generator().manual_seed(0)
    size, like = pipeline.config.crop_size, pipeline._like
    return inpaint(
        pipeline.vae,
        pipeline.unet,
        pipeline.structure_adapter,
        pipeline.scheduler,
        images=torch.rand(batch, 3, size, size, generator=generator).to(like),
        masks=torch.ones(batch, 1, size, size).to(like),
        sketches=torch.rand(batch, 3, size, size, generator=generator).to(like),
        identities=torch.randn(batch, 128, generator=generator).to(like),
        num_inference_steps=2,
        guidance_scale=2.0,
        tokens=pipeline.identity_adapter.no_tokens(batch),
        generator=generator,
    ).images


def deidentify(pipeline, photos):
    """Random weights draw no face, so what comes out is blurred."""
    options = {"num_inference_steps": 1, "max_attempts": 1, "on_fail": "blur"}
    boxes = [[FACE]] * len(photos)
    return pipeline(photos, boxes=boxes, generator=torch.Generator().manual_seed(0), **options)


def same_weights(pipeline) -> bool:
    """Whether the UNet attends by the adapter's own weights, and not by copies of them."""
    own = {id(parameter) for parameter in pipeline.identity_adapter.parameters()}
    return own <= {id(parameter) for parameter in pipeline.unet.parameters()}


def test_attention_is_torchs_own_if_nothing_else_is_asked_for(small):
    assert {type(each) for each in small.unet.attn_processors.values()} == {AttnProcessor2_0, IPAdapterAttnProcessor2_0}
    assert {type(each) for each in small.vae.attn_processors.values()} == {AttnProcessor2_0}


@pytest.mark.skipif(is_xformers_available(), reason="xformers is installed")
def test_without_xformers_one_error_says_so_and_changes_nothing(small):
    expected = draw(small)
    with pytest.raises(ModuleNotFoundError, match=r"not installed: `pip install medeid\[xformers\]`"):
        small.enable_xformers_memory_efficient_attention()
    assert torch.equal(draw(small), expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_xformers_without_a_gpu_is_one_error(small, monkeypatch):
    monkeypatch.setattr("medeid.switches.is_xformers_available", lambda: True)
    with pytest.raises(ValueError, match="xformers needs an NVIDIA GPU"):
        small.enable_xformers_memory_efficient_attention()
    assert same_weights(small)


@pytest.mark.skipif(not CAN_RUN_XFORMERS, reason="needs xformers and an NVIDIA GPU")
def test_xformers_draws_the_same(small):
    small.to("cuda")
    expected = draw(small)
    small.enable_xformers_memory_efficient_attention()
    assert same_weights(small) and isinstance(small.identity_adapter.processors[0], IPAdapterXFormersAttnProcessor)
    torch.testing.assert_close(draw(small), expected, atol=1e-3, rtol=0)
    small.disable_xformers_memory_efficient_attention()
    assert torch.equal(draw(small), expected)


def test_the_adapter_follows_the_unet_to_xformers_and_stays_there_after_saving(small, tmp_path):
    def kinds():
        return {type(each) for each in small.unet.attn_processors.values()}

    with small._plain_unet():  # in which diffusers switches
        small.unet.set_attn_processor(XFormersAttnProcessor())
    for _ in range(2):
        assert kinds() == {XFormersAttnProcessor, IPAdapterXFormersAttnProcessor} and same_weights(small)
        small.save_pretrained(tmp_path)
    small.disable_xformers_memory_efficient_attention()
    assert kinds() == {AttnProcessor2_0, IPAdapterAttnProcessor2_0} and same_weights(small)


def test_attention_in_slices_draws_the_same(small):
    expected = draw(small)
    small.enable_attention_slicing(1)
    assert SlicedAttnProcessor in {type(each) for each in small.unet.attn_processors.values()}
    torch.testing.assert_close(draw(small), expected, atol=1e-4, rtol=0)
    small.disable_attention_slicing()
    assert torch.equal(draw(small), expected) and same_weights(small)


@pytest.mark.parametrize("name", ["small", "pipeline"])
def test_slices_of_the_autoencoder_draw_the_same(name, request):
    pipeline = request.getfixturevalue(name)
    expected = draw(pipeline)
    pipeline.vae.enable_slicing()
    try:
        torch.testing.assert_close(draw(pipeline), expected, atol=1e-4, rtol=0)
    finally:
        pipeline.vae.disable_slicing()


@torch.no_grad()
@pytest.mark.parametrize(("name", "tile"), [("small", ()), ("pipeline", (128, 128, 96, 96))])
def test_tiles_of_the_autoencoder_are_near_the_whole(name, tile, request, light_face):
    pipeline = request.getfixturevalue(name)
    vae, calls = pipeline.vae, []
    images = torch.from_numpy(light_face[0].copy()).permute(2, 0, 1)[None].float() / 127.5 - 1.0
    latents = encode_images(vae, images)
    whole = decode_latents(vae, latents)
    handle = vae.decoder.register_forward_hook(lambda *_: calls.append(1))
    vae.enable_tiling(*tile)
    try:
        tiles = decode_latents(vae, latents)
        assert encode_images(vae, images).shape == latents.shape
    finally:
        vae.disable_tiling()
        handle.remove()
    assert len(calls) > 1 and tiles.shape == whole.shape and tiles.isfinite().all()
    if name == "pipeline":  # random weights, normalised tile by tile, are another function of each tile
        assert (tiles - whole).abs().mean() < 0.02


def test_a_compiled_unet_draws_the_same_and_can_be_saved(small, tmp_path):
    expected = draw(small)
    small.unet = torch.compile(small.unet, backend="eager", fullgraph=True)
    torch.testing.assert_close(draw(small), expected, atol=1e-4, rtol=0)
    small.save_pretrained(tmp_path)
    torch.testing.assert_close(draw(small), expected, atol=1e-4, rtol=0)
    loaded = MedicalDeIDPipeline.from_pretrained(tmp_path)
    torch.testing.assert_close(draw(loaded), expected, atol=1e-4, rtol=0)


def test_bfloat16_passes_the_checks(astronaut):
    pipeline = MedicalDeIDPipeline.from_pretrained("medeid-tiny", torch_dtype=torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    drawing = (pipeline.unet, pipeline.vae, pipeline.structure_adapter, pipeline.identity_adapter)
    looking = (pipeline.landmark_net, pipeline.manifestation_encoder, pipeline.surrogate_prior, pipeline.shape_prior)
    assert {part.dtype for part in drawing} == {torch.bfloat16}
    assert {part.dtype for part in looking} == {torch.float32}
    output = pipeline(astronaut, generator=torch.Generator().manual_seed(0))
    (result,), (mask,) = output.images, output.masks
    assert output.records[0].status == "released"
    assert np.array_equal(result[~mask], astronaut[~mask])
    assert np.abs(result[mask].astype(int) - astronaut[mask]).mean() > 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_stable_diffusion_runs_in_half_precision(small, dtype, astronaut, tmp_path):
    small.save_pretrained(tmp_path)
    half = MedicalDeIDPipeline.from_pretrained(tmp_path, torch_dtype=dtype)
    half.set_progress_bar_config(disable=True)
    assert draw(half).dtype == dtype and draw(half).isfinite().all()
    output = deidentify(half, [astronaut])
    assert np.array_equal(output.images[0][~output.masks[0]], astronaut[~output.masks[0]])


def test_every_model_is_offloaded_or_says_that_it_stays(pipeline):
    models = {name for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    offloaded = set(pipeline.model_cpu_offload_seq.split("->"))
    assert models == offloaded | set(pipeline._exclude_from_cpu_offload)
    assert not offloaded & set(pipeline._exclude_from_cpu_offload)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_offloading_without_a_gpu_is_diffusers_own_error(small):
    with pytest.raises(RuntimeError, match="`enable_model_cpu_offload` requires accelerator, but not found"):
        small.enable_model_cpu_offload()


def test_offloaded_models_work_wherever_they_are_called(small, astronaut):
    expected = deidentify(small, [astronaut])
    small.enable_model_cpu_offload(device="cuda" if torch.cuda.is_available() else "cpu")
    assert all(hasattr(getattr(small, name), "_hf_hook") for name in small.model_cpu_offload_seq.split("->"))
    output = deidentify(small, [astronaut])
    assert np.abs(output.images[0].astype(int) - expected.images[0]).max() <= 2


def test_all_faces_of_all_photos_go_through_the_unet_together(pipeline, astronaut):
    pair = np.concatenate([astronaut[:300, 80:380], astronaut[:300, 80:380][:, ::-1]], axis=1)
    sizes = []
    handle = pipeline.unet.register_forward_pre_hook(lambda unet, inputs: sizes.append(len(inputs[0])))
    options = {"num_inference_steps": 2, "guidance_scale": 1.0, "max_attempts": 1, "on_fail": "blur"}
    output = pipeline([pair, astronaut], generator=torch.Generator().manual_seed(0), **options)
    handle.remove()
    # Two steps, and a look at what came out.
    assert sizes == [3, 3, 3] and [len(record.faces) for record in output.records] == [2, 1]
