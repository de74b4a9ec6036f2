"""What an attacker with one recognizer finds out from de-identified faces: who they are, and which belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..identity.recognizer import Recognizer
from .attacker import attack, recovery, train_attacker
from .cohort import Cohort, People
from .privacy import (
    Rate,
    embed_faces,
    far_threshold,
    impostor_similarities,
    rank_chance,
    rank_hits,
    rate_of,
    verification_hits,
)
from .quality import surrogate_diversity
from .results import Released

_RANKS = (1, 5)


@dataclass(frozen=True)
class Findings:
    """What an attack came to on the K released results of the patients' photos.

    Attributes:
        figures (`dict`): See [`Attack.run`].
        hits (`np.ndarray`): bool `[K]`: whether the source was named first, by the stronger one of both attackers.
        similarities (`np.ndarray`): float32 `[K]` in [-1, 1], to the source.
    """

    figures: dict[str, Any]
    hits: np.ndarray
    similarities: np.ndarray


class Attack:
    """An attacker's recognizer, and how he uses it on the gallery of a cohort.

    Args:
        recognizer (`Recognizer`):
            The attacker's, on the CPU.
        face_only (`bool`):
            Whether he looks at the face alone. Hair and background, too, link two versions of one photo trivially.
        cohort (`Cohort`):
            The patients and all others.
        far (`float`):
            False accept rate of his verification. Its threshold is calibrated on pairs of originals.

    Raises:
        `ValueError`: there are too few originals for that rate; see [`far_threshold`].
    """

    def __init__(self, recognizer: Recognizer, face_only: bool, cohort: Cohort, far: float):
        self.name = recognizer.name
        self.crop = "face_only" if face_only else "whole_crop"
        self._recognizer, self._face_only, self._cohort, self._far = recognizer, face_only, cohort, far
        self._sources, self._others = self.embed(cohort.patients), self.embed(cohort.others)
        originals = self.embed(cohort.originals)
        self._gallery = torch.cat([self._sources, self.embed(cohort.visits), originals])
        self._owners = np.concatenate([people.subjects for people in cohort.gallery])
        self._threshold = far_threshold(impostor_similarities(originals, cohort.originals.subjects), far)

    def embed(self, people: People) -> torch.Tensor:
        """Unit embeddings float32 `[N, D]` of people."""
        if len(people) == 0:
            return torch.zeros(0, self._recognizer.embedding_dim)
        return embed_faces(self._recognizer, people.photos, people.landmarks, self._face_only)

    def run(self, released: Mapping[str, Released]) -> Findings:
        """Attacks a method's results.

        Args:
            released (`Mapping[str, Released]`):
                Those of each task, at least one of `photos`.

        Returns:
            `Findings`: as [`Rate`]s the `rank1` and `rank5` of naming the source, by nearness, and `attacker_rank1`,
            by the adaptive attacker; `worst_rank1`, the larger one of both; `verified`; `linked_one_key` and
            `linked_two_keys`: of second photos to the first ones by rank 1, when both are de-identified. Then his
            `recovery`, and the surrogates' `diversity`. None for what there are too few photos for.
        """
        photos = released["photos"]
        embedded = {name: self.embed(each.people) for name, each in released.items()}
        probes, subjects, sources = embedded["photos"], photos.people.subjects, self._sources[photos.rows]
        hits = {rank: rank_hits(probes, self._gallery, subjects, self._owners, rank) for rank in _RANKS}
        rates = {f"rank{rank}": self._rate(hits[rank], subjects, rank) for rank in _RANKS}
        verified = verification_hits(probes, sources, self._threshold)
        learned, recovered = self._adaptive(released, embedded)
        worst = hits[1] if learned is None or learned.sum() < hits[1].sum() else learned
        figures = {
            **rates,
            "attacker_rank1": None if learned is None else self._rate(learned, subjects, 1),
            "worst_rank1": self._rate(worst, subjects, 1),
            "recovery": recovered,
            "verified": rate_of(verified, self._far, subjects, self._cohort.seed),
            "linked_one_key": self._linkage(released, embedded, "visits"),
            "linked_two_keys": self._linkage(released, embedded, "visits_other_key"),
            "diversity": self._diversity(released, embedded),
        }
        return Findings(figures, worst, (probes * sources).sum(1).numpy())

    def _rate(self, hits: np.ndarray, subjects: np.ndarray, rank: int) -> Rate:
        return rate_of(hits, rank_chance(self._owners, rank), subjects, self._cohort.seed)

    def _adaptive(
        self, released: Mapping[str, Released], embedded: Mapping[str, torch.Tensor]
    ) -> tuple[np.ndarray | None, dict[str, float] | None]:
        """The hits bool [K] of an attacker who has learned from pairs of his own, and what he recovers."""
        own, photos, seed = released["attacker"], released["photos"], self._cohort.seed
        try:
            attacker = train_attacker(embedded["attacker"], self._others[own.rows], own.people.subjects, seed)
        except ValueError:  # too few people to learn from
            return None, None
        subjects, probes = photos.people.subjects, embedded["photos"]
        gallery = attacker.distinctive(self._gallery)
        hits = rank_hits(attack(attacker, probes), gallery, subjects, self._owners, 1)
        if len(np.unique(subjects)) < 2:
            return hits, None
        return hits, recovery(attacker, probes, self._sources[photos.rows], subjects, seed)

    def _linkage(
        self, released: Mapping[str, Released], embedded: Mapping[str, torch.Tensor], visits: str
    ) -> Rate | None:
        owners, subjects = (released[name].people.subjects for name in ("photos", visits))
        return linkage_rate(embedded["photos"], owners, embedded[visits], subjects, self._cohort.seed)

    def _diversity(
        self, released: Mapping[str, Released], embedded: Mapping[str, torch.Tensor]
    ) -> dict[str, float] | None:
        """How different the results of one photo under two keys are, of one photo a subject."""
        first, second = released["visits"], released["visits_other_key"]
        both = np.intersect1d(first.rows, second.rows)
        both = both[np.unique(self._cohort.visits.subjects[both], return_index=True)[1]]
        if len(both) < 2:
            return None
        places = [np.searchsorted(each.rows, both) for each in (first, second)]
        surrogates = torch.stack([embedded["visits"][places[0]], embedded["visits_other_key"][places[1]]], 1)
        return surrogate_diversity(surrogates, self._sources[both])


def linkage_rate(
    first: torch.Tensor, owners: np.ndarray, second: torch.Tensor, subjects: np.ndarray, seed: int
) -> Rate | None:
    """How often the nearest result of the first photos is of the same patient as that of a second one.

    Args:
        first, second (`torch.Tensor`):
            Unit vectors `[N, D]` and `[M, D]` of the results.
        owners, subjects (`np.ndarray`):
            Whose they are, `[N]` and `[M]`.
        seed (`int`):
            Of the interval's resamples.

    Returns:
        [`Rate`]; None if no patient is among both.
    """
    known = np.isin(subjects, owners)
    if not known.any():
        return None
    hits = rank_hits(second[known], first, subjects[known], owners, 1)
    return rate_of(hits, rank_chance(owners, 1), subjects[known], seed)
