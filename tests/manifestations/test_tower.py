import shutil

import open_clip
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import save_file

from medeid.manifestations import tower
from medeid.manifestations.tower import adaptable_layers, create_clip, find_weights, map_widths, read_config, tower_maps

TEXT = {"context_length": 8, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1}
TIMM = {"timm_pool": "avg", "timm_proj": "linear"}
COLOURS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


def config_of(vision: dict) -> dict:
    return {"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT}, "preprocess_cfg": COLOURS}


def test_a_folder_in_open_clips_form(clip_folder):
    config = read_config(f"local-dir:{clip_folder}")
    assert config["model_cfg"]["vision_cfg"]["timm_model_name"] == "test_vit"
    assert config["preprocess_cfg"] == COLOURS
    assert find_weights(f"local-dir:{clip_folder}") == clip_folder / "open_clip_model.safetensors"


def test_a_folder_without_a_config(tmp_path):
    with pytest.raises(ValueError, match="has no open_clip_config.json, so it is no model in open_clip's form"):
        read_config(f"local-dir:{tmp_path}")


def test_pickled_weights_are_refused(clip_folder, tmp_path):
    shutil.copy(clip_folder / "open_clip_config.json", tmp_path)
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(ValueError, match=r"has no open_clip_model.safetensors, and medeid does not unpickle weights"):
        find_weights(f"local-dir:{tmp_path}")
    with pytest.raises(ValueError, match=r"must be a .safetensors file or one of .*laion2b_s34b_b79k"):
        find_weights("ViT-B-32", "weights.bin")


def test_weights_of_a_plain_config():
    assert find_weights("medeid-tiny") is None
    assert str(find_weights("medeid-tiny", "mine.safetensors")) == "mine.safetensors"
    with pytest.raises(ValueError, match="`weights` of medeid-tiny must be a .safetensors file, but is 'openai'"):
        find_weights("medeid-tiny", "openai")


def test_weights_say_how_they_want_colours_and_which_activation():
    plain, openai = read_config("ViT-B-32"), read_config("ViT-B-32", "openai")
    assert not plain["model_cfg"].get("quick_gelu") and openai["model_cfg"]["quick_gelu"]
    assert read_config("ViT-B-16-SigLIP", "webli")["preprocess_cfg"] == COLOURS


def test_a_model_of_the_hub(clip_folder, monkeypatch):
    def download(repository: str, name: str) -> str:
        if repository == "far/away":
            raise LocalEntryNotFoundError("The Hub cannot be reached.")
        if repository != "owner/clip" or not (clip_folder / name).exists():
            raise EntryNotFoundError(name)
        return str(clip_folder / name)

    monkeypatch.setattr(tower, "hf_hub_download", download)
    assert read_config("hf-hub:owner/clip") == read_config(f"local-dir:{clip_folder}")
    assert find_weights("hf-hub:owner/clip").parent == clip_folder
    with pytest.raises(ValueError, match="owner/pickles has no open_clip_model.safetensors"):
        find_weights("hf-hub:owner/pickles")
    with pytest.raises(ValueError, match="laion/CLIP-ViT-B-32-laion2B-s34B-b79K has no open_clip_model.safetensors"):
        find_weights("ViT-B-32", "laion2b_s34b_b79k")
    with pytest.raises(LocalEntryNotFoundError, match="cannot be reached"):
        find_weights("hf-hub:far/away")


@torch.no_grad()
@pytest.mark.parametrize("size", [160, 64])
@pytest.mark.parametrize("text_tower", [True, False])
def test_the_model_equals_open_clips(clip_folder, size, text_tower):
    name = f"local-dir:{clip_folder}"
    theirs = open_clip.create_model(name, force_image_size=size).eval()
    ours = create_clip(read_config(name), size, text_tower, find_weights(name)).eval()
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours.encode_image(images), theirs.encode_image(images))
    if text_tower:
        tokens = open_clip.get_tokenizer(name)(["a face"])
        assert torch.equal(ours.encode_text(tokens), theirs.encode_text(tokens))


@torch.no_grad()
@pytest.mark.parametrize(
    ("vision", "sides"),
    [
        ({"image_size": 64, "layers": 5, "width": 16, "head_width": 8, "patch_size": 16}, [4, 4, 4, 4]),
        ({"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}, [16, 16, 8, 4, 2]),
        ({"timm_model_name": "test_vit", **TIMM}, [4, 4, 4, 4]),
        ({"timm_model_name": "test_convnext", **TIMM}, [16, 8, 4, 2]),
    ],
    ids=["transformer", "resnet", "timm transformer", "timm stages"],
)
def test_maps_of_every_kind_of_tower(vision, sides):
    visual = create_clip(config_of(vision), 64, text_tower=False).visual.eval()
    maps = tower_maps(visual, torch.randn(2, 3, 64, 64))
    assert [tuple(each.shape) for each in maps] == [
        (2, width, side, side) for width, side in zip(map_widths(visual), sides, strict=True)
    ]


def test_a_file_without_a_vision_tower(tmp_path):
    save_file({"text.weight": torch.zeros(1)}, tmp_path / "text.safetensors")
    with pytest.raises(ValueError, match="has no vision tower"):
        create_clip(config_of({"timm_model_name": "test_vit", **TIMM}), 64, False, tmp_path / "text.safetensors")


def test_layers_that_lora_adapts(clip_folder):
    of_timm = create_clip(read_config(f"local-dir:{clip_folder}"), 64, text_tower=False).visual
    layers = [f"trunk.blocks.0.{name}" for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]
    assert adaptable_layers(of_timm)[:4] == layers
    vision = {"image_size": 64, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    own = create_clip(config_of(vision), 64, text_tower=False).visual
    assert adaptable_layers(own) == ["transformer.resblocks.0.mlp.c_fc", "transformer.resblocks.0.mlp.c_proj"]


def test_a_model_that_writes_captions_has_no_text_tower():
    with pytest.raises(ValueError, match="CoCa"):
        create_clip(read_config("coca_base"), 64, text_tower=True)
