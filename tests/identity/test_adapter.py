"""The identity adapter on a small UNet: it owns its weights, and leaves the UNet a plain one."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from medeid.identity.adapter import IdentityAdapter


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
    return IdentityAdapter.for_unet(unet, embed_dim=12, num_tokens=3).eval()


def inputs():
    torch.manual_seed(2)
    return torch.randn(2, 9, 8, 8), torch.tensor(7), torch.randn(2, 1, 16)


def run(unet, identities=None):
    conditions = {} if identities is None else {"added_cond_kwargs": IdentityAdapter.condition(identities)}
    with torch.no_grad():
        return unet(*inputs(), **conditions).sample


def test_another_identity_gives_another_output(unet, adapter):
    adapter.attach(unet)
    assert (run(unet, torch.randn(2, 12)) - run(unet, torch.randn(2, 12))).abs().max() > 1e-3


def test_scale_zero_is_the_plain_unet(unet, adapter):
    plain = run(unet)
    adapter.attach(unet)
    for processor in adapter.processors:
        processor.scale = [0.0]
    torch.testing.assert_close(run(unet, torch.randn(2, 12)), plain, atol=1e-5, rtol=0)


def test_detached_unet_is_plain_in_memory_and_on_disk(unet, adapter, tmp_path):
    plain = run(unet)
    keys = set(unet.state_dict())
    adapter.attach(unet)
    IdentityAdapter.detach(unet)
    assert torch.equal(run(unet), plain)
    assert set(unet.state_dict()) == keys


def test_saved_adapter_gives_the_same_output(unet, adapter, tmp_path):
    identities = torch.randn(2, 12)
    adapter.attach(unet)
    expected = run(unet, identities)
    adapter.save_pretrained(tmp_path)
    IdentityAdapter.from_pretrained(tmp_path).eval().attach(unet)
    assert torch.equal(run(unet, identities), expected)


def test_every_weight_of_the_adapter_gets_a_gradient(unet, adapter):
    adapter.attach(unet)
    unet(*inputs(), added_cond_kwargs=IdentityAdapter.condition(torch.randn(2, 12))).sample.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapter.parameters())


def test_adapter_of_another_unet_is_refused(unet):
    other = IdentityAdapter(cross_attention_dim=16, hidden_sizes=(32, 32), embed_dim=12)
    with pytest.raises(ValueError, match="was made"):
        other.attach(unet)
