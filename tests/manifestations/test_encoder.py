import pytest
import torch

from medeid.manifestations.encoder import MASK_SIZE, ManifestationEncoder
from medeid.manifestations.taxonomy import LABELS, TAXONOMY


@pytest.fixture(scope="module")
def encoder() -> ManifestationEncoder:
    torch.manual_seed(0)
    return ManifestationEncoder(num_tokens=4, token_dim=16).eval()


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    return torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_shapes(encoder, crops):
    output = encoder(crops)
    assert output.logits.shape == output.severities.shape == output.token_logits.shape == (2, len(LABELS))
    assert output.mask_logits.shape == (2, len(TAXONOMY), MASK_SIZE, MASK_SIZE)
    assert output.tokens.shape == (2, 4, 16)
    assert ((output.severities >= 0) & (output.severities <= 1)).all()


@torch.no_grad()
def test_tokens_are_noisy_only_while_training(encoder, crops):
    assert torch.equal(encoder(crops).tokens, encoder(crops).token_mean)
    trained = encoder.train()
    noisy = [trained(crops, generator=torch.Generator().manual_seed(seed)).tokens for seed in (1, 2)]
    encoder.eval()
    assert not torch.allclose(*noisy)


@torch.no_grad()
def test_crops_of_another_size_are_resized(encoder, crops):
    large = torch.nn.functional.interpolate(crops, size=(512, 512), mode="nearest")
    assert encoder(large).logits.shape == (2, len(LABELS))
    with pytest.raises(ValueError, match=r"\[B, 3, S, S\]"):
        encoder(crops[:, :, :200])


@torch.no_grad()
def test_saved_and_loaded(encoder, crops, tmp_path):
    encoder.save_pretrained(tmp_path)
    loaded = ManifestationEncoder.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(crops).logits, encoder(crops).logits)


@torch.no_grad()
def test_description_lists_what_is_above_its_threshold(encoder, crops):
    thresholds = encoder.threshold.clone()
    probability = encoder(crops[:1]).logits.sigmoid()[0]
    encoder.threshold.fill_(1.0)
    encoder.threshold[[LABELS.index("ptosis:left"), LABELS.index("jaundice")]] = 0.0
    readings = encoder.describe(crops[:1])[0]
    encoder.threshold.copy_(thresholds)
    assert {(reading.manifestation, reading.side) for reading in readings} == {("ptosis", "left"), ("jaundice", "both")}
    assert readings[0].probability >= readings[1].probability
    by_name = {reading.manifestation: reading for reading in readings}
    assert by_name["jaundice"].probability == pytest.approx(probability[LABELS.index("jaundice")].item())
    assert str(by_name["ptosis"]).startswith("Ptosis (left): ")


@torch.no_grad()
def test_a_plain_transformer_of_open_clip_as_tower():
    encoder = ManifestationEncoder("ViT-S-32-alt", image_size=224, num_tokens=2, token_dim=8).eval()
    assert encoder(torch.rand(1, 3, 256, 256)).mask_logits.shape == (1, len(TAXONOMY), MASK_SIZE, MASK_SIZE)


def test_unknown_tower():
    with pytest.raises(ValueError, match="`tower` must be a model that open_clip knows, but is 'no-such-tower'"):
        ManifestationEncoder("no-such-tower")
