"""Options that several commands have, and what is read by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .console import usage_error

Model = Annotated[str, typer.Option(help="medeid-tiny (inside the package), a folder, or a Hub id.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")]
Boxes = Annotated[
    Path | None,
    typer.Option(
        help="JSON with your own faces instead of detection: a list of objects with box (x0, y0, x1, y1) and, if "
        "you know them, points5 (x, y of both eyes, nose and both mouth corners, from image left); or an object "
        "from file name to such a list."
    ),
]


def read_boxes(path: Path | None, photos: list[Path]) -> dict[Path, list]:
    """The boxes file: a list of faces for one photo, or an object from file name to such a list."""
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise usage_error(f"--boxes {path}: no readable JSON ({error})") from error
    if isinstance(content, list):
        if len(photos) != 1:
            raise usage_error(f"--boxes {path}: holds one list, but there are {len(photos)} photos; map names to lists")
        return {photos[0]: content}
    if not isinstance(content, dict):
        raise usage_error(f"--boxes {path}: must hold a list of faces, or an object from file name to such a list")
    known = {photo.name: photo for photo in photos}
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise usage_error(f"--boxes {path}: names photos that are not given: {', '.join(unknown)}")
    return {known[name]: faces for name, faces in content.items()}


def output_names(photos: list[Path]) -> list[str]:
    """One stem a photo; photos of the same name in different folders get a number."""
    names: list[str] = []
    for photo in photos:
        name, number = photo.stem, 2
        while name in names:
            name, number = f"{photo.stem}-{number}", number + 1
        names.append(name)
    return names


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


def read_masks(path: Path | None, photos: list[Path]) -> dict[Path, Path]:
    """The mask of each photo that has one."""
    if path is None:
        return {}
    if path.is_dir():
        found = {photo: path / f"{photo.stem}.png" for photo in photos}
        return {photo: mask for photo, mask in found.items() if mask.is_file()}
    if len(photos) != 1:
        raise usage_error(f"--mask {path}: is one picture for {len(photos)} photos; give a folder with NAME.png each")
    return {photos[0]: path}


def read_key(pseudonym: str | None, key_file: Path | None) -> bytes | None:
    from ..identity.keys import InvalidKeyError, key_from_environment, read_key

    if pseudonym is None:
        if key_file is not None:
            raise usage_error(f"--key-file {key_file}: is for --pseudonym; without one every face is drawn anew")
        return None
    if not pseudonym.strip():
        raise usage_error("--pseudonym: is empty; give what the patient is called in your study")
    try:
        key = key_from_environment() if key_file is None else read_key(key_file)
    except InvalidKeyError as error:
        raise usage_error(str(error)) from error
    if key is None:
        raise usage_error("--pseudonym: needs a key; make one by `medeid keygen FILE` and give --key-file FILE")
    return key
