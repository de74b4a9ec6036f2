"""The audit log: what was done to which file, in records that cannot be changed without it being seen.

A log is a text file of one JSON object a line. Each record holds the digest (SHA-256) of the one before it, so that an
edit, a deletion, an insertion or another order breaks the chain, and a digest of its own, so that the line is known. A
run begins with an opening record (versions, weights, settings) and ends with a closing one that says how many there
are: what is missing at the end is seen, too.

What a chain of bare digests cannot do: whoever may write to the file can write a new log, all of whose digests fit.
Therefore under a key each record carries an HMAC-SHA-256, too, which nobody makes without the key. Two things are left
to whoever keeps the log, with a key or without one: it may be replaced by an older copy of itself, or cut after the
closing record of an earlier run. Against that note the log's last digest (its *head*) elsewhere, on paper or in
another system, and give it to [`verify_log`].

Sources appear only as HMACs of their names and contents. Under a key these are the same in every log, and whoever has
the key and a photo can find its records; without a key, nobody can tell anything from them by trying names. Where there
is no key, the secret is drawn for each run and never stored. Then nobody, the hospital included, can ever find the
record of a photo by its name or content, or tell which photos of two runs are the same; only within a run do two
equal ones look equal. Results appear by their own SHA-256, so the record of a released file is found by everybody.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

from .. import __version__
from ..identity.keys import key_check
from .appending import AppendOnlyFile
from .digests import file_sha256

FORMAT, VERSION = "medeid audit log", 1

_START = "0" * 64  # what the first record holds in place of the digest of one before it
_CHAIN_LABEL = b"medeid audit chain v1"
_SOURCES_LABEL = b"medeid audit sources v1"
_FIELDS = {"number", "kind", "time", "previous", "content", "digest"}
_KINDS = ("opening", "entry", "closing")
_BEGINNING = b'{"content":{'  # of every line
_HEX_DIGEST = re.compile("[0-9a-f]{64}")
# What a result hangs on.
_LIBRARIES = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "open_clip_torch",
    "opencv-python",
    "numpy",
    "Pillow",
)


class AuditError(ValueError):
    """A log that cannot be written to. The message says why and what to do, without the file's name."""


@dataclass
class AuditReport:
    """What was found in a log.

    Attributes:
        records (`int`): Records up to the first fault.
        runs (`int`): Opening records among them.
        keyed (`bool`): Whether the records carry HMACs under a key.
        closed (`bool`): Whether the last record is a closing one.
        head (`str`): The digest of the last record.
        line (`int`): Line of the first fault, from 1; 0 if there is none.
        fault (`str`): What is wrong there; empty if nothing is.
        notes (`list[str]`): What is no fault, but worth knowing.
    """

    records: int = 0
    runs: int = 0
    keyed: bool = False
    closed: bool = False
    head: str = _START
    line: int = 0
    fault: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        return not self.fault


