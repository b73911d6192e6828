"""Where on a thumbnail there is tissue.

The mask asks how much darker than the glass around it a pixel is (brightfield) or how much brighter than the dark
around it (fluorescence). Both backgrounds are fitted as smooth surfaces, so uneven illumination is not tissue, and the
threshold follows the slide's own contrast, so faint stain is. What was never scanned is left out before that, and ink,
dirt and shadows after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from stages.heap import give_back, put_aside
from stages.tissue.background import Surface, brightest, through
from stages.tissue.fill import RINGING, find_fill
from stages.tissue.foreign import GRID_UM, find_foreign
from stages.tissue.morphology import dilated, opened, runs_along, squared, stretched
from stages.tissue.signal import ABOVE, BETWEEN, Signal, enlarged
from stages.tissue.strips import Sample, by_strips, strips
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
CLEAR_GLASS = 245.0
"""Grey level of unstained glass, assumed where an image shows none."""
TINT = 1.5
"""Grey levels by which glass may differ in tint."""
RIM_UM = 80.0
"""Beside tissue that far, paleness tells nothing."""
FILL, STEP, DENSE, FAINT, DARK = (np.uint8(1 << i) for i in (0, 3, 4, 5, 6))
"""Marks of pixels that were never scanned; where compression leaves traces of a step from there to glass; much darker
than glass; hardly; that stain darkens. With the signal's `ABOVE` and `BETWEEN` all are in one byte a pixel."""
ENOUGH = 0.005
"""Share of what was scanned that tells its background."""

Mask = NDArray[np.bool_]
Marks = NDArray[np.uint8]
Floats = NDArray[np.float32]
Rows = Callable[[slice], Mask]
"""A mask (H, W) that is asked for by rows."""


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
    marks = find_fill(rgb).view(np.uint8)  # FILL, and other marks from here on
    factor = max(1, round(GRID_UM / mpp))
    small = _reduced(lambda rows: put_aside(rgb)[rows], rgb.shape, factor)
    unseen = _reduced(lambda rows: marks[rows] * np.uint8(255), shape, factor) > 0
    give_back(rgb)
    sigma = max(0.7, SMOOTHING_UM / mpp)
    if _is_dark_field(small, unseen):
        mask = _glowing(rgb, marks, sigma)
        _tidy(mask, marks, mpp)
        return Tissue(mask, (marks & FILL).view(bool), 0.0, 0.0)
    mask = _stained(rgb, marks, small, unseen, sigma=sigma, mpp=mpp, factor=factor)
    del small, unseen
    _tidy(mask, marks, mpp)
    size = int(np.count_nonzero(mask))
    rim, left, faint = max(1, round(RIM_UM / mpp)), 0, 0
    for strip in strips(shape, halo=rim + 2) if size else ():
        here, there = marks[strip.around], mask[strip.around]
        # beside dense tissue light strays; single pixels are noise
        pale = here & (BETWEEN | FILL) == BETWEEN
        if pale.any():
            pale &= ~squared(there & (here & DENSE > 0), rim)
            left += int(np.count_nonzero(opened(pale, 1)[strip.own]))
        faint += int(np.count_nonzero(there[strip.own] & (here[strip.own] & FAINT > 0)))
    return Tissue(mask, (marks & FILL).view(bool), faint / max(1, size), left / max(1, size))


