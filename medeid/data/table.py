"""Tables with a row for each picture of a folder: CSV and JSONL files, read row by row."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.json
from PIL import Image

from .masks import encode_masks
from .records import (
    BITS_SHIFT,
    TEXT_COLUMNS,
    DataSetError,
    Record,
    Spelling,
    cell_text,
    check_columns,
    fail,
    findings_column,
    required,
)

_LOSSY = (".jpg", ".jpeg", ".webp")
_CHUNK = 8 << 20  # bytes of a table in memory at a time
_BLOCK = 1 << 20  # bytes that one thread parses
_DEFAULT_TABLES = ("{split}/metadata.jsonl", "{split}/metadata.csv", "metadata.jsonl", "metadata.csv")

# The form in which we write tables, which Arrow reads fast.
_POINTS = pa.list_(pa.list_(pa.float32()))
_FINDINGS = pa.list_(pa.struct({"manifestation": pa.string(), "side": pa.string(), "severity": pa.float64()}))


@dataclass(frozen=True)
class LabelTable:
    """A CSV or JSONL file with a row for each picture of a folder.

    Args:
        path (`Path`):
            The table. The names of pictures and masks in it are relative to its folder.
        spelling (`Spelling`):
            How its columns and signs are called.
        images (`str`):
            Pattern of a picture's path, with `{file_name}` and `{stem}` (without suffix).
        masks (`str` or None):
            Pattern of a mask's path, with `{file_name}`, `{stem}` and, for a binary mask of each sign, `{label}`.
        split (`str`):
            The rows to keep.
        assignment (`str`):
            What tells a row's split: `"table"` (all rows have it), `"column"`, or `"subject"` (its digest).
        validation_share (`float`):
            Share of the subjects that go to `"validation"`, if the subject tells the split.
        siblings (`tuple[Path, ...]`):
            The tables of other splits.
        kept (`frozenset[str]`, *optional*):
            Names of the pictures to keep, as the table has them; by default all.
    """

    path: Path
    spelling: Spelling
    images: str
    masks: str | None
    split: str
    assignment: Literal["table", "column", "subject"]
    validation_share: float
    siblings: tuple[Path, ...] = ()
    kept: frozenset[str] | None = None

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each row as (file and line, column to value), of all splits."""
        for line, row in read_rows(self.path, _schema(self.spelling)):
            yield f"{self.path}, line {line}", row

    def sibling_subjects(self) -> Iterator[tuple[str, str]]:
        """Each subject of the other splits' tables, with file and line."""
        schema = pa.schema({self.spelling.column("subject_id"): pa.string()})
        for path in self.siblings:
            for line, row in read_rows(path, schema):
                yield f"{path}, line {line}", cell_text(row.get(self.spelling.column("subject_id")))

    def split_of(self, row: Mapping[str, Any], place: str) -> str:
        """The split that a row belongs to.

        Raises:
            `DataSetError`: no subject or split in the row.
        """
        if self.assignment == "column":
            return required(row, "split", self.spelling, place)
        if self.assignment == "table":
            return self.split
        return subject_split(required(row, "subject_id", self.spelling, place), self.validation_share)

    def is_wanted(self, row: Mapping[str, Any], place: str) -> bool:
        """Whether a row is of the split, and kept."""
        if self.split_of(row, place) != self.split:
            return False
        return self.kept is None or required(row, "file_name", self.spelling, place) in self.kept

    def image(self, row: Mapping[str, Any], place: str) -> dict[str, Any]:
        """The picture, which is there, as `datasets.Image` stores it.

        Raises:
            `DataSetError`: no name in the row, or no such file.
        """
        path = self._resolve(self.images, required(row, "file_name", self.spelling, place))
        if not os.path.isfile(path):
            problem = f"there is no picture {path}. Names are relative to the table's folder; see `images`."
            fail(place, self.spelling.column("file_name"), problem)
        return {"path": path, "bytes": None}

    def mask(self, row: Mapping[str, Any], record: Record, place: str) -> dict[str, Any] | None:
        """The bit field of the findings, as `datasets.Image` stores it, or None if the row has none.

        Args:
            record (`Record`):
                What the row says.

        Raises:
            `DataSetError`: a mask that the row names is not there; or some of the binary masks are there, but not all.
        """
        column = self.spelling.column("mask_file_name")
        named = cell_text(row.get(column))
        if not named and self.masks is None:
            return None
        file_name = required(row, "file_name", self.spelling, place)
        if named or "{label}" not in str(self.masks):
            path = os.path.join(self.path.parent, named) if named else self._resolve(str(self.masks), file_name)
            if not os.path.isfile(path):
                return fail(place, column, f"there is no mask {path}.") if named else None
            if record.left_out:
                fail(place, findings_column(self.spelling), BITS_SHIFT)
            return {"path": path, "bytes": None}
        return self._packed_masks(file_name, record.words, place)

    def _packed_masks(self, file_name: str, words: Sequence[str], place: str) -> dict[str, Any] | None:
        paths = [self._resolve(str(self.masks), file_name, word.replace(":", "_")) for word in words]
        missing = [path for path in paths if not os.path.isfile(path)]
        if missing and len(missing) < len(paths):
            problem = f"no mask {missing[0]}, but there are others. Give a mask of each sign, or none of them."
            fail(place, findings_column(self.spelling), problem)
        if missing or not paths:
            return None
        packed = io.BytesIO()
        encode_masks(_binary_masks(paths, place)).save(packed, "PNG")
        return {"path": None, "bytes": packed.getvalue()}

    def _resolve(self, pattern: str, file_name: str, label: str = "") -> str:
        stem = os.path.splitext(file_name)[0]
        return os.path.join(self.path.parent, pattern.format(file_name=file_name, stem=stem, label=label))


