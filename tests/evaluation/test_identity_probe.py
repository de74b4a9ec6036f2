import numpy as np
import pytest

from medeid.evaluation.identity_probe import identity_probe

SUBJECTS = [str(number) for number in np.repeat(np.arange(12), 8)]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


def test_nothing_is_found_where_nothing_is():
    result = identity_probe(noise(96, 6), SUBJECTS)
    assert result.linear < 0.4 and result.mlp < 0.4
    assert (result.chance, result.subjects, result.unseen) == (1 / 12, 12, 24)


def test_many_attackers_find_no_more_in_noise_than_one():
    result = identity_probe(noise(8, 96, 6), SUBJECTS)
    assert result.unseen == 8 * 24
    assert result.linear == pytest.approx(1 / 12, abs=0.06)
    assert result.mlp == pytest.approx(1 / 12, abs=0.06)


def test_a_subject_of_many_faces_is_no_better_a_guess_than_another(few_attackers):
    often = ["0"] * 100 + SUBJECTS[8:]
    result = identity_probe(noise(8, len(often), 6), often)
    assert max(result.linear, result.mlp) < 0.15 < np.mean(np.array(often) == "0")


def test_identity_is_found_in_directions_of_little_variance():
    mixed = np.hstack([noise(96, 4), 0.03 * noise(12, 2).repeat(8, 0) + 1e-3 * noise(96, 2)]) @ noise(6, 6)
    result = identity_probe(mixed, SUBJECTS)
    assert result.linear > 0.9 and result.mlp > 0.9


def test_the_second_attacker_finds_what_is_not_linear():
    points = noise(400, 2)
    result = identity_probe(points, np.where(points.prod(1) > 0, "same", "other").tolist())
    assert result.mlp > 0.9 > 0.75 > result.linear


def test_the_same_seed_gives_the_same_rates(few_attackers):
    features = noise(96, 6) + 0.3 * noise(12, 6).repeat(8, 0)
    assert identity_probe(features, SUBJECTS, seed=1) == identity_probe(features, SUBJECTS, seed=1)


def test_subjects_with_one_face_are_left_out(few_attackers):
    result = identity_probe(noise(98, 6), [*SUBJECTS, "once", "also once"])
    assert result.subjects == 12
    with pytest.raises(ValueError, match="two subjects"):
        identity_probe(noise(3, 6), ["a", "b", "b"])
