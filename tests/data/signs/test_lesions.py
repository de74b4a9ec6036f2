import numpy as np
import pytest

from medeid.data.simulate import simulate
from medeid.faces.canvas import Canvas, NotVisibleError
from medeid.manifestations.taxonomy import Finding


def paint(face, name: str, side: str, severity: float, seed: int = 0):
    return simulate(*face, [Finding(name, side, severity)], np.random.default_rng(seed))


def test_more_acne_covers_more_skin(light_face):
    areas = [
        np.mean([paint(light_face, "acne", "both", s, seed).masks.sum() for seed in range(3)]) for s in (0.2, 0.6, 1)
    ]
    assert areas[0] < areas[1] < areas[2]


def test_acne_is_red(light_face, dark_face):
    for face in (light_face, dark_face):
        result = paint(face, "acne", "both", 0.8)
        before, after = (Canvas(np.float32(image / 255), face[1]).lab for image in (face[0], result.image))
        assert (after - before)[result.masks[0], 1].mean() > 1.0


@pytest.mark.parametrize("name", ["naevus", "seborrhoeic_keratosis"])
def test_pigmented_lesion_darkens_and_grows(name, light_face, dark_face):
    for face in (light_face, dark_face):
        small, large = (paint(face, name, "left", s) for s in (0.3, 0.9))
        assert large.masks.sum() > 2 * small.masks.sum()
        change = large.image.astype(int) - face[0]
        assert change[large.masks[0]].mean() < -5


@pytest.mark.parametrize("name", ["naevus", "seborrhoeic_keratosis"])
def test_lesion_varies_with_the_generator(name, light_face):
    centres = [np.argwhere(paint(light_face, name, "right", 0.5, seed).masks[0]).mean(0) for seed in range(4)]
    assert len({tuple(centre.round()) for centre in centres}) == 4


def test_no_skin_no_lesion(light_face):
    black = np.zeros_like(light_face[0])
    black[100:110] = 200
    with pytest.raises(NotVisibleError):
        simulate(black, light_face[1], [Finding("seborrhoeic_keratosis", "left", 1.0)], np.random.default_rng(0))
