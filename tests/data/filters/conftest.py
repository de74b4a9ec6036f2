"""Faces with labels, in memory and as a data set on disk."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medeid.data.faces import FaceFolder
from medeid.data.filters.rows import Face
from medeid.data.masks import encode_masks
from medeid.faces.mesh import LEFT_EYE, region_mask
from medeid.manifestations.taxonomy import Finding


def _face(image: np.ndarray, landmarks: np.ndarray, subject: str) -> Face:
    return Face("train/images/0.png", subject, "", (), landmarks, image, np.zeros((0, *image.shape[:2]), bool))


@pytest.fixture
def healthy(light_face) -> Face:
    return _face(*light_face, "one")


@pytest.fixture
def left_eye_mask(light_face) -> np.ndarray:
    return region_mask(light_face[1], "left_eye", 256) > 0


@pytest.fixture
def left_ptosis(healthy, left_eye_mask) -> Face:
    """The landmarks of the left upper lid lie half way down; the picture is as it was."""
    drooping = healthy.landmarks.copy()
    upper, lower = list(LEFT_EYE[1:8]), list(LEFT_EYE[:8:-1])
    drooping[upper] = (drooping[upper] + drooping[lower]) / 2
    return replace(healthy, findings=(Finding("ptosis", "left"),), masks=left_eye_mask[None], landmarks=drooping)


@pytest.fixture
def varied(faces_dir) -> list[Face]:
    """48 healthy faces that differ a little in everything: the twelve faces, and each with other light and lids."""
    folder = FaceFolder(faces_dir, "train")
    generator = np.random.default_rng(0)
    faces = []
    for index in range(48):
        row = index % len(folder)
        gains = generator.normal(1.0, 0.03, 3)
        image = np.clip(folder.image(row) * gains, 0, 255).astype(np.uint8)
        landmarks = folder.landmarks(row)
        landmarks[:, :2] += generator.normal(0.0, 0.3, (len(landmarks), 2))
        faces.append(_face(image, landmarks, f"{row}-{index}"))
    return faces


@pytest.fixture
def write_set(tmp_path) -> Callable[[Sequence[Face]], Path]:
    """Writes faces as one split of a data set, in the form of `medeid simulate`; images are PNG, so exact."""

    def write(faces: Sequence[Face]) -> Path:
        split = tmp_path / "patients" / "train"
        (split / "images").mkdir(parents=True)
        (split / "masks").mkdir()
        with open(split / "metadata.jsonl", "w") as metadata:
            for index, face in enumerate(faces):
                names = {"file_name": f"images/{index}.png", "mask_file_name": f"masks/{index}.png"}
                Image.fromarray(face.image).save(split / names["file_name"])
                encode_masks(face.masks).save(split / names["mask_file_name"])
                findings = [asdict(finding) for finding in face.findings]
                row = names | {"subject_id": face.subject_id, "findings": findings, "skin_tone": face.skin_tone}
                metadata.write(json.dumps(row | {"landmarks": face.landmarks.tolist()}) + "\n")
        return split.parent

    return write
