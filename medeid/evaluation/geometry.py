"""Is asymmetry kept? Lids, gaze and mouth before and after: `python -m medeid.evaluation.geometry FACES`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from tqdm import tqdm

from ..data.faces import FaceFolder
from ..data.patients import draw_finding
from ..data.simulate import simulate
from ..faces.canvas import NotVisibleError
from ..faces.mesh import LEFT_EYE, LEFT_IRIS, MOUTH_CORNERS, RIGHT_EYE, RIGHT_IRIS, inter_ocular_distance
from ..manifestations.taxonomy import TAXONOMY, Finding
from ..pipeline import MedicalDeIDPipeline
from ..records import NoFaceFoundError, VerificationError
from ..types import FaceCrop

SHAPE_SIGNS = tuple(name for name, row in TAXONOMY.items() if "geometry" in row.channels)
ASYMMETRIES = ("aperture", "gaze", "mouth")


def draw_shape_sign(generator: np.random.Generator) -> Finding:
    """A sign that changes the shape of the face, on a random side."""
    return draw_finding(SHAPE_SIGNS[generator.integers(len(SHAPE_SIGNS))], 0.1, generator)


def asymmetries(landmarks: torch.Tensor) -> torch.Tensor:
    """Left minus right: lid aperture, gaze, and height of the corners of the mouth.

    Args:
        landmarks (`torch.Tensor`):
            `[N, 478, 3]` in any pixels.

    Returns:
        `torch.Tensor`: `[N, 3]` in inter-ocular distances. The gaze of an eye is the place of its iris from the mean of
        its lids, to the image's right.
    """
    sides = []
    for eye, iris in ((LEFT_EYE, LEFT_IRIS), (RIGHT_EYE, RIGHT_IRIS)):
        lids = landmarks[:, list(eye), :2]
        aperture = (lids[:, 1:8] - lids[:, 9:].flip(1)).norm(dim=-1).mean(1)
        gaze = landmarks[:, iris[0], 0] - lids[..., 0].mean(1)
        sides.append(torch.stack([aperture, gaze], 1))
    right_corner, left_corner = (landmarks[:, corner, 1] for corner in MOUTH_CORNERS)
    differences = torch.cat([sides[0] - sides[1], (left_corner - right_corner)[:, None]], 1)
    return differences / inter_ocular_distance(landmarks)[:, None]


def slopes(seen: torch.Tensor, true: torch.Tensor) -> dict[str, float]:
    """How much of the true asymmetries `[N, 3]` is seen: 1 all, 0 none; the slopes of the regression lines."""
    seen, true = seen - seen.mean(0), true - true.mean(0)
    values = (seen * true).sum(0) / true.square().sum(0)
    return dict(zip(ASYMMETRIES, values.tolist(), strict=True))


def measure(pipeline: MedicalDeIDPipeline, folder: FaceFolder, count: int, seed: int) -> dict:
    """Paints a sign of the lids, the gaze or the mouth on each face and de-identifies it.

    Args:
        pipeline (`MedicalDeIDPipeline`):
            The model.
        folder (`FaceFolder`):
            Aligned crops; each is taken for a photo.
        count (`int`):
            Number of faces.
        seed (`int`):
            Seed of signs, surrogates and noise.

    Returns:
        `dict`: `found` has the slopes of the landmarks found on the patient against the painted ones, `kept` those of
        the landmarks found on the result. The same network finds both.
    """
    true, patients, results = [], [], []
    for index in tqdm(range(min(count, len(folder))), desc="De-identifying"):
        rng = np.random.default_rng((seed, index))
        try:
            patient = simulate(folder.image(index), folder.landmarks(index), [draw_shape_sign(rng)], rng)
            generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
            (result,), _, _ = pipeline(patient.image, generator=generator, return_dict=False)
        except (NotVisibleError, NoFaceFoundError, VerificationError):
            continue
        true.append(patient.landmarks)
        patients.append(FaceCrop(patient.image, np.eye(2, 3)))
        results.append(FaceCrop(result, np.eye(2, 3)))
    expected = asymmetries(torch.from_numpy(np.stack(true)))
    found, kept = (asymmetries(torch.from_numpy(pipeline.find_landmarks(crops))) for crops in (patients, results))
    return {"faces": len(true), "found": slopes(found, expected), "kept": slopes(kept, expected)}


def main(
    data_dir: Annotated[Path, typer.Argument(help="Healthy face crops in imagefolder style with landmarks.npz.")],
    model: Annotated[str, typer.Option(help="medeid-tiny, a folder, or a name on the Hub.")] = "medeid-tiny",
    split: Annotated[str, typer.Option(help="Split of the folder.")] = "validation",
    count: Annotated[int, typer.Option(help="Number of faces.")] = 240,
    seed: Annotated[int, typer.Option(help="Seed of signs, surrogates and noise.")] = 0,
) -> None:
    """Print how much asymmetry of lids, gaze and mouth is found, and kept, as JSON."""
    pipeline = MedicalDeIDPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    print(json.dumps(measure(pipeline, FaceFolder(data_dir, split), count, seed), indent=2))


if __name__ == "__main__":
    typer.run(main)
