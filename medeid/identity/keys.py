"""Secret keys: made, kept and read so that they end up nowhere else."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

KEY_VARIABLE = "MEDEID_KEY"

_NEW_BYTES = 32
LEAST_BYTES = 16  # 128 bits


class InvalidKeyError(ValueError):
    """A key that cannot be used. The message never holds any of it."""


def write_key(path: str | Path) -> None:
    """Writes a new random key of 256 bits, readable by its owner alone.

    Args:
        path (`str` or `Path`):
            A file that does not exist yet: a key that was used once must not be lost.

    Raises:
        `InvalidKeyError`: the file exists.
        `OSError`: it cannot be written.
    """
    write_secret_text(path, secrets.token_hex(_NEW_BYTES) + "\n")


def write_secret_text(path: str | Path, text: str) -> None:
    """Writes a new file that its owner alone can read; raises as [`write_key`]."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise InvalidKeyError(
            f"{path} exists, and a key that was used must not be lost; choose another name"
        ) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def read_key(path: str | Path) -> bytes:
    """The key in a file that [`write_key`] wrote.

    Raises:
        `InvalidKeyError`: there is no such file, others may read it, or what it holds is no key.
    """
    return _parsed(read_secret_text(path), str(path))


def read_secret_text(path: str | Path) -> str:
    """The text of a file of secrets.

    Raises:
        `InvalidKeyError`: there is no such file, others may read it, or it is no text.
    """
    try:
        mode = os.stat(path).st_mode
        text = Path(path).read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InvalidKeyError(f"{path}: cannot be read ({reason}); make a key by `medeid keygen FILE`") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidKeyError(f"{path}: may be read by others; take their rights away by `chmod 600`")
    return text


def key_from_environment() -> bytes | None:
    """The key in the environment variable MEDEID_KEY, None where it is not set.

    Raises:
        `InvalidKeyError`: what it holds is no key.
    """
    text = os.environ.get(KEY_VARIABLE)
    return None if text is None else _parsed(text, KEY_VARIABLE)


def key_check(key: bytes) -> str:
    """What tells whether two keys are the same, and nothing else of them: an HMAC-SHA-256, hexadecimal."""
    return hmac.new(key, b"medeid key check v1", hashlib.sha256).hexdigest()


def _parsed(text: str, where: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        raise InvalidKeyError(
            f"{where}: must hold hexadecimal digits only; make a key by `medeid keygen FILE`"
        ) from None
    if len(key) < LEAST_BYTES:
        raise InvalidKeyError(
            f"{where}: holds a key of {8 * len(key)} bits, but {8 * LEAST_BYTES} is the least; make one by "
            "`medeid keygen FILE`"
        )
    return key
