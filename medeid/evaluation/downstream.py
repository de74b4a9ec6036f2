"""What can be learned from de-identified photos: a classifier trained on them, and tried on originals of other people.

It is to tell the regions of a face that show a sign, as few photos show any single one. It is a ridge regression on
what an early layer of dlib's face recognizer sees, which has learned no sign of disease, and on colours: on some
hundred photos that does better than a network that starts from nothing, and takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from skimage.color import rgb2lab

from ..faces.mesh import points5_from_mesh, scale_points
from ..identity.recognizer import DlibRecognizer
from ..manifestations.taxonomy import LABELS, TAXONOMY
from .cohort import Cohort, People
from .privacy import Rate, percentile_interval, resamples
from .results import Released
from .utility import mean_told

REGIONS: tuple[str, ...] = tuple(dict.fromkeys(row.region for row in TAXONOMY.values()))

_FOLDS = 5
_FEWEST = 10  # photos with a sign in a region, and without: two of each to test on in a fold
# By what 400 originals of simulated patients teach.
_LAYER = 2  # 64 channels
_CELLS = 8  # a side of the face
_PENALTY = 0.03  # where the squares of a photo's features sum up to 1
_CONSTANT = 1e-4  # a channel that deviates less is the same on all photos, but for rounding
_DIGITS = 6  # of a score; where photos teach nothing, rounding must not decide who is first
_BATCH = 16


class DownstreamTest:
    """Trains on photos of some people and tests on originals of all others, in five folds.

    Args:
        cohort (`Cohort`):
            Of its patients, and of those that the attacker has for himself, as they have signs, too.
    """

    def __init__(self, cohort: Cohort):
        self._recognizer = DlibRecognizer()
        self._first_other = len(cohort.patients)
        rows = [cohort.rows] if cohort.other_rows is None else [cohort.rows, cohort.other_rows]
        labels = np.concatenate([affected_regions(each) for each in rows])
        subjects = np.concatenate([cohort.patients.subjects, cohort.others.subjects])
        names, people = np.unique(subjects, return_inverse=True)
        self._folds = np.random.default_rng((cohort.seed, 4)).permutation(len(names))[people] % _FOLDS
        told = np.array([_is_told(column, self._folds) for column in labels.T])
        self._regions, self._labels = np.flatnonzero(told), labels[:, told]
        times = [np.bincount(drawn, minlength=len(names)) for drawn in resamples(len(names), cohort.seed)]
        self._weights = np.concatenate([np.ones((1, len(people))), np.stack(times)[:, people]])
        self._originals = self._features(cohort.patients, cohort.others)
        self._areas_by_originals = self._areas(self._originals, np.arange(len(people)))

    def run(self, released: Mapping[str, Released]) -> dict[str, Any] | None:
        """Trains on a method's results.

        Args:
            released (`Mapping[str, Released]`):
                Of the tasks `photos` and `attacker`.

        Returns:
            `dict`, *optional*: the number of `photos` it was trained on; `auroc`, the area under its receiver operating
            characteristic, mean over the regions, and `auroc_originals`, that of the same classifier trained on all
            originals, each a [`Rate`]; both `by_region`, too, with the number of originals that show a sign there. None
            if no region has signs on ten of them.
        """
        if len(self._regions) == 0:
            return None
        patients, others = released["photos"], released["attacker"]
        rows = np.concatenate([patients.rows, self._first_other + others.rows])
        areas, by_originals = (
            self._areas(self._features(patients.people, others.people), rows),
            self._areas_by_originals,
        )
        return {
            "photos": len(rows),
            "auroc": self._rate(areas),
            "auroc_originals": self._rate(by_originals),
            "by_region": {
                REGIONS[region]: {
                    "photos": int(self._labels[:, place].sum()),
                    "auroc": float(areas[0, place]),
                    "auroc_originals": float(by_originals[0, place]),
                }
                for place, region in enumerate(self._regions)
            },
        }

    def _features(self, *people: People) -> np.ndarray:
        return np.concatenate([sign_features(self._recognizer, each) for each in people if len(each)], 1)

    def _areas(self, features: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """AUROC float64 [1 + resamples, regions] on the originals, the first row without resampling.

        `features`, float32 [2, K, C, cells], are of the photos to train on: results of the originals `rows`, int64 [K].
        """
        scores = np.zeros(self._labels.shape)
        for fold in range(_FOLDS):
            known, tested = self._folds[rows] != fold, self._folds == fold
            if known.any() and tested.any():
                scores[tested] = ridge_scores(features[:, known], self._labels[rows[known]], self._originals[:, tested])
        each_region = zip(scores.T, self._labels.T, strict=True)
        return np.array([auroc(*each, self._folds, self._weights) for each in each_region]).T

    def _rate(self, areas: np.ndarray) -> Rate:
        means = np.array([mean_told(each) for each in areas])
        resampled = means[1:]
        low, high = percentile_interval(resampled[~np.isnan(resampled)])  # of very few people some have no pair
        return Rate(float(means[0]), low, high, 0.5, len(self._labels))


def _is_told(labels: np.ndarray, folds: np.ndarray) -> bool:
    """Whether enough photos have a label bool [N], and enough have not, and there are both in a fold."""
    enough = min(labels.sum(), (~labels).sum()) >= _FEWEST
    return bool(enough and np.isin(folds[labels], folds[~labels]).any())


def affected_regions(rows: Dataset) -> np.ndarray:
    """bool [N, len(REGIONS)]: whether patients have a sign there, on either side."""
    region_of = np.array([TAXONOMY[label.partition(":")[0]].region for label in LABELS])
    labels = np.array(rows["labels"], bool)
    return np.stack([labels[:, region_of == region].any(1) for region in REGIONS], 1)


@torch.no_grad()
def sign_features(recognizer: DlibRecognizer, people: People) -> np.ndarray:
    """float32 [2, N, C, cells]: what is seen on aligned faces, cell by cell, and on their mirror images."""
    points = scale_points(points5_from_mesh(people.landmarks), people.photos.shape[1])
    parts = []
    for start in range(0, len(people), _BATCH):
        rows = slice(start, start + _BATCH)
        images = torch.from_numpy(people.photos[rows]).permute(0, 3, 1, 2).float() / 255.0
        chips = recognizer.chips(images, torch.from_numpy(points[rows]).float())
        colours = torch.from_numpy(rgb2lab(chips.permute(0, 2, 3, 1).double().numpy())).permute(0, 3, 1, 2)
        parts.append(
            torch.stack([_seen(recognizer, chips, colours), _seen(recognizer, chips.flip(3), colours.flip(3))])
        )
    return torch.cat(parts, 1).numpy()


def _seen(recognizer: DlibRecognizer, chips: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """float32 [B, C, cells]: means of a layer, and means and standard deviations of CIELAB."""
    layer = recognizer.features(chips)[_LAYER]
    activations, means, squares = (F.adaptive_avg_pool2d(each, _CELLS) for each in (layer, colours, colours.square()))
    deviations = (squares - means.square()).clamp(min=0.0).sqrt()
    return torch.cat([each.float() for each in (activations, means, deviations)], 1).flatten(2)


def ridge_scores(known: np.ndarray, labels: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Ridge regression from features to labels.

    A channel is scaled as a whole. If each cell were by itself, one in which the photos that it was trained on are all
    but the same, as under a black bar, would drown the others on originals.

    Args:
        known (`np.ndarray`):
            float `[2, K, C, cells]`: features of photos to train on, and of their mirror images.
        labels (`np.ndarray`):
            bool `[K, R]`.
        tested (`np.ndarray`):
            float `[2, M, C, cells]`.

    Returns:
        `np.ndarray`: float64 `[M, R]`: the mean for a photo and its mirror image, higher where the label is likelier.
    """
    mean = known.mean((0, 1), dtype=np.float64)
    deviations = np.sqrt(np.square(known - mean).mean((0, 1, 3)))[:, None]
    scale = np.where(deviations > _CONSTANT, deviations * np.sqrt(mean.size), np.inf)
    inputs, probes = (((each - mean) / scale).reshape(2 * each.shape[1], -1) for each in (known, tested))
    targets = np.tile(labels - labels.mean(0), (2, 1))
    duals = np.linalg.solve(inputs @ inputs.T + _PENALTY * np.eye(len(inputs)), targets)
    return np.mean(np.split(probes @ (inputs.T @ duals), 2), 0).round(_DIGITS)


def auroc(scores: np.ndarray, labels: np.ndarray, folds: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the receiver operating characteristic, of pairs within a fold: classifiers differ in what 0.3 means.

    Args:
        scores (`np.ndarray`):
            float `[N]`.
        labels (`np.ndarray`):
            bool `[N]`.
        folds (`np.ndarray`):
            int `[N]`.
        weights (`np.ndarray`):
            float `[R, N]`: how often each photo counts, R times.

    Returns:
        `np.ndarray`: float64 `[R]`: the share of pairs in which the photo with the label has the higher score, where
        equal ones count half; NaN where there is no pair.
    """
    positives, negatives = np.flatnonzero(labels), np.flatnonzero(~labels)
    pairs = (folds[positives][:, None] == folds[negatives]).astype(np.float64)
    difference = scores[positives][:, None] - scores[negatives]
    won = pairs * (np.sign(difference) + 1.0) / 2.0
    total, hits = (((weights[:, positives] @ each) * weights[:, negatives]).sum(1) for each in (pairs, won))
    return np.where(total > 0, hits / np.where(total > 0, total, 1.0), np.nan)
