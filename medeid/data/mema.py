"""MeMa and what is in its form: faces with findings, a mask of each finding, and landmarks."""

from __future__ import annotations

import itertools
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import fsspec
from datasets import Dataset, Features, IterableDataset, Value
from PIL import Image

from ..faces.mesh import NUM_LANDMARKS
from ..manifestations.taxonomy import LABELS, encode_findings, with_implied
from .masks import decode_masks, encode_masks, masks_by_manifestation
from .records import (
    BITS_SHIFT,
    TEXT_COLUMNS,
    DataSetError,
    Record,
    Spelling,
    check_columns,
    fail,
    read_record,
    required,
)
from .table import LabelTable, arrow_rows, check_pattern, open_table, parse_row

__all__ = ["FEATURES", "DataSetError", "decode_masks", "encode_masks", "load_mema", "masks_by_manifestation"]

FEATURES = Features(
    {
        "image": datasets.Image(mode="RGB"),
        "mask": datasets.Image(),
        "findings": [{"manifestation": Value("string"), "side": Value("string"), "severity": Value("float64")}],
        "labels": datasets.Sequence(Value("uint8"), length=len(LABELS)),
        "severities": datasets.Sequence(Value("float32"), length=len(LABELS)),
        "landmarks": datasets.Sequence(datasets.Sequence(Value("float32"), length=3), length=NUM_LANDMARKS),
        "subject_id": Value("string"),
        "seed": Value("int64"),
        **{name: Value("string") for name in TEXT_COLUMNS},
    }
)  # fmt: skip

_PROBLEMS_TOLD = 10
_PART = 1000  # rows that are Python objects at a time, which take several times the room
_IMAGE_MEMBERS = ("jpg", "jpeg", "webp", "png")  # of a tar shard; a PNG is the picture if there is no JPEG
_MASK_MEMBERS = ("mask.png", "png")


