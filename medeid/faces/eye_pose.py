"""The lids, the brow and the eyeball moved: the picture and the landmarks alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from .canvas import smoothstep
from .eyeball import EDGE_WIDTH, EyeLayers
from .mesh import LEFT_EYE, LEFT_IRIS, RIGHT_EYE, RIGHT_IRIS
from .pigments import emboss

_SURFACE = 468  # points of the mesh that lie on the skin
_FIXED_POINT_STEPS = 20  # the magnification changes by a tenth of a pixel a pixel
_STIFF = 1.2  # mm of lid that move with the margin as one: the lashes
_STRETCHED = 1.7  # skin of at least so many times a lid's way takes it up, lest it fold


@dataclass(frozen=True)
class Pose:
    """How an eye is set, relative to the picture. Lengths in mm, downwards.

    Args:
        upper, lower (`np.ndarray` or `float`, *optional*, defaults to 0):
            How far the margin of a lid moves, float32 [w], at every column.
        turn (`tuple[float, float]`, *optional*, defaults to (0, 0)):
            By how many degrees the eyeball turns towards the nose and downwards.
        brow (`float`, *optional*, defaults to 0):
            How far the brow moves.
        bulge (`float`, *optional*, defaults to 0):
            By what share the eye and the skin around it are magnified, as they come nearer.
        fullness (`float`, *optional*, defaults to 0):
            How far the lids are pushed forwards.
    """

    upper: np.ndarray | float = 0.0
    lower: np.ndarray | float = 0.0
    turn: tuple[float, float] = (0.0, 0.0)
    brow: float = 0.0
    bulge: float = 0.0
    fullness: float = 0.0


class PosedEye:
    """An eye in another pose.

    Maps and lines are in the work pixels of the layers.

    Args:
        layers (`EyeLayers`):
            The eye as it is.
        pose (`Pose`):
            How it is to be.
    """

    def __init__(self, layers: EyeLayers, pose: Pose):
        self.layers, self.pose = layers, pose
        nothing = np.zeros(layers.width, np.float32)
        self._up = (pose.upper * layers.mm + nothing).astype(np.float32)
        self._down = (pose.lower * layers.mm + nothing).astype(np.float32)
        self.upper, self.lower = layers.upper + self._up, layers.lower + self._down

    # Movement: how far downwards what is now at a pixel has come, in work pixels

    @cached_property
    def _over(self) -> np.ndarray:
        """Of the skin from the upper lid to the forehead."""
        eye = self.layers
        brow = eye.brow + eye.mm  # the hairs reach beyond the landmarks
        return self._along_skin(self._up, self.upper - eye.y, self.upper - brow) + self._brow_movement

    @cached_property
    def _under(self) -> np.ndarray:
        """Of the skin from the lower lid to the cheek."""
        eye = self.layers
        return self._along_skin(self._down, eye.y - self.lower, 0.45 * float(eye.inner[0] - eye.outer[0]))

    def _along_skin(self, moved: np.ndarray, away: np.ndarray, reach: np.ndarray | float) -> np.ndarray:
        """The lashes move with the margin; `away` from it the skin moves ever less and more evenly."""
        mm = self.layers.mm
        stiff = _STIFF * mm
        most = float(np.abs(moved).max())
        even = gaussian_filter1d(moved, 5.0 * mm, mode="nearest")
        even *= most / max(float(np.abs(even).max()), 1e-6)
        amount = moved + smoothstep(away, 0.0, 4.5 * mm) * (even - moved)
        along = (away - stiff) / (np.maximum(reach, _STRETCHED * most + stiff) - stiff)
        return (amount * (1.0 - _ramp(along))).astype(np.float32)

    @property
    def _brow_movement(self) -> np.ndarray:
        eye, mm = self.layers, self.layers.mm
        top, bottom = float(eye.brow_top.mean()), float(eye.brow.mean())
        above = smoothstep(eye.y, max(top - 13.0 * mm, 0.0), top - mm)
        below = smoothstep(eye.y, float(self.upper.min()) - mm, bottom + mm)
        width = float(eye.inner[0] - eye.outer[0])
        from_end = np.minimum(eye.x - eye.outer[0], eye.inner[0] - eye.x) + 0.43 * width
        beside = smoothstep(from_end, 0.0, 9.0 * mm)
        return (self.pose.brow * mm * above * below * beside).astype(np.float32)

    @cached_property
    def _magnified(self) -> tuple[np.ndarray, np.ndarray]:
        """Two maps: how far to the right and downwards the magnification moves what is now at a pixel."""
        eye = self.layers
        centre = 0.5 * (eye.outer + eye.inner)
        room = min(*centre, eye.width - 1 - centre[0], eye.height - 1 - centre[1])
        x, y = (eye.x - centre[0]).astype(np.float32), (eye.y - centre[1]).astype(np.float32)
        near = np.clip(1.0 - (x**2 + y**2) / room**2, 0.0, None) ** 2
        share = (self.pose.bulge * near).astype(np.float32)
        return share * x, share * y

    # Picture

    @cached_property
    def _cover(self) -> tuple[np.ndarray, np.ndarray]:
        """Two maps: what the upper and what the lower lid covers."""
        eye = self.layers
        half = 0.5 * EDGE_WIDTH * eye.mm * self._depth + 0.25
        upper = smoothstep((eye.upper_edge + self._up - eye.y) / half, -1.0, 1.0)
        lower = smoothstep((eye.y - eye.lower_edge - self._down) / half, -1.0, 1.0)
        return upper.astype(np.float32), lower.astype(np.float32)

    @property
    def _depth(self) -> np.ndarray:
        """Line: 0 at the canthi, where the lids meet, and 1 where there is an eyeball between them."""
        return np.minimum(self.layers.open / 3.0, 1.0)

    @cached_property
    def opening(self) -> np.ndarray:
        """Map: what is seen between the lids."""
        upper, lower = self._cover
        inside = smoothstep(self._depth, 0.0, 0.3)
        return self._nearer((1.0 - upper) * (1.0 - lower) * inside)

    def area(self, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        """float32 [S, S]: what lies between two lines and the canthi."""
        eye = self.layers
        half = 0.5 * eye.scale
        inside = smoothstep(eye.y - top, -half, half) * smoothstep(bottom - eye.y, -half, half) * (eye.open > 0)
        return eye.reduced(self._nearer(inside.astype(np.float32)))

    def _upper_skin(self) -> tuple[np.ndarray, np.ndarray]:
        """The skin from the upper lid upwards, and a map of where it was stretched much."""
        eye = self.layers
        # At its very edge the picture blends the lid with the white; and what is mirrored is not on the lid.
        last = np.where(self._depth > 0, eye.upper_edge - 0.7 * eye.mm * self._depth, np.inf)
        source = np.minimum(eye.y - self._over, last)
        bare = eye.picture - eye.glint
        skin = eye.sample(bare, eye.x, source)
        stretched = smoothstep(np.gradient(self._over, axis=0), 0.3, 0.55)
        if not stretched.any():
            return skin, stretched
        # Skin that unfolds is smooth: a hair or a pore must not become a streak.
        smooth = cv2.GaussianBlur(bare, (0, 0), 2.0 * eye.mm, sigmaY=0.3 * eye.mm)
        return skin + stretched[..., None] * (eye.sample(smooth, eye.x, source) - skin), stretched

    def _lower_skin(self) -> np.ndarray:
        eye = self.layers
        first = np.where(self._depth > 0, eye.lower_edge + 0.45 * eye.mm * self._depth, -np.inf)
        return eye.sample(eye.picture, eye.x, np.maximum(eye.y - self._under, first))

    def image(self, rng: np.random.Generator) -> np.ndarray:
        """The whole picture float32 [S, S, 3] with the eye in this pose; what is drawn anew gets its grain."""
        eye = self.layers
        on_upper, on_lower = self._cover
        globe = eye.eyeball(self.pose.turn) * eye.shadow(eye.upper_edge + self._up)
        globe = globe + eye.caruncle * (eye.picture - globe)
        result = globe + on_lower[..., None] * (self._lower_skin() - globe)
        skin, stretched = self._upper_skin()
        result = result + on_upper[..., None] * (skin - result)
        new = (1.0 - eye.clean_sclera) * (1.0 - on_upper) * (1.0 - on_lower) + stretched * on_upper
        if self.pose.bulge:
            result = self._nearer(result)
        if self.pose.fullness:
            result = self._filled(result)
        grain = _grain(eye) * rng.standard_normal((eye.canvas.size,) * 2).astype(np.float32)
        changed = eye.reduced(result - eye.picture)
        return eye.canvas.image + changed + (grain * eye.reduced(new))[..., None]

    def _nearer(self, work: np.ndarray) -> np.ndarray:
        if not self.pose.bulge:
            return work
        right, down = self._magnified
        return self.layers.sample(work, self.layers.x - right, self.layers.y - down)

    def _filled(self, work: np.ndarray) -> np.ndarray:
        """Lids pushed forwards: their hollows filled, shaded as a dome."""
        eye, mm = self.layers, self.layers.mm
        centre = 0.5 * (eye.outer + eye.inner)
        half = 0.5 * float(eye.inner[0] - eye.outer[0])
        across = ((eye.x - centre[0]) / (1.15 * half)) ** 2
        up = np.minimum((eye.y - centre[1]) / (centre[1] - eye.brow.mean()), 0.0) ** 2
        down = np.maximum((eye.y - centre[1]) / (1.2 * half), 0.0) ** 2
        dome = np.clip(1.0 - across - up - down, 0.0, 1.0)
        skin = (1.0 - self.opening)[..., None]
        shade = cv2.GaussianBlur(work, (0, 0), 2.0 * mm)
        hollow = np.maximum(cv2.GaussianBlur(work, (0, 0), 6.0 * mm) - shade, 0.0)
        fat = smoothstep(self.upper - eye.y, 2.5 * mm, 5.0 * mm)[..., None] * smoothstep(dome, 0.0, 0.3)[..., None]
        full = work + min(0.6 * self.pose.fullness, 0.8) * fat * hollow
        light = eye.canvas.light * ([-1.0, 1.0] if eye.side == "left" else [1.0, 1.0])
        height = self.pose.fullness * mm * smoothstep(dome, 0.0, 0.7).astype(np.float32)
        return work + skin * (emboss(np.clip(full, 0.0, 1.0).astype(np.float32), height, light) - work)

    # Landmarks

    @property
    def landmarks(self) -> np.ndarray:
        """float32 [478, 3] in pixels of the 256 px crop: moved exactly as the picture is."""
        eye = self.layers
        contour, iris = (LEFT_EYE, LEFT_IRIS) if eye.side == "left" else (RIGHT_EYE, RIGHT_IRIS)
        before = eye.to_work(eye.canvas.points)
        points = before.copy()
        inside: np.ndarray = np.all((points >= 0) & (points <= [eye.width - 1, eye.height - 1]), axis=1)
        inside[_SURFACE:] = False
        column = np.clip(np.rint(points[:, 0]), 0, eye.width - 1).astype(int)
        upper: np.ndarray = points[:, 1] < 0.5 * (eye.upper + eye.lower)[column]
        upper[list(contour[1:8])] = True
        upper[list(contour[9:])] = False
        for chosen, field in ((inside & upper, self._over), (inside & ~upper, self._under)):
            points[chosen] = self._carried_down(points[chosen], field)
        shift, squeeze = eye.turned(self.pose.turn)
        disc = points[list(iris)]
        points[list(iris)] = disc[0] + shift + (disc - disc[0]) * squeeze
        if self.pose.bulge:
            inside[list(iris)] = True
            points[inside] = self._carried_outwards(points[inside])
        landmarks = eye.canvas.landmarks.copy()
        moved = np.abs(points - before).max(1) > 1e-3  # what stays keeps its very number
        landmarks[moved, :2] = (eye.from_work(points[moved]) + 0.5) / eye.canvas.px - 0.5
        return landmarks

    def _carried_down(self, points: np.ndarray, field: np.ndarray) -> np.ndarray:
        """Points [N, 2] after a movement: the field says whence a pixel came, a point asks where to it goes."""
        rows = self.layers.y[:, 0]
        source = np.maximum.accumulate(rows - self.layers.sample(field, points[:, :1], rows[None, :]), axis=1)
        heights = [np.interp(y, came, rows) for y, came in zip(points[:, 1], source, strict=True)]
        return np.stack([points[:, 0], np.array(heights)], -1)

    def _carried_outwards(self, points: np.ndarray) -> np.ndarray:
        place = points
        for _ in range(_FIXED_POINT_STEPS):
            at = place[:, 0][None], place[:, 1][None]
            place = points + np.stack([self.layers.sample(field, *at)[0] for field in self._magnified], -1)
        return place


def _grain(eye: EyeLayers) -> float:
    """Standard deviation of the picture's noise, from the skin below the eye."""
    skin = eye.picture[int(eye.lower.max()) :].mean(-1)
    fine = skin - cv2.GaussianBlur(skin, (0, 0), eye.scale)
    return min(1.48 * float(np.median(np.abs(fine))), 0.01)


def _ramp(value: np.ndarray) -> np.ndarray:
    """From 0 at 0 to 1 at 1, straight but for soft ends: the gentlest slope there can be."""
    end = 0.2
    t = np.clip(value, 0.0, 1.0)
    slope = 1.0 / (1.0 - end)
    low, high = 0.5 * slope / end * t**2, 1.0 - 0.5 * slope / end * (1.0 - t) ** 2
    return np.where(t < end, low, np.where(t > 1.0 - end, high, slope * (t - 0.5 * end)))
