"""The eye as layers: an eyeball that is whole behind its lids, so that the lids can part and the gaze can turn.

An eye is 30 by 10 px of a crop, so it is taken apart at four times that size, with the nose on the right. Lengths are
in mm of the face: the visible iris is 11.7 mm wide in nearly everybody (Rüfer et al., "White-to-white corneal
diameter", 2005).
"""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter

from .canvas import Canvas, EyeSide, NotVisibleError, ellipse, smoothstep

IRIS_RADIUS = 5.85  # mm
IRIS_DEPTH = 9.8  # mm from the centre of rotation to the iris
EDGE_WIDTH = 0.9  # mm over which an edge of the eye is spread in such pictures

_ZOOM = 4  # work px of a pixel of the 256 px crop
_BACK_PROJECTIONS = 3
_SMALLEST_APERTURE = 0.12  # of the width of the eye
_SMALLEST_WIDTH = 0.17  # of the inter-ocular distance
_SMALLEST_IRIS = 0.02  # its radius, of the inter-ocular distance: a third of what it is
_DARK = 0.45  # of the skin's lightness; no shadow on a lower lid is as deep

_RIM = 0.5  # mm within the limbus, where the colours of the iris end
_ANGLES, _RADII = 128, 32  # of the iris in polar coordinates

_GLINT_DEPTH = 5.6  # mm from the centre of rotation to that of the cornea's curvature, where glints are

_SHADOW_REACH = 1.3  # mm below the upper lid
_SHADOW_STRENGTH = 0.4  # in units of log brightness, where it cannot be measured


