"""The faces that a set is made from: a folder of aligned crops with landmarks, or any folder of photos."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ..clinical.images import ImageFileError, read_image
from ..faces.canvas import check_landmarks
from ..faces.mesh import LANDMARK_SIZE
from ..files import write_file
from .faces import FaceFolder

if TYPE_CHECKING:
    from ..pipeline import MedicalDeIDPipeline

OnProgress = Callable[[int, int], None]  # done, of how many

_NO_PHOTOS = {".csv", ".html", ".json", ".jsonl", ".md", ".npz", ".txt", ".tsv", ".xml", ".yaml", ".yml"}
_SPLIT_NAME = re.compile(r"\w[\w.-]*")  # it becomes a folder of the set
_VALIDATION_SHARE = 0.1
# px of the photo that the square around a face must at least have on a side: a smaller one is a blur at any size.
_MIN_SQUARE = 96


@dataclass(frozen=True)
class Skipped:
    """A picture that is not used: its path in the folder, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Source:
    """Who a source face is.

    Attributes:
        name (`str`): Of the face; unique in its folder.
        subject (`str`): Whose face it is.
        sex, group (`str`, *optional*): As far as its folder says.
    """

    name: str
    subject: str
    sex: str | None
    group: str | None


class SourceFaces:
    """Aligned face crops to paint signs on, by split.

    Args:
        root (`str` or `Path`):
            A folder as [`FaceFolder`] reads it. Where its rows have `subject_id`, those of one subject are one person.
        size (`int`):
            Side in pixels that the crops are given at.
        on_progress (`Callable`, *optional*):
            Called with the number of faces read so far, and of all.

    Attributes:
        splits (`tuple[str, ...]`): `"train"` first.
        skipped (`list[Skipped]`): Crops that cannot be used.

    Raises:
        ValueError: if no face is usable, a subject is in two splits, or the folder is not in that form.
    """

    def __init__(self, root: str | Path, size: int, on_progress: OnProgress | None = None):
        self.root, self.size = Path(root), size
        rows = read_metadata(self.root)
        names = _names(rows)
        self.skipped: list[Skipped] = []
        self._folders: dict[str, FaceFolder] = {}
        self._sources: dict[str, list[Source]] = {}
        self._cumulative: dict[str, np.ndarray] = {}
        self._counts: dict[str, int] = {}
        done = 0
        for split in sorted({row["split"] for row in rows}, key=lambda split: (split != "train", split)):
            folder = FaceFolder(self.root, split)
            usable = np.zeros(len(folder), bool)
            for index, row in enumerate(folder.rows):
                reason = self._why_not(folder, index)
                usable[index] = reason is None
                if reason is not None:
                    self.skipped.append(Skipped(row["file_name"], reason))
                done += 1
                if on_progress is not None:
                    on_progress(done, len(rows))
            if usable.any():
                weights = np.cumsum(folder.group_weights() * usable)
                self._folders[split] = folder
                self._cumulative[split] = weights / weights[-1]
                self._counts[split] = int(usable.sum())
                self._sources[split] = [_source(row, names[row["file_name"]]) for row in folder.rows]
        if not self._folders:
            raise ValueError(f"{self.root}: none of its {len(rows)} faces can be used ({self.skipped[0].reason}).")
        self._check_subjects()

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._folders)

    def count(self, split: str) -> int:
        """The number of usable faces of a split."""
        return self._counts[split]

    def draw(self, split: str, point: float) -> int:
        """The face of a split that a random number in [0, 1) falls on; groups are evened out by `group_weights`."""
        return int(np.searchsorted(self._cumulative[split], point, side="right"))

    def source(self, split: str, index: int) -> Source:
        return self._sources[split][index]

    def face(self, split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The crop, uint8 [size, size, 3], and its landmarks, float32 [478, 3] in pixels of the 256 px crop."""
        folder = self._folders[split]
        image = folder.image(index)
        landmarks = _scaled(folder.landmarks(index), image.shape[0], LANDMARK_SIZE)
        if image.shape[0] != self.size:
            interpolation = cv2.INTER_AREA if image.shape[0] > self.size else cv2.INTER_CUBIC
            image = cv2.resize(image, (self.size, self.size), interpolation=interpolation)
        return image, landmarks

    def _why_not(self, folder: FaceFolder, index: int) -> str | None:
        try:
            picture = read_image(folder.root / folder.rows[index]["file_name"])
        except ImageFileError as error:
            return str(error)
        if picture.mode.startswith(("I", "F")):
            return f"it has more than 8 bits a channel (mode {picture.mode}); convert it to 8-bit RGB"
        width, height = picture.size
        if width != height:
            return f"it is {width} x {height} px, but an aligned crop is square; align it, or drop its row"
        try:
            check_landmarks(_scaled(folder.landmarks(index), width, LANDMARK_SIZE))
        except ValueError as error:
            return str(error)
        return None

    def _check_subjects(self) -> None:
        home: dict[str, str] = {}
        for split, sources in self._sources.items():
            for source in sources:
                if home.setdefault(source.subject, split) != split:
                    raise ValueError(
                        f"{self.root}: subject {source.subject} is in the splits {home[source.subject]} and {split}. "
                        "A person may be in one only; correct metadata.jsonl."
                    )


def is_face_folder(root: Path) -> bool:
    """Whether a folder holds aligned crops with landmarks, and not just photos."""
    return (root / "metadata.jsonl").is_file() and (root / "landmarks.npz").is_file()


def read_metadata(root: Path) -> list[dict]:
    """The rows of a folder of faces.

    Raises:
        ValueError: if there is no row, or a line is no JSON object with `file_name` and `split`; it names the line.
    """
    path = root / "metadata.jsonl"
    rows = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row["file_name"], str) or not isinstance(row["split"], str):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{path}, line {number}: must be a JSON object with `file_name` and `split`, both text; correct it."
            ) from None
        if not _SPLIT_NAME.fullmatch(row["split"]):
            problem = f"`split` must be a plain name such as train, but is {row['split']!r}; correct it"
            raise ValueError(f"{path}, line {number}: {problem}.")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path}: has no rows; write one for each crop, with `file_name` and `split`.")
    return rows


def find_photos(root: Path) -> list[Path]:
    """All files below a folder that may be pictures, in a fixed order; hidden ones and documents are left out.

    Links to folders are followed, as a photo that is passed over is one that the privacy filter does not compare with.

    Raises:
        OSError: if a folder cannot be read.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_stop):
        here = os.path.realpath(folder)
        # The same folder by another link, which may lie inside of itself.
        subfolders[:] = [] if here in seen else sorted(name for name in subfolders if not name.startswith("."))
        if here not in seen:
            found += [Path(folder, name) for name in names if not name.startswith(".")]
        seen.add(here)
    pictures = [path for path in found if path.is_file() and _may_be_picture(path)]
    return sorted(pictures, key=lambda path: path.relative_to(root).as_posix())


