"""The vault: the sources of released files, sealed, so that whoever may can have them back bit for bit.

What is sealed is the whole source *file*, not the replaced regions of its pixels. Only so is it the same file again
(a JPEG that is decoded, patched and encoded once more is another one, and metadata, bit depth and orientation live
outside of the pixels), no image library's version has a say in it, and it is the same for every format. The price is
the size of the sources. Their names are not sealed.

Every source is sealed by AES-256-GCM under a fresh key of its own. That key is wrapped (AES-256-GCM, too) once for each
of those who may open the vault: under the study's key, or for a recipient by X25519 with a fresh key pair. The wrapping
keys come from HKDF-SHA-256. The vault's header, the digest of the released file and all wrapped keys are authenticated
with the source, so that an entry of another file or vault, and any flipped bit in an entry, is refused. Whoever only
has recipients' public halves can seal, but not open what is sealed; it follows that anybody who may write to the file
can put an entry with a source of his own in the place of another, and a recipient will not see it. What opens under the
study's key was sealed by somebody who had it. That entries are missing is not seen by either.

The file: a header, then entries, appended one by one. All numbers are big-endian.

    header   "MEDVAULT", version (1 byte), number of slots (1), random id (16),
             slots of kind (1) and name (32: of a key its check value, of a recipient the public half),
             SHA-256 of all this (32)
    entry    "SEAL", size of what follows the frame (8), SHA-256 of the released file (32), CRC-32 of these (4),
             for each slot salt or ephemeral public half (32), nonce (12), wrapped key (48),
             nonce (12), sealed source (as long as the source), tag (16)
"""

from __future__ import annotations

import hashlib
import os
import secrets
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..files import PARTIAL
from .appending import AppendOnlyFile
from .digests import file_sha256

VERSION = 1

_MAGIC, _MARK = b"MEDVAULT", b"SEAL"
_START = struct.Struct(">8sBB16s")
_SLOT = struct.Struct(">B32s")
_FRAME = struct.Struct(">4sQ32sI")
_KEY, _RECIPIENT = 1, 2  # kinds of slots
_DIGEST, _NONCE, _TAG = 32, 12, 16
_WRAPPED = 32 + _NONCE + 32 + _TAG  # bytes of one wrapped key
_MOST = 2**31 - 1  # bytes that cryptography seals at once


class VaultError(ValueError):
    """A vault that cannot be written to or opened. The message says why and what to do, without any file's name."""


@dataclass(frozen=True)
class _Header:
    raw: bytes

    @property
    def digest(self) -> bytes:
        return self.raw[-_DIGEST:]

    @property
    def id(self) -> bytes:
        return _START.unpack_from(self.raw)[3]

    @property
    def slots(self) -> list[tuple[int, bytes]]:
        return list(_SLOT.iter_unpack(self.raw[_START.size : -_DIGEST]))


