"""Many photos, one after the other: whatever is wrong with one, the others go on, and nothing unverified is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from ..faces.detection import parse_boxes
from ..identity.surrogate import SurrogateIdentity
from ..pipeline import MedicalDeIDPipeline, Preserve
from ..records import FaceRecord, NoFaceFoundError, VerificationError
from ..types import MAX_ATTEMPTS, WHOLE_FACE, FaceBox, OnFail
from .images import ImageFileError, lossless_format, read_image, write_image


@dataclass
class FileRecord:
    """What is kept of one photo. It holds no name of a source: a result is known by the digest of its file.

    Attributes:
        photo (`int`): Which photo of the run, from 0.
        status (`str`): `"released"`, `"blurred"` (released, but with a face that was blurred), `"withheld"` (failed
            verification), `"no_face"` or `"unusable"`.
        output_sha256 (`str`): Of the written file; empty if none was written.
        seconds (`float`): Time that the pipeline took.
        faces (`list[FaceRecord]`): What was done to each face.
        rejected (`list[str]`): Why a candidate was not taken for a face, and so left as it was.
    """

    photo: int
    status: str
    output_sha256: str = ""
    seconds: float = 0.0
    faces: list[FaceRecord] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)


@dataclass
class FileResult:
    """A record, and why the photo was not released (empty if it was)."""

    record: FileRecord
    reason: str = ""


class Deidentifier:
    """Takes photos from files to files.

    Args:
        model (`str`):
            For [`MedicalDeIDPipeline.from_pretrained`].
        device (`str`):
            A torch device.
        num_inference_steps (`int`, *optional*):
            See the pipeline.
        guidance_scale (`float`, *optional*):
            See the pipeline.
        preserve (`str` or `list[str]`, *optional*, defaults to `"auto"`):
            See the pipeline.
        seed (`int`, *optional*):
            Makes each photo's result a function of the seed, its place in the run and its pixels.
        surrogate_identity (`SurrogateIdentity`, *optional*):
            See the pipeline.
        pseudonym (`str`, *optional*):
            Of the patient, if all photos are of one; see the pipeline.
        identity_guidance_scale, privacy, max_attempts, on_fail (*optional*):
            See the pipeline.
    """

    def __init__(
        self,
        model: str = "medeid-tiny",
        device: str = "cpu",
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        preserve: Preserve = "auto",
        seed: int | None = None,
        surrogate_identity: SurrogateIdentity | None = None,
        pseudonym: str | None = None,
        identity_guidance_scale: float | None = None,
        privacy: float = WHOLE_FACE,
        max_attempts: int = MAX_ATTEMPTS,
        on_fail: OnFail = "withhold",
    ):
        self.pipeline = MedicalDeIDPipeline.from_pretrained(model).to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.options: dict[str, Any] = {
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "preserve": preserve,
            "surrogate_identity": surrogate_identity,
            "pseudonym": pseudonym,
            "identity_guidance_scale": identity_guidance_scale,
            "privacy": privacy,
            "max_attempts": max_attempts,
            "on_fail": on_fail,
        }
        self.seed = seed

    def _generator(self, index: int) -> torch.Generator | None:
        if self.seed is None:
            return None
        # A generator a photo, so that a photo that cannot be used does not change those after it.
        state = np.random.SeedSequence((self.seed, index)).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(state >> np.uint64(1)))

    def run(
        self, index: int, source: Path, folder: Path, name: str, boxes: Any = None, mask: Path | None = None
    ) -> FileResult:
        """De-identifies one file into `folder / name` plus the suffix of a lossless format.

        Args:
            index (`int`):
                Place of the photo in the run.
            source (`Path`):
                The photo; it is only read.
            folder (`Path`):
                Where the result goes.
            name (`str`):
                Stem of the result's file name.
            boxes (`list`, *optional*):
                Parsed JSON of the user's own faces, see [`parse_boxes`].
            mask (`Path`, *optional*):
                A picture of what is to stay, see the pipeline's `manifestation_mask`.
        """
        record = FileRecord(index, "unusable")
        try:
            image = read_image(source)
            image_format, suffix = lossless_format(image)
            target = folder / (name + suffix)
            if target.exists() and target.samefile(source):
                return FileResult(record, "the result would overwrite it; choose another folder by -o")
            faces = parse_photo_boxes(boxes, image)
            drawn = None if mask is None else read_mask(mask)
            output = self.pipeline(
                image, faces, manifestation_mask=drawn, generator=self._generator(index), **self.options
            )
            record.output_sha256 = write_image(output.images[0], target, image_format)
        except NoFaceFoundError as error:
            record.status = "no_face"
            return FileResult(record, error.reason)
        except VerificationError as error:
            told = error.records[error.index]
            record.status, record.faces, record.seconds = "withheld", told.faces, told.seconds
            return FileResult(record, error.reason)
        except (ImageFileError, ValueError) as error:
            return FileResult(record, str(error))
        except OSError as error:
            return FileResult(
                record, f"the result cannot be written ({error.strerror}); make room or choose another -o"
            )
        except (RuntimeError, MemoryError) as error:
            return FileResult(record, f"the model failed on it ({type(error).__name__}); is there memory enough?")
        told = output.records[0]
        record.status, record.faces, record.seconds = told.status, told.faces, told.seconds
        record.rejected = [each.reason for each in told.rejected]
        return FileResult(record)


def parse_photo_boxes(boxes: Any, image: Image.Image) -> list[list[FaceBox]] | None:
    """The user's own faces of one photo, as the pipeline takes them; None where the user gave none."""
    if boxes is None:
        return None
    width, height = ImageOps.exif_transpose(image).size
    return [parse_boxes(boxes, (height, width))]


def read_mask(path: Path) -> Image.Image:
    """A mask that was drawn on a photo.

    Raises:
        ImageFileError: the file cannot be used; the message says that it is the mask.
    """
    try:
        return ImageOps.exif_transpose(read_image(path))
    except ImageFileError as error:
        raise ImageFileError(f"its mask cannot be used: {error}") from error
