"""Draw the pictures of README.md and of the model card. Every face in them is drawn by medeid-tiny itself.

python examples/make_pictures.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medeid import MedicalDeIDPipeline
from medeid.data.simulate import simulate
from medeid.manifestations.taxonomy import Finding
from medeid.pipeline import PACKAGED_WEIGHTS

BEFORE_AFTER = Path(__file__).parent / "before_after.png"
SURROGATES = PACKAGED_WEIGHTS / "medeid-tiny" / "surrogates.jpg"
FACE_SEEDS = (13, 33, 2, 21, 18, 34, 14, 39)  # the cleanest of the first forty
RESULT_SEED = 4  # the cleanest of five results
PATIENTS = {0: Finding("port_wine_stain", "left", 0.8), 1: Finding("rosacea", "both", 0.7)}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def side_by_side(rows: list[list[Image.Image]], gap: int = 4) -> Image.Image:
    """Rows of pictures of one size, on white."""
    width, height = rows[0][0].size
    columns = len(rows[0])
    sheet = Image.new("RGB", (columns * (width + gap) - gap, len(rows) * (height + gap) - gap), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(picture, (x * (width + gap), y * (height + gap)))
    return sheet


def main() -> None:
    pipeline = MedicalDeIDPipeline.from_pretrained("medeid-tiny")
    sources = [pipeline.draw_faces(1, seeded(seed), num_inference_steps=20)[0] for seed in FACE_SEEDS]
    rows = [sources]
    for surrogate in range(3):
        generators = [seeded(1000 * surrogate + seed) for seed in FACE_SEEDS]
        rows.append(pipeline(sources, generator=generators).images)
    side_by_side(rows).save(SURROGATES, quality=90)
    pairs = []
    for index, finding in PATIENTS.items():
        source = np.asarray(sources[index])
        landmarks = pipeline.find_landmarks([source])[0]
        patient = simulate(source, landmarks, [finding], np.random.default_rng(index))
        result = pipeline(patient.image, preserve=[finding.manifestation], generator=seeded(RESULT_SEED))
        pairs += [Image.fromarray(patient.image), Image.fromarray(result.images[0])]
    side_by_side([pairs]).save(BEFORE_AFTER, optimize=True)


if __name__ == "__main__":
    main()