class AuditLog:
    """A log that is being written. It is locked: no other run can write to it.

    Used as a context manager it is closed at the end of the block, but not if that ends by an exception: a log says by
    its closing record that its run came to its end.
    """

    def __init__(self, file: AppendOnlyFile, report: AuditReport, key: bytes | None):
        self._file, self._key = file, key
        self._number, self._head = report.records, report.head
        self._secret = secrets.token_bytes(32) if key is None else key

    @classmethod
    def open(cls, path: str | Path, settings: dict[str, Any], key: bytes | None = None) -> AuditLog:
        """Begins a log, or goes on with one, by an opening record.

        Half a line that a killed run has left is cut off, and the opening record says so.

        Args:
            path (`str` or `Path`):
                The log.
            settings (`dict[str, Any]`):
                Of the run, as JSON: what a result hangs on besides the versions, with the digest of the weights
                ([`model_sha256`]). No names, no keys.
            key (`bytes`, *optional*):
                The study's. A log stays under the key that it was begun under.

        Raises:
            `AuditError`: it cannot be written to, another run does, or it has a fault or another key.
        """
        path = Path(path)
        try:
            file = AppendOnlyFile(path)
        except OSError as error:
            raise AuditError(f"cannot be written to ({error.strerror}); choose another place for the log") from error
        try:
            log = cls._continued(file, settings, key)
        except BaseException:
            file.close()
            raise
        return log

    @classmethod
    def _continued(cls, file: AppendOnlyFile, settings: dict[str, Any], key: bytes | None) -> AuditLog:
        with file.reader() as reader:
            found = _Reading(key)
            end = found.read(reader)
        if found.report.fault and not found.torn:
            raise AuditError(
                f"line {found.report.line}: {found.report.fault}; look into it by `medeid audit verify`, and begin "
                "another log"
            )
        if found.report.keyed and key is None:
            raise AuditError("was begun under a key; give the same --key-file, or begin another log")
        before = {"closed": found.report.closed, "cut_bytes": file.size - end} if file.size else None
        if file.size > end:
            file.cut(end)
        log = cls(file, found.report, key)
        log._write("opening", {**_describe_run(settings, log._secret), "before": before})
        return log

    @property
    def head(self) -> str:
        """The digest of the last record: note it elsewhere, and nothing before it can be changed unseen."""
        return self._head

    def conceal(self, name: str, path: Path) -> dict[str, str | None]:
        """What stands for a source in an entry.

        Args:
            name (`str`):
                What the source is called.
            path (`Path`):
                The source; it is only read.

        Returns:
            `dict`: `name` and `content`, HMAC-SHA-256 of its name and of the digest of its bytes, hexadecimal;
            `content` is None where it cannot be read.
        """
        secret = hmac.digest(self._secret, _SOURCES_LABEL, hashlib.sha256)

        def told(kind: bytes, what: bytes) -> str:
            return hmac.new(secret, kind + b"\0" + what, hashlib.sha256).hexdigest()

        try:
            content = told(b"content", file_sha256(path).encode())
        except OSError:
            content = None
        return {"name": told(b"name", os.fsencode(name)), "content": content}

    def append(self, entry: dict[str, Any]) -> None:
        """Adds a record; when this returns, it is on the disk.

        Args:
            entry (`dict[str, Any]`):
                What was done, as JSON; a source in it as [`conceal`] gives it.

        Raises:
            `AuditError`: it cannot be written, for instance for want of room.
        """
        self._write("entry", entry)

    def close(self) -> str:
        """Adds the closing record and lets go of the file.

        Returns:
            `str`: the [`head`] of the closed log.
        """
        try:
            self._write("closing", {"records": self._number + 1})
        finally:
            self._file.close()
        return self._head

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()

    def _write(self, kind: str, content: dict[str, Any]) -> None:
        record = {
            "number": self._number + 1,
            "kind": kind,
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "previous": self._head,
            "content": json.loads(json.dumps(content)),  # as it will be read: tuples and numbers as keys are no JSON
        }
        if self._key is not None:
            record["mac"] = _mac(record, self._key)
        record["digest"] = _digest(record)
        try:
            self._file.append(_canonical(record))
        except OSError as error:
            raise AuditError(f"cannot be written to ({error.strerror}); make room, and run again") from error
        self._number, self._head = record["number"], record["digest"]


def verify_log(path: str | Path, key: bytes | None = None, head: str | None = None) -> AuditReport:
    """Looks for the first sign that a log was changed.

    Args:
        path (`str` or `Path`):
            The log; it is only read.
        key (`bytes`, *optional*):
            The one that it was written under. Without it only the chain is checked, not the HMACs.
        head (`str`, *optional*):
            A digest that was noted of this log: it must still be in it.

    Raises:
        `OSError`: it cannot be read.
    """
    found = _Reading(key)
    with open(path, "rb") as file:
        found.read(file)
    report = found.report
    if report.intact and not report.closed:
        found.fail(
            "the log is not closed: its run is still going or was killed, or its end was cut off"
            if report.records
            else "the log is empty"
        )
    if report.intact and head is not None and head.lower() not in found.digests:
        found.fail(
            "no record has the digest that was noted: the end was cut off, or the log was replaced by another one"
        )
    if report.keyed and key is None:
        report.notes.append("the HMACs were not checked; give the key, or a log that was made anew may pass")
    return report


