"""Classical ways to hide a face: a blur, blocks, a black box, a bar over the eyes, and the average of other faces."""

from __future__ import annotations

import math
from abc import abstractmethod

import cv2
import numpy as np

from ..faces.alignment import box_points5
from ..faces.compositing import blurred_face, paste_face
from ..faces.mesh import inter_ocular_distance, scale_points
from ..faces.warp import Warp
from ..photos import Photo
from ..pipeline import MedicalDeIDPipeline
from ..types import FaceBox
from .protocol import Alias, PhotoByPhoto

# Bachmann, "Identification of spatially quantised tachistoscopic images of faces: How many pixels does it take to carry
# identity?", 1991: people know faces of 18 blocks across, and no longer those of 15. 8 leave a wide margin.
_BLOCKS = 8
# Length and height of the bar in distances between the eyes: eyes end a quarter of it beyond their centres, and brows
# start a quarter of it above them.
_BAR = (2.0, 0.6)
_THUMBNAIL = 32  # px; likeness is one of tone and of where features are, not of pores
_REACH = 1.0  # inter-ocular distances; the mesh is denser than that everywhere, so the skin between its points follows


class _InBox(PhotoByPhoto):
    """A method that changes what is in the box of the face, and nothing else."""

    def hide(self, photo: np.ndarray, box: FaceBox, alias: Alias) -> np.ndarray:
        limits = photo.shape[1::-1]
        x0, y0 = np.clip(np.floor(box.box[:2]), 0, limits).astype(int)
        x1, y1 = np.clip(np.ceil(box.box[2:]), 0, limits).astype(int)
        if x1 <= x0 or y1 <= y0:
            raise ValueError(f"`boxes` has {box.box}, which lies outside of its photo of {limits[0]} x {limits[1]} px.")
        result = photo.copy()
        result[y0:y1, x0:x1] = self.cover(photo[y0:y1, x0:x1])
        return result

    @abstractmethod
    def cover(self, face: np.ndarray) -> np.ndarray:
        """What is put in the place of a face: uint8 `[h, w, 3]` -> uint8 `[h, w, 3]`."""


class Blur(_InBox):
    """A Gaussian blur as strong as medeid's own [`blurred_face`], which leaves tones and no feature."""

    name = "blur"

    def cover(self, face: np.ndarray) -> np.ndarray:
        return blurred_face(face)


class Pixelate(_InBox):
    """Even blocks, 8 across the face."""

    name = "pixelate"

    def cover(self, face: np.ndarray) -> np.ndarray:
        height, width = face.shape[:2]
        blocks = (_BLOCKS, max(round(_BLOCKS * height / width), 1))
        tones = cv2.resize(face, blocks, interpolation=cv2.INTER_AREA)
        return cv2.resize(tones, (width, height), interpolation=cv2.INTER_NEAREST)


class BlackBox(_InBox):
    """A black box: nothing of the face is left, neither who it is nor what it has."""

    name = "mask"

    def cover(self, face: np.ndarray) -> np.ndarray:
        return np.zeros_like(face)


class EyeBar(PhotoByPhoto):
    """The black bar over the eyes of medical journals; it lies along the line of the eyes, however the head is held."""

    name = "eye-bar"

    def hide(self, photo: np.ndarray, box: FaceBox, alias: Alias) -> np.ndarray:
        right, left = box_points5(box)[:2].astype(np.float64)
        apart = left - right
        length, height = np.array(_BAR) * math.hypot(*apart)
        centre = (right + left) / 2
        corners = cv2.boxPoints((tuple(centre), (length, height), math.degrees(math.atan2(apart[1], apart[0]))))
        return cv2.fillConvexPoly(photo.copy(), np.rint(corners).astype(np.int32), (0, 0, 0))


class KSameAverage(PhotoByPhoto):
    """k-Same: a face gives way to the average of the k faces that are most like it.

    After Newton, Sweeney and Malin, "Preserving Privacy by De-identifying Face Images", 2005. There a whole set is
    de-identified by itself, and of its averages at most one in k can be told; here the faces are those of other people,
    so that a photo can come alone, and the source is in no average. They are warped to the source's landmarks before,
    since an average of unlike shapes is a blur. So the shape of the source stays, with what it tells of who it is.

    Args:
        crops (`np.ndarray`):
            uint8 `[N, S, S, 3]`, RGB: the reference set, aligned as the pipeline aligns its own, and of its size.
        landmarks (`np.ndarray`):
            float32 `[N, 478, 3]` in pixels of a 256 px crop.
        k (`int`):
            How many faces are averaged.
        pipeline (`MedicalDeIDPipeline`):
            Aligns the sources and finds their landmarks; nothing else of it is used.

    Raises:
        `ValueError`: there are fewer than k faces, or they are of another size.
    """

    name = "k-same"

    def __init__(self, crops: np.ndarray, landmarks: np.ndarray, k: int, pipeline: MedicalDeIDPipeline):
        size = pipeline.config.crop_size
        if crops.dtype != np.uint8 or crops.shape[1:] != (size, size, 3) or len(crops) != len(landmarks):
            raise ValueError(
                f"`crops` must be uint8 [N, {size}, {size}, 3] with as many `landmarks`, but is {crops.dtype} "
                f"{list(crops.shape)} with {len(landmarks)}."
            )
        if not 1 <= k <= len(crops):
            raise ValueError(f"`k` must lie between 1 and the {len(crops)} faces of the reference set, but is {k}.")
        self._crops, self._points, self._k = crops, scale_points(landmarks[..., :2], size), k
        self._thumbnails = np.stack([_thumbnail(crop) for crop in crops])
        self._pipeline = pipeline

    def hide(self, photo: np.ndarray, box: FaceBox, alias: Alias) -> np.ndarray:
        _, (face,) = self._pipeline.find_faces([Photo.open(photo)], [[box]])
        goal = scale_points(face.landmarks[:, :2], face.crop.size)
        reach = _REACH * float(inter_ocular_distance(goal))
        total = np.zeros(face.crop.image.shape, np.float32)
        for index in self._nearest(photo, face.crop.image, face.mask):
            points = self._points[index]
            warp = Warp.from_handles(face.crop.size, points, goal - points, reach)
            total += warp.image(self._crops[index].astype(np.float32) / 255.0)
        average = np.rint(total * (255.0 / self._k)).astype(np.uint8)
        return paste_face(photo, average, face.crop.matrix, face.mask)

    def _nearest(self, photo: np.ndarray, crop: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """int [k]: the reference faces that are most like a crop within a mask; the photo itself is none of them."""
        difference = np.square(self._thumbnails - _thumbnail(crop)).sum(-1)
        distances = (difference * cv2.resize(mask, (_THUMBNAIL,) * 2, interpolation=cv2.INTER_AREA)).sum((1, 2))
        others = np.array([not np.array_equal(each, photo) for each in self._crops])
        order = np.argsort(distances, kind="stable")
        nearest = order[others[order]][: self._k]
        if len(nearest) < self._k:
            raise ValueError(
                f"without the photo itself the reference set has {len(nearest)} faces, and {self._k} are to be "
                "averaged. Give a set of other people."
            )
        return nearest


def _thumbnail(crop: np.ndarray) -> np.ndarray:
    """A crop uint8 [S, S, 3] -> float32 [32, 32, 3]."""
    return cv2.resize(crop, (_THUMBNAIL,) * 2, interpolation=cv2.INTER_AREA).astype(np.float32)
