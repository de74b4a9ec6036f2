"""The visible signs of disease that medeid knows: one table, from which labels, simulators and documents follow.

Codes are those of the WHO's ICD-10 (version 2019). *Left* and *right* are the patient's own, as in every clinical note.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Group = Literal["ocular", "cutaneous", "neuromuscular", "systemic"]
Channel = Literal["appearance", "geometry", "colour"]
Side = Literal["left", "right", "both"]
Region = Literal[
    "upper_lid",
    "lower_lid",
    "lids",
    "globe",
    "conjunctiva",
    "pupil",
    "periorbital",
    "brow",
    "cheeks",
    "lips",
    "half_face",
    "face",
]

LATERAL: tuple[Side, ...] = ("left", "right", "both")
WHOLE: tuple[Side, ...] = ("both",)


class UnknownManifestationError(ValueError):
    """A name that is not in the taxonomy."""


@dataclass(frozen=True)
class Manifestation:
    """A visible sign of disease.

    Args:
        name (`str`):
            The name in code, labels and on the command line.
        title (`str`):
            The name in clinical text.
        icd10 (`str`):
            ICD-10 code (WHO).
        group (`str`):
            `"ocular"`, `"cutaneous"`, `"neuromuscular"` or `"systemic"`.
        channels (`tuple[str, ...]`):
            How it is preserved: `"appearance"` (its pixels stay), `"geometry"` (the landmarks), `"colour"` (the tone of
            skin, sclera or lips). The first is the leading one.
        sides (`tuple[str, ...]`):
            The sides that it can be on: `("left", "right", "both")`, or `("both",)` for a sign of the whole face.
        region (`str`):
            Where it is.
        description (`str`):
            What one sees.
        implies (`tuple[str, ...]`):
            Signs that are there whenever this one is.
    """

    name: str
    title: str
    icd10: str
    group: Group
    channels: tuple[Channel, ...]
    sides: tuple[Side, ...]
    region: Region
    description: str
    implies: tuple[str, ...] = ()

    @property
    def lateral(self) -> bool:
        return self.sides != WHOLE


def _ocular(name, title, icd10, channel, region, description, *more: Channel) -> Manifestation:
    return Manifestation(name, title, icd10, "ocular", (channel, *more), LATERAL, region, description)


def _skin(name, title, icd10, sides, region, description, *more: Channel) -> Manifestation:
    return Manifestation(name, title, icd10, "cutaneous", ("appearance", *more), sides, region, description)


def _systemic(name, title, icd10, region, description, implies=()) -> Manifestation:
    return Manifestation(name, title, icd10, "systemic", ("colour",), WHOLE, region, description, implies)


_TABLE = (
    _ocular("ptosis", "Ptosis", "H02.4", "geometry", "upper_lid", "the upper lid hangs over the iris"),
    _ocular("lid_retraction", "Lid retraction", "H02.5", "geometry", "lids", "white shows above (and below) the iris"),
    _ocular("proptosis", "Proptosis", "H05.2", "geometry", "globe", "the eyeball stands out and the lids are apart"),
    _ocular("esotropia", "Esotropia", "H50.0", "geometry", "globe", "the eye is turned towards the nose"),
    _ocular("exotropia", "Exotropia", "H50.1", "geometry", "globe", "the eye is turned away from the nose"),
    _ocular("hypertropia", "Hypertropia", "H50.2", "geometry", "globe", "the eye is turned up"),
    _ocular(
        "conjunctival_injection",
        "Conjunctival injection",
        "H11.4",
        "appearance",
        "conjunctiva",
        "the white of the eye is red with dilated vessels",
    ),
    _ocular(
        "subconjunctival_haemorrhage",
        "Subconjunctival haemorrhage",
        "H11.3",
        "appearance",
        "conjunctiva",
        "a sharp patch of blood on the white of the eye",
    ),
    _ocular(
        "pterygium",
        "Pterygium",
        "H11.0",
        "appearance",
        "conjunctiva",
        "a fleshy wing grows from the canthus to the cornea",
    ),
    _ocular("leukocoria", "Leukocoria", "H44.5", "appearance", "pupil", "the pupil is white or grey"),
    _systemic("scleral_icterus", "Scleral icterus", "R17", "conjunctiva", "the whites of the eyes are yellow"),
    _ocular("chalazion", "Chalazion or hordeolum", "H00.1", "appearance", "lids", "a round lump in the lid"),
    _ocular("blepharitis", "Blepharitis", "H01.0", "appearance", "lids", "red, scaly, crusted lid margins"),
    _ocular(
        "periorbital_oedema",
        "Periorbital oedema",
        "H02.8",
        "geometry",
        "periorbital",
        "swollen lids, the crease filled, the slit narrowed",
        "appearance",
    ),
    _ocular(
        "periorbital_ecchymosis",
        "Periorbital ecchymosis",
        "S00.1",
        "appearance",
        "periorbital",
        "a bruise around the eye, purple with a yellow-green rim",
    ),
    _ocular("xanthelasma", "Xanthelasma", "H02.6", "appearance", "lids", "flat yellow plaques at the inner lids"),
    Manifestation(
        "facial_palsy",
        "Facial palsy",
        "G51.0",
        "neuromuscular",
        ("geometry",),
        ("left", "right"),
        "half_face",
        "one half droops: brow, lower lid, cheek and corner of the mouth",
    ),
    _skin("rosacea", "Rosacea", "L71.9", WHOLE, "cheeks", "red cheeks and nose with fine vessels and papules"),
    _skin(
        "malar_rash", "Malar rash", "R21", WHOLE, "cheeks", "a butterfly of red over cheeks and bridge; folds spared"
    ),
    _skin("acne", "Acne vulgaris", "L70.0", WHOLE, "face", "comedones, red papules and pustules"),
    _skin("melasma", "Melasma", "L81.1", WHOLE, "face", "brown patches with jagged edges on cheeks, forehead, lip"),
    _skin("vitiligo", "Vitiligo", "L80", WHOLE, "face", "sharp patches without pigment around eyes and mouth"),
    _skin("port_wine_stain", "Port-wine stain", "Q82.5", ("left", "right"), "half_face", "a flat purple-red stain"),
    _skin(
        "herpes_zoster",
        "Herpes zoster",
        "B02.9",
        ("left", "right"),
        "half_face",
        "grouped vesicles and crusts on red skin in one branch of the trigeminal nerve, to the midline",
    ),
    _skin("eczema", "Eczema", "L30.9", LATERAL, "face", "ill-defined red, dry, scaling patches"),
    _skin("naevus", "Melanocytic naevus", "D22.3", LATERAL, "face", "a round brown mole"),
    _skin("seborrhoeic_keratosis", "Seborrhoeic keratosis", "L82", LATERAL, "face", "a waxy, stuck-on brown plaque"),
    _skin("scar", "Scar", "L90.5", LATERAL, "face", "a pale or pink line, raised or sunken"),
    _skin(
        "cleft_lip_scar",
        "Cleft lip scar",
        "Q36.9",
        ("left", "right"),
        "lips",
        "a scar from lip to nostril, lip notched",
        "geometry",
    ),
    _skin("brow_alopecia", "Alopecia of the brow", "H02.7", LATERAL, "brow", "the brow is thin or missing in patches"),
    _systemic(
        "jaundice", "Jaundice", "R17", "face", "the skin and the whites of the eyes are yellow", ("scleral_icterus",)
    ),
    _systemic("pallor", "Pallor", "R23.1", "face", "skin and lips are pale"),
    _systemic("cyanosis", "Cyanosis", "R23.0", "lips", "lips, and around them the skin, are blue"),
    _systemic("flushing", "Diffuse erythema", "R23.2", "face", "the whole face is red"),
)

TAXONOMY: dict[str, Manifestation] = {row.name: row for row in _TABLE}


def manifestation(name: str) -> Manifestation:
    """Looks a manifestation up.

    Raises:
        `UnknownManifestationError`: if there is none of that name; the message lists the nearest names.
    """
    if name in TAXONOMY:
        return TAXONOMY[name]
    near = difflib.get_close_matches(name, TAXONOMY, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the names are: {', '.join(TAXONOMY)}."
    raise UnknownManifestationError(f"Unknown manifestation {name!r}; {hint}")


@dataclass(frozen=True)
class Finding:
    """A manifestation as it is seen on one face.

    Args:
        manifestation (`str`):
            A name of the taxonomy.
        side (`str`, *optional*, defaults to `"both"`):
            The patient's own side: `"left"`, `"right"` or `"both"`.
        severity (`float`, *optional*, defaults to 0.6):
            In (0, 1]: from barely visible to as severe as it gets.

    Raises:
        `UnknownManifestationError`: if the name is not in the taxonomy.
        `ValueError`: if the manifestation cannot be on that side, or the severity is out of range.
    """

    manifestation: str
    side: Side = "both"
    severity: float = 0.6

    def __post_init__(self):
        row = manifestation(self.manifestation)
        if self.side not in row.sides:
            raise ValueError(f"`side` of {row.name} must be one of {', '.join(row.sides)}, but is {self.side!r}.")
        if not 0.0 < self.severity <= 1.0:
            raise ValueError(f"`severity` of {row.name} must lie in (0, 1], but is {self.severity}.")

    @property
    def row(self) -> Manifestation:
        return TAXONOMY[self.manifestation]

    @property
    def single_sides(self) -> tuple[Side, ...]:
        """The sides one by one: `("left", "right")` for a lateral sign on both."""
        return ("left", "right") if self.row.lateral and self.side == "both" else (self.side,)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it sets."""
        return tuple(label_name(self.manifestation, side) for side in self.single_sides)


