"""`MedicalDeIDPipeline`: from a photo of a patient to a photo of nobody, top to bottom."""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC, AutoencoderKL, DiffusionPipeline, T2IAdapter, UNet2DConditionModel
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  diffusers looks here, see `load_config`
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from PIL import Image

from .diffusion import Inpainted, check_backbone, inpaint
from .face_state import FaceState, Seen, name_patients
from .faces.alignment import box_points5, crop_face, crop_mask, ffhq_matrix, invert, matrix_scale, transform_points
from .faces.compositing import blurred_face, match_colour, paste_face, project_mask, warped_mask
from .faces.detection import (
    CenterFaceDetector,
    Detections,
    FaceDetector,
    RetinaFaceDetector,
    detect_faces,
    shows_face,
)
from .faces.landmarks import LandmarkNet
from .faces.mesh import (
    LANDMARK_SIZE,
    draw_sketch,
    flip_landmarks,
    points5_from_mesh,
    scale_points,
)
from .faces.privacy import fitted_mask, identity_mask
from .faces.shape import ShapePrior
from .hub import DOWNLOAD_OPTIONS, UPLOAD_OPTIONS, check_weights, download_pipeline, upload_pipeline, write_code
from .identity.adapter import IdentitySuppressionAdapter
from .identity.recognizer import Recognizer, load_recognizers
from .identity.surrogate import SurrogateIdentity, SurrogatePrior
from .manifestations.channels import (
    keep_appearance,
    keep_colour,
    keep_geometry,
    keep_shape,
    plan_preservation,
    touched_features,
)
from .manifestations.encoder import ManifestationEncoder
from .manifestations.feedback import correct_colour, correct_shape
from .manifestations.taxonomy import Finding, parse_sign
from .photos import OutputType, Photo, PhotoInput, open_mask
from .records import (
    AttemptRecord,
    FaceManifestations,
    FaceRecord,
    MedicalDeIDPipelineOutput,
    NoFaceFoundError,
    PhotoRecord,
    UnsureFaceError,
    VerificationError,
)
from .switches import SpeedSwitches, on_one_device
from .threads import in_threads
from .types import MAX_ATTEMPTS, WHOLE_FACE, FaceBox, OnFail

PACKAGED_WEIGHTS = Path(__file__).parent / "weights"
DRAWING = ("vae", "unet", "structure_adapter", "identity_adapter")  # the components that draw the new face
FACE_BATCH_SIZE = 16  # faces that go through the UNet together; memory stays bounded however many are in a call
# Of a surrogate to its source, by how often the source was recognised: first of its kind, then further away. Each time
# the guidance away from the source grows, too. Beyond 1 it spoils faces.
MAX_COSINES = (0.15, -0.25, -0.5)
SUPPRESSION = (0.0, 0.5, 1.0)
MAX_DRAWS = 3  # of a surrogate whose face the UNet finds unlikely
# Under a key: after how many tries that failed by signs a patient becomes a relative of who it is in its other photos,
# after how many more a more distant one, and at last somebody else; and the cosines of these to the first.
FIRST_TRIES, FURTHER_TRIES = 6, 2
KINSHIP = (1.0, 0.7, 0.4, 0.0)
Preserve = Literal["auto", "none"] | Sequence[str]  # the signs that are to be preserved
SHAPE_ROUNDS = 2  # in which the shape of a face is set: in the first, and by what is missed after it
SIGN_ABSENT = 0.25  # of a sign's threshold: what is less probable is taken for absent, and not for a close call


def find_model(pretrained_model_name_or_path: str | Path, **hub: Any) -> Path:
    """The folder of a pipeline: `"medeid-tiny"` in the package, one of your own, or a repository's in the Hub's cache.

    Args:
        pretrained_model_name_or_path (`str` or `Path`):
            What it is called.
        hub:
            For [`download_pipeline`], where it is a repository.

    Raises:
        `OSError`: it is not there, not for whoever asks, or damaged; which of these, and what to do, is in the message.
    """
    path = Path(pretrained_model_name_or_path)
    packaged = PACKAGED_WEIGHTS / path
    if path.is_dir():
        return path
    if len(path.parts) == 1 and packaged.is_dir():
        return packaged
    return download_pipeline(str(pretrained_model_name_or_path), **hub)


