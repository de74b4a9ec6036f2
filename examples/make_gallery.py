"""Draws docs/gallery.jpg, the hardest photos before and after, and writes docs/gallery.md: `python
examples/make_gallery.py [--model M]`.

The people are drawn by the packaged model, whichever model de-identifies them. With other weights of it the same seeds
draw other people: look whether they are still what the titles in `hard_photos.py` say. In the page, what is said of the
pictures is written by hand: the last column stays as it is there, so look at the new pictures and write it anew.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from hard_photos import CASES, Case, Portrait
from PIL import Image, ImageDraw, ImageFont, ImageOps
from tqdm import tqdm

from medeid import MedicalDeIDPipeline
from medeid.files import write_file
from medeid.records import NoFaceFoundError, PhotoRecord, VerificationError

ROOT = Path(__file__).parents[1]
PICTURE, PAGE = ROOT / "docs" / "gallery.jpg", ROOT / "docs" / "gallery.md"
COLUMNS = 3
TILE = 224  # px
CAPTION = 18  # px
GAP = 10  # px
STEPS = 20  # of drawing the people

INTRODUCTION = """# The hardest photos

What medeid-tiny does with photos that are hard for it, before and after, at default settings. The seeds are fixed, none
was chosen for its result. Nobody in them exists: medeid drew the people, and
[`examples/hard_photos.py`](../examples/hard_photos.py) made the photos harder. *Released* means that all checks passed:
no recognizer takes the result for its source, no sign that was read is lost, none is read that was not there, and a
face is found. A photo that does not pass with any of twelve surrogates is *withheld*.

![24 photos, each before and after](gallery.jpg)

`python examples/make_gallery.py` makes pictures and verdicts again; the last column is written by hand.

| | photo | verdict | what still fails |
| --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Shown:
    """A case before and after (None if it was withheld), uint8 [H, W, 3], and what the pipeline says of it."""

    before: np.ndarray
    after: np.ndarray | None
    verdict: str


def portrait(pipeline: MedicalDeIDPipeline, seed: int) -> Portrait:
    """Somebody who does not exist, with the dense landmarks."""
    (drawn,) = pipeline.draw_faces(1, torch.Generator().manual_seed(seed), num_inference_steps=STEPS)
    image = np.asarray(drawn)
    return image, pipeline.find_landmarks([image])[0]


def show(pipeline: MedicalDeIDPipeline, number: int, case: Case, people: list[Portrait]) -> Shown:
    """De-identifies the photo of a case."""
    photo = case.make(people, np.random.default_rng(number))
    after, verdict = None, ""
    try:
        (after,), (record,), _ = pipeline(photo, generator=torch.Generator().manual_seed(number), return_dict=False)
        verdict = _told(record)
    except NoFaceFoundError:
        verdict = "withheld: no face was found"
    except VerificationError as error:
        failed = {reason for face in error.records[0].faces if face.attempts for reason in face.attempts[-1].failed}
        verdict = f"withheld: {'; '.join(sorted(failed))}"
    if case.window is not None:
        left, top, side = (round(share * photo.shape[1]) for share in case.window)
        window = np.s_[top : top + side, left : left + side]
        photo, after = photo[window], None if after is None else after[window]
    return Shown(photo, after, verdict)


def _told(record: PhotoRecord) -> str:
    attempts = max(len(face.attempts) for face in record.faces)
    kept = sorted({sign.label for face in record.faces for sign in face.manifestations if sign.preserved})
    told = ["released" if attempts == 1 else f"released with surrogate {attempts}"]
    if len(record.faces) > 1:
        told.append(f"{len(record.faces)} faces")
    return "; ".join(told + ([f"kept {', '.join(f'`{label}`' for label in kept)}"] if kept else []))


def sheet(shown: list[Shown]) -> Image.Image:
    """All cases, before and after beside each other, under their numbers."""
    width, height = 2 * TILE + GAP, TILE + CAPTION + GAP
    picture = Image.new("RGB", (COLUMNS * width, -(-len(shown) // COLUMNS) * height), "white")
    draw = ImageDraw.Draw(picture)
    for place, each in enumerate(shown):
        x, y = place % COLUMNS * width, place // COLUMNS * height
        title = f"{place + 1}  {CASES[place].title}"
        font = ImageFont.load_default(13)
        draw.text((x + 2, y + 1), title + ("  (withheld)" if each.after is None else ""), "black", font)
        for half, pixels in enumerate((each.before, each.after)):
            tile = Image.new("RGB", (TILE, TILE), (225, 225, 225))
            if pixels is not None:
                tile = ImageOps.pad(Image.fromarray(pixels), (TILE, TILE), Image.Resampling.LANCZOS, "white")
            picture.paste(tile, (x + half * TILE, y + CAPTION))
    return picture


def written(page: str) -> dict[str, str]:
    """What a page says of each photo by hand, by its title."""
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return {row[1]: row[3] for row in rows if len(row) == 4 and row[0].isdigit()}


def page(shown: list[Shown], remarks: dict[str, str]) -> str:
    """The document docs/gallery.md."""
    return INTRODUCTION + "".join(
        f"| {number} | {case.title} | {each.verdict} | {remarks.get(case.title, 'not looked at yet')} |\n"
        for number, (case, each) in enumerate(zip(CASES, shown, strict=True), start=1)
    )


def main(
    model: Annotated[str, typer.Option(help="medeid-tiny, a folder, or a name on the Hub.")] = "medeid-tiny",
) -> None:
    """Draw the gallery and write its page."""
    artist, pipeline = (MedicalDeIDPipeline.from_pretrained(name) for name in ("medeid-tiny", model))
    for each in (artist, pipeline):
        each.set_progress_bar_config(disable=True)
    shown = []
    for number, case in enumerate(tqdm(CASES, desc="De-identifying"), start=1):
        shown.append(show(pipeline, number, case, [portrait(artist, seed) for seed in case.seeds]))
    coded = io.BytesIO()
    sheet(shown).save(coded, format="JPEG", quality=88, optimize=True)
    write_file(PICTURE, coded.getvalue())
    remarks = written(PAGE.read_text("utf-8")) if PAGE.is_file() else {}
    write_file(PAGE, page(shown, remarks).encode())


if __name__ == "__main__":
    typer.run(main)
