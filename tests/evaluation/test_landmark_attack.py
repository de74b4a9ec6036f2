"""Shapes in cases where it is known who is who."""

import numpy as np
import pytest

from medeid.evaluation.cohort import Cohort, People
from medeid.evaluation.landmark_attack import LandmarkAttack
from medeid.evaluation.results import Released

COUNT = 40


def people(landmarks):
    names = np.array([f"person {index}" for index in range(len(landmarks))])
    return People(np.zeros((len(landmarks), 8, 8, 3), np.uint8), names, landmarks)


@pytest.fixture(scope="module")
def shapes(light_face):
    noise = np.random.default_rng(0).normal(0, 2, (COUNT, 478, 3)).astype(np.float32)
    return light_face[1] + noise


@pytest.fixture(scope="module")
def attack(shapes):
    nobody = people(np.zeros((0, 478, 3), np.float32))
    return LandmarkAttack(Cohort(None, people(shapes), nobody, nobody, nobody, None, None, 0))


def found(attack, landmarks, visits):
    released = {"photos": landmarks, "visits_other_key": visits}
    return attack.run({name: Released(np.arange(len(each)), people(each)) for name, each in released.items()})


def test_a_shape_that_stayed_is_found_wherever_it_lies_and_however_large_it_is(attack, shapes):
    moved = 0.8 * shapes + np.float32([5, -3, 0])
    figures = found(attack, moved, shapes[: COUNT // 2])
    assert figures["rank1"].value == figures["linked_two_keys"].value == 1.0
    assert figures["rank1"].chance == pytest.approx(1 / COUNT) and figures["linked_two_keys"].count == COUNT // 2


def test_a_shape_of_somebody_else_is_found_by_luck(attack, shapes, light_face):
    others = light_face[1] + np.random.default_rng(1).normal(0, 2, shapes.shape).astype(np.float32)
    figures = found(attack, others, light_face[1] + others[::-1] - others)
    assert figures["rank1"].low <= figures["rank1"].chance <= figures["rank1"].high
    assert figures["linked_two_keys"].value < 0.2


def test_without_second_photos_there_is_nothing_to_link(attack, shapes):
    assert found(attack, shapes, shapes[:0])["linked_two_keys"] is None
