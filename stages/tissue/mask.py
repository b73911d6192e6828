"""Where on a thumbnail there is tissue.

The mask asks how much darker than the glass around it a pixel is (brightfield) or how much brighter than the dark
around it (fluorescence). Both backgrounds are fitted as smooth surfaces, so uneven illumination is not tissue, and the
threshold follows the slide's own contrast, so faint stain is. What was never scanned is left out before that, and ink,
dirt and shadows after it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.filters import threshold_otsu

from stages.tissue.background import Surface, brightest, through
from stages.tissue.fill import RINGING, find_fill
from stages.tissue.foreign import GRID_UM, find_foreign
from stages.tissue.strips import by_strips, every, strips
from stages.tissue.thumbnail import Thumbnail

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
TINT = 1.5
"""Grey levels by which glass may differ in tint."""
RIM_UM = 80.0
"""Beside tissue that far, paleness tells nothing."""
PALE, DENSE, FAINT = np.uint8(1), np.uint8(2), np.uint8(4)
"""Pixels darker than glass by its noise and yet too faint beside the rest; much darker than it; hardly."""
ENOUGH = 0.005
"""Share of what was scanned that tells its background."""

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]


class NoTissueError(ValueError):
    """This slide shows nothing to look at."""


@dataclass(frozen=True, slots=True)
class Tissue:
    """What a thumbnail shows.

    Attributes:
        mask: (H, W) bool; where there is tissue.
        fill: (H, W) bool; where the slide was never scanned.
        faint: share of the mask that is hardly darker than glass, `STAIN_THRESHOLD` at the most; 0 on dark.
        left: what is darker than glass by its noise and yet too faint beside the rest, away from it, over the mask's
            size; 0 on dark.
    """

    mask: Mask
    fill: Mask
    faint: float
    left: float


def find_tissue(thumbnail: Thumbnail) -> Tissue:
    """The tissue of a slide that must have some.

    Raises:
        NoTissueError: there is none.
    """
    tissue = _tissue(thumbnail.rgb, thumbnail.mpp)
    if not tissue.mask.any():
        raise NoTissueError(
            f"no tissue found on the thumbnail ({thumbnail.raster.width} x {thumbnail.raster.height} pixels at "
            f"{thumbnail.mpp:g} µm/px): look at it; fragments need a finer "
            "attention_mpp, and what hardly differs from its background is not found"
        )
    return tissue


def tissue_mask(rgb: NDArray[np.uint8], mpp: float) -> Mask:
    """Where an image (H, W, 3) uint8 at ``mpp`` µm/px shows tissue: stained on bright glass, or glowing on dark.

    What was never scanned, pen marks on glass, dust, shadows and black borders are left out; small islands are removed
    and small holes filled. An image that is tissue from edge to edge is tissue everywhere, a blank one nowhere.
    """
    return _tissue(rgb, mpp).mask


def _tissue(rgb: NDArray[np.uint8], mpp: float) -> Tissue:
    shape = (rgb.shape[0], rgb.shape[1])
    if all(int(rgb[..., c].max()) - int(rgb[..., c].min()) <= 2 for c in range(3)):
        nothing = np.zeros(shape, bool)
        return Tissue(nothing, nothing, 0.0, 0.0)
    fill = find_fill(rgb)
    factor = max(1, round(GRID_UM / mpp))
    small = np.concatenate(
        [np.asarray(Image.fromarray(rgb[s.rows]).reduce(factor)) for s in strips(shape, unit=factor)]
    )
    unseen = _reduced(fill, factor) > 0
    sigma = max(0.7, SMOOTHING_UM / mpp)
    if _is_dark_field(small, unseen):
        return Tissue(_tidy(_glowing(rgb, fill, sigma), fill, mpp), fill, 0.0, 0.0)
    mask, depth = _stained(rgb, fill, small, unseen, sigma=sigma, mpp=mpp, factor=factor)
    mask = _tidy(mask, fill, mpp)
    size = np.count_nonzero(mask)
    if not size:
        return Tissue(mask, fill, 0.0, 0.0)
    rim, left, faint = max(1, round(RIM_UM / mpp)), 0, 0
    for strip in strips(shape, halo=rim + 2):
        here, there = depth[strip.around], mask[strip.around]
        # beside dense tissue light strays; single pixels are noise
        pale = (here & PALE > 0) & ~ndimage.maximum_filter(there & (here & DENSE > 0), 2 * rim + 1)
        left += int(np.count_nonzero(ndimage.binary_opening(pale, np.ones((3, 3), bool))[strip.own]))
        faint += int(np.count_nonzero(there[strip.own] & (here[strip.own] & FAINT > 0)))
    return Tissue(mask, fill, faint / size, left / size)


def _is_dark_field(rgb: NDArray[np.uint8], fill: Mask) -> bool:
    """Whether dark surrounds the signal; a brightfield scan in a black surround still shows glass, or tissue on it."""
    scanned = ~fill
    if not scanned.any():
        return False
    low, high = _extremes(rgb)
    dark = float((high < 64)[scanned].mean())
    glass = float((_flat(_grey(rgb)) & (low > 170))[scanned].mean())
    if dark <= 10 * glass:
        return False
    lightness = float(np.median((high[scanned].astype(np.float32) + low[scanned]) / 2))
    # a fill in the dark is the dark itself, evened out: what glows there fades into it, and a scan's edge does not
    fades = dark > 0.1 and bool((high[fill] < 64).any())
    return dark > 0.5 or lightness < 72 or fades


def _extremes(rgb: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The least and the greatest channel (H, W)."""
    r, g, b = (rgb[..., c] for c in range(3))
    return np.minimum(np.minimum(r, g), b), np.maximum(np.maximum(r, g), b)


