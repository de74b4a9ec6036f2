"""A folder of aligned face crops to train on, in the Hugging Face imagefolder style."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image


class FaceFolder:
    """Aligned face crops with dense landmarks.

    The folder holds `metadata.jsonl` (one object a line: `file_name`, `split`, and where known `sex` and `group`), the
    images that it names, and `landmarks.npz` (key `landmarks`, [N, 478, 3], in crop pixels counted from the edge of the
    first one, as MediaPipe gives them, and in the order of the metadata).

    Args:
        root (`str` or `Path`):
            The folder.
        split (`str`):
            Keep the rows of this split.

    Raises:
        ValueError: no metadata, no row of that split, or landmarks that cannot be read or do not match the metadata.
    """

    def __init__(self, root: str | Path, split: str):
        self.root = Path(root)
        metadata = self.root / "metadata.jsonl"
        if not metadata.is_file():
            raise ValueError(f"`root` holds no metadata.jsonl: {self.root}. Give a folder in imagefolder style.")
        rows = [json.loads(line) for line in metadata.read_text("utf-8").splitlines() if line.strip()]
        landmarks = _read_landmarks(self.root / "landmarks.npz")
        if len(landmarks) != len(rows):
            raise ValueError(f"landmarks.npz has {len(landmarks)} faces, but metadata.jsonl has {len(rows)} rows.")
        self.indices = np.array([i for i, row in enumerate(rows) if row["split"] == split], dtype=np.int64)
        if len(self.indices) == 0:
            raise ValueError(f"`split` {split!r} has no rows; there are: {sorted({row['split'] for row in rows})}.")
        self.rows = [rows[i] for i in self.indices]
        self._landmarks = landmarks[self.indices]

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, index: int) -> np.ndarray:
        """The crop as uint8 [S, S, 3], RGB."""
        with Image.open(self.root / self.rows[index]["file_name"]) as image:
            return np.asarray(image.convert("RGB"))

    def landmarks(self, index: int) -> np.ndarray:
        """The dense landmarks as float32 [478, 3], in crop pixels, with pixel centres at integers."""
        landmarks = self._landmarks[index].astype(np.float32)
        landmarks[:, :2] -= 0.5  # MediaPipe counts from the outer edge of the first pixel
        return landmarks

    def group_weights(self, power: float = 0.5) -> np.ndarray:
        """Sampling weights float64 [N] that even out the labelled groups: 0 not at all, 1 to equal shares."""
        keys = [(row.get("group"), row.get("sex")) for row in self.rows]
        counts = Counter(keys)
        weights = np.array([counts[key] ** -power for key in keys])
        return weights / weights.sum()


def _read_landmarks(path: Path) -> np.ndarray:
    remedy = "Find the landmarks again."
    try:
        landmarks = np.load(path)["landmarks"]
    except (BadZipFile, EOFError, IndexError, KeyError, ValueError, zlib.error) as error:
        raise ValueError(f"{path}: holds no readable array `landmarks` ({error!r}). {remedy}") from error
    if landmarks.ndim != 3:
        raise ValueError(f"{path}: `landmarks` must be [N, 478, 3], but is {list(landmarks.shape)}. {remedy}")
    return landmarks
