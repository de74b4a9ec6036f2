"""The benchmark: every method on the same patients, measured in the same way, and everything kept in one folder."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..data.begun import read_state
from ..data.build import check_folders
from ..data.sources import Skipped, fingerprint
from ..files import write_file
from ..manifestations.encoder import ManifestationEncoder
from ..pipeline import MedicalDeIDPipeline
from .classical import KSameAverage
from .clip_features import ClipFeatures
from .cohort import COHORT, PATIENTS, SPLIT, Cohort, OnProgress, prepare_cohort
from .measuring import Yardstick
from .methods import Medeid, create_method
from .privacy import faces_needed, impostor_similarities, impostors_needed
from .protocol import Method
from .report import write_report
from .results import MethodFolder, run_method

DEFAULT_METHODS = ("medeid", "blur", "pixelate", "mask", "eye-bar")
FALSE_ACCEPT_RATE = 0.001

_STATE_FILE = "benchmark.json"
_FOLDER_NAME = re.compile(r"\w[\w.+-]*")
_NAME_DIGITS = 6  # of a digest that tells apart methods whose names do not do for folders


@dataclass(frozen=True)
class Entry:
    """A method in a benchmark.

    Attributes:
        label (`str`): What tables and its folder call it.
        method (`Method`): The method.
        privacy (`float`, *optional*): Its privacy level if it is this package's own.
    """

    label: str
    method: Method
    privacy: float | None


def run_benchmark(
    faces: Path,
    out: Path,
    methods: Sequence[str | Method] = DEFAULT_METHODS,
    count: int = 200,
    seed: int = 0,
    pipeline: MedicalDeIDPipeline | None = None,
    judge: ManifestationEncoder | None = None,
    clip: ClipFeatures | None = None,
    jobs: int = 1,
    on_progress: OnProgress = lambda stage, done, total: None,
    on_skip: Callable[[Skipped], None] = lambda skipped: None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measures methods of de-identification on simulated patients.

    After an interruption the same call goes on where it was. Results of a method that are there are not made again,
    but always measured anew.

    Args:
        faces (`Path`):
            Folder of aligned crops with a split `validation` (see [`FaceFolder`]) or of photos. It is only read.
        out (`Path`):
            Folder of the benchmark: new, empty, or one that was begun with the same faces, model, number and seed.
        methods (`Sequence[str or Method]`, *optional*):
            Names for [`create_method`], or methods of your own.
        count (`int`, *optional*, defaults to 200):
            Number of patients.
        seed (`int`, *optional*, defaults to 0):
            The same seed gives the same figures.
        pipeline (`MedicalDeIDPipeline`, *optional*):
            The model of `"medeid"`, whose networks find landmarks and read signs for all methods; medeid-tiny by
            default.
        judge (`ManifestationEncoder`, *optional*):
            Reads the signs a second time. It should have been trained on originals only, apart from the pipeline's.
        clip (`ClipFeatures`, *optional*):
            In whose features results are compared with photos of other people, beside those of the pipeline's encoder.
        jobs (`int`, *optional*, defaults to 1):
            Number of processes that simulate patients, and in which medeid de-identifies them (on a CPU; each holds the
            model, about 1 GB). The figures are the same for any number.
        on_progress (`Callable`, *optional*):
            Called with what is being done, how much of it is done, and of how much.
        on_skip (`Callable`, *optional*):
            Called with each picture of the faces that cannot be used.

    Returns:
        `tuple[dict, dict]`: what is in `results.json` (what was measured on, and under `methods` the figures of each,
        see [`Yardstick.measure`]) and in `timing.json`. A method that fails on some photos, or all, does not touch the
        others.

    Raises:
        `ValueError`: the folders cannot be used, there are too few faces, or a method has no such name or lacks what it
            needs.
        `OSError`: `out` cannot be written to.
    """
    # 1. Check the inputs
    if pipeline is None:
        pipeline = MedicalDeIDPipeline.from_pretrained("medeid-tiny")
    pipeline.set_progress_bar_config(disable=True)
    made = _create(methods, pipeline)
    check_folders(faces, out)
    arguments = {
        "medeid": __version__,
        "faces": fingerprint(faces),
        "patients": count,
        "seed": seed,
        "model": _pipeline_digest(pipeline),
    }
    is_new = read_state(out, _STATE_FILE, "benchmark", arguments) is None
    if is_new:
        _write_json(out / _STATE_FILE, {"arguments": arguments})

    # 2. Make the patients, and enter the methods
    try:
        cohort = prepare_cohort(faces, out, count, seed, pipeline, _check_far, jobs, on_progress, on_skip)
    except ValueError:
        if is_new:
            shutil.rmtree(out / COHORT, ignore_errors=True)
            (out / _STATE_FILE).unlink()
        raise
    entries = _enter(made, pipeline, cohort)

    # 3. Let each method de-identify, and measure what it made
    yardstick = Yardstick(cohort, pipeline, judge, FALSE_ACCEPT_RATE, clip, on_progress)
    figures, timing = {}, {}
    for entry in entries:
        folder = MethodFolder(out / entry.label)
        progress = partial(on_progress, f"De-identifying by {entry.label}")
        # Of the others none takes so long that starting processes would pay.
        shared = entry.privacy is not None and pipeline.device.type == "cpu"
        run_method(entry.method, cohort.tasks, folder, progress, jobs if shared else None)
        figures[entry.label] = yardstick.measure(folder, entry.privacy, f"Measuring {entry.label}")
        timing[entry.label] = _timing(folder, cohort)
        _write_json(folder.root / "figures.json", figures[entry.label])

    # 4. Tell all together
    results = arguments | {"settings": _settings(yardstick, judge, clip), "cohort": _sizes(cohort), "methods": figures}
    _write_json(out / "results.json", results)
    _write_json(out / "timing.json", timing)
    write_report(out, results, timing)
    return results, timing


