import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medeid.data.signs.areas import bearing_skin, inside, lids
from medeid.data.signs.rash import _BRANCHES, _MUZZLE, _branch
from medeid.data.simulate import simulate
from medeid.faces.canvas import Canvas, NotVisibleError
from medeid.manifestations.taxonomy import Finding

LEFT_CHEEK, RIGHT_CHEEK = 425, 205
HALF_SIDES = ("eczema", "herpes_zoster", "port_wine_stain")


def canvas_of(image, landmarks) -> Canvas:
    return Canvas(image.astype(np.float32) / 255, landmarks)


def paint(face, name: str, side: str, severity: float, seed: int = 0):
    """The painted face, and how CIELAB changed, float32 [S, S, 3]."""
    result = simulate(*face, [Finding(name, side, severity)], np.random.default_rng(seed))
    return result, canvas_of(result.image, face[1]).lab - canvas_of(*face).lab


@pytest.mark.parametrize("name", ["rosacea", "malar_rash", "eczema", "herpes_zoster", "port_wine_stain"])
def test_the_redder_the_more_severe(name, light_face):
    side = "left" if name in HALF_SIDES else "both"
    redness = [sum(paint(light_face, name, side, s, k)[1][..., 1].sum() for k in range(3)) for s in (0.2, 0.6, 1.0)]
    assert 500 < redness[0] < redness[1] < redness[2]


@pytest.mark.parametrize("name", ["rosacea", "malar_rash", "port_wine_stain"])
def test_dark_skin_darkens_more_than_it_reddens(name, light_face, dark_face):
    def redness_share(face):
        result, change = paint(face, name, "left" if name in HALF_SIDES else "both", 0.8)
        return change[result.masks[0], 1].mean() / -change[result.masks[0], 0].mean()

    assert redness_share(dark_face) < redness_share(light_face)


def test_rosacea_is_on_cheeks_and_nose_and_spares_the_lids(light_face):
    result, change = paint(light_face, "rosacea", "both", 0.7)
    points = np.rint(result.landmarks[[LEFT_CHEEK, RIGHT_CHEEK, 4], :2]).astype(int)
    assert result.masks[0][points[:, 1], points[:, 0]].all()
    assert np.abs(change[lids(canvas_of(*light_face)) > 0.04]).max() < 1.0


def test_severe_rosacea_has_papules_and_vessels(light_face):
    def spots(severity):
        redness = paint(light_face, "rosacea", "both", severity)[1][..., 1]
        return (redness - gaussian_filter(redness, 3.0) > 4.0).sum()

    assert spots(0.2) < 0.3 * spots(1.0)


def test_malar_rash_spares_the_nasolabial_folds_and_the_lids(light_face, dark_face):
    for face in (light_face, dark_face):
        result, _ = paint(face, "malar_rash", "both", 1.0)
        canvas, rash = canvas_of(*face), result.masks[0]
        muzzle = inside(canvas, _MUZZLE, "both")
        assert not rash[(muzzle > 0.04) | (lids(canvas) > 0.04)].any()
        bridge = np.rint(face[1][197, :2]).astype(int)
        assert rash[bridge[1], bridge[0]]
        # As much on one cheek as on the other, as far as the head's turn lets one see.
        left = (rash & (canvas.uv[..., 0] > 0)).sum() / rash.sum()
        assert 0.35 < left < 0.65


@pytest.mark.parametrize("name", HALF_SIDES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_other_half_keeps_every_pixel(name, side, light_face):
    result, _ = paint(light_face, name, side, 1.0)
    u = canvas_of(*light_face).uv[..., 0] * (1 if side == "left" else -1)
    changed = (result.image != light_face[0]).any(-1)
    assert changed.any() and not changed[u < -0.08].any()
    assert not result.masks[0][u < -0.04].any()


def test_eczema_scales_and_comes_at_different_places(light_face):
    places = []
    for seed in range(4):
        result, change = paint(light_face, "eczema", "left", 0.9, seed)
        places.append(np.argwhere(result.masks[0]).mean(0))
        # Pale flakes stand out from the red ground.
        lightness = change[..., 0][result.masks[0]]
        assert lightness.std() > 2.5
    assert np.std(places, axis=0).max() > 4.0


def test_herpes_zoster_keeps_to_one_branch(light_face):
    canvas = canvas_of(*light_face)
    for seed in range(4):
        result, _ = paint(light_face, "herpes_zoster", "right", 1.0, seed)
        shares = [(_branch(canvas, name, "right") > -0.03)[result.masks[0]].mean() for name in _BRANCHES]
        assert max(shares) > 0.99


def test_herpes_zoster_shows_as_separate_groups_when_mild(light_face):
    mild, severe = (paint(light_face, "herpes_zoster", "right", s)[0].masks[0].sum() for s in (0.2, 1.0))
    assert mild < 0.5 * severe


def test_port_wine_stain_is_flat_even_and_ends_sharply(light_face):
    result, change = paint(light_face, "port_wine_stain", "left", 0.6)
    stain = result.masks[0]
    inner = gaussian_filter(stain.astype(np.float32), 3.0) > 0.98
    outer = gaussian_filter(stain.astype(np.float32), 3.0) < 0.02
    redness = change[..., 1]
    assert redness[inner].mean() > 8.0 and redness[inner].std() < 0.4 * redness[inner].mean()
    assert np.abs(change[outer]).max() == 0.0
    # The skin's own texture is still there.
    before, after = (canvas_of(image, light_face[1]).lab[..., 0] for image in (light_face[0], result.image))
    detail = [(lab - gaussian_filter(lab, 2.0))[inner] for lab in (before, after)]
    assert np.corrcoef(*detail)[0, 1] > 0.5


def test_port_wine_stain_turns_from_pink_to_purple(light_face):
    hues = []
    for severity in (0.3, 1.0):
        result, _ = paint(light_face, "port_wine_stain", "left", severity)
        _, a, b = canvas_of(result.image, light_face[1]).lab[result.masks[0]].mean(0)
        hues.append(np.degrees(np.arctan2(b, a)))
    assert hues[1] < hues[0] - 10


@pytest.mark.parametrize("name", HALF_SIDES)
def test_no_rash_on_a_half_that_is_hidden(name, light_face):
    image, landmarks = light_face
    hidden = image.copy()
    hidden[:, int(landmarks[4, 0]) - 8 :] = 0
    with pytest.raises(NotVisibleError):
        simulate(hidden, landmarks, [Finding(name, "left")], np.random.default_rng(0))


def test_bearing_skin_includes_the_lids_and_leaves_out_the_eyes(light_face):
    canvas = canvas_of(*light_face)
    skin = bearing_skin(canvas)
    assert skin[canvas.aperture("left") == 1].max() == 0
    around = (lids(canvas) > 0.01) & (canvas.aperture("left") == 0) & (canvas.aperture("right") == 0)
    assert skin[around].mean() > canvas.skin[around].mean()
    lips = canvas.region("lips") == 1
    assert skin[lips].max() == 0 and bearing_skin(canvas, lips=True)[lips].mean() > 0.5
