"""Who is it, by the landmarks of the face alone? An attacker without any face recognition.

Pose, expression and the outline of the face stay about as they are, and give a photo away to whoever has it, as hair
and background do. A recognizer sees little of that, so its rates alone would flatter.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

from .attacks import linkage_rate
from .cohort import Cohort
from .privacy import Rate, rank_chance, rank_hits, rate_of
from .results import Released


class LandmarkAttack:
    """An attacker who compares shapes with those of a cohort's gallery.

    Args:
        cohort (`Cohort`):
            The patients and all others.
    """

    def __init__(self, cohort: Cohort):
        gallery = _shapes(np.concatenate([people.landmarks for people in cohort.gallery]))
        self._mean = gallery.mean(0)
        self._gallery = F.normalize(gallery - self._mean, dim=1)
        self._owners = np.concatenate([people.subjects for people in cohort.gallery])
        self._seed = cohort.seed

    def embed(self, landmarks: np.ndarray) -> torch.Tensor:
        """Landmarks float32 `[N, 478, 3]` -> unit vectors `[N, 956]`: how a shape differs from the average one."""
        return F.normalize(_shapes(landmarks) - self._mean, dim=1)

    def run(self, released: Mapping[str, Released]) -> dict[str, Rate | None]:
        """Attacks a method's results.

        Args:
            released (`Mapping[str, Released]`):
                Those of each task, at least one of `photos`.

        Returns:
            `dict`: `rank1`, and `linked_two_keys`: see [`Attack.run`].
        """
        photos, visits = released["photos"].people, released["visits_other_key"].people
        probes = self.embed(photos.landmarks)
        hits = rank_hits(probes, self._gallery, photos.subjects, self._owners, 1)
        return {
            "rank1": rate_of(hits, rank_chance(self._owners, 1), photos.subjects, self._seed),
            "linked_two_keys": linkage_rate(
                probes, photos.subjects, self.embed(visits.landmarks), visits.subjects, self._seed
            ),
        }


def _shapes(landmarks: np.ndarray) -> torch.Tensor:
    """Landmarks `[N, 478, 3]` -> their places in the picture float32 `[N, 956]`, wherever and however large it is."""
    points = torch.from_numpy(landmarks[..., :2]).float()
    return F.normalize((points - points.mean(1, keepdim=True)).flatten(1), dim=1)
