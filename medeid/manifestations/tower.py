"""The CLIP model that the encoder sees with, and reads texts with: its config, its weights, its maps."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from safetensors.torch import load_file
from torch import nn

TOWERS = Path(__file__).with_name("towers")  # configs of models that open_clip does not bring
HUB, FOLDER = "hf-hub:", "local-dir:"
CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
_WITHOUT = {
    CONFIG_FILE: "so it is no model in open_clip's form",
    WEIGHTS_FILE: "and medeid does not unpickle weights. See docs/encoder.md for how to convert them",
}
_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
_NUM_BLOCKS = 4  # of a plain transformer, whose maps all have one size


def read_config(tower: str, weights: str = "") -> dict[str, Any]:
    """Config of the model that a name stands for.

    Args:
        tower (`str`):
            One of `medeid/manifestations/towers`, a model config of open_clip (`"ViT-B-16"`), or a model in open_clip's
            form on the Hub (`"hf-hub:owner/name"`) or in a folder (`"local-dir:/path"`).
        weights (`str`, *optional*):
            Tag of open_clip's weights, which say how they want the colours.

    Returns:
        `dict[str, Any]`: as in an `open_clip_config.json`: `model_cfg`, and `preprocess_cfg` with `mean` and `std`.

    Raises:
        `ValueError`: if there is no such model.
    """
    if tower.startswith((HUB, FOLDER)):
        config = json.loads(_file(tower, CONFIG_FILE).read_text())
        model, preprocessing = config["model_cfg"], config.get("preprocess_cfg", {})
    else:
        if tower not in open_clip.list_models():
            open_clip.add_model_config(TOWERS)
        model, preprocessing = open_clip.get_model_config(tower), open_clip.get_pretrained_cfg(tower, weights)
        if model is None:
            raise ValueError(
                f"`tower` must be a model that open_clip knows, but is {tower!r}: {HUB}owner/name, {FOLDER}path, or "
                f"one of {', '.join(open_clip.list_models())}."
            )
        if preprocessing:  # open_clip has models in two activations, but the weights know theirs
            model["quick_gelu"] = preprocessing.get("quick_gelu", False)
    mean = preprocessing.get("mean", open_clip.OPENAI_DATASET_MEAN)
    std = preprocessing.get("std", open_clip.OPENAI_DATASET_STD)
    return {"model_cfg": model, "preprocess_cfg": {"mean": list(mean), "std": list(std)}}


def find_weights(tower: str, weights: str = "") -> Path | None:
    """File of the model's weights, fetched from the Hub if need be; None for a plain config, whose weights are random.

    Args:
        tower (`str`):
            As for `read_config`.
        weights (`str`, *optional*):
            A safetensors file, or a tag of open_clip's weights; models of the Hub and of folders bring their own.

    Raises:
        `ValueError`: if there are no such weights, or none in safetensors.
    """
    if weights.endswith(".safetensors"):
        return Path(weights)
    if tower.startswith((HUB, FOLDER)) and not weights:
        return _file(tower, WEIGHTS_FILE)
    if not weights:
        return None
    repository, _, name = open_clip.get_pretrained_cfg(tower, weights).get("hf_hub", "").rpartition("/")
    if not repository:
        tags = [tag for model, tag in open_clip.list_pretrained() if model == tower]
        raise ValueError(
            f"`weights` of {tower} must be a .safetensors file{' or one of ' + ', '.join(tags) if tags else ''}, but "
            f"is {weights!r}."
        )
    return _file(HUB + repository, Path(name).with_suffix(".safetensors").name if name else WEIGHTS_FILE)


def _file(tower: str, name: str) -> Path:
    """A file of a model on the Hub or in a folder."""
    without = _WITHOUT.get(name, _WITHOUT[WEIGHTS_FILE])
    if tower.startswith(FOLDER):
        folder = Path(tower.removeprefix(FOLDER))
        if not (folder / name).is_file():
            raise ValueError(f"The folder {folder} has no {name}, {without}.")
        return folder / name
    try:
        return Path(hf_hub_download(tower.removeprefix(HUB), name))
    except LocalEntryNotFoundError:
        raise  # it may be there, but the Hub cannot be reached
    except EntryNotFoundError as error:
        raise ValueError(f"{tower.removeprefix(HUB)} has no {name}, {without}.") from error


def create_clip(
    config: dict[str, Any], image_size: int, text_tower: bool, weights: Path | None = None
) -> open_clip.CustomTextCLIP:
    """The model, with random weights unless a file has others.

    Args:
        config (`dict[str, Any]`):
            What `read_config` returns.
        image_size (`int`):
            Side of the crops in px. Position embeddings are resized to it.
        text_tower (`bool`):
            Whether to make the text's side, too; else it is a stub.
        weights (`Path`, *optional*):
            A safetensors file.

    Raises:
        `ValueError`: if it is to read texts, but is made to write them, or if the file has no vision tower.
    """
    model = copy.deepcopy(config["model_cfg"])
    if model.pop("multimodal_cfg", None) and text_tower:
        raise ValueError("`text_tower` cannot be had of a model that writes captions (CoCa). Take a plain CLIP model.")
    model.pop("custom_text", None)
    if "timm_model_name" in model["vision_cfg"]:
        model["vision_cfg"]["timm_model_pretrained"] = False
    else:
        model["vision_cfg"]["image_size"] = image_size
    model["text_cfg"] = {**model["text_cfg"], "hf_model_pretrained": False} if text_tower else _NO_TEXT
    clip = open_clip.CustomTextCLIP(**model)
    if weights is not None and text_tower:
        open_clip.load_checkpoint(clip, str(weights))
    elif weights is not None:
        _load_vision(clip, weights)
    if isinstance(clip.visual, TimmModel):
        clip.visual.set_input_size(image_size)
    return clip


def _load_vision(clip: open_clip.CustomTextCLIP, weights: Path) -> None:
    state = {name: value for name, value in load_file(weights).items() if name.startswith("visual.")}
    if not state:
        raise ValueError(f"{weights} has no vision tower: the names of its tensors must begin with 'visual.'.")
    open_clip.model.resize_pos_embed(state, clip)
    clip.visual.load_state_dict({name.removeprefix("visual."): value for name, value in state.items()})


def create_tokenizer(tower: str, config: dict[str, Any]) -> Any:
    """Turns texts into `[K, context_length]` tokens: open_clip's own, or one of transformers from the Hub or folder."""
    text = config["model_cfg"]["text_cfg"]
    if text.get("hf_tokenizer_name"):
        return open_clip.get_tokenizer(tower)
    return open_clip.SimpleTokenizer(context_length=text["context_length"], **text.get("tokenizer_kwargs", {}))


