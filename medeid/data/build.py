"""Writing a data set of simulated patients: every image by itself, from nothing but the seed and its place."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from .. import __version__
from ..faces.canvas import Canvas, NotVisibleError, skin_tone_band
from ..files import write_file
from ..manifestations.taxonomy import TAXONOMY, Finding, manifestation
from ..processes import share_out
from .begun import read_state
from .card import write_card
from .masks import encode_masks
from .patients import draw_findings, labels_of, lead_label
from .simulate import Simulation, simulate
from .sources import Skipped, SourceFaces, cut_faces, find_photos, fingerprint, is_face_folder, read_skipped

_BUILD_FILE = "build.json"
_WORK_FOLDER = ".partial"  # what is needed to go on after an interruption; gone when the set is complete
_FOLDER_SIZE = 1000  # images in one folder
_JPEG = {"format": "JPEG", "quality": 95, "subsampling": 0}
_PNG = {"format": "PNG", "compress_level": 6}  # 1 ms; level 9 takes ten times as long for a tenth less
_FACES_TRIED = 4  # before signs that are not visible on a face are left out
_GOLDEN_RATIO = (math.sqrt(5.0) - 1.0) / 2.0
_ROW_START = re.compile(rb'\{"file_name": "images/\d+/(\d+)\.jpg"')


@dataclass(frozen=True)
class BuildOptions:
    """What a set is made of.

    Args:
        count (`int`):
            Number of images.
        seed (`int`):
            The same seed gives the same bytes.
        signs (`Sequence[str]`, *optional*):
            Manifestations to draw from; by default all.
        healthy (`float`, *optional*, defaults to 0.15):
            Share of images without a sign.
        size (`int`, *optional*, defaults to 256):
            Side of the images in pixels.
        further (`int`, *optional*):
            Number of further signs on every face that is not healthy, as far as they go together; see
            [`draw_findings`].

    Raises:
        ValueError: if one is out of range; `UnknownManifestationError` for an unknown sign.
    """

    count: int
    seed: int
    signs: Sequence[str] = tuple(TAXONOMY)
    healthy: float = 0.15
    size: int = 256
    further: int | None = None

    def __post_init__(self):
        if self.count < 1:
            raise ValueError(f"`count` must be at least 1, but is {self.count}.")
        if self.seed < 0:
            raise ValueError(f"`seed` must not be negative, but is {self.seed}.")
        if not 0.0 <= self.healthy <= 1.0:
            raise ValueError(f"`healthy` must be a share in [0, 1], but is {self.healthy}.")
        if self.size < 64:
            raise ValueError(f"`size` must be at least 64 px, but is {self.size}.")
        if self.further is not None and self.further < 0:
            raise ValueError(f"`further` must not be negative, but is {self.further}.")
        if not self.signs:
            raise ValueError("`signs` is empty; name at least one, or leave it out for all.")
        named = {manifestation(name).name for name in self.signs}
        object.__setattr__(self, "signs", tuple(name for name in TAXONOMY if name in named))


@dataclass(frozen=True)
class Plan:
    """Which image is in which split: the first are train's, then come the other splits'.

    Args:
        counts (`dict[str, int]`):
            Images a split.
    """

    counts: dict[str, int]

    @classmethod
    def of(cls, sources: SourceFaces, count: int) -> Plan:
        """Shares `count` images out as the faces are, but no split stays empty if there are images enough."""
        first, *others = sources.splits
        faces = sum(sources.count(split) for split in sources.splits)
        counts = {split: max(1, round(count * sources.count(split) / faces)) for split in others}
        rest = count - sum(counts.values())
        return cls({first: rest, **counts} if rest > 0 else {first: count})

    def place(self, index: int) -> tuple[str, int]:
        """The split of an image, and which one it is there."""
        for split, count in self.counts.items():
            if index < count:
                return split, index
            index -= count
        raise IndexError("The set has fewer images.")

    @staticmethod
    def image(index: int) -> str:
        return f"images/{index // _FOLDER_SIZE:03d}/{index:06d}.jpg"

    @staticmethod
    def mask(index: int) -> str:
        return f"masks/{index // _FOLDER_SIZE:03d}/{index:06d}.png"


class ImageMaker:
    """Makes the images of a set, in any order and in any process.

    Args:
        sources (`SourceFaces`):
            The faces.
        out (`Path`):
            Folder of the set.
        options (`BuildOptions`):
            What the set is made of.
        plan (`Plan`):
            Which image is in which split.
    """

    def __init__(self, sources: SourceFaces, out: Path, options: BuildOptions, plan: Plan):
        self.sources, self.out, self.options, self.plan = sources, out, options, plan
        self._labels = labels_of(options.signs)
        self._first_point = float(np.random.default_rng((options.seed, 0, 1)).random())
        self._skin_tones: dict[tuple[str, int], str] = {}

    def make(self, index: int) -> str:
        """Writes image and mask number `index`, and returns their row of the metadata."""
        split, position = self.plan.place(index)
        generator = np.random.default_rng((self.options.seed, index))
        lead = lead_label(self.options.seed, index, self._labels, self.options.healthy)
        findings = draw_findings(lead, self.options.signs, generator, self.options.further) if lead else ()
        seed = int(generator.integers(2**32))
        # A golden-ratio sequence uses the faces evenly, also in a small set.
        points = ((self._first_point + _GOLDEN_RATIO * position) % 1.0, *generator.random(_FACES_TRIED - 1))
        face, patient = self._paint(split, points, findings, seed)
        folder = self.out / split
        write_file(folder / self.plan.image(index), _encode(Image.fromarray(patient.image), _JPEG))
        write_file(folder / self.plan.mask(index), _encode(encode_masks(patient.masks), _PNG))
        source = self.sources.source(split, face)
        row = {
            "file_name": self.plan.image(index),
            "mask_file_name": self.plan.mask(index),
            "subject_id": source.subject,
            "findings": [asdict(finding) for finding in patient.findings],
            "landmarks": _rounded(patient.landmarks),
            "source": source.name,
            "seed": seed,
            "skin_tone": self._skin_tone(split, face),
            # Always there, if empty: datasets wants the same columns in every split.
            "sex": source.sex or "",
            "group": source.group or "",
        }
        return json.dumps(row) + "\n"

    def _paint(
        self, split: str, points: Sequence[float], findings: tuple[Finding, ...], seed: int
    ) -> tuple[int, Simulation]:
        """Paints the findings on a face that shows them all; if none of those drawn does, on the last what it shows."""
        for point in points:
            face = self.sources.draw(split, point)
            image, landmarks = self.sources.face(split, face)
            try:
                return face, simulate(image, landmarks, findings, np.random.default_rng(seed))
            except NotVisibleError:
                continue
        visible: tuple[Finding, ...] = ()
        patient = simulate(image, landmarks, visible, np.random.default_rng(seed))
        for finding in findings:
            try:
                patient = simulate(image, landmarks, (*visible, finding), np.random.default_rng(seed))
            except NotVisibleError:
                continue
            visible = (*visible, finding)
        return face, patient

    def _skin_tone(self, split: str, face: int) -> str:
        if (split, face) not in self._skin_tones:
            image, landmarks = self.sources.face(split, face)
            canvas = Canvas(image.astype(np.float32) / 255.0, landmarks)
            self._skin_tones[split, face] = skin_tone_band(canvas.ita)
        return self._skin_tones[split, face]


class Rows:
    """The rows of the images that are done, on disk; only where they are is kept in memory.

    Args:
        log (`Path`):
            File that new rows are added to. A kill can only cut its last line short, which is then dropped.
        others (`Sequence[Path]`):
            Further files with rows.
    """

    def __init__(self, log: Path, others: Sequence[Path]):
        self._log = log
        self._places: dict[int, tuple[Path, int]] = {}
        for path in (*others, log):
            if path.is_file():
                end = self._read(path)
                if path == log:
                    os.truncate(log, end)

    def _read(self, path: Path) -> int:
        """Notes where the rows of a file start; returns where its last whole line ends."""
        start = 0
        with open(path, "rb") as file:
            for line in file:
                if not line.endswith(b"}\n"):
                    break
                match = _ROW_START.match(line)
                if match:
                    self._places[int(match[1])] = (path, start)
                start += len(line)
        return start

    def __contains__(self, index: int) -> bool:
        return index in self._places

    def add(self, index: int, line: str) -> None:
        self._log.parent.mkdir(exist_ok=True)
        with open(self._log, "ab") as file:
            self._places[index] = (self._log, file.tell())
            file.write(line.encode())

    def lines(self, indices: range) -> Iterator[bytes]:
        for index in indices:
            path, start = self._places[index]
            with open(path, "rb") as file:
                file.seek(start)
                yield file.readline()


@dataclass(frozen=True)
class BuildResult:
    """What there is now.

    Attributes:
        counts (`dict[str, int]`): Images a split.
        made (`int`): How many of them were made by this call; the others were there.
        skipped (`int`): Pictures of the source folder that could not be used.
    """

    counts: dict[str, int]
    made: int
    skipped: int


def build_set(
    faces: Path,
    out: Path,
    options: BuildOptions,
    jobs: int = 1,
    on_progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
    on_skip: Callable[[Skipped], None] = lambda skipped: None,
) -> BuildResult:
    """Makes a data set of simulated patients, or what is missing of one.

    Args:
        faces (`Path`):
            Folder of aligned crops (see [`FaceFolder`]) or of photos. It is only read.
        out (`Path`):
            Folder of the set: new, empty, or one that was begun with the same faces and options.
        options (`BuildOptions`):
            What the set is made of.
        jobs (`int`, *optional*, defaults to 1):
            Number of processes. The result is the same for any.
        on_progress (`Callable`, *optional*):
            Called with what is being done, how much of it is done, and of how much.
        on_skip (`Callable`, *optional*):
            Called with each picture that cannot be used.

    Returns:
        `BuildResult`: what there is now.

    Raises:
        ValueError: if the folders cannot be used, or there is no face at all.
        OSError: if `out` cannot be written to.
    """
    if jobs < 1:
        raise ValueError(f"`jobs` must be at least 1, but is {jobs}.")
    check_folders(faces, out)
    if not is_face_folder(faces) and not find_photos(faces):
        raise ValueError(f"FACES {faces}: holds no pictures; give a folder with photos or aligned crops.")
    arguments = _arguments(faces, options)
    plan, num_skipped = _read_state(out, arguments)
    missing = list(range(options.count)) if plan is None else _missing(out, plan)
    sources = None
    if plan is None or missing:
        out.mkdir(parents=True, exist_ok=True)
        try:
            sources, skipped = read_sources(faces, out / _WORK_FOLDER / "faces", options.size, on_progress)
        except ValueError:
            if plan is None:
                shutil.rmtree(out / _WORK_FOLDER, ignore_errors=True)
            raise
        for each in skipped:
            on_skip(each)
        plan, num_skipped = Plan.of(sources, options.count), len(skipped)
        _write_state(out, arguments, plan, num_skipped)

    rows = _rows(out, plan)
    if sources is not None:
        maker = ImageMaker(sources, out, options, plan)
        made = share_out(_make, maker, missing, min(jobs, len(missing))) if missing else ()
        for done, (index, line) in enumerate(made, options.count - len(missing) + 1):
            rows.add(index, line)
            on_progress("Simulating", done, options.count)
    _finish(out, rows, plan, options)
    return BuildResult(plan.counts, len(missing), num_skipped)


def check_folders(faces: Path, out: Path) -> None:
    """Raises a `ValueError` if there are no faces to read, or `out` would be a file or among them."""
    if not faces.is_dir():
        raise ValueError(f"FACES {faces}: there is no such folder; give one with photos or aligned crops.")
    if out.exists() and not out.is_dir():
        raise ValueError(f"OUT {out}: is a file; choose another name for the folder.")
    if faces.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(f"OUT {out}: lies inside of FACES, which is only read; choose another folder.")


def _arguments(faces: Path, options: BuildOptions) -> dict:
    """All that the bytes of a set depend on; without paths, which may tell more than the set should."""
    return {"medeid": __version__, "faces": fingerprint(faces), **asdict(options), "signs": list(options.signs)}


def _read_state(out: Path, arguments: dict) -> tuple[Plan | None, int]:
    """The plan of a set that was begun, and how many pictures were skipped for it; (None, 0) if none was."""
    state = read_state(out, _BUILD_FILE, "set", arguments)
    if state is None:
        shutil.rmtree(out / _WORK_FOLDER, ignore_errors=True)
        return None, 0
    return Plan(state["splits"]), state["skipped"]


def _write_state(out: Path, arguments: dict, plan: Plan, num_skipped: int) -> None:
    state = {"arguments": arguments, "splits": plan.counts, "skipped": num_skipped}
    write_file(out / _BUILD_FILE, (json.dumps(state, indent=1) + "\n").encode())


def read_sources(
    faces: Path, cut: Path, size: int, on_progress: Callable[[str, int, int], None]
) -> tuple[SourceFaces, list[Skipped]]:
    """The usable faces of a folder, and the pictures that are not; of photos they are cut out into `cut` first."""
    skipped: list[Skipped] = []
    if not is_face_folder(faces):
        cut_faces(find_photos(faces), faces, cut, size, partial(on_progress, "Finding faces"))
        faces, skipped = cut, read_skipped(cut)
    sources = SourceFaces(faces, size, partial(on_progress, "Reading faces"))
    return sources, skipped + sources.skipped


def _rows(out: Path, plan: Plan) -> Rows:
    return Rows(out / _WORK_FOLDER / "rows.jsonl", [out / split / "metadata.jsonl" for split in plan.counts])


def _missing(out: Path, plan: Plan) -> list[int]:
    """The images that are yet to be made."""
    rows = _rows(out, plan)

    def is_there(index: int) -> bool:
        folder = out / plan.place(index)[0]
        return index in rows and (folder / plan.image(index)).is_file() and (folder / plan.mask(index)).is_file()

    return [index for index in range(sum(plan.counts.values())) if not is_there(index)]


def _finish(out: Path, rows: Rows, plan: Plan, options: BuildOptions) -> None:
    start = 0
    for split, count in plan.counts.items():
        write_file(out / split / "metadata.jsonl", rows.lines(range(start, start + count)))
        start += count
    write_file(out / "README.md", write_card(out, plan.counts, options).encode())
    shutil.rmtree(out / _WORK_FOLDER, ignore_errors=True)


def _encode(image: Image.Image, options: dict) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def _rounded(landmarks: np.ndarray) -> list[list[float]]:
    points = landmarks.astype(np.float64)
    return np.column_stack([points[:, :2].round(2), points[:, 2].round(1)]).tolist()


def _make(maker: ImageMaker, index: int) -> tuple[int, str]:
    return index, maker.make(index)
