"""Redraw the faces of a folder with the pipeline, so that an encoder learns what its skin looks like without a disease.

python train/redraw_faces.py --data_dir FACES --out runs/redrawn --count 600
medeid simulate runs/redrawn -o runs/redrawn-patients -n 2000 --further 4

An encoder that has only seen photos takes what a generator does to skin for a sign. The result is a folder of aligned
crops like FACES, for `medeid simulate`. Nothing is verified: it is no way to de-identify a data set.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from medeid import MedicalDeIDPipeline
from medeid.data.faces import FaceFolder
from medeid.faces.mesh import points5_from_mesh
from medeid.photos import Photo
from medeid.types import WHOLE_FACE, FaceBox

BATCH_SIZE = 16


@torch.no_grad()
def redraw(
    pipeline: MedicalDeIDPipeline, images: list[np.ndarray], landmarks: list[np.ndarray], seed: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """The same crops uint8 [S, S, 3] with other faces, and the landmarks float32 [N, 478, 3] that are found on them."""
    photos = [Photo.open(image) for image in images]
    boxes = [
        [FaceBox((0.0, 0.0, *image.shape[1::-1]), 1.0, points5_from_mesh(points), "user")]
        for image, points in zip(images, landmarks, strict=True)
    ]
    _, faces = pipeline.find_faces(photos, boxes)
    generator = torch.Generator().manual_seed(seed)
    pipeline.read_manifestations(faces, [pipeline.draw_seed(face, generator) for face in faces])
    pipeline.plan_preservation(faces, None, [None] * len(photos))
    pipeline.embed_sources(faces)
    surrogates = torch.stack([pipeline.draw_surrogate(face, generator) for face in faces])
    config = pipeline.config
    pipeline.generate(faces, surrogates, config.num_inference_steps, config.guidance_scale, 0.0, None)
    pipeline.fit_masks(faces, WHOLE_FACE)
    pipeline.match_tones(faces)
    results = [pipeline.paste(photo, [face])[0] for photo, face in zip(photos, faces, strict=True)]
    return results, pipeline.find_landmarks(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="Folder of aligned crops with landmarks.")
    parser.add_argument("--out", required=True, help="New folder for the redrawn ones.")
    parser.add_argument("--model", default="medeid-tiny", help="medeid-tiny, a folder, or a name on the Hub.")
    parser.add_argument("--count", type=int, default=600, help="Number of faces of the train split, evenly spread.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the surrogates and the noise.")
    arguments = parser.parse_args()
    out, folder = Path(arguments.out), FaceFolder(arguments.data_dir, "train")
    (out / "images").mkdir(parents=True)
    pipeline = MedicalDeIDPipeline.from_pretrained(arguments.model)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    pipeline.set_progress_bar_config(disable=True)
    chosen = np.linspace(0, len(folder) - 1, min(arguments.count, len(folder))).round().astype(int)
    rows, found = [], []
    for start in tqdm(range(0, len(chosen), BATCH_SIZE), desc="Redrawing"):
        batch = chosen[start : start + BATCH_SIZE]
        images, landmarks = [folder.image(i) for i in batch], [folder.landmarks(i) for i in batch]
        results, points = redraw(pipeline, images, landmarks, arguments.seed + start)
        for index, result in zip(batch, results, strict=True):
            row = folder.rows[index]
            Image.fromarray(result).save(out / "images" / Path(row["file_name"]).name, quality=95)
            rows.append({**row, "file_name": f"images/{Path(row['file_name']).name}"})
        points[..., :2] += 0.5  # landmarks.npz counts from the outer edge of the first pixel
        found.append(points)
    np.savez_compressed(out / "landmarks.npz", landmarks=np.concatenate(found))
    (out / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