def _is_dark_field(rgb: NDArray[np.uint8], fill: Mask) -> bool:
    """Whether dark surrounds the signal; a brightfield scan in a black surround still shows glass, or tissue on it."""
    dark = 0
    twice, dark_fill = np.zeros(511, np.int64), False  # pixels by twice their lightness
    for strip in strips(rgb.shape):
        (low, high), scanned = _extremes(rgb[strip.rows]), ~fill[strip.rows]
        dark += int(np.count_nonzero((high < 64) & scanned))
        twice += np.bincount((low.astype(np.int16) + high)[scanned], minlength=511)
        dark_fill |= bool(((high < 64) & ~scanned).any())
    count = int(twice.sum())
    if not count or not dark or _shows_glass(rgb, fill, dark / 10):
        return False
    median = float(np.searchsorted(np.cumsum(twice), [(count - 1) // 2, count // 2], side="right").mean()) / 2
    # a fill in the dark is the dark itself, evened out: what glows there fades into it, and a scan's edge does not
    fades = dark > 0.1 * count and dark_fill
    return dark > 0.5 * count or median < 72 or fades


def _shows_glass(rgb: NDArray[np.uint8], fill: Mask, least: float) -> bool:
    """Whether at least so many pixels that were scanned are bright and even."""
    glass = 0
    for strip in strips(rgb.shape, halo=2):
        bright = (_extremes(rgb[strip.rows])[0] > 170) & ~fill[strip.rows]
        if bright.any():
            glass += int(np.count_nonzero(_flat(_grey(rgb[strip.around]))[strip.own] & bright))
        if glass >= least:
            return True
    return False


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
    """Where the standard deviation in a 5 x 5 window is below ``deviation``; two rows more matter on either side."""
    mean = ndimage.uniform_filter(values, 5, mode="nearest")
    square = ndimage.uniform_filter(values * values, 5, mode="nearest")
    return np.asarray(square - mean * mean < deviation**2)


def _glowing(rgb: NDArray[np.uint8], marks: Marks, sigma: float) -> Mask:
    shape = marks.shape
    inverted = np.empty(shape, np.uint8)
    for strip in strips(shape):
        inverted[strip.rows] = 255 - _extremes(rgb[strip.rows])[1]

    def seed(rows: slice) -> Mask:
        part = inverted[rows]
        return _flat(part.astype(np.float32)) & (part > 160)

    seeds = by_strips(seed, shape, halo=2)
    scanned = np.asarray(marks & FILL == 0)
    if np.count_nonzero(seeds & scanned) >= ENOUGH * np.count_nonzero(scanned):
        seeds &= scanned
    elif not seeds.any():
        return scanned  # glows from edge to edge
    del scanned
    members = brightest(inverted, seeds)
    del seeds
    behind, signal = through(inverted, members), Signal(marks, GLOW_THRESHOLD, members, 1)
    for strip in strips(shape, halo=int(4 * sigma + 0.5)):  # as far as the filter reaches
        dark = behind.at(shape, strip.around)
        dark -= inverted[strip.around]
        dark[marks[strip.around] & FILL > 0] = 0
        signal.add(strip.rows, ndimage.gaussian_filter(dark, sigma, mode="nearest")[strip.own])
    limits = signal.limits()
    signal.settle(signal.otsu(*limits), limits[0])
    return by_strips(lambda rows: marks[rows] & ABOVE > 0, shape)


def _stained(
    rgb: NDArray[np.uint8],
    marks: Marks,
    small: NDArray[np.uint8],
    unseen: Mask,
    *,
    sigma: float,
    mpp: float,
    factor: int,
) -> Mask:
    """Where stain darkens glass; pixels are marked, as `BETWEEN` those that are darker than glass by its noise and yet
    too faint beside the rest.

    ``small`` and ``unseen`` are image and fill, reduced by ``factor``.
    """
    members, glass = _glass(small, unseen)
    give_back()
    signal = Signal(marks, STAIN_THRESHOLD, members, factor)
    for rows, density in _densities(rgb, marks, glass, sigma):
        marks[rows] |= DENSE * (density > 2 * STAIN_THRESHOLD[1]) | FAINT * (density < STAIN_THRESHOLD[1])
        signal.add(rows, density)
    limits = signal.limits()
    signal.settle(min(signal.otsu(*limits), signal.valley(*limits)), limits[0])
    del signal, members
    give_back(rgb)
    _mark_dark(marks)
    dark = _reduced(lambda rows: (marks[rows] & DARK > 0) * np.uint8(255), marks.shape, factor) >= 128

    def density_at(rows: slice, columns: slice) -> Floats:
        return _small_density(small, glass, rows, columns)

    foreign = find_foreign(density_at, dark, unseen, mpp * factor)

    def tissue(rows: slice) -> Mask:
        return np.asarray((marks[rows] & DARK > 0) & ~enlarged(foreign, factor, marks.shape, rows))

    return by_strips(tissue, marks.shape)


def _densities(
    rgb: NDArray[np.uint8], marks: Marks, glass: list[Surface], sigma: float
) -> Iterator[tuple[slice, Floats]]:
    """Rows from above, and the smooth optical density (h, W) there of the channel that absorbs most, 0 on the fill;
    where there is a step from a fill to glass that compression leaves traces of, is marked."""
    for strip in strips(marks.shape, halo=int(4 * sigma + 0.5)):  # as far as the filter reaches
        part, unseen = put_aside(rgb)[strip.around], marks[strip.around] & FILL > 0
        beside = bool(unseen.any())
        most: Floats | None = None
        for c in range(3):
            one = glass[c].at(marks.shape, strip.around)
            one += 1
            one /= part[..., c] + np.float32(1)
            np.log(one, out=one)
            if beside:
                marks[strip.rows] |= STEP * (unseen & (np.abs(one) > STAIN_THRESHOLD[1]))[strip.own]
                one[unseen] = 0
            one = ndimage.gaussian_filter(one, sigma, mode="nearest")[strip.own]
            most = one if most is None else np.maximum(most, one, out=most)
        assert most is not None
        yield strip.rows, most


def _small_density(rgb: NDArray[np.uint8], glass: list[Surface], rows: slice, columns: slice) -> Floats:
    """Optical density (3, h, w) of a part of an image."""
    part, shape = rgb[rows, columns], (rgb.shape[0], rgb.shape[1])
    out = np.empty((3, *part.shape[:2]), np.float32)
    for c in range(3):
        one = glass[c].at(shape, rows, columns)
        one += 1
        one /= part[..., c] + np.float32(1)
        np.log(one, out=out[c])
    return out


def _glass(rgb: NDArray[np.uint8], fill: Mask) -> tuple[Mask, list[Surface]]:
    """Pixels that show bare glass (H, W), maybe none, and the glass's brightness in each channel."""
    grey, scanned = _grey(rgb), ~fill

    def brightness(share: float) -> float:
        return float(np.percentile(grey[scanned], share, overwrite_input=True))

    top = brightness(99) if scanned.any() else CLEAR_GLASS

    def seed(rows: slice) -> Mask:
        # glass may be tinted or dim, but nothing on the slide is much brighter than it
        (low, high), part = _extremes(rgb[rows]), grey[rows]
        return np.asarray(_flat(part) & (low > 120) & (high - low < 40) & (part > 0.65 * top))

    seeds = by_strips(seed, grey.shape, halo=2)
    own = seeds & ~dilated(fill, 2)
    if own.sum() >= 4 * ENOUGH * scanned.sum():
        seeds = own
    else:  # the glass may be so even that it looks like a fill: then it is the one that lies around the tissue
        around = seeds & fill & dilated(scanned & (grey < top - 16), 6)
        level = float(np.median(grey[around])) if around.any() else top
        least = brightness(90) - 4 if scanned.any() else 0.0
        for strip in strips(grey.shape):
            part = grey[strip.rows]
            seeds[strip.rows] &= (np.abs(part - level) < 4) & (scanned[strip.rows] | (part >= least))
    if not seeds.any() or seeds.sum() < ENOUGH * scanned.sum():
        return seeds, [Surface(np.array([CLEAR_GLASS]), CLEAR_GLASS, CLEAR_GLASS)] * 3
    members = brightest(grey, _of_one_tint(rgb, grey, seeds))
    return members, [through(rgb[..., c], members) for c in range(3)]


def _of_one_tint(rgb: NDArray[np.uint8], grey: Floats, seeds: Mask) -> Mask:
    """The seeds of the brightest ones' tint: light may fall off over a slide, but only stain changes its colour."""
    alike = seeds.copy()
    bright = seeds & (grey >= np.percentile(grey[seeds], 95, overwrite_input=True))
    middle = float(np.median(grey[bright], overwrite_input=True))
    count = int(np.count_nonzero(seeds))
    for c in (0, 2):
        some = Sample(1, count)  # of the seeds alone: memory is theirs
        for strip in strips(seeds.shape, halo=1):
            if seeds[strip.rows].any():
                away = rgb[strip.around, :, c].astype(np.float32)
                away -= rgb[strip.around, :, 1]
                away /= np.maximum(grey[strip.around], 1) / middle
                some.add(ndimage.uniform_filter(away, 3)[strip.own][seeds[strip.rows]])
        tints = some.values
        tints -= np.median(tints[bright[seeds]], overwrite_input=True)
        alike[seeds] &= np.abs(tints, out=tints) < TINT
    return alike if alike.sum() > 0.05 * seeds.sum() else seeds


def _reduced(values: Callable[[slice], NDArray[np.uint8]], shape: tuple[int, ...], factor: int) -> NDArray[np.uint8]:
    """Means of an image (H, W, ...), asked for by rows, in blocks of ``factor`` x ``factor``, the last ones cut."""
    out = np.empty((-(-shape[0] // factor), -(-shape[1] // factor), *shape[2:]), np.uint8)
    for strip in strips(shape, unit=factor):
        first = strip.rows.start // factor
        part = np.asarray(Image.fromarray(values(strip.rows)).reduce(factor))
        out[first : first + len(part)] = part
    return out


def _mark_dark(marks: Marks) -> None:
    """Mark what stain darkens and was scanned; beside a step from a fill only what goes on away from it: the rest is
    what compression left there."""
    for strip in strips(marks.shape, halo=2 * RINGING + 1):
        mask, step = marks[strip.around] & (ABOVE | FILL) == ABOVE, marks[strip.around] & STEP > 0
        if step.any() and mask.any():
            beside = dilated(step, RINGING)
            mask &= dilated(mask & ~beside, RINGING + 1) | ~beside
        marks[strip.rows] |= DARK * mask[strip.own]


def _tidy(mask: Mask, marks: Marks, mpp: float) -> None:
    """Remove small islands, then fill small holes; either area in pixels stays small beside the image itself."""
    most = mask.size // 16
    mask &= ~_islands(lambda rows: mask[rows], mask.shape, min(most, MIN_OBJECT_UM2 / mpp**2))
    holes = _islands(lambda rows: ~mask[rows], mask.shape, min(most, MAX_HOLE_UM2 / mpp**2))
    for strip in strips(mask.shape):
        mask[strip.rows] |= holes[strip.rows] & (marks[strip.rows] & FILL == 0)


def _islands(mask: Rows, shape: tuple[int, ...], pixels: float) -> Mask:
    """The 4-connected parts of the mask that have fewer than ``pixels`` pixels."""

    def found(rows: slice) -> Mask:
        own = mask(rows)
        parts, count = ndimage.label(own)
        starts, lengths = runs_along(own)
        part = parts.ravel()[starts]  # of each run: there are far fewer of them than pixels
        small = np.bincount(part, lengths, count + 1) < pixels
        islands = np.zeros(own.shape, bool)
        islands.ravel()[stretched(starts[small[part]], lengths[small[part]])] = True
        return islands

    # what reaches from a strip across the halo, or farther, has a pixel in each of its rows
    return by_strips(found, shape, halo=math.ceil(pixels))
