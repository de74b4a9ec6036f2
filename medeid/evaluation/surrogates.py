"""Are faces copies of those trained on, and do they differ? `python -m medeid.evaluation.surrogates FACES`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from ..data.faces import FaceFolder
from ..identity.recognizer import Recognizer
from ..manifestations.encoder import ManifestationEncoder
from ..pipeline import PACKAGED_WEIGHTS, MedicalDeIDPipeline
from ..records import NoFaceFoundError, VerificationError
from .pictures import write_picture
from .privacy import embed_faces
from .quality import kernel_distance, picture_features, surrogate_diversity

PEOPLE, DRAWN, RESULTS = "people", "drawn", "results"

_BATCH = 16
_FEWEST = 4  # faces: two halves of two each
_CLOSEST = 12  # pairs of a kind on a sheet
_CAPTION = 16  # px


def measure(
    pipeline: MedicalDeIDPipeline,
    encoder: ManifestationEncoder,
    known: FaceFolder,
    unseen: FaceFolder,
    count: int,
    seed: int,
    pictures: Path | None = None,
) -> dict[str, Any]:
    """Draws whole faces, de-identifies photos of people unseen in training, and looks for the training faces in both.

    What nearness comes by chance is what the originals of those unseen people have to the training faces. Faces are
    compared as a recognizer is meant to see them, with what of hair and background it looks at.

    Args:
        pipeline (`MedicalDeIDPipeline`):
            The model.
        encoder (`ManifestationEncoder`):
            In whose features pictures are compared: the same one for models that are to be compared.
        known (`FaceFolder`):
            The faces that the model was trained on, each of another person.
        unseen (`FaceFolder`):
            Faces of other people, at least four, each of another person.
        count (`int`):
            Number of faces drawn, at least four; photos are de-identified up to that number, too.
        seed (`int`):
            Seed of the surrogates and the noise.
        pictures (`Path`, *optional*):
            Folder for sheets of the closest pairs.

    Returns:
        `dict`: `faces`, how many of each kind; `withheld`, results that did not pass the checks; for each recognizer
        `nearest_training_face` of each kind, see [`compare_nearness`], and `diversity` of the faces drawn, see
        [`surrogate_diversity`]; and `kernel_distance` of each kind to the originals: of those drawn to all, of results
        to those of other people, and, as what chance gives, of the originals of one half to the other half.

    Raises:
        `ValueError`: there are too few faces.
    """
    check_faces(known, unseen, count)
    originals = np.stack([unseen.image(index) for index in range(len(unseen))])
    groups = {PEOPLE: originals, DRAWN: draw_faces(pipeline, count, seed)}
    rows, results = de_identify(pipeline, originals[:count], seed)
    if results:
        groups[RESULTS] = np.stack(results)
    landmarks = {name: pipeline.find_landmarks(crops) for name, crops in groups.items()}
    figures: dict[str, Any] = {
        "faces": {"training": len(known), **{name: len(crops) for name, crops in groups.items()}},
        "withheld": min(count, len(originals)) - len(rows),
        "nearest_training_face": {},
        "diversity": {},
    }
    for recognizer in pipeline.recognizers:
        gallery = embed_folder(recognizer, known)
        embedded = {
            name: embed_faces(recognizer, crops, landmarks[name], face_only=False) for name, crops in groups.items()
        }
        figures["nearest_training_face"][recognizer.name] = compare_nearness(
            {name: nearest_two(each, gallery) for name, each in embedded.items()}, recognizer.match_threshold
        )
        figures["diversity"][recognizer.name] = _diversity(embedded[DRAWN], embedded[PEOPLE])
        if pictures is not None:
            sheet = closest_pairs(groups, {name: each @ gallery.T for name, each in embedded.items()}, known)
            write_picture(pictures / f"closest-{recognizer.name}.png", sheet)
    figures["kernel_distance"] = _kernel_distances(encoder, groups, rows)
    return figures


def check_faces(known: FaceFolder, unseen: FaceFolder, count: int) -> None:
    """Raises `ValueError` where [`measure`] has too few faces, before anything is drawn."""
    if min(count, len(unseen)) < _FEWEST or len(known) < 2:
        raise ValueError(
            f"`count` ({count}) and `unseen` ({len(unseen)} faces) must be at least {_FEWEST}, and `known` "
            f"({len(known)} faces) at least 2. Give more faces."
        )


def draw_faces(pipeline: MedicalDeIDPipeline, count: int, seed: int) -> np.ndarray:
    """Whole faces of people who do not exist: uint8 `[count, S, S, 3]`."""
    drawn: list[np.ndarray] = []
    for start in tqdm(range(0, count, _BATCH), desc="Drawing"):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + start)
        drawn += [np.asarray(face) for face in pipeline.draw_faces(min(_BATCH, count - start), generator)]
    return np.stack(drawn)


def de_identify(pipeline: MedicalDeIDPipeline, originals: np.ndarray, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Results of photos uint8 `[N, S, S, 3]` by the default settings, and int64 `[M]`: of which photos they are."""
    rows, results = [], []
    for row, image in enumerate(tqdm(originals, desc="De-identifying")):
        try:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + row)
            (result,), _, _ = pipeline(image, generator=generator, return_dict=False)
        except (NoFaceFoundError, VerificationError):
            continue
        rows.append(row)
        results.append(result)
    return np.array(rows, np.int64), results