def _grey(rgb: NDArray[np.uint8]) -> Floats:
    grey: Floats = rgb[..., 0].astype(np.float32)
    grey += rgb[..., 1]
    grey += rgb[..., 2]
    grey /= np.float32(3)
    return grey


def _flat(values: Floats, deviation: float = 4.0) -> Mask:
    """Where the standard deviation in a 5 x 5 window is below ``deviation``."""

    def flat(rows: slice) -> Mask:
        part = values[rows]
        mean = ndimage.uniform_filter(part, 5, mode="nearest")
        square = ndimage.uniform_filter(part * part, 5, mode="nearest")
        return np.asarray(square - mean * mean < deviation**2)

    return by_strips(flat, values.shape, halo=2)


def _glowing(rgb: NDArray[np.uint8], fill: Mask, sigma: float) -> Mask:
    inverted = 255 - _extremes(rgb)[1].astype(np.float32)
    scanned = ~fill
    seeds = _flat(inverted) & (inverted > 160)
    if (seeds & scanned).sum() >= ENOUGH * scanned.sum():
        seeds &= scanned
    elif not seeds.any():
        return scanned  # glows from edge to edge
    members = brightest(inverted, seeds)
    dark = through(inverted, members).at(inverted.shape)
    dark -= inverted
    dark[fill] = 0
    glow = ndimage.gaussian_filter(dark, sigma, mode="nearest")
    found: Mask = glow > _otsu(glow, *_above_noise(glow, members, GLOW_THRESHOLD))
    return found


def _stained(
    rgb: NDArray[np.uint8],
    fill: Mask,
    small: NDArray[np.uint8],
    unseen: Mask,
    *,
    sigma: float,
    mpp: float,
    factor: int,
) -> tuple[Mask, NDArray[np.uint8]]:
    """Where stain darkens glass, and of each pixel whether it is `PALE`, `DENSE`, `FAINT`.

    ``small`` and ``unseen`` are image and fill, reduced by ``factor``.
    """
    members, glass = _glass(small, unseen)
    density, step = _densities(rgb, fill, glass, sigma)
    limits = _above_noise(density, _enlarged(members, factor, fill.shape), STAIN_THRESHOLD)
    threshold = min(_otsu(density, *limits), _valley(density, *limits))
    mask = density > threshold
    depth = _depth(density, mask, fill, limits[0])
    del density
    mask[fill] = False
    mask = _without_ringing(mask, step)
    del step
    foreign = find_foreign(_small_densities(small, glass), _reduced(mask, factor) >= 0.5, unseen, mpp * factor)
    mask &= ~_enlarged(foreign, factor, fill.shape)
    return mask, depth


