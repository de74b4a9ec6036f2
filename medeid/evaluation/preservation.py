"""Is the same disease read after de-identification? `python -m medeid.evaluation.preservation PATIENTS`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from ..data.mema import load_mema
from ..faces.mesh import points5_from_mesh
from ..manifestations.taxonomy import LABELS, TAXONOMY
from ..pipeline import MedicalDeIDPipeline
from ..records import FaceRecord, ManifestationRecord, NoFaceFoundError, VerificationError
from ..types import FaceBox
from .calibration import calibration_half
from .outputs import distinct_faces
from .utility import cohens_kappa, mean_told

_SURFACE = {name for name, row in TAXONOMY.items() if row.channels[0] == "appearance"}


def measure(pipeline: MedicalDeIDPipeline, rows: Dataset, seed: int) -> dict:
    """De-identifies patients with the default settings and compares what the encoder reads before and after.

    Args:
        pipeline (`MedicalDeIDPipeline`):
            The model.
        rows (`Dataset`):
            Rows of `load_mema`: aligned crops, each taken for a photo of one face.
        seed (`int`):
            Seed of the surrogates and the noise.

    Returns:
        `dict`: `kappa`, Cohen's, macro over the labels that are read in a source, and `kappa_by_label`; `dice`, overlap
        of the masks before and after, macro over the appearance signs read in a source; `severity_change`, mean
        absolute, of the signs read in a source; `healthy_claimed`, share of faces without a label on which a sign is
        read afterwards; `attempts` and `withheld`; and `withheld_because`, how many attempts at the faces withheld
        failed by each check (a sign that stays is named, too).
    """
    faces, withheld, reasons, healthy = [], 0, Counter[str](), []
    for index, row in enumerate(tqdm(rows, desc="De-identifying")):
        image = np.asarray(row["image"])
        points = points5_from_mesh(np.asarray(row["landmarks"], np.float32))
        whole = FaceBox((0.0, 0.0, *image.shape[1::-1]), 1.0, points, "user")
        try:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
            _, (record,), _ = pipeline(image, [[whole]], generator=generator, return_dict=False)
        except NoFaceFoundError:
            withheld += 1
            continue
        except VerificationError as error:
            withheld += 1
            reasons.update(_failures(error))
            continue
        faces.append(record.faces[0])
        healthy.append(not any(row["labels"]))
    thresholds = pipeline.manifestation_encoder.threshold.float().cpu().numpy()
    before, after = (_claims(faces, when, thresholds) for when in ("before", "after"))
    kappa = cohens_kappa(before, after)
    signs = [sign for face in faces for sign in face.manifestations if sign.preserved]
    changes = [abs(sign.severity["after"] - sign.severity["before"]) for sign in signs]
    return {
        "faces": len(faces),
        "withheld": withheld,
        "withheld_because": dict(reasons.most_common()),
        "attempts": float(np.mean([len(face.attempts) for face in faces])),
        "kappa": mean_told(kappa),
        "kappa_by_label": {label: float(value) for label, value in zip(LABELS, kappa, strict=True) if value == value},
        "dice": _mean_overlap(signs),
        "severity_change": mean_told(np.array(changes)),
        "healthy_claimed": mean_told(after[np.array(healthy, bool)].any(1)),
    }


def _failures(error: VerificationError) -> list[str]:
    """What each attempt at a photo's faces failed by."""
    (record,) = error.records
    return [reason for face in record.faces for attempt in face.attempts for reason in attempt.failed]


def _claims(faces: list[FaceRecord], when: str, thresholds: np.ndarray) -> np.ndarray:
    """bool [N, L]: the signs that were read in the sources, or in the results."""
    claims = np.zeros((len(faces), len(LABELS)), bool)
    for row, face in enumerate(faces):
        for sign in face.manifestations:
            label = LABELS.index(sign.label)
            claims[row, label] = sign.probability[when] > thresholds[label]
    return claims


def _mean_overlap(signs: list[ManifestationRecord]) -> float:
    """Dice of the masks before and after: mean over appearance signs of the mean over the faces they are read on."""
    overlaps: dict[str, list[float]] = {}
    for sign in signs:
        if sign.manifestation in _SURFACE and sign.mask_overlap is not None:
            overlaps.setdefault(sign.manifestation, []).append(sign.mask_overlap)
    return mean_told(np.array([np.mean(each) for each in overlaps.values()]))


def main(
    patients: Annotated[Path, typer.Argument(help="What load_mema reads, as medeid simulate writes it.")],
    model: Annotated[str, typer.Option(help="medeid-tiny, a folder, or a name on the Hub.")] = "medeid-tiny",
    split: Annotated[str, typer.Option(help="The half of it that the encoder was not calibrated on.")] = "validation",
    count: Annotated[int, typer.Option(help="Number of faces.")] = 400,
    seed: Annotated[int, typer.Option(help="Seed of the surrogates and the noise.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Print how well the signs of disease outlive de-identification, by the encoder's own reading."""
    rows = load_mema(patients, split)
    rows = distinct_faces(rows.select(np.flatnonzero(~calibration_half(rows["subject_id"]))))
    order = np.random.default_rng(seed).permutation(len(rows))[:count]
    pipeline = MedicalDeIDPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    figures = measure(pipeline, rows.select(order), seed)
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    by_label, reasons = figures.pop("kappa_by_label"), figures.pop("withheld_because")
    table = Table("figure", "value")
    for name, value in [*figures.items(), *sorted(by_label.items(), key=lambda each: each[1]), *reasons.items()]:
        table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
