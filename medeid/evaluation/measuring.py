"""The figures of a method, from the results that are stored: privacy, utility, quality, and for whom they differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import cv2
import numpy as np
import torch

from ..data.masks import decode_masks
from ..faces.compositing import warped_mask
from ..faces.detection import MIN_SCORE, CenterFaceDetector
from ..identity.recognizer import load_recognizers
from ..manifestations.encoder import ManifestationEncoder
from ..manifestations.taxonomy import TAXONOMY
from ..photos import Photo
from ..pipeline import MedicalDeIDPipeline
from ..types import FaceBox
from .agreement import Signs, agreement, read_signs
from .attacks import Attack, Findings
from .clip_features import ClipFeatures
from .cohort import Cohort, OnProgress
from .downstream import DownstreamTest
from .fairness import patient_groups
from .geometry import geometry_errors
from .landmark_attack import LandmarkAttack
from .quality import frechet_distance, kernel_distance, outside_change, picture_features, seam_visibility
from .results import MethodFolder, Released
from .utility import cohens_kappa, colour_change, mean_told

OWN_ENCODER, JUDGE = "medeid", "judge"

_WORST = 8  # photos that are told for the report
_GROWN = 1.5  # of a face's box: what tools may be expected to change
_CHANGED = 2  # levels; less is rounding or compression
_GAP = 9 / 256  # of the photo's side: unchanged pixels in changed regions, such as those of a bar over a black brow
_DIGITS = 6  # sums over several threads may differ in the last bits


class Yardstick:
    """Measures methods on a cohort, all in the same way. What does not depend on the method is measured once.

    Args:
        cohort (`Cohort`):
            The patients and all others.
        pipeline (`MedicalDeIDPipeline`):
            Its landmark network and its encoder measure, too.
        judge (`ManifestationEncoder`, *optional*):
            A reader of signs that no method was tuned on.
        far (`float`):
            False accept rate of verifications.
        clip (`ClipFeatures`, *optional*):
            In whose features pictures are compared, too.
        on_progress (`Callable`, *optional*):
            Called with what is being done, how much of it is done, and of how much.

    Raises:
        `ValueError`: there are too few originals for that rate, or the judge has other labels.
    """

    def __init__(
        self,
        cohort: Cohort,
        pipeline: MedicalDeIDPipeline,
        judge: ManifestationEncoder | None,
        far: float,
        clip: ClipFeatures | None = None,
        on_progress: OnProgress = lambda stage, done, total: None,
    ):
        self.cohort, self._pipeline, self._on_progress = cohort, pipeline, on_progress
        self._encoders = {OWN_ENCODER: pipeline.manifestation_encoder} | ({JUDGE: judge} if judge else {})
        whom = [(recognizer, face_only) for recognizer in load_recognizers() for face_only in (True, False)]
        steps, stage = len(whom) + len(self._encoders) + 1, "Measuring the sources"
        self.attacks: list[Attack] = []
        for each in whom:
            self._on_progress(stage, len(self.attacks), steps)
            self.attacks.append(Attack(*each, cohort, far))
        self._landmark_attack = LandmarkAttack(cohort)
        self._before: dict[str, Signs] = {}
        for name, encoder in self._encoders.items():
            self._on_progress(stage, len(whom) + len(self._before), steps)
            self._before[name] = read_signs(encoder, cohort.patients.photos)
        self._on_progress(stage, steps - 1, steps)
        self._downstream = DownstreamTest(cohort)
        others = cohort.others if len(cohort.others) > 1 else cohort.originals
        self._other_features = picture_features(pipeline.manifestation_encoder, others.photos)
        self._clip = None if clip is None else (clip, clip(others.photos))
        self._groups = {name: np.array(values) for name, values in patient_groups(cohort.rows).items()}
        self._on_progress(stage, steps, steps)

    @property
    def encoders(self) -> tuple[str, ...]:
        return tuple(self._encoders)

    def measure(self, folder: MethodFolder, privacy: float | None, stage: str) -> dict[str, Any]:
        """Measures what is stored of a method.

        Args:
            folder (`MethodFolder`):
                Its results.
            privacy (`float`, *optional*):
                Its privacy level if it is this package's own, whose mask is known.
            stage (`str`):
                What the progress calls it.

        Returns:
            `dict`: for JSON. `photos`, `visits`, `visits_other_key` and `attacker` count results, `failures` the
            reasons of those that failed. With at least one result of the patients' photos also `privacy` (by recognizer
            and crop, see [`Attack.run`]), `landmarks` (see [`LandmarkAttack.run`]), `utility`, `quality`, `by_group`
            and `worst`, places of patients.
        """
        tasks = {task.name: task for task in self.cohort.tasks}
        outcomes = [outcome for task in tasks.values() for outcome in folder.outcomes(task)]
        figures: dict[str, Any] = {name: folder.counts(task) for name, task in tasks.items()}
        figures["failures"] = Counter(outcome.reason for outcome in outcomes if outcome.status == "failed")
        if figures["photos"]["released"] == 0:
            return _for_json(figures)
        steps = len(self.attacks) + 3
        self._on_progress(stage, 0, steps)
        released = {name: folder.released(task, self._pipeline) for name, task in tasks.items()}
        found: list[Findings] = []
        for each in self.attacks:
            found.append(each.run(released))
            self._on_progress(stage, len(found), steps)
        photos = released["photos"]
        after = {name: read_signs(encoder, photos.people.photos) for name, encoder in self._encoders.items()}
        self._on_progress(stage, steps - 2, steps)
        figures["privacy"] = {each.name: {} for each in self.attacks}
        for each, findings in zip(self.attacks, found, strict=True):
            figures["privacy"][each.name][each.crop] = findings.figures
        figures["landmarks"] = self._landmark_attack.run(released)
        figures["utility"] = self._utility(photos, after) | {"downstream": self._downstream.run(released)}
        self._on_progress(stage, steps - 1, steps)
        figures["quality"] = self._quality(photos, after[OWN_ENCODER].features, privacy)
        figures["by_group"] = self._by_group(photos, found[0], after[OWN_ENCODER])
        figures["worst"] = self._worst(photos, found[0], after[OWN_ENCODER])
        self._on_progress(stage, steps, steps)
        return _for_json(figures)

    def _utility(self, photos: Released, after: Mapping[str, Signs]) -> dict[str, Any]:
        before = torch.from_numpy(self.cohort.patients.landmarks[photos.rows])
        colours = self._colour_by_sign(photos)
        return {
            "signs": {name: agreement(self._before[name][photos.rows], signs) for name, signs in after.items()},
            "geometry": geometry_errors(torch.from_numpy(photos.people.landmarks), before),
            "colour_change": mean_told(np.array(list(colours.values()))),
            "colour_by_sign": colours,
        }

    def _colour_by_sign(self, photos: Released) -> dict[str, float]:
        """CIEDE2000 in the masks of signs that are seen as colour, mean over the faces that show them."""
        changes: dict[str, list[float]] = {}
        for row, result in zip(photos.rows, photos.people.photos, strict=True):
            patient = self.cohort.rows[int(row)]
            masks = decode_masks(patient["mask"], len(patient["findings"]))
            source = self.cohort.patients.photos[row]
            for finding, mask in zip(patient["findings"], masks, strict=True):
                name = finding["manifestation"]
                if TAXONOMY[name].channels[0] != "geometry":
                    change = colour_change(result[None], source[None], mask[None])
                    changes.setdefault(name, []).append(float(change[0]))
        return {name: mean_told(np.array(changes[name])) for name in sorted(changes)}

    def _quality(self, photos: Released, features: torch.Tensor, privacy: float | None) -> dict[str, Any]:
        sources, results = self.cohort.patients.photos[photos.rows], photos.people.photos
        detector = CenterFaceDetector()
        seams, allowed = self._regions(photos, privacy)
        return {
            **distances(features, self._other_features),
            "clip": None if self._clip is None else distances(self._clip[0](results), self._clip[1]),
            "seam_visibility": mean_told(seam_visibility(results, sources, seams)),
            **outside_change(results, sources, allowed),
            "face_found": float(np.mean([any(f.score >= MIN_SCORE for f in detector(each)) for each in results])),
        }

    def _regions(self, photos: Released, privacy: float | None) -> tuple[np.ndarray, np.ndarray]:
        """Of each photo, bool [K, S, S] twice: the region whose border is the seam, and what was to be changed."""
        seams, allowed = [], []
        for row, result in zip(photos.rows, photos.people.photos, strict=True):
            photo, box = self.cohort.patients.photos[row], self.cohort.patients.box(row)
            if privacy is None:
                seams.append(changed_region(photo, result))
                allowed.append(grown_box(box, photo.shape))
            else:
                weight = own_mask(self._pipeline, photo, box, privacy)
                seams.append(weight > 0.5)
                allowed.append(weight > 0)
        return np.stack(seams), np.stack(allowed)

    def _by_group(self, photos: Released, findings: Findings, after: Signs) -> dict[str, Any]:
        """Of each group, the largest first: number of photos, rank 1 of the face alone, and kappa."""
        before = self._before[OWN_ENCODER]
        figures: dict[str, Any] = {}
        for name, groups in self._groups.items():
            own = groups[photos.rows]
            for member, count in Counter(own.tolist()).most_common():
                rows = own == member
                kappa = cohens_kappa(before.claimed[photos.rows[rows]], after.claimed[rows])
                shares = {"worst_rank1": findings.hits[rows].mean(), "kappa": mean_told(kappa)}
                figures.setdefault(name, {})[member] = {"photos": count, **shares}
        return figures

    def _worst(self, photos: Released, findings: Findings, after: Signs) -> dict[str, list[dict[str, float]]]:
        """The patients who are most like their source to the first recognizer, and those whose signs changed most."""
        changed = (self._before[OWN_ENCODER].claimed[photos.rows] != after.claimed).sum(1)

        def first(badness: np.ndarray) -> list[dict[str, float]]:
            order = np.argsort(-badness, kind="stable")[:_WORST]
            return [{"patient": int(photos.rows[place]), "value": float(badness[place])} for place in order]

        return {"similarity": first(findings.similarities), "changed_labels": first(changed)}


def distances(features: torch.Tensor, others: torch.Tensor) -> dict[str, float | None]:
    """Kernel and Frechet distance of features `[M, C]` to others `[N, C]`; None where they are too few."""
    fewest = min(len(features), len(others))
    return {
        "kernel_distance": kernel_distance(features, others) if fewest > 1 else None,
        "frechet_distance": frechet_distance(features, others) if fewest > features.shape[1] else None,
    }


def own_mask(pipeline: MedicalDeIDPipeline, photo: np.ndarray, box: FaceBox, privacy: float) -> np.ndarray:
    """How far a pipeline's new face covers a photo uint8 [H, W, 3]: float32 [H, W] in [0, 1], 0 for not at all."""
    _, (face,) = pipeline.find_faces([Photo.open(photo)], [[box]], privacy)
    return warped_mask(face.mask, face.crop.matrix, photo.shape)