class MedicalDeIDPipeline(SpeedSwitches, DiffusionPipeline):
    """De-identifies the faces in photos: each is replaced by that of a surrogate, a person who does not exist.

    Args:
        vae (`AutoencoderDC` or `AutoencoderKL`):
            Encodes crops to latents and back.
        unet (`UNet2DConditionModel`):
            Of Stable Diffusion 1, 2 or XL, or of medeid-tiny. Into an inpainting UNet go noisy latents, mask and
            latents of the masked image, into another one the noisy latents alone (see [`inpaint`]).
        scheduler (`SchedulerMixin`):
            Any diffusers scheduler that fits the UNet's prediction type.
        structure_adapter (`T2IAdapter`):
            Turns the sketch of the dense landmarks into features for the UNet, which draws the face along its lines.
        identity_adapter (`IdentitySuppressionAdapter`):
            Lets the UNet attend to the surrogate identity.
        surrogate_prior (`SurrogatePrior`):
            The distribution that surrogates are drawn from.
        landmark_net (`LandmarkNet`):
            Finds the dense landmarks.
        shape_prior (`ShapePrior`):
            The distribution of face shapes, which the surrogates' shapes are drawn from.
        manifestation_encoder (`ManifestationEncoder`):
            Reads the signs of disease.
        crop_size (`int`, *optional*, defaults to 256):
            Side of the aligned crop in pixels.
        num_inference_steps (`int`, *optional*, defaults to 12):
            Denoising steps when a call does not say.
        guidance_scale (`float`, *optional*, defaults to 2.0):
            Guidance towards the surrogate when a call does not say.
        identity_guidance_scale (`float`, *optional*, defaults to 0.0):
            Guidance away from the source identity when a call does not say.
        max_denoising_error (`float`, *optional*):
            A new face of which the UNet itself thinks worse (see [`denoising_errors`]) is drawn again from other noise,
            and of three the likeliest is taken. None leaves that out.
    """

    model_cpu_offload_seq = "landmark_net->manifestation_encoder->structure_adapter->unet->vae"
    _exclude_from_cpu_offload = ["surrogate_prior", "identity_adapter", "shape_prior"]
    _callback_tensor_inputs = ["latents"]

    def __init__(
        self,
        vae: AutoencoderDC | AutoencoderKL,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        structure_adapter: T2IAdapter,
        identity_adapter: IdentitySuppressionAdapter,
        surrogate_prior: SurrogatePrior,
        landmark_net: LandmarkNet,
        shape_prior: ShapePrior,
        manifestation_encoder: ManifestationEncoder,
        crop_size: int = 256,
        num_inference_steps: int = 12,
        guidance_scale: float = 2.0,
        identity_guidance_scale: float = 0.0,
        max_denoising_error: float | None = None,
    ):
        super().__init__()
        check_backbone(vae, unet)
        self.register_modules(
            vae=vae,
            unet=unet,
            scheduler=scheduler,
            structure_adapter=structure_adapter,
            identity_adapter=identity_adapter,
            surrogate_prior=surrogate_prior,
            landmark_net=landmark_net,
            shape_prior=shape_prior,
            manifestation_encoder=manifestation_encoder,
        )
        self.register_to_config(
            crop_size=crop_size,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            identity_guidance_scale=identity_guidance_scale,
            max_denoising_error=max_denoising_error,
        )
        identity_adapter.attach(unet)
        self._detectors: list[FaceDetector] | None = None
        self._recognizers: list[Recognizer] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled for another process, which finds the detectors by itself: OpenCV's networks cannot go."""
        return self.__dict__ | {"_detectors": None}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> MedicalDeIDPipeline:
        """Loads a pipeline: `"medeid-tiny"` from the package, a folder, or a repository on the Hub.

        Weights are read from safetensors only, and no code from where they are. From the Hub come only the files that
        are needed, and what is in its cache already is not asked for again.

        Args:
            pretrained_model_name_or_path (`str` or `Path`):
                What it is called.
            kwargs:
                `revision`, `cache_dir`, `token`, `local_files_only` and `force_download` for the Hub, and what
                `DiffusionPipeline.from_pretrained` takes besides, components among it. A `torch_dtype` is that of what
                draws; what looks at faces stays in float32, which half precision would make less exact.

        Returns:
            `MedicalDeIDPipeline`

        Raises:
            `OSError`: it is not there, not for whoever asks, damaged, or not in safetensors.
        """
        hub = {key: kwargs.pop(key) for key in DOWNLOAD_OPTIONS if key in kwargs}
        path = find_model(pretrained_model_name_or_path, variant=kwargs.get("variant"), given=tuple(kwargs), **hub)
        check_weights(path, given=tuple(kwargs))
        for name in ("torch_dtype", "dtype"):
            if isinstance(kwargs.get(name), torch.dtype):
                kwargs[name] = dict.fromkeys(DRAWING, kwargs[name]) | {"default": torch.float32}
        pipeline = super().from_pretrained(str(path), use_safetensors=True, **kwargs)
        pipeline.manifestation_encoder.fuse_batch_norms()
        return pipeline

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """As of any diffusers class, but medeid's own models are those of the installed package.

        Code of the same name may lie beside the weights, for those who load by `DiffusionPipeline` (see
        [`write_code`]). diffusers would run that instead, if it was allowed to.
        """
        config = super().load_config(*args, **kwargs)
        for name, value in config.items():
            if isinstance(value, list) and value and str(value[0]).startswith("medeid."):
                config[name] = [__name__, value[1]]
        return config

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Saves every component in its own folder; the UNet's is that of a plain UNet.

        Args:
            save_directory (`str` or `Path`):
                The folder, made if it is not there.
            push_to_hub (`bool`, *optional*, defaults to `False`):
                Whether to upload it, too, under `repo_id` or the folder's name.
            kwargs:
                Of `DiffusionPipeline.save_pretrained`, and of [`push_to_hub`].
        """
        folder = Path(save_directory)
        upload = {"repo_id": folder.name} | {key: kwargs.pop(key) for key in UPLOAD_OPTIONS if key in kwargs}
        with self._plain_unet():
            super().save_pretrained(folder, **kwargs)
        write_code(folder)
        if push_to_hub:
            upload_pipeline(folder, source=self._source, **upload)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Uploads a whole repository: every component as safetensors, model card with pictures, licence.

        The card of the folder that the pipeline was loaded from goes along while the weights are the same. Else one is
        written that claims nothing, unless the repository has a card.

        Args:
            repo_id (`str`):
                Of the repository, `"org/name"`; made if it is not there.
            kwargs:
                `commit_message`, `private` (`True` unless you say otherwise, for a repository that is new), `token` and
                `create_pr` for the Hub, and what [`save_pretrained`] takes besides, such as `variant`.

        Returns:
            `str`: the address of the commit.
        """
        upload = {key: kwargs.pop(key) for key in UPLOAD_OPTIONS if key in kwargs}
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, **kwargs)
            return upload_pipeline(Path(folder), repo_id, source=self._source, **upload)

    @property
    def _source(self) -> Path | None:
        """The folder that it was loaded from."""
        return Path(self.name_or_path) if self.name_or_path else None

    @property
    def detectors(self) -> list[FaceDetector]:
        """The face detectors, whose findings are united: CenterFace, and RetinaFace where its weights are on disk."""
        if self._detectors is None:
            self._detectors = [CenterFaceDetector()]
            if RetinaFaceDetector.available():
                self._detectors.append(RetinaFaceDetector())
        return self._detectors

    @property
    def recognizers(self) -> list[Recognizer]:
        """The face recognizers that verify a result; dlib's is also the one whose embeddings are drawn from."""
        if self._recognizers is None:
            self._recognizers = load_recognizers()
        for recognizer in self._recognizers:
            if isinstance(recognizer, torch.nn.Module):
                recognizer.to(self._execution_device)
        return self._recognizers

    def check_inputs(
        self,
        images,
        boxes,
        num_inference_steps,
        guidance_scale,
        identity_guidance_scale,
        privacy,
        generator,
        output_type,
        max_attempts,
        on_fail,
        manifestation_mask,
    ):
        if not images:
            raise ValueError("`image` is an empty list; give at least one photo.")
        if boxes is not None and len(boxes) != len(images):
            raise ValueError(
                f"`boxes` has {len(boxes)} entries for {len(images)} photos; give a list of boxes a photo."
            )
        if manifestation_mask is not None and len(manifestation_mask) != len(images):
            raise ValueError(
                f"`manifestation_mask` is a list of {len(manifestation_mask)} for {len(images)} photos; give one for "
                "each, and None where there is none."
            )
        if isinstance(generator, list) and len(generator) != len(images):
            raise ValueError(f"`generator` is a list of {len(generator)} for {len(images)} photos; give one for each.")
        if num_inference_steps < 1:
            raise ValueError(f"`num_inference_steps` must be at least 1, got {num_inference_steps}.")
        if guidance_scale < 1.0:
            raise ValueError(f"`guidance_scale` must be at least 1 (no guidance), got {guidance_scale}.")
        if identity_guidance_scale < 0.0:
            raise ValueError(f"`identity_guidance_scale` must not be negative, got {identity_guidance_scale}.")
        if not 0.0 < privacy <= 1.0:
            raise ValueError(f"`privacy` must lie in (0, 1], got {privacy}; 0.75 replaces the face, 1 the head.")
        if output_type not in (None, "pil", "np", "pt"):
            raise ValueError(f"`output_type` must be None, 'pil', 'np' or 'pt', got {output_type!r}.")
        if max_attempts < 1:
            raise ValueError(f"`max_attempts` must be at least 1, got {max_attempts}.")
        if on_fail not in get_args(OnFail):
            raise ValueError(f"`on_fail` must be 'withhold' or 'blur', got {on_fail!r}.")

    @torch.no_grad()
    @on_one_device
    def __call__(
        self,
        image: PhotoInput | Sequence[PhotoInput],
        boxes: Sequence[Sequence[FaceBox]] | None = None,
        preserve: Preserve = "auto",
        manifestation_mask: PhotoInput | Sequence[PhotoInput | None] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        identity_guidance_scale: float | None = None,
        privacy: float = WHOLE_FACE,
        generator: torch.Generator | list[torch.Generator] | None = None,
        surrogate_identity: SurrogateIdentity | None = None,
        pseudonym: str | Sequence[str | None] | None = None,
        max_attempts: int = MAX_ATTEMPTS,
        on_fail: OnFail = "withhold",
        output_type: OutputType | None = None,
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, torch.Tensor, dict], dict] | None = None,
    ) -> MedicalDeIDPipelineOutput | tuple:
        """De-identifies every face in one photo or several.

        Args:
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, or a list of them):
                Photos, see [`Photo.open`].
            boxes (`list[list[FaceBox]]`, *optional*):
                The faces of each photo, instead of detection.
            preserve (`str` or `list[str]`, *optional*, defaults to `"auto"`):
                The signs that are to be preserved: `"auto"` for those that the encoder finds, `"none"`, or a list of
                names of the taxonomy (`"rosacea"`, `"ptosis:left"`), whether the encoder finds them or not.
            manifestation_mask (`PIL.Image.Image`, `np.ndarray`, or a list of them, *optional*):
                Drawn by hand, of the upright photo's size, black and white ([`open_mask`]): what is not black stays
                on top, for signs that the encoder does not know. One for each photo, or None for it.
            num_inference_steps (`int`, *optional*):
                Denoising steps; by default the pipeline's own.
            guidance_scale (`float`, *optional*):
                Guidance towards the surrogate; by default the pipeline's own.
            identity_guidance_scale (`float`, *optional*):
                Suppression guidance, away from the source identity: see [`inpaint`]. By default the pipeline's own.
            privacy (`float`, *optional*, defaults to 0.75):
                How much of what tells a person is replaced, in (0, 1]: below 0.75 the eyes are spared (for
                ophthalmology; more faces fail the checks), above it hairline and ears come along, and at 1 the whole
                head. See [`identity_mask`].
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*):
                Draws the surrogates and the noise, so that the result can be repeated; one, or one for each photo.
                Without it they come from the system's randomness.
            surrogate_identity (`SurrogateIdentity`, *optional*):
                Holds the secret key under which a patient with a pseudonym always becomes the same person.
            pseudonym (`str` or `list[str]`, *optional*):
                What the patient is called in the study; one, or one for each photo (or None). It is the photo's largest
                face; others get surrogates of their own. It goes nowhere but into the seed.
            max_attempts (`int`, *optional*, defaults to 12):
                How many surrogates are tried for a face that does not pass the checks: no recognizer takes it for the
                source, no sign that is to be preserved is lost and none has come up that was not there (unless
                `preserve` is `"none"`), and a detector finds a face.
            on_fail (`str`, *optional*, defaults to `"withhold"`):
                What becomes of a photo with a face that no surrogate passed for: `"withhold"` raises
                [`VerificationError`]; `"blur"` blurs that face beyond recognition, signs and all.
            output_type (`str`, *optional*):
                `"pil"`, `"np"` or `"pt"`; by default that of the input.
            return_dict (`bool`, *optional*, defaults to `True`):
                Whether to return a [`MedicalDeIDPipelineOutput`] instead of a tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called as `callback(pipeline, step, timestep, {"latents": latents})`; may return a dict with `latents`.

        Returns:
            [`MedicalDeIDPipelineOutput`], or `(images, records, masks)`.

        Raises:
            NoFaceFoundError: a photo has no face; nothing is returned.
            VerificationError: a face did not pass the checks; nothing is returned.
            UnsureFaceError: the same, where there may be one more face than those that were found.
            UnknownManifestationError: a name in `preserve` is not in the taxonomy; the message lists the nearest.
            ValueError: an argument is off.
        """
        began = time.monotonic()

        # 1. Check the inputs
        images = _as_list(image)
        if manifestation_mask is not None:
            manifestation_mask = _as_list(manifestation_mask)
        num_inference_steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        guidance_scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        if identity_guidance_scale is None:
            identity_guidance_scale = self.config.identity_guidance_scale
        self.check_inputs(
            images,
            boxes,
            num_inference_steps,
            guidance_scale,
            identity_guidance_scale,
            privacy,
            generator,
            output_type,
            max_attempts,
            on_fail,
            manifestation_mask,
        )
        pseudonyms = _pseudonyms(pseudonym, surrogate_identity, len(images))
        listed = _listed_signs(preserve)
        photos = [Photo.open(each) for each in images]
        drawn = [
            None if mask is None else open_mask(mask, photo.rgb.shape[:2])
            for mask, photo in zip(manifestation_mask or [None] * len(photos), photos, strict=True)
        ]

        # 2. Find the faces, cut them out, find their landmarks
        records, faces = self.find_faces(photos, boxes, privacy)
        for index, record in enumerate(records):
            if any(candidate.unsure for candidate in record.rejected):
                record.status = "withheld"
                raise UnsureFaceError(index, records)
        name_patients(faces, pseudonyms)

        # 3. Hide from the UNet every face in every crop, its own and its neighbours'
        self.mark_holes(faces)

        # 4. Read the signs of disease, and decide what of them is to stay
        generators = generator if isinstance(generator, list) else [generator] * len(photos)
        self.read_manifestations(
            faces, [self.draw_seed(face, generators[face.photo], surrogate_identity) for face in faces]
        )
        self.plan_preservation(faces, listed, drawn)

        # 5. Embed the source identities
        self.embed_sources(faces)

        # 6. Draw surrogates, generate, paste back and verify; faces that fail get another surrogate
        pasted: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        failed = faces
        for _ in range(max_attempts):
            surrogates = torch.stack(
                [self.draw_surrogate(face, generators[face.photo], surrogate_identity) for face in failed]
            )
            self.generate(
                failed, surrogates, num_inference_steps, guidance_scale, identity_guidance_scale, callback_on_step_end
            )
            self.keep_shapes([face for face in failed if face.preserved.posed])
            self.fit_masks(failed, privacy)
            self.match_tones(failed)
            pasted |= self.paste_all(photos, faces, failed)
            failed = self.verify(failed, pasted)
            if not failed:
                break
        if failed and on_fail == "blur":
            pasted |= self.blur(photos, faces, failed)
            failed = self.verify_blurred(failed, pasted)
        for face in faces:
            face.record.manifestations = face.compare_signs(self.manifestation_encoder.config.labels)
        for record in records:
            record.seconds = (time.monotonic() - began) / len(photos)
            if any(face.blurred for face in record.faces):
                record.status = "blurred"
        if failed:
            for face in failed:
                records[face.photo].status = "withheld"
            raise VerificationError(failed[0].photo, failed[0].record.attempts[-1].failed[0], records)

        # 7. Give each photo back in the form it came in
        outputs = [photo.restore(*pasted[index], output_type) for index, photo in enumerate(photos)]
        masks = [mask for _, (_, mask) in sorted(pasted.items())]
        self.maybe_free_model_hooks()
        if not return_dict:
            return outputs, records, masks
        return MedicalDeIDPipelineOutput(images=outputs, records=records, masks=masks)

    @torch.no_grad()
    @on_one_device
    def draw_faces(
        self,
        count: int,
        generator: torch.Generator,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> list[Image.Image]:
        """Draws whole portraits of people who do not exist, from nothing but noise, a drawn shape and a drawn identity.

        Args:
            count (`int`):
                How many.
            generator (`torch.Generator`):
                A generator on the CPU.
            num_inference_steps (`int`, *optional*):
                Denoising steps; by default the pipeline's own.
            guidance_scale (`float`, *optional*):
                Guidance towards the identities; by default the pipeline's own.

        Returns:
            `list[PIL.Image.Image]`: RGB, of the crop's size.
        """
        size = self.config.crop_size
        shapes = [self.shape_prior.draw(generator).numpy() for _ in range(count)]
        identities = torch.stack([self.surrogate_prior.draw(generator) for _ in range(count)])
        drawn = inpaint(
            self.vae,
            self.unet,
            self.structure_adapter,
            self.scheduler,
            images=torch.zeros(count, 3, size, size).to(self._like),
            masks=torch.ones(count, 1, size, size).to(self._like),
            sketches=self._to_tensor([draw_sketch(shape, size) for shape in shapes]),
            identities=identities.to(self._like),
            num_inference_steps=num_inference_steps or self.config.num_inference_steps,
            guidance_scale=guidance_scale or self.config.guidance_scale,
            tokens=self.identity_adapter.no_tokens(count),
            generator=generator,
        )
        return [Image.fromarray(pixels) for pixels in _to_pixels(drawn.images)]

    def find_faces(
        self, photos: list[Photo], boxes: Sequence[Sequence[FaceBox]] | None, privacy: float = WHOLE_FACE
    ) -> tuple[list[PhotoRecord], list[FaceState]]:
        """Detects the faces (or takes the given boxes), aligns them by dense landmarks, and cuts them out."""
        records: list[PhotoRecord] = []
        found: list[tuple[int, FaceBox, FaceRecord]] = []
        if boxes is None:
            detectors = self.detectors
            detections = in_threads(lambda photo: detect_faces(photo.rgb, detectors), photos)
        else:
            detections = [Detections(list(given), []) for given in boxes]
        for index, seen in enumerate(detections):
            if not seen.faces:
                raise NoFaceFoundError(index, seen.rejected)
            told = [FaceRecord(box.box, box.score, box.detector) for box in seen.faces]
            records.append(PhotoRecord("released", told, seen.rejected))
            found += [(index, box, record) for box, record in zip(seen.faces, told, strict=True)]

        # The five points of a detector are rough: they give a first crop, whose dense landmarks give the final one.
        points5 = [box_points5(box) for _, box, _ in found]
        for _ in range(2):
            crops = [
                crop_face(photos[index].rgb, ffhq_matrix(points, self.config.crop_size), self.config.crop_size)
                for (index, _, _), points in zip(found, points5, strict=True)
            ]
            landmarks = self.find_landmarks([crop.image for crop in crops])
            points5 = [
                transform_points(points, invert(crop.matrix))
                for points, crop in zip(self._crop_points5(landmarks), crops, strict=True)
            ]
        faces = []
        for (index, _, record), crop, points in zip(found, crops, landmarks, strict=True):
            mask = identity_mask(points, privacy, crop.size)
            hole = (mask > 0).astype(np.float32)
            faces.append(FaceState(index, record, crop, points, mask, hole, np.zeros_like(hole)))
        return records, faces

    @torch.no_grad()
    def find_landmarks(self, crops: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Dense landmarks float32 [N, 478, 3] of crops uint8 [S, S, 3], in pixels of a 256 px crop."""
        found = []
        for start in range(0, len(crops), FACE_BATCH_SIZE):  # as floats, all crops of a set would take much memory
            batch = self._to_tensor(crops[start : start + FACE_BATCH_SIZE], self.landmark_net.dtype)
            if batch.shape[-1] != LANDMARK_SIZE:
                batch = F.interpolate(batch, size=LANDMARK_SIZE, mode="bilinear", antialias=True)
            found.append(self.landmark_net(batch))
        return torch.cat(found).float().cpu().numpy()

    def mark_holes(self, faces: list[FaceState]) -> None:
        """Widens each hole by the neighbours' faces where they reach into the crop, so that no network sees those."""
        for face in faces:
            for other in faces:
                if other is not face and other.photo == face.photo:
                    reach = project_mask(other.mask, other.crop.matrix, face.crop.matrix, face.crop.size)
                    face.neighbours = np.maximum(face.neighbours, (reach > 0).astype(np.float32))
            face.hole = np.maximum(face.hole, face.neighbours)

    @torch.no_grad()
    @on_one_device
    def encode_manifestations(
        self, image: PhotoInput | Sequence[PhotoInput], boxes: Sequence[Sequence[FaceBox]] | None = None
    ) -> list[list[FaceManifestations]]:
        """Reads the signs of disease on every face, without changing any.

        Args:
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, or a list of them):
                Photos, see [`Photo.open`].
            boxes (`list[list[FaceBox]]`, *optional*):
                The faces of each photo, instead of detection.

        Returns:
            `list[list[FaceManifestations]]`: for each photo one of each face. A mask can be changed by hand and given
            as `manifestation_mask`.

        Raises:
            NoFaceFoundError: a photo has no face.
            ValueError: an argument is off.
        """
        photos = [Photo.open(each) for each in _as_list(image)]
        _, faces = self.find_faces(photos, boxes)
        self.read_manifestations(faces, [self.draw_seed(face) for face in faces])
        told: list[list[FaceManifestations]] = [[] for _ in photos]
        for face in faces:
            shape = photos[face.photo].rgb.shape
            readings = face.seen.readings
            masks = {}
            for reading in readings:
                mask = face.seen.mask(reading.manifestation, reading.side)
                mask = cv2.resize(mask.astype(np.float32), (face.crop.size, face.crop.size))
                masks[reading.label] = (
                    warped_mask(mask, face.crop.matrix, shape) > 0.5 if mask.any() else np.zeros(shape[:2], bool)
                )
            told[face.photo].append(FaceManifestations(face.record.box, readings, masks, face.seen.tokens))
        return told

    def see(self, crops: list[np.ndarray], generators: list[torch.Generator] | None = None) -> list[Seen]:
        """What the encoder reads of crops uint8 [S, S, 3]. Whose tokens are used needs a generator of their noise."""
        seen: list[Seen] = []
        for batch in self._to_tensor(crops, self.manifestation_encoder.dtype).split(FACE_BATCH_SIZE):
            rows = slice(len(seen), len(seen) + len(batch))
            output = self.manifestation_encoder(batch, None if generators is None else generators[rows])
            parts = (output.logits.sigmoid(), output.severities, output.mask_logits > 0)
            arrays = [part.float().cpu().numpy() for part in parts]
            readings = self.manifestation_encoder.readings(output)
            seen += [Seen(*row) for row in zip(readings, *arrays, output.tokens, strict=True)]
        return seen

    def read_manifestations(self, faces: list[FaceState], seeds: Sequence[int]) -> None:
        """Reads the signs of disease in the source crops; the seeds are of the noise in each face's tokens."""
        noise = [torch.Generator().manual_seed(seed) for seed in seeds]
        for face, seen in zip(faces, self.see([face.crop.image for face in faces], noise), strict=True):
            face.seen = seen

    def plan_preservation(
        self, faces: list[FaceState], listed: list[Finding] | None, drawn: list[np.ndarray | None]
    ) -> None:
        """Decides what of each face is to stay: by the listed signs (None: those found) and by hand-drawn masks."""
        listed_labels = {label for finding in listed or () for label in finding.labels}
        for face in faces:
            marked = drawn[face.photo]
            if marked is not None:
                marked = crop_mask(marked, face.crop.matrix, face.crop.size)
            found = [parse_sign(reading.label) for reading in face.seen.readings]
            findings = sum(found, ()) if listed is None else listed
            plan = plan_preservation(findings, face.seen.masks, face.landmarks, face.crop.size, marked)
            if listed == []:
                plan = replace(plan, areas=())
            # Around the mask all stays anyhow, and what belongs to a neighbour's face is not this one's to keep.
            own = face.mask * (1.0 - face.neighbours)
            spared = touched_features(face.mask < 0.5, face.landmarks)
            face.preserved = replace(
                plan,
                skin=np.minimum(plan.skin, own),
                eyes=np.minimum(plan.eyes, own),
                held=plan.held | spared,
            )
            face.wanted = face.seen.claimed if listed is None else listed_labels
            face.keeps_signs = listed != []

    def embed(self, recognizer: Recognizer, images: list[np.ndarray], points5: np.ndarray) -> torch.Tensor:
        """Unit embeddings [N, D] of crops uint8 [S, S, 3] with five points [N, 5, 2]."""
        batch = self._to_tensor(images, torch.float32)
        return recognizer(batch, torch.from_numpy(points5).to(batch))

    def embed_sources(self, faces: list[FaceState]) -> None:
        """Embeds the source faces, and their mirror images to know what one and the same face scores."""
        landmarks = np.stack([face.landmarks for face in faces])
        points5, mirrored = self._crop_points5(landmarks), self._crop_points5(flip_landmarks(landmarks))
        for recognizer in self.recognizers:
            sources = self.embed(recognizer, [face.crop.image for face in faces], points5)
            mirrors = self.embed(recognizer, [face.crop.image[:, ::-1] for face in faces], mirrored)
            for face, source, mirror in zip(faces, sources, mirrors, strict=True):
                face.embeddings[recognizer.name] = source
                face.record.similarity[recognizer.name] = {"before": float(source @ mirror)}

    def source_identity(self, face: FaceState) -> torch.Tensor:
        """The standardised embedding [D] of a source."""
        return self.surrogate_prior.standardise(face.embeddings[self.surrogate_prior.config.recognizer])

    @staticmethod
    def draw_seed(
        face: FaceState,
        generator: torch.Generator | None = None,
        surrogate_identity: SurrogateIdentity | None = None,
        attempt: int = 0,
    ) -> int:
        """The seed of an attempt at a face (0: of what comes before them), of its patient where there is a key."""
        if face.pseudonym is not None and surrogate_identity is not None:
            return surrogate_identity.seed(face.pseudonym, attempt)
        if generator is None:
            return secrets.randbits(63)
        return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))

    def draw_surrogate(
        self,
        face: FaceState,
        generator: torch.Generator | None,
        surrogate_identity: SurrogateIdentity | None = None,
    ) -> torch.Tensor:
        """Draws a face's seed (or takes its patient's), and from it its surrogate: somebody else, but of its kind."""
        # Under a key a patient stays who it is for some tries, and while there is further away to go from the source.
        recognised = sum(self.is_recognised(tried) for tried in face.record.attempts)
        step = min(recognised, len(MAX_COSINES) - 1)
        by_signs = len(face.record.attempts) - recognised - FIRST_TRIES
        given_up = recognised - step + max(0, 1 + by_signs // FURTHER_TRIES)
        seed = self.draw_seed(face, generator, surrogate_identity, 1 + given_up)
        face.record.attempts.append(AttemptRecord(hashlib.sha256(seed.to_bytes(8, "big")).hexdigest()[:16]))
        face.generator = torch.Generator().manual_seed(seed)
        source = self.source_identity(face)
        max_cosine, face.suppression = MAX_COSINES[step], SUPPRESSION[step]
        if face.pseudonym is None:
            surrogate = self.surrogate_prior.draw(face.generator, away_from=source, max_cosine=max_cosine)
            face.shape = self.shape_prior.draw(face.generator).numpy()
            return surrogate
        first = torch.Generator().manual_seed(self.draw_seed(face, generator, surrogate_identity, 1))
        kinship = KINSHIP[min(given_up, len(KINSHIP) - 1)]
        surrogate = self.surrogate_prior.draw_alike(face.generator, source, max_cosine, first, kinship)
        own, other = (self.shape_prior.draw(each) for each in (face.generator, first))
        face.shape = own.lerp(other, kinship).numpy()
        face.generator.manual_seed((seed + len(face.record.attempts)) % 2**63)  # noise of its own for each try
        return surrogate

    def generate(
        self,
        faces: list[FaceState],
        surrogates: torch.Tensor,
        num_inference_steps: int,
        guidance_scale: float,
        identity_guidance_scale: float,
        callback_on_step_end: Callable[[Any, int, torch.Tensor, dict], dict] | None,
    ) -> None:
        """Draws the new faces, in batches; what is broken, by the UNet's own judgement, once or twice more."""
        batches = [slice(start, start + FACE_BATCH_SIZE) for start in range(0, len(faces), FACE_BATCH_SIZE)]
        with self.progress_bar(total=len(batches) * num_inference_steps) as bar:

            def on_step(step: int, timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
                bar.update()
                if callback_on_step_end is not None:
                    latents = callback_on_step_end(self, step, timestep, {"latents": latents}).get("latents", latents)
                return latents

            for rows in batches:
                batch = faces[rows]
                errors, redrawn = [math.inf] * len(batch), list(range(len(batch)))
                for draw in range(MAX_DRAWS):
                    if not redrawn:
                        break
                    if draw > 0:
                        bar.total += num_inference_steps
                    drawn = self._inpaint(
                        [batch[place] for place in redrawn],
                        surrogates[rows][redrawn],
                        num_inference_steps,
                        guidance_scale,
                        identity_guidance_scale,
                        on_step,
                    )
                    told = torch.zeros(len(redrawn)) if drawn.errors is None else drawn.errors.nan_to_num(math.inf)
                    for place, image, error in zip(redrawn, _to_pixels(drawn.images), told.tolist(), strict=True):
                        if error <= errors[place]:
                            batch[place].generated, errors[place] = image, error
                    redrawn = [
                        place for place in redrawn if errors[place] > (self.config.max_denoising_error or math.inf)
                    ]

    def _inpaint(
        self,
        faces: list[FaceState],
        surrogates: torch.Tensor,
        num_inference_steps: int,
        guidance_scale: float,
        identity_guidance_scale: float,
        on_step: Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> Inpainted:
        sketches = [keep_geometry(face.landmarks, face.shape, face.preserved.held, face.crop.size) for face in faces]
        return inpaint(
            self.vae,
            self.unet,
            self.structure_adapter,
            self.scheduler,
            images=self._to_tensor([face.crop.image for face in faces]),
            masks=torch.from_numpy(np.stack([face.hole for face in faces]))[:, None].to(self._like),
            sketches=self._to_tensor(sketches),
            identities=surrogates.to(self._like),
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            tokens=self._tokens(faces),
            sources=torch.stack([self.source_identity(face) for face in faces]).to(self._like),
            identity_guidance_scale=[max(identity_guidance_scale, face.suppression) for face in faces],
            generator=[face.generator for face in faces],
            on_step=on_step,
            return_errors=self.config.max_denoising_error is not None,
        )

    def _tokens(self, faces: list[FaceState]) -> torch.Tensor | None:
        """The manifestation tokens [B, T, E] of faces, as they were drawn once; zeros where nothing is to be kept."""
        tokens = self.identity_adapter.no_tokens(len(faces))
        if tokens is None:
            return None
        seen = [face.seen.tokens if face.wanted else none for face, none in zip(faces, tokens, strict=True)]
        return torch.stack([each.float().cpu() for each in seen])

    def keep_shapes(self, faces: list[FaceState]) -> None:
        """Sets lids, gaze and mouth of new faces in the picture, where a sign is in them.

        The landmark network finds less of an asymmetry than there is. So each face is set a second time, by what is
        then still missing, until the same is found on it as on its source; or more than that, where a sign was lost.
        """
        if not faces:
            return
        drawn = [face.generated for face in faces]
        before = self.find_landmarks(drawn)
        wanted = sources = np.stack([correct_shape(face.landmarks, face.missed) for face in faces])
        for turn in range(SHAPE_ROUNDS):
            if turn > 0:
                found = self.find_landmarks([face.generated for face in faces])
                wanted = wanted + sources - found
            for face, image, points, goal in zip(faces, drawn, before, wanted, strict=True):
                rng = np.random.default_rng(face.generator.initial_seed())
                face.generated = keep_shape(image, points, goal, face.preserved.posed, rng)

    def fit_masks(self, faces: list[FaceState], privacy: float) -> None:
        """Covers no more of each photo than the new face needs, unless more than the face is to go."""
        drawn = self.find_landmarks([face.generated for face in faces])
        for face, points in zip(faces, drawn, strict=True):
            face.drawn = points
            face.cover = face.mask if privacy > WHOLE_FACE else fitted_mask(face.mask, face.landmarks, points)

    def match_tones(self, faces: list[FaceState]) -> None:
        """Gives new faces the tint of the photo around them, the tone of their source, and the colour of its signs."""

        def toned(face: FaceState) -> np.ndarray:
            generated = match_colour(face.generated, face.crop.image, face.cover)
            lesions = face.preserved.skin > 0
            generated = keep_colour(
                generated, face.drawn, face.crop.image, face.landmarks, face.preserved.areas, lesions
            )
            return correct_colour(generated, face.drawn, face.missed)

        for face, generated in zip(faces, in_threads(toned, faces), strict=True):
            face.generated = generated

    def paste(self, photo: Photo, faces: list[FaceState]) -> tuple[np.ndarray, np.ndarray]:
        """Puts the new faces over the old ones, the largest last; returns the photo, and bool [H, W] of where.

        With each face come the pixels of the signs that it keeps, in the photo's resolution.
        """
        result, changed = photo.rgb, np.zeros(photo.rgb.shape[:2], bool)
        for face in sorted(faces, key=lambda face: matrix_scale(face.crop.matrix), reverse=True):
            rng = np.random.default_rng(face.generator.initial_seed())
            result = paste_face(result, face.generated, face.crop.matrix, face.cover, rng)
            unit = face.crop.size / LANDMARK_SIZE / matrix_scale(face.crop.matrix)
            for weight, harmonise in ((face.preserved.skin, True), (face.preserved.eyes, False)):
                weight = np.minimum(weight, face.cover)  # around it nothing has changed
                if weight.any():
                    weight = warped_mask(weight, face.crop.matrix, photo.rgb.shape)
                    result = keep_appearance(result, photo.rgb, weight, unit, harmonise)
            changed |= warped_mask(face.cover, face.crop.matrix, changed.shape) > 0
        return result, changed

    def paste_all(
        self, photos: list[Photo], faces: list[FaceState], changed: list[FaceState]
    ) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """[`paste`] for each photo that has a changed face."""
        indices = sorted({face.photo for face in changed})
        pasted = in_threads(
            lambda index: self.paste(photos[index], [face for face in faces if face.photo == index]), indices
        )
        return dict(zip(indices, pasted, strict=True))

    def verify(self, faces: list[FaceState], pasted: dict[int, tuple[np.ndarray, np.ndarray]]) -> list[FaceState]:
        """Looks at results as an attacker, a clinician and a reader would; returns the faces that fail."""
        crops = self._pasted_crops(faces, pasted)
        self.compare_identities(faces, crops, self.find_landmarks(crops))
        for face, seen in zip(faces, self.see(crops), strict=True):
            face.seen_after = seen
            lost, new = self._changed_signs(face)
            face.missed.update(lost)
            face.missed.subtract(new)
            if lost:
                face.record.attempts[-1].failed.append(f"the encoder no longer finds a sign: {', '.join(lost)}")
            if new:
                face.record.attempts[-1].failed.append(f"the encoder finds a sign that was not there: {', '.join(new)}")
        detectors = self.detectors
        for face, shown in zip(faces, in_threads(lambda crop: shows_face(crop, detectors), crops), strict=True):
            if not shown:
                face.record.attempts[-1].failed.append("no face is found where it was replaced")
        return [face for face in faces if face.record.attempts[-1].failed]

    def compare_identities(self, faces: list[FaceState], crops: list[np.ndarray], landmarks: np.ndarray) -> None:
        """Compares results with their sources, by each recognizer at its threshold of calibrated false accepts."""
        points5 = self._crop_points5(landmarks)
        for recognizer in self.recognizers:
            for face, after in zip(faces, self.embed(recognizer, crops, points5), strict=True):
                similarity = float(face.embeddings[recognizer.name] @ after)
                attempt = face.record.attempts[-1]
                attempt.similarity[recognizer.name] = similarity
                face.record.similarity[recognizer.name]["after"] = similarity
                if similarity >= recognizer.match_threshold:
                    attempt.failed.append(f"the recognizer {recognizer.name} still takes the face for the source's")

    def is_recognised(self, attempt: AttemptRecord) -> bool:
        """Whether any recognizer still took that surrogate for the source."""
        return any(attempt.similarity[each.name] >= each.match_threshold for each in self.recognizers)

    def blur(
        self, photos: list[Photo], faces: list[FaceState], failed: list[FaceState]
    ) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Blurs the faces that no surrogate passed for, with all that was to be preserved of them."""
        for face in failed:
            face.record.blurred = True
            face.cover = np.maximum(face.mask, identity_mask(face.landmarks, WHOLE_FACE, face.crop.size))
            face.generated = blurred_face(face.crop.image)
            nothing = np.zeros_like(face.mask)
            face.preserved, face.missed = replace(face.preserved, skin=nothing, eyes=nothing, areas=()), Counter()
        self.match_tones(failed)
        return self.paste_all(photos, faces, failed)

    def verify_blurred(
        self, faces: list[FaceState], pasted: dict[int, tuple[np.ndarray, np.ndarray]]
    ) -> list[FaceState]:
        """The blurred faces that a recognizer still knows."""
        crops = self._pasted_crops(faces, pasted)
        for face, seen in zip(faces, self.see(crops), strict=True):
            face.seen_after = seen
            face.record.attempts.append(AttemptRecord(""))
        self.compare_identities(faces, crops, np.stack([face.landmarks for face in faces]))
        return [face for face in faces if face.record.attempts[-1].failed]

    def _pasted_crops(
        self, faces: list[FaceState], pasted: dict[int, tuple[np.ndarray, np.ndarray]]
    ) -> list[np.ndarray]:
        """The crops uint8 [S, S, 3] of faces in their finished photos."""
        return [crop_face(pasted[face.photo][0], face.crop.matrix, face.crop.size).image for face in faces]

    def _changed_signs(self, face: FaceState) -> tuple[list[str], list[str]]:
        """The labels that were to be preserved and are lost, and those that are claimed and were clearly not there."""
        labels = np.array(self.manifestation_encoder.config.labels)
        absent = SIGN_ABSENT * self.manifestation_encoder.threshold.float().cpu().numpy()
        before, after = face.seen, face.seen_after
        lost = set(labels[after.probabilities < absent]) & face.wanted & before.claimed
        new = set(labels[before.probabilities < absent]) & after.claimed if face.keeps_signs else set()
        return sorted(lost), sorted(new)

    @property
    def _like(self) -> torch.Tensor:
        """An empty tensor on the device, and of the dtype, that faces are drawn in."""
        return torch.empty(0, device=self._execution_device, dtype=self.unet.dtype)

    def _to_tensor(self, images: Sequence[np.ndarray] | np.ndarray, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Images uint8 [S, S, 3] -> float [B, 3, S, S] in [0, 1]; by default of the dtype that faces are drawn in."""
        batch = torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2)
        return batch.to(self._execution_device, dtype or self.unet.dtype) / 255.0

    def _crop_points5(self, landmarks: np.ndarray) -> np.ndarray:
        """Dense landmarks [N, 478, 3] in pixels of a 256 px crop -> five points [N, 5, 2] in pixels of the crop."""
        return scale_points(points5_from_mesh(landmarks), self.config.crop_size)


def _as_list(value: Any) -> list[Any]:
    """Several photos as they are, one as a list of one."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _pseudonyms(
    pseudonym: str | Sequence[str | None] | None, surrogate_identity: SurrogateIdentity | None, count: int
) -> list[str | None]:
    """The patient of each photo."""
    given = [pseudonym] * count if pseudonym is None or isinstance(pseudonym, str) else list(pseudonym)
    if len(given) != count:
        raise ValueError(f"`pseudonym` is a list of {len(given)} for {count} photos; give one for each, or None.")
    if surrogate_identity is None and any(name is not None for name in given):
        raise ValueError("`pseudonym` needs a key, or anybody could try pseudonyms: give `surrogate_identity`, too.")
    return given


def _listed_signs(preserve: Preserve) -> list[Finding] | None:
    """The signs that a call lists; None for those that will be found."""
    if isinstance(preserve, str):
        if preserve not in ("auto", "none"):
            raise ValueError(f"`preserve` must be 'auto', 'none' or a list of signs, got {preserve!r}.")
        return None if preserve == "auto" else []
    return [finding for text in preserve for finding in parse_sign(text)]


def _to_pixels(images: torch.Tensor) -> np.ndarray:
    """Images float [B, 3, S, S] in [0, 1] -> uint8 [B, S, S, 3]."""
    return images.float().mul(255.0).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
