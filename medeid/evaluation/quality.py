"""How good de-identified pictures look: as photos, at the seam, around it, and as different faces."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from skimage.color import rgb2lab
from skimage.metrics import structural_similarity

from ..manifestations.encoder import ManifestationEncoder
from .utility import mean_told

_SEAM = 1.5  # px from the nearest pixel beyond the border: one pixel on either side, along diagonals, too
_BANDS = (3.0, 8.0)  # px, likewise; near enough to be of the same skin or hair
# CIELAB a pixel: a difference of 2.3 can just be seen (Mahy et al., "Evaluation of Uniform Color Differences Developed
# after the Adoption of CIELAB and CIELUV", 1994), and gradients are taken over two pixels.
_FAINTEST = 2.3 / 2


@torch.no_grad()
def picture_features(encoder: ManifestationEncoder, crops: np.ndarray, batch_size: int = 16) -> torch.Tensor:
    """What a network that is there without any download sees in pictures, for the distances between sets of them.

    It is no Inception, so the distances compare only with those that were taken by the same encoder.

    Args:
        encoder (`ManifestationEncoder`):
            In evaluation mode.
        crops (`np.ndarray`):
            uint8 `[N, S, S, 3]`, RGB: aligned faces.
        batch_size (`int`, *optional*, defaults to 16):
            Faces at a time.

    Returns:
        `torch.Tensor`: float32 `[N, C]` on the CPU: the pooled features before the bottleneck.
    """
    features = []
    for start in range(0, len(crops), batch_size):
        images = torch.from_numpy(crops[start : start + batch_size]).permute(0, 3, 1, 2)
        features.append(encoder(images.to(encoder.device, encoder.dtype) / 255.0).features.float().cpu())
    return torch.cat(features)


def kernel_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """The KID: squared maximum mean discrepancy under a cubic kernel, without bias, over all pairs at once.

    Binkowski et al., "Demystifying MMD GANs", arXiv:1801.01401, section 4; the same samples always give
    the same distance, as no subsets are drawn.

    Args:
        first (`torch.Tensor`):
            `[M, C]` features of some pictures, at least two.
        second (`torch.Tensor`):
            `[N, C]` features of other pictures, at least two.

    Returns:
        `float`: 0 in the mean for pictures of one kind, so that it may be a little below.

    Raises:
        `ValueError`: if there are fewer than two pictures of a kind.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(
            f"`first` and `second` must have at least two rows each, but have {len(first)} and {len(second)}."
        )
    first, second = first.double(), second.double()
    within = (_mean_of_pairs(_cubic_kernel(each, each)) for each in (first, second))
    return (sum(within) - 2.0 * _cubic_kernel(first, second).mean()).item()


def _cubic_kernel(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first @ second.T / first.shape[1] + 1.0) ** 3


def _mean_of_pairs(kernel: torch.Tensor) -> torch.Tensor:
    """Mean of `[N, N]` off the diagonal: a picture is no sample of how like itself it is."""
    count = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (count * (count - 1))


def frechet_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """The FID: squared Wasserstein distance of the normal distributions of two sets of features.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",
    arXiv:1706.08500, equation 6.

    Args:
        first (`torch.Tensor`):
            `[M, C]` features of some pictures, more of them than features.
        second (`torch.Tensor`):
            `[N, C]` features of other pictures, likewise.

    Returns:
        `float`: at least 0. It has a bias that falls with the number of pictures, so compare only alike numbers.

    Raises:
        `ValueError`: if there are too few pictures for a covariance of full rank.
    """
    fewest, dimensions = min(len(first), len(second)), first.shape[1]
    if fewest <= dimensions:
        raise ValueError(
            f"`first` and `second` must have more rows than their {dimensions} features, but have {len(first)} and "
            f"{len(second)}. Take more pictures, or `kernel_distance`, which has no bias with few."
        )
    first, second = first.double(), second.double()
    one, other = torch.cov(first.T), torch.cov(second.T)
    # The product of two covariances has the eigenvalues of this matrix, which is symmetric: no complex roots.
    values, axes = torch.linalg.eigh(one)
    root = (axes * values.clamp(min=0.0).sqrt()) @ axes.T
    overlap = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0.0).sqrt().sum()
    shift = (first.mean(0) - second.mean(0)).square().sum()
    return max((shift + one.trace() + other.trace() - 2.0 * overlap).item(), 0.0)


