"""Whether a reader of signs says the same of faces after de-identification as before."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from ..manifestations.encoder import ManifestationEncoder
from ..manifestations.taxonomy import APPEARANCE, LABELS, TAXONOMY
from .utility import cohens_kappa, dice_scores, mean_told

_BATCH = 16


@dataclass(frozen=True)
class Signs:
    """What an encoder reads on N faces.

    Attributes:
        claimed (`np.ndarray`): bool `[N, L]`: probability above the threshold.
        severities (`np.ndarray`): float32 `[N, L]` in [0, 1].
        masks (`np.ndarray`): bool `[N, A, H, W]` of the manifestations of the skin's and the eyes' appearance.
        features (`torch.Tensor`): float32 `[N, C]`, see [`picture_features`].
    """

    claimed: np.ndarray
    severities: np.ndarray
    masks: np.ndarray
    features: torch.Tensor

    def __getitem__(self, rows: np.ndarray) -> Signs:
        return Signs(*(getattr(self, field.name)[rows] for field in fields(self)))


@torch.no_grad()
def read_signs(encoder: ManifestationEncoder, crops: np.ndarray) -> Signs:
    """Shows crops uint8 `[N, S, S, 3]`, N at least 1, to an encoder in evaluation mode.

    Raises:
        `ValueError`: the encoder has other labels than the taxonomy.
    """
    if tuple(encoder.config.labels) != LABELS or tuple(encoder.config.manifestations) != tuple(TAXONOMY):
        raise ValueError("`encoder` has other labels than the taxonomy. Train it on the signs of this version.")
    parts = []
    for start in range(0, len(crops), _BATCH):
        images = torch.from_numpy(crops[start : start + _BATCH]).permute(0, 3, 1, 2)
        output = encoder(images.to(encoder.device, encoder.dtype) / 255.0)
        claimed = output.logits.sigmoid() > encoder.threshold
        read = (claimed, output.severities.float(), output.mask_logits[:, APPEARANCE] > 0, output.features.float())
        parts.append([value.cpu() for value in read])
    claims, severities, masks, features = (torch.cat(part) for part in zip(*parts, strict=True))
    return Signs(claims.numpy(), severities.numpy(), masks.numpy(), features)


def agreement(before: Signs, after: Signs) -> dict[str, Any]:
    """How far two readings of the same N faces agree, where the first one is right by definition.

    Args:
        before (`Signs`):
            Of the sources.
        after (`Signs`):
            Of the results.

    Returns:
        `dict`: `accuracy` and `kappa` (Cohen's), macro over the labels that are read in a source; `severity_error`,
        mean absolute, of the signs read in a source; `dice`, overlap of the masks, macro over the appearance signs
        read in a source; `lost`, the share of the signs read in sources that are no longer read; `new`, the number of
        signs a face that were not. Then `by_label` and `dice_by_sign`. NaN where nothing tells.
    """
    kappa = cohens_kappa(before.claimed, after.claimed)
    same = (before.claimed == after.claimed).mean(0)
    errors = np.where(before.claimed, np.abs(after.severities - before.severities), np.nan)
    there = before.claimed.any(0)
    dice = _dice_by_sign(before, after)
    return {
        "accuracy": mean_told(same[there]),
        "kappa": mean_told(kappa),
        "severity_error": mean_told(errors),
        "dice": mean_told(np.array(list(dice.values()))),
        "lost": mean_told(~after.claimed[before.claimed]),
        "new": float((after.claimed & ~before.claimed).sum(1).mean()),
        "by_label": {
            LABELS[label]: {
                "faces": int(before.claimed[:, label].sum()),
                "accuracy": float(same[label]),
                "kappa": float(kappa[label]),
                "severity_error": mean_told(errors[:, label]),
            }
            for label in np.flatnonzero(there)
        },
        "dice_by_sign": dice,
    }


def _dice_by_sign(before: Signs, after: Signs) -> dict[str, float]:
    """Mean overlap of the masks over the faces that a sign is read on before, for each sign that is on any."""
    names = list(TAXONOMY)
    dice = {}
    for place, number in enumerate(APPEARANCE.tolist()):
        labels = [index for index, label in enumerate(LABELS) if label.partition(":")[0] == names[number]]
        faces = before.claimed[:, labels].any(1) & before.masks[:, place].any((1, 2))
        if faces.any():
            dice[names[number]] = float(dice_scores(after.masks[faces, place], before.masks[faces, place]).mean())
    return dice
