"""Whether two de-identified photos of one person can be told to belong together: `python -m medeid.evaluation.linkage`.

Under one key and pseudonym they should (that is the pseudonym working), under two keys they must not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torchvision.transforms import v2
from tqdm import tqdm

from ..data.faces import FaceFolder
from ..identity.recognizer import Recognizer
from ..identity.surrogate import SurrogateIdentity
from ..pipeline import MedicalDeIDPipeline
from ..records import NoFaceFoundError, VerificationError
from .privacy import embed_faces, rank1_rate

# Another day: the head held a little otherwise, other light, another camera. The person and the expression stay.
_OTHER_VISIT = v2.Compose(
    [
        v2.RandomAffine(degrees=4.0, translate=(0.02, 0.02), scale=(0.95, 1.05), fill=127),
        v2.RandomPerspective(distortion_scale=0.08, p=1.0, fill=127),
        v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.15, hue=0.01),
        v2.GaussianBlur(5, (0.1, 0.8)),
    ]
)


def other_visit(image: np.ndarray, seed: int) -> np.ndarray:
    """A photo of the same person as of another day.

    Args:
        image (`np.ndarray`):
            uint8 `[S, S, 3]`, RGB.
        seed (`int`):
            Which other day.

    Returns:
        `np.ndarray`: uint8 `[S, S, 3]`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _OTHER_VISIT(torch.from_numpy(image.copy()).permute(2, 0, 1)).permute(1, 2, 0).numpy()


def measure(pipeline: MedicalDeIDPipeline, folder: FaceFolder, count: int, seed: int) -> dict[str, float | int]:
    """De-identifies two photos of each person under one key, and the second one under another key, too.

    Args:
        pipeline (`MedicalDeIDPipeline`):
            The model.
        folder (`FaceFolder`):
            Aligned crops of different people.
        count (`int`):
            Number of people.
        seed (`int`):
            Of the other visits and of the keys.

    Returns:
        `dict`: for each recognizer, on the face alone, the rank-1 rates of linking the second photos to the first ones:
        `sources` before de-identification, `one_key`, `two_keys`; and `chance`.
    """
    first_key, second_key = (SurrogateIdentity(np.random.default_rng((seed, k)).bytes(32)) for k in (0, 1))
    rows: list[list[np.ndarray]] = []
    withheld = 0
    for index in tqdm(range(min(count, len(folder))), desc="De-identifying"):
        image = folder.image(index)
        visit = other_visit(image, seed * 1_000_003 + index)
        try:
            results = [
                pipeline(photo, surrogate_identity=key, pseudonym=f"person {index}", return_dict=False)[0][0]
                for photo, key in ((image, first_key), (visit, first_key), (visit, second_key))
            ]
        except (NoFaceFoundError, VerificationError):
            withheld += 1
            continue
        rows.append([image, visit, *results])
    figures: dict[str, float | int] = {"people": len(rows), "withheld": withheld, "chance": 1.0 / max(len(rows), 1)}
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    for recognizer in pipeline.recognizers:
        embedded = [_embed(pipeline, recognizer, crops) for crops in columns]
        for name, probes, gallery in (("sources", 1, 0), ("one_key", 3, 2), ("two_keys", 4, 2)):
            figures[f"linked_{recognizer.name}_{name}"] = rank1_rate(embedded[probes], embedded[gallery])
    return figures


def _embed(pipeline: MedicalDeIDPipeline, recognizer: Recognizer, crops: np.ndarray) -> torch.Tensor:
    landmarks = pipeline.find_landmarks(crops)
    return embed_faces(recognizer, crops, landmarks, face_only=True)


def main(
    data_dir: Annotated[Path, typer.Argument(help="Face crops in imagefolder style with landmarks.npz.")],
    model: Annotated[str, typer.Option(help="medeid-tiny, a folder, or a name on the Hub.")] = "medeid-tiny",
    split: Annotated[str, typer.Option(help="Split of the folder.")] = "validation",
    count: Annotated[int, typer.Option(help="Number of people.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the other visits and of the keys.")] = 0,
) -> None:
    """Print the linkage rates as JSON."""
    pipeline = MedicalDeIDPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    print(json.dumps(measure(pipeline, FaceFolder(data_dir, split), count, seed), indent=2))


if __name__ == "__main__":
    typer.run(main)
