import cv2
import numpy as np
import pytest

from medeid.data.simulate import simulate
from medeid.faces.canvas import Canvas, NotVisibleError
from medeid.manifestations.taxonomy import Finding


def lab_of(face, name: str, severity: float, where: str) -> np.ndarray:
    """Mean CIELAB [3] of skin, sclera or lips after a sign."""
    image, landmarks = face
    clean = Canvas(image.astype(np.float32) / 255, landmarks)
    result = simulate(image, landmarks, [Finding(name, "both", severity)], np.random.default_rng(0))
    weight = {
        "skin": clean.region("skin"),
        "sclera": clean.sclera("left") + clean.sclera("right"),
        "lips": clean.region("lips"),
    }[where]
    lab = cv2.cvtColor(np.float32(result.image / 255), cv2.COLOR_RGB2LAB)
    return (lab * weight[..., None]).sum((0, 1)) / weight.sum()


def healthy(face, where: str) -> np.ndarray:
    return lab_of(face, "acne", 0.01, where)


@pytest.mark.parametrize("skin", ["light_face", "dark_face"])
def test_jaundice_yellows_skin_and_sclera(skin, request):
    face = request.getfixturevalue(skin)
    for where in ("skin", "sclera"):
        yellow = [healthy(face, where)[2]] + [lab_of(face, "jaundice", s, where)[2] for s in (0.3, 0.6, 1.0)]
        assert all(np.diff(yellow) > 1.0), where


def test_scleral_icterus_alone_leaves_the_skin(light_face):
    assert lab_of(light_face, "scleral_icterus", 0.6, "sclera")[2] > healthy(light_face, "sclera")[2] + 4
    assert lab_of(light_face, "scleral_icterus", 0.6, "skin")[2] == pytest.approx(
        healthy(light_face, "skin")[2], abs=0.3
    )


@pytest.mark.parametrize("skin", ["light_face", "dark_face"])
def test_flushing_reddens_and_pallor_bleaches(skin, request):
    face = request.getfixturevalue(skin)
    assert lab_of(face, "flushing", 0.6, "skin")[1] > healthy(face, "skin")[1] + 3
    for where in ("skin", "lips"):
        assert lab_of(face, "pallor", 0.8, where)[1] < healthy(face, where)[1] - 2, where
        assert lab_of(face, "pallor", 0.8, where)[0] > healthy(face, where)[0] + 1, where


@pytest.mark.parametrize("skin", ["light_face", "dark_face"])
def test_cyanosis_turns_lips_blue(skin, request):
    face = request.getfixturevalue(skin)
    before, mild, severe = healthy(face, "lips"), *(lab_of(face, "cyanosis", s, "lips") for s in (0.4, 1.0))
    assert before[2] > mild[2] > severe[2]


def test_icterus_needs_open_eyes(light_face):
    image, landmarks = light_face[0], light_face[1].copy()
    for eye in (Canvas(np.zeros((256, 256, 3), np.float32), landmarks).eye(side) for side in ("left", "right")):
        for upper, lower in zip(eye.upper, eye.lower, strict=True):
            landmarks[(landmarks[:, :2] == upper).all(1), :2] = lower
    with pytest.raises(NotVisibleError, match="open eyes"):
        simulate(image, landmarks, [Finding("scleral_icterus")], np.random.default_rng(0))
