"""What the next try is told of signs that the last ones lost, or that came up on them: more of this, less of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..faces.eyeball import IRIS_RADIUS
from ..faces.mesh import (
    INNER_LIPS,
    LEFT_EYE,
    LEFT_IRIS,
    MIRROR,
    NUM_LANDMARKS,
    OUTER_LIPS,
    RIGHT_BROW,
    RIGHT_EYE,
    RIGHT_IRIS,
    RIGHT_LIDS,
)
from ..faces.pigments import BILIRUBIN, DEOXYHAEMOGLOBIN, HAEMOGLOBIN, Pigment, absorb
from ..faces.shape import with_asymmetry
from .channels import ColourArea, colour_areas
from .taxonomy import Side, parse_sign

_MOST = 4  # times, that count


@dataclass(frozen=True)
class _EyeMove:
    """What a sign does to an eye, in mm for each time that it was missed: margins of the lids down, the iris aside."""

    upper: float = 0.0
    lower: float = 0.0
    inwards: float = 0.0
    up: float = 0.0


_EYE_MOVES: dict[str, _EyeMove] = {
    "ptosis": _EyeMove(upper=0.5),
    "lid_retraction": _EyeMove(upper=-0.5),
    "proptosis": _EyeMove(upper=-0.3, lower=0.3),
    "periorbital_oedema": _EyeMove(upper=0.3),
    "esotropia": _EyeMove(inwards=0.7),
    "exotropia": _EyeMove(inwards=-0.7),
    "hypertropia": _EyeMove(up=0.7),
}
# What else a sign moves, on the patient's right and, of the mouth, on both sides; by a share of its asymmetry.
_MOUTH = OUTER_LIPS + INNER_LIPS
_ASYMMETRIC: dict[str, tuple[int, ...]] = {
    "facial_palsy": RIGHT_EYE + RIGHT_LIDS + RIGHT_BROW + _MOUTH,
    "cleft_lip_scar": _MOUTH,
}
_ASYMMETRY_STEP = 0.3

_COLOUR_STEP = 0.3  # of a sign's colour at its worst
# Density of pigment where a sign is at its worst, as it is simulated. Without the oxygen-poor share of the blood, skin
# would turn green.
_PIGMENTS: dict[str, tuple[tuple[ColourArea, Pigment, float], ...]] = {
    "jaundice": (("skin", BILIRUBIN, 0.28), ("lips", BILIRUBIN, 0.14)),
    "scleral_icterus": (("sclera", BILIRUBIN, 0.45),),
    "flushing": (("skin", HAEMOGLOBIN, 0.18),),
    "pallor": (
        ("skin", HAEMOGLOBIN, -0.054),
        ("skin", DEOXYHAEMOGLOBIN, -0.045),
        ("lips", HAEMOGLOBIN, -0.138),
        ("lips", DEOXYHAEMOGLOBIN, -0.115),
    ),
    "cyanosis": (("lips", DEOXYHAEMOGLOBIN, 0.66), ("lips", HAEMOGLOBIN, -0.54)),
}


def correct_shape(landmarks: np.ndarray, missed: Mapping[str, int]) -> np.ndarray:
    """A face's landmarks with more of the shape of signs that were lost, and less of that of signs that came up.

    Args:
        landmarks (`np.ndarray`):
            float32 `[478, 3]` in pixels of a 256 px crop.
        missed (`Mapping[str, int]`):
            For each label (`"ptosis:left"`) how much oftener it was lost than it has come up; of any channel.

    Returns:
        `np.ndarray`: float32 `[478, 3]`.
    """
    result, more = landmarks.copy(), np.zeros(NUM_LANDMARKS, np.float32)
    for label, times in missed.items():
        (finding,) = parse_sign(label)
        times = int(np.clip(times, -_MOST, _MOST))
        for side in finding.single_sides:
            if finding.manifestation in _EYE_MOVES:
                _move_eye(result, side, _EYE_MOVES[finding.manifestation], times)
            more[_points_on(side, _ASYMMETRIC.get(finding.manifestation, ()))] += _ASYMMETRY_STEP * times
    return with_asymmetry(result, more) if more.any() else result


def _points_on(side: Side, right: Sequence[int]) -> np.ndarray:
    """bool [478]: those of a sign's points that are on a side, or on the midline."""
    chosen, points = np.zeros(NUM_LANDMARKS, bool), np.arange(NUM_LANDMARKS)
    chosen[list(right) if side == "right" else MIRROR[list(right)]] = True
    return chosen & (points <= MIRROR if side == "right" else points >= MIRROR)


def _move_eye(landmarks: np.ndarray, side: Side, move: _EyeMove, times: int) -> None:
    contour, iris = (RIGHT_EYE, RIGHT_IRIS) if side == "right" else (LEFT_EYE, LEFT_IRIS)
    outer, inner = landmarks[contour[0], :2], landmarks[contour[8], :2]
    width = np.linalg.norm(inner - outer)
    inwards = (inner - outer) / width
    down = np.array([-inwards[1], inwards[0]], np.float32) * (1 if side == "right" else -1)
    radius = np.linalg.norm(landmarks[list(iris[1:]), :2] - landmarks[iris[0], :2], axis=1).mean()
    step = times * radius / IRIS_RADIUS
    for points, distance in ((contour[1:8], move.upper), (contour[9:], move.lower)):
        across = (landmarks[list(points), :2] - outer) @ inwards / width
        reach = 4.0 * across * (1.0 - across)  # all at the middle, nothing at the canthi
        landmarks[list(points), :2] += step * distance * reach[:, None] * down
    landmarks[list(iris), :2] += step * (move.inwards * inwards - move.up * down)


def correct_colour(image: np.ndarray, landmarks: np.ndarray, missed: Mapping[str, int]) -> np.ndarray:
    """A face with more of the colour of signs that were lost, and less of that of signs that came up.

    Args:
        image (`np.ndarray`):
            uint8 `[S, S, 3]`, RGB: a crop.
        landmarks (`np.ndarray`):
            float32 `[478, 3]` in pixels of a 256 px crop.
        missed (`Mapping[str, int]`):
            See [`correct_shape`].

    Returns:
        `np.ndarray`: uint8 `[S, S, 3]`.
    """
    amounts = {sign: _COLOUR_STEP * float(np.clip(times, -_MOST, _MOST)) for sign, times in missed.items()}
    layers = [(amounts[sign], *layer) for sign in amounts for layer in _PIGMENTS.get(sign, ())]
    if not any(amount for amount, *_ in layers):
        return image
    areas = colour_areas(landmarks, image.shape[0])
    painted = [(pigment, amount * density * areas[area]) for amount, area, pigment, density in layers]
    return np.rint(absorb(image.astype(np.float32) / 255.0, *painted) * 255.0).astype(np.uint8)
