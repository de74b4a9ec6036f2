"""Train the manifestation encoder on simulated patients, or on any set that `load_mema` reads.

medeid simulate FACES -o runs/mema -n 40000
accelerate launch train/train_manifestation_encoder.py --config train/configs/encoder.yaml --data_dir runs/mema

docs/encoder.md tells how medeid-tiny's was trained, part by part, and has the commands for larger towers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from augmentation import change_light, degrade
from datasets import concatenate_datasets
from harness import TrainingConfig, option, parse_config, train
from torchvision.utils import draw_segmentation_masks, make_grid, save_image

from medeid.data.mema import load_mema, masks_by_manifestation
from medeid.evaluation.calibration import calibrate, calibration_half
from medeid.evaluation.outputs import distinct_faces, read_both_ways
from medeid.evaluation.utility import dice_scores, expected_calibration_error, f1_scores
from medeid.manifestations.close_ups import CloseUp, CloseUpOutput
from medeid.manifestations.encoder import ManifestationEncoder
from medeid.manifestations.taxonomy import APPEARANCE, LABELS, MIRRORED_LABELS

logger = logging.getLogger(__name__)

_LEAST_AREA = 16.0  # px of a mask, which smaller ones count for


@dataclass
class EncoderConfig(TrainingConfig):
    tower: str = option("medeid-tiny", "Vision tower: a config of medeid or open_clip, or hf-hub:... or local-dir:...")
    tower_weights: str = option("", "Weights for the tower to start from: a safetensors file, or a tag of open_clip's.")
    freeze_tower: bool = option(False, "Train pyramid and heads only.")
    bottleneck_only: bool = option(False, "Train only what makes tokens and reads them: to tune the price of a nat.")
    lora_rank: int = option(0, "Train additions of this rank to the tower's linear layers in place of them; 0: none.")
    text_tower: bool = option(False, "Keep the tower's text side, too, for `score_text`; needs --freeze_tower.")
    close_up: str = option("", "Train only this close-up tower, eyes or skin; no other part even runs.")
    image_size: int = option(256, "Side of the crops that the tower sees.")
    num_tokens: int = option(8, "Number of manifestation tokens.")
    token_dim: int = option(32, "Width of a token.")
    kl_weight: float = option(0.02, "Price of a nat in the bottleneck, in nats of the labels' cross-entropy.")
    mask_weight: float = option(10.0, "Weight of the masks' cross-entropy and Dice loss.")
    severity_weight: float = option(4.0, "Weight of the severities' absolute error.")
    more_data_dirs: list[str] = field(
        default_factory=list, metadata={"help": "Further sets whose train splits are trained on, too."}
    )
    validation_dir: str = option("", "Set whose validation split validates and calibrates, if it is not data_dir.")
    validation_images: int = option(1000, "Images of the validation split to validate on.")

    def __post_init__(self):
        if self.freeze_tower and self.lora_rank:
            raise ValueError("`lora_rank` is for a tower that learns: leave out `freeze_tower`, or take a rank of 0.")
        if self.bottleneck_only and (self.freeze_tower or self.lora_rank or self.close_up):
            raise ValueError("`bottleneck_only` leaves out all other parts: leave out freeze_tower, lora and close_up.")
        if self.close_up not in ("", "eyes", "skin"):
            raise ValueError(f"`close_up` must be eyes or skin, or nothing for all parts, but is {self.close_up!r}.")
        if self.text_tower and not self.freeze_tower:
            raise ValueError("`text_tower` needs `freeze_tower`: a tower that learns the labels drifts off its texts.")


class Patients(torch.utils.data.Dataset):
    """Face crops with labels, severities and masks.

    Args:
        roots (`Sequence[str]`):
            What `load_mema` loads, one set or several.
        split (`str`):
            The split.
        size (`int`):
            Side of the crops in px.
        seed (`int`, *optional*):
            Of the augmentation; without one the crops stay as they are.
    """

    def __init__(self, roots: Sequence[str], split: str, size: int, seed: int | None = None):
        rows = concatenate_datasets([load_mema(root, split) for root in roots])
        self.rows = rows.select_columns(["image", "mask", "findings", "labels", "severities"])
        self.size, self.seed = size, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        index, position = key
        row = self.rows[index]
        image = np.array(row["image"])
        masks = masks_by_manifestation(row["mask"], row["findings"])
        present = masks.any((1, 2))
        labels, severities = np.array(row["labels"], np.float32), np.array(row["severities"], np.float32)
        layers = masks[present].astype(np.uint8).transpose(1, 2, 0) * 255
        if self.seed is not None:
            rng = np.random.default_rng((self.seed, position))
            if rng.random() < 0.5:
                image, layers = image[:, ::-1], layers[:, ::-1]
                labels, severities = labels[MIRRORED_LABELS], severities[MIRRORED_LABELS]
            image, layers = _moved(rng, image, layers)
            image = degrade(rng, change_light(rng, image), strength=0.4)
        if image.shape[0] != self.size:
            image = cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_AREA)
        side = self.size // 2
        small = np.zeros((len(masks), side, side), np.uint8)
        if present.any():
            whole = layers.transpose(2, 0, 1)
            small[present] = [cv2.resize(layer, (side, side), interpolation=cv2.INTER_AREA) for layer in whole]
        return {
            "images": torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1),
            "labels": torch.from_numpy(labels),
            "severities": torch.from_numpy(severities),
            "masks": torch.from_numpy(small),
        }


def _moved(rng: np.random.Generator, image: np.ndarray, layers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A crop that was aligned a little otherwise, with its masks uint8 [S, S, K]."""
    size = image.shape[0]
    centre = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), rng.normal(0, 4), float(np.exp(rng.normal(0, 0.05))))
    matrix[:, 2] += rng.normal(0, size / 64, 2)
    image = cv2.warpAffine(np.ascontiguousarray(image), matrix, (size, size), borderMode=cv2.BORDER_REFLECT_101)
    if layers.shape[2]:
        # OpenCV takes at most four channels to warp.
        parts = [
            cv2.warpAffine(np.ascontiguousarray(layers[..., start : start + 4]), matrix, (size, size))
            for start in range(0, layers.shape[2], 4)
        ]
        layers = np.concatenate([part.reshape(size, size, -1) for part in parts], axis=2)
    return image, layers


