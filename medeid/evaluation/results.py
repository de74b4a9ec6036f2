"""What a method made of photos, on disk: every picture is made once, whatever interrupts the run."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..pipeline import MedicalDeIDPipeline
from ..processes import share_out
from ..types import FaceBox
from .cohort import People, Task
from .pictures import read_picture, write_picture
from .protocol import Alias, Method

_HOPELESS = 10  # failures in a row, and nothing else so far, after which a method is given up: each may take minutes
_LONGEST_REASON = 200  # letters
# Folders differ from machine to machine and run to run, and may tell more than results should.
_FOLDERS = re.compile(r"(?<![\w.])/(?:[^\s/:'\"]+/)+")


@dataclass(frozen=True)
class Outcome:
    """What became of a photo.

    Attributes:
        picture (`str`): Path of the result in the method's folder, whether there is one or not.
        status (`str`): `"released"`, `"withheld"` or `"failed"`: the method is broken.
        reason (`str`): Of the failure.
        seconds (`float`): Time that the method took.
    """

    picture: str
    status: Literal["released", "withheld", "failed"]
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Released:
    """The results of a task that were released: their places in it, int64 `[K]`, and the pictures."""

    rows: np.ndarray
    people: People


class MethodFolder:
    """The results of one method: `TASK/000000.png`, and `index.jsonl` with an [`Outcome`] a line.

    Args:
        root (`Path`):
            The folder, which need not be there yet.
    """

    def __init__(self, root: Path):
        self.root = root
        self._index = root / "index.jsonl"
        self._outcomes: dict[str, Outcome] = {}
        if self._index.is_file():
            os.truncate(self._index, self._read())

    def _read(self) -> int:
        """Reads the index up to where its last whole line ends: a kill can only cut that one short."""
        end = 0
        with open(self._index, "rb") as file:
            for line in file:
                if not line.endswith(b"}\n"):
                    break
                outcome = Outcome(**json.loads(line))
                self._outcomes[outcome.picture] = outcome
                end += len(line)
        return end

    def is_done(self, task: str, row: int) -> bool:
        """Whether a photo's result is there, or was withheld. What failed may be mended by now, and is not done."""
        outcome = self._outcomes.get(_picture(task, row))
        if outcome is None or outcome.status == "failed":
            return False
        return outcome.status == "withheld" or (self.root / outcome.picture).is_file()

    def add(self, outcome: Outcome, result: np.ndarray | None) -> None:
        """Keeps the outcome for a photo; the picture is written first, so that it is there if the index says so."""
        self.root.mkdir(parents=True, exist_ok=True)
        if result is not None:
            write_picture(self.root / outcome.picture, result)
        with open(self._index, "a") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")
        self._outcomes[outcome.picture] = outcome

    def outcomes(self, task: Task) -> list[Outcome]:
        """What became of a task's photos, as far as they were tried."""
        pictures = (_picture(task.name, row) for row in range(len(task.people)))
        return [self._outcomes[picture] for picture in pictures if picture in self._outcomes]

    def counts(self, task: Task) -> dict[str, int]:
        """How many of a task's photos were `released`, `withheld`, and `failed`; the rest was not tried."""
        found = Counter(outcome.status for outcome in self.outcomes(task))
        return {status: found[status] for status in ("released", "withheld", "failed")}

    def released(self, task: Task, pipeline: MedicalDeIDPipeline) -> Released:
        """The results of a task, whose landmarks the pipeline finds."""
        rows = np.array(
            [row for row, _ in enumerate(task.aliases) if self._status(task.name, row) == "released"], np.int64
        )
        photos = [read_picture(self.root / _picture(task.name, row)) for row in rows]
        return Released(rows, People.find(pipeline, photos, list(task.people.subjects[rows])))

    def _status(self, task: str, row: int) -> str | None:
        outcome = self._outcomes.get(_picture(task, row))
        return outcome.status if outcome else None


def _picture(task: str, row: int) -> str:
    return f"{task}/{row:06d}.png"


@dataclass(frozen=True)
class _Errand:
    """A photo that a method is given, and the path of its result in the method's folder."""

    picture: str
    photo: np.ndarray
    box: FaceBox
    alias: Alias


def run_method(
    method: Method,
    tasks: Sequence[Task],
    folder: MethodFolder,
    on_progress: Callable[[int, int], None],
    jobs: int | None = None,
) -> None:
    """Gives a method all photos of which there is no result yet, one by one, so that no failure takes others along.

    Args:
        method (`Method`):
            Whatever it raises is kept as a failure of that photo, as is a result of another size.
        tasks (`Sequence[Task]`):
            The photos.
        folder (`MethodFolder`):
            Where the results go.
        on_progress (`Callable`):
            Called with the number of photos that are done, and of all.
        jobs (`int`, *optional*):
            Number of processes, for a method that can be pickled. By default this one alone.
    """
    photos = [(task, row) for task in tasks for row in range(len(task.people))]
    todo = [(task, row) for task, row in photos if not folder.is_done(task.name, row)]
    hopeful = len(todo) < len(photos)
    errands = (_errand(task, row) for task, row in todo)
    tries = (_try(method, each) for each in errands) if jobs is None else share_out(_try, method, errands, jobs)
    with closing(tries):
        for tried, (outcome, result) in enumerate(tries, 1):
            folder.add(outcome, result)
            on_progress(len(photos) - len(todo) + tried, len(photos))
            hopeful = hopeful or outcome.status != "failed"
            if not hopeful and tried == _HOPELESS:
                break


def _errand(task: Task, row: int) -> _Errand:
    return _Errand(_picture(task.name, row), task.people.photos[row], task.people.box(row), task.aliases[row])


def _try(method: Method, errand: _Errand) -> tuple[Outcome, np.ndarray | None]:
    picture, photo = errand.picture, errand.photo
    began = time.perf_counter()
    try:
        (result,) = method([photo.copy()], [errand.box], [errand.alias])
        if result is not None and (result.shape != photo.shape or result.dtype != np.uint8):
            given, wanted = (f"{each.dtype} {list(each.shape)}" for each in (result, photo))
            raise ValueError(f"gave {given} for a photo of {wanted}")
    except Exception as error:  # of anybody's code
        reason = _FOLDERS.sub("", f"{type(error).__name__}: {error}")[:_LONGEST_REASON]
        return Outcome(picture, "failed", reason), None
    seconds = round(time.perf_counter() - began, 3)
    return Outcome(picture, "withheld" if result is None else "released", seconds=seconds), result