def label_name(name: str, side: Side) -> str:
    """`"ptosis:left"` for a sign that has sides, `"jaundice"` for one of the whole face."""
    return f"{name}:{side}" if TAXONOMY[name].lateral else name


def parse_sign(text: str) -> tuple[Finding, ...]:
    """The findings that a name means: `"ptosis"` is ptosis on either side, `"ptosis:left"` that on the patient's left.

    Raises:
        `UnknownManifestationError`: if the name is not in the taxonomy.
        `ValueError`: if the manifestation cannot be on that side.
    """
    name, _, side = text.strip().partition(":")
    row = manifestation(name)
    sides = [side] if side else [each for each in row.sides if each != "both" or not row.lateral]
    return tuple(Finding(name, each) for each in sides)  # type: ignore[arg-type]  # Finding checks the side


LABELS: tuple[str, ...] = tuple(
    label
    for row in _TABLE
    for label in ((f"{row.name}:left", f"{row.name}:right") if row.lateral else (row.name,))
)  # fmt: skip
# The numbers of the signs that are kept by their pixels, and so have masks that count.
APPEARANCE: np.ndarray = np.flatnonzero([row.channels[0] == "appearance" for row in TAXONOMY.values()])
_LABEL_INDEX = {label: index for index, label in enumerate(LABELS)}
_OTHER_SIDE = {":left": ":right", ":right": ":left"}
# For each label the index of the one that it becomes in a mirror image.
MIRRORED_LABELS: np.ndarray = np.array(
    [
        _LABEL_INDEX[name + _OTHER_SIDE.get(colon + side, "")]
        for name, colon, side in (label.partition(":") for label in LABELS)
    ]
)


def with_implied(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings and those that they imply (with jaundice the whites of the eyes are yellow, too)."""
    given = tuple(findings)
    names = {finding.manifestation for finding in given}
    implied = {
        name: Finding(name, "both", finding.severity)
        for finding in given
        for name in finding.row.implies
        if name not in names
    }
    return given + tuple(implied.values())


def encode_findings(findings: Iterable[Finding]) -> tuple[np.ndarray, np.ndarray]:
    """Findings as vectors over `LABELS`.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: labels uint8 `[len(LABELS)]` (multi-hot) and severities float32
        `[len(LABELS)]` (0 where the sign is absent).
    """
    labels = np.zeros(len(LABELS), np.uint8)
    severities = np.zeros(len(LABELS), np.float32)
    for finding in findings:
        for label in finding.labels:
            index = _LABEL_INDEX[label]
            labels[index] = 1
            severities[index] = max(severities[index], finding.severity)
    return labels, severities
