"""Red and blistering skin: rosacea, malar rash, eczema, herpes zoster, port-wine stain."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from ...faces.canvas import Canvas, smoothstep
from ...faces.pigments import DEOXYHAEMOGLOBIN, HAEMOGLOBIN, HAEMOSIDERIN, MELANIN, absorb, cover, emboss
from ...manifestations.taxonomy import Side
from .areas import Stop, bearing_skin, check_visible, half, inside, lids, off_midline
from .registry import Change, Stage, simulates
from .textures import bumps, domes, noise, scatter, vessels


def _redden(canvas: Canvas, image: np.ndarray, density: np.ndarray, blue: float = 0.0) -> np.ndarray:
    """Blood in the skin, a share of it without oxygen.

    Inflamed dark skin is more violet than red, and soon browner, too.
    """
    dark = float(smoothstep(np.array(canvas.ita), 30.0, -15.0))
    blue = blue + (1.0 - blue) * 0.5 * dark
    return absorb(
        image,
        (HAEMOGLOBIN, density * (1.0 - blue)),
        (DEOXYHAEMOGLOBIN, density * blue),
        (MELANIN, density * 0.5 * dark),
    )


# Rosacea

# Where the face stands out: u of the middle, v of the middle, half width, half height (mirrored at the midline).
_CONVEXITIES = {
    "cheek": (0.44, 0.46, 0.28, 0.24),
    "nose": (0.0, 0.36, 0.19, 0.24),
    "chin": (0.0, 1.16, 0.22, 0.14),
    "glabella": (0.0, -0.28, 0.30, 0.18),
}


@simulates("rosacea", Stage.SKIN)
def rosacea(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """Redness of the centre of the face with fine vessels, papules and pustules.

    0.3: faint redness of cheeks and nose with a few vessels; 0.6: plain redness, vessels and some papules; 1.0: fiery,
    many papules and pustules, the skin of the nose thick and pitted.
    """
    skin = bearing_skin(canvas)
    field = _convexities(canvas, severity, rng) * skin
    check_visible(canvas, field, "Rosacea")
    mottled = np.clip(1.0 + 0.20 * noise(canvas, 0.10, rng, octaves=4, roughness=0.9), 0.3, 1.7)
    image = _rosacea_relief(canvas, skin, severity, rng)
    image = _redden(canvas, image, field * mottled * (0.05 + 0.20 * severity), blue=0.08)
    for_vessels, for_papules = rng.spawn(2)
    fine = _telangiectasias(canvas, field * skin, severity, for_vessels)
    image = absorb(image, (HAEMOGLOBIN, fine * (0.12 + 0.18 * severity)))
    image, spots = _papules(canvas, image, field * skin, severity, for_papules)
    return Change(image, np.clip(np.maximum(field / 0.5, spots), 0.0, 1.0))


def _convexities(canvas: Canvas, severity: float, rng: np.random.Generator) -> np.ndarray:
    """How red each place is, float32 [S, S] in [0, 1]: uneven, patchy, and none around the eyes and the mouth."""
    u, v = canvas.uv[..., 0], canvas.uv[..., 1]
    spare = np.ones_like(u)
    strength = {"cheek": 1.0, "nose": rng.uniform(0.6, 1.0), "chin": rng.uniform(0.3, 0.9)}
    strength["glabella"] = rng.uniform(0.2, 0.8)
    for name, (u0, v0, width, height) in _CONVEXITIES.items():
        for sign in (-1, 1) if u0 else (1,):
            shift = rng.normal(0.0, 0.02, 2)
            grown = rng.uniform(0.85, 1.1) * (0.8 + 0.3 * severity)
            r2 = ((u - sign * (u0 + shift[0])) / (width * grown)) ** 2 + ((v - v0 - shift[1]) / (height * grown)) ** 2
            spare *= 1.0 - strength[name] * rng.uniform(0.8, 1.0) * np.exp(-(r2**1.3))
    field = 1.0 - spare
    field = field + 0.16 * noise(canvas, 0.30, rng, octaves=5, roughness=0.6) * np.sqrt(np.clip(field, 0.0, 1.0))
    mouth = inside(canvas, _UPPER_LIP, "both")
    calm = smoothstep(lids(canvas), 0.03, -0.09) * smoothstep(mouth, 0.03, -0.05)
    return smoothstep(field, 0.05, 0.85) * calm


_UPPER_LIP: tuple[Stop, ...] = (2, 97, 98, 203, 206, 216, 57, 61, 78, 13)


def _telangiectasias(canvas: Canvas, density: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Fine vessels on cheeks and wings of the nose."""
    u, v = canvas.uv[..., 0], canvas.uv[..., 1]
    wings = np.exp(-(((np.abs(u) - 0.17) / 0.06) ** 2) - ((v - 0.42) / 0.10) ** 2)
    cheeks = np.exp(-(((np.abs(u) - 0.42) / 0.17) ** 2) - ((v - 0.42) / 0.13) ** 2)
    roots = scatter(density * (1.5 * wings + cheeks), 60, 2.0 * canvas.px, rng)
    headings = rng.uniform(0.0, 2 * np.pi, len(roots))
    count = round(5 + 40 * severity)
    length, width = 0.065 * canvas.iod, 0.40 * canvas.px
    return vessels(canvas, roots[:count], headings[:count], length, width, rng, branching=0.16, wander=0.20)


