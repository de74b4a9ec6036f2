"""What a call tells: the outputs, what was done to each photo and face, and why nothing is returned."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from diffusers.utils import BaseOutput

from .faces.detection import RejectedBox
from .manifestations.encoder import Reading
from .manifestations.taxonomy import Side, label_name
from .photos import PhotoInput


class NoFaceFoundError(ValueError):
    """No face was found in a photo, so nothing is returned: an unchanged photo must not pass as de-identified.

    Attributes:
        index (`int`): Which photo of the call.
        reason (`str`): What was seen, and what to do.
    """

    def __init__(self, index: int, rejected: list[RejectedBox]):
        self.index = index
        seen = f" (rejected: {'; '.join(each.reason for each in rejected)})" if rejected else ""
        self.reason = f"no face was found{seen}; give the face's box yourself, or a photo with a larger, freer face"
        super().__init__(f"Photo {index}: {self.reason}.")


class VerificationError(RuntimeError):
    """No surrogate passed the checks, so nothing is returned.

    Attributes:
        index (`int`): Which photo of the call.
        reason (`str`): Which check failed, and what to do.
        records (`list[PhotoRecord]`): The records of the call, with what was measured.
    """

    remedy = "try another seed, more attempts or a higher guidance scale, or say by `preserve` which signs matter"

    def __init__(self, index: int, failed: str, records: list[PhotoRecord]):
        self.index, self.records = index, records
        self.reason = f"withheld, since {failed}; {self.remedy}"
        super().__init__(f"Photo {index}: {self.reason}.")


class UnsureFaceError(VerificationError):
    """There may be a face beside those that were found, which would be left, so nothing is returned.

    Attributes:
        index, reason, records: As of [`VerificationError`].
    """

    remedy = "give the boxes of all faces yourself, or cover what is there"

    def __init__(self, index: int, records: list[PhotoRecord]):
        places = [
            f"({', '.join(str(round(corner)) for corner in each.box.box)}), {each.reason}"
            for each in records[index].rejected
            if each.unsure
        ]
        super().__init__(index, f"there may be one more face at {' and at '.join(places)}", records)


@dataclass
class ManifestationRecord:
    """A sign on one face, in the source and in the result.

    Attributes:
        manifestation (`str`): A name of the taxonomy.
        side (`str`): The patient's own: `"left"`, `"right"`, or `"both"` for a sign of the whole face.
        preserved (`bool`): Whether it was to be preserved.
        probability (`dict`): In [0, 1], `before` and `after`.
        severity (`dict`): In [0, 1], `before` and `after`.
        mask_overlap (`float`, *optional*): Dice overlap of its masks before and after; None where neither has one.
    """

    manifestation: str
    side: Side
    preserved: bool
    probability: dict[str, float]
    severity: dict[str, float]
    mask_overlap: float | None

    @property
    def label(self) -> str:
        """`"ptosis:left"`, `"jaundice"`."""
        return label_name(self.manifestation, self.side)


@dataclass
class AttemptRecord:
    """One surrogate that was tried for a face.

    Attributes:
        surrogate_digest (`str`): First 16 hex digits of the SHA-256 of the surrogate's seed; empty for a blurred face.
        similarity (`dict`): For each recognizer, cosine of the source face to the result.
        failed (`list[str]`): Which checks it did not pass; empty if it passed.
    """

    surrogate_digest: str
    similarity: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


@dataclass
class FaceRecord:
    """What was done to one face.

    Attributes:
        box (`tuple`): Left, top, right and bottom in pixels of the upright photo.
        score (`float`): The detector's confidence; 1.0 for a box given by the user.
        detector (`str`): Name of the detector, or `"user"`.
        similarity (`dict`): For each recognizer, cosines of the source face: `before` to its own mirror image (what the
            same face scores), `after` to the result.
        attempts (`list[AttemptRecord]`): The surrogates that were tried, the one that is seen last.
        blurred (`bool`): Whether the face was blurred instead, as none of them passed.
        manifestations (`list[ManifestationRecord]`): The signs that were to be preserved, and all that the encoder
            finds before or after.
    """

    box: tuple[float, float, float, float]
    score: float
    detector: str
    similarity: dict[str, dict[str, float]] = field(default_factory=dict)
    attempts: list[AttemptRecord] = field(default_factory=list)
    blurred: bool = False
    manifestations: list[ManifestationRecord] = field(default_factory=list)


@dataclass
class FaceManifestations:
    """The signs of disease on one face of a photo.

    Attributes:
        box (`tuple`): Left, top, right and bottom of the face in pixels of the upright photo.
        readings (`list[Reading]`): The signs, the likeliest first.
        masks (`dict[str, np.ndarray]`): For each label read (`"ptosis:left"`, `"jaundice"`), bool [H, W] in pixels of
            the photo: where it is.
        tokens (`torch.Tensor`): float [T, D], the manifestation tokens.
    """

    box: tuple[float, float, float, float]
    readings: list[Reading]
    masks: dict[str, np.ndarray]
    tokens: torch.Tensor


@dataclass
class PhotoRecord:
    """What was done to one photo.

    Attributes:
        status (`str`): `"released"`, `"blurred"` (released, but with a face that was blurred) or `"withheld"`.
        faces (`list[FaceRecord]`): What was done to each face.
        rejected (`list[RejectedBox]`): Candidates that were not taken for a face, and so left as they were.
        seconds (`float`): Its share of the call's time.
    """

    status: str
    faces: list[FaceRecord]
    rejected: list[RejectedBox]
    seconds: float = 0.0


@dataclass
class MedicalDeIDPipelineOutput(BaseOutput):
    """
    Args:
        images (`list`):
            De-identified photos, as the inputs in type, size and mode.
        records (`list[PhotoRecord]`):
            What was done to each photo.
        masks (`list[np.ndarray]`):
            bool [H, W]: outside of it a photo is what it was, bit for bit.
    """

    images: list[PhotoInput]
    records: list[PhotoRecord]
    masks: list[np.ndarray]
