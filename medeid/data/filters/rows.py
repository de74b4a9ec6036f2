"""Reading a data set of labelled faces row by row: whatever is wrong with one row, the others go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ...faces.mesh import CHIN, FOREHEAD
from ...manifestations.taxonomy import Finding
from ..masks import decode_masks
from ..records import DataSetError, Spelling, fail, read_record, required


@dataclass(frozen=True)
class Face:
    """One row with its pictures.

    Args:
        file_name (`str`):
            The picture, relative to the data set, with `/` between folders.
        subject_id (`str`):
            Whose face it is.
        skin_tone (`str`):
            Name of the band; empty if it is not given.
        findings (`tuple[Finding, ...]`):
            The signs that the row says are there.
        landmarks (`np.ndarray`):
            float32 `[478, 3]` in pixels of the 256 px crop.
        image (`np.ndarray`):
            uint8 `[S, S, 3]`, RGB.
        masks (`np.ndarray`):
            bool `[len(findings), S, S]`.
    """

    file_name: str
    subject_id: str
    skin_tone: str
    findings: tuple[Finding, ...]
    landmarks: np.ndarray
    image: np.ndarray
    masks: np.ndarray


def metadata_files(folder: Path) -> list[Path]:
    """The `metadata.jsonl` of the folder itself, or else that of each split; none where there is none."""
    own = folder / "metadata.jsonl"
    return [own] if own.is_file() else sorted(folder.glob("*/metadata.jsonl"))


def count_rows(dataset: Path) -> int:
    """Rows of all splits.

    Raises:
        `ValueError`: if there is no metadata.jsonl.
    """
    found = metadata_files(dataset)
    if not found:
        raise ValueError(f"`dataset` holds no metadata.jsonl: {dataset}. Give the folder above train/ and validation/.")
    total = 0
    for path in found:
        with open(path, "rb") as lines:
            total += sum(1 for line in lines if line.strip())
    return total


def read_faces(dataset: Path) -> Iterator[Face | DataSetError]:
    """All rows in their order; in place of one that cannot be read, the error that says why."""
    for metadata in metadata_files(dataset):
        with open(metadata, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    yield _read_face(
                        line, metadata, dataset, f"{metadata.relative_to(dataset).as_posix()}, line {number}"
                    )
                except DataSetError as error:
                    yield error


def _read_face(line: bytes, metadata: Path, dataset: Path, place: str) -> Face:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataSetError(f"{place}: is no JSON ({error}).") from error
    if not isinstance(row, dict):
        raise DataSetError(f"{place}: must be an object, but is {type(row).__name__}.")
    record = read_record(row, Spelling(), place)
    if record.landmarks is None:
        fail(place, "landmarks", "there are none, but the filters measure by them. Detect them first.")
    if np.array_equal(record.landmarks[FOREHEAD], record.landmarks[CHIN]):
        fail(place, "landmarks", "forehead and chin coincide, so they describe no face. Detect them again.")
    file_name, mask_name = (required(row, name, Spelling(), place) for name in ("file_name", "mask_file_name"))
    picture = ImageOps.exif_transpose(_picture(metadata.parent / file_name, place, "file_name"))
    image = np.asarray(picture.convert("RGB"))
    if image.shape[0] != image.shape[1]:
        fail(place, "file_name", f"{file_name} has {image.shape[1]} x {image.shape[0]} px, but a crop is square.")
    try:
        masks = decode_masks(_picture(metadata.parent / mask_name, place, "mask_file_name"), len(record.findings))
    except ValueError as error:
        fail(place, "mask_file_name", f"{mask_name}: {error}")
    if masks.shape[1:] != image.shape[:2]:
        sizes = f"{masks.shape[2]} x {masks.shape[1]} px, its picture {image.shape[1]} x {image.shape[0]}"
        fail(place, "mask_file_name", f"{mask_name} has {sizes}. Both must have the same size.")
    return Face(
        # The name as the row has it, not as a path: `load_mema` compares names.
        file_name="".join(f"{part}/" for part in metadata.parent.relative_to(dataset).parts) + file_name,
        subject_id=record.subject_id,
        skin_tone=record.optional["skin_tone"] or "",
        findings=record.findings,
        landmarks=record.landmarks,
        image=image,
        masks=masks,
    )


def _picture(path: Path, place: str, column: str) -> Image.Image:
    """The picture, decoded at once: that a file ends too early must not come out later."""
    try:
        picture = Image.open(path)
        picture.load()
        return picture
    except FileNotFoundError:
        fail(place, column, f"there is no file {path.parent.name}/{path.name}.")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # a broken PNG raises SyntaxError
        fail(place, column, f"{path.parent.name}/{path.name} cannot be read as a picture ({error}).")
