"""Many photos: whatever is wrong with one, the others go on, and nothing unverified is written."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..faces.detection import parse_boxes
from ..identity.keys import LEAST_BYTES
from ..identity.surrogate import SurrogateIdentity
from ..photos import Photo, PhotoInput
from ..pipeline import MedicalDeIDPipeline, Preserve
from ..processes import one_thread, share_out
from ..records import FaceRecord, NoFaceFoundError, PhotoRecord, VerificationError
from ..types import MAX_ATTEMPTS, WHOLE_FACE, FaceBox, OnFail
from .dicom_pseudonyms import Pseudonyms
from .images import ImageFileError, read_image
from .opening import open_photo
from .sources import PhotoFile


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


# Photos, the folder of their results and the options of a [`Deidentifier`] -> results, in any order.
Engine = Callable[[Sequence[PhotoFile], Path, dict[str, Any]], Iterator[tuple[PhotoFile, FileResult]]]


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
        key (`bytes`, *optional*):
            The study's, for photos with a pseudonym, see [`SurrogateIdentity`].
        header_key (`bytes`, *optional*):
            What UIDs, dates and codes in DICOM headers come from, see [`Pseudonyms`].
        burned_in_checked (`bool`, *optional*, defaults to `False`):
            Of DICOM, see [`DicomFile.read`].
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
        key: bytes | None = None,
        header_key: bytes | None = None,
        burned_in_checked: bool = False,
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
            "identity_guidance_scale": identity_guidance_scale,
            "privacy": privacy,
            "max_attempts": max_attempts,
            "on_fail": on_fail,
        }
        self.seed = seed
        self.surrogate_identity = None if key is None else SurrogateIdentity(key)
        self.header_pseudonyms, self.burned_in_checked = Pseudonyms(header_key), burned_in_checked

    def _generator(self, index: int) -> torch.Generator | None:
        if self.seed is None:
            return None
        # A generator a photo, so that a photo that cannot be used does not change those after it.
        state = np.random.SeedSequence((self.seed, index)).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(state >> np.uint64(1)))

    def run(self, photo: PhotoFile, out: Path) -> FileResult:
        """De-identifies one file into `out / photo.name` plus the suffix of a lossless format, or of DICOM."""
        record = FileRecord(photo.index, "unusable")
        try:
            source = open_photo(photo.source, self.header_pseudonyms, self.burned_in_checked)
            target = out / (photo.name + source.suffix)
            if target.exists() and target.samefile(photo.source):
                return FileResult(record, "the result would overwrite it; choose another folder by -o")
            frames = self._deidentified(photo, source.frames, record)
            target.parent.mkdir(parents=True, exist_ok=True)
            record.output_sha256 = source.write(frames, target, photo.pseudonym)
        except NoFaceFoundError as error:
            record.status = "no_face"
            return FileResult(record, error.reason)
        except VerificationError as error:
            _add(record, error.records[error.index])
            return FileResult(record, error.reason)
        except (ImageFileError, ValueError) as error:
            record.status = "unusable"
            return FileResult(record, str(error))
        except OSError as error:
            record.status = "unusable"
            reason = f"the result cannot be written ({error.strerror}); make room or choose another -o"
            return FileResult(record, reason)
        except (RuntimeError, MemoryError) as error:
            record.status = "unusable"
            return FileResult(record, f"the model failed on it ({type(error).__name__}); is there memory enough?")
        return FileResult(record)

    def _deidentified(self, photo: PhotoFile, frames: Sequence[PhotoInput], record: FileRecord) -> list[PhotoInput]:
        """All frames of a photo, of which one that fails withholds the others."""
        identity, pseudonym = self._patient(photo, len(frames))
        generator = self._generator(photo.index)
        mask = None if photo.mask is None else read_mask(photo.mask)
        results: list[PhotoInput] = []
        for frame in frames:
            output = self.pipeline(
                frame,
                parse_photo_boxes(photo.boxes, frame),
                manifestation_mask=mask,
                generator=generator,
                surrogate_identity=identity,
                pseudonym=pseudonym,
                **self.options,
            )
            results.append(output.images[0])
            _add(record, output.records[0])
        return results

    def _patient(self, photo: PhotoFile, frames: int) -> tuple[SurrogateIdentity | None, str | None]:
        """The key and the pseudonym of a photo; without a key the frames of one still show one person."""
        if photo.pseudonym is not None or frames == 1:
            return self.surrogate_identity, photo.pseudonym
        if self.seed is None:
            return SurrogateIdentity(secrets.token_bytes(LEAST_BYTES)), "frames"
        seeded = np.random.SeedSequence((self.seed, photo.index)).generate_state(LEAST_BYTES // 4)
        return SurrogateIdentity(seeded.tobytes()), "frames"


def _add(record: FileRecord, told: PhotoRecord) -> None:
    """Adds what was done to one frame."""
    worst = ("withheld", "blurred", "released")
    record.status = min(told.status, record.status, key=lambda each: worst.index(each) if each in worst else len(worst))
    record.faces += told.faces
    record.seconds += told.seconds
    record.rejected += [each.reason for each in told.rejected]


def parse_photo_boxes(boxes: Any, frame: PhotoInput) -> list[list[FaceBox]] | None:
    """The user's own faces of one photo, as the pipeline takes them; None where the user gave none."""
    if boxes is None:
        return None
    return [parse_boxes(boxes, Photo.open(frame).rgb.shape[:2])]


def read_mask(path: Path) -> Image.Image:
    """A mask that was drawn on a photo.

    Raises:
        ImageFileError: the file cannot be used; the message says that it is the mask.
    """
    try:
        return read_image(path)
    except ImageFileError as error:
        raise ImageFileError(f"its mask cannot be used: {error}") from error


def deidentify_all(
    photos: Sequence[PhotoFile], out: Path, options: dict[str, Any], jobs: int | None = None
) -> Iterator[tuple[PhotoFile, FileResult]]:
    """De-identifies photos, and gives each result as soon as it is there.

    Args:
        photos (`Sequence[PhotoFile]`):
            The photos.
        out (`Path`):
            Folder of the results.
        options (`dict[str, Any]`):
            Of [`Deidentifier`].
        jobs (`int`, *optional*):
            Number of processes, each with a model and one thread: the results are the same, byte by byte, for any
            number. By default all is done here, with all threads, which is the fastest for a single photo.

    Raises:
        `OSError`, `ValueError`, `RuntimeError`: the model cannot be loaded.
        `BrokenExecutor`: a process died.
    """
    if jobs is not None and min(jobs, len(photos)) > 1:
        errands = ((photo, out) for photo in photos)
        yield from share_out(_run_in_process, options, errands, min(jobs, len(photos)))
    elif photos:
        with nullcontext() if jobs is None else one_thread():
            worker = Deidentifier(**options)
            for photo in photos:
                yield photo, worker.run(photo, out)


def _run_in_process(options: dict[str, Any], errand: tuple[PhotoFile, Path]) -> tuple[PhotoFile, FileResult]:
    photo, out = errand
    return photo, _process_deidentifier(options).run(photo, out)


_own: list[Deidentifier] = []


def _process_deidentifier(options: dict[str, Any]) -> Deidentifier:
    """The one of this process, which is loaded for its first photo."""
    if not _own:
        _own.append(Deidentifier(**options))
    return _own[0]
