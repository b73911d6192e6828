"""Thumbnail at a physical resolution, and where on it there is tissue.

The mask asks how much darker than the glass around it a pixel is (brightfield) or how much brighter than the dark
around it (fluorescence). Both backgrounds are fitted as smooth surfaces, so uneven illumination is not tissue, and the
threshold follows the slide's own contrast, so faint stain is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from stages.geometry import Raster, physical_raster
from stages.slide.protocol import Slide
from stages.slide.render import render

MAX_THUMBNAIL_PIXELS = 100_000_000
MIN_OBJECT_UM2 = 10_000.0
"""Smaller islands are debris: a 100 µm square, about the smallest fragment that a pathologist would read."""
MAX_HOLE_UM2 = 10_000.0
"""Smaller gaps (vessels, fat cells, cracks) belong to the tissue around them."""
SMOOTHING_UM = 8.0
"""About one cell: what is told from noise is tissue, not single bright or dark pixels."""
STAIN_THRESHOLD = (0.02, 0.05)
"""Natural optical density: 5 grey levels off the glass at the least; pale stroma must pass beside dark nuclei."""
GLOW_THRESHOLD = (4.0, 16.0)
"""Grey levels above the dark at the least and at the most, for the same reasons."""
NOISE_SIGMAS = 6.0
CLEAR_GLASS = 245.0
"""Grey level of unstained glass, assumed where an image shows none."""

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]


class NoTissueError(ValueError):
    """This slide shows nothing to look at."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A slide's scanned bounds at one physical resolution.

    Attributes:
        rgb: (H, W, 3) uint8.
        raster: its pixels' place on the level-0 frame; ``raster.shape == (H, W)``.
        mpp: µm per thumbnail pixel, along x and y alike.
    """

    rgb: NDArray[np.uint8]
    raster: Raster
    mpp: float


def read_thumbnail(slide: Slide, attention_mpp: float) -> Thumbnail:
    """The slide's bounds at exactly ``attention_mpp`` µm/px.

    Raises:
        ValueError: the thumbnail would have more than `MAX_THUMBNAIL_PIXELS`.
        SlideError: the slide's resolution is unknown, or it cannot be read.
        ResolutionError: the slide is coarser than ``attention_mpp``.
    """
    raster = physical_raster(slide.facts.bounds, slide.facts.require_mpp(), attention_mpp)
    pixels = raster.width * raster.height
    if pixels > MAX_THUMBNAIL_PIXELS:
        enough = 1.01 * attention_mpp * (pixels / MAX_THUMBNAIL_PIXELS) ** 0.5
        raise ValueError(
            f"a thumbnail at {attention_mpp:g} µm/px would be {raster.width} x {raster.height} pixels, more than "
            f"{MAX_THUMBNAIL_PIXELS // 10**6} million: raise attention_mpp to {enough:.3g} µm/px or more"
        )
    rgb = render(slide, raster)
    # the last column and row are averaged with what lies outside the slide, and white there would glow in dark fields
    _, _, right, bottom = raster.extent_level0
    _, _, slide_right, slide_bottom = slide.facts.levels[0].extent_level0
    if right > slide_right + 1e-6 * raster.scale_x and raster.width > 1:
        rgb[:, -1] = rgb[:, -2]
    if bottom > slide_bottom + 1e-6 * raster.scale_y and raster.height > 1:
        rgb[-1] = rgb[-2]
    return Thumbnail(rgb, raster, attention_mpp)


def find_tissue(thumbnail: Thumbnail) -> Mask:
    """`tissue_mask` of a slide that must have some.

    Raises:
        NoTissueError: the mask is empty.
    """
    mask = tissue_mask(thumbnail.rgb, thumbnail.mpp)
    if not mask.any():
        raise NoTissueError(
            f"no tissue found on the thumbnail ({thumbnail.raster.width} x {thumbnail.raster.height} pixels at "
            f"{thumbnail.mpp:g} µm/px): look at it; if there is tissue, try a finer attention_mpp"
        )
    return mask


def tissue_mask(rgb: NDArray[np.uint8], mpp: float) -> Mask:
    """Where an image (H, W, 3) uint8 at ``mpp`` µm/px shows tissue: stained on bright glass, or glowing on dark.

    Pen marks, dust, shadows and black borders are left out; small islands are removed and small holes filled. An image
    that is tissue from edge to edge is tissue everywhere; a blank one is tissue nowhere.
    """
    if (np.ptp(rgb.reshape(-1, 3), axis=0) <= 2).all():
        return np.zeros(rgb.shape[:2], bool)
    sigma = max(0.7, SMOOTHING_UM / mpp)
    mask = _glowing(rgb, sigma) if _is_dark_field(rgb) else _stained(rgb, sigma)
    return _tidy(mask, mpp)


def _is_dark_field(rgb: NDArray[np.uint8]) -> bool:
    """Whether dark surrounds the signal; a brightfield scan with black borders still shows flat bright glass."""
    dark = float((rgb.max(axis=2) < 64).mean())
    glass = float((_flat(_grey(rgb)) & (rgb.min(axis=2) > 170)).mean())
    lightness = float(np.median(rgb.max(axis=2) / 2.0 + rgb.min(axis=2) / 2.0))
    return dark > 10 * glass and (dark > 0.5 or lightness < 72)


def _grey(rgb: NDArray[np.uint8]) -> Floats:
    grey: Floats = rgb.mean(axis=2, dtype=np.float32)
    return grey


def _flat(values: Floats, deviation: float = 4.0) -> Mask:
    """Where the standard deviation in a 5 x 5 window is below ``deviation``."""
    mean = ndimage.uniform_filter(values, 5, mode="nearest")
    square = ndimage.uniform_filter(values * values, 5, mode="nearest")
    flat: Mask = square - mean * mean < deviation**2
    return flat


def _glowing(rgb: NDArray[np.uint8], sigma: float) -> Mask:
    value = rgb.max(axis=2).astype(np.float32)
    inverted = 255 - value
    seeds = _flat(inverted) & (inverted > 160)
    if seeds.mean() < 0.005:
        return np.ones(value.shape, bool)  # glows from edge to edge
    members = _brightest(inverted, seeds)
    glow = ndimage.gaussian_filter(_surface(inverted, members) - inverted, sigma, mode="nearest")
    return _above(glow, members, GLOW_THRESHOLD)


def _stained(rgb: NDArray[np.uint8], sigma: float) -> Mask:
    grey = _grey(rgb)
    low, high = rgb.min(axis=2), rgb.max(axis=2)
    # glass may be tinted or dim, but nothing on the slide is much brighter than it
    seeds = _flat(grey) & (low > 120) & (high - low < 40) & (grey > 0.65 * np.percentile(grey, 99))
    fill = _never_scanned(rgb, seeds)
    seeds &= ~fill
    known = seeds.mean() >= 0.005
    members = _brightest(grey, seeds) if known else seeds
    density = np.empty(rgb.shape, np.float32)
    for c in range(3):
        channel = rgb[..., c].astype(np.float32)
        glass = _surface(channel, members) if known else np.full_like(channel, CLEAR_GLASS)
        density[..., c] = np.log((glass + 1) / (channel + 1))
        density[..., c] = ndimage.gaussian_filter(density[..., c], sigma, mode="nearest")
    density[fill] = 0
    mask = _above(density.max(axis=2), members, STAIN_THRESHOLD)
    return _without_grey_objects(mask & ~_ink(density, mask), density, rgb)


def _never_scanned(rgb: NDArray[np.uint8], seeds: Mask) -> Mask:
    """Pixels of one exact bright colour that pads a scan, where the scan has dimmer glass of its own.

    Without this the fill, being brightest, would pass for the glass and the glass for faint stain.
    """
    same = (ndimage.maximum_filter(rgb, (3, 3, 1)) == ndimage.minimum_filter(rgb, (3, 3, 1))).all(axis=2)
    exact = same & seeds
    none = np.zeros(exact.shape, bool)
    if exact.mean() < 0.02:
        return none
    colours, counts = np.unique(rgb[exact], axis=0, return_counts=True)
    fill = (rgb == colours[counts.argmax()]).all(axis=2) & ndimage.binary_dilation(exact, iterations=2)
    rest = ~ndimage.binary_dilation(fill, iterations=3)
    glass = rest & seeds & _flat(_grey(rgb), 1.5)
    return fill if glass.sum() > 0.2 * max(1, rest.sum()) else none


def _basis(u: NDArray[np.float64], v: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Quadratic polynomials in coordinates on [-1, 1]."""
    return [np.ones_like(u), u, v, u * u, u * v, v * v]


