"""Whom a benchmark measures on: simulated patients who come twice, and other people for an attacker to learn from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset

from ..data.build import BuildOptions, build_set, read_sources
from ..data.faces import FaceFolder
from ..data.mema import load_mema
from ..data.sources import Skipped, SourceFaces, is_face_folder
from ..faces.mesh import OVAL, points5_from_mesh, scale_points
from ..files import write_file
from ..pipeline import MedicalDeIDPipeline
from ..types import FaceBox
from .linkage import other_visit
from .pictures import read_picture, write_picture
from .protocol import Alias, Reference

OnProgress = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much

PATIENTS, COHORT = "patients", "cohort"  # the folders
SPLIT = "validation"  # of the patients: faces that no model was trained on
_OTHER_SPLIT = "train"

_LINKED = 100  # patients whose second photo is de-identified, too, under two keys
_OTHERS = 200  # photos that the attacker makes his pairs of; and as many faces for methods that need a reference


@dataclass(frozen=True)
class People:
    """Photos of one face each, which are aligned crops.

    Attributes:
        photos (`np.ndarray`): uint8 `[N, S, S, 3]`, RGB.
        subjects (`np.ndarray`): str `[N]`: whose they are.
        landmarks (`np.ndarray`): float32 `[N, 478, 3]` in pixels of a 256 px crop, as the pipeline finds them.
    """

    photos: np.ndarray
    subjects: np.ndarray
    landmarks: np.ndarray

    @classmethod
    def find(cls, pipeline: MedicalDeIDPipeline, photos: Sequence[np.ndarray], subjects: Sequence[str]) -> People:
        """Finds the landmarks of photos uint8 [S, S, 3]."""
        size = pipeline.config.crop_size
        return cls(
            np.stack(photos) if len(photos) else np.zeros((0, size, size, 3), np.uint8),
            np.array(subjects, str),
            pipeline.find_landmarks(photos) if len(photos) else np.zeros((0, 478, 3), np.float32),
        )

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, rows: slice | np.ndarray) -> People:
        return People(self.photos[rows], self.subjects[rows], self.landmarks[rows])

    def box(self, row: int) -> FaceBox:
        """The face in a photo, as close around its oval as a detector's box."""
        points = scale_points(self.landmarks[row, :, :2], self.photos.shape[1])
        oval = points[list(OVAL)]
        (x0, y0), (x1, y1) = oval.min(0).tolist(), oval.max(0).tolist()
        return FaceBox((x0, y0, x1, y1), 1.0, points5_from_mesh(points), "benchmark")


@dataclass(frozen=True)
class Task:
    """Photos that every method is given, and whom it is to take their patients for."""

    name: str
    people: People
    aliases: tuple[Alias, ...]


@dataclass(frozen=True)
class Cohort:
    """Whom a benchmark measures on.

    Attributes:
        rows (`Dataset`): The patients with their labels and masks, see [`load_mema`].
        patients (`People`): Their photos.
        visits (`People`): Of each a second photo, in the same order.
        originals (`People`): The faces without signs that patients may be made of, all of them.
        others (`People`): Patients made of other people, which the attacker is free to de-identify.
        other_rows (`Dataset`, *optional*): Those with their labels and masks; None if there are no other people.
        reference (`tuple[np.ndarray, np.ndarray]`, *optional*): Crops and landmarks of yet other people, for methods
            that need some; see [`create_method`].
        seed (`int`): Of the keys.
    """

    rows: Dataset
    patients: People
    visits: People
    originals: People
    others: People
    other_rows: Dataset | None
    reference: Reference | None
    seed: int

    @property
    def gallery(self) -> tuple[People, ...]:
        """Whose photos an attacker has: every patient's very photo, another one of him, and all other originals."""
        return self.patients, self.visits, self.originals

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All photos under one key, some second ones under this key and another, and the attacker's under his own."""
        key, other_key = (np.random.default_rng((self.seed, number)).bytes(32) for number in (0, 1))
        linked = self.visits[:_LINKED]
        # As he does not know the key, he learns what is the same under many.
        own = [np.random.default_rng((self.seed, 2, row)).bytes(32) for row in range(len(self.others))]
        return (
            _task("photos", self.patients, [key] * len(self.patients)),
            _task("visits", linked, [key] * len(linked)),
            _task("visits_other_key", linked, [other_key] * len(linked)),
            _task("attacker", self.others, own),
        )


def _task(name: str, people: People, keys: Sequence[bytes]) -> Task:
    return Task(name, people, tuple(map(Alias, keys, people.subjects.tolist())))


