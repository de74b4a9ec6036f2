import numpy as np

from medeid.data.signs.areas import lids
from medeid.data.simulate import simulate
from medeid.faces.canvas import Canvas
from medeid.manifestations.taxonomy import Finding


def canvas_of(image, landmarks) -> Canvas:
    return Canvas(image.astype(np.float32) / 255, landmarks)


def paint(face, name: str, severity: float, seed: int = 0):
    """The painted face, and how CIELAB changed, float32 [S, S, 3]."""
    result = simulate(*face, [Finding(name, "both", severity)], np.random.default_rng(seed))
    return result, canvas_of(result.image, face[1]).lab - canvas_of(*face).lab


def test_melasma_is_browner_the_more_severe(light_face, dark_face):
    for face in (light_face, dark_face):
        darkening = [-paint(face, "melasma", s)[1][..., 0].sum() for s in (0.2, 0.6, 1.0)]
        assert 0 < darkening[0] < darkening[1] < darkening[2]
        result, change = paint(face, "melasma", 0.8)
        assert -20 < change[result.masks[0], 0].mean() < -3


def test_melasma_lies_on_both_halves_and_spares_the_lids(light_face):
    canvas = canvas_of(*light_face)
    for seed in range(5):
        patch = paint(light_face, "melasma", 0.8, seed)[0].masks[0]
        assert 0.3 < (patch & (canvas.uv[..., 0] > 0)).sum() / patch.sum() < 0.7
        assert not patch[lids(canvas) > 0.03].any()


def test_melasma_comes_in_different_patterns(light_face):
    canvas = canvas_of(*light_face)
    forehead = [
        paint(light_face, "melasma", 0.8, seed)[0].masks[0][canvas.uv[..., 1] < -0.2].sum() for seed in range(8)
    ]
    assert min(forehead) == 0 < max(forehead)


def test_vitiligo_is_stark_on_dark_skin_and_subtle_on_light(light_face, dark_face):
    lightening = []
    for face in (light_face, dark_face):
        result, change = paint(face, "vitiligo", 0.8)
        lightening.append(change[result.masks[0], 0].mean())
    assert lightening[0] > 3 and lightening[1] > 1.5 * lightening[0]


def test_vitiligo_takes_the_brown_away(dark_face):
    result, _ = paint(dark_face, "vitiligo", 0.9)
    chroma = [
        np.hypot(lab[..., 1], lab[..., 2])
        for lab in (canvas_of(result.image, dark_face[1]).lab, canvas_of(*dark_face).lab)
    ]
    assert chroma[0][result.masks[0]].mean() < 0.75 * chroma[1][result.masks[0]].mean()


def test_vitiligo_spreads_with_severity(dark_face):
    areas = [np.mean([paint(dark_face, "vitiligo", s, k)[0].masks.sum() for k in range(3)]) for s in (0.3, 0.6, 1.0)]
    assert areas[0] < areas[1] < areas[2]


def test_vitiligo_is_on_both_halves_or_strictly_on_one(dark_face):
    u = canvas_of(*dark_face).uv[..., 0]
    shares = [(u[paint(dark_face, "vitiligo", 0.8, seed)[0].masks[0]] > 0).mean() for seed in range(12)]
    segmental = [share for share in shares if share < 0.02 or share > 0.98]
    assert 0 < len(segmental) < len(shares) / 2


def test_brow_hair_in_a_severe_patch_is_white(dark_face):
    canvas = canvas_of(*dark_face)
    brow = (np.maximum(canvas.region("left_brow"), canvas.region("right_brow")) > 0.9) & (canvas.lab[..., 0] < 28)
    for seed in range(8):
        moderate, severe = (paint(dark_face, "vitiligo", s, seed) for s in (0.65, 1.0))
        hair = brow & moderate[0].masks[0] & severe[0].masks[0]
        if hair.sum() >= 8:
            assert severe[1][hair, 0].mean() > moderate[1][hair, 0].mean() + 8
            return
    raise AssertionError("No seed laid a patch over a brow.")
