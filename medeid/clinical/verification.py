"""Looking again at finished pairs: does a recognizer still know the source, and are the signs still there?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from ..face_state import FaceState
from ..faces.detection import detect_faces
from ..files import PARTIAL
from ..manifestations.taxonomy import parse_sign
from ..photos import Photo, PhotoInput
from ..pipeline import MedicalDeIDPipeline, Preserve
from ..records import AttemptRecord, FaceRecord, NoFaceFoundError
from ..types import FaceBox
from .batch import parse_photo_boxes
from .dicom_pseudonyms import Pseudonyms
from .images import ImageFileError
from .opening import open_photo
from .sources import photo_suffixes


@dataclass(frozen=True)
class Pair:
    """A source and what was released of it.

    Attributes:
        name (`str`): What the source is called; of an output without a source, what that is called.
        source (`Path`, *optional*): None where there is none for an output.
        output (`Path`, *optional*): None where nothing was released.
    """

    name: str
    source: Path | None
    output: Path | None


@dataclass
class PairReport:
    """What was seen of a pair.

    Attributes:
        status (`str`): `"passed"`, `"failed"` (a check), `"unusable"` (no check was possible) or `"missing"` (nothing
            was released).
        reasons (`list[str]`): Why it did not pass, and what to do.
        faces (`list[FaceRecord]`): Each face of the source: likeness and signs before and after, and what failed.
        frames (`list[int]`): Of each face the frame that it is in, from 1; empty for a still.
        notes (`list[str]`): What was found and not taken for a face.
    """

    status: Literal["passed", "failed", "unusable", "missing"]
    reasons: list[str] = field(default_factory=list)
    faces: list[FaceRecord] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class PairVerifier:
    """Does to finished files what [`MedicalDeIDPipeline.verify`] does to a result, and looks for faces left over.

    Args:
        model (`str`):
            For [`MedicalDeIDPipeline.from_pretrained`].
        device (`str`):
            A torch device.
        preserve (`str` or `list[str]`, *optional*, defaults to `"auto"`):
            The signs that were to be preserved; see the pipeline.
    """

    def __init__(self, model: str = "medeid-tiny", device: str = "cpu", preserve: Preserve = "auto"):
        self.pipeline = MedicalDeIDPipeline.from_pretrained(model).to(device)
        self.preserve = preserve

    def run(self, pair: Pair, boxes: Any = None) -> PairReport:
        """Looks at one pair of files, of DICOM at all frames.

        Args:
            pair (`Pair`):
                The files; they are only read.
            boxes (`list`, *optional*):
                Parsed JSON of the user's own faces in the source (in each of its frames), see [`parse_boxes`].
        """
        if pair.output is None:
            return PairReport("missing")
        if pair.source is None:
            return PairReport("unusable", ["there is no source of this name; give the folder that it was made of"])
        try:
            sources = _frames(pair.source)
            given = [parse_photo_boxes(boxes, frame) for frame in sources]
        except ValueError as error:
            return PairReport("unusable", [f"the source: {error}"])
        try:
            outputs = _frames(pair.output)
        except ImageFileError as error:
            return PairReport("unusable", [f"the output: {error}"])
        if len(sources) != len(outputs):
            reason = f"it has {len(outputs)} frames, but the source {len(sources)}; give the file as it was written"
            return PairReport("failed", [reason])
        reports = [self._look(*frame) for frame in zip(sources, outputs, given, strict=True)]
        return reports[0] if len(reports) == 1 else _of_all_frames(reports)

    def _look(self, source: PhotoInput, output: PhotoInput, boxes: list[list[FaceBox]] | None) -> PairReport:
        """Looks at one frame; what cannot be looked at is told, too."""
        try:
            return verify_pair(self.pipeline, Photo.open(source), Photo.open(output), boxes, self.preserve)
        except NoFaceFoundError as error:
            return PairReport("unusable", [f"the source: {error.reason}"])
        except ValueError as error:
            return PairReport("unusable", [str(error)])
        except (RuntimeError, MemoryError) as error:
            return PairReport("unusable", [f"the model failed on it ({type(error).__name__}); is there memory enough?"])


def _frames(path: Path) -> Sequence[PhotoInput]:
    """The pixels of a file. Who looks at faces alone need not know whether a name is burned into them."""
    return open_photo(path, Pseudonyms(None), burned_in_checked=True).frames


def _of_all_frames(reports: Sequence[PairReport]) -> PairReport:
    """One report of a file, as bad as the worst of its frames."""
    worst = ("unusable", "failed", "passed")
    whole = PairReport(min((report.status for report in reports), key=worst.index))
    for number, report in enumerate(reports, start=1):
        whole.reasons += [f"frame {number}: {reason}" for reason in report.reasons]
        whole.faces += report.faces
        whole.frames += [number] * len(report.faces)
        whole.notes += [f"frame {number}: {note}" for note in report.notes]
    return whole


@torch.no_grad()
def verify_pair(
    pipeline: MedicalDeIDPipeline,
    source: Photo,
    output: Photo,
    boxes: list[list[FaceBox]] | None = None,
    preserve: Preserve = "auto",
) -> PairReport:
    """Looks at one pair of photos.

    A pair fails if a recognizer still takes a face for the source's, a sign is lost or has come up, or no face is found
    where there was one: the pipeline's own checks, at the places of the source's faces. It also fails if the output
    shows a face where the source has none that was found, as nothing says that it was replaced; or if it is of another
    size.

    Args:
        pipeline (`MedicalDeIDPipeline`):
            Whose detectors, recognizers and encoder look.
        source, output (`Photo`):
            The pair.
        boxes (`list[list[FaceBox]]`, *optional*):
            A list with the source's faces, instead of detection.
        preserve (`str` or `list[str]`, *optional*, defaults to `"auto"`):
            The signs that were to be preserved; see the pipeline.

    Raises:
        NoFaceFoundError: the source has no face.
    """
    if source.rgb.shape != output.rgb.shape:
        height, width = source.rgb.shape[:2]
        reason = f"its size is not that of the source, {width} x {height} px; give the file as it was written"
        return PairReport("failed", [reason])
    (record,), faces = pipeline.find_faces([source], boxes)
    _expect_signs(pipeline, faces, preserve)
    pipeline.embed_sources(faces)
    for face in faces:
        face.record.attempts.append(AttemptRecord(""))
    pipeline.verify(faces, {0: (output.rgb, (source.rgb != output.rgb).any(-1))})
    for face in faces:
        face.record.manifestations = face.compare_signs(pipeline.manifestation_encoder.config.labels)
    failed = [reason for face in record.faces for reason in face.attempts[-1].failed]
    failed += _unknown_faces(pipeline, record.faces, output)
    notes = [rejected.reason for rejected in record.rejected]
    return PairReport("failed" if failed else "passed", failed, record.faces, notes=notes)


def _expect_signs(pipeline: MedicalDeIDPipeline, faces: list[FaceState], preserve: Preserve) -> None:
    """Reads the source's signs, and notes which of them the output is to show."""
    pipeline.read_manifestations(faces, [0] * len(faces))
    if preserve == "auto":
        listed = None
    else:
        listed = [] if preserve == "none" else [finding for text in preserve for finding in parse_sign(text)]
    pipeline.plan_preservation(faces, listed, [None])


