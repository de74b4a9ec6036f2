"""Movement of skin: a smooth field that carries the picture and its landmarks alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial.distance import cdist

from .canvas import Canvas, EyeSide, smoothstep
from .mesh import LANDMARK_SIZE, MIRROR, OUTER_EYE_CORNERS

_LATTICE = 112  # nodes along a side; the movements are smoother than that
_STEEPEST = 0.8  # a field that changes by less than one pixel a pixel cannot fold
_BEYOND = 0.3  # share of the reach by which a movement goes beyond the outermost points that move
_INVERSIONS = 20  # fixed-point steps; the error shrinks to `_STEEPEST` of itself or less in each


@dataclass(frozen=True)
class Warp:
    """Where the points of a picture go.

    Args:
        field (`np.ndarray`):
            float32 [112, 112, 2]: displacement (x, y) in pixels of the picture, on an even lattice over it.
        size (`int`):
            Side of the picture in pixels.
    """

    field: np.ndarray
    size: int

    @classmethod
    def from_handles(cls, size: int, handles: np.ndarray, moves: np.ndarray, reach: float) -> Warp:
        """The smooth field that moves some points as told, and nothing beyond `reach` of them.

        The interpolation is by radial functions of compact support (Wendland, "Piecewise polynomial, positive definite
        and compactly supported radial functions of minimal degree", 1995), and weakened as a whole where it would fold.

        Args:
            size (`int`):
                Side of the picture in pixels.
            handles (`np.ndarray`):
                float [N, 2]: points in pixels; those with a move of zero are held fast.
            moves (`np.ndarray`):
                float [N, 2]: how far each goes, in pixels.
            reach (`float`):
                In pixels: how far a handle takes its surroundings along.
        """
        handles = np.asarray(handles, np.float64)
        # The ridge keeps near handles with unlike moves from tearing at each other.
        system = _wendland(cdist(handles, handles) / reach) + 1e-2 * np.eye(len(handles))
        weights = np.linalg.solve(system, np.asarray(moves, np.float64))
        axis = (np.arange(_LATTICE) + 0.5) * size / _LATTICE - 0.5
        low, high = handles.min(0) - reach, handles.max(0) + reach
        columns = np.flatnonzero((axis >= low[0]) & (axis <= high[0]))
        rows = np.flatnonzero((axis >= low[1]) & (axis <= high[1]))
        nodes = np.stack(np.meshgrid(axis[columns], axis[rows]), -1)
        field = np.zeros((_LATTICE, _LATTICE, 2), np.float32)
        distance = cdist(nodes.reshape(-1, 2), handles).astype(np.float32)
        part = _wendland(distance / np.float32(reach)) @ weights.astype(np.float32)
        field[np.ix_(rows, columns)] = part.reshape(nodes.shape)
        return cls(field, size)._unfolded()

    @classmethod
    def of_face(
        cls,
        canvas: Canvas,
        side: EyeSide,
        moves: Mapping[int, tuple[float, float] | np.ndarray],
        held: Iterable[int],
        reach: float,
    ) -> Warp:
        """A movement of points of the mesh within the oval of the face.

        Args:
            canvas (`Canvas`):
                The face.
            side (`str`):
                `"left"` or `"right"`: the half of the face that is meant; the indices are those of the right one.
            moves (`Mapping[int, tuple[float, float]]`):
                Outwards on that half, and downwards, in inter-ocular distances, for each point that moves.
            held (`Iterable[int]`):
                Points that stay.
            reach (`float`):
                See `from_handles`, in inter-ocular distances.
        """
        outwards, down = axes(canvas, side)
        going = [own_point(index, side) for index in moves]
        staying = [index for index in dict.fromkeys(own_point(index, side) for index in held) if index not in going]
        shifts = np.array(list(moves.values())) @ np.stack([outwards, down])
        shifts = np.concatenate([shifts, np.zeros((len(staying), 2))])
        warp = cls.from_handles(canvas.size, canvas.points[going + staying], shifts, reach * canvas.iod)
        # Beyond the points that are held the field swings over; hair and background stay.
        hull = cv2.convexHull(canvas.points[going].astype(np.float32)).reshape(-1, 2)
        coarse = (_LATTICE, _LATTICE)
        beyond = cv2.resize(canvas.polygon(hull), coarse, interpolation=cv2.INTER_AREA) < 0.5
        column, row = np.clip((hull + 0.5) * _LATTICE / canvas.size, 0, _LATTICE - 1).astype(int).T
        beyond[row, column] = False  # a hull may be too thin to show
        distance = cv2.distanceTransform(beyond.astype(np.uint8), cv2.DIST_L2, 5)
        limit = _BEYOND * reach * canvas.iod * _LATTICE / canvas.size
        near = smoothstep(distance, 1.3 * limit, 0.7 * limit)
        near = near * cv2.resize(canvas.region("oval"), coarse, interpolation=cv2.INTER_AREA)
        return cls(warp.field * cv2.GaussianBlur(near, (0, 0), 1.5)[..., None], canvas.size)._unfolded()

    def __add__(self, other: Warp) -> Warp:
        return Warp(self.field + other.field, self.size)._unfolded()

    def _unfolded(self) -> Warp:
        step = self.size / _LATTICE
        down, right = np.gradient(self.field, axis=(0, 1))
        # The largest singular value of the Jacobian, in closed form.
        norm = (down**2 + right**2).sum(-1)
        volume = right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]
        largest = np.sqrt(0.5 * (norm + np.sqrt(np.clip(norm**2 - 4.0 * volume**2, 0.0, None))))
        steepest = float(largest.max()) / step
        return Warp(self.field * min(1.0, _STEEPEST / max(steepest, 1e-9)), self.size)

    def dense(self) -> np.ndarray:
        """How far every pixel moves, float32 [S, S, 2]."""
        return cv2.resize(self.field, (self.size, self.size), interpolation=cv2.INTER_LINEAR)

    def displacement(self, points: np.ndarray) -> np.ndarray:
        """How far points float [N, 2], in pixels of the picture, move: float32 [N, 2]."""
        place = ((np.asarray(points, np.float64) + 0.5) * _LATTICE / self.size - 0.5).T[::-1]
        moved = [map_coordinates(self.field[..., k], place, order=1, mode="nearest") for k in range(2)]
        return np.stack(moved, -1).astype(np.float32)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Points float [N, 2], in pixels of the picture, after the movement."""
        return points + self.displacement(points)

    def landmarks(self, canvas: Canvas) -> np.ndarray:
        """The landmarks of a face after the movement, float32 [478, 3] in pixels of the 256 px crop."""
        moved = canvas.landmarks.copy()
        moved[:, :2] += self.displacement(canvas.points) * (LANDMARK_SIZE / self.size)
        return moved

    def image(self, image: np.ndarray) -> np.ndarray:
        """The picture float32 [S, S, C] or [S, S] after the movement; what does not move keeps its values."""
        back = np.zeros_like(self.field)
        node = np.arange(_LATTICE, dtype=np.float32)
        per_step = _LATTICE / self.size
        for _ in range(_INVERSIONS):
            x, y = node[None, :] + back[..., 0] * per_step, node[:, None] + back[..., 1] * per_step
            back = -cv2.remap(self.field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        back = cv2.resize(back, (self.size, self.size), interpolation=cv2.INTER_LINEAR)
        pixel = np.arange(self.size, dtype=np.float32)
        x, y = pixel[None, :] + back[..., 0], pixel[:, None] + back[..., 1]
        moved = cv2.remap(image, x, y, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)
        return np.clip(moved, 0.0, 1.0)


def own_point(index: int, side: EyeSide) -> int:
    """The index of a point of the mesh on one half of the face, for that of its twin on the patient's right half."""
    return index if side == "right" else int(MIRROR[index])


def axes(canvas: Canvas, side: EyeSide) -> tuple[np.ndarray, np.ndarray]:
    """float [2] each: outwards on one half of the face, and downwards, one inter-ocular distance long, in pixels."""
    right = canvas.points[OUTER_EYE_CORNERS[1]] - canvas.points[OUTER_EYE_CORNERS[0]]
    return (right if side == "left" else -right), np.array([-right[1], right[0]])


def _wendland(r: np.ndarray) -> np.ndarray:
    """1 at 0, 0 from 1 on, twice differentiable."""
    square = np.square(np.clip(1.0 - r, 0.0, None))
    return square * square * (4.0 * r + 1.0)
