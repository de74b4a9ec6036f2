import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medeid.evaluation.attacker import Attacker, attack, recovery, train_attacker
from medeid.evaluation.privacy import rank_chance, rank_hits, rate_of

DIM, PEOPLE, TRAINED = 16, 400, 250


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def faces(count: int, seed: int) -> torch.Tensor:
    """Unit vectors [count, DIM] that share much, as a recognizer's embeddings of generated faces do."""
    return F.normalize(normal(count, DIM, seed=seed) + 6.0 * F.normalize(normal(DIM, seed=99), dim=0), dim=1)


def found(deidentified: torch.Tensor, originals: torch.Tensor) -> tuple[float, float, dict[str, float]]:
    """Rank-1 rates on people whom the attacker has not seen, as they are and attacked, and his recovery."""
    attacker = train_attacker(deidentified[:TRAINED], originals[:TRAINED], np.arange(TRAINED))
    probes, gallery, people = deidentified[TRAINED:], originals[TRAINED:], np.arange(len(originals) - TRAINED)
    plain, attacked = (
        float(rank_hits(each, gallery, people, people, rank=1).mean()) for each in (probes, attack(attacker, probes))
    )
    return plain, attacked, recovery(attacker, probes, gallery)


def rotation() -> torch.Tensor:
    return torch.linalg.qr(normal(DIM, DIM, seed=5))[0]


@pytest.mark.parametrize("secret", [-torch.eye(DIM), rotation()], ids=["negation", "rotation"])
def test_a_fixed_function_of_the_source_is_no_anonymisation(secret):
    originals = faces(PEOPLE, seed=0)
    deidentified = F.normalize(originals @ secret + 0.01 * normal(PEOPLE, DIM, seed=1), dim=1)
    plain, attacked, recovered = found(deidentified, originals)
    assert plain < 0.05 and attacked > 0.95
    assert recovered["cosine_own"] > 0.9 and abs(recovered["cosine_others"]) < 0.05
    assert 0.85 < recovered["difference_low"] < recovered["difference"] < recovered["difference_high"]


def test_the_mlp_learns_a_function_that_is_not_linear():
    originals = faces(2 * PEOPLE, seed=0)
    centred = originals - originals.mean(0)
    mirrored = torch.where(centred[:, :1] > 0, centred, -centred)
    deidentified = F.normalize(torch.cat([centred[:, :1], mirrored[:, 1:]], dim=1) @ rotation(), dim=1)
    plain, attacked, recovered = found(deidentified, originals)
    ridge = Attacker(deidentified[:TRAINED], originals[:TRAINED], factor=0.0, penalty=0.03, seed=0)
    linear = recovery(ridge, deidentified[TRAINED:], originals[TRAINED:])
    assert plain < 0.05 and attacked > 0.3
    assert linear["cosine_own"] < 0.3 and recovered["cosine_own"] > 0.55


def test_an_independent_surrogate_leaves_the_attacker_at_chance():
    originals, surrogates = faces(PEOPLE, seed=0), faces(PEOPLE, seed=1)
    attacker = train_attacker(surrogates[:TRAINED], originals[:TRAINED], np.arange(TRAINED))
    # Fifty surrogates for each of the others: chance is a small rate, and needs many probes to be met.
    people = np.arange(PEOPLE - TRAINED)
    probes, owners = faces(50 * len(people), seed=2), people.repeat(50)
    hits = rank_hits(attack(attacker, probes), originals[TRAINED:], owners, people, rank=5)
    rate = rate_of(hits, rank_chance(people, 5), owners)
    assert rate.low <= rate.chance <= rate.high and rate.high - rate.low < 0.02
    recovered = recovery(attacker, probes, originals[TRAINED:][owners], owners)
    assert recovered["difference_low"] < 0.0 < recovered["difference_high"]
    assert recovered["difference"] == pytest.approx(0.0, abs=0.03)


def test_faces_that_are_all_the_same_leave_the_attacker_with_one_guess_for_all():
    originals = faces(100, seed=0)
    attacker = train_attacker(originals[:1].repeat(60, 1), originals[:60], np.arange(60))
    predictions, people = attack(attacker, originals[:1].repeat(40, 1)), np.arange(40)
    assert predictions.isfinite().all()
    assert rank_hits(predictions, originals[60:], people, people, rank=1).sum() == 1


def test_learning_from_few_pairs_is_no_worse_than_taking_the_face_as_it_is():
    originals = F.normalize(normal(300, 64, seed=0), dim=1)
    deidentified = F.normalize(originals + 0.2 * normal(300, 64, seed=1), dim=1)
    people = np.arange(260)
    plain = rank_hits(deidentified[40:], originals[40:], people, people, rank=1).mean()
    attacker = train_attacker(deidentified[:40], originals[:40], np.arange(40))
    attacked = rank_hits(attack(attacker, deidentified[40:]), originals[40:], people, people, rank=1).mean()
    assert plain > 0.5 and attacked > plain - 0.05


def test_the_same_seed_gives_the_same_attacker_and_leaves_the_global_one_alone():
    originals, deidentified = faces(60, seed=0), faces(60, seed=1)
    state = torch.random.get_rng_state()
    first, again = (train_attacker(deidentified, originals, np.arange(60), seed=3) for _ in range(2))
    assert torch.equal(attack(first, deidentified), attack(again, deidentified))
    assert torch.equal(state, torch.random.get_rng_state())
    assert attack(first, deidentified).norm(dim=1).allclose(torch.ones(60))


def test_other_photos_of_a_person_are_neither_wrong_answers_nor_strangers():
    originals = faces(40, seed=0)[np.arange(40).repeat(3)]
    owners = np.arange(40).repeat(3)
    attacker = train_attacker(-originals, originals, owners)
    recovered = recovery(attacker, -originals, originals, owners)
    assert recovered["cosine_own"] > 0.9 and recovered["cosine_others"] < 0.05
    assert recovery(attacker, -originals, originals)["cosine_others"] > recovered["cosine_others"]


def test_too_few_people_to_hold_some_out():
    with pytest.raises(ValueError, match="at least 8 different people, got 3"):
        train_attacker(faces(9, seed=0), faces(9, seed=1), np.arange(3).repeat(3))
