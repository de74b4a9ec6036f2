import torch
from diffusers import UNet2DConditionModel

from medeid.evaluation.overhead import measure
from medeid.pipeline import PACKAGED_WEIGHTS

UNET = PACKAGED_WEIGHTS / "medeid-tiny" / "unet"


def test_the_adapter_costs_its_parameters_and_some_time():
    unet = UNet2DConditionModel.from_pretrained(UNET)
    figures = measure(unet, steps=2)
    assert figures["parameters"] == sum(parameter.numel() for parameter in unet.parameters())
    assert 0 < figures["adapter_parameters"] < figures["parameters"]
    assert figures["added_time"] == figures["adapted_seconds"] / figures["seconds"] - 1
    assert figures["adapted_memory"] >= figures["memory"] > 0
    assert figures["added_memory"] == figures["adapted_memory"] / figures["memory"] - 1


def test_the_unet_is_given_back_as_it_was():
    unet = UNet2DConditionModel.from_pretrained(UNET)
    weights = {name: value.clone() for name, value in unet.state_dict().items()}
    measure(unet, steps=1)
    assert weights.keys() == unet.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in unet.state_dict().items())
    assert unet.config.encoder_hid_dim_type is None
