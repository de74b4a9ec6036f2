"""What the tests share: a real photo, the embedded model, loaded once, and a CLIP model that knows three colours."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data

from medeid import MedicalDeIDPipeline


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """uint8 [512, 512, 3]: a photo with one face, NASA, public domain."""
    photo = data.astronaut()
    photo.setflags(write=False)
    return photo


@pytest.fixture(scope="session")
def portrait(astronaut) -> Image.Image:
    return Image.fromarray(astronaut)


@pytest.fixture(scope="session")
def pipeline() -> MedicalDeIDPipeline:
    loaded = MedicalDeIDPipeline.from_pretrained("medeid-tiny")
    loaded.set_progress_bar_config(disable=True)
    return loaded


TINY_CLIP = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    """A random CLIP model in open_clip's form, with a vision transformer of timm as BiomedCLIP has.

    Only its projection is fitted, so that red, green and blue pictures are next to what is said of red, green and blue
    skin, and away from the rest.
    """
    folder = tmp_path_factory.mktemp("clip")
    (folder / "open_clip_config.json").write_text(json.dumps(TINY_CLIP))
    torch.manual_seed(0)
    clip = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")([f"a face with {c} skin" for c in ("red", "green", "blue")])
    with torch.no_grad():
        seen = clip.visual.trunk(2 * torch.eye(3)[:, :, None, None].expand(3, 3, 160, 160) - 1)
        apart = torch.linalg.pinv(clip.encode_text(tokens, normalize=True)).T
        clip.visual.head.proj.weight.copy_(torch.linalg.lstsq(seen, apart).solution.T)
        clip.logit_scale.fill_(4.6)
    save_file(clip.state_dict(), folder / "open_clip_model.safetensors")
    return folder