def _papules(
    canvas: Canvas, image: np.ndarray, density: np.ndarray, severity: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Red bumps, some with a head of pus; gives the picture and where they are."""
    places = scatter(density**1.5, 34, 4.5 * canvas.px, rng)
    radii = rng.uniform(1.1, 2.3, len(places)) * canvas.px
    pus = rng.random(len(places)) < 0.3
    count = round(34 * max(severity - 0.25, 0.0) / 0.75)
    places, radii, pus = places[:count], radii[:count], pus[:count]
    halo = bumps(canvas, places, 2.0 * radii, softness=1.0)
    image = _redden(canvas, image, halo * (0.12 + 0.10 * severity), blue=0.1)
    image = emboss(image, domes(canvas, places, 1.6 * radii) * 0.55 * canvas.px, canvas.light, gloss=0.05)
    heads = bumps(canvas, places[pus], 0.55 * radii[pus], softness=0.8)
    image = cover(image, (min(canvas.skin_lab[0] + 10.0, 88.0), 6.0, 24.0), 0.7 * heads, 4.0 * canvas.px)
    return image, halo


def _rosacea_relief(canvas: Canvas, skin: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """The nose's skin becomes thick, lumpy and coarsely pored."""
    u, v = canvas.uv[..., 0], canvas.uv[..., 1]
    nose = np.exp(-((u / 0.20) ** 4) - ((v - 0.42) / 0.14) ** 4) * skin
    lumps, pores = noise(canvas, 0.12, rng, octaves=2), noise(canvas, 0.035, rng, octaves=1)
    amount = max(severity - 0.4, 0.0) / 0.6
    height = nose * amount * (0.6 * lumps - 0.35 * np.clip(pores, 0.0, None)) * canvas.px
    return emboss(canvas.image, height.astype(np.float32), canvas.light)


# Malar rash

_BUTTERFLY: tuple[Stop, ...] = (
    (6, 0, -0.03), 122, 188, 114, 121, 120, 119, 118, 117, (116, 0.04, 0.04), (123, 0.06, 0.03), (187, 0.05, -0.03),
    (207, 0.03, -0.02), (206, 0.04, 0.02), (203, 0.06, 0.02), (129, 0.03, 0), 209, 198, 134, 51, (5, 0, 0.05),
)  # fmt: skip
# Bounded by the wing of the nose and the fold from there past the corner of the mouth.
_MUZZLE: tuple[Stop, ...] = (
    (4, 0, -0.03), 220, 131, 49, (129, -0.01, 0), (203, -0.015, 0), 206, 216, (212, -0.03, 0), 210, 169, 152,
)  # fmt: skip


@simulates("malar_rash", Stage.SKIN)
def malar_rash(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """The butterfly of lupus: cheeks and bridge of the nose are red, nasolabial folds and lids are not.

    0.3: a faint blush of that shape; 0.6: plain, fairly even; 1.0: deep, violet-red, a little raised and scaling.
    """
    skin = bearing_skin(canvas)
    edge = inside(canvas, _BUTTERFLY, "both") + 0.05 * (severity - 0.6) + rng.uniform(-0.02, 0.02)
    edge = edge + 0.022 * noise(canvas, 0.25, rng, octaves=5, roughness=0.65)
    fold = inside(canvas, _MUZZLE, "both") + 0.008 * noise(canvas, 0.12, rng, octaves=3)
    spared = smoothstep(fold, 0.012, -0.018) * smoothstep(lids(canvas), 0.01, -0.03)
    shape = smoothstep(edge, -0.07, 0.06) * spared * skin
    check_visible(canvas, shape, "A malar rash")
    even = 0.75 + 0.25 * smoothstep(edge, 0.0, 0.14) + 0.13 * noise(canvas, 0.12, rng, octaves=5, roughness=0.9)
    density = shape * np.clip(even, 0.4, 1.3) * (0.05 + 0.21 * severity)
    image = _redden(canvas, canvas.image, density, blue=rng.uniform(0.1, 0.35))
    image = emboss(image, smoothstep(edge, -0.03, 0.04) * spared * skin * severity * 0.3 * canvas.px, canvas.light)
    image = _scale(canvas, image, shape * max(severity - 0.35, 0.0), rng)
    return Change(image, np.clip(1.6 * shape, 0.0, 1.0))


def _scale(canvas: Canvas, image: np.ndarray, amount: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Dry flakes of horn, silvery on light skin and ashen on dark skin; the more, the higher `amount` in [0, 1]."""
    flakes = smoothstep(noise(canvas, 0.025, rng, octaves=2, roughness=0.7), 0.3, 2.0)
    where = smoothstep(noise(canvas, 0.22, rng, octaves=4, roughness=0.7) + 2.4 * amount, 1.2, 2.4)
    alpha = 0.5 * flakes * where * np.clip(2.5 * amount, 0.0, 1.0)
    base = canvas.skin_lab
    return cover(image, (min(base[0] + 12.0, 88.0), 0.55 * base[1] + 3.0, 0.55 * base[2]), alpha, 4.0 * canvas.px)


# Eczema

# u and v of the middle, half width, half height; u towards the side of the eczema.
_ECZEMA_SITES = {
    "upper_lid": (0.36, -0.01, 0.24, 0.09),
    "lower_lid": (0.38, 0.21, 0.24, 0.10),
    "perioral": (0.26, 0.94, 0.20, 0.24),
    "cheek": (0.48, 0.50, 0.26, 0.24),
    "forehead": (0.28, -0.34, 0.28, 0.17),
    "jaw": (0.56, 0.82, 0.16, 0.20),
}


@simulates("eczema", Stage.SKIN)
def eczema(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """Ill-defined red, dry patches on lids, cheek, forehead or around the mouth.

    0.3: one faint, dry, pink patch; 0.6: two, plainly red and scaling, scratched; 1.0: three, thick with coarse skin
    lines, excoriated and crusted.
    """
    skin = bearing_skin(canvas) * half(canvas, side, 0.12)
    patch = _eczema_patches(canvas, side, severity, rng) * skin
    check_visible(canvas, patch, "Eczema")
    grain = 0.9 + 0.22 * noise(canvas, 0.08, rng, octaves=4, roughness=0.9)
    density = patch * np.clip(grain, 0.3, 1.6) * (0.10 + 0.13 * severity)
    image = _redden(canvas, canvas.image, density, blue=0.12)
    image = emboss(image, patch * _skin_lines(canvas, rng) * max(severity - 0.3, 0.0) * 0.6 * canvas.px, canvas.light)
    image = _scale(canvas, image, np.clip(patch * (0.15 + 0.75 * severity), 0.0, 1.0), rng)
    image = _excoriations(canvas, image, patch, severity, rng)
    return Change(image, np.clip(2.2 * patch, 0.0, 1.0))


def _eczema_patches(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> np.ndarray:
    u, v = off_midline(canvas, side), canvas.uv[..., 1]
    sites = [str(site) for site in rng.permutation(list(_ECZEMA_SITES))]
    shifts, sizes = rng.normal(0.0, 0.03, (len(sites), 2)), rng.uniform(0.85, 1.2, len(sites))
    field = np.full_like(u, -1.0)
    for rank in range(1 + int(severity > 0.35) + int(severity > 0.7)):
        u0, v0, width, height = _ECZEMA_SITES[sites[rank]]
        du, dv = u - u0 - shifts[rank, 0], v - v0 - shifts[rank, 1]
        reach = sizes[rank] * (0.85 + 0.25 * severity)
        field = np.maximum(field, 1.2 - np.hypot(du / width, dv / height) / reach)
    field = field + 0.22 * noise(canvas, 0.20, rng, octaves=5, roughness=0.8)
    return smoothstep(field, 0.1, 0.75).astype(np.float32)


def _skin_lines(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """The criss-cross of thickened skin: furrows float32 [S, S], negative."""
    u, v = canvas.uv[..., 0] + 0.012 * noise(canvas, 0.1, rng), canvas.uv[..., 1] + 0.012 * noise(canvas, 0.1, rng)
    furrows = np.zeros_like(u)
    for angle in rng.uniform(0.0, np.pi) + np.array([0.0, 1.2]):
        phase = (np.cos(angle) * u + np.sin(angle) * v) / 0.05
        furrows = np.maximum(furrows, np.abs(np.cos(np.pi * phase)) ** 6)
    return -0.8 * furrows * np.clip(0.6 + 0.5 * noise(canvas, 0.15, rng), 0.0, 1.2)


def _excoriations(
    canvas: Canvas, image: np.ndarray, patch: np.ndarray, severity: float, rng: np.random.Generator
) -> np.ndarray:
    """Scratch marks: short, broken, roughly parallel lines of blood and crust."""
    roots = scatter(patch**3, 12, 4.0 * canvas.px, rng)[: round(12 * max(severity - 0.35, 0.0) / 0.65)]
    heading = rng.uniform(0.3, 2.8)
    ways = []
    for root in roots:
        angle, length = heading + rng.normal(0.0, 0.2), rng.uniform(1.5, 6.0) * canvas.px
        along = np.linspace(-0.5, 0.5, 6)[:, None] * length
        bow = rng.normal(0.0, 0.08) * length * (1 - (2 * along / length) ** 2)
        ways.append(root + along * (np.cos(angle), np.sin(angle)) + bow * (-np.sin(angle), np.cos(angle)))
    marks = canvas.lines(ways, 0.5 * canvas.px) * np.clip(0.7 + 0.4 * noise(canvas, 0.04, rng, octaves=2), 0.0, 1.0)
    image = _redden(canvas, image, gaussian_filter(marks, 1.2 * canvas.px) * 0.35, blue=0.1)
    return absorb(image, (DEOXYHAEMOGLOBIN, 0.38 * marks), (HAEMOSIDERIN, 0.15 * marks))


# The branches of the trigeminal nerve

_BRANCHES: dict[str, tuple[Stop, ...]] = {
    # Forehead to the top, upper lid, back of the nose to its tip.
    "ophthalmic": (
        (10, 0, -0.35), (109, 0, -0.35), (67, 0, -0.32), (103, 0, -0.25), (54, -0.03, -0.15), (68, -0.04, 0),
        (70, -0.03, 0), 113, 33, 160, 159, 158, 133, 244, 188, 174, 236, 134, 220, 44, 1, 4, 5, 195, 197, 6, 168, 8, 9,
        151,
    ),
    # Lower lid, cheek, side of the nose, upper lip.
    "maxillary": (
        33, 163, 145, 153, 133, 244, 188, 174, 236, 134, 220, 44, 2, 164, 0, 13, 81, 78, 61, 186, 216, 207, 187, 147,
        123, 116, (143, -0.04, -0.05), 35,
    ),
    # Lower lip, chin, jaw, a strip before the ear.
    "mandibular": (
        14, 17, 18, 200, 199, 175, (152, 0, 0.08), (148, 0, 0.08), (176, -0.01, 0.07), (150, -0.02, 0.06),
        (136, -0.03, 0.04), (172, -0.04, 0), (132, -0.03, 0), (93, -0.02, 0), (234, -0.02, 0), (127, -0.02, -0.1),
        (34, 0.02, -0.1), 116, 123, 147, 187, 207, 216, 57, 61, 88,
    ),
}  # fmt: skip


def _branch(canvas: Canvas, name: str, side: Side) -> np.ndarray:
    """How deep each pixel lies within the skin of a branch, in inter-ocular distances; ends at the midline."""
    return np.minimum(inside(canvas, _BRANCHES[name], side), off_midline(canvas, side))


# Herpes zoster

_MOST_GROUPS = 11


@simulates("herpes_zoster", Stage.SKIN)
def herpes_zoster(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """Grouped vesicles on red ground in the skin of one branch of the trigeminal nerve, strictly to the midline.

    0.3: a few groups of clear vesicles; 0.6: many groups, some vesicles cloudy, dented or crusted; 1.0: groups run
    together, with pustules and bloody crusts, most of the skin between them red.
    """
    name = str(rng.choice(list(_BRANCHES), p=[0.55, 0.28, 0.17]))
    depth = _branch(canvas, name, side)
    wavy = depth - 0.018 * np.abs(noise(canvas, 0.2, rng))
    own = smoothstep(wavy, -0.01, 0.07) * bearing_skin(canvas)
    free = own * smoothstep(depth, 0.01, 0.07)
    check_visible(canvas, free, "Herpes zoster")
    groups = scatter(free, _MOST_GROUPS, 0.11 * canvas.iod, rng)
    groups = groups[: round(2 + (_MOST_GROUPS - 2) * severity)]
    ground = _ground(canvas, groups, severity, rng) * own
    image = _redden(canvas, canvas.image, ground * (0.18 + 0.10 * severity), blue=0.10)
    places, radii, age = _grouped(canvas, groups, ground * smoothstep(depth, 0.0, 0.04), rng)
    image = _vesicles(canvas, image, places, radii, age + 0.45 * (severity - 0.6), rng)
    area = np.maximum(2.0 * ground, bumps(canvas, places, 1.4 * radii))
    return Change(image, np.clip(area, 0.0, 1.0))


def _ground(canvas: Canvas, groups: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """The red ground under and between the groups."""
    field: np.ndarray = np.full((canvas.size, canvas.size), -1.0, np.float32)
    radii = rng.uniform(0.09, 0.15, _MOST_GROUPS) * canvas.iod * (0.85 + 0.25 * severity)
    for group, radius in zip(groups, radii, strict=False):
        field = np.maximum(field, 1.0 - canvas.distance(group) / radius)
    field = field + 0.22 * noise(canvas, 0.12, rng, octaves=4, roughness=0.7)
    return smoothstep(field, -0.15 - 0.1 * severity, 0.65)


def _grouped(
    canvas: Canvas, groups: np.ndarray, ground: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places, radii and ages in [0, 1] of the vesicles, crowded around the middle of each group and much of one age."""
    places, radii, ages = [], [], []
    for group in groups:
        spread = rng.uniform(0.025, 0.055) * canvas.iod
        near = np.exp(-((canvas.distance(group) / spread) ** 2)) * ground
        chosen = scatter(near, int(rng.integers(4, 13)), 1.9 * canvas.px, rng)
        places.append(chosen)
        radii.append((0.8 + 1.7 * rng.random(len(chosen)) ** 1.6) * canvas.px)
        ages.append(rng.random() + rng.normal(0.0, 0.15, len(chosen)))
    return np.concatenate(places), np.concatenate(radii), np.concatenate(ages)


def _vesicles(
    canvas: Canvas, image: np.ndarray, places: np.ndarray, radii: np.ndarray, age: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Clear or cloudy domes with a rim and a glint, some dented; the oldest dry to crusts."""
    whole, cloudy, dented = age < 0.75, age > 0.4, rng.random(len(places)) < 0.25
    lightness, a, b = canvas.skin_lab
    image = _redden(canvas, image, bumps(canvas, places, 1.6 * radii, softness=0.9) * 0.10, blue=0.2)
    height = domes(canvas, places[whole], 1.1 * radii[whole], steepness=1.0) * 0.55 * canvas.px
    height -= domes(canvas, places[whole & dented], 0.5 * radii[whole & dented]) * 0.5 * canvas.px
    clear, pus = (
        bumps(canvas, places[kind], 0.9 * radii[kind], softness=0.9) for kind in (whole & ~cloudy, whole & cloudy)
    )
    image = cover(image, (lightness - 3.0, a + 9.0, b + 1.0), 0.4 * clear, 4.0 * canvas.px)
    image = cover(image, (min(lightness + 4.0, 84.0), a + 3.0, b + 6.0), 0.6 * pus, 4.0 * canvas.px)
    image = emboss(image, height, canvas.light, gloss=0.2)
    glint = bumps(canvas, (places + 0.35 * radii[:, None] * canvas.light)[whole], 0.25 * radii[whole])
    image = cover(image, (92.0, 2.0, 4.0), 0.35 * glint, 4.0 * canvas.px)
    return _crusts(canvas, image, places[~whole], radii[~whole], rng)


def _crusts(
    canvas: Canvas, image: np.ndarray, places: np.ndarray, radii: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Dried vesicles: irregular, rough, run together; honey to nearly black."""
    blots = bumps(canvas, places, 2.6 * radii, softness=1.0) + 0.25 * noise(canvas, 0.05, rng, octaves=3, roughness=0.8)
    crust = smoothstep(blots, 0.45, 0.95) * bumps(canvas, places, 2.6 * radii, softness=0.3)
    dark = smoothstep(noise(canvas, 0.06, rng, octaves=3), -1.2, 1.2) * 0.8
    lightness = canvas.skin_lab[0]
    for colour, share in (((0.68 * lightness, 21.0, 27.0), 1.0 - dark), ((0.40 * lightness, 17.0, 11.0), dark)):
        image = cover(image, colour, 0.8 * crust * share, 4.0 * canvas.px)
    rough = crust * (0.35 + 0.25 * noise(canvas, 0.025, rng, octaves=1))
    return emboss(image, rough * canvas.px, canvas.light)


# Port-wine stain


@simulates("port_wine_stain", Stage.SKIN)
def port_wine_stain(canvas: Canvas, side: Side, severity: float, rng: np.random.Generator) -> Change:
    """A flat stain of widened capillaries in the skin of one or two branches of the trigeminal nerve.

    0.3: pink, a part of a branch; 0.6: red, most of it; 1.0: deep purple, whole, slightly cobbled.
    """
    skin = bearing_skin(canvas, lips=True)
    edge = _stain_edge(canvas, side, skin, severity, rng)
    holes = noise(canvas, 0.20, rng, octaves=4, roughness=0.65) - rng.uniform(1.4, 2.4) - 0.5 * severity
    stain = smoothstep(edge, -0.012, 0.014) * smoothstep(holes, 0.2, -0.1) * skin
    check_visible(canvas, stain, "A port-wine stain")
    even = 1.0 + 0.10 * noise(canvas, 0.5, rng, octaves=2) + 0.09 * noise(canvas, 0.10, rng, octaves=4, roughness=0.9)
    even = np.clip(even, 0.5, 1.4) * (0.8 + 0.2 * smoothstep(edge, 0.0, 0.08))
    image = _redden(canvas, canvas.image, stain * even * (0.07 + 0.40 * severity), blue=0.05 + 0.65 * severity**1.5)
    cobbles = noise(canvas, 0.07, rng, octaves=3) * stain * max(severity - 0.7, 0.0) * 0.5 * canvas.px
    return Change(emboss(image, cobbles, canvas.light), stain)


def _stain_edge(canvas: Canvas, side: Side, skin: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Signed depth within the stain, in inter-ocular distances: like a coast, with islands before it."""
    first = str(rng.choice(list(_BRANCHES), p=[0.33, 0.47, 0.20]))
    branches = {first, "maxillary"} if rng.random() < 0.3 else {first}
    depth = np.maximum.reduce([_branch(canvas, name, side) for name in sorted(branches)])
    inner = smoothstep(depth, 0.03, 0.12) * skin
    check_visible(canvas, inner, "A port-wine stain")
    middle = scatter(inner, 1, 0.0, rng)[0]
    reach = (0.25 + 0.9 * severity) * rng.uniform(0.7, 1.3)
    part = reach - canvas.distance(middle) / canvas.iod
    coast = 0.05 * noise(canvas, 0.35, rng, octaves=6, roughness=0.58)
    midline = off_midline(canvas, side) - 0.006 * np.abs(noise(canvas, 0.1, rng, octaves=3))
    return np.minimum(np.minimum(depth, part) + coast, midline)
