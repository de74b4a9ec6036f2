"""ICC profiles without the texts in them (ICC.1:2022, 7.2 and 7.3)."""

from __future__ import annotations

import re
import struct

_HEADER, _ENTRY = 128, 12
# Matrices, curves, tables, white and black points: all that a conversion of colours reads.
_COLOURS = re.compile(rb"[rgb]XYZ|[rgbk]TRC|[AD]2B\d|B2[AD]\d|gamt|wtpt|bkpt|chad|chrm|lumi|cicp")
_TEXTS = (b"desc", b"mluc", b"text")


def colours_only(profile: bytes) -> bytes | None:
    """A profile that converts colours as the given one does, and says nothing else.

    What is in no tag for colours (descriptions, rights, devices, dates, private tags, gaps) is zero.

    Args:
        profile (`bytes`):
            An ICC profile.

    Returns:
        `bytes`: of the same length; None if it is no ICC profile.
    """
    if len(profile) < _HEADER + 4 or profile[36:40] != b"acsp":
        return None
    (count,) = struct.unpack_from(">I", profile, _HEADER)
    tags = _HEADER + 4
    if count > (len(profile) - tags) // _ENTRY:
        return None
    clean = bytearray(len(profile))
    clean[:tags] = profile[:tags]
    # Maker and software, date, and what depends on them: profile ID.
    for start, end in ((4, 8), (24, 36), (40, 44), (48, 64), (80, _HEADER)):
        clean[start:end] = bytes(end - start)
    entries = b""
    for index in range(count):
        entry = profile[tags + index * _ENTRY :][:_ENTRY]
        signature, start, length = struct.unpack(">4sII", entry)
        if start + length > len(profile):
            return None
        if _COLOURS.fullmatch(signature):
            clean[start : start + length] = profile[start : start + length]
        elif signature in (b"desc", b"cprt") and profile[start : start + 4] in _TEXTS:  # demanded of every profile
            clean[start : start + 4] = profile[start : start + 4]  # the type; the number of texts is zero
        else:
            continue
        entries += entry
    clean[_HEADER : tags + count * _ENTRY] = struct.pack(">I", len(entries) // _ENTRY) + entries.ljust(
        count * _ENTRY, b"\0"
    )
    return bytes(clean)
