"""The identity adapter on a small UNet: it owns its weights, and leaves the UNet a plain one."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0, XFormersAttnProcessor

from medeid.identity.adapter import IdentitySuppressionAdapter


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=9,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=8,
    ).eval()


@pytest.fixture
def adapter(unet):
    torch.manual_seed(1)
    return IdentitySuppressionAdapter.for_unet(unet, embed_dim=12, num_tokens=3).eval()


def inputs():
    torch.manual_seed(2)
    return torch.randn(2, 9, 8, 8), torch.tensor(7), torch.randn(2, 1, 16)


@pytest.fixture
def both(adapter):
    """An adapter that attends to manifestation tokens, too, and has learned something of them."""
    both = adapter.with_manifestations(token_dim=6, num_manifestation_tokens=5)
    for processor in both.processors:
        torch.nn.init.normal_(processor.to_v_ip[1].weight)
    return both.eval()


def run(unet, identities=None, tokens=None):
    conditions = {}
    if identities is not None:
        conditions["added_cond_kwargs"] = IdentitySuppressionAdapter.condition(identities, tokens)
    with torch.no_grad():
        return unet(*inputs(), **conditions).sample


def test_another_identity_gives_another_output(unet, adapter):
    adapter.attach(unet)
    assert (run(unet, torch.randn(2, 12)) - run(unet, torch.randn(2, 12))).abs().max() > 1e-3


def test_scale_zero_is_the_plain_unet(unet, adapter):
    plain = run(unet)
    adapter.attach(unet)
    adapter.set_scale(identity=0.0)
    torch.testing.assert_close(run(unet, torch.randn(2, 12)), plain, atol=1e-5, rtol=0)


def test_detached_unet_is_plain_in_memory_and_on_disk(unet, adapter, tmp_path):
    plain = run(unet)
    keys = set(unet.state_dict())
    adapter.attach(unet)
    IdentitySuppressionAdapter.detach(unet)
    assert torch.equal(run(unet), plain)
    assert set(unet.state_dict()) == keys


def test_saved_adapter_gives_the_same_output(unet, adapter, tmp_path):
    identities = torch.randn(2, 12)
    adapter.attach(unet)
    expected = run(unet, identities)
    adapter.save_pretrained(tmp_path)
    IdentitySuppressionAdapter.from_pretrained(tmp_path).eval().attach(unet)
    assert torch.equal(run(unet, identities), expected)


def test_manifestation_tokens_change_nothing_before_they_have_learned(unet, adapter):
    identities = torch.randn(2, 12)
    adapter.attach(unet)
    before = run(unet, identities)
    wider = adapter.with_manifestations(token_dim=6, num_manifestation_tokens=5)
    wider.attach(unet)
    torch.testing.assert_close(run(unet, identities, torch.randn(2, 5, 6)), before)
    IdentitySuppressionAdapter.for_unet(unet, 12, 3, token_dim=6, num_manifestation_tokens=5).attach(unet)
    same = [run(unet, identities, torch.randn(2, 5, 6)) for _ in range(2)]
    torch.testing.assert_close(*same)


def test_each_group_of_tokens_has_its_own_scale(unet, both):
    plain, identities, tokens = run(unet), torch.randn(2, 2, 12), torch.randn(2, 2, 5, 6)
    both.attach(unet)

    def reacts(one, other):
        return (run(unet, *one) - run(unet, *other)).abs().max() > 1e-3

    for identity, manifestations in ((1.0, 0.0), (0.0, 1.0)):
        both.set_scale(identity, manifestations)
        assert reacts((identities[0], tokens[0]), (identities[1], tokens[0])) == bool(identity)
        assert reacts((identities[0], tokens[0]), (identities[0], tokens[1])) == bool(manifestations)
    both.set_scale(0.0, 0.0)
    torch.testing.assert_close(run(unet, identities[0], tokens[0]), plain, atol=1e-5, rtol=0)


def test_an_adapter_with_both_groups_survives_saving(unet, both, tmp_path):
    identities, tokens = torch.randn(2, 12), torch.randn(2, 5, 6)
    both.attach(unet)
    expected = run(unet, identities, tokens)
    both.save_pretrained(tmp_path)
    IdentitySuppressionAdapter.from_pretrained(tmp_path).eval().attach(unet)
    assert torch.equal(run(unet, identities, tokens), expected)
    assert both.no_tokens(3).shape == (3, 5, 6)


def test_xformers_gets_the_same_projections_and_gives_the_same(unet, both, monkeypatch):
    def memory_efficient_attention(query, key, value, attn_bias=None, op=None, scale=None):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_bias, scale=scale)

    kernels = SimpleNamespace(ops=SimpleNamespace(memory_efficient_attention=memory_efficient_attention))
    monkeypatch.setattr("diffusers.models.attention_processor.xformers", kernels)  # the true ones need a GPU
    identities, tokens = torch.randn(2, 12), torch.randn(2, 5, 6)
    both.attach(unet)
    expected = run(unet, identities, tokens)
    parameters = dict(both.named_parameters())
    both.detach(unet)
    unet.set_attn_processor(XFormersAttnProcessor())
    both.attach(unet)
    kinds = {type(processor).__name__ for processor in unet.attn_processors.values()}
    assert kinds == {"XFormersAttnProcessor", "IPAdapterXFormersAttnProcessor"}
    assert all(dict(both.named_parameters())[name] is value for name, value in parameters.items())
    torch.testing.assert_close(run(unet, identities, tokens), expected)
    both.detach(unet)
    assert {type(processor).__name__ for processor in unet.attn_processors.values()} == {"XFormersAttnProcessor"}
    unet.set_attn_processor(AttnProcessor2_0())
    both.attach(unet)
    assert {type(each).__name__ for each in both.processors} == {"IPAdapterAttnProcessor2_0"}


def test_every_weight_of_the_adapter_gets_a_gradient(unet, adapter):
    both = adapter.with_manifestations(token_dim=6, num_manifestation_tokens=5)
    for processor in both.processors:
        torch.nn.init.normal_(processor.to_v_ip[1].weight)
    both.attach(unet)
    condition = IdentitySuppressionAdapter.condition(torch.randn(2, 12), torch.randn(2, 5, 6))
    unet(*inputs(), added_cond_kwargs=condition).sample.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in both.parameters())


def test_adapter_of_another_unet_is_refused(unet):
    other = IdentitySuppressionAdapter(cross_attention_dim=16, hidden_sizes=(32, 32), embed_dim=12)
    with pytest.raises(ValueError, match="was made"):
        other.attach(unet)