class Vault:
    """A vault that is being filled. It is locked: no other run can write to it."""

    def __init__(self, file: AppendOnlyFile, header: _Header, key: bytes | None):
        self._file, self._header, self._key = file, header, key

    @classmethod
    def open(cls, path: str | Path, key: bytes | None = None, recipients: Sequence[X25519PublicKey] = ()) -> Vault:
        """Makes a vault, or goes on with one. Half an entry that a killed run has left is cut off.

        Who may open a vault is said when it is made. It must be said again to go on with it, and the file is not
        believed: else whoever may write to it could name himself as one more recipient.

        Args:
            path (`str` or `Path`):
                The vault.
            key (`bytes`, *optional*):
                The study's, which will open it.
            recipients (`Sequence[X25519PublicKey]`, *optional*):
                Public halves of those who may open it, too, or instead.

        Raises:
            `VaultError`: nobody may open it, it cannot be written to, is damaged, or is of others.
        """
        if key is None and not recipients:
            raise VaultError("nobody could open it; give a key or a recipient")
        try:
            file = AppendOnlyFile(Path(path))
        except OSError as error:
            raise VaultError(f"cannot be written to ({error.strerror}); choose another place for the vault") from error
        try:
            return cls(file, _begin_or_go_on(file, key, recipients), key)
        except OSError as error:
            file.close()
            raise VaultError(f"cannot be written to ({error.strerror}); make room, and run again") from error
        except BaseException:
            file.close()
            raise

    def seal(self, output_sha256: str, source: bytes) -> None:
        """Adds a source; when this returns, it is on the disk.

        Seal before the released file gets its name: after a kill a vault may hold more than was released, never less.

        Args:
            output_sha256 (`str`):
                Of the released file, hexadecimal.
            source (`bytes`):
                The source file, whole.

        Raises:
            `VaultError`: it is too large, or the vault cannot be written to.
        """
        if len(source) > _MOST - _TAG:
            raise VaultError("the source has more than 2 GB, which is more than a vault takes; split it")
        output = bytes.fromhex(output_sha256)
        if len(output) != _DIGEST:
            raise VaultError("the digest of the released file is no SHA-256; give all 64 digits")
        content_key = AESGCM.generate_key(256)
        wrapped = b"".join(self._wrap(kind, name, output, content_key) for kind, name in self._header.slots)
        frame = _frame(len(wrapped) + _NONCE + len(source) + _TAG, output)
        nonce = secrets.token_bytes(_NONCE)
        sealed = AESGCM(content_key).encrypt(nonce, source, self._header.digest + frame + wrapped)
        try:
            self._file.append(frame + wrapped + nonce + sealed)
        except OSError as error:
            raise VaultError(f"cannot be written to ({error.strerror}); make room, and run again") from error

    def _wrap(self, kind: int, name: bytes, output: bytes, content_key: bytes) -> bytes:
        if kind == _KEY and self._key is not None:
            salt, secret = secrets.token_bytes(32), self._key
        else:
            ephemeral = X25519PrivateKey.generate()
            salt = ephemeral.public_key().public_bytes_raw()
            secret = _exchange(ephemeral, name)
        nonce = secrets.token_bytes(_NONCE)
        wrapping_key = _wrapping_key(secret, salt, name, self._header, output)
        return salt + nonce + AESGCM(wrapping_key).encrypt(nonce, content_key, None)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Vault:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def reveal(vault: str | Path, output: str | Path, key: bytes | X25519PrivateKey) -> bytes:
    """Opens what a vault holds for a released file.

    Of a file that was made twice, the first source counts. An entry is opened also where others are damaged, as long
    as the frames before it are whole.

    Args:
        vault (`str` or `Path`):
            The vault; it is only read.
        output (`str` or `Path`):
            The released file, as it was written.
        key (`bytes` or `X25519PrivateKey`):
            The study's key, or the secret half of a recipient's pair.

    Returns:
        `bytes`: the source file.

    Raises:
        `VaultError`: the key does not open this vault, it holds nothing for this file, or it was changed.
    """
    try:
        digest = bytes.fromhex(file_sha256(Path(output)))
    except OSError as error:
        raise VaultError(f"the released file cannot be read ({error.strerror}); check the path") from error
    try:
        with open(vault, "rb") as file:
            header = _read_header(file)
            slot = _find_slot(header, key)
            for entry in _entries(file, header):
                if entry.output == digest:
                    file.seek(entry.start)
                    return _open_entry(file.read(entry.size), entry, header, slot, key)
    except OSError as error:
        raise VaultError(f"the vault cannot be read ({error.strerror}); check the path") from error
    raise VaultError(
        "the vault holds nothing for this file: it is of another run, or was changed since; give the file as it was "
        "written, and the vault of its run"
    )


def restore(vault: str | Path, output: str | Path, key: bytes | X25519PrivateKey, target: str | Path) -> None:
    """[`reveal`] into a new file for its owner alone, whole or not at all.

    Raises:
        `VaultError`: see [`reveal`], or the target exists or cannot be written.
    """
    target = Path(target)
    if os.path.lexists(target):
        raise VaultError("the file to restore to exists; choose another name")
    source = reveal(vault, output, key)
    partial = None
    try:
        handle, partial = tempfile.mkstemp(dir=target.parent, prefix=PARTIAL)  # readable by its owner alone
        with os.fdopen(handle, "wb") as file:
            file.write(source)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException as error:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
        if isinstance(error, OSError):
            message = f"the file to restore to cannot be written ({error.strerror}); choose another place"
            raise VaultError(message) from error
        raise


@dataclass(frozen=True)
class _Entry:
    """Where an entry lies: the frame, and what follows it, from `start` on."""

    frame: bytes
    output: bytes
    start: int
    size: int


def _begin_or_go_on(file: AppendOnlyFile, key: bytes | None, recipients: Sequence[X25519PublicKey]) -> _Header:
    with file.reader() as reader:
        beginning = reader.read(_START.size)
        reader.seek(0)
        if len(beginning) < _START.size and _MAGIC.startswith(beginning[: len(_MAGIC)]):
            file.cut(0)  # killed before there was a header
            header = _new_header(key, recipients)
            file.append(header.raw)
            return header
        header = _read_header(reader)
        if header.slots != _slots(header.id, key, recipients):
            raise VaultError("the vault is of another key or other recipients; give the same, or another vault")
        end = len(header.raw)
        for entry in _entries(reader, header):
            end = entry.start + entry.size
    if end < file.size:
        file.cut(end)
    return header


