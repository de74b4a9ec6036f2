"""The adapter's training on a few simulated patients: medeid-tiny's, and that of a small Stable Diffusion."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import train_adapter as script
from diffusers import AutoencoderKL, DDIMScheduler
from harness import parse_config, train, write_model_card
from safetensors.torch import load_file
from stable_diffusions import SCHEDULER, save_model

from medeid import MedicalDeIDPipeline
from medeid.data.build import BuildOptions, build_set
from medeid.data.mema import load_mema

FACES = Path(__file__).parents[2] / "examples" / "faces"
TRAIN = Path(__file__).parents[2] / "train"


@pytest.fixture(scope="module")
def patients(tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("patients") / "set"
    build_set(FACES, out, BuildOptions(count=12, seed=0, signs=("port_wine_stain", "jaundice")), jobs=1)
    return str(out)


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory) -> Path:
    """Random weights in the layout of a Stable Diffusion inpainting model."""
    return save_model(tmp_path_factory.mktemp("stable-diffusion"), "sd15-inpainting")


def options(patients: str, model: Path | str, output: Path, **more) -> script.AdapterConfig:
    values = {"train_batch_size": 2, "max_train_steps": 2, "validation_images": 2, "lr_warmup_steps": 0}
    values |= {"data_dir": patients, "output_dir": str(output), "pretrained_model_name_or_path": str(model)}
    return script.AdapterConfig(**{**values, "dataloader_num_workers": 0, **more})


def batch_of(task: script.AdapterTask, count: int) -> dict[str, torch.Tensor]:
    """A batch with samples of both kinds."""
    batch = torch.utils.data.default_collate([task.dataset[i % len(task.dataset), i] for i in range(count)])
    assert 0 < batch["swapped"].sum() < count
    return batch


def backward(task: script.AdapterTask, count: int = 4) -> dict[str, torch.Tensor]:
    loss, parts = task.loss(task.model, batch_of(task, count), None)
    torch.testing.assert_close(loss, sum(parts.values()))
    loss.backward()
    return parts


@pytest.mark.parametrize("checkpointing", [False, True], ids=["remembering", "checkpointing"])
def test_what_is_to_learn_gets_a_gradient_and_what_is_frozen_none(patients, tmp_path, checkpointing):
    task = script.AdapterTask(options(patients, "medeid-tiny", tmp_path, gradient_checkpointing=checkpointing))
    adapter = task.model.identity_adapter
    assert adapter.config.token_dim == task.encoder.config.token_dim
    for processor in adapter.processors:
        torch.nn.init.normal_(processor.to_v_ip[1].weight, std=0.01)  # zero in a new adapter, which hides the rest
    parts = backward(task)
    assert set(parts) == {"denoising", "identity", "suppression", "labels", "tokens", "masks"}
    assert all(value.isfinite() for value in parts.values()) and parts["identity"] > 0 and parts["labels"] > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in adapter.parameters())
    learning = {id(parameter) for parameter in adapter.parameters()}
    assert learning == {id(parameter) for parameter in task.model.parameters() if parameter.requires_grad}
    frozen = [*task.pipeline.components.values(), task.recognizer]
    for part in (part for part in frozen if isinstance(part, torch.nn.Module)):
        for parameter in part.parameters():
            assert id(parameter) in learning or (parameter.grad is None and not parameter.requires_grad)
    assert not any(name.startswith("unet") or "_unet" in name for name in task.model.state_dict())


def test_mixed_precision_reaches_what_is_frozen_and_changes_little(patients, tmp_path):
    exact, rough = (
        script.AdapterTask(options(patients, "medeid-tiny", tmp_path, mixed_precision=precision))
        for precision in ("no", "bf16")
    )
    parts, roughly = (task.loss(task.model, batch_of(task, 4), None)[1] for task in (exact, rough))
    # Only of the denoising: another surrogate may be the nearest one to a source embedded a little otherwise.
    torch.testing.assert_close(roughly["denoising"], parts["denoising"], rtol=0.02, atol=1e-3)
    assert not torch.equal(roughly["denoising"], parts["denoising"])
    assert all(value.dtype == torch.float32 and value.isfinite() for value in roughly.values())


def test_a_teacher_asks_for_what_guidance_would_say(patients, tmp_path):
    told = {}
    for scale in (2.0, 3.0):
        task = script.AdapterTask(options(patients, "medeid-tiny", tmp_path, distilled_guidance_scale=scale))
        with torch.no_grad():
            told[scale] = task.loss(task.model, batch_of(task, 6), None)[1]
        assert task.pipeline.config.guidance_scale == 1.0
    # As long as nothing is learned, what is asked for lies scale - 1 times as far away as no identity does.
    torch.testing.assert_close(told[3.0]["distillation"], 4.0 * told[2.0]["distillation"])
    backward(task, 6)
    assert all(parameter.grad is None for parameter in task.teacher._model.parameters())


def test_a_teacher_must_know_faces(patients, stable_diffusion, tmp_path):
    with pytest.raises(ValueError, match="`distilled_guidance_scale` is for a pipeline of medeid"):
        script.AdapterTask(options(patients, stable_diffusion, tmp_path, distilled_guidance_scale=2.0))


def test_tokens_and_identities_are_what_the_pipeline_gives(patients, tmp_path):
    task = script.AdapterTask(options(patients, "medeid-tiny", tmp_path))
    batch = batch_of(task, 4)
    batch["ill"][0] = False
    images = batch["images"] / 255.0
    seen = task.encoder(images, [torch.Generator().manual_seed(seed) for seed in batch["seeds"].tolist()])
    tokens = task.told_tokens(seen, batch)
    assert not tokens[0].any() and torch.equal(tokens[1:], seen.tokens[1:])
    assert not torch.allclose(seen.tokens, seen.token_mean, atol=0.1)
    sources = task.prior.standardise(task.recognizer(images, batch["points5"]))
    generators = [torch.Generator().manual_seed(i) for i in range(4)]
    drawn = task.draw_identities(sources, torch.tensor([True, True, False, False]), generators)
    cosines = torch.nn.functional.cosine_similarity(drawn, sources)
    assert (cosines[:2] < 0.15).all()
    assert all(torch.equal(who, source) or not who.any() for who, source in zip(drawn[2:], sources[2:], strict=True))
    swapped = torch.tensor([True] * 50 + [False] * 50)
    drawn = task.draw_timesteps(swapped, [torch.Generator().manual_seed(i) for i in range(100)])
    assert drawn[:50].min() >= 700 and drawn[50:].min() < 200 and drawn.max() < 1000


def test_a_hole_hides_the_face_and_the_points_fit_the_picture(patients, tmp_path, stable_diffusion):
    small = script.AdapterTask(options(patients, stable_diffusion, tmp_path)).dataset
    rows = load_mema(patients, "train")
    samples = [(index % len(rows), small[index % len(rows), index]) for index in range(12)]
    for index, sample in samples:
        assert sample["images"].shape == (3, 64, 64) and sample["sketches"].shape == (3, 64, 64)
        landmarks = np.array(rows[index]["landmarks"])
        np.testing.assert_allclose(sample["points5"][2], (landmarks[1, :2] + 0.5) / 4 - 0.5, atol=1e-3)
        if sample["swapped"]:
            columns, rows_of_points = sample["points5"].round().long().T
            assert sample["masks"][0, rows_of_points, columns].all()
    same = small[samples[0][0], 0]
    assert all(torch.equal(value, samples[0][1][name]) for name, value in same.items())


def test_rows_without_landmarks_get_them_from_the_network(patients, tmp_path):
    task = script.AdapterTask(options(patients, "medeid-tiny", tmp_path))
    known = task.dataset[0, 0]
    bare = load_mema(patients, "train").map(lambda row: {"landmarks": None}, load_from_cache_file=False)
    found = script.Patients(bare, task.pipeline.landmark_net, 256, 0, 0.5)[0, 0]
    assert (found["points5"] - known["points5"]).norm(dim=1).max() < 6


def test_min_snr_weights_of_noise_and_velocity():
    timesteps = torch.tensor([0, 400, 999])
    noise = DDIMScheduler(**SCHEDULER)
    share = noise.alphas_cumprod[timesteps]
    snr = share / (1 - share)
    torch.testing.assert_close(script.snr_weights(noise, timesteps, 5.0), snr.clamp(max=5.0) / snr)
    velocity = DDIMScheduler(**SCHEDULER, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    weights = script.snr_weights(velocity, timesteps, 5.0)
    assert weights.isfinite().all() and weights[2] == 0.0
    assert torch.equal(script.snr_weights(velocity, timesteps, 0.0), torch.ones(3))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_true_prediction_gives_back_the_clean_latents(kind):
    scheduler = DDIMScheduler(**SCHEDULER, prediction_type=kind, rescale_betas_zero_snr=kind == "v_prediction")
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([10, 700, 998])
    output = scheduler.get_velocity(latents, noise, timesteps) if kind == "v_prediction" else noise
    estimate = script.estimate_clean(scheduler, scheduler.add_noise(latents, noise, timesteps), output, timesteps)
    torch.testing.assert_close(estimate, latents, atol=1e-3, rtol=1e-3)


def test_an_unchanged_face_loses_no_sign_and_is_its_own_source(patients, tmp_path):
    task = script.AdapterTask(options(patients, "medeid-tiny", tmp_path))
    batch = batch_of(task, 4)
    images = batch["images"] / 255.0
    with torch.no_grad():
        before = task.encoder(images)
        sources = task.prior.standardise(task.recognizer(images, batch["points5"]))
        same = task.judge(images, batch["points5"], sources, -sources, before)
        blurred = torch.nn.functional.avg_pool2d(images, 31, 1, 15)
        other = task.judge(blurred, batch["points5"], sources, -sources, before)
    torch.testing.assert_close(same["tokens"], torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(same["suppression"], torch.full((4,), 0.9))
    torch.testing.assert_close(same["identity"], torch.full((4,), 2.0))
    for name in ("labels", "tokens", "masks"):
        assert (same[name] < other[name]).all()
    assert (other["suppression"] < same["suppression"]).all()


def optimizer_means(output: Path) -> list[torch.Tensor]:
    """AdamW's means after the first step, a tenth of the gradients."""
    state = torch.load(output / "checkpoint-1" / "optimizer.bin", weights_only=True)["state"]
    return [state[index]["exp_avg"] for index in sorted(state)]