def _depth(density: Floats, mask: Mask, fill: Mask, least: float) -> NDArray[np.uint8]:
    """Of each pixel (H, W) whether it is `PALE`: denser than ``least``, and outside of the mask; `DENSE`, `FAINT`."""
    depth = np.empty(mask.shape, np.uint8)
    for rows in (strip.rows for strip in strips(mask.shape)):
        part = density[rows]
        depth[rows] = PALE * ((part > least) & ~mask[rows] & ~fill[rows])
        depth[rows] |= DENSE * (part > 2 * STAIN_THRESHOLD[1])
        depth[rows] |= FAINT * (part < STAIN_THRESHOLD[1])
    return depth


def _densities(rgb: NDArray[np.uint8], fill: Mask, glass: list[Surface], sigma: float) -> tuple[Floats, Mask]:
    """Smooth optical density (H, W) of the channel that absorbs most, 0 on the fill; and where there is a step from a
    fill to glass that compression leaves traces of."""
    density, step = np.empty(fill.shape, np.float32), np.zeros(fill.shape, bool)
    for strip in strips(fill.shape, halo=int(4 * sigma + 0.5)):  # as far as the filter reaches
        part, unseen, most = rgb[strip.around], fill[strip.around], density[strip.rows]
        for c in range(3):
            one: Floats = np.log((glass[c].at(fill.shape, strip.around) + 1) / (part[..., c] + np.float32(1)))
            step[strip.rows] |= (unseen & (np.abs(one) > STAIN_THRESHOLD[1]))[strip.own]
            one[unseen] = 0
            one = ndimage.gaussian_filter(one, sigma, mode="nearest")[strip.own]
            most[:] = one if c == 0 else np.maximum(most, one)
    return density, step


def _small_densities(rgb: NDArray[np.uint8], glass: list[Surface]) -> Floats:
    """Optical density (3, H, W)."""
    out = np.empty((3, *rgb.shape[:2]), np.float32)
    for strip in strips(rgb.shape):
        for c in range(3):
            light = glass[c].at((rgb.shape[0], rgb.shape[1]), strip.rows) + 1
            out[c, strip.rows] = np.log(light / (rgb[strip.rows, :, c] + np.float32(1)))
    return out


def _glass(rgb: NDArray[np.uint8], fill: Mask) -> tuple[Mask, list[Surface]]:
    """Pixels that show bare glass (H, W), maybe none, and the glass's brightness in each channel."""
    grey = _grey(rgb)
    low, high = _extremes(rgb)
    scanned = ~fill
    top = float(np.percentile(grey[scanned], 99)) if scanned.any() else CLEAR_GLASS
    # glass may be tinted or dim, but nothing on the slide is much brighter than it
    seeds = _flat(grey) & (low > 120) & (high - low < 40) & (grey > 0.65 * top)
    own = seeds & ~ndimage.binary_dilation(fill, iterations=2)
    if own.sum() >= 4 * ENOUGH * scanned.sum():
        seeds = own
    else:  # the glass may be so even that it looks like a fill: then it is the one that lies around the tissue
        around = seeds & fill & ndimage.binary_dilation(scanned & (grey < top - 16), iterations=6)
        level = float(np.median(grey[around])) if around.any() else top
        least = float(np.percentile(grey[scanned], 90)) - 4 if scanned.any() else 0.0
        seeds &= (np.abs(grey - level) < 4) & (scanned | (grey >= least))
    if seeds.sum() < ENOUGH * scanned.sum():
        return seeds, [Surface(np.array([CLEAR_GLASS]), CLEAR_GLASS, CLEAR_GLASS)] * 3
    members = brightest(grey, _of_one_tint(rgb, grey, seeds))
    return members, [through(rgb[..., c].astype(np.float32), members) for c in range(3)]


def _of_one_tint(rgb: NDArray[np.uint8], grey: Floats, seeds: Mask) -> Mask:
    """The seeds of the brightest ones' tint: light may fall off over a slide, but only stain changes its colour."""
    alike = seeds.copy()
    bright = seeds & (grey >= np.percentile(grey[seeds], 95))
    light = np.maximum(grey, 1) / float(np.median(grey[bright]))
    for c in (0, 2):
        tint = ndimage.uniform_filter((rgb[..., c].astype(np.float32) - rgb[..., 1]) / light, 3)
        alike &= np.abs(tint - np.median(tint[bright])) < TINT
    return alike if alike.sum() > 0.05 * seeds.sum() else seeds


