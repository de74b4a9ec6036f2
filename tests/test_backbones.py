"""Stable Diffusion 1, 2 and XL as backbones: random weights, so that what comes out is finite, but no face."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, LCMScheduler
from stable_diffusions import MODELS, build_model

from medeid.backbones import pipeline_around
from medeid.diffusion import encode_images, inpaint, latent_mask, predict
from medeid.types import FaceBox

SCHEDULERS = [DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, LCMScheduler]
FACE = FaceBox((177.0, 65.0, 272.0, 190.0), 1.0, None, "user")


def schedule(pipeline, kind):
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    return pipeline


@pytest.fixture
def small(request):
    """A pipeline for crops of 64 px."""
    return pipeline_around(*build_model(request.param))


def draw_photo(pipeline, photo):
    """A result, where it is new, and the latents of each step. Two steps; then the face is blurred, as it is none."""
    steps = []

    def remember(pipeline, step, timestep, tensors):
        steps.append(tensors["latents"])
        return tensors

    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "max_attempts": 1, "on_fail": "blur", "callback_on_step_end": remember}
    output = pipeline(photo, boxes=[[FACE]], generator=torch.Generator().manual_seed(0), **options)
    return output.images[0], output.masks[0], steps


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize("small", MODELS, indirect=True)
def test_each_backbone_draws_by_each_scheduler_and_changes_nothing_around(small, kind, astronaut):
    result, mask, steps = draw_photo(schedule(small, kind), astronaut)
    assert len(steps) == 2 and all(latents.isfinite().all() for latents in steps)
    assert mask.any() and np.array_equal(result[~mask], astronaut[~mask])
    assert np.abs(result[mask].astype(int) - astronaut[mask]).mean() > 5


@pytest.mark.parametrize(("name", "size"), [("sd15-inpainting", 512), ("sdxl-inpainting", 1024)])
def test_crops_have_the_size_that_the_unet_has_learned(name, size, astronaut):
    pipeline = pipeline_around(*build_model(name, sample_size=size // 8))
    assert pipeline.config.crop_size == size
    result, mask, steps = draw_photo(pipeline, astronaut)
    assert steps[-1].shape == (1, 4, size // 8, size // 8) and steps[-1].isfinite().all()
    assert mask.any() and np.array_equal(result[~mask], astronaut[~mask])


@pytest.fixture
def images(light_face):
    image = torch.from_numpy(light_face[0][::4, ::4].copy()).permute(2, 0, 1)[None]
    return image.contiguous().float() / 255.0


@pytest.fixture
def masks():
    masks = torch.zeros(1, 1, 64, 64)
    masks[..., 19:42, 12:50] = 1.0
    return masks


def draw(pipeline, images, masks, **options):
    return inpaint(
        pipeline.vae,
        pipeline.unet,
        pipeline.structure_adapter,
        pipeline.scheduler,
        images=images,
        masks=masks,
        sketches=torch.zeros_like(images),
        identities=torch.zeros(len(images), 128),
        num_inference_steps=3,
        guidance_scale=2.0,
        tokens=pipeline.identity_adapter.no_tokens(len(images)),
        generator=torch.Generator().manual_seed(0),
        **options,
    ).images


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize("small", MODELS, indirect=True)
def test_nothing_under_the_mask_has_an_influence(small, kind, images, masks):
    schedule(small, kind)
    other = torch.where(masks > 0, torch.rand_like(images), images)
    drawn = draw(small, images, masks)
    assert drawn.isfinite().all() and torch.equal(drawn, draw(small, other, masks))
    assert not torch.equal(drawn, draw(small, images.flip(-1), masks))


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize("small", ["sd15"], indirect=True)
def test_a_unet_that_is_not_told_of_the_hole_finds_the_source_around_it(small, kind, images, masks):
    steps = []
    draw(schedule(small, kind), images, masks, on_step=lambda step, timestep, latents: steps.append(latents) or latents)
    with torch.no_grad():
        source = encode_images(small.vae, (images * 2.0 - 1.0).masked_fill(masks > 0, 0.0))
    around = (latent_mask(masks, 8) == 0).expand_as(source)
    assert torch.equal(steps[-1][around], source[around])
    distances = [(latents - source)[around].std() for latents in steps]
    assert distances[0] > distances[1] > distances[2] == 0


@pytest.mark.parametrize("small", ["sdxl-inpainting"], indirect=True)
def test_sdxl_is_told_of_no_text_and_of_a_whole_picture(small, images, masks):
    told = []
    handle = small.unet.register_forward_pre_hook(lambda unet, _, options: told.append(options), with_kwargs=True)
    draw(small, images, masks)
    handle.remove()
    conditions = told[0]["added_cond_kwargs"]
    assert torch.equal(conditions["text_embeds"], torch.zeros(2, 20))
    assert conditions["time_ids"].tolist() == [[64, 64, 0, 0, 64, 64]] * 2


@pytest.mark.parametrize("small", MODELS, indirect=True)
def test_each_feature_of_the_structure_adapter_reaches_the_unet(small):
    config = small.unet.config
    torch.manual_seed(0)
    latents, masks, timestep = torch.randn(1, 4, 8, 8), torch.ones(1, 1, 8, 8), torch.tensor(500)
    tokens = small.identity_adapter.no_tokens(1)

    @torch.no_grad()
    def output(structure):
        given = (latents, timestep, masks, latents, torch.zeros(1, 128), tokens)
        return predict(small.unet, structure, *given)

    with torch.no_grad():
        structure = small.structure_adapter(torch.rand(1, 3, 64, 64))
    assert len(structure) >= len(config.block_out_channels)
    plain = output(structure)
    for index in range(len(structure)):
        changed = [feature + (number == index) for number, feature in enumerate(structure)]
        assert not torch.allclose(output(changed), plain)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 5}, "`unet` takes 5 channels and gives 4, but `vae` has latents of 4"),
        ({"class_embed_type": "timestep"}, "has to be told .* `class_embed_type`"),
        (
            {
                "block_out_channels": [8, 16, 16, 16],
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
                "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                "attention_head_dim": [1, 2, 4, 4],
                "transformer_layers_per_block": 1,
            },
            "which no structure adapter fits.*not its refiner",
        ),
    ],
    ids=["depth", "classes", "refiner"],
)
def test_other_unets_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        pipeline_around(*build_model("sdxl-inpainting", **changes))
