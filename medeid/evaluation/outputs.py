"""What an encoder says of every face of a labelled set, beside what is there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
from datasets import Dataset
from scipy.special import expit
from tqdm import tqdm

from ..data.masks import masks_by_manifestation
from ..manifestations.encoder import ManifestationEncoder
from ..manifestations.taxonomy import LABELS, MIRRORED_LABELS, TAXONOMY
from .utility import dice_scores

_COLUMNS = ["image", "mask", "findings", "labels", "severities"]


@dataclass(frozen=True)
class EncoderOutputs:
    """What an encoder says of N faces, and what is there.

    Attributes:
        raw_logits (`np.ndarray`): float32 `[N, L]`, before the division by the encoder's temperature.
        severities (`np.ndarray`): float32 `[N, L]` in [0, 1].
        mean_tokens (`np.ndarray`): float32 `[N, T * D]`, the means of the bottleneck.
        token_deviations (`np.ndarray`): float32 `[N, T * D]`, its standard deviations.
        features (`np.ndarray`): float32 `[N, C]`, from before the bottleneck.
        dice (`np.ndarray`): float64 `[N, M]`, overlap of the masks; NaN where the face does not show the sign.
        labels (`np.ndarray`): bool `[N, L]`, what is there.
        true_severities (`np.ndarray`): float32 `[N, L]`, 0 where it is not.
    """

    raw_logits: np.ndarray
    severities: np.ndarray
    mean_tokens: np.ndarray
    token_deviations: np.ndarray
    features: np.ndarray
    dice: np.ndarray
    labels: np.ndarray
    true_severities: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: np.ndarray) -> EncoderOutputs:
        """Those of the chosen faces: bool `[N]` or indices."""
        return EncoderOutputs(*(getattr(self, field.name)[rows] for field in fields(self)))

    def probabilities(self, temperature: torch.Tensor) -> np.ndarray:
        """Float32 `[N, L]`: what the encoder says with these temperatures `[L]`."""
        return expit(self.raw_logits / temperature.float().cpu().numpy())

    def draw_tokens(self, count: int, seed: int = 0) -> np.ndarray:
        """Float32 `[count, N, T * D]`: tokens as the bottleneck gives them, `count` times for each face."""
        noise = np.random.default_rng(seed).standard_normal((count, *self.mean_tokens.shape), np.float32)
        return self.mean_tokens + self.token_deviations * noise


def distinct_faces(rows: Dataset) -> Dataset:
    """The rows without those whose picture has come before.

    A simulated set shows a healthy face as often as it draws it. Repeats would count one face many times over, and let
    a probe for identity recognise the very picture that it has learned.
    """
    seen: dict[bytes, int] = {}
    for index, row in enumerate(rows.select_columns("image")):
        seen.setdefault(hashlib.sha256(row["image"].tobytes()).digest(), index)
    return rows.select(list(seen.values()))


@torch.no_grad()
def read_faces(
    encoder: ManifestationEncoder, rows: Dataset, batch_size: int = 16, mirrored: bool = False
) -> EncoderOutputs:
    """Shows a labelled set to an encoder, as the pipeline does: whole crops, which the encoder resizes itself.

    Args:
        encoder (`ManifestationEncoder`):
            In evaluation mode.
        rows (`Dataset`):
            At least one row with the columns of `load_mema`: aligned crops, all of one size.
        batch_size (`int`, *optional*, defaults to 16):
            Faces at a time.
        mirrored (`bool`, *optional*, defaults to `False`):
            Whether to show their mirror images instead, on which left and right have changed places.

    Returns:
        `EncoderOutputs`

    Raises:
        `ValueError`: there is no row, or the encoder has other labels than the taxonomy.
    """
    if len(rows) == 0:
        raise ValueError("`rows` is empty. Give a split, or a half of one, that has faces.")
    if tuple(encoder.config.labels) != LABELS or tuple(encoder.config.manifestations) != tuple(TAXONOMY):
        raise ValueError("`encoder` has other labels than the taxonomy. Train it on the signs of this version.")
    rows = rows.select_columns(_COLUMNS)
    parts = []
    for start in tqdm(range(0, len(rows), batch_size), desc="Reading faces", leave=False):
        batch = rows[start : start + batch_size]
        crops = torch.from_numpy(np.stack([np.asarray(image) for image in batch["image"]])).permute(0, 3, 1, 2)
        crops = crops.flip(3) if mirrored else crops
        output = encoder(crops.to(encoder.device, encoder.dtype) / 255.0)
        logits = output.logits.float() * encoder.temperature.float()
        tokens = (output.token_mean.flatten(1), (0.5 * output.token_log_variance).exp().flatten(1))
        read = (logits, output.severities, *tokens, output.features)
        masks = (output.mask_logits.flip(3) if mirrored else output.mask_logits) > 0
        labels, severities = np.array(batch["labels"], bool), np.array(batch["severities"], np.float32)
        parts.append(
            (
                *(value.float().cpu().numpy() for value in read),
                _dice_where_shown(masks.cpu().numpy(), batch["mask"], batch["findings"]),
                labels[:, MIRRORED_LABELS] if mirrored else labels,
                severities[:, MIRRORED_LABELS] if mirrored else severities,
            )
        )
    return EncoderOutputs(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def read_both_ways(encoder: ManifestationEncoder, rows: Dataset) -> EncoderOutputs:
    """[`read_faces`] of N faces and then of their mirror images: 2N, as one can hardly have too many to calibrate."""
    parts = [read_faces(encoder, rows, mirrored=mirrored) for mirrored in (False, True)]
    names = [field.name for field in fields(EncoderOutputs)]
    return EncoderOutputs(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _dice_where_shown(predicted: np.ndarray, masks: Sequence, findings: Sequence) -> np.ndarray:
    """Dice float64 [B, M] of masks [B, M, H, W], at their size; NaN for a sign that is not shown or not segmented."""
    true = np.zeros_like(predicted)
    size = predicted.shape[:1:-1]
    for face, (mask, found) in enumerate(zip(masks, findings, strict=True)):
        if mask is not None:
            whole = masks_by_manifestation(mask, found)
            for sign in np.flatnonzero(whole.any((1, 2))):
                true[face, sign] = cv2.resize(whole[sign].astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
    return np.where(true.any((2, 3)), dice_scores(predicted, true), np.nan)
