"""All filters over a data set, in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ...faces.detection import CenterFaceDetector
from ...faces.mesh import points5_from_mesh, scale_points
from ...identity.recognizer import DlibRecognizer, Recognizer
from ...types import FaceBox
from ..records import DataSetError
from .duplicates import DuplicateFinder
from .limits import Limit
from .plausibility import (
    PLAUSIBILITY_LIMITS,
    PREDICTION_LIMIT,
    Predictor,
    disagreement,
    measure_landmarks,
    measure_mask,
    predict,
)
from .privacy import OnProgress, Originals, embed, read_originals
from .quality import QUALITY_LIMITS, find_face, measure_quality
from .report import FilterReport, ReportRow
from .rows import Face, count_rows, read_faces
from .signs import SIGN_LIMIT, SignEvidence

LIMITS: tuple[Limit, ...] = (*QUALITY_LIMITS, *PLAUSIBILITY_LIMITS, SIGN_LIMIT, PREDICTION_LIMIT)

_BATCH = 32


def run_filters(
    dataset: str | Path,
    originals: str | Path | None = None,
    *,
    false_accept_rate: float = 1e-3,
    recognizer: Recognizer | None = None,
    predictor: Predictor | None = None,
    limits: Sequence[Limit] = LIMITS,
    on_progress: OnProgress | None = None,
) -> FilterReport:
    """Looks at every picture of a data set: would it give somebody away, is it good enough, is it what its labels say?

    Nothing in the data set is changed. Save what comes back with [`FilterReport.save`].

    Args:
        dataset (`str` or `Path`):
            Folder with `train/metadata.jsonl`, `validation/metadata.jsonl` and so on, or one such split.
        originals (`str` or `Path`, *optional*):
            Folder of the faces that must not leak, the patients'; see [`read_originals`]. Without it nothing is said
            about privacy.
        false_accept_rate (`float`, *optional*, defaults to 0.001):
            Share of the pairs of different originals that are as alike as the limit says.
        recognizer (`Recognizer`, *optional*):
            Which compares with the originals; dlib's by default.
        predictor (`Predictor`, *optional*):
            Reads the labels off the pictures once more.
        limits (`Sequence[Limit]`, *optional*):
            Instead of the default ones; a measure without a limit flags nothing. That of `nearest_original` is
            calibrated.
        on_progress (`OnProgress`, *optional*):
            Called with the stage (`"Originals"`, then `"Pictures"`), how many are done, and of how many.

    Raises:
        `ValueError`: no such data set or originals, or a predictor that returns something else than probabilities.
    """
    dataset = Path(dataset)
    total = count_rows(dataset)
    run = _Run(limits, predictor)
    if originals is not None:
        run.recognizer = recognizer or DlibRecognizer()
        run.originals = read_originals(Path(originals), run.recognizer, false_accept_rate, on_progress)
    for batch in _batches(run.readable(read_faces(dataset))):
        run.look_at(batch)
        if on_progress is not None:
            on_progress("Pictures", len(run.rows) + len(run.unreadable), total)
    return run.report()


def _batches(faces: Iterable[Face]) -> Iterator[list[Face]]:
    """Successive faces of one picture size."""
    batch: list[Face] = []
    for face in faces:
        if batch and (len(batch) == _BATCH or batch[0].image.shape != face.image.shape):
            yield batch
            batch = []
        batch.append(face)
    if batch:
        yield batch


class _Run:
    """What is gathered on the way: measures and reasons of each row, and what only all rows together can tell."""

    recognizer: Recognizer | None = None
    originals: Originals | None = None

    def __init__(self, limits: Sequence[Limit], predictor: Predictor | None):
        self.limits = {limit.measure: limit for limit in limits}
        self.predictor = predictor
        # Crops: what a face is too small for at their own size is not found enlarged either.
        self.detector = CenterFaceDetector(max_enlargement=1.0)
        self.duplicates = DuplicateFinder()
        self.evidence = SignEvidence()
        self.rows: list[ReportRow] = []
        self.unreadable: list[str] = []

    def readable(self, items: Iterable[Face | DataSetError]) -> Iterator[Face]:
        for item in items:
            if isinstance(item, DataSetError):
                self.unreadable.append(str(item))
            else:
                yield item

    def look_at(self, faces: list[Face]) -> None:
        """Everything that a picture tells on its own."""
        found = [find_face(self.detector, face.image) for face in faces]
        rows = [ReportRow.of(face) for face in faces]
        for face, box, row in zip(faces, found, rows, strict=True):
            for name, value in (measure_quality(face, box) | measure_landmarks(face, box)).items():
                self._judge(row, name, value)
            for index, finding in enumerate(face.findings):
                for name, value in measure_mask(face, index).items():
                    self._judge(row, name, value, f"{finding.manifestation}:{finding.side}")
            labels = [label for finding in face.findings for label in finding.labels]
            self.duplicates.add(face.image, face.subject_id, labels)
            self.evidence.add(face)
        images = np.stack([face.image for face in faces])
        if self.recognizer is not None and self.originals is not None:
            points5 = [_points5(face, box) for face, box in zip(faces, found, strict=True)]
            nearest = self.originals.nearest(embed(self.recognizer, images, points5))
            for row, value in zip(rows, nearest.tolist(), strict=True):
                row.add(self.originals.limit, value)
        if self.predictor is not None:
            for face, row, probabilities in zip(faces, rows, predict(self.predictor, images), strict=True):
                self._judge(row, PREDICTION_LIMIT.measure, *disagreement(probabilities, face.findings))
        self.rows += rows

    def report(self) -> FilterReport:
        """Adds what the set as a whole tells."""
        for later, (earlier, same_pixels) in self.duplicates.repeats().items():
            how = "same pixels as" if same_pixels else "hardly differs from"
            self.rows[later].reasons.append(f"duplicate: {how} {self.rows[earlier].file_name}")
        weighed, not_run = self.evidence.weigh()
        for row, evidence in zip(self.rows, weighed, strict=True):
            for value, what in evidence:
                self._judge(row, SIGN_LIMIT.measure, value, what)
        limits = list(self.limits.values())
        unusable = []
        if self.originals is None:
            not_run.insert(0, "Privacy: there are no originals to compare with. Give the faces that must not leak.")
        else:
            limits.insert(0, self.originals.limit)
            unusable = self.originals.unusable
        if self.predictor is None:
            not_run.append("Labels predicted anew: there is no predictor.")
        return FilterReport(self.rows, limits, not_run, self.unreadable, unusable)

    def _judge(self, row: ReportRow, measure: str, value: float, what: str = "") -> None:
        row.add(self.limits.get(measure, Limit(measure, "", "")), value, what)


def _points5(face: Face, found: FaceBox | None) -> np.ndarray:
    """Where a recognizer aligns: by the detector as for the originals, by the landmarks only if it sees no face."""
    if found is not None and found.points5 is not None:
        return found.points5
    return scale_points(points5_from_mesh(face.landmarks), face.image.shape[0])
