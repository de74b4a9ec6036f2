"""One eye seen close up: it is only about 30 x 10 px of a face crop, so what is on it is drawn four times as large."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import cv2
import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter

from ...faces.canvas import Canvas, EyeSide, smoothstep
from ...faces.eyeball import IRIS_RADIUS, check_in_sight
from ...manifestations.taxonomy import Side

Lid = Literal["upper", "lower"]

_MAGNIFICATION = 4  # of a 256 px crop; a larger one shows more by itself
_FINEST_STROKE = 1.4  # fine pixels
_LIMBUS_WIDTH = 0.16  # of the radius, to either side: how far the step from iris to white is spread
_PUPIL_WIDTH = 0.14
_PUPIL_CONTRAST = 8.0  # in lightness
_LANDMARK_TRUST = 40.0  # lightness lost for a move by a whole radius, squared
_LIMBUS_SECTOR = 0.75  # radians above and below the horizontal: further up the lid's shadow passes for the iris


class CloseUp:
    """An eye in its own coordinates.

    Millimetres are measured by the iris, which is 11.7 mm wide in nearly everybody. x runs from the outer to the inner
    canthus and y downwards, from the middle of the iris. Fine maps are float32 [H, W] at four times the size of a
    256 px crop; `shrink` brings them to the picture, antialiased.

    Args:
        canvas (`Canvas`):
            The face.
        side (`str`):
            `"left"` or `"right"`, the patient's own.

    Attributes:
        centre (`np.ndarray`): float [2], the middle of the iris in pixels of the picture.
        radius (`float`): of the iris, in pixels of the picture.
        mm (`float`): Pixels of the picture in a millimetre.
        nasal, down (`np.ndarray`): float [2], the unit vectors of x and y in the picture.

    Raises:
        `NotVisibleError`: if the eye is turned out of sight.
    """

    def __init__(self, canvas: Canvas, side: Side):
        if side == "both":
            raise ValueError("`side` must be 'left' or 'right', but is 'both'. Look at one eye at a time.")
        check_in_sight(canvas, side)
        self.canvas = canvas
        self._scale = max(2, round(_MAGNIFICATION / canvas.px))
        eye = canvas.eye(side)
        across = eye.inner - eye.outer
        self.nasal = across / np.linalg.norm(across)
        self.down = np.array([-self.nasal[1], self.nasal[0]])
        if self.down[1] < 0:
            self.down = -self.down
        reach = eye.width * np.array([1.05, 0.95])
        middle = eye.contour.mean(0)
        self._low = np.clip(np.floor(middle - reach), 0, canvas.size - 1).astype(int)
        self._high = np.clip(np.ceil(middle + reach), self._low + 1, canvas.size).astype(int)
        self.side: EyeSide = side
        self._eye = eye
        self._from_lid: dict[Lid, np.ndarray] = {}
        self.centre, self.radius = eye.centre, eye.radius
        self.centre, self.radius = self._fit_limbus()
        self.mm = self.radius / IRIS_RADIUS

    @property
    def cornea(self) -> float:
        """Radius of the limbus in millimetres."""
        return IRIS_RADIUS

    # Place

    @property
    def _window(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that are seen."""
        return slice(self._low[1], self._high[1]), slice(self._low[0], self._high[0])

    @cached_property
    def _fine_xy(self) -> np.ndarray:
        """float32 [H, W, 2]: the fine pixels' places in pixels of the picture."""
        axes = [
            low - 0.5 + (np.arange((high - low) * self._scale) + 0.5) / self._scale
            for low, high in zip(self._low, self._high, strict=True)
        ]
        return np.stack(np.meshgrid(*axes), -1).astype(np.float32)

    @cached_property
    def xy(self) -> np.ndarray:
        """float32 [H, W, 2]: the fine pixels' places in millimetres."""
        return self.to_mm(self._fine_xy).astype(np.float32)

    @cached_property
    def from_limbus(self) -> np.ndarray:
        """Fine map: distance from the limbus in millimetres, negative on the cornea."""
        return np.hypot(self.xy[..., 0], self.xy[..., 1]) - self.cornea

    def to_mm(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 2] in pixels of the picture in the eye's coordinates."""
        return (points - self.centre) @ np.stack([self.nasal, self.down], 1) / self.mm

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 2] in the eye's coordinates in pixels of the picture."""
        return np.asarray(points) @ np.stack([self.nasal, self.down]) * self.mm + self.centre

    def margin(self, lid: Lid, x: np.ndarray) -> np.ndarray:
        """Height y of the margin of the `"upper"` or `"lower"` lid at places x, in mm; level beyond the canthi."""
        return np.interp(x, *self._margins[lid])

    @cached_property
    def _margins(self) -> dict[Lid, tuple[np.ndarray, np.ndarray]]:
        margins: dict[Lid, tuple[np.ndarray, np.ndarray]] = {}
        contours: dict[Lid, np.ndarray] = {"upper": self._eye.upper, "lower": self._eye.lower}
        for lid, contour in contours.items():
            points = self.to_mm(contour)
            points = points[np.argsort(points[:, 0])]
            points = points[np.r_[True, np.diff(points[:, 0]) > 0.05]]
            x = np.linspace(points[0, 0], points[-1, 0], 100)
            margins[lid] = x, CubicSpline(*points.T)(x)
        return margins

    @cached_property
    def inner(self) -> np.ndarray:
        """float [2]: the inner canthus in millimetres."""
        return self.to_mm(self._eye.inner)

    @cached_property
    def outer(self) -> np.ndarray:
        """float [2]: the outer canthus in millimetres."""
        return self.to_mm(self._eye.outer)

    def _gap(self, lid: Lid) -> np.ndarray:
        """Fine map: how far up from the margin of the upper lid, or down from that of the lower one, in millimetres."""
        gap = self.xy[..., 1] - self.margin(lid, self.xy[..., 0])
        return (-gap if lid == "upper" else gap).astype(np.float32)

    def from_lid(self, lid: Lid) -> np.ndarray:
        """Fine map: distance from the margin of the `"upper"` or `"lower"` lid in mm, negative over the eye."""
        if lid not in self._from_lid:
            line = self._stroked([np.stack(self._margins[lid], 1)], 1)
            distance = cv2.distanceTransform((line < 0.5).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            self._from_lid[lid] = np.sign(self._gap(lid)) * distance / np.float32(self._scale * self.mm)
        return self._from_lid[lid]

    # What is seen

    @cached_property
    def between_lids(self) -> np.ndarray:
        """Fine map: the opening between the lids."""
        x = self.xy[..., 0]
        inside = (x > self.outer[0]) & (x < self.inner[0])
        # The contour runs along the inner edge of the lower lid; the eye goes on to behind it.
        upper = smoothstep(self._gap("upper"), 0.2, -0.2)
        lower = smoothstep(self._gap("lower"), 0.6, 0.1)
        return inside * upper * lower

    @cached_property
    def lightness(self) -> np.ndarray:
        """Fine map: CIELAB lightness."""
        return self.enlarge(self.canvas.lab[..., 0])

    @cached_property
    def white(self) -> np.ndarray:
        """Fine map: the visible white of the eye, without lashes and the edge of the lids."""
        return self.between_lids * smoothstep(self.from_limbus, -0.5, 0.1) * self.pale

    @cached_property
    def pale(self) -> np.ndarray:
        """Fine map: what is bright enough to be the white of the eye in this light, not lashes."""
        inside = (self.between_lids > 0.5) & (self.from_limbus > 0)
        if not inside.any():
            return np.zeros_like(self.lightness)
        bright = np.percentile(self.lightness[inside], 85)
        return smoothstep(self.lightness, 0.36 * bright, 0.56 * bright)

    def square_mm(self, fine: np.ndarray) -> float:
        """Area of a fine map in square millimetres."""
        return float(fine.sum()) / (self._scale * self.mm) ** 2

    @cached_property
    def glint(self) -> np.ndarray:
        """Map [S, S] of the picture: highlights of the wet surface, which lie above whatever is in it."""
        lightness = self.canvas.lab[..., 0]
        white = self.shrink(self.white)
        level = np.percentile(lightness[white > 0.5], 90) if (white > 0.5).any() else 70.0
        around = gaussian_filter(lightness, 1.6 * self.mm)
        spark = smoothstep(lightness - around, 10.0, 22.0) * smoothstep(lightness, 0.75 * level, 0.95 * level)
        on_cornea = self.shrink((self.from_limbus < -0.8).astype(np.float32) * self.between_lids)
        beyond = smoothstep(lightness, 1.08 * level, 1.25 * level) * self.shrink(self.between_lids)
        return np.maximum(spark * on_cornea, beyond)

    @cached_property
    def white_colour(self) -> np.ndarray:
        """float [3]: sRGB of the white where it is lit."""
        level = self.canvas.image.mean(-1)
        inside = self.shrink(self.white) > 0.5
        if not inside.any():
            return np.full(3, 0.6)
        return np.median(self.canvas.image[inside & (level >= np.median(level[inside]))], axis=0)

    @cached_property
    def plain_white(self) -> np.ndarray:
        """float32 [S, S, 3]: the white's own colour and shade without its vessels, carried on evenly over the iris."""
        # Darker towards the lid or the canthus that shades it: an even slope, held flat where few pixels tell it.
        weight = self.shrink(self.white)[self._window].ravel()
        weight = weight / max(float(weight.sum()), 1e-6)
        x, y = (np.arange(low, high) for low, high in zip(self._low, self._high, strict=True))
        place = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
        place = np.clip(self.to_mm(place) / (2 * IRIS_RADIUS), -1.2, 1.2)
        ratio = self.canvas.image[self._window].mean(-1).ravel() / self.white_colour.mean() - 1.0
        normal = place.T @ (place * weight[:, None]) + np.diag([0.1, 0.04])
        slope = np.linalg.solve(normal, place.T @ (weight * ratio))
        shade = np.ones((self.canvas.size, self.canvas.size, 1))
        shade[self._window] = np.clip(1.0 + place @ slope, 0.7, 1.1).reshape(len(y), len(x), 1)
        return (self.white_colour * shade).astype(np.float32)

    # Drawing

    def enlarge(self, picture: np.ndarray) -> np.ndarray:
        """The part of a picture [S, S, ...] around the eye as a fine map."""
        part = picture[self._window]
        height, width = self._fine_xy.shape[:2]
        return cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC)

    def shrink(self, fine: np.ndarray) -> np.ndarray:
        """A fine map as float32 [S, S] of the picture, 0 outside of the close-up."""
        result = np.zeros((self.canvas.size, self.canvas.size), np.float32)
        part = result[self._window]
        part[:] = cv2.resize(fine.astype(np.float32), part.shape[::-1], interpolation=cv2.INTER_AREA)
        return result

    def noise(self, scale: float, rng: np.random.Generator, octaves: int = 3) -> np.ndarray:
        """Fine map of fractal noise of mean 0 and deviation about 1; its largest features are `scale` mm wide."""
        total = np.zeros(self.xy.shape[:2], np.float32)
        for octave in range(octaves):
            cell = scale / 2**octave
            knots = rng.standard_normal((int(80 / cell) + 4,) * 2).astype(np.float32)
            place = (self.xy + 40.0) / cell + 1.0
            total += 0.5**octave * cv2.remap(knots, place[..., 0], place[..., 1], cv2.INTER_CUBIC)
        return total / np.sqrt(sum(0.25**octave for octave in range(octaves))) / 0.75

    def strokes(self, ways: list[np.ndarray], width: float) -> np.ndarray:
        """Fine map of lines through points [N, 2] in millimetres, `width` millimetres wide (at most about 1.3)."""
        wanted = width * self.mm * self._scale
        # Smoothed lines of OpenCV's thickness 1, 2, 3 are 1.4, 3.4, 5.4 px wide. What is thinner is drawn fainter.
        thickness = int(np.clip(round((wanted - _FINEST_STROKE) / 2) + 1, 1, 3))
        return self._stroked(ways, thickness) * min(1.0, wanted / _FINEST_STROKE)

    def _stroked(self, ways: list[np.ndarray], thickness: int) -> np.ndarray:
        fine = np.zeros(self.xy.shape[:2], np.uint8)
        for way in ways:
            place = (self.to_pixels(way) - self._low + 0.5) * self._scale - 0.5
            cv2.polylines(fine, [np.rint(place * 16).astype(np.int32)], False, 255, thickness, cv2.LINE_AA, 4)
        return fine.astype(np.float32) / 255.0

    def _fit_limbus(self) -> tuple[np.ndarray, float]:
        """Centre and radius of the iris where the picture steps from dark to light most; landmarks may be 1 px off."""
        turn = np.linspace(-_LIMBUS_SECTOR, _LIMBUS_SECTOR, 13)
        shift, radius = np.linspace(-0.14, 0.14, 7), np.linspace(0.82, 1.14, 17)
        rise = sum(
            # One by one, so that a sharp step on one side makes up for none on the other.
            np.maximum(self._rise(shift[:, None] * [1.0, 0.0], radius, turn + towards, _LIMBUS_WIDTH), 0.0)
            for towards in (0.0, np.pi)
        )
        score = rise - _LANDMARK_TRUST * ((radius - 1.0) ** 2 + shift[:, None] ** 2)
        best = np.unravel_index(score.argmax(), score.shape)
        return self.centre + shift[best[0]] * self.radius * self.nasal, float(radius[best[1]] * self.radius)

    def pupil(self) -> tuple[np.ndarray, float] | None:
        """Centre [2] and radius of the dark disc in the iris in mm; `None` if it cannot be told from the iris."""
        # Below the middle only: the reflections of windows and lamps lie above.
        turn = np.linspace(0.1, np.pi - 0.1, 17)
        step = np.linspace(-0.12, 0.12, 5)
        shift = np.stack(np.meshgrid(step, step), -1).reshape(-1, 2)
        radius = np.linspace(0.3, 0.6, 13)
        rise = self._rise(shift, radius, turn, _PUPIL_WIDTH)
        best = np.unravel_index((rise - 40.0 * (shift**2).sum(1)[:, None]).argmax(), rise.shape)
        if rise[best] < _PUPIL_CONTRAST:
            return None
        return shift[best[0]] * self.cornea, float(radius[best[1]] * self.cornea)

    def _rise(self, shift: np.ndarray, radius: np.ndarray, turn: np.ndarray, width: float) -> np.ndarray:
        """By how much the lightness rises outwards over circles around the middle of the iris, where the eye is open.

        Args:
            shift (`np.ndarray`):
                float [K, 2]: centres in radii of the iris, towards the nose and down.
            radius (`np.ndarray`):
                float [R], in radii of the iris.
            turn (`np.ndarray`):
                float [A]: the directions looked at in radians, from the nose to below.
            width (`float`):
                How far inside and outside of the circle the lightness is taken, in radii of the iris.

        Returns:
            `np.ndarray`: float [K, R].
        """
        frame = np.stack([self.nasal, self.down]) * self.radius
        ray = np.stack([np.cos(turn), np.sin(turn)], 1) @ frame
        edge = self.centre + (shift @ frame)[:, None, None] + radius[:, None, None] * ray

        def sample(picture: np.ndarray, place: np.ndarray) -> np.ndarray:
            flat = place.reshape(-1, len(turn), 2).astype(np.float32)
            return cv2.remap(picture, flat[..., 0], flat[..., 1], cv2.INTER_LINEAR).reshape(place.shape[:-1])

        lightness = self.canvas.lab[..., 0]
        rise = sample(lightness, edge + width * ray) - sample(lightness, edge - width * ray)
        seen = sample(self.canvas.aperture(self.side), edge) > 0.95
        return (rise * seen).sum(-1) / np.maximum(seen.sum(-1), len(turn) / 3)