def _stop(error: OSError) -> None:
    raise error


def _may_be_picture(path: Path) -> bool:
    if path.suffix:
        return path.suffix.lower() not in _NO_PHOTOS
    try:
        Image.open(path).close()
    except UnidentifiedImageError:
        return False
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return True  # why it cannot be used is told when it is read
    return True


def fingerprint(root: Path) -> str:
    """What tells one folder of faces from another wherever it lies: a digest of its pictures' names and sizes.

    Landmarks and metadata count byte by byte, as other ones may well have the same size.
    """
    digest = hashlib.sha256()
    if is_face_folder(root):
        digest.update((root / "landmarks.npz").read_bytes())
        digest.update((root / "metadata.jsonl").read_bytes())
        files = [root / row["file_name"] for row in read_metadata(root)]
    else:
        files = find_photos(root)
    for path in files:
        size = path.stat().st_size if path.is_file() else -1
        digest.update(os.fsencode(f"{path.relative_to(root).as_posix()}\0{size}\0"))
    return digest.hexdigest()[:16]


def cut_faces(photos: list[Path], root: Path, target: Path, size: int, on_progress: OnProgress | None = None) -> None:
    """Finds, aligns and landmarks every face in photos, and writes them as a folder for [`SourceFaces`].

    Every face becomes a subject of its own, called by a digest of its file, so that copies of a photo are one subject;
    the file's own name often is the patient's. A tenth of the subjects, by their digests, go to validation, the others
    to train. Photos that cannot be used are told in `skipped.json`. If the folder is complete already, nothing is done.

    Args:
        photos (`list[Path]`):
            The photos; they are only read.
        root (`Path`):
            The folder that they are in.
        target (`Path`):
            The folder to write.
        size (`int`):
            Side of the crops in pixels.
        on_progress (`Callable`, *optional*):
            Called with the number of photos looked at so far, and of all.

    Raises:
        ValueError: if there is no face in any photo.
    """
    if (target / "metadata.jsonl").is_file():
        return
    # These import diffusers, which takes seconds.
    from diffusers.utils import logging

    from ..pipeline import MedicalDeIDPipeline

    logging.disable_progress_bar()
    pipeline = MedicalDeIDPipeline.from_pretrained("medeid-tiny")
    target.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    landmarks: list[np.ndarray] = []
    skipped: list[Skipped] = []
    taken: set[str] = set()
    for done, photo in enumerate(photos, 1):
        digest = ""
        try:
            faces = list(_faces(pipeline, photo, size))
            digest = hashlib.sha256(photo.read_bytes()).hexdigest()[:12]
        except (ImageFileError, ValueError, OSError) as error:
            faces = []
            skipped.append(Skipped(photo.relative_to(root).as_posix(), str(error)))
        for number, (crop, points) in enumerate(faces, 1):
            file_name = f"{len(rows):06d}.png"
            Image.fromarray(crop).save(target / file_name, compress_level=1)
            subject = f"{digest}-{number}"
            rows.append({"file_name": file_name, "source": _unique(subject, taken), "subject_id": subject})
            landmarks.append(points)
        if on_progress is not None:
            on_progress(done, len(photos))
    if not rows:
        reasons = "; ".join(f"{each.file}: {each.reason}" for each in skipped[:3])
        raise ValueError(f"{root}: no face was found in any of its {len(photos)} pictures ({reasons}).")
    splits = _splits({row["subject_id"] for row in rows})
    for row in rows:
        row["split"] = splits[row["subject_id"]]
    np.savez(target / "landmarks.npz", landmarks=np.stack(landmarks))
    (target / "skipped.json").write_text(json.dumps([[each.file, each.reason] for each in skipped]))
    # Last, as it says that the others are complete.
    write_file(target / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())