def check_pattern(name: str, pattern: str, fields: Sequence[str]) -> None:
    """Raises a ValueError if a pattern of paths holds another field than these, or none of them."""
    try:
        filled = pattern.format(**dict.fromkeys(fields, "x"))
    except (KeyError, IndexError, ValueError, AttributeError):
        filled = pattern
    if filled == pattern:
        listed = ", ".join(f"{{{each}}}" for each in fields)
        raise ValueError(f"`{name}` must be a path with {listed} in place of the names, but is {pattern!r}.")


def subject_split(subject_id: str, validation_share: float) -> str:
    """`"validation"` for about `validation_share` of all subjects, else `"train"`: the same on every machine."""
    digest = hashlib.sha256(subject_id.encode()).digest()
    return "validation" if int.from_bytes(digest[:8], "big") < validation_share * 2**64 else "train"


def _binary_masks(paths: Sequence[str], place: str) -> np.ndarray:
    """Reads a black and white picture for each sign.

    Returns:
        `np.ndarray`: bool `[F, H, W]`, True where it is not black.

    Raises:
        `DataSetError`: one that cannot be read, is lossy, or has another size than the first.
    """
    masks: list[np.ndarray] = []
    for path in paths:
        if path.lower().endswith(_LOSSY):
            raise DataSetError(f"{place}: the mask {path} is in a lossy format, which frays its rim. Save it as PNG.")
        try:
            with Image.open(path) as picture:
                mask = np.asarray(picture.convert("RGB")).max(axis=2) > 0
        except (OSError, SyntaxError) as error:
            raise DataSetError(f"{place}: the mask {path} cannot be read ({error}).") from error
        if masks and mask.shape != masks[0].shape:
            sizes = f"{list(mask.shape)}, the first of the row {list(masks[0].shape)}"
            raise DataSetError(f"{place}: the mask {path} has size {sizes}. All must have the picture's.")
        masks.append(mask)
    return np.stack(masks)


