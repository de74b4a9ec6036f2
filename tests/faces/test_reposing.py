"""Healthy faces set as patients' landmarks say come to look like the patients that the simulator paints."""

import numpy as np
import pytest

from medeid.data.simulate import simulate
from medeid.faces.canvas import Canvas
from medeid.faces.mesh import LEFT_EYE, LEFT_IRIS, MOUTH_CORNERS, region_mask
from medeid.faces.reposing import repose_eye, reshape_mouth
from medeid.manifestations.taxonomy import Finding


def canvas_of(face) -> Canvas:
    image, landmarks = face
    return Canvas(image.astype(np.float32) / 255.0, landmarks)


def patient(face, name, side="left", severity=0.8):
    return simulate(*face, [Finding(name, side, severity)], np.random.default_rng(0))


def aperture(landmarks) -> float:
    lids = landmarks[list(LEFT_EYE), :2]
    return float(np.linalg.norm(lids[1:8] - lids[:8:-1], axis=1).mean())


def gaze(landmarks) -> float:
    return float(landmarks[LEFT_IRIS[0], 0] - landmarks[list(LEFT_EYE), 0].mean())


@pytest.mark.parametrize("name", ["ptosis", "lid_retraction", "esotropia", "hypertropia", "proptosis"])
def test_an_eye_takes_the_pose_of_a_patients(light_face, name):
    ill = patient(light_face, name)
    healthy = canvas_of(light_face)
    posed = repose_eye(healthy, ill.landmarks, "left", np.random.default_rng(0))
    assert aperture(posed.landmarks) == pytest.approx(aperture(ill.landmarks), abs=0.4)
    assert gaze(posed.landmarks) == pytest.approx(gaze(ill.landmarks), abs=0.4)
    eye = region_mask(light_face[1], "left_eye") > 0
    error, change = (np.abs(image - ill.image / 255.0)[eye].mean() for image in (posed.image, healthy.image))
    assert error < 0.6 * change


def test_the_other_eye_stays(light_face):
    ill = patient(light_face, "ptosis")
    healthy = canvas_of(light_face)
    posed = repose_eye(healthy, ill.landmarks, "left", np.random.default_rng(0))
    other = region_mask(light_face[1], "right_eye") > 0
    assert np.array_equal(posed.image[other], healthy.image[other])


def test_an_eye_that_is_closed_stays_as_it_is(light_face):
    image, landmarks = light_face
    closed = landmarks.copy()
    lids = closed[list(LEFT_EYE), 1]
    closed[list(LEFT_EYE), 1] = lids.mean() + 0.05 * (lids - lids.mean())
    canvas = canvas_of((image, closed))
    assert repose_eye(canvas, landmarks, "left", np.random.default_rng(0)) is canvas


def test_a_mouth_hangs_as_the_patients_does(light_face):
    ill = patient(light_face, "facial_palsy")
    healthy = canvas_of(light_face)
    shaped = reshape_mouth(healthy, ill.landmarks)
    corners = list(MOUTH_CORNERS)
    wanted = ill.landmarks[corners, :2] - light_face[1][corners, :2]
    assert np.linalg.norm(wanted, axis=1).max() > 4
    np.testing.assert_allclose(shaped.landmarks[corners, :2] - light_face[1][corners, :2], wanted, atol=1.0)
    lips = region_mask(ill.landmarks, "lips") > 0
    error, change = (np.abs(image - ill.image / 255.0)[lips].mean() for image in (shaped.image, healthy.image))
    assert error < 0.6 * change
