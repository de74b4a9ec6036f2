"""Train the autoencoder that medeid-tiny's diffusion runs in.

accelerate launch train/train_autoencoder.py --config train/configs/autoencoder.yaml --data_dir FACES

Its decoder learns textures afterwards, against a discriminator; the latents stay what they are, so that what was
trained in them keeps its worth:

accelerate launch train/train_autoencoder.py --config train/configs/decoder.yaml --data_dir FACES
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC
from discriminator import PatchDiscriminator
from harness import TrainingConfig, option, parse_config, train
from torchvision.utils import make_grid, save_image

from medeid.data.faces import FaceFolder

_COLOUR_WEIGHT = 0.1  # of a mean square that starts some forty times as large as the other errors


@dataclass
class AutoencoderConfig(TrainingConfig):
    model_config: str = option("train/configs/medeid-tiny/vae", "Folder with the model's config.json.")
    latent_noise: float = option(0.1, "Standard deviation of the noise on the latents that the decoder must undo.")
    latent_weight: float = option(1e-4, "Weight of the mean squared latent, which keeps the latents near that noise.")
    gradient_weight: float = option(1.0, "Weight of the L1 between image gradients, which keeps edges sharp.")
    chroma_weight: float = option(2.0, "Weight of the L1 between colours less their brightness: little, but seen.")
    colour_directions: bool = option(
        False, "Two directions of the latents of `init_from`, which vary least, come to tell colours; the others stay."
    )
    decoder_only: bool = option(False, "Train the decoder alone: the latents stay what they are.")
    adversarial_weight: float = option(0.0, "Weight of what a discriminator is to be told; 0: there is none.")
    matching_weight: float = option(1.0, "Weight of the discriminator's features being those of the original.")

    def __post_init__(self):
        if (self.decoder_only or self.colour_directions) and not self.init_from:
            raise ValueError("`decoder_only` and `colour_directions` need `init_from`: the autoencoder that stays.")


class Crops(torch.utils.data.Dataset):
    """Face crops float32 [3, S, S] in [-1, 1], flipped at random."""

    def __init__(self, folder: FaceFolder, seed: int):
        self.folder, self.seed = folder, seed

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        index, position = key
        image = torch.from_numpy(self.folder.image(index).copy()).permute(2, 0, 1).float() / 127.5 - 1.0
        if np.random.default_rng((self.seed, position)).random() < 0.5:
            image = image.flip(-1)
        return {"images": image}


def gradient_l1(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of the horizontal and vertical finite differences."""
    return F.l1_loss(prediction.diff(dim=-1), target.diff(dim=-1)) + F.l1_loss(
        prediction.diff(dim=-2), target.diff(dim=-2)
    )


