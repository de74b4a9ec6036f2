import numpy as np
import pytest

from medeid.data.signs.textures import averaged
from medeid.data.simulate import simulate
from medeid.faces.canvas import Canvas, NotVisibleError
from medeid.faces.mesh import LEFT_BROW, LEFT_EYE, MOUTH_CORNERS, RIGHT_BROW, RIGHT_EYE, inter_ocular_distance
from medeid.manifestations.taxonomy import Finding

LEFT_CORNER, RIGHT_CORNER = MOUTH_CORNERS[1], MOUTH_CORNERS[0]


def paint(face, name: str, side: str, severity: float, seed: int = 0):
    return simulate(*face, [Finding(name, side, severity)], np.random.default_rng(seed))


def aperture(landmarks: np.ndarray, eye: tuple[int, ...]) -> float:
    """Height of the opening between the lids, the mean over its length."""
    contour = landmarks[list(eye), :2]
    return float((contour[:8:-1] - contour[1:8])[:, 1].mean())


def folds(image: np.ndarray, weight: np.ndarray) -> float:
    """Contrast of what is between 1 and 5 px."""
    bands = averaged(np.float32(image), weight, 1.0) - averaged(np.float32(image), weight, 5.0)
    return float((np.abs(bands) * weight[..., None]).sum() / weight.sum())


def test_palsied_corner_of_the_mouth_falls_and_is_drawn_across(light_face, dark_face):
    for face in (light_face, dark_face):
        unit = inter_ocular_distance(face[1])
        moved = [(paint(face, "facial_palsy", "right", s).landmarks - face[1]) / unit for s in (0.3, 0.6, 1.0)]
        falls = [move[RIGHT_CORNER, 1] for move in moved]
        assert 0.02 < falls[0] < falls[1] < falls[2]
        assert 0.05 < falls[2] < 0.15
        assert (moved[2][[RIGHT_CORNER, 0, 13, LEFT_CORNER], 0] > 0.01).all()  # towards the patient's left
        assert moved[2][LEFT_CORNER, 1] < -0.01


def test_palsied_brow_falls_and_the_lower_lid_sinks(light_face):
    moves = [paint(light_face, "facial_palsy", "left", s).landmarks - light_face[1] for s in (0.3, 1.0)]
    brows = [move[list(LEFT_BROW), 1].mean() for move in moves]
    assert 0.5 < brows[0] < brows[1]
    wider = [aperture(light_face[1] + move, LEFT_EYE) - aperture(light_face[1], LEFT_EYE) for move in moves]
    assert 0.2 < wider[0] < wider[1]
    assert np.abs(moves[1][[*RIGHT_BROW, *RIGHT_EYE]]).max() < 0.05


def test_palsied_nasolabial_fold_is_flatter(dark_face):
    result = paint(dark_face, "facial_palsy", "right", 1.0)
    before, after = (
        Canvas(np.float32(image / 255), points) for image, points in (dark_face, (result.image, result.landmarks))
    )
    contrast = []
    for canvas in (before, after):
        way = canvas.points[[203, 206, 216]]
        contrast.append(folds(canvas.image, canvas.lines([way], 6) * canvas.skin))
    assert contrast[1] < 0.7 * contrast[0]


def test_palsy_of_the_half_that_is_turned_away_cannot_be_shown(light_face):
    image, landmarks = light_face
    turned = landmarks.copy()
    turned[RIGHT_CORNER] = turned[0] - [2, -8, 0]
    with pytest.raises(NotVisibleError, match="right half of the mouth"):
        paint((image, turned), "facial_palsy", "right", 0.5)


def test_oedema_closes_the_slit(light_face, dark_face):
    for face in (light_face, dark_face):
        before = aperture(face[1], LEFT_EYE)
        left = [aperture(paint(face, "periorbital_oedema", "left", s).landmarks, LEFT_EYE) for s in (0.3, 0.6, 1.0)]
        assert [share / before for share in left] == pytest.approx([0.78, 0.54, 0.18], abs=0.07)


def test_oedema_fills_the_crease_and_leaves_the_other_eye(light_face):
    result = paint(light_face, "periorbital_oedema", "left", 0.9)
    midline = int(light_face[1][168, 0])
    assert np.array_equal(result.image[:, : midline - 8], light_face[0][:, : midline - 8])
    canvas = Canvas(np.float32(result.image / 255), result.landmarks)
    lid = canvas.lines([canvas.points[[445, 444, 443, 442, 441]]], 3)  # between the brow and the lashes
    assert folds(result.image, lid) < 0.8 * folds(light_face[0], lid)


def test_oedema_of_a_closed_eye_cannot_be_shown(light_face):
    image, landmarks = light_face
    shut = landmarks.copy()
    shut[list(LEFT_EYE[1:8])] = shut[list(LEFT_EYE[:8:-1])]
    with pytest.raises(NotVisibleError, match="left eye"):
        paint((image, shut), "periorbital_oedema", "left", 0.5)
