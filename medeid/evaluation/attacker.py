"""The adaptive attacker: learns from pairs of his own what the de-identification does, and undoes what can be undone.

He has the public weights, so he makes as many pairs of an original and its de-identified photo as he likes, under keys
of his own, and trains a network that leads from the second back to the first (as against template protection: Mai et
al., "On the Reconstruction of Face Images from Deep Face Templates", arXiv:1703.00832). A fixed function of the source
falls to him; a surrogate drawn independently of it must not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .privacy import mean_interval

_UNSEEN_SHARE = 0.25
_FEWEST_SUBJECTS = 8
_FACTORS = (0.0, 1.0)
_PENALTIES = (1e-3, 0.03, 1.0, 30.0)
_WEIGHT_DECAYS = (0.1, 5.0)
_HIDDEN = 256
_STEPS_BETWEEN_TRIALS, _TRIALS = 20, 15
_BATCH = 512
_LEARNING_RATE = 2e-3
_TEMPERATURE = 0.1


@dataclass(frozen=True)
class _Pairs:
    """Unit embeddings [N, D] of de-identified faces and of their originals, and whose they are, int64 [N]."""

    deidentified: torch.Tensor
    originals: torch.Tensor
    people: torch.Tensor

    def __getitem__(self, rows: torch.Tensor) -> _Pairs:
        return _Pairs(self.deidentified[rows], self.originals[rows], self.people[rows])


class Attacker(nn.Module):
    """A ridge regression from de-identified faces to their originals, and beside it an MLP that still has to learn.

    What all faces share is left out on both sides. It says nothing about who it is, and a prediction with the average
    face in it would be drawn to whoever looks most average.

    Args:
        deidentified (`torch.Tensor`):
            Unit embeddings `[N, D]`.
        originals (`torch.Tensor`):
            Unit embeddings `[N, D]` of their sources.
        factor (`float`):
            The ridge shrinks the linear map towards this multiple of the identity: 0, or 1 for the attacker who takes
            the de-identified face as it is, so that few pairs do not make him weaker than one who learns nothing.
        penalty (`float`):
            Strength of that, as a share of the embeddings' mean variance.
        seed (`int`):
            Of the MLP's first weights.
    """

    average_deidentified: torch.Tensor
    average: torch.Tensor
    ridge: torch.Tensor

    def __init__(
        self, deidentified: torch.Tensor, originals: torch.Tensor, factor: float, penalty: float, seed: int
    ) -> None:
        super().__init__()
        self.register_buffer("average_deidentified", deidentified.mean(0))
        self.register_buffer("average", originals.mean(0))
        inputs, targets = F.normalize(deidentified - self.average_deidentified, dim=1), self.distinctive(originals)
        identity = torch.eye(inputs.shape[1])
        scatter = inputs.T @ inputs
        # Faces that were blacked out do not vary at all.
        penalties = penalty * scatter.diagonal().mean().clamp(min=1e-6) * identity
        ridge = factor * identity + torch.linalg.solve(scatter + penalties, inputs.T @ (targets - factor * inputs))
        # About unit predictions, which the steps of the MLP beside it suit.
        self.register_buffer("ridge", ridge / (inputs @ ridge).norm(dim=1).mean().clamp(min=1e-9))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            last = nn.Linear(_HIDDEN, inputs.shape[1])
            self.mlp = nn.Sequential(nn.Linear(inputs.shape[1], _HIDDEN), nn.GELU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def distinctive(self, originals: torch.Tensor) -> torch.Tensor:
        """How originals `[N, D]` differ from the average one, as unit vectors `[N, D]`."""
        return F.normalize(originals - self.average, dim=1)

    def forward(self, deidentified: torch.Tensor) -> torch.Tensor:
        """Predicts how the originals of unit embeddings `[M, D]` differ from the average one: unit vectors `[M, D]`."""
        inputs = F.normalize(deidentified - self.average_deidentified, dim=1)
        return F.normalize(inputs @ self.ridge + self.mlp(inputs), dim=1)


def train_attacker(
    deidentified: torch.Tensor, originals: torch.Tensor, subjects: Sequence[str] | np.ndarray, seed: int = 0
) -> Attacker:
    """Trains an attacker to tell the original of a de-identified face from the originals of other people.

    The loss is InfoNCE (van den Oord et al., arXiv:1807.03748). First the ridge, then weight decay and length of the
    MLP's training are chosen on held-out subjects; with these the attacker is trained anew on all pairs. No training
    at all is among the choices.

    Args:
        deidentified (`torch.Tensor`):
            Unit embeddings float32 `[N, D]`, on the CPU.
        originals (`torch.Tensor`):
            Unit embeddings float32 `[N, D]` of their sources.
        subjects (`Sequence[str]` or `np.ndarray`):
            Whose they are, `[N]`.
        seed (`int`, *optional*, defaults to 0):
            Of who is held out, of the first weights and of the batches.

    Returns:
        `Attacker`

    Raises:
        `ValueError`: there are too few subjects to hold some out.
    """
    names, numbers = np.unique(subjects, return_inverse=True)
    if len(names) < _FEWEST_SUBJECTS:
        raise ValueError(f"`subjects` must name at least {_FEWEST_SUBJECTS} different people, got {len(names)}.")
    order = np.random.default_rng(seed).permutation(len(names))
    unseen = torch.from_numpy(np.isin(numbers, order[: round(_UNSEEN_SHARE * len(names))]))
    pairs = _Pairs(deidentified, originals, torch.from_numpy(numbers))
    known, held_out = pairs[~unseen], pairs[unseen]

    def loss(attacker: Attacker) -> float:
        with torch.no_grad():
            return _contrastive_loss(attacker, held_out).item()

    def ridge(pairs: _Pairs, setting: tuple[float, float]) -> Attacker:
        return Attacker(pairs.deidentified, pairs.originals, *setting, seed)

    settings = itertools.product(_FACTORS, _PENALTIES)
    setting = min(settings, key=lambda each: loss(ridge(known, each)))
    trials = {
        (decay, trial): loss(attacker)
        for decay in _WEIGHT_DECAYS
        for trial, attacker in enumerate(_in_training(ridge(known, setting), known, decay, seed))
    }
    decay, trial = min(trials, key=trials.__getitem__)
    training = _in_training(ridge(pairs, setting), pairs, decay, seed)
    return next(itertools.islice(training, trial, None)).requires_grad_(False)


def _in_training(attacker: Attacker, pairs: _Pairs, weight_decay: float, seed: int) -> Iterator[Attacker]:
    """Trains an attacker and shows it before and on the way, whenever it is to be tried."""
    optimizer = torch.optim.AdamW(attacker.parameters(), _LEARNING_RATE, weight_decay=weight_decay)
    generator = torch.Generator().manual_seed(seed)
    yield attacker
    for _ in range(_TRIALS):
        for _ in range(_STEPS_BETWEEN_TRIALS):
            rows = torch.randperm(len(pairs.people), generator=generator)[:_BATCH]
            optimizer.zero_grad()
            _contrastive_loss(attacker, pairs[rows]).backward()
            optimizer.step()
        yield attacker


def _contrastive_loss(attacker: Attacker, pairs: _Pairs) -> torch.Tensor:
    """InfoNCE, where other photos of the same person are no wrong answer."""
    logits = attacker(pairs.deidentified) @ attacker.distinctive(pairs.originals).T / _TEMPERATURE
    same = (pairs.people[:, None] == pairs.people).fill_diagonal_(False)
    return F.cross_entropy(logits.masked_fill(same, -torch.inf), torch.arange(len(same)))


@torch.no_grad()
def attack(attacker: Attacker, probes: torch.Tensor) -> torch.Tensor:
    """What the attacker looks for in a gallery of originals, in place of the de-identified faces.

    The predictions lie elsewhere than embeddings do: a threshold to verify them must be calibrated on their own
    similarities to the originals of other people.

    Args:
        attacker (`Attacker`):
            From [`train_attacker`].
        probes (`torch.Tensor`):
            Unit embeddings float32 `[M, D]` of de-identified faces.

    Returns:
        `torch.Tensor`: unit vectors float32 `[M, D]`.
    """
    return attacker(probes)


def recovery(
    attacker: Attacker,
    probes: torch.Tensor,
    originals: torch.Tensor,
    subjects: Sequence[str] | np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """How much of the source's embedding the attacker recovers from the de-identified face's, without the key.

    Cosines are of what differs from the average original: 1 is all of it, and luck is at about 0.

    Args:
        attacker (`Attacker`):
            From [`train_attacker`].
        probes (`torch.Tensor`):
            Unit embeddings float32 `[M, D]` of de-identified faces that the attacker has not seen.
        originals (`torch.Tensor`):
            Unit embeddings float32 `[M, D]` of their sources.
        subjects (`Sequence[str]` or `np.ndarray`, *optional*):
            Whose they are, `[M]`; by default each is of another person.
        seed (`int`, *optional*, defaults to 0):
            Of the interval.

    Returns:
        `dict`: mean cosine of the predictions to their own originals, `cosine_own`, and to those of other people,
        `cosine_others`, which is what luck gives; their `difference` with its 95 % bootstrap interval from
        `difference_low` to `difference_high`. Nothing is recovered if that holds 0.
    """
    _, numbers = np.unique(np.arange(len(probes)) if subjects is None else subjects, return_inverse=True)
    cosines = (attack(attacker, probes) @ attacker.distinctive(originals).T).numpy()
    others = np.mean(cosines, axis=1, where=numbers[:, None] != numbers)
    own = cosines.diagonal()
    low, high = mean_interval(own - others, numbers, seed)
    return {
        "cosine_own": float(own.mean()),
        "cosine_others": float(others.mean()),
        "difference": float((own - others).mean()),
        "difference_low": low,
        "difference_high": high,
    }
