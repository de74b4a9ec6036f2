"""What stands in for the identifiers, dates and UIDs of a DICOM header, under a secret key."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid

from ..identity.keys import LEAST_BYTES

_LEAST_DAYS, _MOST_DAYS = 365, 3650


class Pseudonyms:
    """Replacements that are the same wherever the original is the same, and tell nothing about it without the key.

    Every kind of replacement has a key of its own, drawn from the secret key by HMAC-SHA-256 (RFC 2104), so that one
    kind tells nothing about another.

    Args:
        key (`bytes`, *optional*):
            At least 16 bytes, see [`medeid.identity.keys`]. It is kept in memory only. Without one, a random key is
            drawn: replacements agree among the files for which this object is used, and never again.

    Raises:
        `ValueError`: the key is too short.
    """

    def __init__(self, key: bytes | None = None):
        if key is not None and len(key) < LEAST_BYTES:
            raise ValueError(f"`key` must have at least {LEAST_BYTES} bytes, but has {len(key)}. See `medeid keygen`.")
        secret = secrets.token_bytes(32) if key is None else bytes(key)
        self._uid_key, self._patient_key, self._date_key = (
            hmac.digest(secret, f"medeid dicom {kind}".encode(), hashlib.sha256) for kind in ("uid", "patient", "date")
        )

    def __repr__(self) -> str:
        return "Pseudonyms(key=...)"

    def __reduce__(self):
        raise TypeError("Pseudonyms hold a key, and are not pickled: a pickle would be a copy of it.")

    def uid(self, original: str) -> str:
        """A UID in place of another one: a UUID under the root 2.25 (PS3.5 B.2)."""
        digest = hmac.digest(self._uid_key, original.encode(), hashlib.sha256)
        return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"

    def patient(self, original: str) -> str:
        """A code of 16 characters in place of a patient's identifiers."""
        return hmac.digest(self._patient_key, original.encode(), hashlib.sha256).hex()[:16].upper()

    def days(self, patient: str) -> int:
        """By how many days all dates of a patient go back: one to ten years."""
        drawn = int.from_bytes(hmac.digest(self._date_key, patient.encode(), hashlib.sha256)[:8], "big")
        return _LEAST_DAYS + drawn % (_MOST_DAYS - _LEAST_DAYS + 1)