def _unknown_faces(pipeline: MedicalDeIDPipeline, known: Sequence[FaceRecord], output: Photo) -> list[str]:
    """Why faces of the output must be doubted: their middle lies in no face of the source."""
    reasons = []
    for found in detect_faces(output.rgb, pipeline.detectors).faces:
        x, y = (found.box[0] + found.box[2]) / 2, (found.box[1] + found.box[3]) / 2
        if not any(left <= x <= right and top <= y <= bottom for left, top, right, bottom in (f.box for f in known)):
            corners = ", ".join(str(round(corner)) for corner in found.box)
            reasons.append(f"the output shows a face at ({corners}) where none of the source was replaced; look at it")
    return reasons


def pair_folders(names: dict[str, str], sources: dict[str, Path], outputs: Path) -> Iterator[Pair]:
    """The pairs of two folders.

    Args:
        names (`dict[str, str]`):
            For each source, the path of its result below the folder, without suffix: see [`name_results`].
        sources (`dict[str, Path]`):
            The sources under what they are called.
        outputs (`Path`):
            The folder of the results. Photos in it that belong to no source are pairs, too.
    """
    found: dict[str, Path] = {}
    for path in sorted(outputs.rglob("*")):
        below = path.relative_to(outputs)
        if path.suffix.lower() in photo_suffixes() and not path.name.startswith(PARTIAL) and path.is_file():
            stem = below.with_suffix("").as_posix()
            if stem in found:
                yield Pair(below.as_posix(), None, path)
            else:
                found[stem] = path
    for called, source in sources.items():
        yield Pair(called, source, found.pop(names[called], None))
    for path in found.values():
        yield Pair(path.relative_to(outputs).as_posix(), None, path)
