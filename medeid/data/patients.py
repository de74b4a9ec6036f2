"""Which simulated patient has which signs: single signs, and the combinations that diseases bring.

Patients are balanced by *label* (a sign on a side), not by prevalence: every label leads equally many patients, as an
encoder that learns from them would otherwise hardly see the rare ones. What comes along with the leading sign follows
the diseases that it is a sign of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from ..manifestations.taxonomy import LABELS, Finding, Side, manifestation, with_implied
from .records import MAX_FINDINGS

_ALONE = 0.7  # chance of a sign in "just this sign", which is drawn like one more of the syndromes below
_NUM_EXTRA_SHARES = (0.55, 0.3, 0.12, 0.03)  # of the sick with 0, 1, 2, 3 further signs that have nothing to do with it
_MIN_PERCENT = 16  # severities in hundredths; below that the label is there, but hardly the sign


@dataclass(frozen=True)
class Syndrome:
    """A disease by the signs that it shows in a face.

    Args:
        name (`str`):
            Of the disease.
        basis (`str`):
            What the combination rests on. The chances are rounded, or judgement where the source counts no faces.
        signs (`dict[str, float]`):
            Manifestations, and the chance of each in a patient with the disease.
        bilateral (`float`, *optional*, defaults to 0.0):
            Chance that it is on both sides; else all that has a side is on one and the same.
        ceilings (`dict[str, float]`, *optional*):
            Manifestations that are never more severe than this in the disease.
    """

    name: str
    basis: str
    signs: dict[str, float]
    bilateral: float = 0.0
    ceilings: dict[str, float] = field(default_factory=dict)


SYNDROMES: tuple[Syndrome, ...] = (
    Syndrome(
        "thyroid eye disease",
        "Bartley et al., Am J Ophthalmol 1996;121:284 (retraction 90 %, exophthalmos 62 %)",
        {"lid_retraction": 0.9, "proptosis": 0.62, "periorbital_oedema": 0.5, "conjunctival_injection": 0.5},
        bilateral=0.8,
        ceilings={"periorbital_oedema": 0.5},  # more would close what the retraction opens
    ),
    Syndrome(
        "Horner syndrome",
        "Walton and Buono, Curr Opin Ophthalmol 2003;14:357 (ptosis of 1 to 2 mm)",
        {"ptosis": 1.0},
        ceilings={"ptosis": 0.45},
    ),
    Syndrome(
        "third nerve palsy",
        "Fang et al., JAMA Ophthalmol 2017;135:23",
        {"ptosis": 0.8, "exotropia": 0.9},
        ceilings={"ptosis": 0.7},  # more would cover the eye that is turned
    ),
    Syndrome("fourth nerve palsy", "Dosunmu et al., Am J Ophthalmol 2018;185:110", {"hypertropia": 1.0}),
    Syndrome("sixth nerve palsy", "Patel et al., Ophthalmology 2004;111:369", {"esotropia": 1.0}),
    Syndrome(
        "myasthenia gravis",
        "Grob et al., Muscle Nerve 2008;37:141",
        {"ptosis": 0.9, "exotropia": 0.25, "hypertropia": 0.2},
        bilateral=0.5,
        ceilings={"ptosis": 0.7},
    ),
    Syndrome(
        "retinoblastoma",
        "Abramson et al., J Pediatr 1998;132:505 (leukocoria 56 %, strabismus 24 %)",
        {"leukocoria": 0.56, "esotropia": 0.12, "exotropia": 0.12},
        bilateral=0.25,
    ),
    Syndrome(
        "blunt ocular trauma",
        "Salmon, Kanski's Clinical Ophthalmology, 9th ed. 2020, chapter on trauma",
        {"periorbital_ecchymosis": 0.9, "subconjunctival_haemorrhage": 0.6, "periorbital_oedema": 0.7, "scar": 0.1},
        bilateral=0.15,
        ceilings={"periorbital_oedema": 0.6},
    ),
    Syndrome(
        "orbital cellulitis",
        "Chandler et al., Laryngoscope 1970;80:1414",
        {"periorbital_oedema": 0.95, "proptosis": 0.6, "conjunctival_injection": 0.7},
        ceilings={"periorbital_oedema": 0.6},
    ),
    Syndrome(
        "conjunctivitis",
        "Azari and Barney, JAMA 2013;310:1721",
        {"conjunctival_injection": 1.0, "periorbital_oedema": 0.3, "subconjunctival_haemorrhage": 0.1},
        bilateral=0.5,
        ceilings={"periorbital_oedema": 0.5},
    ),
    Syndrome(
        "herpes zoster ophthalmicus",
        "Liesegang, Ophthalmology 2008;115(2 Suppl):S3",
        {"herpes_zoster": 1.0, "periorbital_oedema": 0.6, "conjunctival_injection": 0.6},
        ceilings={"periorbital_oedema": 0.6},
    ),
    Syndrome(
        "meibomian gland disease",
        "Nemet et al., Cornea 2011;30:1376 (chalazia go with blepharitis and rosacea)",
        {"chalazion": 0.5, "blepharitis": 0.8, "rosacea": 0.2},
        bilateral=0.4,
    ),
    Syndrome(
        "ocular rosacea",
        "Gallo et al., J Am Acad Dermatol 2018;78:148",
        {"rosacea": 0.95, "blepharitis": 0.6, "conjunctival_injection": 0.4, "chalazion": 0.1},
        bilateral=1.0,
    ),
    Syndrome(
        "atopy",
        "Hanifin and Rajka, Acta Derm Venereol 1980;92(Suppl):44",
        {"eczema": 1.0, "blepharitis": 0.4, "conjunctival_injection": 0.3, "brow_alopecia": 0.15},
        bilateral=0.8,
    ),
    Syndrome(
        "light damage of eye and skin",
        "Taylor et al., Arch Ophthalmol 1989;107:1481",
        {"pterygium": 0.7, "seborrhoeic_keratosis": 0.4, "conjunctival_injection": 0.2},
        bilateral=0.3,
    ),
    Syndrome("Bell's palsy", "Peitersen, Acta Otolaryngol Suppl 2002;549:4", {"facial_palsy": 1.0}),
    Syndrome(
        "cholestatic liver disease",
        "Lindor et al., Hepatology 2019;69:394",
        {"jaundice": 0.9, "xanthelasma": 0.25},
        bilateral=0.8,
    ),
    Syndrome(
        "haemolytic anaemia",
        "Phillips and Henderson, Am Fam Physician 2018;98:354",
        {"jaundice": 0.8, "pallor": 0.9},
    ),
    Syndrome("anaemia", "Kalantri et al., PLoS ONE 2010;5:e8545", {"pallor": 1.0}),
    Syndrome(
        "systemic lupus erythematosus",
        "Aringer et al., Arthritis Rheumatol 2019;71:1400",
        {"malar_rash": 1.0, "pallor": 0.2},
    ),
    Syndrome(
        "nephrotic syndrome",
        "KDIGO 2021, Kidney Int 2021;100(4S):S1",
        {"periorbital_oedema": 1.0, "pallor": 0.4, "xanthelasma": 0.1},
        bilateral=1.0,
    ),
    Syndrome(
        "hypothyroidism",
        "Jabbour, Am J Clin Dermatol 2003;4:315",
        {"periorbital_oedema": 0.6, "brow_alopecia": 0.4, "pallor": 0.4},
        bilateral=1.0,
    ),
    Syndrome(
        "polycythaemia vera",
        "Tefferi and Barbui, Am J Hematol 2020;95:1599",
        {"flushing": 0.9, "conjunctival_injection": 0.4},
        bilateral=1.0,
    ),
    Syndrome("Sturge-Weber syndrome", "Comi, Neurologist 2011;17:179", {"port_wine_stain": 1.0}),
    Syndrome(
        "Vogt-Koyanagi-Harada disease",
        "Read et al., Am J Ophthalmol 2001;131:647",
        {"vitiligo": 0.7, "conjunctival_injection": 0.6, "brow_alopecia": 0.2},
        bilateral=1.0,
    ),
)

# Chance that a sign on its own is on both sides. Not listed: 0.
_BILATERAL = {
    "ptosis": 0.25,
    "lid_retraction": 0.5,
    "proptosis": 0.3,
    "esotropia": 0.05,
    "exotropia": 0.05,
    "conjunctival_injection": 0.4,
    "subconjunctival_haemorrhage": 0.05,
    "pterygium": 0.25,
    "leukocoria": 0.15,
    "chalazion": 0.05,
    "blepharitis": 0.8,
    "periorbital_oedema": 0.5,
    "periorbital_ecchymosis": 0.25,
    "xanthelasma": 0.6,
    "eczema": 0.5,
    "naevus": 0.1,
    "seborrhoeic_keratosis": 0.1,
    "brow_alopecia": 0.5,
}
_STRABISMUS = frozenset({"esotropia", "exotropia", "hypertropia"})

# Lids that hang lower than at this severity hide what is behind them.
_CLOSING = {"ptosis": 0.75, "periorbital_oedema": 0.6}
_BEHIND_LIDS = ("globe", "conjunctiva", "pupil")

# Signs that undo or hide each other: on one side of the face, and on the face as a whole.
_NOT_ON_ONE_SIDE = {
    frozenset(pair)
    for pair in (
        ("ptosis", "lid_retraction"),
        ("ptosis", "proptosis"),
        ("ptosis", "leukocoria"),
        ("ptosis", "facial_palsy"),
        ("port_wine_stain", "herpes_zoster"),
    )
}
_NOT_ON_ONE_FACE = {
    frozenset(pair)
    for pair in (
        ("esotropia", "exotropia"),
        ("pallor", "flushing"),
        ("pallor", "cyanosis"),
        ("flushing", "malar_rash"),
        ("rosacea", "malar_rash"),
        ("vitiligo", "melasma"),
    )
}


def contradict(first: Finding, second: Finding) -> bool:
    """Whether two findings cannot be told apart, or cannot be there, on one face."""
    names = frozenset({first.manifestation, second.manifestation})
    if len(names) == 1 or names in _NOT_ON_ONE_FACE:
        return True
    if first.manifestation in second.row.implies or second.manifestation in first.row.implies:
        return True
    if _hides(first, second) or _hides(second, first):
        return True
    shared = bool(set(first.single_sides) & set(second.single_sides))
    if names <= _STRABISMUS:
        return not shared  # one eye fixes, so only the other is turned
    return shared and names in _NOT_ON_ONE_SIDE


def _hides(lid: Finding, other: Finding) -> bool:
    if lid.severity <= _CLOSING.get(lid.manifestation, 1.0):
        return False
    if not any(finding.row.region in _BEHIND_LIDS for finding in with_implied([other])):
        return False
    return bool(set(lid.single_sides) & set(other.single_sides)) if other.row.lateral else lid.side == "both"


def labels_of(signs: Sequence[str]) -> tuple[str, ...]:
    """The labels that these manifestations can set, in the order of `LABELS`."""
    return tuple(label for label in LABELS if label.partition(":")[0] in signs)


def lead_label(seed: int, index: int, labels: Sequence[str], healthy: float) -> str | None:
    """The label that image `index` of a set is drawn for; None for a healthy face.

    The healthy are spread evenly. The others go through all labels in turn, each round in another order, so that any
    run of images is balanced.

    Args:
        seed (`int`):
            Of the set.
        index (`int`):
            Which image.
        labels (`Sequence[str]`):
            The labels to balance.
        healthy (`float`):
            Share of the healthy, in [0, 1].
    """
    healthy_before, healthy_after = math.floor(index * healthy), math.floor((index + 1) * healthy)
    if healthy_after > healthy_before:
        return None
    sweep, position = divmod(index - healthy_before, len(labels))
    # Three numbers: the images' own generators are seeded by two.
    order = np.random.default_rng((seed, sweep, len(labels))).permutation(len(labels))
    return labels[order[position]]


def draw_findings(
    lead: str, signs: Sequence[str], generator: np.random.Generator, further: int | None = None
) -> tuple[Finding, ...]:
    """Draws what a patient has.

    Args:
        lead (`str`):
            The label that must be among it, see [`lead_label`].
        signs (`Sequence[str]`):
            The manifestations to draw from.
        generator (`np.random.Generator`):
            The source of randomness.
        further (`int`, *optional*):
            Number of further signs to draw that have nothing to do with the leading one; those that contradict are left
            out. By default 0 to 3, mostly none.

    Returns:
        `tuple[Finding, ...]`: the leading one first, none contradicts another, at most 8 with those that they imply,
        which are not listed.
    """
    candidates = _with_companions(*_parse(lead), generator)
    labels = labels_of(signs)
    if further is None:
        further = generator.choice(4, p=_NUM_EXTRA_SHARES)
    for position in generator.integers(len(labels), size=further):
        name, side = _parse(labels[position])
        candidates.append(_finding(name, _spread(name, side, generator), generator))
    findings: list[Finding] = []
    for finding in candidates:
        fits = finding.manifestation in signs and not any(contradict(finding, other) for other in findings)
        if fits and len(with_implied([*findings, finding])) <= MAX_FINDINGS:
            findings.append(finding)
    return tuple(findings)


def draw_finding(name: str, mildest: float, generator: np.random.Generator) -> Finding:
    """One sign on a random side, of a severity that is uniform over [`mildest`, 1)."""
    sides = manifestation(name).sides
    return Finding(name, sides[generator.integers(len(sides))], float(generator.uniform(mildest, 1.0)))


def _parse(label: str) -> tuple[str, Side]:
    name, _, side = label.partition(":")
    return name, cast(Side, side or "both")


def _with_companions(lead: str, side: Side, generator: np.random.Generator) -> list[Finding]:
    """The leading sign, and the others of a syndrome that it may come from."""
    known = [syndrome for syndrome in SYNDROMES if lead in syndrome.signs]
    # Of equally frequent diseases, that one is likelier in which the sign is.
    chances = np.array([_ALONE, *(syndrome.signs[lead] for syndrome in known)])
    drawn = generator.choice(len(chances), p=chances / chances.sum())
    if drawn == 0:
        return [_finding(lead, _spread(lead, side, generator), generator)]
    syndrome = known[drawn - 1]
    if side == "both":
        side = "left" if generator.random() < 0.5 else "right"
    both = generator.random() < syndrome.bilateral
    present = [lead]
    present += [name for name, chance in syndrome.signs.items() if name != lead and generator.random() < chance]
    return [
        _finding(name, _place(name, side, both), generator, ceiling=syndrome.ceilings.get(name, 1.0))
        for name in present
    ]


def _place(name: str, side: Side, both: bool) -> Side:
    """Where a sign of a syndrome is, which is on one side or on both."""
    sides = manifestation(name).sides
    return "both" if side not in sides or (both and "both" in sides and name not in _STRABISMUS) else side


def _spread(name: str, side: Side, generator: np.random.Generator) -> Side:
    """Where a sign on its own is: sometimes on the other side as well."""
    return "both" if generator.random() < _BILATERAL.get(name, 0.0) else side


def _finding(name: str, side: Side, generator: np.random.Generator, ceiling: float = 1.0) -> Finding:
    return Finding(name, side, int(generator.integers(_MIN_PERCENT, round(100 * ceiling) + 1)) / 100)
