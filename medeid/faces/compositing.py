"""Putting a generated face back into its photo, so that it does not look pasted.

Outside the feathered mask the output is the photo, bit for bit. Inside it, the photo's own pixels are used
only for what the eye compares across the seam: the colour along the seam and the strength of the grain around
the face. Both are measured outside the region that is replaced, so no detail of the source comes back.
"""

from __future__ import annotations

import cv2
import numpy as np

from .alignment import check_photo, invert, matrix_scale, photo_window

_BORDER = 3  # crop px along the crop's border where the mask is 0; more than the reach of cubic interpolation

# Levels: skin differs by less from the median of its face, and a tint by less from the face's mean tint.
_SKIN_RANGE, _SEAM_LIMIT = 50.0, 25.0
_SEAM_SIGMAS = (48.0, 24.0, 12.0)  # px of a 256 px crop: the tint along the seam is continued by ever narrower means
_TINT_SIDE = 256  # px, of the picture that the tint is worked out in
_SEAM_TRUST = 0.1  # share of skin under such a mean at which it counts for one half

_CONTEXT_SHARE = 0.15  # of the pasted part's sides: the rim in which the photo's grain is measured
_MIN_CONTEXT_PIXELS = 100
# Grain is measured in this share of the rim, where it is weakest: elsewhere hair and leaves would pass for noise.
_SMOOTHEST = 0.25
_ROUGHNESS_WINDOW = 11  # px
_MAX_GRAIN = 5.0  # levels; what is rougher everywhere in the rim is texture too
_OCTAVES = 3  # grain is measured and made at full, half and quarter resolution
# Variances that noise of variance 1, made at half resolution and enlarged, shows at half and at quarter
# resolution; white noise of full resolution shows 1/4 and 1/16.
_ENLARGED_AT_OWN, _ENLARGED_AT_HALF = 0.122, 0.1015
# Immerkaer, "Fast Noise Variance Estimation", CVIU 64(2), 1996: the difference of two Laplacians ignores flat
# areas, slopes and edges; on white noise its output has 6 times the noise's deviation.
_NOISE_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32) / 6
# ITU-R BT.601. Noise in photos is mostly one of brightness, so the channels of RGB do not vary independently.
_RGB_TO_YCRCB = np.array([[0.299, 0.587, 0.114], [0.5, -0.4187, -0.0813], [-0.1687, -0.3313, 0.5]], dtype=np.float32)
_YCRCB_TO_RGB = np.linalg.inv(_RGB_TO_YCRCB).astype(np.float32)


_BLUR = 1 / 8  # of the crop's side, half the distance between the eyes: standard deviation


def feathered_mask(region: np.ndarray, feather: float | None = None) -> np.ndarray:
    """A soft mask that covers a region wholly and falls off outside of it.

    It falls outwards, not inwards: at no pixel of the region does the original face shine through. Only along
    the border of the crop the mask is 0 even in the region, and rises over `feather` px, as the crop ends
    there.

    Args:
        region (`np.ndarray`):
            `[S, S]`, what is not 0 is to be replaced.
        feather (`float`, *optional*):
            Width of the fall in crop px: further than that from the region the mask is exactly 0. By default
            a twentieth of S.

    Returns:
        `np.ndarray`: float32 `[S, S]` in [0, 1].

    Raises:
        `ValueError`: if the region is not a square of two dimensions, or `feather` is not positive.
    """
    if region.ndim != 2 or region.shape[0] != region.shape[1]:
        raise ValueError(f"`region` must have shape [S, S], but has {list(region.shape)}.")
    size = region.shape[0]
    if feather is None:
        feather = size / 20
    if not feather > 0:
        raise ValueError(f"`feather` must be positive, but is {feather}. Use 1 for a hard edge.")
    inside = region != 0
    if not inside.any():
        return np.zeros(region.shape, np.float32)
    distance = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    steps = np.arange(size, dtype=np.float32)
    to_border = np.minimum(steps, size - 1 - steps)
    to_border = np.minimum(to_border[:, None], to_border[None, :])
    return _smoothstep(1 - distance / feather) * _smoothstep((to_border - _BORDER) / feather)