def test_two_processes_have_the_gradients_of_one_with_the_doubled_batch(patients, stable_diffusion, tmp_path):
    same = {"max_train_steps": 1, "validation_images": 1, "max_grad_norm": 1e9}
    arguments = ["--config", str(tmp_path / "config.yaml")]
    values = vars(options(patients, stable_diffusion, tmp_path / "two", train_batch_size=2, **same))
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(TRAIN / "train_adapter.py"), *arguments], env=environment, check=True)
    assert {path.name for path in (tmp_path / "two" / "checkpoint-1").glob("random_states_*")} == {
        "random_states_0.pkl",
        "random_states_1.pkl",
    }
    config = options(patients, stable_diffusion, tmp_path / "one", train_batch_size=4, **same)
    train(config, script.AdapterTask(config))
    one, two = optimizer_means(tmp_path / "one"), optimizer_means(tmp_path / "two")
    assert len(one) == len(two) and max(mean.abs().max() for mean in one) > 1e-4
    for alone, together in zip(one, two, strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3 * alone.abs().max().item() + 1e-9)


def test_a_resumed_run_equals_an_uninterrupted_one(patients, stable_diffusion, tmp_path):
    def run(output: Path, **more) -> None:
        config = options(patients, stable_diffusion, output, validation_images=1, learning_rate=1e-2, **more)
        config.checkpointing_steps = 1
        train(config, script.AdapterTask(config))

    run(tmp_path / "whole", max_train_steps=3)
    run(tmp_path / "parts", max_train_steps=3, stop_after_steps=1)
    run(tmp_path / "parts", max_train_steps=3)
    expected, resumed = (
        load_file(tmp_path / part / "checkpoint-3" / "model.safetensors") for part in ("whole", "parts")
    )
    torch.testing.assert_close(resumed, expected, rtol=0, atol=0)
    assert not any(name.startswith(("unet", "vae")) for name in expected)
    whole, parts = (MedicalDeIDPipeline.from_pretrained(tmp_path / part / "export") for part in ("whole", "parts"))
    for name in ("identity_adapter", "structure_adapter"):
        expected = getattr(whole, name).state_dict()
        torch.testing.assert_close(getattr(parts, name).state_dict(), expected, rtol=0, atol=0)


