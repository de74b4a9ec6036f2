import json
import shutil

import open_clip
import pytest
import torch
from accelerate.utils import convert_to_fp32
from safetensors.torch import save_file
from transformers import BertConfig

from medeid.manifestations.encoder import ManifestationEncoder, ManifestationOutput
from medeid.manifestations.taxonomy import LABELS, TAXONOMY


@pytest.fixture(scope="module")
def encoder() -> ManifestationEncoder:
    torch.manual_seed(0)
    encoder = ManifestationEncoder(num_tokens=4, token_dim=16).eval()
    for part in encoder.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 2.0)
    return encoder


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    return torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_shapes(encoder, crops):
    output = encoder(crops)
    assert output.logits.shape == output.severities.shape == output.token_logits.shape == (2, len(LABELS))
    assert output.mask_logits.shape == (2, len(TAXONOMY), 128, 128)
    assert output.tokens.shape == (2, 4, 16)
    assert ((output.severities >= 0) & (output.severities <= 1)).all()


@torch.no_grad()
def test_accelerate_casts_the_output_in_mixed_precision(encoder, crops):
    output = encoder(crops)
    cast = convert_to_fp32(ManifestationOutput(**{name: value.half() for name, value in output.items()}))
    torch.testing.assert_close(cast.features, output.features, atol=1e-2, rtol=1e-2)
    assert cast.keys() == output.keys() and cast.token_severities.dtype == torch.float32


@torch.no_grad()
def test_tokens_are_drawn_from_the_bottleneck(encoder, crops):
    first, same, other = (encoder(crops, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.tokens, same.tokens) and not torch.allclose(first.tokens, other.tokens)
    draws = torch.stack([encoder(crops).tokens for _ in range(40)])
    error = (draws.mean(0) - first.token_mean) / (0.5 * first.token_log_variance).exp()
    assert error.square().mean() == pytest.approx(1 / 40, rel=0.5)


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
def test_fused_it_answers_the_same_and_is_saved_as_it_was(encoder, crops, tmp_path):
    plain = {name: value.clone() for name, value in encoder.state_dict().items()}
    before = encoder(crops, torch.Generator().manual_seed(0))
    encoder.fuse_batch_norms()
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in encoder.modules())
    after = encoder(crops, torch.Generator().manual_seed(0))
    for name in ("logits", "severities", "mask_logits", "tokens"):
        torch.testing.assert_close(after[name], before[name], atol=1e-4, rtol=1e-4)

    encoder.save_pretrained(tmp_path)
    torch.testing.assert_close(ManifestationEncoder.from_pretrained(tmp_path).state_dict(), plain)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in encoder.modules())
    encoder.unfuse_batch_norms()
    torch.testing.assert_close(encoder.state_dict(), plain)


def test_training_undoes_fusing(encoder):
    encoder.fuse_batch_norms()
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in encoder.train().modules())
    with pytest.raises(RuntimeError, match="eval"):
        encoder.fuse_batch_norms()
    encoder.eval()


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


@pytest.fixture
def small(clip_folder) -> ManifestationEncoder:
    """On a tower that has weights, with its text tower."""
    torch.manual_seed(0)
    options = {"image_size": 160, "channels": 16, "num_tokens": 2, "token_dim": 8, "text_tower": True}
    return ManifestationEncoder.from_tower(f"local-dir:{clip_folder}", **options).eval()


@torch.no_grad()
def test_a_plain_transformer_of_open_clip_as_tower():
    encoder = ManifestationEncoder("ViT-S-32-alt", image_size=224, num_tokens=2, token_dim=8).eval()
    assert encoder(torch.rand(1, 3, 256, 256)).mask_logits.shape == (1, len(TAXONOMY), 112, 112)


def test_unknown_tower():
    with pytest.raises(ValueError, match="`tower` must be a model that open_clip knows, but is 'no-such-tower'"):
        ManifestationEncoder("no-such-tower")


@torch.no_grad()
def test_an_encoder_loads_without_the_folder_of_its_tower(clip_folder, crops, tmp_path):
    tower = shutil.copytree(clip_folder, tmp_path / "tower")
    encoder = ManifestationEncoder.from_tower(f"local-dir:{tower}", image_size=64, channels=16).eval()
    encoder.save_pretrained(tmp_path / "encoder")
    shutil.rmtree(tower)
    loaded = ManifestationEncoder.from_pretrained(tmp_path / "encoder").eval()
    assert torch.equal(loaded(crops).logits, encoder(crops).logits)
    assert torch.equal(loaded.image_mean, torch.full((1, 3, 1, 1), 0.5))


def test_a_frozen_tower_stays_as_it_is(crops):
    encoder = ManifestationEncoder(image_size=64, channels=16)
    encoder.freeze_tower()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    encoder.train()(crops).logits.square().sum().backward()
    optimizer.step()
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith("vision.") for name in changed)
    assert {"label_bias", "pyramid.laterals.0.weight", "pyramid.smooths.0.1.running_mean"} <= changed


