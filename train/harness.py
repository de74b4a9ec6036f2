"""The training loop that the scripts in this folder share.

A script brings a `Task` (model, data, loss, validation, export) and a config; the loop brings Accelerate, EMA, a
learning rate schedule, checkpoints, a resume that continues at the very next sample, pictures and a progress bar.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import ProjectConfiguration, set_seed
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from huggingface_hub import ModelCard, ModelCardData, create_repo, upload_folder
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.data import DataLoader, Sampler
from tqdm.auto import tqdm
from transformers import HfArgumentParser

logger = get_logger(__name__)


def option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class TrainingConfig:
    data_dir: str = option("", "Folder of face crops (imagefolder style, see medeid.data.FaceFolder).")
    output_dir: str = option("runs/train", "Checkpoints, pictures, metrics.jsonl and the exported model go here.")
    seed: int = option(0, "Seed of the weights, the sample order, the augmentation and the noise.")
    train_batch_size: int = option(16, "Samples a process and step.")
    gradient_accumulation_steps: int = option(1, "Batches that are added up for one optimizer step.")
    max_train_steps: int = option(1000, "Optimizer steps of the whole schedule.")
    stop_after_steps: int = option(0, "Stop (with a checkpoint) after this step of the schedule; 0: at its end.")
    learning_rate: float = option(4e-4, "Peak learning rate.")
    lr_scheduler: str = option("cosine", "Schedule, by diffusers' names.")
    lr_warmup_steps: int = option(100, "Linear warm-up.")
    adam_beta2: float = option(0.99, "AdamW's second beta.")
    adam_weight_decay: float = option(0.01, "AdamW's weight decay.")
    use_8bit_adam: bool = option(False, "AdamW with states of 8 bits, of bitsandbytes, which must be installed.")
    max_grad_norm: float = option(1.0, "Gradient clipping.")
    ema_decay: float = option(0.998, "Decay of the averaged weights, which are validated and exported.")
    checkpointing_steps: int = option(200, "Write a checkpoint every so many steps.")
    checkpoints_total_limit: int = option(2, "Keep this many checkpoints.")
    validation_steps: int = option(200, "Validate and write pictures every so many steps.")
    dataloader_num_workers: int = option(1, "Worker processes that load and augment.")
    mixed_precision: str = option("auto", "no, fp16 or bf16; auto: bf16 on a GPU and float32 on a CPU.")
    resume_from_checkpoint: str = option("latest", "latest, a checkpoint folder, or none.")
    init_from: str = option("", "Start from the weights of this exported model instead of random ones.")
    report_to: str = option("", "An Accelerate tracker (tensorboard, wandb, ...); metrics.jsonl is always written.")
    push_to_hub: bool = option(False, "Upload the exported model, with a model card; log in by `hf auth login` before.")
    hub_model_id: str = option("", "Repository to upload to, made private if it is new; else the name of output_dir.")


ConfigT = TypeVar("ConfigT", bound=TrainingConfig)


def precision_of(config: TrainingConfig) -> str:
    """Accelerate's name of the precision that a config asks for: no, fp16 or bf16."""
    if config.mixed_precision == "auto":
        return "bf16" if torch.cuda.is_available() else "no"
    return config.mixed_precision


def autocast(config: TrainingConfig, device: torch.device) -> torch.autocast:
    """Mixed precision for what a loss asks of frozen models, which accelerate has not prepared."""
    precision = precision_of(config)
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "no")


def parse_config(config_class: type[ConfigT], description: str, argv: list[str] | None = None) -> ConfigT:
    """Reads `--config FILE` (YAML), then lets options on the command line win over it."""
    before = argparse.ArgumentParser(add_help=False)
    before.add_argument("--config")
    known, rest = before.parse_known_args(argv)
    parser = HfArgumentParser(config_class, description=description)
    parser.add_argument("--config", help="YAML file with values for the options below.")
    if known.config:
        values = yaml.safe_load(Path(known.config).read_text())
        unknown = set(values) - {f.name for f in fields(config_class)}
        if unknown:
            parser.error(f"{known.config} has unknown options: {', '.join(sorted(unknown))}")
        parser.set_defaults(**values)
    config = parser.parse_args_into_dataclasses(args=rest)[0]
    if not config.data_dir:
        parser.error("--data_dir is needed: the folder of face crops to train on")
    return config


class Task(Protocol):
    """What a script trains.

    `model` holds every trainable parameter, and its forward is what `loss` calls. `dataset[(index, position)]` gives
    one sample as a dict; `position` counts samples over the whole run and seeds the augmentation, so that a resumed
    run draws what an uninterrupted one would have drawn.
    """

    model: torch.nn.Module
    dataset: Any
    sample_weights: np.ndarray | None

    def loss(
        self, model: torch.nn.Module, batch: dict[str, torch.Tensor], generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]: ...

    def validate(self, model: torch.nn.Module, picture: Path, device: torch.device) -> dict[str, float]: ...

    def export(self, model: torch.nn.Module, folder: Path) -> None: ...