def encoder_loss(
    output, batch: dict[str, torch.Tensor], config: EncoderConfig
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Cross-entropy of the labels (from picture and tokens), errors of severities and masks, price of the tokens."""
    labels, severities, masks = batch["labels"], batch["severities"], batch["masks"].float() / 255.0
    parts = {}
    for name, logits in (("labels", output.logits), ("tokens", output.token_logits)):
        parts[name] = _label_loss(logits, labels)
    errors = [_severity_error(read, severities, labels) for read in (output.severities, output.token_severities)]
    parts["severity"] = config.severity_weight * torch.stack(errors).sum()
    parts["masks"] = config.mask_weight * _mask_loss(output.mask_logits, masks)
    # Kullback-Leibler divergence from the standard normal distribution, in nats an image.
    mean, log_variance = output.token_mean, output.token_log_variance
    nats = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum((1, 2)).mean()
    parts["price"] = config.kl_weight * nats
    return torch.stack(list(parts.values())).sum(), {**parts, "nats": nats}


def close_up_loss(
    tower: CloseUp, output: CloseUpOutput, batch: dict[str, torch.Tensor], config: EncoderConfig
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The same of what one close-up tower sees; a sign of the whole face counts on both sides."""
    labels, severities = (batch[name][:, tower.label_index] for name in ("labels", "severities"))
    masks = tower.visible(batch["masks"][:, tower.sign_index]).float() / 255.0
    logits, read = output.answers.float().unbind(-1)  # of mixed precision; accelerate itself knows diffusers' outputs
    parts = {
        "labels": _label_loss(logits.flatten(1), labels.flatten(1)),
        "severity": config.severity_weight * _severity_error(read.sigmoid(), severities, labels),
        "masks": config.mask_weight * _mask_loss(output.mask_logits.float(), masks),
    }
    return torch.stack(list(parts.values())).sum(), parts


def _label_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats an image, of labels `[B, L]`."""
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(1).mean()


def _severity_error(read: torch.Tensor, severities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean absolute error where a sign is there."""
    return ((read - severities).abs() * labels).sum() / labels.sum().clamp(min=1.0)


def _mask_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Cross-entropy a pixel, the same a pixel of each sign that is there, and Dice loss.

    Among all the pixels of a batch those of a mole count for nothing, and none would ever be learned.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    area = masks.sum((2, 3))
    there = (area > 0).float()
    relative = (entropy.sum((2, 3)) / (area + _LEAST_AREA) * there).sum() / there.sum().clamp(min=1.0)
    return 10.0 * entropy.mean() + 0.5 * relative + _dice_loss(logits, masks)


def _dice_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """One minus the soft Dice overlap (Milletari et al., arXiv:1606.04797) of each sign that is in the batch.

    A sign's masks are taken together over the batch, so that claiming it on a face that does not show it costs, too.
    """
    probabilities = logits.sigmoid()
    overlap = (probabilities * masks).sum((0, 2, 3))
    total = (probabilities.square() + masks.square()).sum((0, 2, 3))
    there = (masks.amax((0, 2, 3)) > 0).float()
    loss = 1.0 - (2.0 * overlap + 1.0) / (total + 1.0)
    return (loss * there).sum() / there.sum().clamp(min=1.0)


def _create_encoder(config: EncoderConfig) -> ManifestationEncoder:
    """The encoder to train, whose parameters require a gradient as far as they are to learn."""
    if config.init_from:
        encoder = ManifestationEncoder.from_pretrained(config.init_from, image_size=config.image_size)
        encoder.temperature.fill_(1.0)  # what is learned is calibrated anew
    else:
        encoder = ManifestationEncoder.from_tower(
            config.tower,
            config.tower_weights,
            image_size=config.image_size,
            num_tokens=config.num_tokens,
            token_dim=config.token_dim,
            text_tower=config.text_tower,
        )
    if config.freeze_tower:
        encoder.freeze_tower()
    if config.bottleneck_only:
        encoder.freeze_all_but_bottleneck()
    if config.lora_rank:
        encoder.add_lora(config.lora_rank)
    return encoder


class EncoderTask:
    """Trains a `ManifestationEncoder`; validates on the validation split, whose subjects are in no other."""

    sample_weights = None

    def __init__(self, config: EncoderConfig):
        self.config = config
        torch.manual_seed(config.seed)
        self.encoder = _create_encoder(config)
        self.model = getattr(self.encoder, config.close_up) if config.close_up else self.encoder
        self.dataset = Patients([config.data_dir, *config.more_data_dirs], "train", config.image_size, config.seed)
        self.validation_dir = config.validation_dir or config.data_dir
        held_out = Patients([self.validation_dir], "validation", config.image_size)
        count = min(config.validation_images, len(held_out))
        self.validation = torch.utils.data.DataLoader(held_out, 32, sampler=[(i, i) for i in range(count)])

    def loss(self, model, batch, generator):
        images = batch["images"].float() / 255.0
        if self.config.close_up:
            return close_up_loss(getattr(self.encoder, self.config.close_up), model(images), batch, self.config)
        return encoder_loss(model(images, generator=generator), batch, self.config)

    @torch.no_grad()
    def validate(self, model, picture, device):
        """Scores of labels, masks and calibration at a threshold of 0.5; a picture of the masks, and a table of F1."""
        encoder = self.encoder.to(device).eval()  # whatever of it is trained
        probabilities, labels, token_probabilities, overlaps, tiles = [], [], [], [], []
        for batch in self.validation:
            output = encoder((batch["images"].float() / 255.0).to(device))
            probabilities.append(output.logits.sigmoid().cpu().numpy())
            token_probabilities.append(output.token_logits.sigmoid().cpu().numpy())
            labels.append(batch["labels"].numpy() > 0.5)
            predicted, true = output.mask_logits.cpu().numpy() > 0, batch["masks"].numpy() >= 128
            there = true.any((2, 3))
            overlaps.append(np.where(there, dice_scores(predicted, true), np.nan))
            if len(tiles) < 48:
                tiles += _overlays(batch["images"], predicted, true)
        probability, label, overlap = (np.concatenate(part) for part in (probabilities, labels, overlaps))
        save_image(make_grid(tiles[:48], nrow=8), picture)
        healthy = ~label.any(1)
        f1 = f1_scores(probability > 0.5, label)
        table = picture.with_name(picture.stem.replace("samples", "validation") + ".md")
        table.write_text(_f1_table(f1, label.sum(0)))
        return {
            "macro_f1": float(np.nanmean(f1)),
            "token_macro_f1": float(np.nanmean(f1_scores(np.concatenate(token_probabilities) > 0.5, label))),
            "dice_appearance": _mean_over_signs(overlap[:, APPEARANCE]),
            "healthy_claimed": float((probability[healthy] > 0.5).any(1).mean()),
            "calibration_error": expected_calibration_error(probability, label),
        }

    def export(self, model, folder: Path) -> None:
        """See [`save_calibrated`]."""
        save_calibrated(self.encoder.eval(), self.validation_dir, folder)


def save_calibrated(encoder: ManifestationEncoder, validation_dir: str, folder: Path) -> None:
    """Saves an encoder in float16, calibrated on the half of a set's validation subjects that calibrates."""
    rows = distinct_faces(load_mema(validation_dir, "validation"))
    half = np.flatnonzero(calibration_half(rows["subject_id"]))
    if len(half):
        calibrate(encoder, read_both_ways(encoder, rows.select(half)))
    else:
        logger.warning("The validation split is too small to calibrate on: the thresholds stay as they were.")
    encoder.half().save_pretrained(folder)


def _f1_table(f1: np.ndarray, counts: np.ndarray) -> str:
    """Markdown: F1 `[L]` of the labels that occur, the worst first, and how many images show them."""
    rows = sorted((value, label, count) for value, label, count in zip(f1, LABELS, counts, strict=True) if count)
    lines = [f"| {label} | {count} | {value:.3f} |" for value, label, count in rows]
    return "\n".join(["| label | images | F1 |", "| --- | ---: | ---: |", *lines, ""])


def _mean_over_signs(overlaps: np.ndarray) -> float:
    """Mean over the signs `[N, M]` that occur of their mean over the images that show them; NaN where they do not."""
    occurs = ~np.isnan(overlaps).all(axis=0)
    return float(np.nanmean(overlaps[:, occurs], axis=0).mean())


def _overlays(images: torch.Tensor, predicted: np.ndarray, true: np.ndarray) -> list[torch.Tensor]:
    """Pictures float32 [3, 256, 256] in pairs: with the true masks, and with the predicted ones."""
    tiles = []
    for image, *masks in zip(images, true, predicted, strict=True):
        image = F.interpolate(image[None].float(), size=(256, 256))[0].to(torch.uint8)
        for layers in masks:
            large = F.interpolate(torch.from_numpy(layers[None]).float(), size=(256, 256))[0] > 0.5
            drawn = large.any((1, 2))
            tile = draw_segmentation_masks(image, large[drawn], alpha=0.5) if drawn.any() else image
            tiles.append(tile.float() / 255.0)
    return tiles


if __name__ == "__main__":
    config = parse_config(EncoderConfig, __doc__)
    train(config, EncoderTask(config))
