"""Which photos a run takes, what it calls their results, and whose they are."""

from __future__ import annotations

import csv
import hashlib
import hmac
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from .images import picture_suffixes

Names = Literal["keep", "keyed", "sequence"]

_DICOM_SUFFIXES = {".dcm", ".dicom"}
_KEYED_DIGITS = 20  # hexadecimal, 80 bits: no two of a million names are likely to share one
_NAME_LABEL = b"medeid file names v1"


class SourcesError(ValueError):
    """A folder or a list that cannot be used. The message says why and what to do."""


@dataclass(frozen=True)
class PhotoFile:
    """One photo of a run.

    Attributes:
        index (`int`): Its place in the run, from 0.
        source (`Path`): The photo; it is only read.
        called (`str`): What it is called: its path below the folder that was given.
        name (`str`): Path of its result below the folder of the results, with `/` and without suffix.
        pseudonym (`str`, *optional*): Of the patient.
        boxes (`list`, *optional*): Parsed JSON of the user's own faces, see [`parse_boxes`].
        mask (`Path`, *optional*): A picture of what is to stay, see the pipeline's `manifestation_mask`.
    """

    index: int
    source: Path
    called: str
    name: str
    pseudonym: str | None = None
    boxes: Any = None
    mask: Path | None = None


def photo_suffixes() -> set[str]:
    """Suffixes of pictures and of DICOM, in lower case."""
    return picture_suffixes() | _DICOM_SUFFIXES


@dataclass
class Listing:
    """What was found.

    Attributes:
        photos (`dict[str, Path]`): Each photo under what it is called: its path below the folder that was given, with
            `/`, or its bare name if it was given itself.
        left_out (`list[str]`): What was found and not taken, and why.
    """

    photos: dict[str, Path] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, name: str, path: Path) -> None:
        """Takes a photo; one of the same name in another folder gets a number."""
        given, number = PurePosixPath(name), 2
        while name in self.photos:
            name, number = str(given.with_name(f"{given.stem}-{number}{given.suffix}")), number + 1
        self.photos[name] = path


def list_photos(inputs: Sequence[Path], recursive: bool, out: Path) -> Listing:
    """Finds the photos of files and folders, those of a folder by name.

    In a folder are taken all files with the suffix of a picture or of DICOM, and none that is hidden. A symbolic link
    is followed only to a file inside of the folder.

    Args:
        inputs (`Sequence[Path]`):
            Photos and folders.
        recursive (`bool`):
            Whether to take the folders in the folders, too.
        out (`Path`):
            Where the results go.

    Raises:
        `SourcesError`: results and photos would mix, or one is a URL.
    """
    listing = Listing()
    for given in inputs:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(given)) and not given.exists():
            raise SourcesError(f"{given}: is a URL; mount the store as a folder (by rclone, say) and give that")
        if not given.is_dir():
            listing.add(given.name, given)
            continue
        _check_apart(given, out)
        for path in _files(given, recursive):
            name = path.relative_to(given).as_posix()
            if path.is_symlink() and not path.resolve().is_relative_to(given.resolve()):
                listing.left_out.append(f"{name}: a link that leads out of the folder")
            elif path.suffix.lower() in photo_suffixes():
                listing.add(name, path)
            else:
                listing.left_out.append(f"{name}: no picture, by its suffix")
    return listing


def _check_apart(folder: Path, out: Path) -> None:
    inner, outer = out.resolve(), folder.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise SourcesError(
            f"-o {out}: results and photos would mix, as one of the folders is in the other; choose another folder"
        )


def _files(folder: Path, recursive: bool) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        yield from (Path(root, name) for name in sorted(files) if not name.startswith("."))


def name_results(photos: Sequence[str], names: Names, key: bytes | None = None) -> list[str]:
    """What the results are called: no two alike, even where upper and lower case are the same.

    Args:
        photos (`Sequence[str]`):
            What the photos are called.
        names (`str`):
            `"keep"`: as the photos; `"keyed"`: by the HMAC-SHA-256 of that under the key, so that whoever has the key
            finds the photo again; `"sequence"`: by number. The last two keep no folders, whose names tell of patients
            just as well.
        key (`bytes`, *optional*):
            For `"keyed"`.

    Raises:
        `SourcesError`: the key is missing.
    """
    if names == "sequence":
        return [f"{number:06d}" for number in range(1, len(photos) + 1)]
    if names == "keyed":
        if key is None:
            raise SourcesError("--names keyed: needs a key; make one by `medeid keygen FILE` and give --key-file FILE")
        subkey = hmac.digest(key, _NAME_LABEL, hashlib.sha256)
        return [hmac.new(subkey, name.encode(), hashlib.sha256).hexdigest()[:_KEYED_DIGITS] for name in photos]
    if names not in get_args(Names):
        raise SourcesError(f"--names {names}: must be one of {', '.join(get_args(Names))}")
    chosen: list[str] = []
    taken: set[str] = set()
    for photo in photos:
        stem = str(PurePosixPath(photo).with_suffix(""))
        name, number = stem, 2
        while name.casefold() in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.casefold())
        chosen.append(name)
    return chosen


def read_pseudonyms(path: Path, photos: Collection[str]) -> dict[str, str]:
    """The patient of each photo: a CSV table with the columns `photo` and `pseudonym`.

    Args:
        path (`Path`):
            The table, in UTF-8.
        photos (`Collection[str]`):
            What the photos are called.

    Returns:
        `dict[str, str]`: of all photos that have one.

    Raises:
        `SourcesError`: it cannot be read, lacks a column or a value, or names a photo twice, or one that is not there.
    """
    found: dict[str, str] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"photo", "pseudonym"} <= set(rows.fieldnames or ()):
                raise SourcesError(f"--pseudonyms {path}: must have the columns photo and pseudonym in its first line")
            for row in rows:
                photo, pseudonym = ((row[column] or "").strip() for column in ("photo", "pseudonym"))
                if not photo or not pseudonym:
                    raise SourcesError(f"--pseudonyms {path}: line {rows.line_num} lacks a value; give both")
                if photo in found:
                    raise SourcesError(f"--pseudonyms {path}: {photo} is there twice; leave one line")
                found[photo] = pseudonym
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourcesError(f"--pseudonyms {path}: is no readable table ({error}); save it as CSV in UTF-8") from error
    unknown = sorted(set(found) - set(photos))
    if unknown:
        raise SourcesError(
            f"--pseudonyms {path}: names {len(unknown)} photos that are not given, such as {unknown[0]}; write them as "
            "they lie below the folder"
        )
    return found
