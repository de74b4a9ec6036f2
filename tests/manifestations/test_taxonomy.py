import re

import numpy as np
import pytest

from medeid.manifestations.taxonomy import (
    LABELS,
    MIRRORED_LABELS,
    TAXONOMY,
    Finding,
    UnknownManifestationError,
    encode_findings,
    manifestation,
    with_implied,
)


def test_table_is_sound():
    assert len(TAXONOMY) >= 24
    for name, row in TAXONOMY.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name) and row.name == name
        assert re.fullmatch(r"[A-Z]\d\d(\.\d)?", row.icd10)
        assert row.channels and row.sides and row.description
        assert all(implied in TAXONOMY for implied in row.implies)
    assert len({row.title for row in TAXONOMY.values()}) == len(TAXONOMY)


def test_lateral_signs_have_two_labels():
    assert "ptosis:left" in LABELS and "ptosis:right" in LABELS and "jaundice" in LABELS
    assert len(LABELS) == sum(2 if row.lateral else 1 for row in TAXONOMY.values())


def test_unknown_name_lists_the_nearest():
    with pytest.raises(UnknownManifestationError, match="did you mean ptosis"):
        manifestation("ptosys")
    with pytest.raises(UnknownManifestationError, match="the names are: ptosis, "):
        Finding("xyz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("jaundice", "left"), "`side` of jaundice must be one of both"),
        (("facial_palsy", "both"), "must be one of left, right"),
        (("ptosis", "left", 0.0), r"\(0, 1\]"),
        (("ptosis", "left", 1.2), r"\(0, 1\]"),
    ],
)
def test_impossible_finding_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Finding(*arguments)


def test_findings_become_vectors():
    labels, severities = encode_findings([Finding("ptosis", "both", 0.5), Finding("acne", severity=0.25)])
    assert {LABELS[i] for i in np.flatnonzero(labels)} == {"ptosis:left", "ptosis:right", "acne"}
    assert severities[LABELS.index("acne")] == 0.25 and severities.sum() == 1.25


def test_jaundice_colours_the_whites_of_the_eyes():
    implied = with_implied([Finding("jaundice", severity=0.4)])
    assert implied[1] == Finding("scleral_icterus", severity=0.4)
    given = [Finding("jaundice"), Finding("scleral_icterus", severity=0.9)]
    assert with_implied(given) == tuple(given)


def test_mirrored_labels_are_those_of_the_other_side():
    assert LABELS[MIRRORED_LABELS[LABELS.index("ptosis:left")]] == "ptosis:right"
    assert MIRRORED_LABELS[LABELS.index("jaundice")] == LABELS.index("jaundice")
