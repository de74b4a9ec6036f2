"""What a row of a data set of labelled faces says, in whatever columns and words, checked on the way in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import numpy as np

from ..faces.mesh import LANDMARK_SIZE, NUM_LANDMARKS
from ..manifestations.taxonomy import Finding, Side, UnknownManifestationError, manifestation
from .masks import MAX_FINDINGS

TEXT_COLUMNS = ("source", "skin_tone", "sex", "group")  # optional, kept where they are there
_COLUMNS = ("file_name", "mask_file_name", "subject_id", "split", "findings", "landmarks", "seed", *TEXT_COLUMNS)

BITS_SHIFT = (
    "`label_map` leaves out a sign that has a bit in the mask file, so the bits after it would shift. "
    "Give a black and white mask of each sign instead (`masks` with `{label}`)."
)

_FLAGS = {"": 0.0, "n": 0.0, "no": 0.0, "false": 0.0, "y": 1.0, "yes": 1.0, "true": 1.0}
_OUTSIDE = LANDMARK_SIZE / 8  # px; points of a turned head may lie a little outside of the crop
_SMALLEST_FACE = LANDMARK_SIZE / 16  # px; less than that are shares of the picture's side, not pixels


class DataSetError(ValueError):
    """A data set that cannot be used; the message names the file, the line and the column."""


def fail(place: str, column: str, problem: str) -> NoReturn:
    raise DataSetError(f"{place}, column `{column}`: {problem}")


@dataclass(frozen=True)
class Spelling:
    """How a data set calls its columns and its signs.

    Args:
        columns (`Mapping[str, str or Sequence[str]]`):
            Our name of a column to its name there. Several names for `findings` are columns of one sign each.
        label_map (`Mapping[str, str or None]`):
            A sign as it is written there to one of ours (`"ptosis"`, `"ptosis:left"`), or to None to leave it out.
        default_severity (`float`):
            Of a sign that comes without a severity, or as the flag 1.

    Raises:
        `ValueError`: a sign of `label_map` that the taxonomy lacks, or a severity out of range.
    """

    columns: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    label_map: Mapping[str, str | None] = field(default_factory=dict)
    default_severity: float = 0.6

    def __post_init__(self):
        if not 0.0 < self.default_severity <= 1.0:
            raise ValueError(f"`default_severity` must lie in (0, 1], but is {self.default_severity}.")
        several = [name for name, there in self.columns.items() if name != "findings" and not isinstance(there, str)]
        if several:
            raise ValueError(f"`columns` maps {several[0]!r} to several columns; only findings can have more than one.")
        object.__setattr__(self, "label_map", {_key(word): sign for word, sign in self.label_map.items()})
        for word, sign in self.label_map.items():
            if sign is not None:
                try:
                    _parse_sign(sign)
                except ValueError as error:
                    raise ValueError(f"`label_map` of {word!r}: {error}") from error

    def column(self, name: str) -> str:
        """What one of our columns is called there."""
        return cast(str, self.columns.get(name, name))

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns of one sign each; none where the signs stand in one column."""
        return () if isinstance(self.columns.get("findings", ""), str) else tuple(self.columns["findings"])

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """Columns that `columns` asks for beside those that every data set has."""
        return tuple(name for name in self.columns if name not in _COLUMNS)

    def finding(self, word: str, severity: float | None = None) -> Finding | None:
        """The finding that is written as `word`, or None where `label_map` leaves it out.

        Raises:
            `ValueError`: an unknown sign, or a side or severity that it cannot have.
        """
        sign: str | None = word
        name, _, side = word.partition(":")
        if _key(word) in self.label_map:
            sign = self.label_map[_key(word)]
        elif _key(name) in self.label_map:
            sign = self.label_map[_key(name)]
            sign = f"{sign}:{side}" if sign is not None and side else sign
        if sign is None:
            return None
        name, mapped_side = _parse_sign(sign)
        return Finding(name, mapped_side, self.default_severity if severity is None else severity)


def _key(word: str) -> str:
    return " ".join(word.split()).casefold()


def _parse_sign(text: str) -> tuple[str, Side]:
    name, _, side = (part.strip() for part in text.partition(":"))
    try:
        found = manifestation("_".join(name.lower().split()))
    except UnknownManifestationError as error:
        raise UnknownManifestationError(f"{error} Translate other words by `label_map`.") from error
    return found.name, cast(Side, side.lower() or "both")


@dataclass(frozen=True)
class Record:
    """One row of a data set, read and checked.

    Attributes:
        findings (`tuple[Finding, ...]`): In the order of the mask's bits.
        words (`tuple[str, ...]`): How the data set writes each of them.
        left_out (`bool`): Whether `label_map` left out a sign.
        landmarks (`np.ndarray` or None): float32 `[478, 3]` in pixels of the 256 px crop.
        subject_id (`str`): Whose face it is.
        optional (`dict`): `seed`, the text columns, and those that `columns` asked for; None where there is none.
    """

    findings: tuple[Finding, ...]
    words: tuple[str, ...]
    left_out: bool
    landmarks: np.ndarray | None
    subject_id: str
    optional: dict[str, Any]


