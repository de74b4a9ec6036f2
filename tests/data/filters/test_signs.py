from dataclasses import replace

import cv2
import numpy as np
import pytest

from medeid.data.filters.signs import (
    EXPECTATIONS,
    MEASURES,
    MIN_REFERENCES,
    SIGN_LIMIT,
    SignEvidence,
    measure_signs,
)
from medeid.faces.mesh import LEFT_EYE, LEFT_IRIS, RIGHT_IRIS
from medeid.manifestations.taxonomy import TAXONOMY, Finding

RIGHT, LEFT = 0, 1


def evidence(varied, *faces) -> list[list[tuple[float, str]]]:
    collected = SignEvidence()
    for face in (*varied, *faces):
        collected.add(face)
    weighed, not_run = collected.weigh()
    assert not_run == []
    return weighed[len(varied) :]


def with_label(face, *findings: Finding):
    return replace(face, findings=findings)


def yellowed(face):
    """Blue light is taken away everywhere, as bilirubin does."""
    return replace(face, image=(face.image * np.array([1.0, 0.97, 0.6])).astype(np.uint8))


def test_expectations_are_of_the_taxonomy():
    assert set(EXPECTATIONS) <= set(TAXONOMY)


def test_a_lowered_lid_bears_out_ptosis_on_its_side_alone(varied, left_ptosis):
    right = with_label(left_ptosis, Finding("ptosis", "right"))
    unmoved = with_label(varied[0], Finding("ptosis", "left"))
    ((own, name),), ((other, _),), ((none, _),) = evidence(varied, left_ptosis, right, unmoved)
    assert name == "ptosis:left" and own > 2
    assert SIGN_LIMIT.judge(other, name) and not SIGN_LIMIT.judge(own, name)
    assert other < none < own


def test_ptosis_on_both_sides_is_told_by_the_other_faces(varied, left_ptosis):
    measures = measure_signs(left_ptosis)[MEASURES.index("lid_aperture")]
    assert measures[LEFT] < 0.7 * measures[RIGHT]
    one_sided_drop = with_label(left_ptosis, Finding("ptosis", "both"))
    ((value, _),) = evidence(varied, one_sided_drop)[0]
    assert value > 1


def test_jaundice_is_told_by_skin_and_sclera(varied):
    label = (Finding("jaundice", severity=0.8), Finding("scleral_icterus", severity=0.8))
    yellow, not_yellow = evidence(varied, with_label(yellowed(varied[0]), *label), with_label(varied[1], *label))
    assert {name for _, name in yellow} == {"jaundice:both", "scleral_icterus:both"}
    assert min(value for value, _ in yellow) > 2 > max(abs(value) for value, _ in not_yellow)


def test_what_is_usual_for_a_sign_is_expected_of_each(varied):
    """Once 30 rows show how yellow jaundice is, one that is not yellow at all stands out."""
    label = Finding("jaundice", severity=0.8)
    sick = [with_label(yellowed(face), label) for face in varied[: MIN_REFERENCES + 1]]
    values = [value for ((value, _),) in evidence(varied, *sick, with_label(varied[40], label))]
    assert SIGN_LIMIT.judge(values[-1]) and not any(SIGN_LIMIT.judge(value) for value in values[:-1])


def test_squint_is_told_by_the_angle_between_the_eyes(varied, healthy):
    inwards, aside = (healthy.landmarks.copy() for _ in range(2))
    inwards[list(LEFT_IRIS), 0] -= 5
    aside[list(LEFT_IRIS + RIGHT_IRIS), 0] -= 5
    label = Finding("esotropia", "left")
    ((squint, _),), ((gaze, _),), ((outwards, _),) = evidence(
        varied,
        replace(healthy, landmarks=inwards, findings=(label,)),
        replace(healthy, landmarks=aside, findings=(label,)),
        replace(healthy, landmarks=inwards, findings=(Finding("exotropia", "left"),)),
    )
    assert squint > 2 > abs(gaze) and SIGN_LIMIT.judge(outwards)


def test_a_drooping_corner_of_the_mouth_turns_with_the_head(healthy):
    row = MEASURES.index("mouth_droop")
    drooping = healthy.landmarks.copy()
    drooping[291, 1] += 6  # image-right: the patient's left
    turn = cv2.getRotationMatrix2D((127.5, 127.5), 20, 1.0)
    turned = drooping.copy()
    turned[:, :2] = turned[:, :2] @ turn[:, :2].T + turn[:, 2]
    before, upright, tilted = (
        measure_signs(replace(healthy, landmarks=points))[row] for points in (healthy.landmarks, drooping, turned)
    )
    assert upright[LEFT] - before[LEFT] == pytest.approx(6 / 90, abs=0.01)
    assert upright[RIGHT] == pytest.approx(before[RIGHT], abs=1e-4)
    np.testing.assert_allclose(tilted, upright, atol=1e-3)


def test_closed_eyes_show_no_sclera(varied, healthy):
    closed = healthy.landmarks.copy()
    for lids in (LEFT_EYE, (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)):
        closed[list(lids[1:8])] = closed[list(lids[:8:-1])]
    face = replace(healthy, landmarks=closed, findings=(Finding("scleral_icterus"), Finding("leukocoria", "left")))
    assert np.isnan(measure_signs(face)[MEASURES.index("sclera_yellowness")]).all()
    assert evidence(varied, face) == [[]]


def test_too_few_healthy_faces_are_said(varied, left_ptosis):
    collected = SignEvidence()
    for face in (*varied[: MIN_REFERENCES - 1], left_ptosis):
        collected.add(face)
    weighed, not_run = collected.weigh()
    assert not any(weighed)
    assert len(not_run) == 1 and "ptosis" in not_run[0] and f"only {MIN_REFERENCES - 1} rows" in not_run[0]
