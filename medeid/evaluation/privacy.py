"""Re-identification: does an attacker with a gallery of originals find the source of a de-identified face?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..faces.mesh import points5_from_mesh, region_mask, scale_points
from ..identity.recognizer import Recognizer

GREY = 0.5

_RESAMPLES = 1000
_OUTSIDE = 0.05  # of the resamples, half of them on either side of a 95 % interval
# With ten impostors expected above the threshold, its true FAR is known within a factor of two (95 % Poisson interval:
# 5 to 18); with one, the threshold is the luck of a single pair.
_ACCEPTED_IMPOSTORS = 10


@dataclass(frozen=True)
class Rate:
    """How often something happens, how sure that is, and what luck alone would give.

    Attributes:
        value (`float`): Share of the photos, in [0, 1].
        low, high (`float`): Ends of its 95 % confidence interval, in [0, 1].
        chance (`float`): The share that luck gives, in [0, 1].
        count (`int`): Number of photos.
    """

    value: float
    low: float
    high: float
    chance: float
    count: int


def rate_of(hits: np.ndarray, chance: float, groups: Sequence[str] | np.ndarray | None = None, seed: int = 0) -> Rate:
    """Share of hits with its 95 % interval, see [`mean_interval`].

    Where all photos hit, or none, every resample does as well, and the interval would shrink to a point, as if the next
    photo could not differ. There the end is the exact one (Clopper and Pearson, "The use of confidence or fiducial
    limits illustrated in the case of the binomial", 1934), with a group counting as one observation.

    Args:
        hits (`np.ndarray`):
            bool `[N]`.
        chance (`float`):
            The share that luck gives, in [0, 1].
        groups (`Sequence[str]` or `np.ndarray`, *optional*):
            Whose photos they are, `[N]`; by default each is of another subject.
        seed (`int`, *optional*, defaults to 0):
            Of the resamples.

    Returns:
        `Rate`

    Raises:
        `ValueError`: there are no hits, or not as many groups as hits.
    """
    low, high = mean_interval(hits, groups, seed)
    value = float(np.mean(hits))
    if value in (0.0, 1.0):
        end = (_OUTSIDE / 2) ** (1 / (len(hits) if groups is None else len(np.unique(groups))))
        low, high = (0.0, 1.0 - end) if value == 0.0 else (end, 1.0)
    return Rate(value, low, high, chance, len(hits))


def mean_interval(
    values: np.ndarray, groups: Sequence[str] | np.ndarray | None = None, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993).

    Photos of one subject are alike, so many of few subjects say less than as many of different ones. Hence whole
    subjects are drawn.

    Args:
        values (`np.ndarray`):
            float or bool `[N]`.
        groups (`Sequence[str]` or `np.ndarray`, *optional*):
            Whose photos they are of, `[N]`; by default each is of another subject.
        seed (`int`, *optional*, defaults to 0):
            Of the resamples.

    Returns:
        `tuple[float, float]`: low and high end.

    Raises:
        `ValueError`: there are no values, or not as many groups as values.
    """
    if len(values) == 0 or (groups is not None and len(groups) != len(values)):
        raise ValueError(
            f"Give at least one value, and `groups` as long as the values or None, got {len(values)} values and "
            f"{None if groups is None else len(groups)} groups."
        )
    numbers = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums, counts = np.bincount(numbers, values), np.bincount(numbers)
    drawn = resamples(len(counts), seed)
    return percentile_interval(sums[drawn].sum(1) / counts[drawn].sum(1))


def resamples(groups: int, seed: int) -> np.ndarray:
    """int64 `[1000, groups]`: which groups are drawn for a bootstrap, with replacement, as many as there are."""
    return np.random.default_rng(seed).integers(groups, size=(_RESAMPLES, groups))


def percentile_interval(resampled: np.ndarray) -> tuple[float, float]:
    """Low and high end of the 95 % interval of a figure that was taken on each resample, float `[1000]`."""
    low, high = np.quantile(resampled, (_OUTSIDE / 2, 1 - _OUTSIDE / 2))
    return float(low), float(high)


@torch.no_grad()
def embed_faces(
    recognizer: Recognizer, crops: np.ndarray, landmarks: np.ndarray, face_only: bool, batch_size: int = 16
) -> torch.Tensor:
    """Unit embeddings of aligned crops.

    Args:
        recognizer (`Recognizer`):
            The attacker's.
        crops (`np.ndarray`):
            uint8 [N, S, S, 3].
        landmarks (`np.ndarray`):
            float32 [N, 478, 3] in pixels of a 256 px crop.
        face_only (`bool`):
            Grey outside of the face oval: hair and background are the same in a source and its result, and would link
            them without any face recognition.
        batch_size (`int`, *optional*, defaults to 16):
            Faces at a time.

    Returns:
        `torch.Tensor`: float32 [N, D].
    """
    size = crops.shape[1]
    points5 = scale_points(points5_from_mesh(landmarks), size)
    embedded = []
    for start in range(0, len(crops), batch_size):
        rows = slice(start, start + batch_size)
        images = torch.from_numpy(crops[rows]).permute(0, 3, 1, 2).float() / 255.0
        if face_only:
            ovals = np.stack([region_mask(points, "oval", size) for points in landmarks[rows]])
            images = torch.where(torch.from_numpy(ovals)[:, None] > 0, images, torch.tensor(GREY))
        embedded.append(recognizer(images, torch.from_numpy(points5[rows]).float()))
    return torch.cat(embedded)


def rank1_rate(probes: torch.Tensor, gallery: torch.Tensor, own: torch.Tensor | None = None) -> float:
    """Share of probes whose nearest neighbour in the gallery is their own source; chance is 1 / N.

    Args:
        probes (`torch.Tensor`):
            Unit embeddings `[M, D]`.
        gallery (`torch.Tensor`):
            Unit embeddings `[N, D]`.
        own (`torch.Tensor`, *optional*):
            int64 `[M]`: the row in the gallery of each probe's source. By default probe and source have the same row.

    Returns:
        `float`: in [0, 1].
    """
    nearest = (probes @ gallery.T).argmax(dim=1)
    if own is None:
        own = torch.arange(len(probes))
    return (nearest == own.to(nearest.device)).float().mean().item()


def verification_rate(probes: torch.Tensor, gallery: torch.Tensor, far: float = 0.001) -> float:
    """Share of probes that a verification takes for their source, at a threshold that few pairs of strangers reach.

    Args:
        probes (`torch.Tensor`):
            Unit embeddings `[N, D]`.
        gallery (`torch.Tensor`):
            Unit embeddings `[N, D]` of the sources, each of another person, which the threshold is calibrated on, too.
        far (`float`, *optional*, defaults to 0.001):
            False accept rate: the share of the gallery's pairs that the threshold accepts.

    Returns:
        `float`: in [0, 1].
    """
    pairs = (gallery @ gallery.T)[torch.triu_indices(len(gallery), len(gallery), offset=1).unbind()]
    threshold = torch.quantile(pairs, 1.0 - far)
    return ((probes * gallery).sum(1) > threshold).float().mean().item()


def rank_hits(
    probes: torch.Tensor,
    gallery: torch.Tensor,
    owners_probe: Sequence[str] | np.ndarray,
    owners_gallery: Sequence[str] | np.ndarray,
    rank: int,
) -> np.ndarray:
    """Whether a probe's own subject is among the nearest subjects of the gallery; luck gives [`rank_chance`].

    A subject is as near as the nearest of its photos and counts once, however many there are of it (closed-set
    identification, Grother, Micheals and Phillips, "Face Recognition Vendor Test 2002 Performance Metrics", 2003).

    Args:
        probes (`torch.Tensor`):
            Unit embeddings `[M, D]`.
        gallery (`torch.Tensor`):
            Unit embeddings `[N, D]`.
        owners_probe (`Sequence[str]` or `np.ndarray`):
            The subjects of the probes' sources, `[M]`.
        owners_gallery (`Sequence[str]` or `np.ndarray`):
            The subjects of the gallery, `[N]`.
        rank (`int`):
            Number of subjects the attacker may name, at least 1.

    Returns:
        `np.ndarray`: bool `[M]`.

    Raises:
        `ValueError`: a probe's subject is not in the gallery. It could not be found, and would look private.
    """
    subjects, numbers = np.unique(owners_gallery, return_inverse=True)
    absent = np.setdiff1d(owners_probe, subjects)
    if len(absent):
        raise ValueError(f"`owners_gallery` must hold every subject of `owners_probe`, but lacks {absent.tolist()}.")
    columns = torch.from_numpy(numbers).to(gallery.device).expand(len(probes), -1)
    nearness = probes.new_full((len(probes), len(subjects)), -torch.inf)
    nearness = nearness.scatter_reduce(1, columns, probes @ gallery.T, "amax")
    named = nearness.topk(min(rank, len(subjects)), dim=1).indices.cpu().numpy()
    return (named == np.searchsorted(subjects, owners_probe)[:, None]).any(1)


def rank_chance(owners_gallery: Sequence[str] | np.ndarray, rank: int) -> float:
    """Share of probes that naming `rank` subjects of a gallery blindly finds.

    It is what [`rank_hits`] comes to on embeddings that have nothing to do with the source, exactly so if all subjects
    have as many probes, or as many photos in the gallery. If the same ones have more of both, these are near more often
    and asked for more often, and the hits of luck are a little more: the error is never in favour of privacy.

    Args:
        owners_gallery (`Sequence[str]` or `np.ndarray`):
            The subjects of the gallery, `[N]`.
        rank (`int`):
            Number of subjects the attacker may name, at least 1.

    Returns:
        `float`: in [0, 1].
    """
    subjects = len(np.unique(owners_gallery))
    return min(rank, subjects) / subjects


def impostor_similarities(embeddings: torch.Tensor, subjects: Sequence[str] | np.ndarray) -> torch.Tensor:
    """Similarities of all pairs of faces of different subjects.

    Args:
        embeddings (`torch.Tensor`):
            Unit embeddings `[N, D]`.
        subjects (`Sequence[str]` or `np.ndarray`):
            Whose they are, `[N]`.

    Returns:
        `torch.Tensor`: float `[P]`, in [-1, 1], each pair once.
    """
    numbers = torch.from_numpy(np.unique(subjects, return_inverse=True)[1]).to(embeddings.device)
    strangers = (numbers[:, None] != numbers).triu(1)
    return (embeddings @ embeddings.T)[strangers]


def impostors_needed(far: float) -> int:
    """Number of pairs of different people that a threshold for a false accept rate in (0, 1) can be calibrated on."""
    return math.ceil(_ACCEPTED_IMPOSTORS / far)


def faces_needed(far: float) -> int:
    """Number of faces, all of different people, that make as many pairs: n of them make n (n - 1) / 2."""
    return math.ceil((1 + math.sqrt(1 + 8 * impostors_needed(far))) / 2)


def far_threshold(impostors: torch.Tensor, far: float = 0.001) -> float:
    """The similarity that no more than a share of `far` of the impostor pairs exceeds.

    Args:
        impostors (`torch.Tensor`):
            float `[P]`: similarities of pairs of different people, see [`impostor_similarities`], best of people who
            are not verified afterwards.
        far (`float`, *optional*, defaults to 0.001):
            False accept rate, in (0, 1).

    Returns:
        `float`: in [-1, 1].

    Raises:
        `ValueError`: `far` is out of range, or the pairs are so few that less than ten of them would be accepted, which
            leaves the threshold to luck.
    """
    if not 0.0 < far < 1.0:
        raise ValueError(f"`far` must lie between 0 and 1, got {far}.")
    if len(impostors) < impostors_needed(far):
        raise ValueError(
            f"`impostors` must hold at least {impostors_needed(far):,} pairs of different people for a false accept "
            f"rate of {far:.3%}, got {len(impostors):,}; give {faces_needed(far):,} faces of different people, or a "
            "greater `far`."
        )
    accepted = math.floor(far * len(impostors))
    return impostors.topk(accepted + 1).values[-1].item()


def verification_hits(probes: torch.Tensor, sources: torch.Tensor, threshold: float) -> np.ndarray:
    """Whether a verification takes each probe for its source; strangers pass at the threshold's false accept rate.

    Args:
        probes (`torch.Tensor`):
            Unit embeddings `[N, D]`.
        sources (`torch.Tensor`):
            Unit embeddings `[N, D]`.
        threshold (`float`):
            From [`far_threshold`].

    Returns:
        `np.ndarray`: bool `[N]`.
    """
    return ((probes * sources).sum(1) > threshold).cpu().numpy()