def changed_region(photo: np.ndarray, result: np.ndarray) -> np.ndarray:
    """bool [S, S]: where a result uint8 [S, S, 3] differs from its photo, without the gaps in between."""
    changed = (cv2.absdiff(photo, result).max(-1) > _CHANGED).astype(np.uint8)
    gap = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(_GAP * photo.shape[0]) + 1,) * 2)
    return cv2.morphologyEx(changed, cv2.MORPH_CLOSE, gap) > 0


def grown_box(box: FaceBox, shape: tuple[int, ...]) -> np.ndarray:
    """bool [H, W]: what a tool may be expected to change that looks for the face itself."""
    x0, y0, x1, y1 = box.box
    beyond_x, beyond_y = (_GROWN - 1) / 2 * box.width, (_GROWN - 1) / 2 * box.height
    grown = np.zeros(shape[:2], bool)
    top, left = (max(math.floor(start), 0) for start in (y0 - beyond_y, x0 - beyond_x))
    grown[top : math.ceil(y1 + beyond_y), left : math.ceil(x1 + beyond_x)] = True
    return grown


def _for_json(value: Any) -> Any:
    """Figures as JSON can hold them, which has no NaN, rounded to what can be repeated."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {name: _for_json(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_for_json(each) for each in value]
    if isinstance(value, (float, np.floating)):
        return None if math.isnan(value) else round(float(value), _DIGITS)
    return value