def read_skipped(folder: Path) -> list[Skipped]:
    """What [`cut_faces`] could not use."""
    return [Skipped(*each) for each in json.loads((folder / "skipped.json").read_text())]


def _faces(pipeline: MedicalDeIDPipeline, photo: Path, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Crops uint8 [size, size, 3] of the faces in a photo, and landmarks float32 [478, 3] as a face folder has them."""
    from ..faces.alignment import crop_face, matrix_scale
    from ..photos import Photo
    from ..records import NoFaceFoundError

    opened = Photo.open(read_image(photo))
    try:
        _, faces = pipeline.find_faces([opened], None)
    except NoFaceFoundError:
        raise ValueError("no face was found; give a photo with a larger, freer face") from None
    sides = [face.crop.size / matrix_scale(face.crop.matrix) for face in faces]
    if max(sides) < _MIN_SQUARE:
        raise ValueError(
            f"the square around its face is {max(sides):.0f} px, and {_MIN_SQUARE} px are needed; give a larger photo"
        )
    for face, side in zip(faces, sides, strict=True):
        if side < _MIN_SQUARE:
            continue
        matrix = face.crop.matrix.copy()
        matrix[:, 2] += 0.5
        matrix *= size / face.crop.size
        matrix[:, 2] -= 0.5
        points = _scaled(face.landmarks, LANDMARK_SIZE, size)
        points[:, :2] += 0.5
        yield crop_face(opened.rgb, matrix, size).image, points


def _scaled(landmarks: np.ndarray, size: int, new_size: int) -> np.ndarray:
    """Landmarks [478, 3] in pixels of a crop of one size, in pixels of the same crop at another."""
    factor = new_size / size
    scaled = landmarks.astype(np.float32) * np.float32(factor)
    scaled[:, :2] += (factor - 1) / 2  # pixel centres lie at integers
    return scaled


def _splits(subjects: set[str]) -> dict[str, str]:
    """Each subject's split, from nothing but their names; both splits are there if there are two subjects."""
    ranked = sorted(subjects, key=lambda subject: hashlib.sha256(subject.encode()).digest())
    validation = max(1, round(_VALIDATION_SHARE * len(ranked))) if len(ranked) > 1 else 0
    return {subject: "validation" if rank < validation else "train" for rank, subject in enumerate(ranked)}


def _source(row: dict, name: str) -> Source:
    return Source(name, _text(row.get("subject_id")) or name, _text(row.get("sex")), _text(row.get("group")))


def _text(value: Any) -> str | None:
    """An entry of the metadata, which may be a number; None where nothing is known."""
    return None if value is None or value == "" else str(value)


def _names(rows: list[dict]) -> dict[str, str]:
    """A name for each file: its stem, or, if stems are not unique, the file name itself."""
    names = {row["file_name"]: str(row.get("source", Path(row["file_name"]).stem)) for row in rows}
    return names if len(set(names.values())) == len(names) else {name: name for name in names}


def _unique(subject: str, taken: set[str]) -> str:
    """The subject; if it is taken, with what tells copies of a photo apart."""
    name, number = subject, 2
    while name in taken:
        name, number = f"{subject}-copy{number}", number + 1
    taken.add(name)
    return name
