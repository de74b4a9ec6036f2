"""What the simulator does to faces, in figures: `python -m medeid.evaluation.simulation FACES`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from tqdm import tqdm

from ..data.faces import FaceFolder
from ..data.patients import draw_finding
from ..data.simulate import Simulation, simulate
from ..faces.canvas import NotVisibleError, ellipse
from ..identity.recognizer import DlibRecognizer
from ..manifestations.taxonomy import TAXONOMY
from .privacy import embed_faces, rank1_rate

_RIM = 4 / 256  # of the side: how far an appearance sign may reach beyond its mask


def measure(folder: FaceFolder, count: int, seed: int) -> dict[str, float | int | dict[str, float]]:
    """Paints every sign on every face, one at a time, and measures what it changes.

    Args:
        folder (`FaceFolder`):
            Healthy faces.
        count (`int`):
            Number of faces.
        seed (`int`):
            Seed of severities, sides and looks.

    Returns:
        `dict`: `same_person` is the share of painted faces whose nearest clean face is their own source under dlib's
        recognizer (rank 1), `same_person_<sign>` the same for the sign that it is lowest for; `pixels_outside` counts
        the pixels that appearance signs changed beyond their mask, grown by 4 px of 256; `not_visible` is the share of
        faces that a sign could not be shown on; milliseconds are those of the processor.
    """
    faces = range(min(count, len(folder)))
    clean = np.stack([folder.image(index) for index in faces])
    landmarks = np.stack([folder.landmarks(index) for index in faces])
    recognizer = DlibRecognizer()
    gallery = embed_faces(recognizer, clean, landmarks, face_only=False)
    rates: dict[str, float] = {}
    milliseconds: dict[str, float] = {}
    outside, missing = 0, 0
    for number, name in enumerate(tqdm(TAXONOMY, desc="Painting")):
        painted: dict[int, Simulation] = {}
        started = time.process_time()
        for index in faces:
            generator = np.random.default_rng((seed, number, index))
            try:
                finding = draw_finding(name, 0.15, generator)
                painted[index] = simulate(clean[index], landmarks[index], [finding], generator)
            except NotVisibleError:
                missing += 1
        milliseconds[name] = (time.process_time() - started) / len(faces) * 1e3
        if TAXONOMY[name].channels[0] == "appearance":
            outside += sum(_changed_outside(clean[index], result) for index, result in painted.items())
        images = np.stack([result.image for result in painted.values()])
        points = np.stack([result.landmarks for result in painted.values()])
        probes = embed_faces(recognizer, images, points, face_only=False)
        rates[name] = rank1_rate(probes, gallery, torch.tensor(list(painted)))
    worst = min(rates, key=rates.__getitem__)
    return {
        "faces": len(faces),
        "signs": len(rates),
        "same_person": float(np.mean(list(rates.values()))),
        f"same_person_{worst}": rates[worst],
        "pixels_outside": outside,
        "not_visible": missing / (len(rates) * len(faces)),
        "milliseconds_a_sign": float(np.mean(list(milliseconds.values()))),
        "slowest": dict(sorted(milliseconds.items(), key=lambda item: -item[1])[:3]),
    }


def _changed_outside(clean: np.ndarray, result: Simulation) -> int:
    grown = cv2.dilate(result.masks.any(0).astype(np.uint8), ellipse(_RIM * clean.shape[0]))
    return int(((clean != result.image).any(-1) & (grown == 0)).sum())


def main(
    data_dir: Annotated[Path, typer.Argument(help="Healthy face crops in imagefolder style with landmarks.npz.")],
    split: Annotated[str, typer.Option(help="Split of the folder.")] = "validation",
    count: Annotated[int, typer.Option(help="Number of faces.")] = 240,
    seed: Annotated[int, typer.Option(help="Seed of severities, sides and looks.")] = 0,
) -> None:
    """Print the simulator's figures as JSON."""
    print(json.dumps(measure(FaceFolder(data_dir, split), count, seed), indent=2))


if __name__ == "__main__":
    typer.run(main)
