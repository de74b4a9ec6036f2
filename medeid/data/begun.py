"""Folders that one call begins and another goes on with, if it has the same arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_state(out: Path, file_name: str, kind: str, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was written into a folder when it was begun.

    Args:
        out (`Path`):
            The folder, which need not be there yet.
        file_name (`str`):
            Of a JSON file in it. It holds an object, and in that `arguments`.
        kind (`str`):
            What the folder is, such as `"set"`.
        arguments (`Mapping[str, Any]`):
            What it should have been begun with.

    Returns:
        `dict[str, Any]`, *optional*: what is in the file; None if the folder is empty or not there.

    Raises:
        `ValueError`: the folder holds something else, was begun with other arguments, or its file is damaged.
    """
    path = out / file_name
    if not path.is_file():
        if out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()):
            raise ValueError(f"OUT {out}: is not empty, and no {kind} was begun in it; choose another folder.")
        return None
    try:
        state = json.loads(path.read_text())
        begun = state["arguments"]
        other = [name for name, value in arguments.items() if begun.get(name) != value]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: is damaged ({error!r}); choose another folder.") from error
    if other:
        told = "; ".join(f"{name} was {begun.get(name)} and is {arguments[name]}" for name in other)
        raise ValueError(
            f"OUT {out}: holds a {kind} that was begun otherwise ({told}). "
            "Give the same arguments to go on with it, or choose another folder."
        )
    return state
