"""Train the inpainting UNet, its structure adapter and its identity adapter from scratch.

accelerate launch train/train_unet.py --config train/configs/unet.yaml --data_dir FACES --vae runs/autoencoder/export
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC, DDIMScheduler, T2IAdapter, UNet2DConditionModel
from harness import TrainingConfig, autocast, option, parse_config, train
from latents import LatentCache
from torchvision.utils import make_grid, save_image

from medeid.data.faces import FaceFolder
from medeid.diffusion import inpaint, latent_mask, predict
from medeid.evaluation.privacy import embed_faces
from medeid.faces.mesh import draw_sketch, flip_landmarks, region_mask
from medeid.identity.adapter import IdentitySuppressionAdapter
from medeid.identity.recognizer import DlibRecognizer
from medeid.identity.surrogate import SurrogatePrior


@dataclass
class UNetConfig(TrainingConfig):
    vae: str = option("runs/autoencoder/export", "Folder of the trained autoencoder.")
    model_config: str = option("train/configs/medeid-tiny", "Folder with the configs of unet, adapters and scheduler.")
    variants: int = option(4, "Masked versions of each face, encoded before the training starts.")
    identity_dropout: float = option(0.15, "Share of samples without an identity, for classifier-free guidance.")
    group_power: float = option(0.5, "How far the labelled groups are evened out: 0 not at all, 1 fully.")


class MaskedFaces(torch.utils.data.Dataset):
    """Cached latents of faces with their masks, structure sketches and identities."""

    def __init__(self, folder: FaceFolder, cache: LatentCache, identities: torch.Tensor, seed: int):
        self.folder, self.cache, self.identities, self.seed = folder, cache, identities, seed

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        index, position = key
        variant = int(np.random.default_rng((self.seed, position)).integers(self.cache.masks.shape[1]))
        flipped = variant % 2
        mask = torch.from_numpy(self.cache.masks[index, variant].astype(np.float32))[None]
        landmarks = self.folder.landmarks(index)
        sketch = draw_sketch(flip_landmarks(landmarks) if flipped else landmarks, mask.shape[-1])
        latents = torch.from_numpy(self.cache.clean[index, flipped].astype(np.float32))
        return {
            "latents": latents,
            "masked_latents": torch.from_numpy(self.cache.masked[index, variant].astype(np.float32)),
            "masks": latent_mask(mask[None], latents.shape[-1])[0],
            "sketches": torch.from_numpy(sketch).permute(2, 0, 1).float() / 255.0,
            "identities": self.identities[index],
        }


class Denoiser(torch.nn.Module):
    """UNet, structure adapter and identity adapter as one trainable module."""

    def __init__(
        self, unet: UNet2DConditionModel, structure_adapter: T2IAdapter, identity_adapter: IdentitySuppressionAdapter
    ):
        super().__init__()
        identity_adapter.attach(unet)
        self.unet, self.structure_adapter = unet, structure_adapter
        # Its weights are the UNet's submodules while it is attached; as a second child they would be saved twice.
        self._identity_adapter = [identity_adapter]

    @property
    def identity_adapter(self) -> IdentitySuppressionAdapter:
        return self._identity_adapter[0]

    def forward(self, latents, timesteps, masks, masked_latents, sketches, identities):
        structure = self.structure_adapter(sketches)
        return predict(
            self.unet, structure, latents, timesteps, masks, masked_latents, identities, self.tokens(latents)
        )

    def tokens(self, latents: torch.Tensor) -> torch.Tensor | None:
        """Manifestation tokens that tell of nothing, for an adapter that attends to them."""
        tokens = self.identity_adapter.no_tokens(len(latents))
        return None if tokens is None else tokens.to(latents)


def face_embeddings(folder: FaceFolder, recognizer: DlibRecognizer, batch_size: int = 32) -> torch.Tensor:
    """The recognizer's unit embeddings float32 [N, D] of all faces of a folder."""
    found = []
    for start in range(0, len(folder), batch_size):
        rows = range(start, min(start + batch_size, len(folder)))
        crops = np.stack([folder.image(i) for i in rows])
        landmarks = np.stack([folder.landmarks(i) for i in rows])
        found.append(embed_faces(recognizer, crops, landmarks, face_only=False))
    return torch.cat(found)


