"""Can one tell from features who it is? A classifier that learns some faces of each subject, tried on others."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

_UNSEEN_SHARE = 0.25
_SHRINKAGES = (1e-6, 1e-3, 0.1, 1.0)
_WEIGHT_DECAYS = (0.1, 5.0)
_HIDDEN = 256
_STEPS, _STEPS_BETWEEN_TRIALS = 100, 20
_LEARNING_RATE = 5e-3


@dataclass(frozen=True)
class ProbeResult:
    """How often an attacker names the right subject.

    Attributes:
        linear, mlp (`float`): Share of unseen faces, in [0, 1], by a linear and by a small non-linear classifier.
        chance (`float`): What guessing comes to.
        subjects, unseen (`int`): Number of subjects, and of faces that the shares are of, versions counted apart.
    """

    linear: float
    mlp: float
    chance: float
    subjects: int
    unseen: int


def identity_probe(features: np.ndarray, subject_ids: Sequence[str], seed: int = 0) -> ProbeResult:
    """Trains classifiers to tell subjects apart by some of their faces, and tries them on their other faces.

    What the faces of one subject differ in is made equally small in all directions first, as linear discriminant
    analysis does: identity hides in directions of little variance, where a plain classifier misses it. From there both
    attackers train, the linear one starting as the discriminant. Shrinkage, weight decay and training length are
    chosen on one half of the unseen faces and tried on the other, and the other way round (cross-fitting, Chernozhukov
    et al., arXiv:1608.00060), and every subject counts the same, however many faces there are of it. So nothing is
    found where there is nothing: the best of many tries on the same faces, or naming whoever is seen most, would be
    above chance there.

    Args:
        features (`np.ndarray`):
            float `[N, F]`, one row for each picture, none of them twice; or `[R, N, F]`: R versions of them, as where
            features are drawn at random. Each version is attacked by itself, and the rates are of all of them.
        subject_ids (`Sequence[str]`):
            Whose they are, `[N]`. Subjects with one face only are left out.
        seed (`int`, *optional*, defaults to 0):
            Of which faces are unseen, and of the classifiers' first weights.

    Returns:
        `ProbeResult`

    Raises:
        `ValueError`: there are no two subjects with two faces each.
    """
    versions = features if features.ndim == 3 else features[None]
    attacks = [_attack(each.astype(np.float64), subject_ids, seed + number) for number, each in enumerate(versions)]
    return ProbeResult(
        linear=float(np.mean([attack.linear for attack in attacks])),
        mlp=float(np.mean([attack.mlp for attack in attacks])),
        chance=attacks[0].chance,
        subjects=attacks[0].subjects,
        unseen=sum(attack.unseen for attack in attacks),
    )


def _attack(features: np.ndarray, subject_ids: Sequence[str], seed: int) -> ProbeResult:
    subjects, unseen = _unseen_faces(subject_ids, seed)
    count = int(subjects.max(initial=-1)) + 1
    if count < 2:
        raise ValueError("`subject_ids` must name at least two subjects with at least two faces each.")
    known = (subjects >= 0) & ~unseen
    targets = torch.from_numpy(subjects)
    named: dict[str, list[np.ndarray]] = {"linear": [], "mlp": []}
    for shrinkage, decay in itertools.product(_SHRINKAGES, _WEIGHT_DECAYS):
        inputs, means = _whitened(features, subjects, known, shrinkage)
        for name, attacker in (("linear", _discriminant(means)), ("mlp", _mlp(inputs.shape[1], count, seed))):
            named[name] += _trials(attacker, decay, inputs[known], targets[known], inputs[unseen], targets[unseen])
    halves = np.random.default_rng(seed).permutation(int(unseen.sum())) % 2
    weights = 1.0 / np.bincount(subjects[unseen])[subjects[unseen]]
    linear, mlp = (_cross_fitted_rate(np.stack(named[name]), halves, weights) for name in ("linear", "mlp"))
    return ProbeResult(linear, mlp, 1.0 / count, count, int(unseen.sum()))


def _unseen_faces(subject_ids: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Subject numbers int64 [N], -1 for those with one face only, and whether a face is unseen, bool [N]."""
    rng = np.random.default_rng(seed)
    _, inverse, counts = np.unique(np.array(subject_ids), return_inverse=True, return_counts=True)
    numbers = np.where(counts > 1, np.cumsum(counts > 1) - 1, -1)[inverse]
    unseen = np.zeros(len(inverse), bool)
    for subject in range(numbers.max(initial=-1) + 1):
        faces = rng.permutation(np.flatnonzero(numbers == subject))
        unseen[faces[: max(1, round(_UNSEEN_SHARE * len(faces)))]] = True
    return numbers, unseen


def _whitened(
    features: np.ndarray, subjects: np.ndarray, known: np.ndarray, shrinkage: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features float32 [N, F] that vary evenly within a subject, and the subjects' means [K, F].

    `shrinkage` is the variance, as a share of a feature's, that is added in every direction.
    """
    features = (features - features[known].mean(0)) / features[known].std(0).clip(min=1e-9)
    means = np.stack([features[known & (subjects == subject)].mean(0) for subject in range(subjects.max() + 1)])
    residuals = features[known] - means[subjects[known]]
    covariance = residuals.T @ residuals / len(residuals)
    variances, directions = np.linalg.eigh(covariance + shrinkage * np.eye(len(covariance)))
    whitening = directions / np.sqrt(variances.clip(min=shrinkage))
    whitening /= (features[known] @ whitening).std(0).mean()  # the size that the attackers' first steps suit
    return torch.from_numpy(features @ whitening).float(), torch.from_numpy(means @ whitening).float()


def _discriminant(means: torch.Tensor) -> nn.Module:
    """A linear classifier that names the nearest mean [K, F]."""
    attacker = nn.Linear(means.shape[1], len(means))
    with torch.no_grad():
        attacker.weight.copy_(means)
        attacker.bias.copy_(-0.5 * means.square().sum(1))
    return attacker


def _mlp(num_features: int, num_subjects: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(num_features, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, num_subjects))


def _trials(
    attacker: nn.Module,
    weight_decay: float,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    unseen_inputs: torch.Tensor,
    unseen_targets: torch.Tensor,
) -> list[np.ndarray]:
    """Which of U unseen faces are named rightly, bool `[U]`, before and on the way of the training."""
    optimizer = torch.optim.AdamW(attacker.parameters(), _LEARNING_RATE, weight_decay=weight_decay)
    trials = []
    for step in range(_STEPS + 1):
        if step % _STEPS_BETWEEN_TRIALS == 0:
            with torch.no_grad():
                trials.append((attacker(unseen_inputs).argmax(1) == unseen_targets).numpy())
        optimizer.zero_grad()
        F.cross_entropy(attacker(inputs), targets).backward()
        optimizer.step()
    return trials


def _cross_fitted_rate(named: np.ndarray, halves: np.ndarray, weights: np.ndarray) -> float:
    """Weighted share of U faces that are named rightly, bool `[K, U]`, by that of K attackers that was best on the
    other half."""
    right = 0.0
    for half in (0, 1):
        best = (named * weights)[:, halves != half].sum(1).argmax()
        right += float((named[best] * weights)[halves == half].sum())
    return right / float(weights.sum())
