"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

PARTIAL = ".partial-"  # how the name of an unfinished file begins


def write_file(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Writes a file under a temporary name beside it and renames it, so that none is ever seen half written.

    Args:
        path (`Path`):
            The file; missing folders are made.
        content (`bytes` or iterable of `bytes`):
            What is to be in it.

    Raises:
        `OSError`: it cannot be written; then nothing is left of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Always the same temporary name: what a kill leaves is overwritten when the file is made again.
    partial = path.with_name(PARTIAL + path.name)
    try:
        with open(partial, "wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
