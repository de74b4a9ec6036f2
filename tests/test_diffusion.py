"""The diffusion step: what is under the mask cannot leak, since nothing reads it."""

import pytest
import torch
from diffusers import AutoencoderKL
from stable_diffusions import VAE

from medeid.diffusion import decode_latents, denoising_errors, encode_images, inpaint, latent_mask
from medeid.faces.mesh import draw_sketch


def draw(pipeline, images, masks, seed=0, steps=2, guidance=2.0, identity_seed=0, on_step=None):
    identities = torch.randn(len(images), 128, generator=torch.Generator().manual_seed(identity_seed))
    return inpaint(
        pipeline.vae,
        pipeline.unet,
        pipeline.structure_adapter,
        pipeline.scheduler,
        images=images,
        masks=masks,
        sketches=torch.zeros_like(images),
        identities=identities,
        num_inference_steps=steps,
        guidance_scale=guidance,
        tokens=pipeline.identity_adapter.no_tokens(len(images)),
        generator=torch.Generator().manual_seed(seed),
        on_step=on_step,
    ).images


@pytest.fixture
def images(astronaut):
    return torch.from_numpy(astronaut[:256, 96:352].copy()).permute(2, 0, 1)[None].contiguous().float() / 255.0


@pytest.fixture
def masks():
    masks = torch.zeros(1, 1, 256, 256)
    masks[..., 60:200, 70:180] = 1.0
    return masks


def test_pixels_under_the_mask_have_no_influence(pipeline, images, masks):
    other = torch.where(masks > 0, torch.rand_like(images), images)
    assert torch.equal(draw(pipeline, images, masks), draw(pipeline, other, masks))


def test_pixels_beside_the_mask_have(pipeline, images, masks):
    assert not torch.equal(draw(pipeline, images, masks), draw(pipeline, images.flip(-1), masks))


def test_the_identity_and_the_noise_decide_on_the_face(pipeline, images, masks):
    first = draw(pipeline, images, masks)
    assert (draw(pipeline, images, masks, identity_seed=1) - first).abs().max() > 0.05
    assert (draw(pipeline, images, masks, seed=1) - first).abs().max() > 0.05


def test_without_guidance_a_step_is_one_pass_of_one_sample(pipeline, images, masks):
    sizes = []
    handle = pipeline.unet.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    draw(pipeline, images, masks, guidance=1.0)
    draw(pipeline, images, masks, guidance=2.0)
    handle.remove()
    assert sizes == [1, 1, 2, 2]


@torch.no_grad()
def test_the_unet_finds_a_face_with_patches_unlikely(pipeline, light_face, masks):
    image, landmarks = light_face
    images = torch.tensor(image).permute(2, 0, 1)[None] / 255.0
    sketch = torch.from_numpy(draw_sketch(landmarks, 256)).permute(2, 0, 1)[None] / 255.0
    patchy = images.clone()
    patchy[..., 90:130, 90:120] = images[..., 150:190, 90:120]
    patchy[..., 140:170, 130:160] *= 0.5
    errors = []
    for image in (images, patchy):
        latents = encode_images(pipeline.vae, image * 2.0 - 1.0)
        errors.append(
            denoising_errors(
                pipeline.unet,
                pipeline.scheduler,
                latents,
                latent_mask(masks, latents.shape[-1]),
                structure=pipeline.structure_adapter(sketch),
                masked_latents=encode_images(pipeline.vae, (images * 2.0 - 1.0).masked_fill(masks > 0, 0.0)),
                identities=torch.zeros(1, 128),
                tokens=pipeline.identity_adapter.no_tokens(1),
            )
        )
    assert errors[0].shape == (1,) and errors[1] > 1.2 * errors[0]


def test_a_latent_is_masked_if_any_of_its_pixels_is():
    masks = torch.zeros(1, 1, 256, 256)
    masks[..., 16, 33] = 1.0
    assert latent_mask(masks, 16).nonzero().tolist() == [[0, 0, 1, 2]]


def test_the_autoencoder_keeps_a_face(pipeline, images):
    with torch.no_grad():
        latents = encode_images(pipeline.vae, images * 2 - 1)
        decoded = decode_latents(pipeline.vae, latents) / 2 + 0.5
    psnr = -10 * torch.log10((decoded - images).square().mean())
    assert 0.5 < latents.std() < 2.0 and psnr > 25


@pytest.mark.parametrize(("force_upcast", "expected"), [(True, torch.float32), (False, torch.float16)])
@torch.no_grad()
def test_an_autoencoder_that_overflows_in_float16_runs_in_float32(force_upcast, expected):
    vae = AutoencoderKL(**VAE, force_upcast=force_upcast).eval().half()
    seen = []
    for part in (vae.encoder, vae.decoder):
        part.register_forward_pre_hook(lambda part, inputs: seen.append(inputs[0].dtype))
    latents = encode_images(vae, torch.zeros(1, 3, 64, 64, dtype=torch.float16))
    decoded = decode_latents(vae, latents)
    with torch.autocast("cpu", torch.float16):
        decode_latents(vae.float(), latents.float())
    assert seen == [expected] * 3
    assert latents.dtype == decoded.dtype == torch.float16


def test_an_autoencoder_comes_back_from_float32():
    vae = AutoencoderKL(**VAE, force_upcast=True).half()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    with torch.no_grad():
        decode_latents(vae, torch.zeros(1, 4, 8, 8, dtype=torch.float16))
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert vae.dtype == torch.float16
