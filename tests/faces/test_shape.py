"""Shapes of nobody, and how the shape of a face gives way to one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from medeid.data.faces import FaceFolder
from medeid.faces.mesh import (
    INNER_LIPS,
    LEFT_EYE,
    MIRROR,
    NUM_LANDMARKS,
    OUTER_LIPS,
    OVAL,
    RIGHT_EYE,
    flip_landmarks,
    inter_ocular_distance,
)
from medeid.faces.shape import FEATURES, ShapePrior, relax_landmarks, with_asymmetry


@pytest.fixture
def landmarks():
    generator = torch.Generator().manual_seed(0)
    axes = torch.randn(3, NUM_LANDMARKS * 3, generator=generator)
    return (torch.randn(400, 3, generator=generator) @ axes + 128.0).unflatten(1, (NUM_LANDMARKS, 3))


def test_drawn_shapes_vary_as_the_fitted_ones_do(landmarks):
    prior = ShapePrior(num_components=3).fit(landmarks)
    generator = torch.Generator().manual_seed(1)
    drawn = torch.stack([prior.draw(generator, spread=1.0) for _ in range(400)])
    torch.testing.assert_close(drawn.mean(0), landmarks.mean(0), atol=0.5, rtol=0)
    torch.testing.assert_close(drawn.std(0), landmarks.std(0), atol=0.4, rtol=0.2)


def test_a_seed_repeats_a_shape(landmarks):
    prior = ShapePrior(num_components=3).fit(landmarks)
    first, same, other = (prior.draw(torch.Generator().manual_seed(seed)) for seed in (4, 4, 5))
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_too_few_faces_are_an_error(landmarks):
    with pytest.raises(ValueError, match="components"):
        ShapePrior(num_components=32).fit(landmarks[:32])


@pytest.fixture(scope="module")
def pair():
    """Landmarks of two faces of nobody."""
    folder = FaceFolder(Path(__file__).parents[2] / "examples" / "faces", "train")
    return folder.landmarks(0), folder.landmarks(1)


def openness(landmarks, contour):
    """Height over breadth of an opening."""
    width, height = np.ptp(landmarks[list(contour), :2], axis=0)
    return height / width


def test_features_move_and_what_they_do_stays(pair):
    source, surrogate = pair
    relaxed = relax_landmarks(source, surrogate)
    moved = np.linalg.norm((relaxed - source)[:, :2], axis=1)
    assert moved.max() > 2 and moved.mean() < 0.04 * inter_ocular_distance(source)
    for contour in (LEFT_EYE, RIGHT_EYE):
        assert openness(relaxed, contour) == pytest.approx(openness(source, contour), rel=0.1)
    for lip in (OUTER_LIPS, INNER_LIPS):
        gives = (relaxed - relaxed[list(lip)].mean(0) - source + source[list(lip)].mean(0))[list(lip), :2]
        assert 0.5 < np.linalg.norm(gives, axis=1).max() < 4.5


def test_the_outline_moves_a_little(pair):
    source, surrogate = pair
    moved = np.linalg.norm((relax_landmarks(source, surrogate) - source)[list(OVAL), :2], axis=1)
    assert 2 < moved.max() < 12
    assert not (relax_landmarks(source, surrogate, held=("outline",)) - source)[list(OVAL)].any()


def test_a_face_gets_no_narrower(pair):
    for source, surrogate in (pair, pair[::-1]):
        centre = source[list(RIGHT_EYE) + list(MIRROR[list(RIGHT_EYE)]), :2].mean(0)
        before, after = (
            np.linalg.norm(shape[list(OVAL), :2] - centre, axis=1)
            for shape in (source, relax_landmarks(source, surrogate))
        )
        assert (after > before - 1.5).all() and (after > before + 0.5).any()


def lean(shape):
    """How far the middle of the lips is to a side, and how much lower its one side is than the other, px."""
    right, left = shape[list(OUTER_LIPS), :2], shape[MIRROR[list(OUTER_LIPS)], :2]
    return np.stack([(right + left)[:, 0] / 2, (right - left)[:, 1]])


def test_the_head_turns_a_little_as_the_other_one_does_but_is_not_tilted(pair):
    source, middle = pair[0], pair[0].mean(0)

    def turned(*angles):
        rotation = Rotation.from_euler("xyz", angles, degrees=True)
        return (rotation.apply(source - middle) + middle).astype(np.float32)

    for other, wanted in ((turned(0, 20, 0), turned(0, 6, 0)), (turned(0, 0, 20), source)):
        assert lean(relax_landmarks(source, other)) == pytest.approx(lean(wanted), abs=0.2)


def test_the_surrogate_gets_nearer(pair):
    source, surrogate = pair
    points = [index for name in ("eyes", "brows") for index in FEATURES[name]]
    distance = [np.linalg.norm((shape - surrogate)[points, :2].mean(0)) for shape in (source, relax_landmarks(*pair))]
    assert distance[1] < distance[0]


def test_an_asymmetry_stays(pair):
    source, surrogate = pair
    drooping = source.copy()
    drooping[list(RIGHT_EYE), 1] += 3.0
    gaps = []
    for shape in (drooping, relax_landmarks(drooping, surrogate)):
        mirrored = flip_landmarks(shape)
        gaps.append((shape - mirrored)[list(RIGHT_EYE), 1].mean())
    assert gaps[1] == pytest.approx(gaps[0], abs=0.3)


def test_what_is_held_does_not_move(pair):
    held = relax_landmarks(*pair, held=("mouth", "nose"))
    still = [index for name in ("mouth", "nose") for index in FEATURES[name]]
    assert np.array_equal(held[still], pair[0][still]) and not np.array_equal(held, pair[0])
    assert np.array_equal(relax_landmarks(*pair, held=FEATURES), pair[0])
    with pytest.raises(ValueError, match="`held` must be of eyes, brows, nose, mouth, outline, but has ears"):
        relax_landmarks(*pair, held=("ears",))


def test_of_an_asymmetry_there_can_be_more_or_none(pair):
    drooping = pair[0].copy()
    drooping[list(RIGHT_EYE), 1] += 3.0

    def drop(more):
        shape = with_asymmetry(drooping, np.full(478, more, np.float32))
        return shape[list(RIGHT_EYE), 1].mean() - shape[list(LEFT_EYE), 1].mean()

    assert drop(0.25) - drop(0.0) == pytest.approx((drop(0.0) - drop(-0.5)) / 2, abs=0.01)
    assert drop(0.0) - drop(-0.5) > 2.5
    assert np.array_equal(with_asymmetry(drooping, np.zeros(478, np.float32)), drooping)


def test_a_turned_head_is_no_asymmetry(pair):
    turned = Rotation.from_euler("xyz", (10, 25, 5), degrees=True).apply(pair[0] - 128).astype(np.float32) + 128
    more = np.full(478, 0.5, np.float32)
    straight, after = (np.linalg.norm(with_asymmetry(shape, more) - shape, axis=1) for shape in (pair[0], turned))
    assert after == pytest.approx(straight, abs=1e-3)
