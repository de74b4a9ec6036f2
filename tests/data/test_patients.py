from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from medeid.data.patients import SYNDROMES, contradict, draw_findings, labels_of, lead_label
from medeid.manifestations.taxonomy import LABELS, TAXONOMY, Finding, with_implied

SIGNS = tuple(TAXONOMY)


@pytest.fixture(scope="module")
def patients() -> list[tuple[Finding, ...]]:
    """2,000 patients, healthy ones too."""
    leads = [lead_label(0, index, LABELS, 0.15) for index in range(2000)]
    return [draw_findings(lead, SIGNS, np.random.default_rng(i)) if lead else () for i, lead in enumerate(leads)]


def test_the_healthy_are_as_many_as_asked_for():
    for share in (0.0, 0.15, 1.0):
        leads = [lead_label(3, index, LABELS, share) for index in range(1000)]
        assert leads.count(None) == round(1000 * share)


def test_every_label_leads_equally_often_in_any_run_of_images():
    leads = Counter(lead_label(3, index, LABELS, 0.0) for index in range(500, 500 + 10 * len(LABELS)))
    assert set(leads) == set(LABELS)
    assert max(leads.values()) - min(leads.values()) <= 2


def test_another_seed_leads_in_another_order():
    orders = [[lead_label(seed, index, LABELS, 0.0) for index in range(len(LABELS))] for seed in (0, 1)]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])


def test_every_label_is_there_often_enough(patients):
    labels = Counter(label for patient in patients for finding in with_implied(patient) for label in finding.labels)
    assert set(labels) == set(LABELS)
    assert min(labels.values()) > 2000 / len(LABELS) / 2
    assert max(labels.values()) < 8 * min(labels.values())


def test_the_leading_sign_is_the_first():
    for lead in LABELS:
        first, *_ = draw_findings(lead, SIGNS, np.random.default_rng(1))
        assert lead in first.labels


def test_no_patient_has_signs_that_contradict_each_other_or_too_many(patients):
    for patient in patients:
        assert not any(contradict(first, second) for first, second in combinations(patient, 2))
        assert len(with_implied(patient)) <= 8


def test_further_signs_make_patients_with_many():
    numbers = []
    for further in (0, 4):
        drawn = [draw_findings(lead, SIGNS, np.random.default_rng(1), further) for lead in LABELS]
        assert not any(contradict(*pair) for patient in drawn for pair in combinations(patient, 2))
        assert max(len(with_implied(patient)) for patient in drawn) <= 8
        numbers.append(np.mean([len(patient) for patient in drawn]))
    assert numbers[0] + 2 < numbers[1] < numbers[0] + 4


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (Finding("ptosis", "left"), Finding("lid_retraction", "left"), True),
        (Finding("ptosis", "left"), Finding("lid_retraction", "right"), False),
        (Finding("ptosis", "both"), Finding("lid_retraction", "right"), True),
        (Finding("esotropia", "left"), Finding("exotropia", "right"), True),
        (Finding("esotropia", "left"), Finding("hypertropia", "left"), False),
        (Finding("esotropia", "left"), Finding("hypertropia", "right"), True),
        (Finding("pallor"), Finding("flushing"), True),
        (Finding("jaundice"), Finding("scleral_icterus"), True),
        (Finding("jaundice"), Finding("pallor"), False),
        (Finding("scar", "left"), Finding("scar", "right"), True),
        (Finding("periorbital_oedema", "left", 0.9), Finding("pterygium", "left"), True),
        (Finding("periorbital_oedema", "left", 0.9), Finding("pterygium", "right"), False),
        (Finding("periorbital_oedema", "left", 0.4), Finding("pterygium", "left"), False),
        (Finding("periorbital_oedema", "both", 0.9), Finding("jaundice"), True),
        (Finding("periorbital_oedema", "left", 0.9), Finding("jaundice"), False),
    ],
)
def test_what_contradicts_what(first, second, expected):
    assert contradict(first, second) is contradict(second, first) is expected


def test_severities_cover_the_range_but_are_never_invisible(patients):
    severities = np.array([finding.severity for patient in patients for finding in patient])
    assert severities.min() > 0.15 and severities.max() == 1.0
    assert (np.histogram(severities, 8, (0.15, 1.0))[0] > len(severities) / 16).all()


def test_diseases_bring_their_signs_together(patients):
    together = Counter(
        pair for patient in patients for pair in combinations(sorted(finding.manifestation for finding in patient), 2)
    )
    for pair in (("lid_retraction", "proptosis"), ("exotropia", "ptosis"), ("blepharitis", "rosacea")):
        assert together[pair] >= 10
    assert together["acne", "lid_retraction"] < 10


def test_a_disease_of_one_side_has_its_signs_on_that_side():
    drawn = [draw_findings("herpes_zoster:left", SIGNS, np.random.default_rng(seed)) for seed in range(400)]
    sides = Counter(
        finding.side for patient in drawn for finding in patient if finding.row.name == "periorbital_oedema"
    )
    assert sides["left"] > 100 and sides["left"] > 10 * (sides["right"] + sides["both"])


def test_only_the_signs_asked_for_are_drawn():
    signs = ("ptosis", "jaundice")
    assert labels_of(signs) == ("ptosis:left", "ptosis:right", "jaundice")
    drawn = [draw_findings("ptosis:left", signs, np.random.default_rng(seed)) for seed in range(100)]
    assert {finding.manifestation for patient in drawn for finding in patient} == set(signs)


def test_syndromes_are_written_in_words_of_the_taxonomy():
    for syndrome in SYNDROMES:
        assert set(syndrome.signs) <= set(TAXONOMY) and set(syndrome.ceilings) <= set(syndrome.signs)
        assert all(0.0 < chance <= 1.0 for chance in syndrome.signs.values())
        assert syndrome.basis