def load_mema(
    path_or_hub_id: str | Path,
    split: str = "train",
    *,
    streaming: bool = False,
    table: str | None = None,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    label_map: Mapping[str, str | None] | None = None,
    default_severity: float = 0.6,
    images: str = "{file_name}",
    masks: str | None = None,
    validation_share: float = 0.1,
    data_files: str | Mapping[str, str] | None = None,
    revision: str | None = None,
    kept: str | Path | None = None,
    check: bool = False,
) -> Dataset | IterableDataset:
    """Loads MeMa, what `medeid simulate` wrote, or a hospital's own folder, all with the columns of `FEATURES`.

    Every row is checked, but no picture is opened: a row with landmarks takes half a millisecond, and 6 KB of memory.
    The labels of a folder are held in memory and nowhere on disk. Streaming reads row by row and holds nothing, so it
    cannot see what takes two rows: a picture named twice, a subject in two splits. Neither sees what takes the pixels:
    a picture that does not decode, a mask of another size, a bit beyond the last finding; for that there is `check`.
    Binary masks (`masks` with `{label}`) are the exception: they are read and packed as their row is.

    Args:
        path_or_hub_id (`str` or `Path`):
            A folder, or the name of a data set on the Hub.
        split (`str`, *optional*, defaults to `"train"`):
            The rows to load. A table in a folder `{split}/` has that split's, else a column `split` tells; without one,
            a digest of the subject parts `"train"` from `"validation"`, the same way every time.
        streaming (`bool`, *optional*, defaults to `False`):
            Return an `IterableDataset`.
        table (`str`, *optional*):
            The CSV or JSONL file in the folder, with `{split}` in its name if there is one for each split; by default
            `{split}/metadata.jsonl`, `{split}/metadata.csv`, `metadata.jsonl` or `metadata.csv`.
        columns (`Mapping`, *optional*):
            Our name of a column to its name in the table, for each that differs: `file_name`, `mask_file_name`,
            `subject_id`, `split`, `findings`, `landmarks`, `seed`, `source`, `skin_tone`, `sex`, `group`. A list for
            `findings` names columns of one sign each, with 0, 1 or a severity. Another key adds a column of text; all
            other columns of the table stay unread. On the Hub, `file_name` and `mask_file_name` are the pictures.
        label_map (`Mapping`, *optional*):
            A sign in the table's words to one of ours, or to None to leave it out.
        default_severity (`float`, *optional*, defaults to 0.6):
            Of a sign without a severity, or with the flag 1.
        images (`str`, *optional*, defaults to `"{file_name}"`):
            Path of a picture from the table's folder, with `{file_name}` or `{stem}` (the name without its suffix).
        masks (`str`, *optional*):
            Path of a mask in the same way, if no column names it. With `{label}` there is a black and white picture for
            each sign, called as the table calls the sign (`:` as `_`). A row may be without masks.
        validation_share (`float`, *optional*, defaults to 0.1):
            Share of the subjects in `"validation"` where a digest tells the split.
        data_files (`str` or `Mapping`, *optional*):
            Pattern of the split's files, or one for each split. Tar files are shards in WebDataset form (`x.json` with
            the row, `x.jpg`, `x.png` with the mask), and are streamed.
        revision (`str`, *optional*):
            Of the data set on the Hub.
        kept (`str` or `Path`, *optional*):
            File with the names of the pictures to load, as `medeid filter` writes it (`kept.txt`).
        check (`bool`, *optional*, defaults to `False`):
            Also open every picture and mask.

    Returns:
        `Dataset` or `IterableDataset`: `image` (RGB), `mask` (bit field of the findings or None, see [`decode_masks`]),
        `findings` (as the table has them), `labels` and `severities` over `LABELS` (with what the findings imply),
        `landmarks` (`[478, 3]` in pixels of the crop at 256 px, or None), `subject_id`, `seed`, `source`, `skin_tone`,
        `sex` and `group` (None where unknown), and what `columns` adds.

    Raises:
        `DataSetError`: the data cannot be used; up to ten rows are named, with line and column (streaming: the first).
        `ValueError`: an argument cannot be used.
    """
    if not 0.0 <= validation_share < 1.0:
        raise ValueError(f"`validation_share` must lie in [0, 1), but is {validation_share}.")
    check_pattern("images", images, ("file_name", "stem"))
    if masks is not None:
        check_pattern("masks", masks, ("file_name", "stem", "label"))
    spelling = Spelling(columns or {}, label_map or {}, default_severity)
    folder = Path(path_or_hub_id)
    if not folder.is_dir() and (folder.exists() or len(folder.parts) > 2 or str(path_or_hub_id).startswith((".", "/"))):
        raise ValueError(f"`path_or_hub_id` is no folder: {path_or_hub_id}. Give the folder that the table lies in.")

    if isinstance(data_files, Mapping) and split not in data_files:
        raise ValueError(f"`data_files` names no files of `split` {split!r}, only of: {', '.join(data_files)}.")
    files = data_files[split] if isinstance(data_files, Mapping) else data_files
    if files is not None and files.endswith((".tar", ".tar.gz", ".tgz")):
        if not streaming:
            raise ValueError("`data_files` are tar shards, which are read as a stream. Pass `streaming=True`.")
        shards = _find_shards(folder, str(path_or_hub_id), revision, files)
        return _stream(partial(_tar_examples, spelling=spelling), spelling, shards=shards, check=check)
    labels = None
    if folder.is_dir() and data_files is None:
        labels = open_table(folder, table, split, spelling, images, masks, validation_share)
    if labels is not None:
        if kept is not None:
            labels = replace(labels, kept=_read_kept(Path(kept), folder, labels.path.parent))
        if streaming:
            return _stream(_table_examples, spelling, table=labels, check=check)
        return _load_table(labels, check)
    if table or masks or kept or images != "{file_name}":
        problem = f"are for a folder with a table, not for {path_or_hub_id}."
        raise ValueError(f"`table`, `images`, `masks` and `kept` {problem}")
    loaded = datasets.load_dataset(
        str(path_or_hub_id),
        data_files={split: files} if files else None,
        revision=revision,
        streaming=streaming,
    )
    return _convert(loaded, split, spelling, str(path_or_hub_id), check)


def _read_kept(path: Path, folder: Path, table_folder: Path) -> frozenset[str]:
    """Names relative to the table's folder, of a file with names relative to the data set's."""
    try:
        names = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"`kept` cannot be read: {path} ({error.strerror}). Give the kept.txt of a report.") from error
    prefix = "".join(f"{part}/" for part in table_folder.relative_to(folder).parts)
    return frozenset(name.removeprefix(prefix) for name in names if name.startswith(prefix))


def _features(spelling: Spelling) -> Features:
    return Features({**FEATURES, **{name: Value("string") for name in spelling.extra_columns}})


def _stream(examples: Callable[..., Iterator[dict[str, Any]]], spelling: Spelling, **kwargs: Any) -> IterableDataset:
    return IterableDataset.from_generator(examples, features=_features(spelling), gen_kwargs=kwargs)


def _example(record: Record, image: Any, mask: Any, place: str, check: bool) -> dict[str, Any]:
    """A row of the data set; the pictures as `datasets.Image` stores them."""
    if check:
        _check_pixels(image, mask, len(record.findings), place)
    labels, severities = encode_findings(with_implied(record.findings))
    return {
        "image": image,
        "mask": mask,
        "findings": [asdict(finding) for finding in record.findings],
        "labels": labels,
        "severities": severities,
        "landmarks": record.landmarks,
        "subject_id": record.subject_id,
        **record.optional,
    }