class UNetTask:
    def __init__(self, config: UNetConfig):
        self.config = config
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(config.seed)
        source = Path(config.init_from or config.model_config)
        self.vae = AutoencoderDC.from_pretrained(config.vae).to(device).eval().requires_grad_(False)
        self.scheduler = DDIMScheduler.from_pretrained(Path(config.model_config) / "scheduler")
        if config.init_from:
            unet = UNet2DConditionModel.from_pretrained(source / "unet")
            structure_adapter = T2IAdapter.from_pretrained(source / "structure_adapter")
            identity_adapter = IdentitySuppressionAdapter.from_pretrained(source / "identity_adapter")
        else:
            unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(source / "unet"))
            structure_adapter = T2IAdapter.from_config(T2IAdapter.load_config(source / "structure_adapter"))
            identity_adapter = IdentitySuppressionAdapter.for_unet(unet)
        self.model = Denoiser(unet, structure_adapter, identity_adapter)

        folder = FaceFolder(config.data_dir, "train")
        self.validation = FaceFolder(config.data_dir, "validation")
        output = Path(config.output_dir)
        recognizer = DlibRecognizer()
        embeddings = self._cached_embeddings(output, folder, recognizer)
        self.prior = SurrogatePrior().fit(embeddings)
        with autocast(config, device):
            cache = LatentCache.build(output / "latents", folder, self.vae, config.variants, config.seed, device)
        self.dataset = MaskedFaces(folder, cache, self.prior.standardise(embeddings), config.seed)
        self.sample_weights = folder.group_weights(config.group_power)
        self.validation_identities = self.prior.standardise(face_embeddings(self.validation, recognizer))

    @staticmethod
    def _cached_embeddings(output: Path, folder: FaceFolder, recognizer: DlibRecognizer) -> torch.Tensor:
        path = output / "embeddings.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, face_embeddings(folder, recognizer).numpy())
        return torch.from_numpy(np.load(path))

    def loss(self, model, batch, generator):
        """Mean squared error of the v-prediction (Salimans and Ho, https://huggingface.co/papers/2202.00512)."""
        latents = batch["latents"]
        count = latents.shape[0]
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        timesteps = torch.randint(self.scheduler.config.num_train_timesteps, (count,), generator=generator)
        timesteps = timesteps.to(latents.device)
        kept = (torch.rand(count, 1, generator=generator) >= self.config.identity_dropout).to(latents)
        target = self.scheduler.get_velocity(latents, noise, timesteps)
        output = model(
            self.scheduler.add_noise(latents, noise, timesteps),
            timesteps,
            batch["masks"],
            batch["masked_latents"],
            batch["sketches"],
            batch["identities"] * kept,
        )
        squared = (output.float() - target).square()
        inside = (squared * batch["masks"]).sum() / (batch["masks"].sum() * latents.shape[1])
        return squared.mean(), {"inside": inside}

    @torch.no_grad()
    def validate(self, model, picture, device):
        """Mean absolute error inside the mask when a face is redrawn with its own identity, and a picture.

        Its rows: source, hole, sketch, redrawn with its own identity, and with three surrogates.
        """
        rows = range(0, len(self.validation), max(len(self.validation) // 8, 1))[:8]
        landmarks = [self.validation.landmarks(i) for i in rows]
        images = torch.from_numpy(np.stack([self.validation.image(i) for i in rows])).permute(0, 3, 1, 2) / 255.0
        masks = torch.from_numpy(np.stack([region_mask(points, "face") for points in landmarks]))[:, None]
        sketches = torch.from_numpy(np.stack([draw_sketch(points) for points in landmarks])).permute(0, 3, 1, 2) / 255.0
        identities = self.validation_identities[list(rows)]
        generator = torch.Generator().manual_seed(0)
        surrogates = torch.stack([self.prior.draw(generator) for _ in range(3)])
        grid = [images, images * (1 - masks) + 0.5 * masks, sketches]
        for chosen in (identities, *surrogates[:, None].expand(-1, len(images), -1)):
            generator.manual_seed(1)
            parts = [part.to(device) for part in (images, masks, sketches, chosen)]
            drawn = inpaint(
                self.vae,
                model.unet,
                model.structure_adapter,
                self.scheduler,
                *parts,
                num_inference_steps=20,
                guidance_scale=2.0,
                tokens=model.tokens(parts[0]),
                generator=generator,
            )
            grid.append(drawn.images.cpu())
        save_image(make_grid(torch.cat(grid), nrow=len(images)), picture)
        own = F.l1_loss(grid[3] * masks, images * masks) * masks.numel() / masks.sum()
        return {"own_identity_l1": own.item()}

    @torch.no_grad()
    def export(self, model, folder: Path) -> None:
        """Saves every part that was trained here, each in its folder."""
        IdentitySuppressionAdapter.detach(model.unet)
        model.unet.save_pretrained(folder / "unet")
        model.structure_adapter.save_pretrained(folder / "structure_adapter")
        model.identity_adapter.save_pretrained(folder / "identity_adapter")
        self.prior.save_pretrained(folder / "surrogate_prior")
        self.scheduler.save_pretrained(folder / "scheduler")
        model.identity_adapter.attach(model.unet)


if __name__ == "__main__":
    config = parse_config(UNetConfig, __doc__)
    train(config, UNetTask(config))
