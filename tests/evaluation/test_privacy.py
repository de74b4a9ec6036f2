import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from medeid.evaluation.privacy import (
    far_threshold,
    impostor_similarities,
    mean_interval,
    rank1_rate,
    rank_chance,
    rank_hits,
    rate_of,
    verification_hits,
    verification_rate,
)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_rank1_counts_the_probes_that_find_their_own_row():
    gallery = torch.eye(4)
    assert rank1_rate(gallery, gallery) == 1.0
    assert rank1_rate(gallery.roll(1, 0), gallery) == 0.0
    assert rank1_rate(gallery[[0, 1, 3, 2]], gallery) == 0.5


def test_rank1_of_probes_in_another_order():
    gallery = torch.eye(4)
    assert rank1_rate(gallery[[2, 0]], gallery, own=torch.tensor([2, 0])) == 1.0
    assert rank1_rate(gallery[[2, 0]], gallery, own=torch.tensor([2, 1])) == 0.5


def test_verification_accepts_what_is_nearer_than_strangers_are():
    torch.manual_seed(0)
    gallery = torch.nn.functional.normalize(torch.randn(200, 16), dim=1)
    assert verification_rate(gallery, gallery) == 1.0
    assert verification_rate(gallery.roll(1, 0), gallery) < 0.02
    half = torch.cat([gallery[:100], gallery[100:].roll(1, 0)])
    assert abs(verification_rate(half, gallery) - 0.5) < 0.02
    pairs = gallery @ gallery.T
    accepted = verification_rate(gallery.roll(1, 0), gallery, far=0.5)
    assert 0.35 < accepted < 0.65 and pairs.diagonal().min() > 0.99


@pytest.mark.parametrize(("hits", "count"), [(0, 150), (3, 150), (60, 150), (150, 150), (990, 1000)])
def test_the_interval_of_a_share_is_about_the_exact_one(hits, count):
    rate = rate_of(np.arange(count) < hits, chance=0.1)
    exact = binomtest(hits, count).proportion_ci(0.95)
    assert (rate.value, rate.chance, rate.count) == (hits / count, 0.1, count)
    assert rate.low == pytest.approx(exact.low, abs=0.03) and rate.high == pytest.approx(exact.high, abs=0.03)
    assert rate.low <= rate.value <= rate.high and rate.high - rate.low > 0.003


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    rates = [rate_of(rng.random(100) < 0.3, chance=0.3, seed=number) for number in range(200)]
    assert 0.9 < np.mean([rate.low <= 0.3 <= rate.high for rate in rates]) < 0.99


def test_copies_of_a_photo_tell_nothing_new():
    hits = np.arange(100) < 30
    once, copied = rate_of(hits, 0.01), hits.repeat(9)
    alone, grouped = rate_of(copied, 0.01), rate_of(copied, 0.01, groups=np.arange(100).repeat(9))
    assert alone.value == grouped.value == once.value and grouped.count == 900
    assert (grouped.low, grouped.high) == pytest.approx((once.low, once.high))
    assert grouped.high - grouped.low > 2.5 * (alone.high - alone.low)
    none = rate_of(np.zeros(900, bool), 0.01, groups=np.arange(100).repeat(9))
    assert none.high == pytest.approx(rate_of(np.zeros(100, bool), 0.01).high)


def test_the_interval_of_a_mean_is_about_that_of_the_normal_distribution():
    values = np.random.default_rng(0).standard_normal(400) + 5.0
    half = 1.96 * values.std() / 20
    assert mean_interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.015)


def test_no_interval_without_values_or_with_the_groups_of_others():
    with pytest.raises(ValueError, match="at least one value"):
        rate_of(np.zeros(0, bool), 0.1)
    with pytest.raises(ValueError, match="3 values and 2 groups"):
        rate_of(np.ones(3, bool), 0.1, groups=["a", "b"])


def test_a_face_as_it_was_is_always_found_and_verified():
    faces, subjects = unit(200, 16), np.arange(200)
    assert rank_hits(faces, faces, subjects, subjects, rank=1).all()
    assert verification_hits(faces, faces, far_threshold(impostor_similarities(faces, subjects))).all()


@pytest.mark.parametrize("rank", [1, 5, 20])
def test_a_face_of_nobody_is_found_by_luck_only(rank):
    gallery, owners = unit(300, 16, seed=1), np.arange(100).repeat(3)
    subjects = np.arange(100).repeat(20)
    rate = rate_of(
        rank_hits(unit(2000, 16, seed=2), gallery, subjects, owners, rank), rank_chance(owners, rank), subjects
    )
    assert rate.chance == rank / 100
    assert rate.low <= rate.chance <= rate.high and rate.high - rate.low < 0.06


def test_a_subject_counts_once_and_by_its_best_photo():
    angles = torch.tensor([0.3, 0.1, 0.2, 0.5, 1.5])
    gallery = torch.stack([angles.cos(), angles.sin()], dim=1)
    owners = ["a", "b", "b", "c", "a"]
    probe = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    for rank, hits in ((1, [False, True, False]), (2, [True, True, False]), (3, [True, True, True])):
        assert rank_hits(probe, gallery, ["a", "b", "c"], owners, rank).tolist() == hits
        assert rank_chance(owners, rank) == rank / 3
    assert rank_hits(probe, gallery, ["a", "b", "c"], owners, 9).all() and rank_chance(owners, 9) == 1.0


def test_a_probe_that_could_not_be_found_is_refused():
    with pytest.raises(ValueError, match="lacks .*nobody"):
        rank_hits(torch.eye(2), torch.eye(2), ["a", "nobody"], ["a", "b"], rank=1)


def test_impostors_are_the_pairs_of_different_subjects():
    found = impostor_similarities(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), ["a", "a", "b"])
    assert found.tolist() == pytest.approx([0.0, 0.8])


@pytest.mark.parametrize("far", [0.001, 0.01])
def test_the_false_accept_rate_holds_for_other_strangers(far):
    known, fresh = (impostor_similarities(unit(400, 16, seed=seed), np.arange(400)) for seed in (0, 1))
    threshold = far_threshold(known, far)
    assert int((known > threshold).sum()) == int(far * len(known))
    assert (fresh > threshold).float().mean().item() == pytest.approx(far, rel=0.4)


def test_too_few_faces_to_calibrate_on():
    with pytest.raises(ValueError, match="at least 10,000 pairs .* got 9,870; give 142 faces"):
        far_threshold(impostor_similarities(unit(141, 16), np.arange(141)))
    far_threshold(impostor_similarities(unit(142, 16), np.arange(142)))
    with pytest.raises(ValueError, match="between 0 and 1"):
        far_threshold(torch.zeros(10), far=0.0)


def test_verification_counts_what_is_above_the_threshold():
    sources = torch.eye(3)
    probes = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [1.0, 0.0, 0.0]])
    assert verification_hits(probes, sources, 0.6).tolist() == [True, False, False]
    assert verification_hits(probes, sources, 0.59).tolist() == [True, True, False]
