"""Teach a frozen UNet to forget who a patient is and to keep what the patient has.

accelerate launch train/train_adapter.py --config train/configs/adapter.yaml --data_dir runs/mema

A Stable Diffusion model (1, 2 or XL, better for inpainting than not) becomes a pipeline in the same way; it brings no
structure adapter, so that one is trained along:

accelerate launch train/train_adapter.py --config train/configs/adapter.yaml --data_dir runs/mema \
    --pretrained_model_name_or_path stable-diffusion-v1-5/stable-diffusion-inpainting --gradient_checkpointing
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from backbone import load_backbone
from datasets import Dataset
from diffusers import AutoencoderKL, DDIMScheduler, T2IAdapter, UNet2DConditionModel
from diffusers.training_utils import compute_snr
from diffusers.utils.torch_utils import randn_tensor
from harness import TrainingConfig, autocast, option, parse_config, train
from masks import training_mask
from torchvision.utils import make_grid, save_image

from medeid.data.mema import load_mema
from medeid.diffusion import decode_latents, encode_images, inpaint, latent_mask, predict, prediction_target
from medeid.evaluation.privacy import rank1_rate
from medeid.faces.landmarks import LandmarkNet
from medeid.faces.mesh import LANDMARK_SIZE, draw_sketch, points5_from_mesh, scale_points
from medeid.faces.privacy import identity_mask
from medeid.identity.adapter import IdentitySuppressionAdapter
from medeid.identity.recognizer import DlibRecognizer
from medeid.manifestations.encoder import ManifestationOutput
from medeid.types import WHOLE_FACE

_SHOWN = 8  # faces in the picture of a validation
_SURROGATES = 2  # of each face in a validation


@dataclass
class AdapterConfig(TrainingConfig):
    pretrained_model_name_or_path: str = option(
        "medeid-tiny", "What stays frozen: a medeid pipeline or a Stable Diffusion model, folder or Hub id."
    )
    train_structure_adapter: bool = option(
        False, "Train the structure adapter of a pipeline, too; a new one is always trained."
    )
    swapped_share: float = option(0.5, "Share of samples that become a surrogate instead of themselves.")
    swapped_from: float = option(0.7, "Share of the noise schedule above which these are noised, to hide the source.")
    identity_dropout: float = option(0.15, "Share of the others without an identity, for classifier-free guidance.")
    identity_weight: float = option(0.1, "Weight of one minus the cosine to the surrogate.")
    suppression_weight: float = option(0.3, "Weight of what the cosine to the source exceeds its margin by.")
    suppression_margin: float = option(0.1, "Cosine to the source that is as good as any lower one.")
    manifestation_weight: float = option(0.005, "Weight of what is lost of the signs, in nats, and of their masks.")
    distilled_guidance_scale: float = option(
        1.0, "Learn to say in one pass what the start says in two at this guidance; 1: leave that out."
    )
    distillation_weight: float = option(
        20.0, "Weight of the distance to those answers, which differ little from others."
    )
    snr_gamma: float = option(5.0, "Min-SNR's bound (arXiv:2303.09556); 0: all timesteps weigh the same.")
    gradient_checkpointing: bool = option(False, "Calculate anew instead of remembering: slower, in less memory.")
    validation_images: int = option(16, "Faces of the validation split, each of another subject, to validate on.")

    def __post_init__(self):
        if self.init_from:
            raise ValueError(
                "`init_from` is not for this script: give the pipeline as `pretrained_model_name_or_path`."
            )
        if not 0.0 < self.swapped_share < 1.0:
            raise ValueError(f"`swapped_share` must lie in (0, 1), but is {self.swapped_share}: both kinds are needed.")
        for name in ("swapped_from", "identity_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"`{name}` must lie in [0, 1), but is {getattr(self, name)}.")
        for name in (
            "identity_weight",
            "suppression_weight",
            "manifestation_weight",
            "distillation_weight",
            "snr_gamma",
        ):
            if getattr(self, name) < 0.0:
                raise ValueError(f"`{name}` must not be negative, but is {getattr(self, name)}.")
        if self.distilled_guidance_scale < 1.0:
            raise ValueError(f"`distilled_guidance_scale` must be at least 1, but is {self.distilled_guidance_scale}.")
        if self.validation_images < 1:
            raise ValueError(f"`validation_images` must be at least 1, but is {self.validation_images}.")


class Patients(torch.utils.data.Dataset):
    """Face crops, each with a hole, and with the seed of all that is drawn for it later.

    Args:
        rows (`Dataset`):
            As `load_mema` loads them.
        landmark_net (`LandmarkNet`):
            Finds the landmarks where a row has none.
        size (`int`):
            Side S of the crops in px.
        seed (`int`):
            Of all draws.
        swapped_share (`float`):
            Share of samples that become somebody else. Their hole is the pipeline's own; the others' are of many kinds.
    """

    def __init__(self, rows: Dataset, landmark_net: LandmarkNet, size: int, seed: int, swapped_share: float):
        self.rows = rows.select_columns(["image", "landmarks", "labels"])
        self.landmark_net, self.size, self.seed, self.swapped_share = landmark_net, size, seed, swapped_share

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        index, position = key
        row, size = self.rows[index], self.size
        image = _resized(np.asarray(row["image"]), size)
        landmarks = self._find_landmarks(image) if row["landmarks"] is None else np.array(row["landmarks"], np.float32)
        rng = np.random.default_rng((self.seed, position))
        swapped = rng.random() < self.swapped_share
        if swapped:
            mask = identity_mask(landmarks, WHOLE_FACE, size)
        else:
            mask = cv2.resize(training_mask(landmarks, rng), (size, size), interpolation=cv2.INTER_NEAREST)
        return {
            "images": torch.tensor(image).permute(2, 0, 1),
            "masks": torch.from_numpy(mask > 0)[None],
            "sketches": torch.from_numpy(draw_sketch(landmarks, size)).permute(2, 0, 1),
            "points5": torch.from_numpy(scale_points(points5_from_mesh(landmarks), size)),
            "swapped": torch.tensor(swapped),
            "ill": torch.tensor(any(row["labels"])),
            "seeds": torch.tensor(int(rng.integers(2**63))),
        }

    @torch.no_grad()
    def _find_landmarks(self, image: np.ndarray) -> np.ndarray:
        crop = torch.tensor(_resized(image, LANDMARK_SIZE)).permute(2, 0, 1)[None] / 255.0
        return self.landmark_net(crop.to(self.landmark_net.device))[0].cpu().numpy()


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    if image.shape[0] == size:
        return image
    smaller = size < image.shape[0]
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


class AdaptedUNet(torch.nn.Module):
    """The parts that learn, as one module; the frozen UNet that they are attached to is none of its children.

    So it is neither saved in every checkpoint nor compared between processes, and stays in evaluation mode.
    """

    def __init__(
        self, unet: UNet2DConditionModel, structure_adapter: T2IAdapter, identity_adapter: IdentitySuppressionAdapter
    ):
        super().__init__()
        self.structure_adapter, self.identity_adapter = structure_adapter, identity_adapter
        self._unet = [unet]

    def forward(self, latents, timesteps, masks, masked_latents, sketches, identities, tokens):
        structure = self.structure_adapter(sketches)
        return predict(self._unet[0], structure, latents, timesteps, masks, masked_latents, identities, tokens)


class Teacher:
    """What a model said before it was trained, and in which direction an identity moves that.

    Who learns its guided answers needs no guidance, which halves the passes (Meng et al., "On Distillation of Guided
    Diffusion Models", arXiv:2210.03142).

    Args:
        model (`AdaptedUNet`):
            A copy of it is kept.
    """

    def __init__(self, model: AdaptedUNet):
        self._model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def __call__(
        self, latents, timesteps, masks, masked_latents, sketches, identities, tokens
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The prediction with the identities, and how it differs from that without; both `[B, C, H, W]`."""
        everything = [latents, timesteps, masks, masked_latents, sketches, identities, tokens]
        twice = [torch.cat([each, each]) for each in everything]
        twice[5] = torch.cat([identities, torch.zeros_like(identities)])
        told, nobody = self._model(*twice).float().chunk(2)
        return told, told - nobody

    def to(self, device: torch.device) -> None:
        self._model.to(device)
        self._model._unet[0].to(device)


def snr_weights(scheduler: DDIMScheduler, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Min-SNR weights `[B]` (Hang et al., arXiv:2303.09556) of errors of the noise or of the velocity.

    Neither form divides by the SNR where it is zero, at the end of a schedule with zero terminal SNR.
    """
    snr = compute_snr(scheduler, timesteps)
    if gamma == 0.0:
        return torch.ones_like(snr)
    if scheduler.config.prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1.0)
    return (gamma / snr).clamp(max=1.0)


def estimate_clean(
    scheduler: DDIMScheduler, noisy: torch.Tensor, output: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """The clean latents that a prediction of noise or velocity stands for."""
    share = scheduler.alphas_cumprod.to(noisy)[timesteps].view(-1, 1, 1, 1)
    signal, noise = share.sqrt(), (1.0 - share).sqrt()
    if scheduler.config.prediction_type == "v_prediction":
        return signal * noisy - noise * output
    return (noisy - noise * output) / signal


def sign_losses(after: ManifestationOutput, before: ManifestationOutput) -> dict[str, torch.Tensor]:
    """What the encoder no longer reads of N faces as it did before, each `[N]`.

    Labels: cross-entropy in nats. Tokens: Kullback-Leibler divergence of the bottlenecks' distributions in nats, in
    which only counts what is not lost in the noise that hides the person. Masks: one minus the soft Dice overlap, added
    up over the signs; one that neither shows costs nothing.
    """
    labels = F.binary_cross_entropy_with_logits(after.logits, before.logits.sigmoid(), reduction="none").sum(1)
    change = before.token_log_variance - after.token_log_variance
    distance = (after.token_mean - before.token_mean).square() * (-after.token_log_variance).exp()
    tokens = 0.5 * (change.exp() + distance - 1.0 - change).sum((1, 2))
    shown, wanted = after.mask_logits.sigmoid(), before.mask_logits.sigmoid()
    overlap, total = (shown * wanted).sum((2, 3)), (shown.square() + wanted.square()).sum((2, 3))
    masks = (1.0 - (2.0 * overlap + 1.0) / (total + 1.0)).sum(1)
    return {"labels": labels, "tokens": tokens, "masks": masks}


class AdapterTask:
    """Trains an [`IdentitySuppressionAdapter`], and a [`T2IAdapter`] where the backbone has none.

    Of each batch one part is denoised as itself. The other part is told to become somebody else: it is noised so far
    that little is seen of the source, and what the UNet makes of it in one step is looked at by a face recognizer,
    which shall find the surrogate and not the source, and by the manifestation encoder, which shall find the same
    signs. With a [`Teacher`], all of its guided answers are learned on the way, at every noise.
    """

    sample_weights = None

    def __init__(self, config: AdapterConfig):
        self.config = config
        torch.manual_seed(config.seed)
        self.pipeline, is_new = load_backbone(config.pretrained_model_name_or_path)
        self.vae, self.unet, self.scheduler = self.pipeline.vae, self.pipeline.unet, self.pipeline.scheduler
        self.encoder, self.prior = self.pipeline.manifestation_encoder, self.pipeline.surrogate_prior
        self.recognizer = DlibRecognizer()
        self._check_scheduler()
        for part in self.pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False).eval()
        self.model = AdaptedUNet(self.unet, self.pipeline.structure_adapter, self.pipeline.identity_adapter)
        self.model.identity_adapter.requires_grad_(True)
        self.model.structure_adapter.requires_grad_(is_new or config.train_structure_adapter)
        self.teacher = None
        if config.distilled_guidance_scale > 1.0:
            if is_new:
                raise ValueError(
                    "`distilled_guidance_scale` is for a pipeline of medeid: other models know no faces yet."
                )
            self.teacher = Teacher(self.model)
            self.pipeline.register_to_config(guidance_scale=1.0)
        if config.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
            if isinstance(self.vae, AutoencoderKL):  # AutoencoderDC cannot
                self.vae.enable_gradient_checkpointing()

        net, size = self.pipeline.landmark_net, self.pipeline.config.crop_size
        self.dataset = Patients(load_mema(config.data_dir, "train"), net, size, config.seed, config.swapped_share)
        rows = load_mema(config.data_dir, "validation")
        first = {subject: row for row, subject in reversed(list(enumerate(rows["subject_id"])))}
        chosen = rows.select(sorted(first.values())[: config.validation_images])
        held_out = Patients(chosen, net, size, config.seed, swapped_share=1.0)
        order = [(index, index) for index in range(len(chosen))]
        self.validation = torch.utils.data.DataLoader(held_out, config.train_batch_size, sampler=order)

    def _check_scheduler(self) -> None:
        config = self.scheduler.config
        if config.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"The scheduler's `prediction_type` is {config.prediction_type!r}; this script knows epsilon and "
                "v_prediction."
            )
        if config.prediction_type == "epsilon" and self.scheduler.alphas_cumprod[-1] == 0.0:
            raise ValueError(
                "The scheduler has zero terminal SNR (`rescale_betas_zero_snr`), at which a noise that is predicted "
                "(`prediction_type` epsilon) says nothing of the picture. Leave it out, or take a v_prediction model."
            )

    def loss(self, model, batch, generator):
        """Error of denoising, and of the surrogates: in identity, in suppression and in signs.

        All draws are by the samples' own seeds and not by `generator`, and each mean is over the expected number of
        samples: so it does not matter in how many processes a batch is.
        """
        self._follow(batch["images"].device)
        generators = [torch.Generator().manual_seed(seed) for seed in batch["seeds"].tolist()]
        images, masks, swapped = batch["images"].float() / 255.0, batch["masks"].float(), batch["swapped"]
        with torch.no_grad(), autocast(self.config, images.device):
            seen = self._see(images, generators)
            sources = self._embed(images, batch["points5"])
            latents = encode_images(self.vae, images * 2.0 - 1.0).float()
            masked_latents = encode_images(self.vae, (images * 2.0 - 1.0).masked_fill(batch["masks"], 0.0)).float()
        identities = self.draw_identities(sources, swapped, generators)
        timesteps = self.draw_timesteps(swapped, generators)
        noise = randn_tensor(latents.shape, generators, latents.device, latents.dtype)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        tokens = self.told_tokens(seen, batch)
        hole = latent_mask(masks, latents.shape[-1])
        sketches = batch["sketches"].float() / 255.0
        given = (noisy, timesteps, hole, masked_latents, sketches, identities, tokens)
        output = model(*given).float()

        target = prediction_target(self.scheduler, latents, noise, timesteps)
        parts = {}
        if self.teacher is not None:
            with autocast(self.config, images.device):
                told, direction = self.teacher(*given)
            target = torch.where(swapped[:, None, None, None], told, target)
            target = target + (self.config.distilled_guidance_scale - 1.0) * direction
        errors = (output - target).square().mean((1, 2, 3)) * snr_weights(
            self.scheduler, timesteps, self.config.snr_gamma
        )
        parts["denoising"] = errors[~swapped].sum() / (1.0 - self.config.swapped_share)
        if self.teacher is not None:
            parts["distillation"] = errors[swapped].sum() / self.config.swapped_share
        drawn = torch.nonzero(swapped & (timesteps >= self._first_hidden)).flatten()
        if len(drawn):
            estimates = estimate_clean(self.scheduler, noisy[drawn], output[drawn], timesteps[drawn])
            before = ManifestationOutput(**{name: value[drawn] for name, value in seen.items()})
            with autocast(self.config, images.device):
                results = decode_latents(self.vae, estimates).float() / 2.0 + 0.5
                results = torch.where(batch["masks"][drawn], results, images[drawn])
                judged = self.judge(results, batch["points5"][drawn], sources[drawn], identities[drawn], before)
            parts |= {name: values.sum() / self._judged_share for name, values in judged.items()}
        else:
            parts = dict.fromkeys(self.weights, output.new_zeros(())) | parts
        parts = {name: value / len(images) for name, value in parts.items()}
        weighted = {name: self.weights.get(name, 1.0) * value for name, value in parts.items()}
        return torch.stack(list(weighted.values())).sum(), weighted

    @property
    def weights(self) -> dict[str, float]:
        """Those of the losses of surrogates."""
        config = self.config
        signs = dict.fromkeys(("labels", "tokens", "masks"), config.manifestation_weight)
        taught = {} if self.teacher is None else {"distillation": config.distillation_weight}
        return {"identity": config.identity_weight, "suppression": config.suppression_weight, **signs, **taught}

    def _follow(self, device: torch.device) -> None:
        """Brings what is frozen to where the batches are, which is known no earlier when there are several GPUs."""
        if self.vae.device != device:
            self.pipeline.to(device)
            self.recognizer.to(device)
            if self.teacher is not None:
                self.teacher.to(device)

    def draw_identities(
        self, sources: torch.Tensor, swapped: torch.Tensor, generators: Sequence[torch.Generator]
    ) -> torch.Tensor:
        """Who each sample is to become `[B, D]`: a surrogate, or itself, or at times nobody."""
        chosen = []
        for source, is_swapped, generator in zip(sources, swapped.tolist(), generators, strict=True):
            if is_swapped:
                chosen.append(self.prior.draw(generator, away_from=source))
            else:
                kept = torch.rand((), generator=generator).item() >= self.config.identity_dropout
                chosen.append(source if kept else torch.zeros_like(source))
        return torch.stack(chosen)

    def draw_timesteps(self, swapped: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
        """Uniform over the schedule, or over its upper part for who is swapped and has no teacher to learn from."""
        last = self.scheduler.config.num_train_timesteps
        first = self._first_hidden if self.teacher is None else 0
        drawn = [
            torch.randint(first if is_swapped else 0, last, (), generator=generator)
            for is_swapped, generator in zip(swapped.tolist(), generators, strict=True)
        ]
        return torch.stack(drawn).to(swapped.device)

    @property
    def _first_hidden(self) -> int:
        """The timestep from which the noise hides the source."""
        return int(self.config.swapped_from * self.scheduler.config.num_train_timesteps)

    @property
    def _judged_share(self) -> float:
        """Expected share of samples that are judged."""
        return self.config.swapped_share * (1.0 if self.teacher is None else 1.0 - self.config.swapped_from)

    @staticmethod
    def told_tokens(seen: ManifestationOutput, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The tokens as they were drawn; zeros where nothing is to be kept, as in the pipeline."""
        return seen.tokens * batch["ill"].to(seen.tokens)[:, None, None]

    def judge(
        self,
        results: torch.Tensor,
        points5: torch.Tensor,
        sources: torch.Tensor,
        surrogates: torch.Tensor,
        before: ManifestationOutput,
    ) -> dict[str, torch.Tensor]:
        """How far results `[N, 3, S, S]` are from what they shall be, each `[N]`."""
        embedded = self._embed(results, points5)
        excess = F.cosine_similarity(embedded, sources) - self.config.suppression_margin
        return {
            "identity": 1.0 - F.cosine_similarity(embedded, surrogates),
            "suppression": excess.relu(),
            **sign_losses(self._see(results), before),
        }

    def _see(self, images: torch.Tensor, generators: list[torch.Generator] | None = None) -> ManifestationOutput:
        return ManifestationOutput(**{name: value.float() for name, value in self.encoder(images, generators).items()})

    def _embed(self, images: torch.Tensor, points5: torch.Tensor) -> torch.Tensor:
        """Standardised embeddings."""
        return self.prior.standardise(self.recognizer(images, points5).float())

    @torch.no_grad()
    def validate(self, model, picture, device):
        """De-identifies faces with two surrogates each, and compares them with their sources; a picture of the first.

        `rank1` is the share of results whose nearest source among these faces is their own, `source_cosine` and
        `surrogate_cosine` are means of standardised embeddings, and `signs_kept` is the share of the labels read
        before that are read afterwards. Rows of the picture: source, hole, sketch, results.
        """
        self._follow(device)
        threshold = self.encoder.threshold
        sources, surrogates, results, before, after, tiles = [], [], [], [], [], []
        for batch in self.validation:
            batch = {name: value.to(device) for name, value in batch.items()}
            generators = [torch.Generator().manual_seed(seed) for seed in batch["seeds"].tolist()]
            images = batch["images"].float() / 255.0
            seen = self.encoder(images, generators)
            source = self.recognizer(images, batch["points5"])
            rows = [images, torch.where(batch["masks"], 0.5, images), batch["sketches"] / 255.0]
            for _ in range(_SURROGATES):
                surrogate = self.draw_identities(self.prior.standardise(source), batch["swapped"], generators)
                rows.append(self._inpaint(batch, surrogate, self.told_tokens(seen, batch), generators))
                sources.append(source)
                surrogates.append(surrogate)
                results.append(self.recognizer(rows[-1], batch["points5"]))
                before.append(seen.logits.sigmoid() > threshold)
                after.append(self.encoder(rows[-1]).logits.sigmoid() > threshold)
            tiles.append(torch.stack(rows))
        shown = torch.cat(tiles, dim=1)[:, :_SHOWN].float().cpu()
        save_image(make_grid(shown.flatten(0, 1), nrow=shown.shape[1]), picture)
        source, surrogate, result, was, still = (
            torch.cat(part) for part in (sources, surrogates, results, before, after)
        )
        gallery = torch.cat(sources[::_SURROGATES])
        own = (source @ gallery.T).argmax(1)
        standardised = self.prior.standardise(result)
        lost = (was & ~still).sum() / was.sum().clamp(min=1)
        return {
            "rank1": rank1_rate(result, gallery, own),
            "source_cosine": F.cosine_similarity(standardised, self.prior.standardise(source)).mean().item(),
            "surrogate_cosine": F.cosine_similarity(standardised, surrogate).mean().item(),
            "signs_kept": 1.0 - lost.item(),
        }

    def _inpaint(
        self,
        batch: dict[str, torch.Tensor],
        identities: torch.Tensor,
        tokens: torch.Tensor,
        generators: list[torch.Generator],
    ) -> torch.Tensor:
        """Results as the pipeline draws them, in the hole alone."""
        images = batch["images"].float() / 255.0
        drawn = inpaint(
            self.vae,
            self.unet,
            self.pipeline.structure_adapter,
            self.scheduler,
            images=images,
            masks=batch["masks"].float(),
            sketches=batch["sketches"].float() / 255.0,
            identities=identities,
            num_inference_steps=self.pipeline.config.num_inference_steps,
            guidance_scale=self.pipeline.config.guidance_scale,
            tokens=tokens,
            generator=generators,
        )
        return torch.where(batch["masks"], drawn.images, images)

    def export(self, model, folder: Path) -> None:
        """Saves a whole pipeline, in half precision."""
        for part in self.pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.half()
        self.pipeline.save_pretrained(folder)


if __name__ == "__main__":
    config = parse_config(AdapterConfig, __doc__)
    train(config, AdapterTask(config))