def test_lora_learns_in_place_of_the_tower_and_is_saved_as_a_plain_encoder(small, crops, tmp_path):
    before = small(crops).logits
    names, weight = list(small.state_dict()), small.vision.trunk.blocks[0].attn.qkv.weight.clone()
    small.add_lora(rank=2)
    torch.testing.assert_close(small(crops).logits, before)
    optimizer = torch.optim.SGD([parameter for parameter in small.parameters() if parameter.requires_grad], lr=0.1)
    for _ in range(2):  # the second factor of the additions is zero before the first step
        optimizer.zero_grad()
        small.train()(crops).token_mean.sum().backward()
        optimizer.step()
    learning = {name for name, parameter in small.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name for name in learning if name.startswith(("vision.", "text.", "logit_scale")))
    assert "vision.trunk.blocks.0.attn.qkv.lora_A.default.weight" in learning
    assert {"label_bias", "mask_head.weight", "pyramid.laterals.0.weight"} <= learning

    with torch.no_grad():
        adapted = small.eval()(crops)
        small.save_pretrained(tmp_path)
        assert torch.equal(small(crops).token_mean, adapted.token_mean)  # saving leaves the encoder as it was
        loaded = ManifestationEncoder.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(loaded(crops).token_mean, adapted.token_mean, atol=1e-5, rtol=1e-4)
    assert list(loaded.state_dict()) == names
    assert not torch.allclose(loaded.vision.trunk.blocks[0].attn.qkv.weight, weight)


def test_lora_needs_linear_layers():
    with pytest.raises(ValueError, match="medeid-tiny has no linear layers for LoRA"):
        ManifestationEncoder().add_lora(rank=4)


@pytest.fixture
def coloured() -> torch.Tensor:
    """A red, a green and a blue picture."""
    return torch.eye(3)[:, :, None, None].expand(3, 3, 160, 160)


def test_texts_are_scored_against_a_baseline(small, coloured):
    scores = small.score_text(coloured, ["red skin", "blue skin"], baseline="a face with green skin")
    red, green, blue = scores
    assert red[0] > 0.9 > red[1]
    assert blue[1] > 0.9 > blue[0]
    assert (green < 0.1).all()
    swapped = small.score_text(coloured, ["blue skin", "red skin"], baseline="a face with green skin")
    torch.testing.assert_close(swapped, scores.flip(1))


def test_a_text_against_itself_is_a_draw(small, coloured):
    scores = small.score_text(coloured, ["a face with red skin"], "a face with red skin", subject="{}")
    assert (scores == 0.5).all()


def test_the_text_tower_is_saved_with_the_encoder(small, coloured, tmp_path):
    small.save_pretrained(tmp_path)
    loaded = ManifestationEncoder.from_pretrained(tmp_path).eval()
    baselines = ["a healthy face", "a face without disease"]
    scores = small.score_text(coloured, ["red skin"], baselines)
    assert torch.equal(loaded.score_text(coloured, ["red skin"], baselines), scores)


def test_scoring_texts_as_biomedclip_reads_them(clip_folder, coloured, tmp_path):
    """With a BERT and its tokenizer, which are looked up by the names in the config."""
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] a face photo clinical photograph of with healthy drooping lid".split()
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertConfig(vocab_size=len(words), max_position_embeddings=32, **sizes).save_pretrained(tmp_path)
    config = json.loads((clip_folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] = {
        "hf_model_name": str(tmp_path),
        "hf_tokenizer_name": str(tmp_path),
        "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": 16,
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    tower = f"local-dir:{tmp_path}"
    weights = open_clip.create_model(tower, load_weights=False, pretrained_text=False).state_dict()
    save_file(weights, tmp_path / "open_clip_model.safetensors")

    encoder = ManifestationEncoder.from_tower(tower, image_size=160, channels=16, text_tower=True).eval()
    assert encoder.tokenizer(["a drooping lid"])[0, :5].tolist() == [2, 5, 13, 14, 3]
    scores = encoder.score_text(coloured, ["drooping lid"])
    encoder.save_pretrained(tmp_path / "encoder")
    loaded = ManifestationEncoder.from_pretrained(tmp_path / "encoder").eval()
    assert torch.equal(loaded.score_text(coloured, ["drooping lid"]), scores)


def test_without_a_text_tower_no_text_is_scored(encoder, crops):
    with pytest.raises(ValueError, match=r"from_tower\(..., text_tower=True\)"):
        encoder.score_text(crops, ["a drooping eyelid"])


def test_texts_must_be_a_list(small, coloured):
    with pytest.raises(ValueError, match="`texts` must be a list"):
        small.score_text(coloured, "red skin")
