"""What a method is to a benchmark: it takes photos, the faces in them, and whom to take their patients for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..identity.surrogate import SurrogateIdentity
from ..types import FaceBox

Reference = tuple[np.ndarray, np.ndarray]  # crops uint8 [N, S, S, 3] of other people, and landmarks [N, 478, 3]


class MethodError(Exception):
    """A method is broken: it neither gave a result nor withheld the photo.

    Args:
        method (`str`):
            Its name.
        happened (`str`):
            What happened.
        stderr (`str`, *optional*, defaults to `""`):
            What it wrote; the last line is told.
    """

    def __init__(self, method: str, happened: str, stderr: str = ""):
        last = stderr.strip().rpartition("\n")[2]
        super().__init__(f"{method}: {happened}" + (f": {last}" if last else ""))


@dataclass(frozen=True)
class Alias:
    """Under which secret key and name a patient is known.

    Args:
        key (`bytes`):
            At least 16 bytes, see [`SurrogateIdentity`].
        pseudonym (`str`):
            What the patient is called. A method that can do so gives the same new face to the same alias; aliases of
            different keys must not be linkable.
    """

    key: bytes = field(repr=False)
    pseudonym: str

    @property
    def surrogate(self) -> SurrogateIdentity:
        """Who the patient becomes."""
        return SurrogateIdentity(self.key)


class Method(Protocol):
    """De-identifies photos of one face each. `name` stands for it in tables and on the command line."""

    name: str

    def __call__(
        self, photos: Sequence[np.ndarray], boxes: Sequence[FaceBox], aliases: Sequence[Alias]
    ) -> list[np.ndarray | None]:
        """
        Args:
            photos (`list[np.ndarray]`):
                uint8 `[H, W, 3]`, RGB; they are not changed.
            boxes (`list[FaceBox]`):
                The face of each photo, as close around it as a detector's.
            aliases (`list[Alias]`):
                The patient of each photo.

        Returns:
            `list[np.ndarray | None]`: uint8 `[H, W, 3]` of the same sizes; None where the method withheld the photo.

        Raises:
            MethodError: the method is broken.
        """
        ...


class PhotoByPhoto(ABC):
    """A method that takes each photo by itself."""

    def __call__(
        self, photos: Sequence[np.ndarray], boxes: Sequence[FaceBox], aliases: Sequence[Alias]
    ) -> list[np.ndarray | None]:
        return [self.hide(*each) for each in zip(photos, boxes, aliases, strict=True)]

    @abstractmethod
    def hide(self, photo: np.ndarray, box: FaceBox, alias: Alias) -> np.ndarray | None:
        """De-identifies one photo, see [`Method`]."""
