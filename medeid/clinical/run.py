"""A run of many photos that a kill can stop at any moment and the same command goes on with."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..files import PARTIAL, write_file
from .sources import PhotoFile

RECORDS = "records.jsonl"
WITHHELD = "withheld"
_STATE = ".medeid-run.json"


class RunError(ValueError):
    """A folder of results that cannot be gone on with. The message says why and what to do."""


class Run:
    """What a folder of results knows of a run: which photos are done, and what became of them.

    A photo is done when its record is written, which is after its result. While a run is unfinished, a file in the
    folder tells by a digest what it was begun with; no photo's name is in it. Records of earlier, finished runs stay.

    Args:
        out (`Path`):
            The folder; it exists.
        photos (`list[PhotoFile]`):
            All photos of the run.
        settings (`dict[str, Any]`):
            Whatever changes the results, as JSON. Keys of secrets must not be in it.

    Raises:
        `RunError`: the folder has an unfinished run of other photos or settings, or records that are no records.
        `OSError`: the folder cannot be read or written to.
    """

    def __init__(self, out: Path, photos: list[PhotoFile], settings: dict[str, Any]):
        self.out, self.photos = out, photos
        self._state, self._records = out / _STATE, out / RECORDS
        begun = {"settings": _digest(settings), "photos": _digest([_identity(photo) for photo in photos])}
        if self._state.exists():
            state = self._read_state()
            if {name: state[name] for name in begun} != begun:
                raise RunError(
                    f"-o {out}: holds an unfinished run of other photos or with other options; finish it by its own "
                    "command, or choose another folder"
                )
            self._start = state["start"]
            _remove_partial(out)
        else:
            self._start = self._records.stat().st_size if self._records.exists() else 0
            write_file(self._state, json.dumps({**begun, "start": self._start}).encode())
        self.statuses = self._read_records()

    def _read_state(self) -> dict[str, Any]:
        try:
            return json.loads(self._state.read_text())
        except ValueError as error:
            raise RunError(f"{self._state}: is damaged; choose another folder by -o") from error

    def _read_records(self) -> dict[int, str]:
        """The statuses of the photos that are done; a line that a kill has cut short is cut off."""
        if not self._records.exists():
            return {}
        statuses, end = {}, self._start
        with open(self._records, "rb") as file:
            file.seek(self._start)
            for line in file:
                if not line.endswith(b"}\n"):
                    break
                record = json.loads(line)
                statuses[record["photo"]] = record["status"]
                end += len(line)
        os.truncate(self._records, end)
        return statuses

    @property
    def left(self) -> list[PhotoFile]:
        """The photos that are still to be done."""
        return [photo for photo in self.photos if photo.index not in self.statuses]

    def add(self, photo: PhotoFile, record: Any, reason: str) -> None:
        """Notes what became of a photo, and why if it was not released: withheld/NAME.txt, never its pixels."""
        note = self.out / WITHHELD / f"{photo.name}.txt"
        if reason:
            write_file(note, f"{reason}\n".encode())
        else:
            note.unlink(missing_ok=True)
        with open(self._records, "ab") as file:
            file.write(json.dumps(asdict(record)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.statuses[photo.index] = record.status

    def finish(self) -> None:
        """Puts the records into the order of the photos, however many processes wrote them."""
        content = self._records.read_bytes() if self._records.exists() else b""
        lines = content[self._start :].splitlines(keepends=True)
        lines.sort(key=lambda line: json.loads(line)["photo"])
        write_file(self._records, content[: self._start] + b"".join(lines))
        self._state.unlink()


def _identity(photo: PhotoFile) -> list[Any]:
    """What makes a photo the same one as before the interruption."""
    try:
        stat = photo.source.stat()
        file: list[Any] = [stat.st_size, stat.st_mtime_ns]
    except OSError:
        file = []
    mask = None if photo.mask is None else str(photo.mask)
    return [str(photo.source), photo.name, photo.pseudonym, photo.boxes, mask, *file]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _remove_partial(folder: Path) -> None:
    """Removes what a kill has left half-written."""
    for path in folder.rglob(f"{PARTIAL}*"):
        path.unlink(missing_ok=True)