def _check_pixels(image: Any, mask: Any, count: int, place: str) -> None:
    picture = _decode(image, place, "image")
    if picture.mode.startswith(("I", "F")):
        fail(place, "image", f"has more than 8 bits a channel (mode {picture.mode}). Convert it to 8-bit RGB.")
    if mask is None:
        return
    field = _decode(mask, place, "mask")
    if field.size != picture.size:
        sizes = f"{field.width} x {field.height} px, but the upright picture {picture.width} x {picture.height}"
        fail(place, "mask", f"has {sizes}. Save it at the picture's size.")
    try:
        decode_masks(field, count)
    except ValueError as error:
        fail(place, "mask", str(error))


def _decode(value: Any, place: str, column: str) -> Image.Image:
    try:
        return datasets.Image().decode_example(value)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        fail(place, column, f"cannot be decoded ({error}). Export it again.")


def _build(
    rows: Iterable[tuple[str, dict[str, Any]]],
    example: Callable[[dict[str, Any], str], dict[str, Any] | None],
    features: Features,
    source: str,
) -> Dataset:
    """Collects the examples of all rows; None leaves a row out, and errors are told together."""
    parts: list[Dataset] = []
    examples: list[dict[str, Any]] = []
    problems: list[str] = []
    for place, row in rows:
        try:
            made = example(row, place)
        except DataSetError as error:
            problems.append(str(error))
            if len(problems) == _PROBLEMS_TOLD:
                break
            continue
        examples += [] if made is None else [made]
        if len(examples) == _PART:
            parts.append(Dataset.from_list(examples, features=features))
            examples = []
    if problems:
        raise DataSetError("\n".join(problems))
    if examples:
        parts.append(Dataset.from_list(examples, features=features))
    if not parts:
        raise DataSetError(f"{source}: no row is left.")
    return datasets.concatenate_datasets(parts).select_columns(list(features))


def _table_example(table: LabelTable, row: Mapping[str, Any], place: str, check: bool) -> dict[str, Any]:
    record = read_record(row, table.spelling, place)
    image = table.image(row, place)
    return _example(record, image, table.mask(row, record, place), place, check)


def _table_examples(table: LabelTable, check: bool) -> Iterator[dict[str, Any]]:
    for place, row in table.rows():
        if table.is_wanted(row, place):
            yield _table_example(table, row, place, check)


def _load_table(table: LabelTable, check: bool) -> Dataset:
    places: dict[str, str] = {}
    splits: dict[str, str] = {}

    def example(row: dict[str, Any], place: str) -> dict[str, Any] | None:
        name = required(row, "file_name", table.spelling, place)
        first = places.setdefault(name, place)
        if first != place:
            fail(place, table.spelling.column("file_name"), f"the same picture is in {first}. Remove one of the rows.")
        split = table.split_of(row, place)
        subject = required(row, "subject_id", table.spelling, place)
        if splits.setdefault(subject, split) != split:
            problem = f"the subject is in split {splits[subject]!r} and in {split!r}. Put all of a subject into one."
            fail(place, table.spelling.column("subject_id"), problem)
        return _table_example(table, row, place, check) if table.is_wanted(row, place) else None

    asked = f"{table.path}, split {table.split!r}" + (", of those in `kept`" if table.kept is not None else "")
    loaded = _build(table.rows(), example, _features(table.spelling), asked)
    for place, subject in table.sibling_subjects():
        if subject in splits:
            problem = f"the subject is also in {table.path}. Put all of a subject into one split."
            fail(place, table.spelling.column("subject_id"), problem)
    if table.masks and loaded.data.column("mask").null_count == len(loaded):
        raise DataSetError(f"{table.path}: `masks` {table.masks!r} is the path of no file, from the table's folder.")
    return loaded


def _find_shards(folder: Path, name: str, revision: str | None, pattern: str) -> list[str]:
    base = str(folder.resolve()) if folder.is_dir() else f"hf://datasets/{name}" + (f"@{revision}" if revision else "")
    filesystem, root = fsspec.url_to_fs(base)
    shards = [filesystem.unstrip_protocol(path) for path in sorted(filesystem.glob(f"{root}/{pattern}"))]
    if not shards:
        raise DataSetError(f"{base}: `data_files` {pattern!r} matches no file.")
    return shards