def seam_visibility(results: np.ndarray, sources: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """How much harder the border of the changed region is than what lies beside it, beyond what the photo had there.

    The gradient of CIELAB across the border is divided by that in bands beside it, since texture hides a seam; the
    same of the source is subtracted, since a jaw line is an edge and no seam.

    Args:
        results (`np.ndarray`):
            uint8 `[N, S, S, 3]`, RGB.
        sources (`np.ndarray`):
            uint8 `[N, S, S, 3]`, RGB.
        masks (`np.ndarray`):
            bool `[N, S, S]`: what was changed. Of a feathered mask, take where it is above one half: at its outermost
            pixels nearly nothing has changed yet.

    Returns:
        `np.ndarray`: float64 `[N]`: 0 for no seam more than the photo had, below for an edge that has gone; NaN where
        the mask has no border, or nothing beside it.
    """
    seams = np.full(len(masks), np.nan)
    for face, mask in enumerate(masks):
        if mask.any() and not mask.all():
            outwards, border, bands = _surroundings(mask)
            if bands.any():
                after, before = (
                    _edge_strength(pictures[face], outwards, border, bands) for pictures in (results, sources)
                )
                seams[face] = after - before
    return seams


def _surroundings(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a mask [S, S]: unit vectors (down, right) away from it [2, S, S], its border and the bands beside it."""
    inside, outside = (
        cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for region in (mask, ~mask)
    )
    outwards = np.stack(np.gradient(outside - inside))
    outwards /= np.maximum(np.linalg.norm(outwards, axis=0), 1e-6)
    distance = inside + outside
    return outwards, distance < _SEAM, (distance >= _BANDS[0]) & (distance <= _BANDS[1])


def _edge_strength(image: np.ndarray, outwards: np.ndarray, border: np.ndarray, bands: np.ndarray) -> float:
    """Mean gradient across a border in multiples of that beside it, or of the faintest that can be seen there."""
    down, right = np.gradient(rgb2lab(image), axis=(0, 1))
    across = np.linalg.norm(down * outwards[0][..., None] + right * outwards[1][..., None], axis=-1)
    return float(across[border].mean() / max(across[bands].mean(), _FAINTEST))


def outside_change(results: np.ndarray, sources: np.ndarray, masks: np.ndarray) -> dict[str, float | int]:
    """What has changed where nothing should have.

    Args:
        results (`np.ndarray`):
            uint8 `[N, S, S, 3]`, RGB, S at least 7.
        sources (`np.ndarray`):
            uint8 `[N, S, S, 3]`, RGB.
        masks (`np.ndarray`):
            bool `[N, S, S]`: what was to be changed.

    Returns:
        `dict`: `pixels_changed_outside`, in all pictures; `ssim_outside`, the structural similarity (Wang et al.,
        "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004), mean over the pixels outside
        and then over the pictures, 1 where nothing has changed; NaN if no picture has an outside.
    """
    similarities = np.full(len(masks), np.nan)
    for face, mask in enumerate(masks):
        if mask.all():
            continue
        # The windows reach into the mask; what was to be changed there must not count.
        result = np.where(mask[..., None], sources[face], results[face])
        _, similarity = structural_similarity(sources[face], result, channel_axis=-1, data_range=255, full=True)
        similarities[face] = similarity[~mask].mean()
    return {
        "pixels_changed_outside": int(((results != sources).any(-1) & ~masks).sum()),
        "ssim_outside": mean_told(similarities),
    }


def surrogate_diversity(embeddings: torch.Tensor, originals: torch.Tensor) -> dict[str, float]:
    """Whether surrogates are as different as people are, or collapse to a few faces.

    Args:
        embeddings (`torch.Tensor`):
            `[N, K, D]`: a recognizer's embeddings of the surrogates of N faces under K keys, at least two of each.
        originals (`torch.Tensor`):
            `[N, D]`: those of the faces themselves, each of another person.

    Returns:
        `dict`: `key_distance`, the mean cosine distance of the surrogates of one face under two keys,
        `original_distance`, that of two originals, and `diversity`, their ratio: 1 is as different as people are, 0 is
        always the same face. `effective_surrogates`, the effective number of different faces among the N surrogates
        under one key, mean over the keys, `effective_originals`, that among the originals, and `effective_share`, their
        ratio. As many different faces as there are, if all are equally far apart; 1 if all are the same.

    Raises:
        `ValueError`: if there are fewer than two faces or keys, or not as many originals as faces.
    """
    faces, keys, _ = embeddings.shape
    if min(faces, keys) < 2 or len(originals) != faces:
        raise ValueError(
            "`embeddings` must be of at least two faces under at least two keys, with an original for each face, but "
            f"has shape {list(embeddings.shape)}, and `originals` has {list(originals.shape)}."
        )
    embeddings, originals = (F.normalize(each.double(), dim=-1) for each in (embeddings, originals))
    key_distance, original_distance = _mean_distance(embeddings).mean(), _mean_distance(originals)
    surrogates = _effective_number(embeddings.transpose(0, 1), original_distance).mean()
    people = _effective_number(originals, original_distance)
    return {
        "key_distance": key_distance.item(),
        "original_distance": original_distance.item(),
        "diversity": (key_distance / original_distance).item(),
        "effective_surrogates": surrogates.item(),
        "effective_originals": people.item(),
        "effective_share": (surrogates / people).item(),
    }


def _mean_distance(embeddings: torch.Tensor) -> torch.Tensor:
    """Mean cosine distance `[...]` of the pairs of unit vectors `[..., M, D]`."""
    count = embeddings.shape[-2]
    return 1.0 - (embeddings.sum(-2).square().sum(-1) - count) / (count * (count - 1))


def _effective_number(embeddings: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
    """Effective number `[...]` of faces among unit vectors `[..., M, D]`: participation ratio of their variances.

    It is the diversity of order 2 of Hill, "Diversity and Evenness: A Unifying Notation and Its Consequences", 1973, of
    the shares that the principal components have in the variance of different people. Of unit vectors that is their
    mean cosine distance. What is missing of it is shared by all faces, and counts as one component: otherwise the
    small differences of one face to itself would pass for many faces.
    """
    centred = embeddings - embeddings.mean(-2, keepdim=True)
    shares = torch.linalg.svdvals(centred).square() / (embeddings.shape[-2] * distance)
    missing = (1.0 - shares.sum(-1)).clamp(min=0.0)
    return (shares.sum(-1) + missing).square() / (shares.square().sum(-1) + missing.square())
