"""Face recognizers behind one protocol: aligned by five points, differentiable in the image, and frozen."""

from __future__ import annotations

import importlib.util
import logging
import math
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from .dlib_resnet import CHIP_SIZE, DESCRIPTOR_DIM, DlibResNet, find_dlib_weights

logger = logging.getLogger(__name__)

# Where the five points lie in dlib's chip of 150 px: image-left eye, image-right eye, nose tip, image-left
# and image-right corner of the mouth. dlib aligns by other points (corners of the eyes, base of the nose), so
# these are means over 700 faces that dlib aligned itself. Standard deviations along x: eyes 0.9 px, nose tip
# 4.2 px, mouth 3.1 px.
_DLIB_TEMPLATE = ((47.35, 46.15), (100.39, 45.78), (72.91, 81.40), (50.48, 100.87), (98.61, 100.54))

# The template of ArcFace's training chips of 112 px (insightface, `face_align.arcface_dst`).
_ARCFACE_SIZE = 112
_ARCFACE_TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
_ARCFACE_FILE = "recognition_arcface_ir_se50.pth"

# A chip pixel that covers more image pixels than this along a side is sampled several times and averaged.
_MAX_SAMPLE_STEP = 1.5


class Recognizer(Protocol):
    """Turns faces into embeddings whose cosine says how alike two faces are.

    Attributes:
        name (`str`): Short name, for reports and file names.
        embedding_dim (`int`): Length D of an embedding.
        match_threshold (`float`): Cosine from which on two faces count as one person's.
    """

    name: str
    embedding_dim: int
    match_threshold: float

    def __call__(self, images: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Embeds one face per image.

        Args:
            images (`torch.Tensor`):
                float [B, 3, H, W] in [0, 1], RGB.
            points (`torch.Tensor`):
                float [B, 5, 2], (x, y) in pixels of `images` with pixel centres at integers: image-left eye
                centre, image-right eye centre, nose tip, image-left and image-right corner of the mouth.

        Returns:
            `torch.Tensor`: float [B, D], unit vectors, differentiable with regard to `images`.
        """
        ...


class DlibRecognizer(nn.Module):
    """dlib's face recognizer, ported to torch. Its weights are in the public domain (CC0).

    Args:
        weights (`str` or `Path`, *optional*):
            dlib's `.dat` file; by default the one in the wheel `face_recognition_models`.

    Raises:
        FileNotFoundError: If no weights are given and the wheel is not installed.
        ValueError: If the file is truncated or holds another network.
    """

    name: str = "dlib"
    embedding_dim: int = DESCRIPTOR_DIM
    # What dlib's own threshold, a distance of 0.6 between descriptors, comes to for unit vectors: as many pairs of
    # different people lie above it. That is far stricter on a result than the FAR 0.1 % on generated faces, 0.971.
    match_threshold: float = 0.93
    template: torch.Tensor

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        self.network = DlibResNet.from_dlib(find_dlib_weights() if weights is None else weights)
        self.register_buffer("template", torch.tensor(_DLIB_TEMPLATE), persistent=False)

    def descriptor(self, images: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """dlib's own descriptor, for the Euclidean distances that dlib's threshold of 0.6 is meant for.

        Args:
            images (`torch.Tensor`): float [B, 3, H, W] in [0, 1], see [`Recognizer`].
            points (`torch.Tensor`): float [B, 5, 2], see [`Recognizer`].

        Returns:
            `torch.Tensor`: float [B, 128]; the norm is about 1.3 to 1.7.
        """
        return self.network(self.chips(images, points))

    def chips(self, images: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """The aligned faces the network sees: float32 [B, 3, 150, 150] in [0, 1], black outside images."""
        return align_faces(images, points, self.template, CHIP_SIZE)

    def features(self, chips: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps of float `chips` [B, 3, H, W] in [0, 1], 64 px and up; [`DlibResNet.features`]."""
        return self.network.features(chips)

    def forward(self, images: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Unit embeddings float [B, 128]; see [`Recognizer`]."""
        return F.normalize(self.descriptor(images, points), dim=1)


class ArcFaceRecognizer(nn.Module):
    """ArcFace (https://huggingface.co/papers/1801.07698) with facexlib's architecture and weights.

    Nothing is downloaded: [`~ArcFaceRecognizer.available`] says whether the weights are on this machine.

    Args:
        weights (`str` or `Path`, *optional*):
            `recognition_arcface_ir_se50.pth`; by default the one in facexlib's folder of weights.

    Raises:
        FileNotFoundError: If no weights are given and facexlib or its weights are not there.
    """

    name: str = "arcface"
    embedding_dim: int = 512
    match_threshold: float = 0.3  # about FAR 0.1 % on photos in the wild
    template: torch.Tensor

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        weights = _find_arcface_weights() if weights is None else weights
        if weights is None:
            raise FileNotFoundError(
                f"ArcFace's weights are missing: put `{_ARCFACE_FILE}` from facexlib's releases into the "
                "folder `weights` of the installed package, or pass `weights`."
            )
        from facexlib.recognition.arcface_arch import Backbone

        self.network = Backbone(num_layers=50, drop_ratio=0.6, mode="ir_se")
        self.network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self.requires_grad_(False).eval()
        self.register_buffer("template", torch.tensor(_ARCFACE_TEMPLATE), persistent=False)

    @staticmethod
    def available() -> bool:
        """Whether facexlib is installed and holds the weights."""
        return _find_arcface_weights() is not None

    def train(self, mode: bool = True) -> ArcFaceRecognizer:
        """Stays in evaluation mode whatever `mode` is: training would change the frozen batch statistics."""
        return super().train(False)

    def forward(self, images: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Unit embeddings float [B, 512]; see [`Recognizer`]."""
        chips = align_faces(images, points, self.template, _ARCFACE_SIZE)
        return self.network(chips * 2.0 - 1.0)


def load_recognizers(device: str | torch.device = "cpu") -> list[Recognizer]:
    """Loads each recognizer whose weights are on this machine, to judge re-identification by more than one.

    Args:
        device (`str` or `torch.device`, *optional*, defaults to `"cpu"`):
            Where to put them.

    Returns:
        `list[Recognizer]`: dlib's first, then ArcFace if available.
    """
    recognizers: list[Recognizer] = [DlibRecognizer().to(device)]
    if ArcFaceRecognizer.available():
        recognizers.append(ArcFaceRecognizer().to(device))
    else:
        logger.info("ArcFace's weights are not on this machine: faces are compared by dlib's recognizer alone.")
    return recognizers


def align_faces(images: torch.Tensor, points: torch.Tensor, template: torch.Tensor, size: int) -> torch.Tensor:
    """Cuts the face out of each image so that its points come to lie at `template`.

    Args:
        images (`torch.Tensor`):
            float [B, 3, H, W].
        points (`torch.Tensor`):
            float [B, N, 2], (x, y) in pixels of `images`.
        template (`torch.Tensor`):
            float [N, 2], (x, y) in pixels of the chip.
        size (`int`):
            Height and width of the chip.

    Returns:
        `torch.Tensor`: float32 [B, 3, size, size], black outside of the image. A chip does not depend on the
        others of its batch.

    Raises:
        ValueError: If a tensor has another form, or the points of a face are not finite or coincide.
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(f"`images` must be a float tensor [B, 3, H, W], got {images.dtype} {list(images.shape)}.")
    if tuple(points.shape) != (images.shape[0], *template.shape):
        raise ValueError(
            f"`points` must be {[images.shape[0], *template.shape]} to go with `images`, got {list(points.shape)}."
        )
    # In float32 whatever the images are: half precision cannot hold the coordinates of a large photo.
    images = images.float()
    matrices = similarity(template.to(images), points.to(images))
    scales = matrices[:, :, 0].norm(dim=1)
    if not bool(((scales > 1e-4) & scales.isfinite()).all()):
        raise ValueError("`points` must be finite and differ from each other for every face; detect the face anew.")

    steps = [math.ceil(scale / _MAX_SAMPLE_STEP) for scale in scales.tolist()]
    chips = images.new_empty(images.shape[0], images.shape[1], size, size)
    for step in sorted(set(steps)):
        rows = torch.tensor([row for row, own in enumerate(steps) if own == step], device=images.device)
        chips = chips.index_copy(0, rows, _sample(images[rows], matrices[rows], size, step))
    return chips


def similarity(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Least-squares similarity (rotation, scale, shift, no mirroring) from `source` to `target`.

    The planar case of Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns" (1991), eq. 40 to 42. In the plane the matrix is [[a, -b], [b, a]], linear in a and b, so no SVD
    is needed.

    Args:
        source (`torch.Tensor`):
            float [N, 2].
        target (`torch.Tensor`):
            float [B, N, 2].

    Returns:
        `torch.Tensor`: float [B, 2, 3].
    """
    source_mean, target_mean = source.mean(dim=0), target.mean(dim=1)
    p, q = source - source_mean, target - target_mean[:, None]
    variance = p.square().sum()
    a = (p * q).sum(dim=(1, 2)) / variance
    b = (p[:, 0] * q[..., 1] - p[:, 1] * q[..., 0]).sum(dim=1) / variance
    linear = torch.stack([torch.stack([a, -b], dim=1), torch.stack([b, a], dim=1)], dim=1)
    shift = target_mean - linear @ source_mean
    return torch.cat([linear, shift[..., None]], dim=2)


def _sample(images: torch.Tensor, matrices: torch.Tensor, size: int, step: int) -> torch.Tensor:
    """Samples `images` where `matrices` [B, 2, 3] put the chips' pixels, as means of `step` x `step` taps."""
    # Centres of the taps in chip pixels: tap k of pixel i lies at i + (k + 0.5) / step - 0.5.
    taps = (torch.arange(size * step, device=images.device, dtype=images.dtype) + 0.5) / step - 0.5
    y, x = torch.meshgrid(taps, taps, indexing="ij")
    chip_points = torch.stack([x, y, torch.ones_like(x)], dim=-1).view(-1, 3)
    height, width = images.shape[2:]
    # `grid_sample` with align_corners wants -1 and 1 at the centres of the first and the last pixel.
    extent = images.new_tensor([max(width - 1, 1), max(height - 1, 1)])
    grid = (chip_points @ matrices.transpose(1, 2)) * 2.0 / extent - 1.0
    grid = grid.view(-1, size * step, size * step, 2)
    chips = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return F.avg_pool2d(chips, step) if step > 1 else chips


def _find_arcface_weights() -> Path | None:
    """facexlib's file of ArcFace weights, or None where facexlib or the file is missing."""
    spec = importlib.util.find_spec("facexlib")
    # The folder that facexlib itself would download to.
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(folder) / "weights" / _ARCFACE_FILE
        if path.is_file():
            return path
    return None
