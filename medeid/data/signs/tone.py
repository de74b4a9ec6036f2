"""Colour of the whole skin, of the whites of the eyes and of the lips: jaundice, pallor, cyanosis, flushing."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from ...faces.canvas import Canvas, NotVisibleError
from ...faces.mesh import NOSE_TIP
from ...faces.pigments import BILIRUBIN, DEOXYHAEMOGLOBIN, HAEMOGLOBIN, absorb
from ...manifestations.taxonomy import Side
from .registry import Change, Stage, simulates
from .textures import noise

_DARK_GLASSES = 0.5  # of the skin's lightness: what is darker is no white of an eye


@simulates("jaundice", Stage.TONE)
def jaundice(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """Bilirubin in the skin; the whites of the eyes follow as the implied scleral icterus."""
    lips = 0.5 * canvas.region("lips")
    amount = np.maximum(canvas.skin, lips) * (0.05 + 0.23 * severity)
    uneven = 1.0 + 0.06 * noise(canvas, 0.5, rng)
    return Change(absorb(canvas.image, (BILIRUBIN, amount * uneven)), canvas.skin)


@simulates("scleral_icterus", Stage.EYE_SURFACE)
def scleral_icterus(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """Bilirubin in the conjunctiva, where it shows first."""
    sclera = np.maximum(canvas.sclera("left"), canvas.sclera("right"))
    white = canvas.lab[sclera >= 0.5, 0]
    if len(white) < 4 * canvas.px**2 or np.median(white) < _DARK_GLASSES * canvas.skin_lab[0]:
        raise NotVisibleError("The whites of the eyes do not show; scleral icterus needs open eyes.")
    return Change(absorb(canvas.image, (BILIRUBIN, sclera * (0.10 + 0.35 * severity))), sclera)


@simulates("flushing", Stage.TONE)
def flushing(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """Dilated vessels all over the face."""
    amount = canvas.skin * (0.04 + 0.14 * severity) * (1.0 + 0.15 * noise(canvas, 0.6, rng))
    return Change(absorb(canvas.image, (HAEMOGLOBIN, amount)), canvas.skin)


def _lips(canvas: Canvas) -> np.ndarray:
    """The red of the lips, without teeth and tongue."""
    return gaussian_filter(canvas.region("lips") * (1.0 - canvas.mouth()), 0.8 * canvas.px)


@simulates("pallor", Stage.TONE)
def pallor(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """Little blood in skin and lips; the lips show it most, as in anaemia."""
    lips = _lips(canvas)
    lost = canvas.skin * (0.02 + 0.07 * severity) + lips * (0.05 + 0.18 * severity)
    # Both kinds of blood go: without the oxygen-poor share the skin would turn green.
    image = absorb(canvas.image, (HAEMOGLOBIN, -0.6 * lost), (DEOXYHAEMOGLOBIN, -0.5 * lost))
    return Change(image, np.maximum(canvas.skin, lips))


@simulates("cyanosis", Stage.TONE)
def cyanosis(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """Blood without oxygen: blue lips, then a shade of it around the mouth, on the nose and the ears."""
    lips = _lips(canvas)
    row, column = np.clip(np.rint(canvas.points[13]), 0, canvas.size - 1).astype(int)[::-1]
    mouth = canvas.uv - canvas.uv[row, column]
    around = np.exp(-((mouth[..., 0] / 0.42) ** 2) - (mouth[..., 1] / 0.30) ** 2)
    nose = np.exp(-((canvas.distance(canvas.points[NOSE_TIP]) / (0.2 * canvas.iod)) ** 2))
    skin = canvas.skin * (0.12 + 0.4 * around + 0.2 * nose) * (1.0 + 0.1 * noise(canvas, 0.4, rng))
    amount = (lips + 0.5 * skin) * (0.12 + 0.48 * severity)
    # The same blood, without its oxygen.
    image = absorb(canvas.image, (DEOXYHAEMOGLOBIN, 1.1 * amount), (HAEMOGLOBIN, -0.9 * amount))
    return Change(image, lips)
