"""Encoding the training faces once, before the UNet's training: on a CPU the encoder would take half of its time."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from masks import training_mask
from numpy.lib.format import open_memmap
from tqdm.auto import tqdm

from medeid.data.faces import FaceFolder
from medeid.diffusion import encode_images

logger = logging.getLogger(__name__)


class LatentCache:
    """Latents of faces and of their masked versions, on disk.

    Each face has two clean latents (as it is, and flipped) and `variants` masked ones, the odd ones of them flipped.

    Attributes:
        clean (`np.ndarray`): float16 [N, 2, C, H, W].
        masked (`np.ndarray`): float16 [N, variants, C, H, W].
        masks (`np.ndarray`): uint8 [N, variants, S, S].
    """

    def __init__(self, folder: Path):
        self.clean = np.load(folder / "clean.npy", mmap_mode="r")
        self.masked = np.load(folder / "masked.npy", mmap_mode="r")
        self.masks = np.load(folder / "masks.npy", mmap_mode="r")

    @classmethod
    def build(cls, folder: Path, faces: FaceFolder, vae, variants: int, seed: int, device: torch.device) -> LatentCache:
        """Fills `folder`, or goes on with the one that a finished build left there."""
        done = folder / "done"
        if done.exists():
            return cls(folder)
        folder.mkdir(parents=True, exist_ok=True)
        size = faces.image(0).shape[0]
        side = size // vae.spatial_compression_ratio
        shape = (vae.config.latent_channels, side, side)
        n = len(faces)
        clean = open_memmap(folder / "clean.npy", "w+", np.float16, (n, 2, *shape))
        masked = open_memmap(folder / "masked.npy", "w+", np.float16, (n, variants, *shape))
        masks = open_memmap(folder / "masks.npy", "w+", np.uint8, (n, variants, size, size))
        for index in tqdm(range(n), desc="Encoding", mininterval=5.0):
            rng = np.random.default_rng((seed, index))
            image = torch.from_numpy(faces.image(index).copy()).permute(2, 0, 1).float() / 127.5 - 1.0
            pair = torch.stack([image, image.flip(-1)])
            landmarks = faces.landmarks(index)
            drawn = np.stack([training_mask(landmarks, rng, size) for _ in range(variants)])
            drawn[1::2] = drawn[1::2, :, ::-1]
            masks[index] = drawn
            holes = pair[torch.arange(variants) % 2] * (1.0 - torch.from_numpy(drawn)[:, None])
            with torch.no_grad():
                latents = encode_images(vae, torch.cat([pair, holes]).to(device)).float().cpu().numpy()
            clean[index], masked[index] = latents[:2], latents[2:]
        done.touch()
        return cls(folder)