def match_colour(generated: np.ndarray, original: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Takes the tint off a generated crop that the eye would see beside the photo around it.

    The tint is the difference to the original along the seam (where the mask lies between 0 and 1, outside of the
    replaced region), where both show skin: hair that begins elsewhere is no tint. It is continued into the face as
    smoothly as it can be, so that near the seam it is that of the nearest skin and in the middle the mean of all;
    a narrower fade would leave a band along the hair.

    Args:
        generated (`np.ndarray`):
            uint8 `[S, S, 3]`, RGB.
        original (`np.ndarray`):
            uint8 `[S, S, 3]`, the source's crop.
        mask (`np.ndarray`):
            float32 `[S, S]` as `feathered_mask` gives it.

    Returns:
        `np.ndarray`: uint8 `[S, S, 3]`.

    Raises:
        `ValueError`: if the shapes differ.
    """
    _check_crop(generated, mask, "generated")
    _check_crop(original, mask, "original")
    seam, face = (mask > 0) & (mask < 1), mask >= 1
    if not (seam.any() and face.any()):
        return generated
    tone = np.median(generated[face], axis=0)  # most of a face is skin
    skin = _smoothstep(2.0 - np.abs(generated - tone).max(2) / _SKIN_RANGE)
    difference = original.astype(np.float32) - generated
    tint = _continued(difference, skin * seam * (skin > 0.5), seam.mean())
    return _to_uint8(generated + tint * cv2.GaussianBlur(skin, (0, 0), mask.shape[0] / 128)[..., None])


def _continued(difference: np.ndarray, skin: np.ndarray, seam: float) -> np.ndarray:
    """The tint float32 `[S, S, 3]` everywhere, of its mean along the seam's skin and ever narrower local means."""
    if not skin.any():
        return np.zeros_like(difference)
    middle = np.median(difference[skin > 0], axis=0)
    weight = skin * (np.abs(difference - middle).max(2) < _SEAM_LIMIT)
    mean = (difference * weight[..., None]).sum((0, 1)) / max(weight.sum(), 1.0)
    share = weight.mean() / seam
    # The tint varies slowly, so that it is worked out in few pixels, however many the crop has.
    sides = (min(_TINT_SIDE, weight.shape[1]), min(_TINT_SIDE, weight.shape[0]))
    few, told = (
        cv2.resize(each, sides, interpolation=cv2.INTER_AREA) for each in (weight, difference * weight[..., None])
    )
    tint = np.broadcast_to(mean * share / (share + _SEAM_TRUST), told.shape)
    for sigma in _SEAM_SIGMAS:
        near = cv2.GaussianBlur(few, (0, 0), sigma * sides[0] / _TINT_SIDE)
        total = cv2.GaussianBlur(told, (0, 0), sigma * sides[0] / _TINT_SIDE)
        trust = near / (near + _SEAM_TRUST)
        tint = tint + trust[..., None] * (total / np.maximum(near, 1e-6)[..., None] - tint)
    tint = cv2.resize(tint, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return tint.clip(-_SEAM_LIMIT, _SEAM_LIMIT)


def paste_face(
    photo: np.ndarray,
    generated: np.ndarray,
    matrix: np.ndarray,
    mask: np.ndarray,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Put a generated crop into a photo.

    Several faces: paste the smallest first and the largest, which is in front, last. Each call must work on
    the result of the one before, not on the source; then no crop brings back an original that an earlier one
    has covered.

    Args:
        photo (`np.ndarray`):
            uint8 `[H, W, 3]`, RGB. It is not changed.
        generated (`np.ndarray`):
            uint8 `[S, S, 3]`, RGB.
        matrix (`np.ndarray`):
            `[2, 3]`, photo -> crop, of the crop that was replaced.
        mask (`np.ndarray`):
            float32 `[S, S]` in [0, 1], and 0 along the border, as `feathered_mask` gives it.
        rng (`np.random.Generator`, *optional*):
            Source of grain, which is added to the face as the photo has it around the face. Without it none
            is.

    Returns:
        `np.ndarray`: uint8 `[H, W, 3]`, a new array. Where `warped_mask` is 0 it equals `photo` exactly.

    Raises:
        `ValueError`: if a shape or type is wrong, or nothing of the mask lies in the photo.
    """
    check_photo(photo)
    _check_crop(generated, mask, "generated")
    x0, y0, x1, y1 = _pasted_window(mask, matrix, photo.shape)
    window = photo[y0:y1, x0:x1]
    alpha = _warp(mask.astype(np.float32), matrix, (x0, y0, x1, y1), cv2.INTER_LINEAR)

    crop: np.ndarray = generated.astype(np.float32)
    scale = matrix_scale(matrix)
    if scale > 1:  # the face gets smaller: blur, so that nothing aliases
        crop = cv2.GaussianBlur(crop, (0, 0), max((scale - 1) / 2, 0.1))
    patch = _warp(crop, matrix, (x0, y0, x1, y1), cv2.INTER_CUBIC)
    if rng is not None:
        patch = match_grain(patch, window, alpha, rng)

    result = photo.copy()
    result[y0:y1, x0:x1] = _to_uint8(window + alpha[..., None] * (patch - window))
    return result


def warped_mask(mask: np.ndarray, matrix: np.ndarray, photo_shape: tuple[int, ...]) -> np.ndarray:
    """The weight with which `paste_face` mixes in the generated face at each pixel of the photo.

    Args:
        mask (`np.ndarray`):
            float32 `[S, S]` in [0, 1].
        matrix (`np.ndarray`):
            `[2, 3]`, photo -> crop.
        photo_shape (`tuple[int, ...]`):
            Height and width of the photo, further entries do not count.

    Returns:
        `np.ndarray`: float32 `[H, W]` in [0, 1].
    """
    x0, y0, x1, y1 = _pasted_window(mask, matrix, photo_shape)
    result = np.zeros(photo_shape[:2], np.float32)
    result[y0:y1, x0:x1] = _warp(mask.astype(np.float32), matrix, (x0, y0, x1, y1), cv2.INTER_LINEAR)
    return result


def project_mask(mask: np.ndarray, matrix: np.ndarray, onto: np.ndarray, size: int) -> np.ndarray:
    """The mask of one crop as it lies in another crop of the same photo.

    Args:
        mask (`np.ndarray`):
            float32 `[S, S]` in [0, 1].
        matrix (`np.ndarray`):
            `[2, 3]`, photo -> the mask's crop.
        onto (`np.ndarray`):
            `[2, 3]`, photo -> the other crop.
        size (`int`):
            Side of the other crop in px.

    Returns:
        `np.ndarray`: float32 `[size, size]` in [0, 1]; 0 everywhere if the two do not meet.
    """
    back = invert(onto)
    to_mask = np.column_stack([matrix[:, :2] @ back[:, :2], matrix[:, :2] @ back[:, 2] + matrix[:, 2]])
    return _warp(mask.astype(np.float32), to_mask, (0, 0, size, size), cv2.INTER_LINEAR)


def blurred_face(crop: np.ndarray) -> np.ndarray:
    """A crop of which nothing is left but tones: features and signs are blurred away.

    Args:
        crop (`np.ndarray`):
            uint8 `[S, S, 3]`, RGB.

    Returns:
        `np.ndarray`: uint8 `[S, S, 3]`.
    """
    return cv2.GaussianBlur(crop, (0, 0), _BLUR * crop.shape[0])


def match_grain(patch: np.ndarray, photo: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add noise to a patch so that it is as grainy as the photo around it.

    The grain is measured in brightness and colour, at full, half and quarter resolution (noise that a camera
    or JPEG has smoothed is coarse), in the smooth parts outside the mask. What the patch has itself is taken
    off.

    Args:
        patch (`np.ndarray`):
            float32 `[h, w, 3]`, RGB in [0, 255]: the generated face at the photo's resolution.
        photo (`np.ndarray`):
            uint8 `[h, w, 3]`, the same part of the photo.
        mask (`np.ndarray`):
            float32 `[h, w]`; the photo is looked at only where it is 0.
        rng (`np.random.Generator`):
            Source of the noise.

    Returns:
        `np.ndarray`: float32 `[h, w, 3]`. The patch itself if too little of the photo is smooth enough to
        measure.
    """
    outside = mask == 0
    # The patch fills what is replaced, so that not even the choice of smooth parts beside it depends on the
    # source.
    wanted = _grain(np.where(outside[..., None], photo, patch), outside)
    present = _grain(patch, mask >= 1)
    if wanted is None or present is None:
        return patch
    missing = np.sqrt(np.maximum(wanted - present, 0)).astype(np.float32)
    height, width = patch.shape[:2]
    noise = np.zeros_like(patch)
    for octave, deviation in enumerate(missing):
        shape = (-(-height >> octave), -(-width >> octave), 3)
        layer = rng.standard_normal(shape, dtype=np.float32) * deviation
        noise += cv2.resize(layer, (width, height), interpolation=cv2.INTER_LINEAR)
    return patch + cv2.transform(noise, _YCRCB_TO_RGB)


def _grain(image: np.ndarray, where: np.ndarray) -> np.ndarray | None:
    """The white noise, made at full, half and quarter resolution and enlarged, that together is like the
    noise of a float32 RGB image where `where` holds: variances in Y, Cr and Cb, `[3, 3]`. None if too few
    pixels are smooth."""
    colours = cv2.transform(image, _RGB_TO_YCRCB)
    seen = []
    for _ in range(_OCTAVES):
        deviation = _noise_deviation(colours, where)
        if deviation is None:
            return None
        seen.append(deviation**2)
        half = (max(colours.shape[1] // 2, 1), max(colours.shape[0] // 2, 1))
        colours = cv2.resize(colours, half, interpolation=cv2.INTER_AREA)
        where = cv2.resize(where.astype(np.float32), half, interpolation=cv2.INTER_AREA) > 0.999
    full = seen[0]
    half_size = np.maximum(seen[1] - full / 4, 0) / _ENLARGED_AT_OWN
    quarter = np.maximum(seen[2] - full / 16 - half_size * _ENLARGED_AT_HALF, 0) / _ENLARGED_AT_OWN
    return np.stack([full, half_size, quarter])


def _noise_deviation(colours: np.ndarray, where: np.ndarray) -> np.ndarray | None:
    """Deviation of each channel's noise `[3]` in the smoothest parts of what `where` holds; brightness comes first."""
    brightness = colours[..., 0]
    usable = where & (brightness > 8) & (brightness < 247)  # clipped black and white have lost their noise
    usable = cv2.erode(usable.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0  # the kernel sees no other pixels
    if np.count_nonzero(usable) < _MIN_CONTEXT_PIXELS:
        return None
    response = np.abs(cv2.filter2D(colours, cv2.CV_32F, _NOISE_KERNEL))
    weight = cv2.blur(usable.astype(np.float32), (_ROUGHNESS_WINDOW, _ROUGHNESS_WINDOW))
    roughness = cv2.blur(response[..., 0] * usable, (_ROUGHNESS_WINDOW, _ROUGHNESS_WINDOW)) / np.maximum(weight, 1e-6)
    usable &= roughness <= np.quantile(roughness[usable], _SMOOTHEST)
    return np.minimum(1.4826 * np.median(response[usable], axis=0), _MAX_GRAIN)  # robust: edges are the rarer part


def _pasted_window(mask: np.ndarray, matrix: np.ndarray, photo_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the part of the photo that the mask touches, with a rim for measuring the grain."""
    x0, y0, x1, y1 = photo_window(matrix, mask.shape[0], photo_shape)
    touched = None
    if x1 > x0 and y1 > y0:
        touched = _warp(mask.astype(np.float32), matrix, (x0, y0, x1, y1), cv2.INTER_LINEAR) > 0
    if touched is None or not touched.any():
        raise ValueError("nothing of `mask` lies in the photo. Check that `matrix` belongs to this photo.")
    left, top, width, height = cv2.boundingRect(touched.astype(np.uint8))
    rim = int(np.ceil(_CONTEXT_SHARE * max(width, height)))
    photo_height, photo_width = photo_shape[:2]
    return (
        max(x0 + left - rim, 0),
        max(y0 + top - rim, 0),
        min(x0 + left + width + rim, photo_width),
        min(y0 + top + height + rim, photo_height),
    )


def _warp(crop: np.ndarray, matrix: np.ndarray, window: tuple[int, int, int, int], interpolation: int) -> np.ndarray:
    """A float32 crop as it lies in a window (x0, y0, x1, y1) of the photo, 0 around it."""
    x0, y0, x1, y1 = window
    to_crop = np.array(matrix, dtype=np.float64)
    to_crop[:, 2] += to_crop[:, :2] @ (x0, y0)
    return cv2.warpAffine(
        crop,
        to_crop,
        (x1 - x0, y1 - y0),
        flags=interpolation | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT if crop.ndim == 2 else cv2.BORDER_REPLICATE,
    )


def _check_crop(crop: np.ndarray, mask: np.ndarray, name: str) -> None:
    if mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
        raise ValueError(f"`mask` must have shape [S, S], but has {list(mask.shape)}.")
    if crop.dtype != np.uint8 or crop.shape != (*mask.shape, 3):
        raise ValueError(
            f"`{name}` must be uint8 {[*mask.shape, 3]} to fit `mask`, but is {crop.dtype} "
            f"{list(crop.shape)}. Resize it or make the mask for its size."
        )


def _smoothstep(value: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, and in between a curve with level ends."""
    value = value.clip(0, 1)
    return (value * value * (3 - 2 * value)).astype(np.float32)


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)