class EyeLayers:
    """One eye of a face, enlarged and taken apart.

    Images are float32 [h, w, 3] and maps float32 [h, w], both in work pixels; lines along the lids are float32 [w],
    their height at every column.

    Args:
        canvas (`Canvas`):
            The face.
        side (`str`):
            `"left"` or `"right"`, the patient's own.
        above (`float`, *optional*, defaults to 2.0):
            How far the picture is needed above the brow, in mm.

    Attributes:
        picture: The eye as it is.
        mm: Work pixels in a millimetre.
        x, y: Coordinates of the columns float32 [w] and of the rows float32 [h, 1].
        outer, inner: float [2], the canthi.
        upper, lower, brow, brow_top: The lid margins and the brow's edges as the landmarks have them.

    Raises:
        `NotVisibleError`: if the eye is closed, covered, turned out of sight or cut off by the picture's edge.
    """

    def __init__(self, canvas: Canvas, side: EyeSide, above: float = 2.0):
        eye, brow = canvas.eye(side), canvas.brow_points(side)
        check_in_sight(canvas, side)
        if eye.aperture < _SMALLEST_APERTURE * eye.width:
            raise NotVisibleError(f"The {side} eye is closed; this sign needs it open.")
        if (eye.contour < 1).any() or (eye.contour > canvas.size - 2).any():
            raise NotVisibleError(f"The {side} eye is cut off by the edge of the picture.")
        mm = eye.radius / IRIS_RADIUS
        if _lightness_below(canvas, eye.lower[1:-1], mm) < _DARK * canvas.skin_lab[0]:
            raise NotVisibleError(f"The {side} eye is covered, by dark glasses or hair.")
        self.canvas, self.side, self._eye = canvas, side, eye
        self._flip = side == "left"
        self.scale = max(1, round(_ZOOM / canvas.px))
        low = np.minimum(eye.contour.min(0) - 0.45 * eye.width, [np.inf, brow[:, 1].min() - above * mm])
        high = eye.contour.max(0) + [0.45 * eye.width, 0.6 * eye.width]
        self._low = np.maximum(np.floor(low), 0).astype(int)
        self._high = np.minimum(np.ceil(high) + 1, canvas.size).astype(int)
        self.width, self.height = ((self._high - self._low) * self.scale).tolist()
        self.picture = self.enlarged(canvas.image)
        self.mm = mm * self.scale
        self.x = np.arange(self.width, dtype=np.float32)
        self.y = np.arange(self.height, dtype=np.float32)[:, None]
        self.outer, self.inner = self.to_work(eye.outer), self.to_work(eye.inner)
        self.upper, self.lower = (self.line_through(self.to_work(margin)) for margin in (eye.upper, eye.lower))
        self.brow_top, self.brow = (self.line_through(self.to_work(edge)) for edge in (brow[:5], brow[5:]))
        if self.open[self.pupil_column] < 1.0:
            raise NotVisibleError(f"The {side} eye looks so far aside that its pupil is out of sight.")

    # Between the picture and the work pixels

    def enlarged(self, image: np.ndarray) -> np.ndarray:
        """This part of a picture in work pixels, sharp: made small again, it gives the same pixels."""
        part = image[self._low[1] : self._high[1], self._low[0] : self._high[0]]
        size, small = (self.width, self.height), part.shape[1::-1]
        work = cv2.resize(part, size, interpolation=cv2.INTER_CUBIC)
        for _ in range(_BACK_PROJECTIONS):
            lost = part - cv2.resize(work, small, interpolation=cv2.INTER_AREA)
            work += cv2.resize(lost, size, interpolation=cv2.INTER_CUBIC)
        return np.ascontiguousarray(work[:, ::-1]) if self._flip else work

    def reduced(self, work: np.ndarray) -> np.ndarray:
        """An image or a map in pixels of the picture, zero outside of the close-up."""
        result = np.zeros((self.canvas.size, self.canvas.size, *work.shape[2:]), np.float32)
        part = np.ascontiguousarray(work[:, ::-1]) if self._flip else work
        small = tuple((self._high - self._low).tolist())
        part = cv2.resize(part, small, interpolation=cv2.INTER_AREA)
        result[self._low[1] : self._high[1], self._low[0] : self._high[0]] = part
        return result

    def to_work(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 2] from pixels of the picture to work pixels."""
        work = (np.asarray(points, np.float64) - self._low + 0.5) * self.scale - 0.5
        return self._flipped(work)

    def from_work(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 2] from work pixels to pixels of the picture."""
        return (self._flipped(points) + 0.5) / self.scale - 0.5 + self._low

    def _flipped(self, points: np.ndarray) -> np.ndarray:
        if not self._flip:
            return points
        return np.stack([self.width - 1 - points[..., 0], points[..., 1]], -1)

    def line_through(self, work: np.ndarray) -> np.ndarray:
        """The line through points [N, 2] in work pixels; level beyond its ends."""
        work = work[np.argsort(work[:, 0], kind="stable")]
        # A margin may turn back at the canthus of a turned head.
        columns = np.maximum.accumulate(work[:, 0]) + 1e-3 * np.arange(len(work))
        heights = PchipInterpolator(columns, work[:, 1])(np.clip(self.x, columns[0], columns[-1]))
        return heights.astype(np.float32)

    @staticmethod
    def sample(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """An image or a map at places in work pixels."""
        x, y = np.broadcast_arrays(np.float32(x), np.float32(y))
        x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
        return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    # What is where

    @property
    def open(self) -> np.ndarray:
        """float32 [w]: how far the lids are apart, in mm."""
        return np.maximum(self.lower - self.upper, 0.0) / self.mm

    @property
    def pupil_column(self) -> int:
        return int(np.clip(np.rint(self.to_work(self._eye.centre)[0]), 0, self.width - 1))

    @property
    def margin_distances(self) -> tuple[float, float]:
        """From the middle of the pupil up to the upper and down to the lower lid margin in mm (MRD1 and MRD2)."""
        height, column = self.to_work(self._eye.centre)[1], self.pupil_column
        return float(height - self.upper[column]) / self.mm, float(self.lower[column] - height) / self.mm

    @cached_property
    def _lab(self) -> np.ndarray:
        part = self.canvas.image[self._low[1] : self._high[1], self._low[0] : self._high[0]]
        lab = cv2.resize(cv2.cvtColor(part, cv2.COLOR_RGB2LAB), (self.width, self.height))
        return np.ascontiguousarray(lab[:, ::-1]) if self._flip else lab

    @cached_property
    def _lightness(self) -> np.ndarray:
        return np.ascontiguousarray(self._lab[..., 0])

    def _edge(self, line: np.ndarray, columns: np.ndarray, offsets: np.ndarray, doubt: float) -> np.ndarray:
        """The line moved by the one of the offsets (mm) at which the picture turns brightest downwards."""
        if len(columns) < self.mm:
            return line
        edge = line[columns][None, :] + offsets[:, None] * self.mm
        step, x = 0.6 * self.mm, columns[None, :]
        rise = self.sample(self._lightness, x, edge + step) - self.sample(self._lightness, x, edge - step)
        # No single lash or glint may outvote the rest.
        gain = np.clip(rise, -10.0, 25.0).mean(1) - doubt * offsets**2
        return line + float(offsets[gain.argmax()] * self.mm) * np.minimum(self.open / 3.0, 1.0)

    @cached_property
    def upper_edge(self) -> np.ndarray:
        """Where the dark of the upper lashes ends; the landmarks run within it."""
        return self._edge(self.upper, np.flatnonzero(self.open > 2.0), np.arange(-0.8, 1.21, 0.1), doubt=2.0)

    @cached_property
    def lower_edge(self) -> np.ndarray:
        """Where the iris ends at the lower lid, if it does."""
        centre, radius = self.iris_disc
        columns = np.flatnonzero(np.abs(self.x - centre[0]) < 0.6 * radius)
        if centre[1] + radius < self.lower[columns].mean() + 0.2 * self.mm:
            return self.lower
        return self._edge(self.lower, columns, np.arange(-0.8, 0.81, 0.1), doubt=3.0)

    @cached_property
    def iris_disc(self) -> tuple[np.ndarray, float]:
        """Centre float [2] and radius of the iris: the landmarks', moved to where the limbus is sharpest."""
        centre, radius = self.to_work(self._eye.centre), self._eye.radius * self.scale
        angle = np.radians(np.concatenate([np.arange(-40, 41, 5), np.arange(140, 221, 5)]))
        shifts = np.arange(-1.0, 1.01, 0.25)
        moves = np.stack(np.meshgrid(shifts, shifts[::2], np.arange(-0.6, 0.61, 0.2)), -1).reshape(-1, 3) * self.mm
        moves = np.concatenate([np.zeros((1, 3)), moves])
        middle, rim = centre + moves[:, :2], radius + moves[:, 2]

        def along(offset: float) -> tuple[np.ndarray, np.ndarray]:
            reach = (rim + offset * self.mm)[:, None]
            return middle[:, :1] + reach * np.cos(angle), middle[:, 1:] + reach * np.sin(angle)

        x, y = along(0.0)
        column = np.clip(np.rint(x), 0, self.width - 1).astype(int)
        seen = (y > self.upper[column] + 0.8 * self.mm) & (y < self.lower[column] - 0.4 * self.mm)
        rise = self.sample(self._lightness, *along(0.7)) - self.sample(self._lightness, *along(-0.7))
        doubt = 3.0 * (moves**2 @ [1.0, 1.0, 2.0]) / self.mm**2
        # A place where less of the limbus is seen must not win by that.
        gain = (np.clip(rise, -5.0, 40.0) * seen).sum(1) / np.maximum(seen.sum(1), 8) - doubt
        best = int(gain.argmax())
        return middle[best], float(rim[best])

    @cached_property
    def _from_iris(self) -> np.ndarray:
        """Distance from the middle of the iris."""
        centre = self.iris_disc[0].astype(np.float32)
        return np.hypot(self.x - centre[0], self.y - centre[1])

    @cached_property
    def _seen(self) -> np.ndarray:
        """1 where the eyeball shows clear of lids and lashes."""
        below = smoothstep(self.y - self.upper_edge, 0.5 * self.mm, 1.4 * self.mm)
        return below * smoothstep(self.lower_edge - self.y, 0.1 * self.mm, 0.8 * self.mm)

    @cached_property
    def caruncle(self) -> np.ndarray:
        """float32 [w, 1]: 1 at the inner corner, which stays whatever the eyeball does."""
        return smoothstep(self.inner[0] - self.x, 5.0 * self.mm, 3.0 * self.mm).astype(np.float32)[:, None]

    # The eyeball

    @cached_property
    def _shadow_strength(self) -> float:
        """How much darker, in log brightness, the white is at the upper lid than well below it."""
        centre, radius = self.iris_disc
        white = (self._seen > 0.9) & (self._from_iris > radius + 0.8 * self.mm) & (self.caruncle[:, 0] < 0.3)
        if white.sum() < 12 * self.mm**2:
            return _SHADOW_STRENGTH
        rows, columns = np.nonzero(white)
        nasal = columns > centre[0]
        out = np.abs(columns - centre[0]) / radius - 1.0
        shadow = np.exp(-(rows - self.upper_edge[columns]) / (_SHADOW_REACH * self.mm))
        # Either side has its own light, which may change outwards.
        design = np.stack([nasal, ~nasal, nasal * out, ~nasal * out, -shadow], 1).astype(np.float64)
        solved, *_ = np.linalg.lstsq(design, np.log(np.maximum(self._lightness[white], 4.0)), rcond=None)
        return float(np.clip(solved[4], 0.1, 0.7))

    def shadow(self, margin: np.ndarray) -> np.ndarray:
        """float32 [h, w, 1]: the share of light on the eyeball that a lid with that margin leaves."""
        depth = np.maximum(self.y - margin, 0.0) * np.float32(1.0 / (_SHADOW_REACH * self.mm))
        return np.exp(np.float32(-self._shadow_strength) * np.exp(-depth))[..., None]

    @cached_property
    def _lit(self) -> np.ndarray:
        """The picture without the lid's shadow on the eyeball."""
        return np.minimum(self.picture / self.shadow(self.upper_edge), 1.0)

    @cached_property
    def clean_sclera(self) -> np.ndarray:
        """Map: 1 where the white of the eye shows, clear of iris, caruncle and shadows."""
        _, radius = self.iris_disc
        clean = self._seen * smoothstep(self._from_iris, radius + 0.5 * self.mm, radius + 1.2 * self.mm)
        clean = clean * (1.0 - self.caruncle[:, 0])
        inside = clean > 0.5
        if not inside.any():
            return clean
        redness = self._lab[..., 1]
        bright, pale = np.percentile(self._lightness[inside], 75), np.percentile(redness[inside], 40)
        clean = clean * smoothstep(self._lightness, 0.6 * bright, 0.8 * bright)
        return (clean * smoothstep(redness, pale + 9.0, pale + 4.0)).astype(np.float32)

    @cached_property
    def _sclera(self) -> np.ndarray:
        """The white of the eye, also where iris and lids cover it."""
        small = (self.width // self.scale, self.height // self.scale)
        clean = self.clean_sclera[..., None]
        weight = cv2.resize(clean, small, interpolation=cv2.INTER_AREA)[..., None]
        colour = cv2.resize(self._lit * clean, small, interpolation=cv2.INTER_AREA)
        unit = self.mm / self.scale
        amount = float(weight.sum())
        filled = np.zeros_like(colour) + colour.sum((0, 1)) / max(amount, 1e-6)
        share = amount / (amount + 0.5 * unit**2)
        if share < 0.9:
            filled = self._white + share * (filled - self._white)
        # From the coarse to the fine, each where there is enough to go by.
        for reach in (9.0, 4.0, 1.6):
            sigma = (reach * unit, reach * unit, 0)
            total = gaussian_filter(weight, sigma)
            mean = gaussian_filter(colour, sigma) / np.maximum(total, 1e-5)
            filled = filled + smoothstep(total, 0.002, 0.03) * (mean - filled)
        filled = cv2.resize(filled, (self.width, self.height), interpolation=cv2.INTER_CUBIC)
        return filled + clean * (self._lit - filled)

    @property
    def _white(self) -> np.ndarray:
        """What the white must look like in this light if none is seen: paler than the skin and hardly coloured."""
        skin = self.canvas.skin_lab
        lab = np.array([[[min(0.5 * skin[0] + 38.0, 82.0), 2.0, 0.35 * skin[2]]]], np.float32)
        return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)

    @cached_property
    def _iris(self) -> np.ndarray:
        """The iris with its pupil in polar coordinates, float32 [angles, radii, 3], whole and without glints."""
        centre, radius = self.iris_disc
        angle = (np.arange(_ANGLES) * (2 * np.pi / _ANGLES))[:, None]
        rho = (np.arange(_RADII) / (_RADII - 1) * (radius - _RIM * self.mm))[None, :]
        x, y = centre[0] + rho * np.cos(angle), centre[1] + rho * np.sin(angle)
        seen = self.sample(self._seen * (1.0 - self._mirrors), x, y)
        return _completed(self.sample(self._lit, x, y), seen)

    @cached_property
    def _mirrors(self) -> np.ndarray:
        """Map: where the cornea mirrors a light."""
        _, radius = self.iris_disc
        inside = (self._from_iris < radius) & (self._seen > 0.5)
        if not inside.any():
            return np.zeros_like(self._lightness)
        middle, high = np.percentile(self._lightness[inside], [50, 75])
        bright = self._lightness > middle + max(14.0, 2.5 * (high - middle))
        bright &= (self._from_iris < radius - 0.8 * self.mm) & (self.y > self.upper_edge - 0.6 * self.mm)
        grown = cv2.dilate(bright.astype(np.float32), ellipse(0.6 * self.mm))
        return cv2.GaussianBlur(grown, (0, 0), 0.25 * self.mm)

    @cached_property
    def glint(self) -> np.ndarray:
        """The light that the cornea mirrors, on top of the iris."""
        plain, cover = self._iris_at(self.iris_disc[0], (1.0, 1.0))
        return (self._lit - plain) * (self._mirrors * cover)[..., None]

    def _iris_at(self, place: np.ndarray, squeeze: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """The colours of the iris about a place, and a map of what it covers.

        `squeeze` is the share that is left of its width and of its height.
        """
        radius = self.iris_disc[1]
        x = ((self.x - place[0]) / squeeze[0]).astype(np.float32)
        y = ((self.y - place[1]) / squeeze[1]).astype(np.float32)
        x, y = np.broadcast_arrays(x, y)
        rho, angle = cv2.cartToPolar(np.ascontiguousarray(x), np.ascontiguousarray(y))
        across = np.minimum(rho * np.float32((_RADII - 1) / (radius - _RIM * self.mm)), _RADII - 1)
        wrapped = np.concatenate([self._iris, self._iris[:1]])
        colours = self.sample(wrapped, across, angle * np.float32(_ANGLES / (2 * np.pi)))
        half = 0.5 * EDGE_WIDTH * self.mm
        return colours, smoothstep(rho, radius + half, radius - half).astype(np.float32)

    def turned(self, turn: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """How a turn of the eyeball, in degrees towards the nose and downwards, moves the iris.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: float [2], the shift in work pixels; float [2], what is left of the width
            and of the height, which shrink as the iris is seen more from the side.
        """
        axis = (self.inner - self.outer) / np.linalg.norm(self.inner - self.outer)
        angle = np.radians(turn)
        shift = np.sin(angle) @ np.array([axis, [-axis[1], axis[0]]])
        return IRIS_DEPTH * self.mm * shift, np.cos(angle)

    def eyeball(self, turn: tuple[float, float]) -> np.ndarray:
        """The eyeball without lids, in full light, turned by degrees towards the nose and downwards."""
        shift, squeeze = self.turned(turn)
        iris, cover = self._iris_at(self.iris_disc[0] + shift, tuple(squeeze))
        whole = self._sclera + cover[..., None] * (iris - self._sclera)
        lag = shift * (_GLINT_DEPTH / IRIS_DEPTH)
        glint = self.sample(self.glint, self.x - lag[0], self.y - lag[1]) if shift.any() else self.glint
        return np.clip(whole + glint * cover[..., None], 0.0, 1.0)


def check_in_sight(canvas: Canvas, side: EyeSide) -> None:
    """Raises `NotVisibleError` if an eye, open or closed, is turned out of sight."""
    eye = canvas.eye(side)
    if eye.width < _SMALLEST_WIDTH * canvas.iod or eye.radius < _SMALLEST_IRIS * canvas.iod:
        raise NotVisibleError(f"The {side} eye is turned out of sight.")


def _lightness_below(canvas: Canvas, margin: np.ndarray, mm: float) -> float:
    """Median lightness of the skin 4 to 8 mm below a lower lid margin float [N, 2]; `mm` in pixels of the picture."""
    x, y = np.concatenate([margin + [0.0, depth * mm] for depth in (4.0, 6.0, 8.0)]).astype(np.float32).T
    return float(np.median(cv2.remap(canvas.lab, x[None], y[None], cv2.INTER_LINEAR)[0, :, 0]))


def _completed(colours: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Fills in what is hidden of an iris in polar coordinates.

    The hidden part mirrors what is seen below it, on the mean of its ring, and joins on smoothly.

    Args:
        colours (`np.ndarray`):
            float32 [angles, radii, 3].
        seen (`np.ndarray`):
            float32 [angles, radii] in [0, 1].
    """
    weight = seen[..., None]
    total = weight.sum(0)
    known = np.flatnonzero(total[:, 0] > 0.04 * len(colours))
    if len(known) == 0:
        return colours
    ring = (colours * weight).sum(0) / np.maximum(total, 1e-4)
    index = np.arange(len(ring))
    ring = np.stack([np.interp(index, known, ring[known, k]) for k in range(3)], 1).astype(np.float32)
    rest = (colours - ring) * weight
    sigma, modes = (6.0, 3.0, 0), ("wrap", "nearest", "nearest")
    near = gaussian_filter(rest, sigma, mode=modes) / (gaussian_filter(weight, sigma, mode=modes) + 0.05)
    mirrored, shown = np.roll(rest[::-1], 1, axis=0), np.roll(weight[::-1], 1, axis=0)
    fill = near + 0.6 * shown * (mirrored - near)
    return ring + rest + (1.0 - weight) * fill