class PositionSampler(Sampler):
    """(index, position) pairs from `start` to `stop`: epochs of a seeded permutation, or of weighted draws."""

    def __init__(self, length: int, seed: int, start: int, stop: int, weights: np.ndarray | None = None):
        self.length, self.seed, self.start, self.stop, self.weights = length, seed, start, stop, weights

    def __len__(self) -> int:
        return self.stop - self.start

    def _epoch(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, epoch))
        if self.weights is None:
            return rng.permutation(self.length)
        return rng.choice(self.length, self.length, p=self.weights)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for epoch in range(self.start // self.length, -(-self.stop // self.length)):
            for offset, index in enumerate(self._epoch(epoch)):
                position = epoch * self.length + offset
                if self.start <= position < self.stop:
                    yield int(index), position


@contextmanager
def averaged_weights(ema: EMAModel, parameters: list[torch.nn.Parameter]) -> Iterator[None]:
    """The EMA weights inside the block, the trained ones after it."""
    ema.store(parameters)
    ema.copy_to(parameters)
    try:
        yield
    finally:
        ema.restore(parameters)


@contextmanager
def whole_weights(model: torch.nn.Module) -> Iterator[None]:
    """Every weight whole on each process inside the block, where FSDP leaves each a share of it. For all processes."""
    is_shared_out = hasattr(model, "unshard")
    if is_shared_out:
        model.unshard()
    try:
        yield
    finally:
        if is_shared_out:
            model.reshard()


class AveragedWeights(EMAModel):
    """An EMA whose checkpoints hold whole weights, where FSDP leaves each process a share of them."""

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["shadow_params"] = [_whole(share) for share in self.shadow_params]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        shares = self.shadow_params
        super().load_state_dict(state_dict)
        self.shadow_params = [_like(weight, share) for weight, share in zip(self.shadow_params, shares, strict=True)]


def _whole(weight: torch.Tensor) -> torch.Tensor:
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def _like(weight: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """A whole weight on the device of another one, and shared out as that is."""
    weight = weight.to(share.device)
    if isinstance(share, DTensor):
        return distribute_tensor(weight, share.device_mesh, share.placements)
    return weight


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def _checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints in a folder, the oldest first."""
    return sorted(output_dir.glob("checkpoint-*"), key=_step)


def _save_checkpoint(accelerator: Accelerator, output_dir: Path, step: int, limit: int) -> None:
    target = output_dir / f"checkpoint-{step}"
    partial = output_dir / f"partial-{step}"
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()  # each process writes the state of its random numbers
    if accelerator.is_main_process:
        os.replace(partial, target)
        for old in _checkpoints(output_dir)[:-limit]:
            shutil.rmtree(old)


def _write_metrics(accelerator: Accelerator, output_dir: Path, step: int, values: dict[str, float]) -> None:
    if accelerator.is_main_process:
        with open(output_dir / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"step": step, **{k: round(v, 6) for k, v in values.items()}}) + "\n")
    accelerator.log(values, step=step)


def _create_optimizer(config: TrainingConfig, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    kind: type[torch.optim.Optimizer] = torch.optim.AdamW
    if config.use_8bit_adam:
        try:
            import bitsandbytes
        except ImportError as error:
            raise ImportError("`use_8bit_adam` needs bitsandbytes: `pip install bitsandbytes`.") from error
        kind = bitsandbytes.optim.AdamW8bit
    betas = (0.9, config.adam_beta2)
    return kind(parameters, config.learning_rate, betas=betas, weight_decay=config.adam_weight_decay)


def _repository(config: TrainingConfig) -> str:
    return config.hub_model_id or Path(config.output_dir).resolve().name


def write_model_card(config: TrainingConfig, folder: Path, figures: dict[str, float]) -> None:
    """README.md of an exported model, with its figures and options.

    Options in words are left out: they are paths and names, which may tell of a hospital and its patients.
    """
    data = ModelCardData(library_name="diffusers", tags=["medical", "de-identification", "face"])
    options = {name: value for name, value in asdict(config).items() if isinstance(value, (int, float))}
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {_repository(config).split('/')[-1]}",
        "Trained by a script of medeid. A model may remember faces it has learned from: tell here whose they were.",
        _table("validation", {name: round(value, 4) for name, value in figures.items()}),
        _table("option", options),
    ]
    ModelCard("\n\n".join(parts) + "\n").save(folder / "README.md")


def _table(title: str, rows: dict[str, Any]) -> str:
    return "\n".join([f"| {title} | value |", "| --- | ---: |", *(f"| {name} | {rows[name]} |" for name in rows)])


def train(config: TrainingConfig, task: Task) -> None:
    """Runs `task` to `config.max_train_steps` and exports the averaged weights to `output_dir/export`."""
    output_dir = Path(config.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    accelerator = Accelerator(
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        mixed_precision=precision_of(config),
        log_with=config.report_to or None,
        project_config=ProjectConfiguration(project_dir=str(output_dir), logging_dir=str(output_dir / "logs")),
    )
    repository = ""
    if config.push_to_hub and accelerator.is_main_process:
        # Before the training, so that what is wrong with the name or the login does not come to light after it.
        repository = create_repo(_repository(config), private=True, exist_ok=True).repo_id
    set_seed(config.seed)
    parameters = [p for p in task.model.parameters() if p.requires_grad]
    optimizer = _create_optimizer(config, parameters)
    schedule = get_scheduler(
        config.lr_scheduler,
        optimizer,
        num_warmup_steps=config.lr_warmup_steps,
        num_training_steps=config.max_train_steps,
    )
    if accelerator.state.deepspeed_plugin is not None:  # which asks for the batch before there is a loader
        accelerator.state.deepspeed_plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = config.train_batch_size
    model, optimizer = accelerator.prepare(task.model, optimizer)
    parameters = [p for p in model.parameters() if p.requires_grad]
    ema = AveragedWeights(parameters, decay=config.ema_decay, use_ema_warmup=True, power=0.8)
    ema.to(accelerator.device)
    accelerator.register_for_checkpointing(schedule, ema)
    if config.report_to:
        accelerator.init_trackers("medeid", config=asdict(config))

    step = 0
    if config.resume_from_checkpoint != "none":
        latest = config.resume_from_checkpoint == "latest"
        checkpoints = _checkpoints(output_dir) if latest else [Path(config.resume_from_checkpoint)]
        if checkpoints:
            accelerator.load_state(str(checkpoints[-1]))
            step = _step(checkpoints[-1])
            logger.info(f"Resumed at step {step}.")

    last = min(config.stop_after_steps or config.max_train_steps, config.max_train_steps)
    samples_a_step = config.train_batch_size * config.gradient_accumulation_steps * accelerator.num_processes
    sampler = PositionSampler(
        len(task.dataset), config.seed, step * samples_a_step, last * samples_a_step, task.sample_weights
    )
    loader = accelerator.prepare(
        DataLoader(
            task.dataset,
            batch_size=config.train_batch_size,
            sampler=sampler,
            num_workers=config.dataloader_num_workers,
            drop_last=True,
        )
    )

    figures: dict[str, float] = {}

    def validate() -> None:
        with averaged_weights(ema, parameters), whole_weights(model):
            if accelerator.is_main_process:
                unwrapped = accelerator.unwrap_model(model).eval()
                picture = output_dir / f"samples-{step:06d}.png"
                values = task.validate(unwrapped, picture, accelerator.device)
                figures.update(values)
                _write_metrics(accelerator, output_dir, step, values)
                logger.info(f"step {step}: " + ", ".join(f"{k} {v:.4f}" for k, v in values.items()))
                model.train()
        accelerator.wait_for_everyone()

    bar = tqdm(total=config.max_train_steps, initial=step, disable=not accelerator.is_main_process, mininterval=5.0)
    running: dict[str, float] = {}
    began = time.monotonic()
    model.train()
    for batch in loader:
        generator = torch.Generator(device="cpu").manual_seed(
            (config.seed * 1_000_003 + step) * 4096 + accelerator.process_index
        )
        with accelerator.accumulate(model):
            loss, values = task.loss(model, batch, generator)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(parameters, config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        if not accelerator.sync_gradients:
            continue
        schedule.step()
        ema.step(parameters)
        step += 1
        for name, value in {"loss": loss, **values}.items():
            running[name] = running.get(name, float(value.detach())) * 0.98 + float(value.detach()) * 0.02
        bar.update(1)
        bar.set_postfix({name: f"{value:.4f}" for name, value in running.items()})
        if step % 50 == 0:
            extra = {"lr": schedule.get_last_lr()[0], "seconds": time.monotonic() - began}
            _write_metrics(accelerator, output_dir, step, {**running, **extra})
        if step % config.checkpointing_steps == 0 or step == last:
            _save_checkpoint(accelerator, output_dir, step, config.checkpoints_total_limit)
        if step % config.validation_steps == 0 or step == last:
            validate()
    bar.close()
    with averaged_weights(ema, parameters), whole_weights(model):
        if accelerator.is_main_process:
            task.export(accelerator.unwrap_model(model).eval(), output_dir / "export")
    if repository:
        write_model_card(config, output_dir / "export", figures)
        upload_folder(repo_id=repository, folder_path=output_dir / "export")
    accelerator.end_training()
