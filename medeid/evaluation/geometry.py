"""Is asymmetry kept? Lids, gaze and mouth before and after: `python -m medeid.evaluation.geometry FACES`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from tqdm import tqdm

from ..data.faces import FaceFolder
from ..data.patients import draw_finding
from ..data.simulate import simulate
from ..faces.canvas import NotVisibleError
from ..faces.mesh import (
    CHIN,
    FOREHEAD,
    LEFT_BROW,
    LEFT_EYE,
    LEFT_IRIS,
    MIRROR,
    MOUTH_CORNERS,
    OUTER_EYE_CORNERS,
    RIGHT_BROW,
    RIGHT_EYE,
    RIGHT_IRIS,
    inter_ocular_distance,
)
from ..manifestations.taxonomy import TAXONOMY, Finding
from ..pipeline import MedicalDeIDPipeline
from ..records import NoFaceFoundError, VerificationError

SHAPE_SIGNS = tuple(name for name, row in TAXONOMY.items() if "geometry" in row.channels)
ASYMMETRIES = ("aperture", "gaze", "mouth")

_EYES = ((RIGHT_EYE, RIGHT_IRIS), (LEFT_EYE, LEFT_IRIS))
_BONY = (263, 362, 356, 454)  # corners of the left eye, temple, before the ear: no palsy and no smile moves them
_BONY_MIRRORED = MIRROR[list(_BONY)].tolist()


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
    right_aperture, left_aperture = lid_apertures(landmarks).unbind(1)
    right_gaze, left_gaze = (landmarks[:, iris[0], 0] - landmarks[:, list(eye), 0].mean(1) for eye, iris in _EYES)
    right_corner, left_corner = (landmarks[:, corner, 1] for corner in MOUTH_CORNERS)
    unit = inter_ocular_distance(landmarks)
    gaze, mouth = (left_gaze - right_gaze) / unit, (left_corner - right_corner) / unit
    return torch.stack([left_aperture - right_aperture, gaze, mouth], 1)


def slopes(seen: torch.Tensor, true: torch.Tensor) -> dict[str, float]:
    """How much of the true asymmetries `[N, 3]` is seen: 1 all, 0 none; the slopes of the regression lines."""
    seen, true = seen - seen.mean(0), true - true.mean(0)
    values = (seen * true).sum(0) / true.square().sum(0)
    return dict(zip(ASYMMETRIES, values.tolist(), strict=True))


def lid_apertures(landmarks: torch.Tensor) -> torch.Tensor:
    """How far the lids are apart, mean along the eye.

    Args:
        landmarks (`torch.Tensor`):
            `[N, 478, 3]` in any pixels.

    Returns:
        `torch.Tensor`: `[N, 2]`, the patient's right and left eye, in inter-ocular distances, at least 0.
    """
    lids = _levelled(landmarks)[:, [RIGHT_EYE, LEFT_EYE]]
    return (lids[:, :, 1:8] - lids[:, :, 9:].flip(2)).norm(dim=-1).mean(2)


def margin_reflex_distances(landmarks: torch.Tensor) -> torch.Tensor:
    """How far the margin of the upper lid is above the centre of the iris: the measure of ptosis.

    Ophthalmology's MRD1 (Putterman, "Margin reflex distance (MRD) 1, 2, and 3", 2012), with the iris for the light's
    reflex on the cornea.

    Args:
        landmarks (`torch.Tensor`):
            `[N, 478, 3]` in any pixels.

    Returns:
        `torch.Tensor`: `[N, 2]`, the patient's right and left eye, in inter-ocular distances; below 0 for a lid that
        covers the centre.
    """
    points = _levelled(landmarks)
    distances = []
    for eye, iris in _EYES:
        upper, centre = points[:, list(eye[:9])], points[:, iris[0]]
        steps = upper.diff(dim=1)
        # How far along each step of the margin the iris is; a step straight up or down has no such place.
        along = ((centre[:, None, 0] - upper[:, :-1, 0]) / steps[..., 0]).clamp(0.0, 1.0).nan_to_num()
        distances.append(centre[:, 1] - upper[:, 0, 1] - (along * steps[..., 1]).sum(1))
    return torch.stack(distances, 1)


def mouth_corner_asymmetry(landmarks: torch.Tensor) -> torch.Tensor:
    """How much lower the patient's left corner of the mouth hangs than the right one, however the head is tilted.

    Args:
        landmarks (`torch.Tensor`):
            `[N, 478, 3]` in any pixels.

    Returns:
        `torch.Tensor`: `[N]` in inter-ocular distances.
    """
    right, left = _levelled(landmarks)[:, list(MOUTH_CORNERS), 1].unbind(1)
    return left - right


def brow_asymmetry(landmarks: torch.Tensor) -> torch.Tensor:
    """How much lower the patient's left brow is than the right one, however the head is tilted.

    Args:
        landmarks (`torch.Tensor`):
            `[N, 478, 3]` in any pixels.

    Returns:
        `torch.Tensor`: `[N]` in inter-ocular distances.
    """
    right, left = _levelled(landmarks)[:, [RIGHT_BROW, LEFT_BROW], 1].mean(2).unbind(1)
    return left - right


def iris_offsets(landmarks: torch.Tensor) -> torch.Tensor:
    """Where the irises are in their eyes: gaze, and squint as the difference of the two.

    Args:
        landmarks (`torch.Tensor`):
            `[N, 478, 3]` in any pixels.

    Returns:
        `torch.Tensor`: `[N, 2, 2]`, of the patient's right and left eye, to the image's right and downwards from the
        middle between the corners of the eye, in inter-ocular distances.
    """
    points = _levelled(landmarks)
    # Between the corners, not the lids: a lid that droops is no gaze.
    offsets = [points[:, iris[0]] - (points[:, eye[0]] + points[:, eye[8]]) / 2 for eye, iris in _EYES]
    return torch.stack(offsets, 1)


def head_pose(landmarks: torch.Tensor) -> torch.Tensor:
    """Which way the head is turned, in closed form from the depth that the mesh has; no camera is assumed.

    The axes of the head are the mean direction from points over bone on its right to those on its left, and across it
    that from forehead to chin. The angles are those of turning it by pitch, then yaw, then roll (Tait-Bryan). The
    projection is taken for a scaled orthographic one, as the mesh's depth is in the units of its width.

    Args:
        landmarks (`torch.Tensor`):
            `[N, 478, 3]` in any pixels, depth away from the viewer.

    Returns:
        `torch.Tensor`: `[N, 3]` in degrees: yaw to the image's right, pitch downwards, roll clockwise in the image.
        The pitch is that of the line from forehead to chin, which leans a few degrees on a level head.
    """
    right = F.normalize((landmarks[:, list(_BONY)] - landmarks[:, _BONY_MIRRORED]).mean(1), dim=-1)
    down = landmarks[:, CHIN] - landmarks[:, FOREHEAD]
    down = F.normalize(down - (down * right).sum(-1, keepdim=True) * right, dim=-1)
    away = torch.linalg.cross(right, down)
    yaw = torch.asin(right[:, 2].clamp(-1.0, 1.0))
    pitch = torch.atan2(down[:, 2], away[:, 2])
    roll = torch.atan2(right[:, 1], right[:, 0])
    return torch.rad2deg(torch.stack([yaw, pitch, roll], 1))


def geometry_errors(after: torch.Tensor, before: torch.Tensor) -> dict[str, float]:
    """How far lids, gaze, mouth, brows and pose of faces are from those of their sources.

    Args:
        after (`torch.Tensor`):
            `[N, 478, 3]`, landmarks of the results, in any pixels.
        before (`torch.Tensor`):
            `[N, 478, 3]`, those of the sources.

    Returns:
        `dict`: mean absolute errors: `lid_aperture`, `margin_reflex_distance`, `mouth_corner_asymmetry`,
        `brow_asymmetry` and `iris_offset` (of both its directions) in inter-ocular distances; `yaw`, `pitch` and `roll`
        in degrees.
    """
    measures = {
        "lid_aperture": lid_apertures,
        "margin_reflex_distance": margin_reflex_distances,
        "mouth_corner_asymmetry": mouth_corner_asymmetry,
        "brow_asymmetry": brow_asymmetry,
        "iris_offset": iris_offsets,
    }
    errors = {name: (measure(after) - measure(before)).abs().mean().item() for name, measure in measures.items()}
    turned = (head_pose(after) - head_pose(before)).abs().mean(0)
    return errors | dict(zip(("yaw", "pitch", "roll"), turned.tolist(), strict=True))


def _levelled(landmarks: torch.Tensor) -> torch.Tensor:
    """Points `[N, 478, 2]` in inter-ocular distances, turned so that the outer corners of the eyes are level."""
    points = landmarks[..., :2]
    right, left = OUTER_EYE_CORNERS
    across = points[:, left] - points[:, right]
    down = torch.stack([-across[:, 1], across[:, 0]], -1)
    frame = torch.stack([across, down], -1) / across.square().sum(-1)[:, None, None]
    return (points - points[:, right, None]) @ frame


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
        patients.append(patient.image)
        results.append(result)
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
