"""A face crop to paint on: what lies where, in units of the face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import cv2
import numpy as np
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import gaussian_filter

from .mesh import (
    CHIN,
    FOREHEAD,
    INNER_LIPS,
    LANDMARK_SIZE,
    LEFT_BROW,
    LEFT_EYE,
    LEFT_IRIS,
    NUM_LANDMARKS,
    OUTER_EYE_CORNERS,
    RIGHT_BROW,
    RIGHT_EYE,
    RIGHT_IRIS,
    Region,
    inter_ocular_distance,
    region_mask,
    scale_points,
)

EyeSide = Literal["left", "right"]
SkinTone = Literal["very_light", "light", "intermediate", "tan", "brown", "dark"]

NASION = 168
_SUPERSAMPLING = 4
_SUBPIXEL_BITS = 4
_UV_GRID = 64  # the mesh is coarser than this, so a finer grid would show nothing more

# Lower bounds of the individual typology angle in degrees (Chardon et al., "Skin colour typology and suntanning
# pathways", 1991).
_TONE_BOUNDS: tuple[tuple[float, SkinTone], ...] = (
    (55.0, "very_light"),
    (41.0, "light"),
    (28.0, "intermediate"),
    (10.0, "tan"),
    (-30.0, "brown"),
)


class NotVisibleError(ValueError):
    """What is to be painted cannot be seen: the eye is closed, the brow is under hair, the place is out of sight."""


def skin_tone_band(ita: float) -> SkinTone:
    """The band of an individual typology angle in degrees, from `"very_light"` to `"dark"`."""
    return next((band for bound, band in _TONE_BOUNDS if ita > bound), "dark")


def smoothstep(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth in between; falling if `low` > `high`."""
    t = np.clip((value - low) / ((high - low) or 1e-6), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def ellipse(radius: float) -> np.ndarray:
    """A round structuring element for OpenCV's morphology, `radius` pixels to either side."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(radius) + 1,) * 2)


@dataclass(frozen=True)
class Eye:
    """One eye, in pixels of the picture.

    Attributes:
        contour (`np.ndarray`): float32 [16, 2], the lid margin from the outer canthus over the upper lid.
        centre (`np.ndarray`): float32 [2], the middle of the iris.
        radius (`float`): of the iris.
        inner, outer (`np.ndarray`): float32 [2], the canthi.
    """

    contour: np.ndarray
    centre: np.ndarray
    radius: float

    @property
    def outer(self) -> np.ndarray:
        return self.contour[0]

    @property
    def inner(self) -> np.ndarray:
        return self.contour[8]

    @property
    def upper(self) -> np.ndarray:
        """The upper lid margin float32 [9, 2], from the outer to the inner canthus."""
        return self.contour[:9]

    @property
    def lower(self) -> np.ndarray:
        """The lower lid margin float32 [9, 2], from the outer to the inner canthus."""
        return np.concatenate([self.contour[:1], self.contour[:7:-1]])

    @property
    def width(self) -> float:
        return float(np.linalg.norm(self.outer - self.inner))

    @property
    def aperture(self) -> float:
        """The largest distance between the lids."""
        return float(np.linalg.norm(self.upper - self.lower, axis=1).max())


class Canvas:
    """A picture of one face with its landmarks, and what follows from them.

    All masks are float32 [S, S] in [0, 1], antialiased.

    Args:
        image (`np.ndarray`):
            float32 [S, S, 3], sRGB in [0, 1]: an aligned face crop.
        landmarks (`np.ndarray`):
            float32 [478, 3], in pixels of the 256 px crop.
    """

    def __init__(self, image: np.ndarray, landmarks: np.ndarray):
        self.image = image
        self.landmarks = landmarks
        self.size = image.shape[0]
        self.px = self.size / LANDMARK_SIZE
        self.points = scale_points(landmarks[:, :2], self.size).astype(np.float32)
        self.iod = float(inter_ocular_distance(self.points))

    def painted(self, image: np.ndarray) -> Canvas:
        """The same face with another picture; what was found out about its place and skin is kept.

        A lesion must not cease to be skin for the next one.
        """
        other = object.__new__(Canvas)
        other.__dict__.update(self.__dict__)
        other.__dict__.pop("lab", None)
        other.image = image
        return other

    # Colour

    @cached_property
    def lab(self) -> np.ndarray:
        """float32 [S, S, 3]: CIELAB under D65, L in [0, 100]."""
        return cv2.cvtColor(self.image, cv2.COLOR_RGB2LAB)

    @cached_property
    def skin_lab(self) -> np.ndarray:
        """float32 [3]: the median CIELAB of the skin of cheeks, nose and forehead."""
        inside = cv2.erode(self.region("skin"), np.ones((3, 3), np.uint8)) > 0.5
        if inside.sum() < 50:
            return np.median(self.lab.reshape(-1, 3), axis=0)
        chosen = self.lab[inside]
        # Without the shadows and the beard, and without the highlights.
        low, high = np.percentile(chosen[:, 0], [30, 95])
        return np.median(chosen[(chosen[:, 0] >= low) & (chosen[:, 0] <= high)], axis=0)

    @cached_property
    def ita(self) -> float:
        """Individual typology angle of the skin in degrees: arctan((L - 50) / b); high is light, negative dark."""
        return float(np.degrees(np.arctan2(self.skin_lab[0] - 50.0, self.skin_lab[2])))

    @cached_property
    def light(self) -> np.ndarray:
        """float32 [2]: unit vector in the picture from which side the light comes, from the shading of the skin."""
        weight = self.region("skin").ravel()
        y, x = np.mgrid[: self.size, : self.size].reshape(2, -1) / self.iod
        design = np.stack([x, y, np.ones_like(x)], 1)
        normal = design.T @ (design * weight[:, None]) + 1e-6 * np.eye(3)
        slope = np.linalg.solve(normal, design.T @ (weight * self.lab[..., 0].ravel()))[:2]
        slope = slope + np.array([0.0, -4.0])  # when in doubt, from above
        return (slope / np.linalg.norm(slope)).astype(np.float32)

    # Place

    @cached_property
    def uv(self) -> np.ndarray:
        """float32 [S, S, 2]: place on the face as seen from the front, in inter-ocular distances.

        The origin is the nasion, u grows to the image's right (the patient's left), v downwards. Beyond the mesh it
        goes on evenly. Patterns drawn over it turn with the head.
        """
        xyz = self.landmarks.astype(np.float64)
        right = xyz[OUTER_EYE_CORNERS[1]] - xyz[OUTER_EYE_CORNERS[0]]
        unit = np.linalg.norm(right)
        right /= unit
        down = xyz[CHIN] - xyz[FOREHEAD]
        down -= (down @ right) * right
        down /= np.linalg.norm(down)
        front = (xyz - xyz[NASION]) @ np.stack([right, down], 1) / unit

        surface = slice(0, 468)  # the irises lie behind the lids
        xy = self.points[surface].astype(np.float64)
        step = self.size / _UV_GRID
        axis = (np.arange(_UV_GRID) + 0.5) * step - 0.5
        grid = np.stack(np.meshgrid(axis, axis), -1)
        affine, *_ = np.linalg.lstsq(np.c_[xy, np.ones(len(xy))], front[surface], rcond=None)
        even = grid @ affine[:2] + affine[2]
        # What the mesh adds to the even map, fading outwards over the border of the picture.
        rest = front[surface] - (xy @ affine[:2] + affine[2])
        corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1], [0, -1], [0, 1], [-1, 0], [1, 0]]) * self.size * 1.5
        interpolate = LinearNDInterpolator(
            np.concatenate([xy, corners + self.size / 2]), np.concatenate([rest, np.zeros((len(corners), 2))])
        )
        return cv2.resize((even + interpolate(grid)).astype(np.float32), (self.size, self.size))

    def region(self, name: Region) -> np.ndarray:
        """A region of the mesh (see `medeid.faces.mesh.region_mask`), antialiased."""
        key = f"_region_{name}"
        if key not in self.__dict__:
            fine = region_mask(self.landmarks, name, self.size * _SUPERSAMPLING)
            self.__dict__[key] = cv2.resize(fine, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return self.__dict__[key]

    def polygon(self, points: np.ndarray) -> np.ndarray:
        """The inside of a polygon [N, 2] in pixels of the picture."""
        return self._draw(lambda fine, fixed: cv2.fillPoly(fine, [fixed(points)], 255, shift=_SUBPIXEL_BITS))

    def lines(self, ways: Sequence[np.ndarray], width: float) -> np.ndarray:
        """Lines through points [N, 2] each, `width` pixels wide (at least a quarter of a pixel)."""
        thickness = max(1, round(width * _SUPERSAMPLING))
        return self._draw(
            lambda fine, fixed: cv2.polylines(
                fine, [fixed(way) for way in ways], False, 255, thickness, shift=_SUBPIXEL_BITS
            )
        )

    def _draw(self, draw) -> np.ndarray:
        fine = np.zeros((self.size * _SUPERSAMPLING,) * 2, np.uint8)

        def fixed(points: np.ndarray) -> np.ndarray:
            points = np.asarray(points, np.float64)
            scaled = (points + 0.5) * _SUPERSAMPLING - 0.5
            return np.rint(scaled * (1 << _SUBPIXEL_BITS)).astype(np.int32).reshape(-1, 1, 2)

        draw(fine, fixed)
        return cv2.resize(fine, (self.size, self.size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0

    def disc(self, centre: np.ndarray, radius: float, softness: float = 1.0) -> np.ndarray:
        """A disc whose rim is `softness` pixels wide."""
        return np.clip((radius - self.distance(centre)) / softness + 0.5, 0.0, 1.0)

    def distance(self, centre: np.ndarray) -> np.ndarray:
        """Distance of every pixel from a point (x, y), in pixels, float32 [S, S]."""
        x = np.arange(self.size, dtype=np.float32) - centre[0]
        y = np.arange(self.size, dtype=np.float32) - centre[1]
        return np.hypot(x[None, :], y[:, None])

    # Skin

    @cached_property
    def skin(self) -> np.ndarray:
        """Visible skin of face, ears and neck: not eyes, brows, lips, nostrils, teeth, hair, glasses, background."""
        lab, base = self.lab, self.skin_lab
        inner = self.region("skin") > 0.5
        spread = np.maximum(1.48 * np.median(np.abs(lab[inner][:, 1:] - base[1:]), axis=0), 3.0)
        hue = np.sqrt((((lab[..., 1:] - base[1:]) / spread) ** 2).sum(-1))
        alike = smoothstep(hue, 5.0, 3.0)
        shade = gaussian_filter(lab[..., 0], 6 * self.px)
        dark = smoothstep(lab[..., 0] - np.minimum(shade, base[0]), -22.0, -12.0)
        dark = dark * smoothstep(lab[..., 0], base[0] * 0.35, base[0] * 0.55)
        skin = alike * dark * self._where_skin_can_be
        for name in ("left_eye", "right_eye", "lips"):
            skin = skin * (1.0 - cv2.dilate(self.region(name), np.ones((3, 3), np.uint8)))
        return np.clip(gaussian_filter(skin, 0.7 * self.px), 0.0, 1.0).astype(np.float32)

    @cached_property
    def _where_skin_can_be(self) -> np.ndarray:
        """The head and the neck: fair hair and walls may have the colour of skin."""
        face = self.region("face")
        u, v = self.uv[..., 0], self.uv[..., 1]
        chin_v = float(self.uv[tuple(self._pixel(self.points[CHIN])[::-1])][1])
        neck = smoothstep(np.abs(u), 0.62, 0.52) * smoothstep(v, chin_v - 0.25, chin_v - 0.1)
        ears = smoothstep(np.abs(u), 1.0, 0.9) * smoothstep(np.abs(v - 0.25), 0.4, 0.3)
        return np.maximum.reduce([cv2.dilate(face, ellipse(3 * self.px)), neck, ears])

    def _pixel(self, point: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(point), 0, self.size - 1).astype(int)

    # Eyes, brows, mouth

    def eye(self, side: EyeSide) -> Eye:
        contour, iris = (LEFT_EYE, LEFT_IRIS) if side == "left" else (RIGHT_EYE, RIGHT_IRIS)
        centre, rim = self.points[iris[0]], self.points[list(iris[1:])]
        return Eye(self.points[list(contour)], centre, float(np.linalg.norm(rim - centre, axis=1).mean()))

    def brow_points(self, side: EyeSide) -> np.ndarray:
        """float32 [10, 2]: upper edge inwards, lower edge back."""
        return self.points[list(LEFT_BROW if side == "left" else RIGHT_BROW)]

    def brow(self, side: EyeSide) -> np.ndarray:
        """The brow, as its contour has it."""
        return self.region("left_brow" if side == "left" else "right_brow")

    def aperture(self, side: EyeSide) -> np.ndarray:
        """What is seen between the lids."""
        return self.region("left_eye" if side == "left" else "right_eye")

    def sclera(self, side: EyeSide) -> np.ndarray:
        """The visible white of the eye, without the lashes' shadow."""
        eye = self.eye(side)
        open_part = self.aperture(side)
        white = open_part * (1.0 - self.disc(eye.centre, eye.radius))
        inside = white > 0.5
        if inside.sum() < 4:
            return white
        lightness = self.lab[..., 0]
        bright = np.percentile(lightness[inside], 80)
        return white * smoothstep(lightness, 0.38 * bright, 0.6 * bright)

    def mouth(self) -> np.ndarray:
        """The opening between the lips, with teeth and tongue."""
        return self.polygon(self.points[list(INNER_LIPS)])


def check_landmarks(landmarks: np.ndarray) -> None:
    """Raises a `ValueError` unless the landmarks are finite, of shape [478, 3], and of a face within the crop."""
    if landmarks.shape != (NUM_LANDMARKS, 3):
        raise ValueError(f"`landmarks` must have shape [{NUM_LANDMARKS}, 3], but has {list(landmarks.shape)}.")
    if not np.isfinite(landmarks).all():
        raise ValueError("`landmarks` must be finite, but holds NaN or infinity. Detect the face again.")
    centre = landmarks[:, :2].mean(0)
    if (centre < 0).any() or (centre > LANDMARK_SIZE).any() or inter_ocular_distance(landmarks) < 8:
        raise ValueError(
            f"`landmarks` must describe a face inside the {LANDMARK_SIZE} px crop, but their centre is "
            f"({centre[0]:.0f}, {centre[1]:.0f}). Give them in pixels of the aligned crop."
        )
