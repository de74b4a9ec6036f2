"""What the vision tower of a CLIP model sees in pictures: features that compare with those of other papers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..manifestations.tower import FOLDER, HUB, create_clip, find_weights, read_config

_BATCH = 16


class ClipFeatures:
    """The vision tower of a CLIP model in open_clip's form.

    Distances between sets of pictures in CLIP's features depend less on what is on ImageNet than those in Inception's
    (Kynkäänniemi et al., "The Role of ImageNet Classes in Frechet Inception Distance", arXiv:2203.06026).

    Args:
        folder_or_id (`str` or `Path`):
            A folder, or a name on the Hub, with `open_clip_config.json` and `open_clip_model.safetensors`.
        device (`str` or `torch.device`, *optional*, defaults to `"cpu"`):
            A torch device.

    Raises:
        `ValueError`: there is no such model, or none in safetensors.
        `OSError`: the Hub cannot be reached.
    """

    def __init__(self, folder_or_id: str | Path, device: str | torch.device = "cpu"):
        tower = f"{FOLDER if Path(folder_or_id).is_dir() else HUB}{folder_or_id}"
        config = read_config(tower)
        self.name, self._device = Path(folder_or_id).name, device
        self._size = config["model_cfg"]["vision_cfg"].get("image_size", 224)
        clip = create_clip(config, self._size, text_tower=False, weights=find_weights(tower))
        self.network = clip.to(device).eval().requires_grad_(False)
        colours = (torch.tensor(config["preprocess_cfg"][name], device=device) for name in ("mean", "std"))
        self._mean, self._std = (each[:, None, None] for each in colours)

    @torch.no_grad()
    def __call__(self, crops: np.ndarray) -> torch.Tensor:
        """Features float32 `[N, C]`, on the CPU, of pictures uint8 `[N, S, S, 3]`, RGB, N at least 1."""
        features = []
        for start in range(0, len(crops), _BATCH):
            images = torch.from_numpy(crops[start : start + _BATCH]).permute(0, 3, 1, 2).to(self._device) / 255.0
            images = F.interpolate(images, (self._size, self._size), mode="bicubic", antialias=True)
            features.append(self.network.encode_image((images - self._mean) / self._std).float().cpu())
        return torch.cat(features)
