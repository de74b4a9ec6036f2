"""The model's figures on a folder of face crops: `python -m medeid.evaluation.figures FACES`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from tqdm import tqdm

from ..data.faces import FaceFolder
from ..diffusion import decode_latents, encode_images
from ..faces.detection import detect_faces
from ..faces.mesh import inter_ocular_distance
from ..pipeline import MedicalDeIDPipeline
from ..records import NoFaceFoundError, VerificationError
from ..types import WHOLE_FACE
from .privacy import embed_faces, rank1_rate, verification_rate


def measure(
    pipeline: MedicalDeIDPipeline, folder: FaceFolder, count: int, seed: int, **options: Any
) -> dict[str, float | int]:
    """De-identifies the first `count` faces of a folder and measures privacy, detection, geometry and what changed.

    Args:
        pipeline (`MedicalDeIDPipeline`):
            The model.
        folder (`FaceFolder`):
            Aligned crops; each is taken for a photo.
        count (`int`):
            Number of faces.
        seed (`int`):
            Seed of the surrogates and the noise.
        options:
            Of the pipeline's call: `privacy`, `identity_guidance_scale` ...

    Returns:
        `dict`: rates in [0, 1]; `landmark_error` is the mean distance of the result's dense landmarks to the source's,
        in units of the source's inter-ocular distance, and `landmark_net_error` that of the found to the labelled ones.
        `rank1_...` and `verified_...` (at FAR 0.1 %) are of an attacker with a recognizer and the originals.
    """
    sources, labels, results, attempts, withheld, outside = [], [], [], [], 0, 0
    for index in tqdm(range(min(count, len(folder))), desc="De-identifying"):
        image = folder.image(index)
        try:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
            (result,), (record,), (mask,) = pipeline(image, generator=generator, return_dict=False, **options)
        except (NoFaceFoundError, VerificationError):
            withheld += 1
            continue
        sources.append(image)
        labels.append(folder.landmarks(index))
        results.append(result)
        outside += int(((image != result).any(-1) & ~mask).sum())
        attempts.append(max(len(face.attempts) for face in record.faces))
    originals, changed = np.stack(sources), np.stack(results)
    before = pipeline.find_landmarks(originals)
    after = pipeline.find_landmarks(changed)
    figures: dict[str, float | int] = {
        "faces": len(originals),
        "withheld": withheld,
        "attempts": float(np.mean(attempts)),
    }
    for recognizer in pipeline.recognizers:
        for face_only in (True, False):
            gallery = embed_faces(recognizer, originals, before, face_only)
            probes = embed_faces(recognizer, changed, after, face_only)
            name = f"{recognizer.name}_{'face_only' if face_only else 'whole_crop'}"
            figures[f"rank1_{name}"] = rank1_rate(probes, gallery)
            figures[f"verified_{name}"] = verification_rate(probes, gallery)
    figures["rank1_chance"] = 1.0 / len(originals)
    found = [len(detect_faces(image, pipeline.detectors[:1]).faces) > 0 for image in changed]
    figures["centerface_finds_a_face"] = float(np.mean(found))
    figures["landmark_error"] = _landmark_error(after, before)
    figures["landmark_net_error"] = _landmark_error(before, np.stack(labels))
    figures["autoencoder_psnr"] = _psnr(pipeline, originals)
    figures["pixels_changed_outside_mask"] = outside
    return figures


def _landmark_error(found: np.ndarray, true: np.ndarray) -> float:
    """Mean distance of landmarks [N, 478, 3] to the true ones, in inter-ocular distances."""
    distance = np.linalg.norm(found[..., :2] - true[..., :2], axis=-1).mean(-1)
    return float((distance / inter_ocular_distance(true)).mean())


@torch.no_grad()
def _psnr(pipeline: MedicalDeIDPipeline, crops: np.ndarray) -> float:
    """Mean peak signal-to-noise ratio in dB of the autoencoder on crops uint8 [N, S, S, 3]."""
    ratios = []
    for crop in crops:
        image = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 127.5 - 1.0
        decoded = decode_latents(pipeline.vae, encode_images(pipeline.vae, image))
        ratios.append(-10 * torch.log10((decoded - image).div(2).square().mean()).item())
    return float(np.mean(ratios))


def main(
    data_dir: Annotated[Path, typer.Argument(help="Face crops in imagefolder style with landmarks.npz.")],
    model: Annotated[str, typer.Option(help="medeid-tiny, a folder, or a name on the Hub.")] = "medeid-tiny",
    split: Annotated[str, typer.Option(help="Split of the folder.")] = "validation",
    count: Annotated[int, typer.Option(help="Number of faces.")] = 240,
    seed: Annotated[int, typer.Option(help="Seed of the surrogates and the noise.")] = 0,
    privacy: Annotated[float, typer.Option(help="Privacy level, see the pipeline.")] = WHOLE_FACE,
    identity_guidance_scale: Annotated[
        float | None, typer.Option(help="Guidance away from the source; by default the pipeline's own.")
    ] = None,
) -> None:
    """Print the model's figures as JSON."""
    pipeline = MedicalDeIDPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    options = {"privacy": privacy, "identity_guidance_scale": identity_guidance_scale}
    print(json.dumps(measure(pipeline, FaceFolder(data_dir, split), count, seed, **options), indent=2))


if __name__ == "__main__":
    typer.run(main)
