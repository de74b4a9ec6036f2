"""Surrogates: random under a generator, distributed like faces, away from the source and no function of it."""

import pickle

import pytest
import torch

from medeid.identity.surrogate import SurrogateIdentity, SurrogatePrior


@pytest.fixture
def embeddings():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=generator)
    return torch.randn(5000, 6, generator=generator) @ mixing + 3.0


@pytest.fixture
def prior(embeddings):
    return SurrogatePrior(embed_dim=6).fit(embeddings)


def draws(prior, count):
    generator = torch.Generator().manual_seed(1)
    return torch.stack([prior.draw(generator) for _ in range(count)])


def test_draws_have_the_fitted_distribution(prior, embeddings):
    drawn, real = draws(prior, 4000), prior.standardise(embeddings)
    assert real.mean().abs() < 1e-4 and (real.std() - 1).abs() < 1e-2
    torch.testing.assert_close(drawn.T.cov(), real.T.cov(), atol=0.15, rtol=0.1)


def test_nobody_lies_at_the_end_of_an_axis(prior, embeddings):
    deviations, axes = torch.linalg.eigh(prior.standardise(embeddings).T.cov())
    drawn, real = (sample @ axes / deviations.sqrt() for sample in (draws(prior, 2000), prior.standardise(embeddings)))
    assert drawn.abs().max() < 2.0 < 3.0 < real.abs().max()
    assert (drawn.std(0) - 1).abs().max() < 0.05


def test_same_generator_state_same_surrogate(prior):
    first = prior.draw(torch.Generator().manual_seed(5))
    assert torch.equal(first, prior.draw(torch.Generator().manual_seed(5)))
    assert not torch.equal(first, prior.draw(torch.Generator().manual_seed(6)))


def test_a_prior_that_is_fitted_again_draws_by_the_new_fit(prior, embeddings):
    before = draws(prior, 1)
    again = SurrogatePrior(embed_dim=6).fit(embeddings[:, [3, 4, 5, 0, 1, 2]])
    prior.fit(embeddings[:, [3, 4, 5, 0, 1, 2]])
    assert torch.equal(draws(prior, 1), draws(again, 1)) and not torch.equal(draws(prior, 1), before)


def test_surrogate_is_away_from_the_source_but_of_its_kind(prior):
    generator = torch.Generator().manual_seed(2)
    cosines = []
    for source in draws(prior, 50):
        surrogate = prior.draw(generator, away_from=source)
        cosines.append(torch.nn.functional.cosine_similarity(surrogate, source, dim=0))
    assert max(cosines) < 0.15 and sum(cosines) / 50 > 0.0


def test_surrogate_is_no_function_of_the_source(prior):
    source = draws(prior, 1)[0]
    generator = torch.Generator().manual_seed(3)
    assert not torch.equal(prior.draw(generator, away_from=source), prior.draw(generator, away_from=source))


def test_where_nobody_is_far_enough_away_the_nearest_is_turned_away(prior):
    source = draws(prior, 1)[0]
    surrogate = prior.draw(torch.Generator().manual_seed(0), away_from=source, max_cosine=-0.99)
    assert torch.nn.functional.cosine_similarity(surrogate, source, dim=0) == pytest.approx(-0.99, abs=1e-4)


def test_too_few_faces_are_an_error():
    with pytest.raises(ValueError, match="at least 2"):
        SurrogatePrior(embed_dim=6).fit(torch.randn(1, 6))


def test_fit_survives_saving(prior, tmp_path):
    prior.save_pretrained(tmp_path)
    loaded = SurrogatePrior.from_pretrained(tmp_path)
    assert torch.equal(loaded.factor, prior.factor) and torch.equal(loaded.mean, prior.mean)


def test_other_photos_of_a_person_give_nearly_the_same_surrogate(prior):
    generator = torch.Generator().manual_seed(3)
    alike, cosines = [], []
    for seed in range(200):
        source = prior.draw(generator)
        visit = source + 0.1 * torch.randn(6, generator=generator)
        first, second = (prior.draw_alike(torch.Generator().manual_seed(seed), photo) for photo in (source, visit))
        alike.append(torch.nn.functional.cosine_similarity(first, second, dim=0).item())
        cosines.append(torch.nn.functional.cosine_similarity(first, source, dim=0).item())
    assert sum(cosine > 0.95 for cosine in alike) > 0.9 * len(alike)
    assert max(cosines) < 0.1501


def test_who_is_too_near_is_turned_away_and_stays_as_typical(prior):
    source = draws(prior, 1)[0]
    for seed in range(20):
        near, far = (prior.draw_alike(torch.Generator().manual_seed(seed), source, bound) for bound in (1.0, -0.3))
        assert torch.nn.functional.cosine_similarity(far, source, dim=0) < -0.2999
        assert far.norm() == pytest.approx(near.norm().item(), rel=1e-4)


def test_a_surrogate_is_of_the_sources_kind(prior):
    source = prior.draw(torch.Generator().manual_seed(4))
    drawn = torch.stack([prior.draw_alike(torch.Generator().manual_seed(seed), source, 0.9) for seed in range(50)])
    kinds = prior.main_coordinates(drawn)
    assert (kinds * prior.main_coordinates(source[None]) > -0.25).all()
    assert (kinds.abs() > 0.25).any()  # so they are of one kind, and not just of none


@pytest.mark.parametrize("kinship", [0.0, 0.8, 1.0])
def test_a_relative_resembles_the_first(prior, kinship):
    source, cosines = torch.zeros(6), []
    for seed in range(200):
        first = prior.draw_alike(torch.Generator().manual_seed(seed), source, 1.0)
        own, relative = torch.Generator().manual_seed(1000 + seed), torch.Generator().manual_seed(seed)
        drawn = prior.draw_alike(own, source, 1.0, relative, kinship)
        cosines.append(torch.nn.functional.cosine_similarity(drawn, first, dim=0).item())
    assert sum(cosines) / 200 == pytest.approx(kinship, abs=0.15)


def test_key_and_pseudonym_seed_the_surrogate():
    one, same, other = (SurrogateIdentity(key * 16) for key in (b"a", b"a", b"b"))
    assert one.seed("p17") == same.seed("p17")
    seeds = {one.seed("p17"), one.seed("p18"), one.seed("p17", attempt=2), other.seed("p17")}
    assert len(seeds) == 4 and all(0 <= seed < 2**63 for seed in seeds)


def test_a_key_does_not_get_out():
    identity = SurrogateIdentity(b"0123456789abcdef")
    assert "0123" not in repr(identity)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(identity)


def test_what_is_no_key_or_no_pseudonym():
    with pytest.raises(ValueError, match="at least 16 bytes"):
        SurrogateIdentity(b"short")
    with pytest.raises(ValueError, match="`pseudonym` is empty"):
        SurrogateIdentity(b"0123456789abcdef").seed(" ")
