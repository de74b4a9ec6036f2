"""Key pairs of those who may open a vault: the public half seals, and only the secret half opens.

They are X25519 keys in PEM form (PKCS #8 and SubjectPublicKeyInfo), which other tools read and write, too.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from ..identity.keys import InvalidKeyError, read_key, read_secret_text, write_secret_text

_PEM = "-----BEGIN"


def write_recipient(path: str | Path) -> Path:
    """Makes a key pair: the secret half in a file for its owner alone, the public half beside it with `.pub`.

    Args:
        path (`str` or `Path`):
            A file that does not exist yet.

    Returns:
        `Path`: the public half, to be given to whoever seals.

    Raises:
        `InvalidKeyError`: one of the files exists.
        `OSError`: they cannot be written.
    """
    public_path = Path(f"{path}.pub")
    if public_path.exists():
        raise InvalidKeyError(f"{public_path} exists, and somebody may seal by it; choose another name")
    secret = X25519PrivateKey.generate()
    pem = secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_secret_text(path, pem.decode("ascii"))
    public_path.write_bytes(secret.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return public_path


def read_recipient(path: str | Path) -> X25519PublicKey:
    """The public half of a key pair.

    Raises:
        `InvalidKeyError`: it cannot be read, or is none.
    """
    try:
        key = load_pem_public_key(Path(path).read_bytes())
    except OSError as error:
        raise InvalidKeyError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, X25519PublicKey):
        raise InvalidKeyError(f"{path}: is no public X25519 key in PEM form; give the recipient's .pub file")
    return key


def read_opening_key(path: str | Path) -> bytes | X25519PrivateKey:
    """What opens a vault: the study's key, or the secret half of a recipient's pair.

    Raises:
        `InvalidKeyError`: there is no such file, others may read it, or what it holds is neither.
    """
    text = read_secret_text(path)
    if not text.startswith(_PEM):
        return read_key(path)
    try:
        key = load_pem_private_key(text.encode("ascii"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, X25519PrivateKey):
        raise InvalidKeyError(f"{path}: is no secret X25519 key without a password; give the recipient's key file")
    return key
