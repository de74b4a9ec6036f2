import cv2
import numpy as np
import pytest

from medeid.data.signs.textures import signed_distance, vessels
from medeid.faces.canvas import Canvas


def test_distance_is_finite_even_without_anything_to_measure_to():
    disc = cv2.circle(np.zeros((64, 64), np.float32), (32, 32), 10, 1.0, -1)
    assert signed_distance(disc)[32, 32] == pytest.approx(10.0, abs=1.0)
    assert signed_distance(disc)[32, 52] == pytest.approx(-9.5, abs=1.0)
    assert (
        np.all(signed_distance(np.zeros((64, 64), np.float32)) < -64) and np.isfinite(signed_distance(0 * disc)).all()
    )


def test_vessels_are_alike_in_a_larger_picture(light_face):
    image, landmarks = light_face
    covered, reach = [], []
    for size in (256, 512):
        canvas = Canvas(cv2.resize(image, (size, size)).astype(np.float32) / 255, landmarks)
        roots = np.full((30, 2), size / 2, np.float32)
        drawn = vessels(
            canvas, roots, np.zeros(30), 20 * canvas.px, canvas.px, np.random.default_rng(0), wander=0.3, branching=0.1
        )
        covered.append(drawn.mean())
        reach.append(np.flatnonzero((drawn > 0.1).any(0)).max() / size)
    assert covered[1] == pytest.approx(covered[0], rel=0.15)
    assert reach[1] == pytest.approx(reach[0], abs=0.01)
