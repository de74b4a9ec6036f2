"""What a simulator of a sign is, and the register that they are entered in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from ...faces.canvas import Canvas
from ...manifestations.taxonomy import TAXONOMY, Side


class Stage(IntEnum):
    """The order in which signs come about, so that a later one finds the face as the earlier ones left it."""

    FACE_SHAPE = 0  # large movements
    GAZE = 1  # before the lids, which may leave little of the eye to see
    EYE_SHAPE = 2  # lids and eyeballs
    TONE = 3  # colour of the whole skin
    SKIN = 4  # rashes, stains, patches
    LESION = 5  # what sits on top of them
    EYE_SURFACE = 6


@dataclass(frozen=True)
class Change:
    """What a sign does to a face.

    Args:
        image (`np.ndarray`):
            float32 [S, S, 3], sRGB in [0, 1]: the whole picture after.
        area (`np.ndarray`, *optional*):
            float32 [S, S] in [0, 1]: where the sign is; its mask is where this is at least 0.5. By default wherever the
            picture changed visibly.
        landmarks (`np.ndarray`, *optional*):
            float32 [478, 3] in pixels of the 256 px crop: where the points went, if they moved.
    """

    image: np.ndarray
    area: np.ndarray | None = None
    landmarks: np.ndarray | None = None


# Paints one sign on one side: canvas, side, severity in (0, 1], source of randomness.
Simulator = Callable[[Canvas, Side, float, np.random.Generator], Change]

SIMULATORS: dict[str, tuple[Stage, Simulator]] = {}


def simulates(name: str, stage: Stage) -> Callable[[Simulator], Simulator]:
    """Enters a function as the simulator of a manifestation. For a sign with sides it is called for one at a time."""
    if name not in TAXONOMY:
        raise KeyError(f"{name!r} is not in the taxonomy; add a row there first.")

    def enter(simulator: Simulator) -> Simulator:
        SIMULATORS[name] = (stage, simulator)
        return simulator

    return enter
