"""Draws docs/signs.jpg and writes docs/signs.md, the list of all signs: `python examples/make_signs.py`.

The faces are those of `examples/faces`, which medeid drew.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medeid.data.faces import FaceFolder
from medeid.data.simulate import NotVisibleError, simulate
from medeid.manifestations.taxonomy import TAXONOMY, Finding, Manifestation

ROOT = Path(__file__).parents[1]
SHEET, TABLE = ROOT / "docs" / "signs.jpg", ROOT / "docs" / "signs.md"
SEVERITY = 0.75
COLUMNS = 6  # signs beside each other, each on dark and on light skin
TILE = (150, 168)  # px
CAPTION = 16  # px
EYE_REGIONS = ("upper_lid", "lower_lid", "lids", "globe", "conjunctiva", "pupil", "periorbital")

INTRODUCTION = """# The signs

The visible signs of disease that medeid knows, from `medeid.manifestations.taxonomy`. *Left* and *right* are the
patient's own. The codes are those of the WHO's ICD-10. The channel says how a sign is to be kept when the face is
replaced: its *appearance* (its pixels), the *geometry* of the face (its landmarks) or the *colour* of skin, sclera and
lips.

![All signs, each on two faces](signs.jpg)

*Simulated at severity 0.75 on faces of nobody, which medeid drew: `python examples/make_signs.py`.*

| name | sign | ICD-10 | group | channels | sides | what one sees |
| --- | --- | --- | --- | --- | --- | --- |
"""


def table() -> str:
    """The document docs/signs.md."""
    return INTRODUCTION + "".join(_line(row) for row in TAXONOMY.values())


def _line(row: Manifestation) -> str:
    channels, sides = ", ".join(row.channels), ", ".join(row.sides) if row.lateral else "whole face"
    return f"| `{row.name}` | {row.title} | {row.icd10} | {row.group} | {channels} | {sides} | {row.description} |\n"


def patient(folder: FaceFolder, row: Manifestation, seed: int) -> Image.Image:
    """A sign on the first face of a folder, from `seed` on, that shows it."""
    for face in range(len(folder)):
        index = (seed + face) % len(folder)
        image, landmarks = folder.image(index), folder.landmarks(index)
        try:
            finding = Finding(row.name, "left" if row.lateral else "both", SEVERITY)
            painted = simulate(image, landmarks, [finding], np.random.default_rng(seed)).image
        except NotVisibleError:
            continue
        return Image.fromarray(_framed(painted, landmarks, row.region in EYE_REGIONS))
    raise ValueError(f"No face shows {row.name}.")


def _framed(image: np.ndarray, landmarks: np.ndarray, eyes: bool) -> np.ndarray:
    """The face, or its left eye with some of the other one, to fill a tile."""
    centre, half = landmarks[:, :2].mean(0), 66.0
    if eyes:
        centre, half = landmarks[[463, 359], :2].mean(0), 30.0
    ratio = TILE[1] / TILE[0]
    x0, y0 = np.maximum(np.rint(centre - (half, half * ratio)), 0).astype(int)
    x1, y1 = np.rint(centre + (half, half * ratio)).astype(int)
    return cv2.resize(image[y0:y1, x0:x1], TILE, interpolation=cv2.INTER_CUBIC)


class _Faces(FaceFolder):
    """Some faces of a folder."""

    def __init__(self, indices: list[int]):
        super().__init__(ROOT / "examples" / "faces", "train")
        self.rows = [self.rows[index] for index in indices]
        self._landmarks = self._landmarks[indices]


def sheet() -> Image.Image:
    dark, light = _Faces([0, 1, 2]), _Faces([5, 6, 8])
    width, height = 2 * TILE[0] + 6, TILE[1] + CAPTION + 6
    rows = -(-len(TAXONOMY) // COLUMNS)
    picture = Image.new("RGB", (COLUMNS * width, rows * height), "white")
    draw = ImageDraw.Draw(picture)
    for number, row in enumerate(TAXONOMY.values()):
        x, y = number % COLUMNS * width, number // COLUMNS * height
        draw.text((x + 2, y + 2), row.title, "black", ImageFont.load_default(11))
        for place, folder in enumerate((dark, light)):
            picture.paste(patient(folder, row, number + 100 * place), (x + place * TILE[0], y + CAPTION))
    return picture


def main() -> None:
    TABLE.write_text(table())
    sheet().save(SHEET, quality=88)


if __name__ == "__main__":
    main()