def test_a_stable_diffusion_model_becomes_a_pipeline(patients, stable_diffusion, tmp_path, portrait):
    config = options(patients, stable_diffusion, tmp_path, learning_rate=1e-2, validation_steps=2)
    task = script.AdapterTask(config)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    frozen = {name: value.clone() for name, value in task.pipeline.vae.state_dict().items()}
    train(config, task)
    same = [name for name, value in task.model.state_dict().items() if torch.equal(value.float(), before[name])]
    assert same == []
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"rank1", "source_cosine", "surrogate_cosine", "signs_kept"} <= set(metrics[-1])
    assert (tmp_path / "samples-000002.png").exists()

    exported = MedicalDeIDPipeline.from_pretrained(tmp_path / "export")
    exported.set_progress_bar_config(disable=True)
    assert exported.config.crop_size == 64 and isinstance(exported.vae, AutoencoderKL)
    assert isinstance(exported.scheduler, DDIMScheduler) and not exported.scheduler.config.clip_sample
    for name, value in exported.vae.state_dict().items():
        assert torch.equal(value, frozen[name].half().float())
    # Random weights draw no face that the checks let pass.
    generator = torch.Generator().manual_seed(0)
    output = exported(portrait, generator=generator, num_inference_steps=2, max_attempts=1, on_fail="blur")
    result, mask = np.asarray(output.images[0]), output.masks[0]
    assert mask.any() and np.array_equal(result[~mask], np.asarray(portrait)[~mask])
    assert np.abs(result[mask].astype(int) - np.asarray(portrait)[mask]).mean() > 5

    # An export is trained further, without its structure adapter unless that is asked for.
    for further in (False, True):
        more = script.AdapterTask(options(patients, tmp_path / "export", tmp_path, train_structure_adapter=further))
        structure = more.model.structure_adapter.parameters()
        assert all(parameter.requires_grad == further for parameter in structure)