def _create(methods: Sequence[str | Method], pipeline: MedicalDeIDPipeline) -> list[Method | None]:
    """Wrong names are told before anything is made. None stands for k-same, which needs faces of other people first."""
    if not methods:
        raise ValueError("`methods` is empty; name at least one.")
    made = [
        None if each == KSameAverage.name else create_method(each, pipeline) if isinstance(each, str) else each
        for each in methods
    ]
    labels = [KSameAverage.name if method is None else _label(method.name) for method in made]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"`methods` names {', '.join(twice)} twice; name each method once.")
    return made


def _check_far(subjects: Sequence[str]) -> None:
    """Raises if faces of these subjects have too few pairs to calibrate a verification on."""
    if len(impostor_similarities(torch.zeros(len(subjects), 1), subjects)) < impostors_needed(FALSE_ACCEPT_RATE):
        raise ValueError(
            f"FACES: the split {SPLIT} has {len(subjects)} faces of {len(set(subjects))} people, which is too few to "
            f"calibrate a verification on, at a false accept rate of {FALSE_ACCEPT_RATE:.3%}; give "
            f"{faces_needed(FALSE_ACCEPT_RATE)} faces of different people this split in metadata.jsonl, or ten times "
            "as many photos, as a tenth of these is for validation."
        )


def _enter(made: Sequence[Method | None], pipeline: MedicalDeIDPipeline, cohort: Cohort) -> list[Entry]:
    entries = []
    for each in made:
        method = create_method(KSameAverage.name, pipeline, cohort.reference) if each is None else each
        privacy = method.privacy if isinstance(method, Medeid) else None
        entries.append(Entry(_label(method.name), method, privacy))
    return entries


def _label(name: str) -> str:
    """A method's name if it does for a folder; else its words without their folders, and a digest of the whole."""
    if _FOLDER_NAME.fullmatch(name) and name not in (PATIENTS, COHORT):
        return name
    words = [word.rpartition("/")[2] for word in name.split() if "{" not in word]
    plain = "-".join(re.findall(r"[\w.+]+", " ".join(words)))
    return f"{plain or 'method'}-{hashlib.sha256(name.encode()).hexdigest()[:_NAME_DIGITS]}"


def _pipeline_digest(pipeline: MedicalDeIDPipeline) -> str:
    """What tells one model from another, wherever it lies."""
    settings = {name: value for name, value in pipeline.config.items() if isinstance(value, (int, float))}
    scheduler = {name: value for name, value in pipeline.scheduler.config.items() if not name.startswith("_")}
    modules = [part for _, part in sorted(pipeline.components.items()) if isinstance(part, torch.nn.Module)]
    return _digest(json.dumps([settings, scheduler], sort_keys=True, default=str), *modules)


def _digest(text: str, *modules: torch.nn.Module) -> str:
    digest = hashlib.sha256(text.encode())
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _settings(yardstick: Yardstick, judge: ManifestationEncoder | None, clip: ClipFeatures | None) -> dict[str, Any]:
    return {
        "false_accept_rate": FALSE_ACCEPT_RATE,
        "recognizers": sorted({attack.name for attack in yardstick.attacks}),
        "encoders": list(yardstick.encoders),
        "judge": None if judge is None else _digest("", judge),
        "clip": None if clip is None else {"name": clip.name, "digest": _digest("", clip.network)},
    }


def _sizes(cohort: Cohort) -> dict[str, Any]:
    """What was measured on, in numbers."""
    known = [people.subjects for people in cohort.gallery]
    return {
        "subjects": len(np.unique(cohort.patients.subjects)),
        "healthy": sum(not findings for findings in cohort.rows["findings"]),
        "gallery": {"photos": sum(map(len, known)), "subjects": len(np.unique(np.concatenate(known)))},
        "tasks": {task.name: len(task.people) for task in cohort.tasks},
    }


def _timing(folder: MethodFolder, cohort: Cohort) -> dict[str, Any]:
    """Not in the results, as it differs from run to run."""
    seconds = [each.seconds for task in cohort.tasks for each in folder.outcomes(task) if each.status != "failed"]
    return {"photos": len(seconds), "seconds_a_photo": round(float(np.mean(seconds)), 3) if seconds else None}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_file(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