def embed_folder(recognizer: Recognizer, folder: FaceFolder) -> torch.Tensor:
    """Unit embeddings float32 `[N, D]` of all faces of a folder, which need not fit into memory."""
    embedded = []
    for start in tqdm(range(0, len(folder), _BATCH), desc=f"Training faces, {recognizer.name}"):
        indices = range(start, min(start + _BATCH, len(folder)))
        crops, landmarks = (np.stack([read(index) for index in indices]) for read in (folder.image, folder.landmarks))
        embedded.append(embed_faces(recognizer, crops, landmarks, face_only=False))
    return torch.cat(embedded)


def nearest_two(faces: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Cosines `[N, 2]` of faces, unit embeddings `[N, D]`, to the nearest and the next of known faces `[K, D]`."""
    return (faces @ known.T).topk(2, dim=1).values


def compare_nearness(nearest: dict[str, torch.Tensor], threshold: float) -> dict[str, dict[str, float]]:
    """Whether generated faces are nearer to training faces than people who have nothing to do with them.

    Args:
        nearest (`dict[str, torch.Tensor]`):
            Of each kind of faces, `"people"` among them, what [`nearest_two`] gives: float `[N, 2]`.
        threshold (`float`):
            The cosine from which on a recognizer takes two faces for one person's.

    Returns:
        `dict`: of each kind `median`, `percentile_99` and `max` of the cosine to the nearest training face;
        `above_threshold`, the share that the recognizer takes for a training face (among thousands it takes
        many strangers for one: compare with the people's); `beyond_people`, the share that is
        nearer than 99 % of the people are, so 0.01 where nothing is copied (unlike the maximum, it does not grow with
        the number of faces); and `lead_median`, `lead_percentile_99` and `lead_max` of how much nearer the nearest is
        than the next: an average face has many that are near, a copy has one.
    """
    usual = torch.quantile(nearest[PEOPLE][:, 0], 0.99)
    return {
        name: {
            **_spread(first),
            "above_threshold": (first >= threshold).float().mean().item(),
            "beyond_people": (first > usual).float().mean().item(),
            **{f"lead_{figure}": value for figure, value in _spread(first - second).items()},
        }
        for name, (first, second) in ((name, each.unbind(1)) for name, each in nearest.items())
    }


def _spread(values: torch.Tensor) -> dict[str, float]:
    return {
        "median": torch.quantile(values, 0.5).item(),
        "percentile_99": torch.quantile(values, 0.99).item(),
        "max": values.max().item(),
    }


def closest_pairs(
    groups: dict[str, np.ndarray], cosines: dict[str, torch.Tensor], known: FaceFolder, rows: int = _CLOSEST
) -> np.ndarray:
    """The faces of each kind that are nearest to a training face, each beside it, the nearest on top.

    Args:
        groups (`dict[str, np.ndarray]`):
            Of each kind uint8 `[N, S, S, 3]`.
        cosines (`dict[str, torch.Tensor]`):
            Of each kind `[N, K]`: to the known faces.
        known (`FaceFolder`):
            The K known faces.
        rows (`int`, *optional*, defaults to 12):
            Pairs of a kind.

    Returns:
        `np.ndarray`: uint8 `[H, W, 3]`.
    """
    size = groups[PEOPLE].shape[1]
    height = size + _CAPTION
    sheet = Image.new("RGB", (2 * size * len(groups), height * min(rows, max(map(len, groups.values())))), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (name, crops) in enumerate(groups.items()):
        nearness, places = cosines[name].max(1)
        for row, face in enumerate(nearness.argsort(descending=True)[:rows].tolist()):
            x, y = 2 * size * column, height * row
            draw.text((x + 2, y + 2), f"{name}: {nearness[face]:.3f}", "black", ImageFont.load_default(11))
            for place, picture in enumerate((crops[face], known.image(int(places[face])))):
                sheet.paste(Image.fromarray(picture).resize((size, size)), (x + place * size, y + _CAPTION))
    return np.asarray(sheet)


def _diversity(drawn: torch.Tensor, people: torch.Tensor) -> dict[str, float]:
    """[`surrogate_diversity`] of faces `[N, D]` that have no source: as many as there are people, and again."""
    people = people[: len(drawn) // 2]
    rounds = len(drawn) // len(people)
    return surrogate_diversity(drawn[: rounds * len(people)].unflatten(0, (len(people), rounds)), people)


def _kernel_distances(
    encoder: ManifestationEncoder, groups: dict[str, np.ndarray], rows: np.ndarray
) -> dict[str, float | None]:
    """Of each kind of faces to the originals, of other people where there is a choice; None for too few faces.

    `rows` int64 `[M]` says of which of the people the results are.
    """
    features = {name: picture_features(encoder, crops) for name, crops in groups.items()}
    people = features[PEOPLE]
    distances: dict[str, float | None] = {
        PEOPLE: kernel_distance(people[::2], people[1::2]),
        DRAWN: kernel_distance(features[DRAWN], people),
    }
    if RESULTS in features:
        # A result has its source's hair and background, and is near to it whatever the face looks like.
        halves = [features[RESULTS][torch.from_numpy(rows % 2 == half)] for half in (0, 1)]
        enough = min(map(len, halves)) >= 2
        each = [kernel_distance(halves[half], people[1 - half :: 2]) for half in (0, 1)] if enough else []
        distances[RESULTS] = sum(each) / 2 if enough else None
    return distances


def _table(figures: dict[str, Any]) -> Table:
    """What is of each kind of faces, in a column for each; what is of the drawn ones alone in theirs."""
    kinds = [name for name in (PEOPLE, DRAWN, RESULTS) if name in figures["faces"]]
    table = Table("figure", *kinds)

    def add(name: str, values: dict[str, float | int | None]) -> None:
        told = [values.get(kind) for kind in kinds]
        table.add_row(name, *("" if v is None else f"{v:.4f}" if isinstance(v, float) else str(v) for v in told))

    add("faces", figures["faces"])
    add("withheld", {RESULTS: figures["withheld"]})
    for recognizer, nearness in figures["nearest_training_face"].items():
        for name in nearness[PEOPLE]:
            add(f"nearest training face, {recognizer}: {name}", {kind: nearness[kind][name] for kind in kinds})
    for recognizer, diversity in figures["diversity"].items():
        for name, value in diversity.items():
            add(f"diversity, {recognizer}: {name}", {PEOPLE if "original" in name else DRAWN: value})
    add("kernel_distance", figures["kernel_distance"])
    return table


def main(
    data_dir: Annotated[
        Path, typer.Argument(metavar="FACES", help="Face crops in imagefolder style, with splits train and validation.")
    ],
    model: Annotated[str, typer.Option(help="medeid-tiny, a folder, or a name on the Hub.")] = "medeid-tiny",
    count: Annotated[int, typer.Option(min=_FEWEST, help="Number of faces drawn, and at most of results.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the surrogates and the noise.")] = 0,
    pictures: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Folder for sheets of the closest pairs. They show FACES.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Print how near faces come to those that the model was trained on, how they differ, and how like photos they are.

    Trained on: the split train. People whom the model has never seen: the split validation.
    """
    try:
        known, unseen = (FaceFolder(data_dir, split) for split in ("train", "validation"))
        pipeline = MedicalDeIDPipeline.from_pretrained(model)
        # Always the packaged one, so that the distances of one model compare with those of another.
        encoder = ManifestationEncoder.from_pretrained(PACKAGED_WEIGHTS / "medeid-tiny" / "manifestation_encoder")
        check_faces(known, unseen, count)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    pipeline.set_progress_bar_config(disable=True)
    figures = measure(pipeline, encoder.eval(), known, unseen, count, seed, pictures)
    if as_json:
        print(json.dumps(figures, indent=2))
    else:
        Console().print(_table(figures))


if __name__ == "__main__":
    typer.run(main)