def map_widths(vision: Any) -> list[int]:
    """Widths of the maps that `tower_maps` returns, fine to coarse."""
    if isinstance(vision, VisionTransformer):
        return [vision.conv1.out_channels] * _NUM_BLOCKS
    if isinstance(vision, ModifiedResNet):
        stages = (vision.layer1, vision.layer2, vision.layer3, vision.layer4)
        return [vision.conv3.out_channels, *(stage[-1].conv3.out_channels for stage in stages)]
    widths = [level["num_chs"] for level in vision.trunk.feature_info]
    return widths[:1] * _NUM_BLOCKS if _num_plain_blocks(vision) else widths


def tower_maps(vision: Any, normalised: torch.Tensor) -> list[torch.Tensor]:
    """Maps `[B, C, H, W]` of a tower, fine to coarse: of its stages, or of four blocks spread over a plain transformer.

    Args:
        vision (`nn.Module`):
            A vision tower of open_clip.
        normalised (`torch.Tensor`):
            float `[B, 3, S, S]` in the tower's own range.
    """
    depth = _num_plain_blocks(vision)
    indices = [depth * (i + 1) // _NUM_BLOCKS - 1 for i in range(_NUM_BLOCKS)] if depth else None
    # The scale of a plain transformer's maps grows with depth, and a few of their channels dwarf the others.
    output = vision.forward_intermediates(
        normalised, indices, normalize_intermediates=depth > 0, intermediates_only=True
    )
    return output["image_intermediates"]


def _num_plain_blocks(vision: Any) -> int:
    """Number of blocks of a plain transformer; 0 for a tower of stages."""
    if isinstance(vision, VisionTransformer):
        return len(vision.transformer.resblocks)
    if isinstance(vision, ModifiedResNet):
        return 0
    levels = vision.trunk.feature_info
    return len(levels) if len({level["reduction"] for level in levels}) == 1 else 0


def adaptable_layers(vision: nn.Module) -> list[str]:
    """Names of the linear layers in a tower's blocks: those of attention, and the perceptrons'.

    Without attention of `nn.MultiheadAttention`, as open_clip's own transformers have it: peft adapts it only by adding
    to its weights and taking away again at every step, and what is lost to rounding adds up.
    """
    attentions = tuple(name for name, part in vision.named_modules() if isinstance(part, nn.MultiheadAttention))
    return [
        name
        for name, part in vision.named_modules()
        if isinstance(part, nn.Linear) and "blocks." in name and not name.startswith(attentions)
    ]
