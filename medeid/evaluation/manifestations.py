"""How well signs are read, how fairly, and what tokens tell of the person.

python -m medeid.evaluation.manifestations PATIENTS
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from datasets import Dataset
from rich.console import Console

from ..data.mema import load_mema
from ..identity.recognizer import Recognizer, load_recognizers
from ..manifestations.encoder import ManifestationEncoder
from ..manifestations.taxonomy import APPEARANCE, LABELS, TAXONOMY
from ..pipeline import PACKAGED_WEIGHTS
from .calibration import calibrate, calibration_half, is_calibrated
from .fairness import macro_f1_by_group, patient_groups
from .identity_probe import ProbeResult, identity_probe
from .outputs import EncoderOutputs, distinct_faces, read_both_ways, read_faces
from .privacy import embed_faces
from .tables import print_tables
from .utility import expected_calibration_error, f1_scores, mean_told

PACKAGED_ENCODER = PACKAGED_WEIGHTS / "medeid-tiny"

_TIMED_CALLS = 20
_DRAWS = 5  # of tokens that are probed for identity, of each face
_EMBEDDED_AT_ONCE = 64


def measure(encoder: ManifestationEncoder, rows: Dataset, recognizers: list[Recognizer]) -> dict[str, Any]:
    """Measures an encoder on the half of a split's subjects that does not calibrate.

    An encoder that was never calibrated is first, on the other half. The identity probe needs no threshold and takes
    all subjects.

    Args:
        encoder (`ManifestationEncoder`):
            In evaluation mode; it is changed if it was not calibrated.
        rows (`Dataset`):
            A split that the encoder was not trained on, see [`load_mema`]. Repeated pictures count once.
        recognizers (`list[Recognizer]`):
            Whose embeddings are probed for identity, to compare; for sets with landmarks.

    Returns:
        `dict`: `scores` (see [`scores`]), `by_group` (see [`macro_f1_by_group`]), `identity` (see [`probe_identity`]),
        `milliseconds_a_crop` on `threads` threads, and what was measured on.
    """
    rows = distinct_faces(rows)
    outputs = read_faces(encoder, rows)
    subjects = list(rows["subject_id"])
    calibrates = calibration_half(subjects)
    calibrated = is_calibrated(encoder)
    if not calibrated:
        calibrate(encoder, read_both_ways(encoder, rows.select(np.flatnonzero(calibrates))))
    measured = outputs[~calibrates]
    if len(measured) == 0:
        raise ValueError("`rows` has no subject in the measured half. Give more subjects.")
    probabilities = measured.probabilities(encoder.temperature)
    claimed = probabilities > encoder.threshold.float().cpu().numpy()
    groups = patient_groups(rows.select(np.flatnonzero(~calibrates)))
    return {
        "faces": len(measured),
        "subjects": len({subject for subject, other in zip(subjects, calibrates, strict=True) if not other}),
        "calibrated": "before" if calibrated else f"now, on {int(calibrates.sum())} faces of other subjects",
        "scores": scores(measured, probabilities, claimed),
        "by_group": {name: macro_f1_by_group(claimed, measured.labels, groups[name]) for name in groups},
        "identity": {name: asdict(result) for name, result in probe_identity(outputs, rows, recognizers).items()},
        "milliseconds_a_crop": milliseconds_a_crop(encoder),
        "threads": torch.get_num_threads(),
    }


def scores(outputs: EncoderOutputs, probabilities: np.ndarray, claimed: np.ndarray) -> dict[str, Any]:
    """How well signs are read.

    Args:
        outputs (`EncoderOutputs`):
            Of N faces.
        probabilities (`np.ndarray`):
            float `[N, L]`, calibrated.
        claimed (`np.ndarray`):
            bool `[N, L]`: where they are above the thresholds.

    Returns:
        `dict`: `macro_f1` over all signs and sides that occur, and `f1` of each; `dice_appearance`, the mean over the
        appearance signs of the mean over the faces that show them, at the size of the encoder's masks, and `dice` of
        every sign; `severity_error`, the mean absolute error where a sign is there; `calibration_error` over all
        labels; `healthy_claimed`, the share of the `healthy` faces that got any claim. NaN where nothing tells.
    """
    labels = outputs.labels
    f1 = f1_scores(claimed, labels)
    dice = np.array([mean_told(column) for column in outputs.dice.T])
    healthy = ~labels.any(1)
    return {
        "macro_f1": mean_told(f1),
        "dice_appearance": mean_told(dice[APPEARANCE]),
        "severity_error": mean_told(np.abs(outputs.severities - outputs.true_severities)[labels]),
        "calibration_error": expected_calibration_error(probabilities, labels),
        "healthy_claimed": mean_told(claimed[healthy].sum(1) > 0),
        "healthy": int(healthy.sum()),
        "f1": {
            label: {"faces": int(count), "f1": float(value)}
            for label, count, value in zip(LABELS, labels.sum(0), f1, strict=True)
        },
        "dice": dict(zip(TAXONOMY, dice.tolist(), strict=True)),
    }


def probe_identity(
    outputs: EncoderOutputs, rows: Dataset, recognizers: list[Recognizer], seed: int = 0
) -> dict[str, ProbeResult]:
    """What features tell of the person: `{}` unless two subjects have two faces.

    Args:
        outputs (`EncoderOutputs`):
            Of N faces.
        rows (`Dataset`):
            The same faces.
        recognizers (`list[Recognizer]`):
            See [`measure`].
        seed (`int`, *optional*, defaults to 0):
            Of probes and shuffling.

    Returns:
        `dict[str, ProbeResult]`: of the tokens as they are drawn from the bottleneck (several times over, as one hit
        more or less among few faces says little), of their means (which no bottleneck limits: what is too small to
        outlast its noise is still in them), of the features before it, and of each recognizer's embeddings. `"drawn
        tokens, subjects shuffled"` shows what the same attackers find where nothing is to be found.
    """
    subjects = np.array(list(rows["subject_id"]))
    if (np.unique(subjects, return_counts=True)[1] > 1).sum() < 2:
        return {}
    drawn = outputs.draw_tokens(_DRAWS, seed)
    features = {
        "drawn tokens": drawn,
        "mean tokens": outputs.mean_tokens,
        "features before the bottleneck": outputs.features,
        **{recognizer.name: _embeddings(recognizer, rows) for recognizer in recognizers if _has_landmarks(rows)},
    }
    results = {name: identity_probe(values, subjects.tolist(), seed) for name, values in features.items()}
    shuffled = np.random.default_rng(seed).permutation(subjects).tolist()
    return {**results, "drawn tokens, subjects shuffled": identity_probe(drawn, shuffled, seed)}


def _has_landmarks(rows: Dataset) -> bool:
    return rows.data.column("landmarks").null_count == 0


def _embeddings(recognizer: Recognizer, rows: Dataset) -> np.ndarray:
    """float32 [N, D]: of the whole crops, as a recognizer would see them."""
    rows = rows.select_columns(["image", "landmarks"])
    parts = []
    for batch in rows.iter(_EMBEDDED_AT_ONCE):
        crops = np.stack([np.asarray(image) for image in batch["image"]])
        landmarks = np.array(batch["landmarks"], np.float32)
        parts.append(embed_faces(recognizer, crops, landmarks, face_only=False).cpu().numpy())
    return np.concatenate(parts)


@torch.no_grad()
def milliseconds_a_crop(encoder: ManifestationEncoder) -> float:
    """The median time of one crop of 256 px at a time, after a call that warms up."""
    crop = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)).to(encoder.device, encoder.dtype)
    encoder(crop)
    times = []
    for _ in range(_TIMED_CALLS):
        began = time.perf_counter()
        encoder(crop).logits.cpu()
        times.append(time.perf_counter() - began)
    return float(np.median(times)) * 1e3


def load_encoder(folder: Path) -> ManifestationEncoder:
    """An encoder from its own folder, or from that of a whole pipeline; `medeid-judge` and `medeid-tiny` are packaged.

    Raises:
        `ValueError`: there is none.
    """
    packaged = PACKAGED_WEIGHTS / folder
    if not folder.is_dir() and len(folder.parts) == 1 and packaged.is_dir():
        folder = packaged
    own = folder / "manifestation_encoder"
    chosen = own if own.is_dir() else folder
    if not (chosen / "config.json").is_file():
        raise ValueError(f"no encoder is in {folder}. Give the folder that it was exported to.")
    encoder = ManifestationEncoder.from_pretrained(chosen).eval()
    encoder.fuse_batch_norms()  # as the pipeline reads with it
    return encoder


def _of_first_subjects(rows: Dataset, count: int) -> Dataset:
    subjects = list(rows["subject_id"])
    chosen = set(list(dict.fromkeys(subjects))[:count])
    return rows.select([index for index, subject in enumerate(subjects) if subject in chosen])


def _without_nan(value: Any) -> Any:
    """The same for JSON, which has no NaN."""
    if isinstance(value, dict):
        return {name: _without_nan(each) for name, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def main(
    patients: Annotated[Path, typer.Argument(help="Set with labels and masks, as medeid simulate writes it.")],
    encoder: Annotated[Path, typer.Option(help="Folder of an encoder, or of a pipeline's weights.")] = PACKAGED_ENCODER,
    split: Annotated[str, typer.Option(help="Split that the encoder was not trained on.")] = "validation",
    subjects: Annotated[int, typer.Option(help="Only so many subjects, for a quick look; 0: all.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Measure how well an encoder reads signs, how fairly, and what its tokens tell of the person.

    A digest parts the subjects of the split into halves: the training calibrates on one (and this command does, if the
    encoder never was), and all but the identity probe is measured on the other.
    """
    try:
        loaded = load_encoder(encoder)
        rows = load_mema(patients, split)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    figures = measure(loaded, _of_first_subjects(rows, subjects) if subjects else rows, load_recognizers())
    if as_json:
        print(json.dumps(_without_nan(figures), indent=2))
    else:
        print_tables(figures, Console())


if __name__ == "__main__":
    typer.run(main)