def _axis(length: int) -> NDArray[np.float64]:
    return (2 * np.arange(length) + 1) / length - 1


def _evaluate(coefficients: NDArray[np.float64], shape: tuple[int, int]) -> Floats:
    u, v = _axis(shape[1])[None, :], _axis(shape[0])[:, None]
    out = np.zeros(shape, np.float32)
    for c, term in zip(coefficients, _basis(u, v), strict=False):
        out += (c * term).astype(np.float32)
    return out


def _points(members: Mask, most: int = 20_000) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Row-major indices (N,) of some members, and the polynomial terms (N, T) there that the members support.

    A few scattered members cannot tell a gradient from tissue: through them goes a constant, T = 1.
    """
    index = np.flatnonzero(members)
    terms = 6 if members.size >= 400 and len(index) > 0.2 * members.size else 1
    index = index[:: max(1, len(index) // most)]
    rows, columns = np.divmod(index, members.shape[1])
    basis = _basis(_axis(members.shape[1])[columns], _axis(members.shape[0])[rows])
    return index, np.stack(basis[:terms], axis=1)


def _solve(basis: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    weighted = basis * weights[:, None]
    # the ridge only keeps members on one line from being singular
    normal = weighted.T @ basis + 1e-9 * np.eye(basis.shape[1])
    return np.asarray(np.linalg.solve(normal, weighted.T @ y), np.float64)


def _brightest(values: Floats, seeds: Mask) -> Mask:
    """The seeds that lie on the brightest smooth surface through them.

    An expectile fit (weight 0.95 above, 0.05 below) finds the upper envelope even where faint tissue outnumbers the
    glass; then fits to what lies within three noise deviations settle on the surface itself.
    """
    index, basis = _points(seeds)
    y = values.ravel()[index].astype(np.float64)
    weights, spread = np.ones(len(y)), 1.0
    coefficients = _solve(basis, y, weights)
    for step in range(30):
        residual = y - basis @ coefficients
        if step < 20:
            weights = np.where(residual > 0, 0.95, 0.05)
        else:
            above = residual[residual > 0]
            spread = max(1.0, 1.4826 * float(np.median(above)) if len(above) else 0.0)
            weights = (np.abs(residual) < 3 * spread).astype(np.float64)
        if weights.sum() < basis.shape[1]:
            break
        coefficients = _solve(basis, y, weights)
    members = seeds & (np.abs(values - _evaluate(coefficients, seeds.shape)) < 3 * spread)
    return members if members.any() else seeds


def _surface(values: Floats, members: Mask) -> Floats:
    """The smooth background (H, W) through the members, never beyond the values that they take."""
    index, basis = _points(members)
    y = values.ravel()[index].astype(np.float64)
    surface: Floats = _evaluate(_solve(basis, y, np.ones(len(y))), members.shape)
    return np.clip(surface, *np.percentile(y, [1, 99]).astype(np.float32))


def _above(signal: Floats, background: Mask, limits: tuple[float, float]) -> Mask:
    """Where the signal passes Otsu's threshold, held within ``limits`` and above the background's own noise."""
    low, high = limits
    if background.any():
        noise = 1.4826 * float(np.median(np.abs(signal[background])))
        low = min(max(low, NOISE_SIGMAS * noise), high)  # more than that is not noise but pale tissue
    otsu = threshold_otsu(signal)
    mask: Mask = signal > float(np.clip(otsu, low, high))
    return mask


def _ink(density: Floats, mask: Mask) -> Mask:
    """Pen strokes: denser and purer in hue than stains are at this scale, with the fringe around them.

    A hue that covers most of what is not glass is a stain after all and stays.
    """
    r, g, b = density[..., 0], density[..., 1], density[..., 2]
    ink = np.zeros(mask.shape, bool)
    cores = (
        (r > 1.2) & (r > 1.25 * g) & (r > 2 * b),  # blue: hardly any stain absorbs red that much more than green
        (r > 1.0) & (g < 0.6 * r) & (g < 0.75 * b),  # green
        (g > 1.4) & (b > 1.1) & (r < 0.35 * g),  # red: denser than erythrocytes or AEC
        (density.min(axis=2) > 0.9) & (np.ptp(density, axis=2) < 0.25 * density.max(axis=2)),  # black
    )
    length = np.linalg.norm(density, axis=2)
    for core in cores:
        if not core.any() or core.sum() > 0.5 * mask.sum():
            continue
        hue = density[core].mean(axis=0)
        alike = (density @ hue) > 0.97 * length * np.linalg.norm(hue)
        fringe = mask & alike & ndimage.binary_dilation(core, iterations=4)
        ink |= ndimage.binary_dilation(core | fringe)
    return ink


def _without_grey_objects(mask: Mask, density: Floats, rgb: NDArray[np.uint8]) -> Mask:
    """Drop islands that absorb all colours alike: dust, bubbles, shadows of the cover slip. Stains have a hue."""
    if np.percentile(np.ptp(rgb, axis=2), 99.5) < 8:  # a grey image: hue says nothing
        return mask
    objects, count = ndimage.label(mask)
    if not count:
        return mask
    means = np.stack([ndimage.mean(density[..., c], objects, np.arange(1, count + 1)) for c in range(3)], axis=1)
    grey = np.ptp(means, axis=1) < 0.15 * means.max(axis=1)
    kept: Mask = mask & ~np.concatenate([[False], grey])[objects]
    return kept


def _tidy(mask: Mask, mpp: float) -> Mask:
    """Remove small islands, then fill small holes; either area in pixels stays small beside the image itself."""
    most = mask.size // 16
    mask = mask & ~_islands(mask, min(most, MIN_OBJECT_UM2 / mpp**2))
    return mask | _islands(~mask, min(most, MAX_HOLE_UM2 / mpp**2))


def _islands(mask: Mask, pixels: float) -> Mask:
    """The 4-connected parts of the mask that have fewer than ``pixels`` pixels."""
    parts, _ = ndimage.label(mask)
    small = np.bincount(parts.ravel()) < pixels
    small[0] = False
    found: Mask = small[parts]
    return found