def _tar_examples(shards: list[str], spelling: Spelling, check: bool) -> Iterator[dict[str, Any]]:
    for shard in shards:
        for key, members in _tar_samples(shard):
            place = f"{shard}, sample {key}"
            if "json" not in members:
                raise DataSetError(f"{place}: has no member .json with the row; there are: {', '.join(members)}.")
            image = next((name for name in _IMAGE_MEMBERS if name in members), None)
            if image is None:
                raise DataSetError(f"{place}: has no picture (.{', .'.join(_IMAGE_MEMBERS)}).")
            mask = next((name for name in _MASK_MEMBERS if name in members and name != image), None)
            record = read_record(parse_row(members["json"], place), spelling, place)
            if mask and record.left_out:
                fail(place, spelling.column("findings"), BITS_SHIFT)
            stored = {name: {"path": f"{key}.{name}", "bytes": data} for name, data in members.items()}
            yield _example(record, stored[image], stored[mask] if mask else None, place, check)


def _tar_samples(shard: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of a shard: neighbouring members that share a name up to its first dot."""
    try:
        with fsspec.open(shard, "rb") as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
            files = ((member, archive.extractfile(member)) for member in archive)
            parts = ((*_split_member(member.name), file.read()) for member, file in files if file)
            for key, group in itertools.groupby(parts, key=lambda part: part[0]):
                yield key, {suffix: data for _, suffix, data in group}
    except tarfile.TarError as error:
        raise DataSetError(f"{shard}: is not a whole tar file ({error}).") from error


def _split_member(name: str) -> tuple[str, str]:
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return folder + slash + stem, suffix.lower()


def _convert(
    loaded: Mapping[str, Dataset | IterableDataset], split: str, spelling: Spelling, source: str, check: bool
) -> Dataset | IterableDataset:
    """Brings a split that `datasets` loaded to our columns."""
    if split not in loaded:
        raise DataSetError(f"{source}: has no split {split!r}; there are: {', '.join(map(str, loaded))}.")
    raw = loaded[split]
    there = raw.column_names or []
    if "__key__" in there:
        raise DataSetError(f'{source}: holds tar shards. Name them: `data_files="*.tar"`, with `streaming=True`.')
    check_columns(there, replace(spelling, columns={"file_name": "image", **spelling.columns}), source)
    pictures = [str(spelling.columns.get("file_name", "image")), str(spelling.columns.get("mask_file_name", "mask"))]
    if pictures[1] in there and None in spelling.label_map.values():
        raise ValueError(f"`label_map`: {BITS_SHIFT}")
    for column in pictures:
        raw = raw.cast_column(column, datasets.Image(decode=False)) if column in there else raw
    place = f"{source}, split {split!r}, row"
    example = partial(_loaded_example, spelling=spelling, pictures=pictures, check=check)
    if isinstance(raw, IterableDataset):
        numbered = partial(_numbered_example, example=example, place=place)
        mapped = raw.map(numbered, with_indices=True, remove_columns=there)
        return mapped.cast(_features(spelling))  # `map` with `features` would leave the pictures undecoded
    labels = _build(_loaded_rows(raw, pictures, spelling, place, check), example, _features(spelling), source)
    _check_subjects(loaded, split, set(labels["subject_id"]), spelling.column("subject_id"), source)
    # Beside each other, not row by row: the pictures stay where `datasets` keeps them.
    present = {column: name for column, name in zip(pictures, ("image", "mask"), strict=True) if column in there}
    kept = raw.select_columns(list(present)).rename_columns(present)
    for name in present.values():
        kept = kept.cast_column(name, FEATURES[name])
    joined = datasets.concatenate_datasets([labels.remove_columns(list(present.values())), kept], axis=1)
    return joined.select_columns(list(labels.features))


def _numbered_example(
    row: Mapping[str, Any], index: int, *, example: Callable[[Mapping[str, Any], str], dict[str, Any]], place: str
) -> dict[str, Any]:
    return example(row, f"{place} {index}")


def _loaded_rows(
    raw: Dataset, pictures: Sequence[str], spelling: Spelling, place: str, check: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    words = raw.select_columns([name for name in raw.column_names if name not in pictures]).with_format("arrow")
    index = 0
    for batch in words.iter(1000):
        for row in arrow_rows(batch, spelling.column("landmarks")):
            yield f"{place} {index}", row | (raw[index] if check else {})
            index += 1


def _loaded_example(
    row: Mapping[str, Any], place: str, *, spelling: Spelling, pictures: Sequence[str], check: bool
) -> dict[str, Any]:
    image, mask = (row.get(column) for column in pictures)
    return _example(read_record(row, spelling, place), image, mask, place, check)


def _check_subjects(loaded: Mapping[str, Dataset], split: str, subjects: set[str], column: str, source: str) -> None:
    for other in loaded:
        if other != split and column in loaded[other].column_names:
            shared = subjects & {str(subject) for subject in loaded[other][column]}
            if shared:
                fail(
                    source, column, f"{len(shared)} subjects are in {split!r} and in {other!r}. Load another revision."
                )