def open_table(
    folder: Path, table: str | None, split: str, spelling: Spelling, images: str, masks: str | None, share: float
) -> LabelTable | None:
    """Finds the table of a split in a folder.

    Args:
        folder (`Path`):
            Where the table is, or where its `train/` and `validation/` are.
        table (`str` or None):
            Its path in the folder, with `{split}` if there is one for each; by default `{split}/metadata.jsonl`,
            `{split}/metadata.csv`, `metadata.jsonl` or `metadata.csv`.

    Returns:
        `LabelTable` or None: None if `table` is not given and none of the default ones is there.

    Raises:
        `DataSetError`: it lacks a column, or the split is none of the table's.
    """
    for pattern in (table,) if table else _DEFAULT_TABLES:
        path = folder / pattern.replace("{split}", split)
        if path.is_file():
            break
    else:
        _fail_without_table(folder, table, split)
        return None
    there = table_columns(path)
    check_columns(there, spelling, str(path))
    if "{split}" in pattern:
        siblings = tuple(other for other in sorted(folder.glob(pattern.replace("{split}", "*"))) if other != path)
        return LabelTable(path, spelling, images, masks, split, "table", share, siblings)
    if spelling.column("split") in there:
        return LabelTable(path, spelling, images, masks, split, "column", share)
    if split not in ("train", "validation"):
        raise DataSetError(
            f'{path}: without a column `{spelling.column("split")}` the splits are "train" and "validation", by '
            f'subject, but `split` is {split!r}. Name the column by `columns={{"split": ...}}`.'
        )
    return LabelTable(path, spelling, images, masks, split, "subject", share)


def _fail_without_table(folder: Path, table: str | None, split: str) -> None:
    """Raises if a table must be there: it was asked for, another split has one, or one lies under another name."""
    for pattern in (table,) if table else _DEFAULT_TABLES[:2]:
        others = sorted(folder.glob(pattern.replace("{split}", "*"))) if "{split}" in pattern else []
        if others:
            listed = ", ".join(str(other.relative_to(folder)) for other in others)
            raise DataSetError(f"{folder}: there is no table for `split` {split!r}; there are: {listed}.")
    tables = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _READERS)
    listed = ", ".join(tables) or "none in CSV or JSONL"
    if table:
        raise DataSetError(f"{folder}: there is no `table` {table}; there are: {listed}.")
    if tables:
        raise DataSetError(f"{folder}: which table has the labels? Name it by `table`; there are: {listed}.")