def _slots(vault_id: bytes, key: bytes | None, recipients: Sequence[X25519PublicKey]) -> list[tuple[int, bytes]]:
    names = {recipient.public_bytes_raw() for recipient in recipients}
    own = [] if key is None else [(_KEY, _derived(key, vault_id, b"check"))]
    return own + [(_RECIPIENT, name) for name in sorted(names)]


def _new_header(key: bytes | None, recipients: Sequence[X25519PublicKey]) -> _Header:
    vault_id = secrets.token_bytes(16)
    slots = _slots(vault_id, key, recipients)
    if len(slots) > 255:
        raise VaultError(f"{len(slots)} may open the vault, but 255 is the most; give fewer recipients")
    raw = _START.pack(_MAGIC, VERSION, len(slots), vault_id) + b"".join(_SLOT.pack(*slot) for slot in slots)
    return _Header(raw + hashlib.sha256(raw).digest())


def _read_header(file: BinaryIO) -> _Header:
    start = file.read(_START.size)
    if not start.startswith(_MAGIC):
        raise VaultError("the file is no vault; give the one that was given to --vault")
    if len(start) < _START.size:
        raise VaultError("the vault is damaged: it ends in its header; get it from a copy")
    _, version, count, _ = _START.unpack(start)
    if version != VERSION:
        raise VaultError(f"the vault has version {version}, but {VERSION} is known; take a newer medeid")
    raw = start + file.read(count * _SLOT.size + _DIGEST)
    size = _START.size + count * _SLOT.size
    if count == 0 or hashlib.sha256(raw[:size]).digest() != raw[size:]:
        raise VaultError("the vault is damaged in its header; get it from a copy")
    return _Header(raw)


def _entries(file: BinaryIO, header: _Header) -> Iterator[_Entry]:
    """All whole entries; half a one at the end is what a killed run has left."""
    end = os.fstat(file.fileno()).st_size
    start = len(header.raw)
    while start + _FRAME.size <= end:
        file.seek(start)
        frame = file.read(_FRAME.size)
        _, size, output, _ = _FRAME.unpack(frame)
        least = len(header.slots) * _WRAPPED + _NONCE + _TAG
        if frame != _frame(size, output) or not least <= size <= least + _MOST:
            raise VaultError(f"the vault is damaged at byte {start}; get it from a copy")
        start += _FRAME.size
        if start + size > end:
            return
        yield _Entry(frame, output, start, size)
        start += size


def _frame(size: int, output: bytes) -> bytes:
    # The check sum is against accidents: a size that a flipped bit has made longer must not be taken for half an
    # entry, and be cut off with all that follows. Against people the frame is authenticated with the source.
    body = _FRAME.pack(_MARK, size, output, 0)[:-4]
    return body + struct.pack(">I", zlib.crc32(body))


def _find_slot(header: _Header, key: bytes | X25519PrivateKey) -> int:
    own = _slots(header.id, key, ())[0] if isinstance(key, bytes) else (_RECIPIENT, key.public_key().public_bytes_raw())
    if own not in header.slots:
        raise VaultError("the key does not open this vault; give the key that it was made with, or a recipient's")
    return header.slots.index(own)


def _open_entry(body: bytes, entry: _Entry, header: _Header, slot: int, key: bytes | X25519PrivateKey) -> bytes:
    end = len(header.slots) * _WRAPPED
    own = body[slot * _WRAPPED : (slot + 1) * _WRAPPED]
    salt, nonce, wrapped = own[:32], own[32 : 32 + _NONCE], own[32 + _NONCE :]
    try:
        secret = key if isinstance(key, bytes) else _exchange(key, salt)
        wrapping_key = _wrapping_key(secret, salt, header.slots[slot][1], header, entry.output)
        content_key = AESGCM(wrapping_key).decrypt(nonce, wrapped, None)
        associated = header.digest + entry.frame + body[:end]
        return AESGCM(content_key).decrypt(body[end : end + _NONCE], body[end + _NONCE :], associated)
    except InvalidTag:
        raise VaultError(
            "what the vault holds for this file was changed or damaged; get the vault from a copy"
        ) from None


def _exchange(secret: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return secret.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:  # a public half of low order, of which anybody knows the result
        raise VaultError("a public key in the vault is none that can be sealed by; it was changed") from error


def _wrapping_key(secret: bytes, salt: bytes, name: bytes, header: _Header, output: bytes) -> bytes:
    return _derived(secret, salt, b"wrap" + header.digest + output + name)


def _derived(secret: bytes, salt: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, b"medeid vault v1 " + purpose).derive(secret)
