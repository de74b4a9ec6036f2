"""Options that several commands have, and what is read by them."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from .console import errors, say, usage_error
from .keys import given_key

Model = Annotated[str, typer.Option(help="medeid-tiny (inside the package), a folder, or a Hub id.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Look into the folders in a folder, too.")]
Boxes = Annotated[
    Path | None,
    typer.Option(
        help="JSON with your own faces instead of detection: a list of objects with box (x0, y0, x1, y1) and, if "
        "you know them, points5 (x, y of both eyes, nose and both mouth corners, from image left); or an object "
        "from file name (below its folder) to such a list."
    ),
]


def list_sources(photos: list[Path], recursive: bool, out: Path) -> dict[str, Path]:
    """The photos of files and folders under what they are called; tells what was left out."""
    from ..clinical.sources import SourcesError, list_photos

    try:
        listing = list_photos(photos, recursive, out)
    except SourcesError as error:
        raise usage_error(str(error)) from error
    for each in listing.left_out:
        say(errors, "[bold yellow]left out:[/]", each)
    if not listing.photos:
        raise usage_error("there is no picture in what was given; --recursive looks into folders in folders, too")
    return listing.photos


def read_boxes(path: Path | None, photos: Collection[str]) -> dict[str, list]:
    """The boxes file: a list of faces for one photo, or an object from what a photo is called to such a list."""
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise usage_error(f"--boxes {path}: no readable JSON ({error})") from error
    if isinstance(content, list):
        if len(photos) != 1:
            raise usage_error(f"--boxes {path}: holds one list, but there are {len(photos)} photos; map names to lists")
        return dict.fromkeys(photos, content)
    if not isinstance(content, dict):
        raise usage_error(f"--boxes {path}: must hold a list of faces, or an object from file name to such a list")
    unknown = sorted(set(content) - set(photos))
    if unknown:
        raise usage_error(f"--boxes {path}: names photos that are not given: {', '.join(unknown)}")
    return content


def parse_preserve(text: str) -> str | list[str]:
    from ..manifestations.taxonomy import parse_sign

    if text in ("auto", "none"):
        return text
    names = [name.strip() for name in text.split(",") if name.strip()]
    try:
        for name in names:
            parse_sign(name)
    except ValueError as error:
        raise usage_error(f"--preserve {text}: {error}") from error
    return names


def find_masks(path: Path | None, photos: Collection[str]) -> dict[str, Path]:
    """The mask of each photo that has one."""
    if path is None:
        return {}
    if path.is_dir():
        found = {photo: path / PurePosixPath(photo).with_suffix(".png") for photo in photos}
        return {photo: mask for photo, mask in found.items() if mask.is_file()}
    if len(photos) != 1:
        raise usage_error(f"--mask {path}: is one picture for {len(photos)} photos; give a folder with NAME.png each")
    return dict.fromkeys(photos, path)


def find_pseudonyms(pseudonym: str | None, table: Path | None, photos: Collection[str]) -> dict[str, str]:
    """The pseudonym of each photo that has one."""
    from ..clinical.sources import SourcesError, read_pseudonyms

    if pseudonym is not None and table is not None:
        raise usage_error("--pseudonym and --pseudonyms: say the same in two ways; give one of them")
    if pseudonym is not None and not pseudonym.strip():
        raise usage_error("--pseudonym: is empty; give what the patient is called in your study")
    if table is None:
        return {} if pseudonym is None else dict.fromkeys(photos, pseudonym)
    try:
        return read_pseudonyms(table, photos)
    except SourcesError as error:
        raise usage_error(str(error)) from error


def find_key(key_file: Path | None, needed_by: list[str]) -> bytes | None:
    """The study's key, which some options need."""
    key = given_key(key_file)
    if key is None and needed_by:
        raise usage_error(f"{needed_by[0]}: needs a key; make one by `medeid keygen FILE` and give --key-file FILE")
    return key