def read_record(row: Mapping[str, Any], spelling: Spelling, place: str) -> Record:
    """Reads all of a row but its pictures.

    Args:
        row (`Mapping`):
            Column to value, as a table has them.
        spelling (`Spelling`):
            How its columns and signs are called.
        place (`str`):
            The file and the line, for messages.

    Raises:
        `DataSetError`: whatever is wrong with it.
    """
    entries = list(_signs(row, spelling, place))
    signs = [(word, finding) for word, finding in entries if finding]
    if len(signs) > MAX_FINDINGS:
        problem = f"{len(signs)} findings, but a mask file has room for {MAX_FINDINGS}; keep the most severe."
        fail(place, findings_column(spelling), problem)
    optional: dict[str, Any] = {
        name: cell_text(row.get(spelling.column(name))) or None for name in (*TEXT_COLUMNS, *spelling.extra_columns)
    }
    return Record(
        tuple(finding for _, finding in signs),
        tuple(word for word, _ in signs),
        len(signs) < len(entries),
        _landmarks(row.get(spelling.column("landmarks")), place, spelling.column("landmarks")),
        required(row, "subject_id", spelling, place),
        optional | {"seed": _seed(row.get(spelling.column("seed")), place, spelling.column("seed"))},
    )


def required(row: Mapping[str, Any], name: str, spelling: Spelling, place: str) -> str:
    """The text of a column that must not be empty."""
    column = spelling.column(name)
    if column not in row:
        raise _missing_column(place, column, name, row)
    return cell_text(row[column]) or fail(place, column, "is empty, but every row must have one.")


def check_columns(there: Sequence[str], spelling: Spelling, place: str) -> None:
    """Raises a [`DataSetError`] if a column is missing that every data set must have, or that `columns` names."""
    for name in ("file_name", "subject_id", "findings", *spelling.columns):
        columns = spelling.columns.get(name, name)
        for column in (columns,) if isinstance(columns, str) else columns:
            if column not in there:
                raise _missing_column(place, column, name, there)


def _missing_column(place: str, column: str, name: str, there: Iterable[str]) -> DataSetError:
    remedy = f'Name it by `columns={{"{name}": ...}}`'
    if name == "subject_id":
        remedy += ', or by `columns={"subject_id": "file_name"}` if no two pictures show the same person'
    return DataSetError(f"{place}: there is no column `{column}`; there are: {', '.join(there)}. {remedy}.")


def findings_column(spelling: Spelling) -> str:
    return ", ".join(spelling.label_columns) or spelling.column("findings")


def cell_text(value: Any) -> str:
    """A cell as text without blanks around it; empty for None."""
    return "" if value is None else str(value).strip()


def _seed(value: Any, place: str, column: str) -> int | None:
    try:
        return int(value) if cell_text(value) else None
    except ValueError:
        fail(place, column, f"must be an integer, but is {value!r}.")


def _signs(row: Mapping[str, Any], spelling: Spelling, place: str) -> Iterator[tuple[str, Finding | None]]:
    """Each sign of the row as (the word there, the finding or None if it is left out)."""
    for column in spelling.label_columns or (spelling.column("findings"),):
        value = row.get(column)
        try:
            for word, severity in _cell(column, value) if spelling.label_columns else _entries(value):
                yield word, spelling.finding(word, severity)
        except ValueError as error:
            fail(place, column, str(error))


def _cell(column: str, value: Any) -> Sequence[tuple[str, float | None]]:
    """The entry of a column of one sign: none for 0, no severity for the flag 1."""
    text = cell_text(value).lower()
    severity = _FLAGS[text] if text in _FLAGS else _number(value)
    if not 0.0 <= severity <= 1.0:
        raise ValueError(f"a severity must lie in [0, 1], but is {value}. Divide grades by the highest grade.")
    return [(column, None if severity == 1.0 else severity)] if severity else []


def _entries(value: Any) -> Sequence[tuple[str, float | None]]:
    """The entries of a column that lists the signs: a list, its JSON text, or text with semicolons."""
    if isinstance(value, str):
        is_json = value.lstrip().startswith("[")
        value = json.loads(value) if is_json else [part for part in value.split(";") if part.strip()]
    if value is None:
        raise ValueError("is missing; write [] for a face without findings.")
    if not isinstance(value, Sequence):
        raise ValueError(f'must be a list or text such as "ptosis:left=0.7; jaundice", but is {value!r}.')
    return [_dict_entry(entry) if isinstance(entry, Mapping) else _text_entry(str(entry)) for entry in value]


def _dict_entry(entry: Mapping[str, Any]) -> tuple[str, float | None]:
    name, side, severity = (entry.get(key) for key in ("manifestation", "side", "severity"))
    if not name:
        raise ValueError(f"a finding has no `manifestation`, only: {', '.join(entry)}.")
    return f"{name}:{side}" if side else str(name), None if severity is None else _number(severity)


def _text_entry(entry: str) -> tuple[str, float | None]:
    word, _, severity = entry.partition("=")
    return word.strip(), _number(severity) if severity.strip() else None


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is no number. Write 0, 1, or a severity such as 0.7.") from None


def _landmarks(value: Any, place: str, column: str) -> np.ndarray | None:
    try:
        value = json.loads(value) if isinstance(value, str) and value.strip() else value
        points = np.asarray(value, np.float32) if value is not None and len(value) else None
    except (TypeError, ValueError):
        fail(place, column, f"must be {NUM_LANDMARKS} points [x, y, z], as nested lists of numbers.")
    if points is None:
        return None
    if points.shape != (NUM_LANDMARKS, 3):
        fail(place, column, f"must have shape [{NUM_LANDMARKS}, 3], but has {list(points.shape)}.")
    if not np.isfinite(points).all():
        fail(place, column, "holds a number that is not finite.")
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    unit = f"x and y count in pixels of the crop at {LANDMARK_SIZE} px, whatever the size of the file"
    if (high - low).max() < _SMALLEST_FACE:
        fail(place, column, f"the face is {(high - low).max():.3g} px wide; {unit}. Multiply shares by its side.")
    if low.min() < -_OUTSIDE or high.max() > LANDMARK_SIZE + _OUTSIDE:
        fail(place, column, f"points lie outside of the picture, from {low.min():.0f} to {high.max():.0f} px; {unit}.")
    return points