class _Reading:
    """Goes through a log line by line, up to the first fault."""

    def __init__(self, key: bytes | None):
        self.key, self.report = key, AuditReport()
        self.digests: set[str] = set()
        self.torn = False  # whether the fault is a last line without its end

    def read(self, lines: Iterable[bytes]) -> int:
        """Returns the size of all lines without a fault, in bytes."""
        size = 0
        for line in lines:
            if not line.endswith(b"\n") and _BEGINNING.startswith(line[: len(_BEGINNING)]):
                self.torn = True
                self.fail("the line is cut short")
                break
            record = _parsed(line)
            fault = "is no record of an audit log, or was edited" if record is None else self._fault(record)
            if record is None or fault:
                self.fail(fault)
                break
            self._take(record)
            size += len(line)
        return size

    def fail(self, fault: str) -> None:
        self.report.line, self.report.fault = self.report.records + 1, fault

    def _fault(self, record: dict[str, Any]) -> str:
        report, first = self.report, self.report.records == 0
        if record["digest"] != _digest({name: value for name, value in record.items() if name != "digest"}):
            return "the record was edited"
        if record["number"] != report.records + 1 or record["previous"] != report.head:
            return "the record does not follow on the one before: records were removed, put in, moved or edited"
        if (first or report.closed) and record["kind"] != "opening":
            return "a run does not begin with an opening record"
        if first and not (record["content"].get("format") == FORMAT and record["content"].get("version") == VERSION):
            return f"the log is of another format than version {VERSION}, or was edited"
        if record["kind"] == "closing" and record["content"] != {"records": record["number"]}:
            return "the closing record counts other records than there are"
        return self._key_fault(record, first)

    def _key_fault(self, record: dict[str, Any], first: bool) -> str:
        if not first and ("mac" in record) != self.report.keyed:
            return "the record was not written under the same key as the others"
        if self.key is None:
            return ""
        if "mac" not in record:
            return "the log was not written under a key: verify it without one, unless it ought to have one"
        if first and record["content"].get("secret") != key_check(self.key):
            return "the log was written under another key"
        told = {name: value for name, value in record.items() if name not in ("mac", "digest")}
        if not hmac.compare_digest(record["mac"], _mac(told, self.key)):
            return "the record was written or edited by somebody without the key"
        return ""

    def _take(self, record: dict[str, Any]) -> None:
        report = self.report
        if record["kind"] == "opening":
            if report.records and not report.closed:
                report.notes.append(f"the run before line {record['number']} was not closed: killed, or cut off")
            report.runs += 1
        report.records, report.head = record["number"], record["digest"]
        report.keyed, report.closed = "mac" in record, record["kind"] == "closing"
        self.digests.add(record["digest"])


def _describe_run(settings: dict[str, Any], secret: bytes) -> dict[str, Any]:
    """What an opening record holds. By `secret` it is seen which runs had the same key, and nothing else of it."""
    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "format": FORMAT,
        "version": VERSION,
        "medeid": __version__,
        "libraries": libraries,
        "settings": settings,
        "secret": key_check(secret),
    }


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The record in a line, if it is one, written as this module writes it: no two lines say the same."""
    try:
        record = json.loads(line)
        if not isinstance(record, dict) or _canonical(record) != line:
            return None
    except (ValueError, RecursionError):
        return None
    if record.keys() - {"mac"} != _FIELDS or record["kind"] not in _KINDS or not isinstance(record["content"], dict):
        return None
    digests = [record[name] for name in ("previous", "digest", "mac") if name in record]
    return record if all(isinstance(text, str) and _HEX_DIGEST.fullmatch(text) for text in digests) else None


def _canonical(record: dict[str, Any]) -> bytes:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(record)).hexdigest()


def _mac(record: dict[str, Any], key: bytes) -> str:
    subkey = hmac.digest(key, _CHAIN_LABEL, hashlib.sha256)
    return hmac.new(subkey, _canonical(record), hashlib.sha256).hexdigest()
