"""The training scripts on a handful of faces and small models: they learn, and a resumed run equals a whole one."""

import json

import numpy as np
import pytest
import torch
import train_autoencoder
import train_unet
from diffusers import AutoencoderDC, UNet2DConditionModel
from discriminator import PatchDiscriminator
from harness import PositionSampler, parse_config, train
from PIL import Image
from stable_diffusions import SD15_INPAINTING

from medeid.faces.shape import ShapePrior
from medeid.identity.adapter import IdentitySuppressionAdapter
from medeid.pipeline import PACKAGED_WEIGHTS

VAE = {
    "latent_channels": 4,
    "encoder_block_out_channels": [4, 4, 8, 8],
    "decoder_block_out_channels": [4, 4, 8, 8],
    "encoder_layers_per_block": [0, 1, 1, 1],
    "decoder_layers_per_block": [0, 1, 1, 1],
    "encoder_qkv_multiscales": [[], [], [], []],
    "decoder_qkv_multiscales": [[], [], [], []],
}
UNET = {**SD15_INPAINTING, "sample_size": 32}
STRUCTURE = {
    "in_channels": 3,
    "channels": UNET["block_out_channels"],
    "num_res_blocks": 1,
    "downscale_factor": 8,
}


@pytest.fixture(scope="module")
def faces(tmp_path_factory, astronaut):
    """Six crops of one photo, in imagefolder style: enough to run the scripts, though not to learn faces."""
    root = tmp_path_factory.mktemp("faces")
    landmarks = ShapePrior.from_pretrained(PACKAGED_WEIGHTS / "medeid-tiny" / "shape_prior").mean.float().view(478, 3)
    rows = []
    for index in range(6):
        crop = astronaut[index * 4 : index * 4 + 256, 90 + index : 346 + index]
        Image.fromarray(crop).save(root / f"{index}.png")
        rows.append({"file_name": f"{index}.png", "split": "train" if index < 4 else "validation"})
    (root / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    np.savez(root / "landmarks.npz", landmarks=np.repeat(landmarks.numpy()[None], 6, 0).astype(np.float16))
    return root


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    root = tmp_path_factory.mktemp("configs")
    for name, config in {"vae": VAE, "unet": UNET, "structure_adapter": STRUCTURE}.items():
        (root / name).mkdir()
        (root / name / "config.json").write_text(json.dumps(config))
    (root / "scheduler").mkdir()
    (root / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": "v_prediction"}))
    return root


def autoencoder(faces, configs, output, **options):
    values = {"train_batch_size": 2, "max_train_steps": 4, "checkpointing_steps": 2, "validation_steps": 4}
    values |= {"data_dir": str(faces), "model_config": str(configs / "vae"), "output_dir": str(output)}
    values |= {"lr_warmup_steps": 0, "dataloader_num_workers": 0, **options}
    config = train_autoencoder.AutoencoderConfig(**values)
    train(config, train_autoencoder.AutoencoderTask(config))
    return AutoencoderDC.from_pretrained(output / "export")


def test_a_resumed_run_equals_an_uninterrupted_one(faces, configs, tmp_path):
    whole = autoencoder(faces, configs, tmp_path / "whole")
    autoencoder(faces, configs, tmp_path / "parts", stop_after_steps=2)
    resumed = autoencoder(faces, configs, tmp_path / "parts")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, atol=1e-6, rtol=1e-5)


def test_the_autoencoder_learns_and_shows_its_pictures(faces, configs, tmp_path):
    autoencoder(faces, configs, tmp_path, max_train_steps=60, validation_steps=30, learning_rate=3e-3)
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    first, last = [entry["psnr"] for entry in metrics if "psnr" in entry]
    assert last > first
    assert (tmp_path / "samples-000060.png").exists()


def test_a_decoder_learns_textures_while_the_latents_stay(faces, configs, tmp_path):
    before = autoencoder(faces, configs, tmp_path / "whole")
    options = {"init_from": str(tmp_path / "whole" / "export"), "decoder_only": True, "adversarial_weight": 0.1}
    after = autoencoder(faces, configs, tmp_path / "sharp", **options)
    changed = {name for name, value in after.state_dict().items() if not torch.equal(value, before.state_dict()[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)
    assert after.config.scaling_factor == before.config.scaling_factor
    last = json.loads((tmp_path / "sharp" / "metrics.jsonl").read_text().splitlines()[-1])
    assert "psnr" in last
    with pytest.raises(ValueError, match="init_from"):
        train_autoencoder.AutoencoderConfig(decoder_only=True)


@torch.no_grad()
def test_two_directions_come_to_tell_colours_while_the_others_stay(configs):
    torch.manual_seed(0)
    vae = AutoencoderDC.from_config(AutoencoderDC.load_config(configs / "vae"))
    images = torch.rand(4, 3, 64, 64) * 2 - 1
    colours = train_autoencoder.ColourDirections(vae, images)
    latents = vae.encode(images).latent
    unchanged = colours.losses(latents, images)
    assert unchanged["elsewhere"] < 1e-9 < 0.1 < unchanged["colours"]
    two, others = colours.directions[:, :2], colours.directions[:, 2:]
    moved = latents + torch.einsum("cd,nhwd->nchw", two, torch.randn(*latents.movedim(1, -1).shape[:3], 2))
    assert colours.losses(moved, images)["elsewhere"] < 1e-9
    moved = latents + torch.einsum(
        "cd,nhwd->nchw", others, torch.ones(*latents.movedim(1, -1).shape[:3], others.shape[1])
    )
    assert colours.losses(moved, images)["elsewhere"] == pytest.approx(1.0, rel=1e-4)
    red, blue = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    red[:, 0], blue[:, 2] = 1.0, 1.0
    told = [colours._opponents(each)[0, :, 0, 0].tolist() for each in (red, blue)]
    assert told == [[1.0, 0.5], [-1.0, 0.5]]


def test_colours_are_learned_in_the_latents_of_an_autoencoder(faces, configs, tmp_path):
    autoencoder(faces, configs, tmp_path / "whole")
    options = {"init_from": str(tmp_path / "whole" / "export"), "colour_directions": True, "max_train_steps": 40}
    before = AutoencoderDC.from_pretrained(tmp_path / "whole" / "export")
    after = autoencoder(faces, configs, tmp_path / "coloured", learning_rate=3e-3, validation_steps=20, **options)
    assert after.config.scaling_factor == before.config.scaling_factor
    folder = train_autoencoder.FaceFolder(faces, "train")
    images = torch.stack([torch.from_numpy(folder.image(i).copy()).permute(2, 0, 1) / 127.5 - 1 for i in range(4)])
    colours = train_autoencoder.ColourDirections(before, images)
    with torch.no_grad():
        first, last = (colours.losses(vae.encode(images).latent, images)["colours"] for vae in (before, after))
    assert last < 0.8 * first


def test_each_side_of_the_discriminator_learns_from_its_own_losses():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator((4, 8, 8))
    images, decoded = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32, requires_grad=True)
    losses = discriminator.losses(decoded, images)
    assert all(loss.ndim == 0 for loss in losses.values())
    losses["discriminator"].backward(retain_graph=True)
    own = [parameter.grad.clone() for parameter in discriminator.parameters() if parameter.grad is not None]
    assert own and decoded.grad is None
    (losses["adversarial"] + losses["matching"]).backward()
    assert decoded.grad.abs().sum() > 0
    grads = [parameter.grad for parameter in discriminator.parameters() if parameter.grad is not None]
    assert all(torch.equal(grad, first) for grad, first in zip(grads, own, strict=True))


def test_a_discriminator_learns_to_tell_noise_from_flat_pictures():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator((8, 16, 16))
    optimizer = torch.optim.AdamW(discriminator.parameters(), 0.01)

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        return torch.rand(4, 3, 1, 1).expand(4, 3, 32, 32) * 2 - 1, torch.rand(4, 3, 32, 32) * 2 - 1

    for _ in range(60):
        flat, noise = draw()
        optimizer.zero_grad()
        discriminator.losses(decoded=flat, images=noise)["discriminator"].backward()
        optimizer.step()
    flat, noise = draw()
    assert discriminator(noise)[-1].mean() > discriminator(flat)[-1].mean() + 0.5


def test_every_part_of_the_generator_gets_a_gradient_and_is_exported(faces, configs, tmp_path):
    AutoencoderDC.from_config(AutoencoderDC.load_config(configs / "vae")).save_pretrained(tmp_path / "vae")
    values = {"train_batch_size": 2, "max_train_steps": 2, "validation_steps": 2, "variants": 2}
    values |= {"data_dir": str(faces), "model_config": str(configs), "output_dir": str(tmp_path / "out")}
    values |= {"vae": str(tmp_path / "vae"), "lr_warmup_steps": 0, "dataloader_num_workers": 0}
    config = train_unet.UNetConfig(**values)
    task = train_unet.UNetTask(config)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    train(config, task)
    same = [name for name, value in task.model.state_dict().items() if torch.equal(value, before[name])]
    assert same == []
    assert (tmp_path / "out" / "samples-000002.png").exists()
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "out" / "export" / "unet")
    IdentitySuppressionAdapter.from_pretrained(tmp_path / "out" / "export" / "identity_adapter").attach(unet)


def test_the_sampler_continues_where_it_stopped():
    whole = list(PositionSampler(5, seed=3, start=0, stop=14))
    assert list(PositionSampler(5, seed=3, start=6, stop=14)) == whole[6:]
    assert sorted(index for index, _ in whole[:5]) == [0, 1, 2, 3, 4]
    assert [position for _, position in whole] == list(range(14))


def test_weights_decide_how_often_a_face_is_drawn():
    drawn = [i for i, _ in PositionSampler(2, seed=0, start=0, stop=2000, weights=np.array([0.9, 0.1]))]
    assert 0.85 < drawn.count(0) / 2000 < 0.95


def test_the_command_line_wins_over_the_config_file(tmp_path):
    (tmp_path / "config.yaml").write_text("learning_rate: 0.5\nseed: 7\n")
    arguments = ["--config", str(tmp_path / "config.yaml"), "--data_dir", "faces", "--seed", "8"]
    config = parse_config(train_autoencoder.AutoencoderConfig, "", arguments)
    assert (config.learning_rate, config.seed, config.data_dir) == (0.5, 8, "faces")


def test_an_unknown_option_in_the_config_file_is_an_error(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("learning_rat: 0.5\n")
    with pytest.raises(SystemExit):
        parse_config(train_autoencoder.AutoencoderConfig, "", ["--config", str(tmp_path / "config.yaml")])
    assert "learning_rat" in capsys.readouterr().err