def read_rows(path: Path, schema: pa.Schema | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table, each with its line, without the whole of it in memory.

    Args:
        path (`Path`):
            A `.jsonl`, `.csv` or `.tsv` file.
        schema (`pa.Schema`, *optional*):
            What to read of a JSONL file; a file of this form is read fast. By default all of it.

    Raises:
        `DataSetError`: it cannot be read.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataSetError(f"{path}: a table must be a .jsonl, .csv or .tsv file.")
    try:
        yield from reader(path, schema)
    except UnicodeDecodeError as error:
        raise DataSetError(f"{path}: is not UTF-8 ({error.reason}). Save the table as UTF-8.") from error
    except OSError as error:
        raise DataSetError(f"{path}: cannot be read ({error.strerror}).") from error


def table_columns(path: Path) -> list[str]:
    """The columns of a CSV file, or the keys of the first row of a JSONL file.

    Raises:
        `DataSetError`: it cannot be read, or has no rows.
    """
    for _, row in read_rows(path):
        return list(row)
    raise DataSetError(f"{path}: the table has no rows.")


def _schema(spelling: Spelling) -> pa.Schema:
    text = ("file_name", "mask_file_name", "subject_id", "split", *TEXT_COLUMNS, *spelling.extra_columns)
    fields: dict[str, pa.DataType] = {spelling.column(name): pa.string() for name in text}
    fields[spelling.column("seed")] = pa.int64()
    fields[spelling.column("landmarks")] = _POINTS
    if spelling.label_columns:
        fields |= dict.fromkeys(spelling.label_columns, pa.float64())
    else:
        fields[spelling.column("findings")] = _FINDINGS
    return pa.schema(fields)


def _read_jsonl(path: Path, schema: pa.Schema | None) -> Iterator[tuple[int, dict[str, Any]]]:
    line = 1
    with path.open("rb") as file:
        while chunk := file.readlines(_CHUNK):
            numbered = [(line + i, text) for i, text in enumerate(chunk) if not text.isspace()]
            line += len(chunk)
            rows = _parse_fast([text for _, text in numbered], schema) if schema and numbered else None
            if rows is None:
                yield from ((number, parse_row(text, f"{path}, line {number}")) for number, text in numbered)
            else:
                yield from zip((number for number, _ in numbered), rows, strict=True)


def _parse_fast(lines: list[bytes], schema: pa.Schema) -> Iterator[dict[str, Any]] | None:
    """The rows by Arrow, several times as fast as by `json`; None if they are not of the schema."""
    block = max(_BLOCK, *(len(line) + 1 for line in lines))  # Arrow wants whole rows in a block
    try:
        table = pa.json.read_json(
            io.BytesIO(b"".join(lines)),
            pa.json.ReadOptions(block_size=block),
            pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    if len(table) != len(lines):
        return None
    return arrow_rows(table, next((column.name for column in schema if column.type == _POINTS), ""))


def parse_row(line: bytes, place: str) -> dict[str, Any]:
    """A row in JSON.

    Raises:
        `DataSetError`: it is not an object in JSON.
    """
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataSetError(f"{place}: is not JSON ({error.msg} at character {error.pos + 1}).") from error
    except UnicodeDecodeError as error:
        raise DataSetError(f"{place}: is not UTF-8 ({error.reason}). Save it as UTF-8.") from error
    if not isinstance(row, dict):
        raise DataSetError(f'{place}: must be an object such as {{"file_name": ...}}, but is a {type(row).__name__}.')
    return row


def arrow_rows(table: pa.Table, landmarks: str) -> Iterator[dict[str, Any]]:
    """The rows of an Arrow table as Python objects; their landmarks float32 `[478, 3]` where they are whole."""
    if landmarks not in table.column_names:
        yield from table.to_pylist()
        return
    column = table[landmarks].combine_chunks()
    column = column.storage if isinstance(column.type, pa.ExtensionType) else column
    try:
        lists = column.cast(_POINTS)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        yield from table.to_pylist()
        return
    for row, points in zip(table.drop_columns([landmarks]).to_pylist(), lists, strict=True):
        yield row | {landmarks: _to_array(points.values)}


def _to_array(points: pa.ListArray | None) -> np.ndarray | list | None:
    if points is None:
        return None
    values = points.flatten()
    if len(values) == 3 * len(points) and (points.value_lengths().to_numpy(zero_copy_only=False) == 3).all():
        return values.to_numpy(zero_copy_only=False).reshape(-1, 3).copy()
    return points.to_pylist()


def _read_csv(path: Path, schema: pa.Schema | None) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        # The delimiter is the header's most frequent one: spreadsheets of half of Europe write semicolons.
        reader = csv.DictReader(file, delimiter=max(",;\t", key=header.count), strict=True)
        columns = reader.fieldnames or []
        twice = [name for name in columns if columns.count(name) > 1]
        if twice:
            raise DataSetError(f"{path}, line 1: two columns are called `{twice[0]}`. Rename one.")
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise DataSetError(
                        f"{path}, line {reader.line_num}: has {'more' if None in row else 'fewer'} cells than the "
                        "header. Put text that holds the delimiter in double quotes."
                    )
                yield reader.line_num, row
        except csv.Error as error:
            raise DataSetError(f"{path}, line {reader.reader.line_num}: is not CSV ({error}).") from error


_READERS = {".jsonl": _read_jsonl, ".csv": _read_csv, ".tsv": _read_csv}