def prepare_cohort(
    faces: Path,
    out: Path,
    count: int,
    seed: int,
    pipeline: MedicalDeIDPipeline,
    check: Callable[[Sequence[str]], None],
    jobs: int = 1,
    on_progress: OnProgress = lambda stage, done, total: None,
    on_skip: Callable[[Skipped], None] = lambda skipped: None,
) -> Cohort:
    """Makes the cohort in a folder, or what is missing of it.

    Args:
        faces (`Path`):
            Folder of aligned crops (see [`FaceFolder`]) or of photos, as for [`build_set`]. It is only read.
        out (`Path`):
            The patients go to `patients` in it, all others to `cohort`.
        count (`int`):
            Number of patients.
        seed (`int`):
            Of all that is drawn.
        pipeline (`MedicalDeIDPipeline`):
            Finds the landmarks, and tells the size of a crop.
        check (`Callable`):
            Called with the subjects of the faces that patients may be made of, before any is made; raises a
            `ValueError` if they are too few.
        jobs (`int`, *optional*, defaults to 1):
            Number of processes that simulate.
        on_progress, on_skip (`Callable`, *optional*):
            See [`build_set`].

    Raises:
        `ValueError`: the faces cannot be used, have no split `validation`, or are too few.
    """
    folder, size = out / COHORT, pipeline.config.crop_size
    # Those who come last tell that all are there.
    sources = None
    if not is_face_folder(folder / "others"):
        sources, skipped = read_sources(faces, folder / "cut", size, on_progress)
        for each in skipped:
            on_skip(each)
        _copy_originals(sources, folder / "originals", faces, check)
    options = BuildOptions(count, seed, size=size)
    build_set(folder / "originals", out / PATIENTS, options, jobs, on_progress)
    rows = load_mema(out / PATIENTS, SPLIT)
    if sources is not None:
        _copy_others(sources, folder, min(count, _OTHERS), seed, set(rows["subject_id"]))
    shutil.rmtree(folder / "cut", ignore_errors=True)
    patients = _people(rows, pipeline)
    other_rows = _simulated_others(folder, seed, size, jobs, on_progress)
    return Cohort(
        rows,
        patients,
        People.find(pipeline, _visits(patients, folder / "visits", seed), list(patients.subjects)),
        _originals(folder / "originals", pipeline),
        People.find(pipeline, [], []) if other_rows is None else _people(other_rows, pipeline),
        other_rows,
        _reference(folder / "reference", size),
        seed,
    )


def _people(rows: Dataset, pipeline: MedicalDeIDPipeline) -> People:
    return People.find(pipeline, [np.asarray(image) for image in rows["image"]], list(rows["subject_id"]))


def _usable(sources: SourceFaces, split: str) -> list[int]:
    skipped = {each.file for each in sources.skipped}
    rows = FaceFolder(sources.root, split).rows
    return [index for index, row in enumerate(rows) if row["file_name"] not in skipped]


def _copy_originals(sources: SourceFaces, target: Path, faces: Path, check: Callable[[Sequence[str]], None]) -> None:
    if SPLIT not in sources.splits:
        raise ValueError(
            f"FACES {faces}: has no split {SPLIT}, only {', '.join(sources.splits)}. Patients are made of faces that "
            "no model was trained on; give those this split in metadata.jsonl."
        )
    usable = _usable(sources, SPLIT)
    check([sources.source(SPLIT, index).subject for index in usable])
    _copy_faces(sources, SPLIT, usable, target, SPLIT)


def _copy_others(sources: SourceFaces, folder: Path, count: int, seed: int, patients: set[str]) -> None:
    """People for the attacker, and yet other ones for reference: of the training split, else whoever is no patient."""
    split = "train" if "train" in sources.splits else SPLIT
    free = [index for index in _usable(sources, split) if sources.source(split, index).subject not in patients]
    order = np.random.default_rng((seed, 3)).permutation(free).tolist()
    count = min(count, len(order) // 2)
    _copy_faces(sources, split, order[count : count + _OTHERS], folder / "reference", _OTHER_SPLIT)
    _copy_faces(sources, split, order[:count], folder / "others", _OTHER_SPLIT)


def _copy_faces(sources: SourceFaces, split: str, chosen: Sequence[int], target: Path, new_split: str) -> None:
    """Copies faces of a split into a folder of their own, in the same form; there is no folder without any."""
    if not chosen:
        return
    folder = FaceFolder(sources.root, split)
    rows, landmarks = [], []
    for number, index in enumerate(chosen):
        file, source = folder.root / folder.rows[index]["file_name"], sources.source(split, index)
        file_name = f"images/{number:06d}{file.suffix}"
        write_file(target / file_name, file.read_bytes())
        who = {"source": source.name, "subject_id": source.subject, "sex": source.sex, "group": source.group}
        rows.append(json.dumps({"file_name": file_name, "split": new_split, **who}) + "\n")
        landmarks.append(folder.landmarks(index) + (0.5, 0.5, 0.0))  # on disk they count from the pixel's edge
    np.savez(target / "landmarks.npz", landmarks=np.stack(landmarks).astype(np.float32))
    # Last, as it says that the others are complete.
    write_file(target / "metadata.jsonl", "".join(rows).encode())


def _visits(patients: People, folder: Path, seed: int) -> list[np.ndarray]:
    """Of each patient a photo of another day, as it is on disk."""
    visits = []
    for row, photo in enumerate(patients.photos):
        path = folder / f"{row:06d}.png"
        if not path.is_file():
            write_picture(path, other_visit(photo, seed * 1_000_003 + row))
        visits.append(read_picture(path))
    return visits


def _originals(folder: Path, pipeline: MedicalDeIDPipeline) -> People:
    sources = SourceFaces(folder, pipeline.config.crop_size)
    faces = range(sources.count(SPLIT))
    photos = [sources.face(SPLIT, face)[0] for face in faces]
    return People.find(pipeline, photos, [sources.source(SPLIT, face).subject for face in faces])


def _simulated_others(folder: Path, seed: int, size: int, jobs: int, on_progress: OnProgress) -> Dataset | None:
    faces, built = folder / "others", folder / "attacker"
    if not is_face_folder(faces):
        return None
    options = BuildOptions(len(FaceFolder(faces, _OTHER_SPLIT)), seed, size=size)
    build_set(faces, built, options, jobs, on_progress)
    return load_mema(built, _OTHER_SPLIT)


def _reference(folder: Path, size: int) -> Reference | None:
    if not is_face_folder(folder):
        return None
    sources = SourceFaces(folder, size)
    faces = (sources.face(_OTHER_SPLIT, face) for face in range(sources.count(_OTHER_SPLIT)))
    crops, landmarks = zip(*faces, strict=True)
    return np.stack(crops), np.stack(landmarks)