def chroma_l1(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of RGB values less their mean, which is the brightness."""
    return F.l1_loss(prediction - prediction.mean(1, keepdim=True), target - target.mean(1, keepdim=True))


class ColourDirections:
    """Latents as they were, but in the two directions that varied least: these are to tell the mean colour of a cell.

    Skin colours lie along one line, so that an autoencoder of faces long knows no other: lips turn brown, and yellow
    turns orange. A UNet that was trained in the latents has only the two directions to learn anew.

    Args:
        vae (`AutoencoderDC`):
            As it was; a copy of its encoder is kept.
        images (`torch.Tensor`):
            float `[N, 3, S, S]` in [-1, 1]: on these directions and scales are found.
    """

    @torch.no_grad()
    def __init__(self, vae: AutoencoderDC, images: torch.Tensor):
        self.encoder = copy.deepcopy(vae.encoder).requires_grad_(False)
        self.cell = vae.spatial_compression_ratio
        latents = torch.cat([self.encoder(image[None]) for image in images]).transpose(0, 1).flatten(1)
        _, self.directions = torch.linalg.eigh(torch.cov(latents))  # those that vary least come first
        self.scale = (latents.std() / self._opponents(images).std((0, 2, 3)))[:, None, None]

    def _opponents(self, images: torch.Tensor) -> torch.Tensor:
        """Red against blue, and both against green: means of cells `[N, 2, H, W]`."""
        red, green, blue = F.avg_pool2d(images, self.cell).unbind(1)
        return torch.stack([red - blue, (red + blue) / 2 - green], 1)

    def losses(self, latents: torch.Tensor, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mean square of what has changed elsewhere, and of what is missing of the colours."""
        with torch.no_grad():
            former = self.encoder.to(images.device)(images)
        directions = self.directions.to(latents)
        told, elsewhere = (
            latents.movedim(1, -1) @ directions[:, :2],
            (latents - former).movedim(1, -1) @ directions[:, 2:],
        )
        wanted = (self._opponents(images) * self.scale.to(images)).movedim(1, -1)
        return {"elsewhere": elsewhere.square().mean(), "colours": (told - wanted).square().mean()}


class Autoencode(torch.nn.Module):
    """The autoencoder with noise on its latents (a variational one with a fixed posterior variance), and its critic."""

    def __init__(self, vae: AutoencoderDC, latent_noise: float, discriminator: PatchDiscriminator | None):
        super().__init__()
        self.vae, self.latent_noise, self.discriminator = vae, latent_noise, discriminator

    def forward(
        self, images: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        latents = self.vae.encode(images).latent
        decoded = self.vae.decode(latents + self.latent_noise * noise).sample
        return decoded, latents, {} if self.discriminator is None else self.discriminator.losses(decoded, images)


class AutoencoderTask:
    sample_weights = None

    def __init__(self, config: AutoencoderConfig):
        self.config = config
        if config.init_from:
            vae = AutoencoderDC.from_pretrained(config.init_from)
        else:
            torch.manual_seed(config.seed)
            vae = AutoencoderDC.from_config(AutoencoderDC.load_config(config.model_config))
        if config.decoder_only:
            vae.encoder.requires_grad_(False)
        discriminator = PatchDiscriminator() if config.adversarial_weight else None
        self.model = Autoencode(vae, config.latent_noise, discriminator)
        self.dataset = Crops(FaceFolder(config.data_dir, "train"), config.seed)
        self.validation = FaceFolder(config.data_dir, "validation")
        self.directions = None
        if config.colour_directions:
            rows = np.linspace(0, len(self.dataset) - 1, min(64, len(self.dataset))).astype(int)
            images = torch.stack([self.dataset[index, index]["images"] for index in rows.tolist()])
            self.directions = ColourDirections(vae, images)

    def _latent_shape(self, images: torch.Tensor) -> tuple[int, int, int, int]:
        vae = self.model.vae
        side = images.shape[-1] // vae.spatial_compression_ratio
        return images.shape[0], vae.config.latent_channels, side, side

    def loss(self, model, batch, generator):
        images = batch["images"]
        noise = torch.randn(self._latent_shape(images), generator=generator).to(images)
        decoded, latents, judged = model(images, noise)
        l1 = F.l1_loss(decoded, images)
        chroma = chroma_l1(decoded, images)
        power = latents.square().mean()
        total = l1 + self.config.gradient_weight * gradient_l1(decoded, images) + self.config.latent_weight * power
        total = total + self.config.chroma_weight * chroma
        if self.directions is not None:
            moved = self.directions.losses(latents, images)
            total = total + moved["elsewhere"] + _COLOUR_WEIGHT * moved["colours"]
            judged = {**judged, **moved}
        if self.config.adversarial_weight:
            total = total + self.config.adversarial_weight * (
                judged["adversarial"] + self.config.matching_weight * judged["matching"] + judged["discriminator"]
            )
        return total, {"l1": l1, "chroma": chroma, "latent_power": power, **judged}

    def _validation_batches(self, size: int = 8):
        for start in range(0, len(self.validation), size):
            stop = min(start + size, len(self.validation))
            images = np.stack([self.validation.image(i) for i in range(start, stop)])
            yield torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0

    @torch.no_grad()
    def validate(self, model, picture, device):
        """PSNR in dB over the validation split, colour error, spread of the latents; originals over reconstructions."""
        psnr, power, chroma = [], [], []
        for batch, images in enumerate(self._validation_batches()):
            images = images.to(device)
            latents = model.vae.encode(images).latent
            decoded = model.vae.decode(latents).sample.clamp(-1, 1)
            psnr.append(-10 * torch.log10((decoded - images).div(2).square().mean(dim=(1, 2, 3))))
            power.append(latents.square().mean())
            chroma.append(chroma_l1(decoded, images))
            if batch == 0:
                save_image(make_grid(torch.cat([images, decoded]).add(1).div(2), nrow=8), picture)
        return {
            "psnr": torch.cat(psnr).mean().item(),
            "chroma_l1": torch.stack(chroma).mean().item(),
            "latent_std": torch.stack(power).mean().sqrt().item(),
        }

    @torch.no_grad()
    def export(self, model, folder: Path) -> None:
        """Saves the autoencoder, with the scaling factor that gives its latents unit variance."""
        if not (self.config.decoder_only or self.config.colour_directions):
            latents = torch.cat([model.vae.encode(images).latent for images in self._validation_batches()])
            model.vae.register_to_config(scaling_factor=1.0 / latents.std().item())
        model.vae.save_pretrained(folder)


if __name__ == "__main__":
    config = parse_config(AutoencoderConfig, __doc__)
    train(config, AutoencoderTask(config))
