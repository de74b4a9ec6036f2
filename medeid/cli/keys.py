"""Keys that commands read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..identity.keys import InvalidKeyError, key_from_environment, read_key
from .console import usage_error

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey


def given_key(key_file: Path | None) -> bytes | None:
    """The study's key in a file or else in the environment, None where there is neither."""
    try:
        return key_from_environment() if key_file is None else read_key(key_file)
    except InvalidKeyError as error:
        raise usage_error(str(error)) from error


def given_opening_key(key_file: Path | None) -> bytes | X25519PrivateKey:
    """What opens a vault: the study's key, or the secret half of a recipient's pair."""
    from ..clinical.recipients import read_opening_key

    if key_file is None:
        key = given_key(None)
        if key is None:
            raise usage_error("the vault opens by a key only; give --key-file FILE")
        return key
    try:
        return read_opening_key(key_file)
    except InvalidKeyError as error:
        raise usage_error(str(error)) from error
