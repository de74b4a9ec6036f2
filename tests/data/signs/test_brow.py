import numpy as np
import pytest

from medeid.data.signs.brow import bare_brow
from medeid.data.simulate import simulate
from medeid.faces.canvas import Canvas, NotVisibleError
from medeid.manifestations.taxonomy import Finding


def canvas(face) -> Canvas:
    return Canvas(np.float32(face[0] / 255), face[1])


def lose(face, side: str, severity: float, seed: int = 0):
    return simulate(*face, [Finding("brow_alopecia", side, severity)], np.random.default_rng(seed))


def share_lost(face, side: str, result) -> float:
    """How much of the darkness of the brow is gone."""
    before = canvas(face)
    bare = bare_brow(before, side)
    skin = canvas(((bare.image * 255).astype(np.uint8), face[1])).lab[..., 0]
    after = canvas((result.image, face[1])).lab[..., 0]
    dark = np.clip(skin - before.lab[..., 0], 0, None) * bare.hair
    left = np.clip(skin - after, 0, None) * bare.hair
    return 1.0 - left.sum() / dark.sum()


def test_bare_brow_is_skin(light_face, dark_face):
    for face in (light_face, dark_face):
        bare = bare_brow(canvas(face), "left")
        hairy = bare.hair > 0.9
        lightness = canvas(((bare.image * 255).astype(np.uint8), face[1])).lab[..., 0]
        around = (bare.hair == 0) & (canvas(face).distance(canvas(face).brow_points("left").mean(0)) < 30)
        around &= canvas(face).skin > 0.9
        assert canvas(face).lab[..., 0][hairy].mean() < lightness[around].mean() - 8
        assert lightness[hairy].mean() > lightness[around].mean() - 8
        assert lightness[hairy].std() < 8


@pytest.mark.parametrize("severity", [0.3, 0.6, 1.0])
def test_severity_is_the_share_that_is_lost(severity, light_face, dark_face):
    for face in (light_face, dark_face):
        lost = np.mean([share_lost(face, "right", lose(face, "right", severity, seed)) for seed in range(3)])
        assert lost == pytest.approx(severity, abs=0.15)


def test_loss_from_the_outer_end_is_among_them(dark_face):
    brow = canvas(dark_face).brow_points("left")
    inner, outer = brow[4, 0], brow[0, 0]
    centres = [np.nonzero(lose(dark_face, "left", 0.3, seed).masks[0])[1].mean() for seed in range(8)]
    places = (np.array(centres) - inner) / (outer - inner)
    assert places.max() > 0.7 and np.ptp(places) > 0.1


def test_brow_under_a_fringe_cannot_lose_hairs(light_face):
    image, landmarks = light_face
    hidden = image.copy()
    hidden[: int(landmarks[105, 1]) + 15] = (30, 22, 18)
    with pytest.raises(NotVisibleError, match="hair"):
        lose((hidden, landmarks), "right", 0.5)


def test_brow_that_is_gone_already_cannot_lose_hairs(light_face):
    bald = np.uint8(bare_brow(canvas(light_face), "left").image * 255)
    with pytest.raises(NotVisibleError, match="darker than the skin"):
        lose((bald, light_face[1]), "left", 0.5)
