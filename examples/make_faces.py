"""Draws the people in `examples/faces`, who do not exist: `python examples/make_faces.py`.

Of 120 portraits that the packaged model drew, twelve clean ones were chosen by eye, over the range of skin tones. With
other weights the same seeds draw other people: look at them and choose again.
"""

import json
from pathlib import Path

import numpy as np
import torch

from medeid import MedicalDeIDPipeline

FACES = Path(__file__).with_name("faces")
BATCH = 8
FIRST_SEED = 1000
CHOSEN = (13, 22, 107, 45, 16, 79, 87, 24, 50, 88, 116, 25)  # from dark to light, in the order of drawing
VALIDATION = (22, 87, 116)


def main() -> None:
    pipeline = MedicalDeIDPipeline.from_pretrained("medeid-tiny")
    pipeline.set_progress_bar_config(disable=True)
    (FACES / "images").mkdir(parents=True, exist_ok=True)
    batches = {
        batch: pipeline.draw_faces(BATCH, torch.Generator().manual_seed(FIRST_SEED + batch))
        for batch in sorted({index // BATCH for index in CHOSEN})
    }
    rows, crops = [], []
    for index in CHOSEN:
        image = batches[index // BATCH][index % BATCH]
        name = f"images/{index:03d}.png"
        image.save(FACES / name, optimize=True)
        crops.append(np.asarray(image))
        rows.append({"file_name": name, "split": "validation" if index in VALIDATION else "train"})
    landmarks = pipeline.find_landmarks(crops)
    landmarks[..., :2] += 0.5  # FaceFolder counts from the outer edge of the first pixel
    np.savez_compressed(FACES / "landmarks.npz", landmarks=landmarks.astype(np.float16))
    (FACES / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