def _above_noise(signal: Floats, background: Mask, limits: tuple[float, float]) -> tuple[float, float]:
    """The limits of a threshold, the lower one above the background's own noise."""
    low, high = limits
    if background.any():
        noise = 1.4826 * float(np.median(np.abs(every(3, lambda rows: signal[rows], background))))
        low = min(max(low, NOISE_SIGMAS * noise), high)  # more than that is not noise but pale tissue
    return low, high


def _otsu(signal: Floats, low: float, high: float) -> float:
    return float(np.clip(threshold_otsu(_some(signal)), low, high))


def _valley(density: Floats, low: float, high: float) -> float:
    """Between glass and what is barely darker, from ``low`` on, where the two are distinct; else ``high``.

    Otsu's threshold tells the two greatest populations apart, and pale tissue beside dark can be neither.
    """
    values, step = _some(density), high / 12
    counts = np.bincount(np.clip(values / step, 0, 48).astype(np.int32), minlength=49)[:48]
    smooth = ndimage.gaussian_filter1d(counts.astype(np.float64), 1.0)
    for peak in range(2, 15):  # up to a quarter above the threshold
        if not smooth[peak - 1] <= smooth[peak] >= smooth[peak + 1]:
            continue
        dip = int(np.argmin(smooth[:peak]))
        much = counts[dip : 2 * peak - dip].sum() > 0.01 * values.size
        if much and smooth[peak] > 1.2 * smooth[dip] and smooth[:dip].max(initial=0) > 1.2 * smooth[dip]:
            return max(low, dip * step)
    return high


def _some(values: Floats) -> Floats:
    return values.ravel()[:: max(1, values.size // 200_000)]


def _reduced(mask: Mask, factor: int) -> Floats:
    """Share of true pixels in blocks of ``factor`` x ``factor``, the last ones cut."""
    parts = [Image.fromarray(mask[s.rows] * np.uint8(255)).reduce(factor) for s in strips(mask.shape, unit=factor)]
    share: Floats = np.concatenate([np.asarray(part, np.float32) for part in parts])
    share /= np.float32(255)
    return share


def _enlarged(mask: Mask, factor: int, shape: tuple[int, int]) -> Mask:
    """A reduced mask at the image's size again."""
    return np.repeat(np.repeat(mask, factor, 0), factor, 1)[: shape[0], : shape[1]]


def _without_ringing(mask: Mask, fill: Mask) -> Mask:
    """Beside a fill, keep only what goes on away from it: the rest is what compression left of the step there."""
    if not fill.any() or not mask.any():
        return mask

    def kept(rows: slice) -> Mask:
        beside = ndimage.binary_dilation(fill[rows], iterations=RINGING)
        away = ndimage.binary_dilation(mask[rows] & ~beside, iterations=RINGING + 1)
        return np.asarray(mask[rows] & (away | ~beside))

    return by_strips(kept, mask.shape, halo=2 * RINGING + 1)


def _tidy(mask: Mask, fill: Mask, mpp: float) -> Mask:
    """Remove small islands, then fill small holes; either area in pixels stays small beside the image itself."""
    most = mask.size // 16
    mask = mask & ~_islands(mask, min(most, MIN_OBJECT_UM2 / mpp**2))
    return mask | (_islands(~mask, min(most, MAX_HOLE_UM2 / mpp**2)) & ~fill)


def _islands(mask: Mask, pixels: float) -> Mask:
    """The 4-connected parts of the mask that have fewer than ``pixels`` pixels."""

    def found(rows: slice) -> Mask:
        parts, _ = ndimage.label(mask[rows])
        small = np.bincount(parts.ravel()) < pixels
        small[0] = False
        return np.asarray(small[parts])

    # what reaches from a strip across the halo, or farther, has a pixel in each of its rows
    return by_strips(found, mask.shape, halo=math.ceil(pixels))
