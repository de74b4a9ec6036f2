"""Are signs read equally well on all skins, and on everybody?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from ..faces.canvas import Canvas, skin_tone_band
from ..manifestations.taxonomy import TAXONOMY
from .utility import f1_scores, mean_told

NOT_STATED = "not stated"


def patient_groups(rows: Dataset) -> dict[str, list[str]]:
    """The groups that each face of a set belongs to, under `"skin_tone"`, `"sex"` and `"group"`.

    The skin tone is the band of the individual typology angle. Simulated sets state that of the clean face. Where it
    is not stated, it is measured on the skin of the picture itself, if there are landmarks and no sign that changes the
    tone of the skin.

    Args:
        rows (`Dataset`):
            With the columns of `load_mema`.

    Returns:
        `dict[str, list[str]]`: a name for each row, or `"not stated"`.
    """
    groups = {name: [value or NOT_STATED for value in rows[name]] for name in ("skin_tone", "sex", "group")}
    for index, tone in enumerate(groups["skin_tone"]):
        if tone == NOT_STATED:
            groups["skin_tone"][index] = _own_skin_tone(rows[index])
    return groups


def _own_skin_tone(row: Mapping[str, Any]) -> str:
    toned = any("colour" in TAXONOMY[finding["manifestation"]].channels for finding in row["findings"])
    if toned or row["landmarks"] is None:
        return NOT_STATED
    image = np.asarray(row["image"], np.float32) / 255.0
    return skin_tone_band(Canvas(image, np.array(row["landmarks"], np.float32)).ita)


def macro_f1_by_group(claimed: np.ndarray, labels: np.ndarray, groups: Sequence[str]) -> dict[str, dict[str, float]]:
    """Macro F1 of each group, over the labels that occur in it.

    Args:
        claimed (`np.ndarray`):
            bool `[N, L]`: what was read.
        labels (`np.ndarray`):
            bool `[N, L]`: what is there.
        groups (`Sequence[str]`):
            The group of each face, `[N]`.

    Returns:
        `dict`: for each group, the largest first, `faces` (their number) and `macro_f1` (NaN without any sign). A group
        of few faces shows each sign once or twice, if at all: mind the number.
    """
    members = {name: np.array(groups) == name for name in dict.fromkeys(groups)}
    return {
        name: {"faces": int(rows.sum()), "macro_f1": mean_told(f1_scores(claimed[rows], labels[rows]))}
        for name, rows in sorted(members.items(), key=lambda item: -item[1].sum())
    }
