"""One face on its way through the pipeline, and what the encoder sees of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from .faces.alignment import matrix_scale
from .manifestations.channels import Preservation, one_side
from .manifestations.encoder import Reading
from .manifestations.taxonomy import TAXONOMY, parse_sign
from .records import FaceRecord, ManifestationRecord
from .types import FaceCrop


@dataclass(frozen=True)
class Seen:
    """What the encoder reads of one crop.

    Attributes:
        readings: The signs that it claims.
        probabilities, severities: float32 [L].
        masks: float32 [M, S/2, S/2], 0 or 1.
        tokens: float [T, D].
    """

    readings: list[Reading]
    probabilities: np.ndarray
    severities: np.ndarray
    masks: np.ndarray
    tokens: torch.Tensor

    def mask(self, name: str, side: str) -> np.ndarray:
        """bool [S/2, S/2]: where a sign is on a side."""
        return one_side(self.masks[list(TAXONOMY).index(name)], [side]) > 0

    @property
    def claimed(self) -> set[str]:
        """The labels that it claims."""
        return {reading.label for reading in self.readings}


@dataclass
class FaceState:
    """One face on its way through the pipeline.

    Attributes:
        photo: Index of its photo.
        record: What the caller will be told.
        crop: The aligned square.
        pseudonym: What the patient is called, if it is known and there is a key.
        landmarks: float32 [478, 3], in pixels of a 256 px crop.
        mask: float32 [S, S] in [0, 1], feathered: how far the new face covers the old one.
        cover: What of the mask the new face needs.
        hole: float32 [S, S] of {0, 1}: what the UNet may not see.
        neighbours: float32 [S, S] of {0, 1}: where other faces of the photo reach into the crop.
        embeddings: The source's unit embedding [D] by each recognizer.
        seen: What the encoder reads of the source, label by label and mask by mask.
        seen_after: The same of the result.
        wanted: The labels that are to be preserved.
        keeps_signs: Whether the face is to show the signs that it showed, and no others.
        preserved: What outlives the face.
        missed: For each label how much oftener it was lost in the attempts than it has come up.
        suppression: The least guidance away from the source in this attempt.
        shape: float32 [478, 3], landmarks of nobody, which the new face's shape is drawn towards.
        generator: Source of all that is random about the new face.
        generated: uint8 [S, S, 3], the new face.
        drawn: float32 [478, 3], the landmarks of that.
    """

    photo: int
    record: FaceRecord
    crop: FaceCrop
    landmarks: np.ndarray
    mask: np.ndarray
    hole: np.ndarray
    neighbours: np.ndarray
    pseudonym: str | None = None
    embeddings: dict[str, torch.Tensor] = field(default_factory=dict)
    cover: np.ndarray = field(init=False)
    seen: Seen = field(init=False)
    seen_after: Seen = field(init=False)
    wanted: set[str] = field(default_factory=set)
    keeps_signs: bool = True
    preserved: Preservation = field(init=False)
    missed: Counter[str] = field(default_factory=Counter)
    suppression: float = 0.0
    shape: np.ndarray = field(init=False)
    generator: torch.Generator = field(default_factory=torch.Generator)
    generated: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))
    drawn: np.ndarray = field(init=False)

    def compare_signs(self, labels: Sequence[str]) -> list[ManifestationRecord]:
        """The signs that are to be preserved or are claimed before or after, in the order of the encoder's labels."""
        told = self.wanted | self.seen.claimed | self.seen_after.claimed
        return [self._compare_sign(label, number) for number, label in enumerate(labels) if label in told]

    def _compare_sign(self, label: str, number: int) -> ManifestationRecord:
        (finding,) = parse_sign(label)
        name, side = finding.manifestation, finding.side
        old, new = self.seen.mask(name, side), self.seen_after.mask(name, side)
        area = int(old.sum()) + int(new.sum())
        before, after = self.seen, self.seen_after
        return ManifestationRecord(
            name,
            side,
            label in self.wanted,
            probability={"before": float(before.probabilities[number]), "after": float(after.probabilities[number])},
            severity={"before": float(before.severities[number]), "after": float(after.severities[number])},
            mask_overlap=2.0 * int((old & new).sum()) / area if area else None,
        )


def name_patients(faces: list[FaceState], pseudonyms: list[str | None]) -> None:
    """Gives each photo's largest face the pseudonym of its patient."""
    for photo, name in enumerate(pseudonyms):
        own = [face for face in faces if face.photo == photo]
        min(own, key=lambda face: matrix_scale(face.crop.matrix)).pseudonym = name
