"""Is a picture too like a face that must not leak? The recognizer decides, at a limit that the originals set."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...clinical.images import ImageFileError, read_image
from ...faces.detection import MIN_SCORE, CenterFaceDetector, detect_faces
from ...identity.recognizer import Recognizer
from ...photos import Photo
from ..records import cell_text
from ..sources import find_photos
from .limits import Limit
from .rows import metadata_files

OnProgress = Callable[[str, int, int], None]  # stage, done, of how many

_BINS = 20_000  # of the histogram of cosines in [-1, 1]
_ROWS_AT_A_TIME = 1024


@dataclass(frozen=True)
class Originals:
    """The faces that must not leak.

    Args:
        embeddings (`np.ndarray`):
            float32 `[N, D]`, unit vectors.
        limit (`Limit`):
            From which cosine on a picture is too near, and how that was calibrated.
        unusable (`list[str]`):
            Files in which no face could be read, and why: nothing was compared with them.
    """

    embeddings: np.ndarray
    limit: Limit
    unusable: list[str]

    def nearest(self, embeddings: np.ndarray) -> np.ndarray:
        """Cosine float32 `[B]` of unit vectors `[B, D]` with the nearest original."""
        return (embeddings @ self.embeddings.T).max(axis=1)


def read_originals(
    folder: Path, recognizer: Recognizer, false_accept_rate: float = 1e-3, on_progress: OnProgress | None = None
) -> Originals:
    """Embeds all faces of a folder and calibrates the limit on pairs of different people among them.

    A folder of the imagefolder style says in its metadata.jsonl (`file_name`, `subject_id`) which photos are of one
    person. Without `subject_id` or without metadata.jsonl each photo is taken for another person's: several photos of
    one person then raise the limit.

    Args:
        folder (`Path`):
            Photos at any depth, of any size, with any number of faces.
        recognizer (`Recognizer`):
            The attacker's.
        false_accept_rate (`float`, *optional*, defaults to 0.001):
            Share of pairs of different people at or above the limit.
        on_progress (`OnProgress`, *optional*):
            Called with `"Originals"`, how many are read, and of how many.

    Raises:
        `ValueError`: if the folder holds no picture, no face, or the rate is not in (0, 1).
    """
    if not 0.0 < false_accept_rate < 1.0:
        raise ValueError(f"`false_accept_rate` must lie in (0, 1), but is {false_accept_rate}.")
    photos = _photos(folder)
    unnamed = 0
    detector = CenterFaceDetector()
    embeddings, subjects, unusable = [], [], []
    for done, (path, subject) in enumerate(photos, start=1):
        if on_progress is not None:
            on_progress("Originals", done, len(photos))
        try:
            photo = Photo.open(read_image(path)).rgb
        except (ImageFileError, ValueError) as error:
            unusable.append(f"{path}: {error}")
            continue
        faces = _points_of_faces(photo, detector)
        if not faces:
            unusable.append(f"{path}: no face was found in it")
        for points5 in faces:
            embeddings.append(embed(recognizer, photo[None], [points5])[0])
            subjects.append(subject or str(path))
            unnamed += subject is None
    if not embeddings:
        raise ValueError(f"`originals` holds no face: {folder}. Give the photos that must not leak.")
    gallery = np.stack(embeddings)
    limit = calibrate(gallery, subjects, false_accept_rate, recognizer, unnamed)
    return Originals(gallery, limit, unusable)


def _photos(folder: Path) -> list[tuple[Path, str | None]]:
    """Photos and whose they are, if that is known. One that the metadata does not list must not leak either."""
    subjects: dict[Path, str | None] = {}
    masks: set[Path] = set()
    for metadata in metadata_files(folder):
        for number, line in enumerate(metadata.read_text("utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                name = row["file_name"]
                subjects[metadata.parent / name] = cell_text(row.get("subject_id")) or None
                masks.add(metadata.parent / (row.get("mask_file_name") or name))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"`originals`: {metadata}, line {number}: must be an object with `file_name` ({error}). Correct it."
                ) from error
    there = find_photos(folder) if folder.is_dir() else []
    photos = [*subjects.items(), *((path, None) for path in there if path not in subjects and path not in masks)]
    if not photos:
        raise ValueError(f"`originals` holds no picture: {folder}. Give the folder of the faces that must not leak.")
    return photos


def _points_of_faces(photo: np.ndarray, detector: CenterFaceDetector) -> list[np.ndarray]:
    """Five points of each upright face; only where there is none it is worth the time to look for turned ones."""
    upright = [face for face in detector(photo) if face.score >= MIN_SCORE]
    return [face.points5 for face in upright or detect_faces(photo, [detector]).faces if face.points5 is not None]


@torch.no_grad()
def embed(recognizer: Recognizer, images: np.ndarray, points5: Sequence[np.ndarray]) -> np.ndarray:
    """Unit embeddings float32 `[B, D]` of uint8 `[B, H, W, 3]`, aligned by five points each."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0
    return recognizer(pixels, torch.from_numpy(np.stack(points5)).float()).numpy()


def calibrate(
    embeddings: np.ndarray, subjects: Sequence[str], false_accept_rate: float, recognizer: Recognizer, unnamed: int = 0
) -> Limit:
    """The cosine that a share of `false_accept_rate` of all pairs of different subjects reaches.

    Fewer than 1 / `false_accept_rate` pairs say nothing about that share; then the recognizer's own threshold is taken.
    `unnamed` is the number of faces that were taken for another subject each because nobody says whose they are.
    """
    _, subject = np.unique(subjects, return_inverse=True)
    histogram = np.zeros(_BINS, np.int64)
    nearest = []
    for start in range(0, len(embeddings), _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        cosines = np.clip(embeddings[rows] @ embeddings.T, -1.0, 1.0)
        others = subject[rows, None] != subject[None]
        histogram += np.histogram(cosines[others], bins=_BINS, range=(-1.0, 1.0))[0]
        nearest.append(np.where(others, cosines, -1.0).max(axis=1))
    pairs = int(histogram.sum()) // 2  # each was seen from both sides
    if pairs * false_accept_rate < 1.0:
        threshold = recognizer.match_threshold
        basis = (
            f"The recognizer's own threshold: {pairs} pairs of different people among the originals are too few for a "
            f"false accept rate of {false_accept_rate:.2%}."
        )
    else:
        above = histogram[::-1].cumsum()[::-1]
        first = int(np.argmax(above <= false_accept_rate * histogram.sum()))
        threshold = float(np.linspace(-1.0, 1.0, _BINS + 1)[first])
        chance = float((np.concatenate(nearest) > threshold).mean())
        basis = (
            f"Calibrated on {pairs:,} pairs of different people among the {len(embeddings):,} originals: "
            f"{false_accept_rate:.2%} of the pairs lie above. So a face of nobody, compared with all of them, is "
            f"flagged by chance in about {chance:.0%} of the cases, more often if most originals are of its kind."
        )
        if unnamed:
            basis += (
                f" {unnamed:,} of the originals are without a `subject_id` in a metadata.jsonl, and each was taken for "
                "another person's: if several are of one person, the limit is too high, and leaks are missed."
            )
    return Limit("nearest_original", "near an original", basis, high=threshold, digits=3)
