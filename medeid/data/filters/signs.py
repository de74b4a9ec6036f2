"""Do geometry and colour bear out a label: a drooping lid is lower than the other, a jaundiced eye is yellower.

Each sign here moves a measure one way. How much a healthy face varies is learned from the set itself, from its rows
without any sign that moves that measure, and so is how far the sign usually moves it. What varies in health limits what
can be told: of a faint sign only that the measure lies clearly on the *other* side, of a severe one also that it hardly
moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from ...faces.mesh import (
    INNER_LIPS,
    LEFT_EYE,
    LEFT_IRIS,
    MOUTH_CORNERS,
    OUTER_EYE_CORNERS,
    RIGHT_EYE,
    RIGHT_IRIS,
    inter_ocular_distance,
    region_mask,
    scale_points,
)
from ...manifestations.taxonomy import Finding
from .limits import Limit
from .rows import Face

MIN_REFERENCES = 30  # rows from which their median and spread are of use

# Evidence is about normal around what is usual (u), with a deviation of 1 from health and one of u / 4 from how the
# sign comes out. Then 99 % of the true labels lie above u - 2.3 deviations, about 0.4 u - 1 from u = 2 to 10.
_SHARE_OF_USUAL = 0.4

SIGN_LIMIT = Limit(
    "sign_evidence",
    "the picture contradicts the label",
    "Relative to the set. How far the measure that the sign moves lies from its median over the rows without such a "
    "sign, in their standard deviations (from the quartiles) and in the direction of the sign, less 0.4 of what is "
    "usual for this sign at this severity. A one-sided sign is compared with the other side of the same face.",
    low=-1.0,
)


@dataclass(frozen=True)
class Expectation:
    """A sign and the measure that it moves.

    Args:
        sign (`str`):
            Name of the manifestation.
        measure (`str`):
            Key of what [`measure_signs`] returns.
        direction (`int`):
            1 if the sign raises the measure, -1 if it lowers it.
    """

    sign: str
    measure: str
    direction: Literal[1, -1]


EXPECTATIONS: dict[str, Expectation] = {
    each.sign: each
    for each in (
        Expectation("ptosis", "lid_aperture", -1),
        Expectation("periorbital_oedema", "lid_aperture", -1),
        Expectation("lid_retraction", "lid_aperture", 1),
        Expectation("proptosis", "lid_aperture", 1),
        Expectation("esotropia", "convergence", 1),
        Expectation("exotropia", "convergence", -1),
        Expectation("hypertropia", "gaze_height", 1),
        Expectation("facial_palsy", "mouth_droop", 1),
        Expectation("conjunctival_injection", "sclera_redness", 1),
        Expectation("scleral_icterus", "sclera_yellowness", 1),
        Expectation("leukocoria", "pupil_lightness", 1),
        Expectation("jaundice", "skin_yellowness", 1),
        Expectation("flushing", "skin_redness", 1),
        Expectation("pallor", "skin_redness", -1),
        Expectation("cyanosis", "lip_blueness", 1),
    )
}

# Signs that move a measure as well, up or down: beside them nothing can be said about a label, nor are they healthy.
_ALSO_MOVED_BY: dict[str, tuple[str, ...]] = {
    "lid_aperture": ("facial_palsy",),
    "sclera_redness": ("subconjunctival_haemorrhage", "pterygium", "scleral_icterus"),
    "sclera_yellowness": ("subconjunctival_haemorrhage", "pterygium", "conjunctival_injection"),
    "skin_redness": ("rosacea", "malar_rash", "eczema", "port_wine_stain", "herpes_zoster", "acne", "jaundice"),
    "skin_yellowness": ("vitiligo", "melasma"),
    "lip_blueness": ("cleft_lip_scar", "jaundice", "flushing"),
}

MEASURES = tuple(dict.fromkeys(each.measure for each in EXPECTATIONS.values()))

_LEAST_PIXELS = 6
_SCLERA_FROM = 1.1  # of the iris' radius: its rim is blurred
_PUPIL = 0.35  # of the iris' radius
_CLOSED = 0.1  # aperture; the usual one is 0.16 to 0.27


def measure_signs(face: Face) -> np.ndarray:
    """All `MEASURES` of a face as float32 `[len(MEASURES), 2]`: the patient's right and left.

    Both columns are the same for what has no sides; NaN where it does not show. Lengths are in widths of the eye, or
    for the mouth in inter-ocular distances; colours are CIELAB.
    """
    size = face.image.shape[0]
    points = scale_points(face.landmarks[:, :2].astype(np.float64), size)
    eyes = [
        _Eye(points[list(lids)], points[list(iris)]) for lids, iris in ((RIGHT_EYE, RIGHT_IRIS), (LEFT_EYE, LEFT_IRIS))
    ]
    inward = [eye.gaze_inward for eye in eyes]
    sclera = [_lab_of_brighter_half(face.image, eye.sclera(size)) for eye in eyes]
    opening = np.zeros((size, size), np.uint8)
    cv2.fillPoly(opening, [np.rint(points[list(INNER_LIPS)]).astype(np.int32)], 1)
    lips = _lab(face.image, (region_mask(face.landmarks, "lips", size) > 0) & (opening == 0))
    skin = _lab(face.image, region_mask(face.landmarks, "skin", size) > 0)
    values = {
        "lid_aperture": [eye.aperture for eye in eyes],
        "convergence": [sum(inward)] * 2,
        "gaze_height": [eye.gaze_up for eye in eyes],
        "mouth_droop": _mouth_droop(points),
        "sclera_redness": [colour[1] for colour in sclera],
        "sclera_yellowness": [_known_mean([colour[2] for colour in sclera])] * 2,
        "pupil_lightness": [_lab(face.image, eye.pupil(size))[0] for eye in eyes],
        "skin_yellowness": [skin[2]] * 2,
        "skin_redness": [skin[1]] * 2,
        "lip_blueness": [skin[2] - lips[2]] * 2,
    }
    return np.array([values[name] for name in MEASURES], np.float32)


def _known_mean(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return sum(known) / len(known) if known else float("nan")


class _Eye:
    """Lid contour `[16, 2]` from the outer canthus over the upper lid, and iris `[5, 2]`, in pixels."""

    def __init__(self, lids: np.ndarray, iris: np.ndarray):
        self.lids, self.centre = lids, iris[0]
        self.radius = float(np.linalg.norm(iris[1:] - iris[0], axis=1).mean())
        inwards = lids[8] - lids[0]
        self.width = max(float(np.linalg.norm(inwards)), 1e-3)
        self.inwards = inwards / self.width
        up = np.array([self.inwards[1], -self.inwards[0]])
        self.up = up if up[1] <= 0 else -up  # image y grows downwards
        self.offset = self.centre - (lids[0] + lids[8]) / 2

    @property
    def aperture(self) -> float:
        """Area between the lids over the square of the width: a mean height, whatever the distance."""
        return float(cv2.contourArea(self.lids.astype(np.float32))) / self.width**2

    @property
    def gaze_inward(self) -> float:
        return float(self.offset @ self.inwards) / self.width

    @property
    def gaze_up(self) -> float:
        return float(self.offset @ self.up) / self.width

    def _disc(self, size: int, radius: float) -> np.ndarray:
        y, x = np.ogrid[:size, :size]
        return (x - self.centre[0]) ** 2 + (y - self.centre[1]) ** 2 <= radius**2

    def _open(self, size: int) -> np.ndarray:
        mask = np.zeros((size, size), np.uint8)
        if self.aperture >= _CLOSED:
            cv2.fillPoly(mask, [np.rint(self.lids).astype(np.int32)], 1)
        return mask > 0

    def sclera(self, size: int) -> np.ndarray:
        return self._open(size) & ~self._disc(size, _SCLERA_FROM * self.radius)

    def pupil(self, size: int) -> np.ndarray:
        return self._open(size) & self._disc(size, _PUPIL * self.radius)


def _lab(image: np.ndarray, mask: np.ndarray) -> tuple[float, float, float]:
    """Median CIELAB of the pixels of a mask; NaN if there are too few."""
    pixels = image[mask]
    if len(pixels) < _LEAST_PIXELS:
        return (float("nan"),) * 3
    lightness, a, b = np.median(_to_lab(pixels), axis=0).tolist()
    return lightness, a, b


def _lab_of_brighter_half(image: np.ndarray, mask: np.ndarray) -> tuple[float, float, float]:
    """As `_lab`, but without lashes and the shadow of the lid."""
    pixels = image[mask]
    if len(pixels) < 2 * _LEAST_PIXELS:
        return (float("nan"),) * 3
    lab = _to_lab(pixels)
    lightness, a, b = np.median(lab[lab[:, 0] >= np.median(lab[:, 0])], axis=0).tolist()
    return lightness, a, b


def _to_lab(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(pixels[None].astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)[0]


def _mouth_droop(points: np.ndarray) -> list[float]:
    """How far the corners of the mouth, right and left, lie below the line of the eyes."""
    right, left = points[list(OUTER_EYE_CORNERS)]
    distance = max(float(inter_ocular_distance(points)), 1e-3)
    along = (left - right) / distance
    down = np.array([-along[1], along[0]])
    return [float((points[corner] - right) @ down) / distance for corner in MOUTH_CORNERS]


class SignEvidence:
    """Collects the measures of all rows, then weighs the labels against those of the healthy ones."""

    def __init__(self) -> None:
        self._measures: list[np.ndarray] = []
        self._findings: list[tuple[Finding, ...]] = []

    def add(self, face: Face) -> None:
        self._measures.append(measure_signs(face))
        self._findings.append(face.findings)

    def weigh(self) -> tuple[list[list[tuple[float, str]]], list[str]]:
        """
        Returns:
            `tuple`: for each row its findings as (evidence, sign and side), without those of which nothing can be said;
            and what was not weighed at all, and why.
        """
        rows: list[list[tuple[float, str]]] = [[] for _ in self._findings]
        not_run = []
        for sign, expectation in EXPECTATIONS.items():
            labelled = [
                (row, finding)
                for row, findings in enumerate(self._findings)
                for finding in findings
                if finding.manifestation == sign and len(_moving(expectation.measure, findings)) == 1
            ]
            if not labelled:
                continue
            healthy = self._healthy(expectation.measure)
            if len(healthy) < MIN_REFERENCES:
                not_run.append(
                    f"{sign} against {expectation.measure}: only {len(healthy)} rows are without a sign that moves it, "
                    f"and it takes {MIN_REFERENCES} to know what is healthy."
                )
                continue
            column = MEASURES.index(expectation.measure)
            moved = np.array([_evidence(finding, self._measures[row][column], healthy) for row, finding in labelled])
            severities = np.array([finding.severity for _, finding in labelled])
            evidence = moved - _SHARE_OF_USUAL * _usual(moved / severities) * severities
            for (row, finding), value in zip(labelled, evidence.tolist(), strict=True):
                if np.isfinite(value):
                    rows[row].append((value, f"{sign}:{finding.side}"))
        return rows, not_run

    def _healthy(self, measure: str) -> np.ndarray:
        """float32 `[N, 2]`: a measure in the rows without a sign that moves it, where it shows on both sides."""
        untouched = [not _moving(measure, findings) for findings in self._findings]
        values = np.stack(self._measures)[untouched, MEASURES.index(measure)]
        return values[np.isfinite(values).all(axis=1)]


def _moving(measure: str, findings: tuple[Finding, ...]) -> list[Finding]:
    """The findings that move a measure."""
    signs = {sign for sign, each in EXPECTATIONS.items() if each.measure == measure}
    signs |= set(_ALSO_MOVED_BY.get(measure, ()))
    return [finding for finding in findings if finding.manifestation in signs]


def _usual(slopes: np.ndarray) -> float:
    """How far a sign moves its measure at severity 1; 0 if too few rows tell."""
    slopes = slopes[np.isfinite(slopes)]
    return max(float(np.median(slopes)), 0.0) if len(slopes) >= MIN_REFERENCES else 0.0


def _evidence(finding: Finding, value: np.ndarray, healthy: np.ndarray) -> float:
    """Deviation from the healthy rows in their standard deviations, positive in the direction of the sign."""
    right, left = 0, 1
    if finding.side == "both" or np.ptp(healthy, axis=1).max() == 0:
        reference, own = healthy.mean(axis=1), float(value.mean())
    else:
        side, other = (left, right) if finding.side == "left" else (right, left)
        reference, own = healthy[:, side] - healthy[:, other], float(value[side] - value[other])
    low, middle, high = np.percentile(reference, [25, 50, 75])
    spread = max((high - low) / 1.349, 1e-6)  # of a normal distribution the quartiles lie 1.349 deviations apart
    return EXPECTATIONS[finding.manifestation].direction * (own - float(middle)) / spread
