from dataclasses import replace

import cv2
import numpy as np
import pytest

from medeid.data.filters.plausibility import (
    PLAUSIBILITY_LIMITS,
    disagreement,
    left_half,
    measure_landmarks,
    measure_mask,
    predict,
    sign_region,
)
from medeid.data.filters.quality import find_face
from medeid.faces.detection import CenterFaceDetector
from medeid.faces.mesh import LEFT_EYE, RIGHT_EYE, flip_landmarks, region_mask
from medeid.manifestations.taxonomy import LABELS, TAXONOMY, Finding

LIMITS = {limit.measure: limit for limit in PLAUSIBILITY_LIMITS}


def mask_faults(face, finding: Finding, mask: np.ndarray) -> set[str]:
    measures = measure_mask(replace(face, findings=(finding,), masks=mask[None]), 0)
    return {LIMITS[name].reason for name, value in measures.items() if LIMITS[name].judge(value)}


def test_a_mask_in_its_place_has_no_fault(healthy, left_eye_mask):
    both = left_eye_mask | (region_mask(healthy.landmarks, "right_eye", 256) > 0)
    lips = region_mask(healthy.landmarks, "lips", 256) > 0
    assert mask_faults(healthy, Finding("ptosis", "left"), left_eye_mask) == set()
    assert mask_faults(healthy, Finding("ptosis", "both"), both) == set()
    assert mask_faults(healthy, Finding("cyanosis"), lips) == set()
    assert mask_faults(healthy, Finding("acne"), region_mask(healthy.landmarks, "skin", 256) > 0) == set()


def test_a_mask_out_of_place_is_told_by_its_fault(healthy, left_eye_mask):
    left_ptosis = Finding("ptosis", "left")
    assert mask_faults(healthy, left_ptosis, np.zeros((256, 256), bool)) == {"empty mask"}
    assert mask_faults(healthy, Finding("ptosis", "both"), left_eye_mask) == {"mask on the wrong side"}
    brow = region_mask(healthy.landmarks, "left_brow", 256) > 0
    mouth = np.roll(left_eye_mask, 75, axis=0)
    assert mask_faults(healthy, Finding("leukocoria", "left"), brow) == {"mask off its region"}
    assert mask_faults(healthy, left_ptosis, mouth) == {"mask off its region"}
    other_eye = region_mask(healthy.landmarks, "right_eye", 256) > 0
    assert mask_faults(healthy, left_ptosis, other_eye) == {"mask off its region", "mask on the wrong side"}


@pytest.mark.parametrize("name", TAXONOMY)
def test_regions_of_the_two_sides_mirror_each_other(healthy, name):
    sides = [side for side in TAXONOMY[name].sides if side != "both"]
    if not sides:
        assert sign_region(healthy.landmarks, Finding(name), 256).any()
        return
    left, right = (sign_region(healthy.landmarks, Finding(name, side), 256) for side in ("left", "right"))
    mirrored = sign_region(flip_landmarks(healthy.landmarks), Finding(name, "left"), 256)[:, ::-1]
    assert left.any() and (mirrored != right).mean() < 0.003


@pytest.mark.parametrize("degrees", [-25, 0, 25])
def test_the_midline_turns_with_the_head(healthy, degrees):
    turn = cv2.getRotationMatrix2D((127.5, 127.5), degrees, 1.0)
    turned = healthy.landmarks.copy()
    turned[:, :2] = turned[:, :2] @ turn[:, :2].T + turn[:, 2]
    left = left_half(turned, 512)
    for eye, expected in ((LEFT_EYE, True), (RIGHT_EYE, False)):
        x, y = np.rint(turned[list(eye), :2] * 2).astype(int).T
        assert (left[y, x] == expected).all()


def test_landmarks_must_lie_on_the_face_and_in_the_picture(healthy):
    found = find_face(CenterFaceDetector(max_enlargement=1.0), healthy.image)
    assert not [name for name, value in measure_landmarks(healthy, found).items() if LIMITS[name].judge(value)]
    moved = replace(healthy, landmarks=healthy.landmarks + np.float32([25, 0, 0]))
    measures = measure_landmarks(moved, found)
    assert LIMITS["landmark_offset"].judge(measures["landmark_offset"])
    measures = measure_landmarks(replace(healthy, landmarks=healthy.landmarks + np.float32([0, 90, 0])), None)
    assert LIMITS["landmarks_outside"].judge(measures["landmarks_outside"])
    assert np.isnan(measures["landmark_offset"]) and LIMITS["landmark_offset"].judge(float("nan")) == []


def test_disagreement_names_the_worst_label():
    probabilities = np.full(len(LABELS), 0.1)
    probabilities[LABELS.index("ptosis:left")] = 0.95
    assert disagreement(probabilities, (Finding("ptosis", "left"),))[0] == pytest.approx(0.1)
    assert disagreement(probabilities, ()) == (pytest.approx(0.95), "ptosis:left")
    assert disagreement(probabilities, (Finding("ptosis", "left"), Finding("jaundice"))) == (
        pytest.approx(0.9),
        "jaundice",
    )


def test_a_predictor_must_return_a_probability_for_each_label():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"returned \[2, 3\]"):
        predict(lambda batch: np.zeros((len(batch), 3)), images)
    with pytest.raises(ValueError, match="sigmoid"):
        predict(lambda batch: np.full((len(batch), len(LABELS)), -2.0), images)
