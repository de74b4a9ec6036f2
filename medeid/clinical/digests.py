"""Digests by which files are known without their names."""

from __future__ import annotations

import hashlib
from pathlib import Path

_BLOCK = 1 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        `OSError`: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def model_sha256(folder: Path) -> str:
    """SHA-256 of a model: of the names below its folder and the digests of its weights and configs, hexadecimal.

    Model cards and pictures do not count, as they change nothing.

    Args:
        folder (`Path`):
            Of a pipeline, as diffusers saves it; that of a loaded one is `pipeline.config._name_or_path`.

    Raises:
        `OSError`: a file cannot be read.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors"))
    lines = [f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
