"""Pictures that are in the set twice: the same pixels, or the same picture encoded or resized anew."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Hashable, Iterable, Sequence

import cv2
import numpy as np
from scipy.spatial import cKDTree

# A picture's thumbnail is the mean colour of 32 x 32 cells. Two pictures are one if no cell differs by more than this
# in any channel, in 8-bit levels. Encoding anew as JPEG changes a cell by at most 1 (quality 95), 5 (75) or 9 (50),
# resizing from half the size by 3, a shift by a quarter of a pixel by 11; two faces of different people differ by 83
# and more in some cell (10 million pairs of generated faces).
BETWEEN_SUBJECTS = 16
# Versions of one subject with the same labels are one picture only if they are equal but for their encoding. With other
# labels a sign is the whole difference, which may be as small as that of an encoding: there only equal pixels count.
WITHIN_SUBJECT = 3

_CELLS = 32
_BLOCKS = 4
_PAIRS_AT_A_TIME = 4096


class DuplicateFinder:
    """Takes pictures one after the other and tells which repeats which.

    Thumbnails go to a temporary file; what stays in memory is about 300 bytes a picture.
    """

    def __init__(self) -> None:
        self._thumbnails = tempfile.TemporaryFile()
        self._blocks: list[np.ndarray] = []
        self._subjects: list[str] = []
        self._versions: list[tuple[str, frozenset[str]]] = []
        self._first_of: dict[bytes, int] = {}
        self._same_pixels: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._blocks)

    def add(self, image: np.ndarray, subject_id: str, labels: Iterable[str] = ()) -> None:
        """Takes the next picture, uint8 `[S, S, 3]`, whose face it is, and its labels."""
        index = len(self)
        digest = hashlib.blake2b(image.tobytes() + str(image.shape).encode(), digest_size=16).digest()
        first = self._first_of.setdefault(digest, index)
        if first != index:
            self._same_pixels[index] = first
        thumbnail = cv2.resize(image, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
        self._thumbnails.write(thumbnail.tobytes())
        side = _CELLS // _BLOCKS
        blocks = thumbnail.astype(np.float32).reshape(_BLOCKS, side, _BLOCKS, side, 3).mean((1, 3))
        self._blocks.append(blocks.ravel())
        self._subjects.append(subject_id)
        self._versions.append((subject_id, frozenset(labels)))

    def repeats(self) -> dict[int, tuple[int, bool]]:
        """Each picture that repeats an earlier one: the earliest such one, and whether the pixels are the same."""
        found = {index: (first, True) for index, first in self._same_pixels.items()}
        for later, earlier in self._near_pairs():
            if later not in found or (earlier < found[later][0] and not found[later][1]):
                found[later] = (earlier, False)
        return found

    def _near_pairs(self) -> list[tuple[int, int]]:
        if len(self) < 2:
            return []
        # A block's mean differs by no more than its cells do: so this finds all pairs, and a few thousand too many.
        tree = cKDTree(np.stack(self._blocks))
        pairs = tree.query_pairs(BETWEEN_SUBJECTS, p=np.inf, output_type="ndarray")
        subject, version = _numbered(self._subjects), _numbered(self._versions)
        self._thumbnails.flush()
        thumbnails = np.memmap(self._thumbnails, np.uint8, mode="r", shape=(len(self), _CELLS * _CELLS * 3))
        near = []
        for start in range(0, len(pairs), _PAIRS_AT_A_TIME):
            one, other = pairs[start : start + _PAIRS_AT_A_TIME].T
            difference = cv2.absdiff(thumbnails[one], thumbnails[other]).max(axis=1)
            allowed = np.where(subject[one] != subject[other], BETWEEN_SUBJECTS, -1)
            allowed[version[one] == version[other]] = WITHIN_SUBJECT
            near.append(pairs[start : start + _PAIRS_AT_A_TIME][difference <= allowed])
        return [(max(pair), min(pair)) for pair in np.concatenate([*near, np.empty((0, 2), int)]).tolist()]


def _numbered(keys: Sequence[Hashable]) -> np.ndarray:
    """int64 `[len(keys)]`: equal numbers for equal keys."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])
