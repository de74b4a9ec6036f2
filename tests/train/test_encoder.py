"""The encoder's training on a few simulated patients."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import train_manifestation_encoder as script
from harness import train

from medeid.data.build import BuildOptions, build_set
from medeid.evaluation.calibration import is_calibrated
from medeid.manifestations.encoder import ManifestationEncoder
from medeid.manifestations.taxonomy import LABELS

FACES = Path(__file__).parents[2] / "examples" / "faces"


@pytest.fixture(scope="module")
def patients(tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("patients") / "set"
    signs = ("port_wine_stain", "jaundice", "periorbital_ecchymosis")
    build_set(FACES, out, BuildOptions(count=24, seed=0, signs=signs), jobs=2)
    return str(out)


def test_a_crop_and_its_masks_are_changed_alike(patients):
    data = script.Patients([patients], "train", 256, seed=0)
    plain = script.Patients([patients], "train", 256)
    for index in range(len(data)):
        before, after = plain[index, 0], data[index, index]
        assert before["labels"].sum() == after["labels"].sum()
        mirrored = bool((before["labels"] != after["labels"]).any())
        names = [LABELS[i] for i in np.flatnonzero(after["labels"])]
        one_sided = {name.partition(":")[2] for name in names if ":" in name}
        masks = after["masks"][[i for i in range(len(after["masks"])) if after["masks"][i].any()]]
        if one_sided == {"left"} and "jaundice" not in names:
            columns = torch.nonzero(masks.float().sum((0, 1))).float()
            assert columns.mean() > 64, (names, mirrored)


def test_every_part_learns_and_the_encoder_is_exported(patients, tmp_path):
    config = script.EncoderConfig(
        data_dir=patients, output_dir=str(tmp_path), train_batch_size=8, max_train_steps=4, validation_steps=4
    )
    config.lr_warmup_steps, config.dataloader_num_workers = 0, 0
    config.learning_rate = 2e-3  # so that float16 shows every step
    task = script.EncoderTask(config)
    before = {name: value.clone() for name, value in task.model.named_parameters()}
    train(config, task)
    same = [name for name, value in task.model.named_parameters() if torch.equal(value.float(), before[name])]
    assert all(name.startswith("vision.") for name in same), same  # the tower's unused pooled head
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"macro_f1", "dice_appearance", "healthy_claimed", "calibration_error"} <= set(metrics[-1])
    assert (tmp_path / "samples-000004.png").exists()
    exported = ManifestationEncoder.from_pretrained(tmp_path / "export")
    assert exported.config.num_tokens == config.num_tokens
    assert is_calibrated(exported)
    table = (tmp_path / "validation-000004.md").read_text().splitlines()
    assert table[0] == "| label | images | F1 |"
    worst_first = [float(line.split("|")[3]) for line in table[2:]]
    assert worst_first == sorted(worst_first) and 0 < len(worst_first) < len(LABELS)


@pytest.mark.parametrize("tower", ["eyes", "skin"])
def test_a_close_up_tower_can_be_trained_alone(patients, tmp_path, tower):
    config = script.EncoderConfig(
        data_dir=patients, output_dir=str(tmp_path), close_up=tower, image_size=64, train_batch_size=4
    )
    config.max_train_steps, config.validation_images, config.learning_rate = 2, 4, 2e-3
    config.lr_warmup_steps, config.dataloader_num_workers = 0, 0
    task = script.EncoderTask(config)
    before = {name: value.half().float() for name, value in task.encoder.named_parameters()}
    train(config, task)
    exported = ManifestationEncoder.from_pretrained(tmp_path / "export").named_parameters()
    changed = {name for name, value in exported if not torch.equal(value, before[name])}
    assert {f"{tower}.trunk.stem.conv.weight", f"{tower}.mask_head.weight"} <= changed
    assert all(name.startswith(f"{tower}.") for name in changed)


def test_the_bottleneck_can_be_tuned_by_itself(patients, tmp_path):
    config = script.EncoderConfig(
        data_dir=patients, output_dir=str(tmp_path), bottleneck_only=True, image_size=64, train_batch_size=4
    )
    config.max_train_steps, config.validation_images, config.learning_rate = 2, 4, 2e-3
    config.lr_warmup_steps, config.dataloader_num_workers = 0, 0
    task = script.EncoderTask(config)
    before = {name: value.half() for name, value in task.encoder.state_dict().items()}
    train(config, task)
    exported = ManifestationEncoder.from_pretrained(tmp_path / "export").half().state_dict()
    changed = {name for name, value in exported.items() if not torch.equal(value, before[name])}
    parts = {name.split(".")[0] for name in changed} - {"temperature", "threshold"}  # which calibration sets
    assert parts == {"token_queries", "to_bottleneck", "token_reader"}  # running means of the rest included


@pytest.mark.parametrize("options", [{"freeze_tower": True, "text_tower": True}, {"lora_rank": 2}, {}], ids=str)
def test_a_tower_that_has_learned_to_see_is_frozen_adapted_or_trained(patients, clip_folder, tmp_path, options):
    config = script.EncoderConfig(
        data_dir=patients, output_dir=str(tmp_path), tower=f"local-dir:{clip_folder}", image_size=64, **options
    )
    config.train_batch_size, config.max_train_steps, config.validation_images = 4, 2, 2
    config.lr_warmup_steps, config.dataloader_num_workers = 0, 0
    task = script.EncoderTask(config)
    before = {name: value.clone() for name, value in task.model.named_parameters() if "lora_" not in name}
    train(config, task)
    after = dict(ManifestationEncoder.from_pretrained(tmp_path / "export").named_parameters())
    plain = {name.replace("base_layer.", ""): value.half().float() for name, value in before.items()}
    changed = {name for name, value in plain.items() if not torch.equal(after[name], value)}
    tower = {name for name in changed if name.startswith("vision.")}
    assert ("vision.trunk.blocks.0.attn.qkv.weight" in tower) == ("freeze_tower" not in options)
    assert ("vision.trunk.patch_embed.proj.weight" in tower) == (not options)
    assert bool(tower) == ("freeze_tower" not in options)
    assert {"label_bias", "pyramid.laterals.0.weight", "mask_head.weight"} <= changed
    assert not any(name.startswith(("text.", "logit_scale")) for name in changed)


def test_options_that_contradict_each_other():
    with pytest.raises(ValueError, match="`close_up` must be eyes or skin"):
        script.EncoderConfig(close_up="mouth")
    with pytest.raises(ValueError, match="`lora_rank`"):
        script.EncoderConfig(freeze_tower=True, lora_rank=4)
    with pytest.raises(ValueError, match="`text_tower` needs `freeze_tower`"):
        script.EncoderConfig(text_tower=True, lora_rank=4)
    with pytest.raises(ValueError, match="`bottleneck_only`"):
        script.EncoderConfig(bottleneck_only=True, close_up="eyes")