@pytest.mark.parametrize("name", ["sd15", "sd2-inpainting", "sdxl-inpainting"])
def test_every_stable_diffusion_learns_a_step_and_draws(patients, tmp_path, name):
    model = save_model(tmp_path / "model", name)
    config = options(patients, model, tmp_path / "out", max_train_steps=1, validation_images=1)
    task = script.AdapterTask(config)
    frozen = {key: value.clone() for key, value in task.unet.state_dict().items() if "_ip." not in key}
    before = {key: value.clone() for key, value in task.model.state_dict().items()}
    train(config, task)
    changed = {key for key, value in task.model.state_dict().items() if not torch.equal(value.float(), before[key])}
    assert any("identity_adapter.processors" in key for key in changed)
    assert any("structure_adapter" in key for key in changed)
    exported = MedicalDeIDPipeline.from_pretrained(tmp_path / "out" / "export")
    for key, value in exported.unet.state_dict().items():
        if key in frozen and not key.startswith("encoder_hid_proj"):
            assert torch.equal(value, frozen[key].half().float())
    assert exported.draw_faces(1, torch.Generator().manual_seed(0), num_inference_steps=1)[0].size == (64, 64)


def test_wrong_options_are_told(patients, stable_diffusion, tmp_path):
    with pytest.raises(ValueError, match=r"`swapped_share` must lie in \(0, 1\), but is 1.0"):
        script.AdapterConfig(swapped_share=1.0)
    with pytest.raises(ValueError, match="`identity_weight` must not be negative, but is -1"):
        script.AdapterConfig(identity_weight=-1.0)
    with pytest.raises(ValueError, match="`init_from`.*`pretrained_model_name_or_path`"):
        script.AdapterConfig(init_from="runs/adapter/export")
    with pytest.raises(ValueError, match="'runs/none' is no folder, and no model of the Hub that can be reached"):
        script.load_backbone("runs/none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="neither a medeid pipeline nor the folders unet, vae and scheduler"):
        script.load_backbone(str(tmp_path / "empty"))
    depth = save_model(tmp_path / "depth", "sd15", in_channels=5)
    with pytest.raises(ValueError, match="takes 5 channels .* an inpainting UNet takes 9"):
        script.load_backbone(str(depth))
    scheduler = DDIMScheduler(**SCHEDULER, rescale_betas_zero_snr=True)
    for kind, message in (("sample", "knows epsilon and v_prediction"), ("epsilon", "zero terminal SNR")):
        broken = save_model(tmp_path / kind, "sd15-inpainting")
        DDIMScheduler.from_config(scheduler.config, prediction_type=kind).save_pretrained(broken / "scheduler")
        with pytest.raises(ValueError, match=message):
            script.AdapterTask(options(patients, broken, tmp_path))


def test_a_missing_bitsandbytes_and_a_hub_out_of_reach_are_told_before_the_training(
    patients, stable_diffusion, tmp_path, monkeypatch
):
    config = options(patients, stable_diffusion, tmp_path, use_8bit_adam=True)
    task = script.AdapterTask(config)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ImportError, match="`use_8bit_adam` needs bitsandbytes: `pip install bitsandbytes`"):
        train(config, task)
    config.use_8bit_adam, config.push_to_hub = False, True
    config.hub_model_id = "no/such/name"
    with pytest.raises(ValueError, match="Repo id must"):
        train(config, task)
    assert not (tmp_path / "metrics.jsonl").exists() and not list(tmp_path.glob("checkpoint-*"))


def test_a_model_card_tells_figures_and_no_path(tmp_path):
    config = script.AdapterConfig(data_dir="/clinic/smith", output_dir="runs/adapter", hub_model_id="us/forget")
    write_model_card(config, tmp_path, {"rank1": 0.125})
    card = (tmp_path / "README.md").read_text()
    assert "# forget" in card and "| rank1 | 0.125 |" in card and "| suppression_margin | 0.1 |" in card
    assert "library_name: diffusers" in card and "smith" not in card


def test_the_config_file_fits_the_script(patients):
    config = parse_config(
        script.AdapterConfig,
        script.__doc__,
        ["--config", str(TRAIN / "configs" / "adapter.yaml"), "--data_dir", patients, "--gradient_checkpointing"],
    )
    assert config.gradient_checkpointing and config.pretrained_model_name_or_path == "medeid-tiny"
