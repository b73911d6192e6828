"""What lies on a slide and is no tissue: pen, dirt, shadows, told by colour, by where it lies and by how it is drawn.

Ink of any colour can be the colour of a stain, so colour alone tells nothing. The colours of what is not glass fall
into classes; the class that most of the textured matter has is the tissue's own. Another class is a stain where it lies
within tissue, as melanin, mucin or fibres do, and foreign where it lies on glass as a stroke of a pen does, or is too
even to be tissue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stages.heap import give_back
from stages.tissue.morphology import dilated, eroded, opened, squared
from stages.tissue.strips import Sample, chosen, masked, sizes, strips

GRID_UM = 16.0
"""Resolution at which this is told: a pen's stroke has ten such pixels across, a nucleus less than one."""
CHROMA, BINS = 1.2, 120
"""The chroma histogram reaches this far on either side of grey, in so many bins."""
DIP = 1.1
"""Two peaks of the histogram are two classes where it dips by this factor between them."""
SURE = 0.15
"""Optical density from which a pixel's colour is certain."""
LEAST_UM2 = 10_000.0
"""Smaller parts are not judged."""
FREE = 0.4
"""Share of its outline on glass from which matter lies on glass, not in tissue."""
EVEN = 0.08
"""Relative deviation of density below which matter has no texture; tissue has 0.12 to 0.3."""
DENSE = 1.2
"""Optical density that tissue without texture does not have."""
SOLID = 0.9
"""The same of strokes in the tissue's own colour."""
DRAWN = 2.5
"""How much of a stroke matter must be to be one."""
APART = 0.12
"""Chroma from which a colour is not grey."""
BOUND = 0.25
"""Share of its outline on tissue from which faint grey belongs to it."""
FAINT = 0.35
"""Optical density up to which grey on glass is a shadow."""
TOWARDS = 0.3
"""From the tissue's colour to the ink's: from here on, a pixel beside ink has ink over it."""
REACH_UM = 120.0
"""How far a stroke breaks off, or fades."""

SQUARE = np.ones((3, 3), bool)
IS_EVEN, IS_DENSE, IS_SOLID = np.uint8(1), np.uint8(2), np.uint8(4)
"""Marks of pixels that `EVEN`, `DENSE` and `SOLID` are true of."""

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
Classes = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, slots=True)
class Part:
    """Connected pixels of one class of colour.

    Attributes:
        box: rows and columns around it.
        own: (h, w) within that box.
        colour: its class.
        pixels: how many.
    """

    box: tuple[slice, slice]
    own: Mask
    colour: int
    pixels: int


@dataclass(frozen=True, slots=True)
class Matter(Part):
    """What there is to say of them.

    Attributes:
        unevenness: median relative deviation of its density within 3 x 3 pixels.
        density: median optical density, of the channel that absorbs most.
        contrast: upper quartile of the same over that of the tissue.
        length: area over squared width, 0.8 for a disc.
        even_width: share of it that a disc of 0.4 times its width covers.
    """

    unevenness: float
    density: float
    contrast: float
    length: float
    even_width: float

    def drawn(self, free: float) -> float:
        """How much it is a stroke: long, of even width, denser than tissue, on glass by a share ``free`` of its rim."""
        return free * max(0.0, self.length - 2) * self.contrast * self.even_width**2


class Density(Protocol):
    """Natural optical density (3, h, w) of the red, green and blue channels in some rows and columns of an image."""

    def __call__(self, rows: slice, columns: slice) -> Floats: ...


def find_foreign(density: Density, mask: Mask, fill: Mask, mpp: float) -> Mask:
    """Where in a mask (H, W) of what is not glass there is no tissue.

    Args:
        density: of the image, at ``mpp`` µm/px; it is asked for again and again, so that none of it is kept.
        mask: what is denser than glass.
        fill: what was never scanned; nothing is known of what lies on it.
        mpp: about `GRID_UM`.
    """
    if not mask.any():
        return np.zeros(mask.shape, bool)
    seen = Colours(density, mask.shape)
    inner = eroded(mask, 2)
    foreign, told, bins, counts = _first_look(seen, mask, inner)
    give_back()
    classes = colour_classes(bins, counts, mask)
    del bins
    tissue = _tissue_class(classes, told, inner, seen)
    if not tissue:
        return mask.copy()
    own = classes == tissue
    solid = own & (told & (IS_SOLID | IS_EVEN) == IS_SOLID | IS_EVEN)  # ink of the tissue's own colour
    del told
    solid = dilated(opened(solid, 1), 4)
    classes[solid & own] = classes.max() + 1
    main = own & ~solid
    del own, solid
    if not main.any():
        return mask.copy()
    parts = list(_parts(classes, tissue, mpp))
    usual, hues = seen.usual(classes, tissue, {part.colour for part in parts})
    found = [_matter(part, seen, inner, usual) for part in parts]
    del inner, parts
    hue = hues.pop(tissue)
    for _ in range(2):  # what touches foreign matter lies on glass as well
        judged = foreign.copy()
        rims = [_rim(m, mask, foreign, fill, main) for m in found]
        for colour, its in hues.items():
            alike = [(m, free, bound) for m, (free, bound) in zip(found, rims, strict=True) if m.colour == colour]
            grey = bool(np.hypot(*its) < APART < np.hypot(*hue))
            for m in _foreign_ones(alike, grey):
                judged[m.box] |= m.own
            own = classes == colour
            ink = judged & own
            if ink.any() and not grey:
                judged |= _faded(ink, mask, own, seen, hue, its - hue, mpp)
        if (judged == foreign).all():
            break
        foreign = judged
    if foreign.any():
        body = opened(main & ~foreign, 2)
        if not body.any():
            return mask.copy()
        rim = dilated(foreign, 4) & mask & ~body  # what is left of a stroke's soft edge
        foreign = dilated(foreign | rim)
    return foreign


@dataclass(frozen=True, slots=True)
class Colours:
    """What an image's pixels absorb, and how unevenly.

    Attributes:
        density: of the image.
        shape: its, (H, W).
    """

    density: Density
    shape: tuple[int, ...]

    def chroma(self, rows: slice) -> tuple[Floats, Floats]:
        """`chroma` of some rows."""
        return chroma(self.density(rows, slice(0, self.shape[1])))

    def within(self, box: tuple[slice, slice]) -> tuple[Floats, Floats, Floats]:
        """Density (3, h, w) of a box; that of the channel that absorbs most (h, w); and the relative deviation of their
        mean within 3 x 3 pixels (h, w)."""
        (wide, rows), (long, columns) = (_widened(side, most) for side, most in zip(box, self.shape, strict=True))
        density = self.density(wide, long)
        texture = _texture(density.sum(axis=0) / np.float32(3))[rows, columns]
        density = density[:, rows, columns]
        return density, np.maximum(density.max(axis=0), 0), texture

    def of(self, own: Mask, box: tuple[slice, slice]) -> tuple[Floats, Floats]:
        """Density (N,) of the channel that absorbs most, and texture (N,), of some pixels (h, w) of a box."""
        count = int(np.count_nonzero(own))
        strengths, textures = Sample(1, count), Sample(1, count)
        for rows in (strip.rows for strip in strips(own.shape)):
            _, strength, texture = self.within((slice(box[0].start + rows.start, box[0].start + rows.stop), box[1]))
            strengths.add(strength[own[rows]])
            textures.add(texture[own[rows]])
        return strengths.values, textures.values

    def strengths(self, where: Mask) -> Floats:
        """Density (N,) of the channel that absorbs most, of some pixels (H, W)."""
        columns = slice(0, self.shape[1])
        return masked(lambda rows: np.maximum(self.density(rows, columns).max(axis=0), 0), where)

    def usual(self, classes: Classes, tissue: int, others: Collection[int]) -> tuple[float, dict[int, Floats]]:
        """Upper quartile of the tissue's density of the channel that absorbs most, and median chroma (2,) of its class
        and of others; 0 where there are none to compare it with."""
        if not others:
            return 0.0, {tissue: np.zeros(2, np.float32)}
        pixels = sizes(classes, int(classes.max()) + 1)
        strengths = Sample(1, int(pixels[tissue]))
        colours = {k: (Sample(1, int(pixels[k])), Sample(1, int(pixels[k]))) for k in (*others, tissue)}
        for rows in (strip.rows for strip in strips(self.shape)):
            if not classes[rows].any():
                continue
            density = self.density(rows, slice(0, self.shape[1]))
            seen = chroma(density)
            for k, both in colours.items():
                own = classes[rows] == k
                if k == tissue:
                    strengths.add(np.maximum(density.max(axis=0), 0)[own])
                for some, values in zip(both, seen, strict=True):
                    some.add(values[own])
        medians = {k: [np.median(one.values, overwrite_input=True) for one in both] for k, both in colours.items()}
        quartile = float(np.percentile(strengths.values, 75, overwrite_input=True))
        return max(0.05, quartile), {k: np.array(both, np.float32) for k, both in medians.items()}


def _widened(side: slice, most: int) -> tuple[slice, slice]:
    """A slice with a pixel more on either side, as far as there are, and where in that it was."""
    start, stop = max(0, side.start - 1), min(most, side.stop + 1)
    return slice(start, stop), slice(side.start - start, side.stop - start)


def chroma(density: Floats) -> tuple[Floats, Floats]:
    """Colour without strength of densities (3, H, W): u, v (H, W), both 0 for grey (van der Laak et al. 2000)."""
    total = np.maximum(density.sum(axis=0), 1e-3)
    r, g, b = density
    return (r - b) / total, (2 * g - r - b) / total / np.float32(3**0.5)


def colour_classes(bins: NDArray[np.uint16], counts: NDArray[np.float64], mask: Mask) -> Classes:
    """Classes (H, W) of the mask's pixels by the peaks of their chroma histogram, from 1; 0 elsewhere.

    Args:
        bins: (H, W), the histogram's bin that each pixel is in.
        counts: (`BINS` * `BINS`,), what its bins hold.
        mask: whose pixels they are.
    """
    smooth = ndimage.gaussian_filter(counts.reshape(BINS, BINS), 1.8, mode="constant")
    height = np.log(smooth + 1e-5 * smooth.sum())
    peaks, count = ndimage.label(_peaks(height, float(np.log(DIP))))
    of_bins = basins(-height, peaks, count).ravel()
    of_bins = of_bins.astype(np.min_scalar_type(int(of_bins.max()) + 1))  # one more may come
    found = np.empty(mask.shape, of_bins.dtype)
    for rows in (strip.rows for strip in strips(mask.shape)):
        found[rows] = of_bins.take(bins[rows]) * mask[rows]
    return found


def basins(depth: NDArray[np.float64], lowest: NDArray[Any], count: int) -> NDArray[Any]:
    """The watershed (H, W) of a landscape (H, W), flooded from its ``count`` lowest places, numbered from 1."""
    if count == 1:  # as where one stain is all there is: no more is imported for that than it takes
        return np.ones_like(lowest)
    from skimage.segmentation import watershed

    return np.asarray(watershed(depth, lowest))


def _peaks(height: NDArray[np.float64], dip: float) -> Mask:
    """The tops of what rises by ``dip`` above what surrounds it: height less its reconstruction from ``dip`` below."""
    below, risen = height, height - dip
    while not np.array_equal(risen, below):
        below = risen
        for axis in range(2):  # as ndimage's maximum in a square, in a third of the time
            least, risen = np.moveaxis(risen, axis, 0), risen.copy()
            most = np.moveaxis(risen, axis, 0)
            np.maximum(most[1:], least[:-1], out=most[1:])
            np.maximum(most[:-1], least[1:], out=most[:-1])
        np.minimum(risen, height, out=risen)
    return np.asarray(height - risen >= dip - 1e-9)


def _texture(density: Floats) -> Floats:
    """Relative deviation of a density (H, W) within 3 x 3 pixels."""
    mean = ndimage.uniform_filter(density, 3)
    variance = ndimage.uniform_filter(density * density, 3) - mean * mean
    relative: Floats = np.sqrt(np.maximum(variance, 0)) / np.maximum(mean, 0.02)
    return relative


def _first_look(
    seen: Colours, mask: Mask, inner: Mask
) -> tuple[Mask, NDArray[np.uint8], NDArray[np.uint16], NDArray[np.float64]]:
    """Separate grey objects without texture, of less than half of all there is: shadows, dust, bubbles, dots of ink
    (H, W); of each pixel of the mask whether it `IS_EVEN`, `IS_DENSE`, `IS_SOLID`; and its bin in the chroma histogram
    (H, W), with what that holds."""
    parts, count = ndimage.label(mask)
    told, bins, counts = np.zeros(mask.shape, np.uint8), np.zeros(mask.shape, np.uint16), np.zeros(BINS * BINS)
    pixels, cores, sums = sizes(parts, count + 1), np.zeros(count + 1, np.int64), np.zeros((3, count + 1))
    for rows in (strip.rows for strip in strips(mask.shape)):
        own, within = mask[rows], inner[rows]
        if not own.any():
            continue
        density, strength, texture = seen.within((rows, slice(0, mask.shape[1])))
        told[rows] = IS_EVEN * (texture < EVEN) | IS_DENSE * (strength > DENSE) | IS_SOLID * (strength > SOLID)
        colour = chroma(density)
        # dense ink covers less than pale tissue
        weight = np.minimum(1, (strength / SURE) ** 2) * np.minimum(strength, 2)
        i, j = (np.clip(((x + CHROMA) * (BINS / (2 * CHROMA))).astype(np.int32), 0, BINS - 1) for x in colour)
        bins[rows] = i * BINS + j
        core = parts[rows][within]
        cores += np.bincount(core, minlength=count + 1)
        # one after the other, so that the sums do not depend on the strips
        np.add.at(counts, bins[rows][own], weight[own].astype(np.float64))
        for total, values in zip(sums, (texture, *colour), strict=True):
            np.add.at(total, core, values[within].astype(np.float64))
    index = np.flatnonzero((cores >= 8) & (pixels < 0.5 * mask.sum()))
    even, along, across = sums[:, index] / cores[index]
    shadows = np.zeros(count + 1, bool)
    shadows[index] = (even < EVEN) & (np.hypot(along, across) < APART)
    return chosen(parts, shadows), told, bins, counts


def _tissue_class(classes: Classes, told: NDArray[np.uint8], inner: Mask, seen: Colours) -> int:
    """The class of most matter, where it has texture; 0 where all is too dense to be so even.

    Quartiles and medians are compared by counting; only where one lies between two values of which one is beyond the
    limit are the values looked at.
    """
    best, most = 0, 0.0
    for k in range(1, int(classes.max()) + 1):
        own = classes == k
        pixels = int(np.count_nonzero(own))
        if not pixels:
            continue
        where = own & inner if (own & inner).any() else own
        core = int(np.count_nonzero(where))
        even = int(np.count_nonzero(told[where] & IS_EVEN))
        thin = pixels - int(np.count_nonzero(told[own] & IS_DENSE))

        def textures(where: Mask = where) -> Floats:
            return seen.of(where, (slice(0, where.shape[0]), slice(0, where.shape[1])))[1]

        def strengths(own: Mask = own) -> Floats:
            return seen.strengths(own)

        if _quantile_within(0.25, even, core, lambda v: v < EVEN, textures) and not _quantile_within(
            0.75, thin, pixels, lambda v: v <= DENSE, strengths
        ):
            continue
        size = pixels * (0.2 if _quantile_within(0.5, even, core, lambda v: v < EVEN, textures) else 1.0)
        if size > most:
            best, most = k, size
    return best


def _quantile_within(
    q: float, count: int, of: int, within: Callable[[float], bool], values: Callable[[], Floats]
) -> bool:
    """Whether a quantile of so many values is ``within`` a limit that ``count`` of them are, the least ones."""
    at = q * (of - 1)
    if count >= math.ceil(at) + 1:
        return True
    return count > math.floor(at) and bool(within(float(np.percentile(values(), 100 * q))))


def _parts(classes: Classes, tissue: int, mpp: float) -> Iterator[Part]:
    """The connected parts of every class but the tissue's that are large enough to be judged."""
    for k in range(1, int(classes.max()) + 1):
        if k == tissue:
            continue
        parts, n = ndimage.label(classes == k, SQUARE)
        pixels = sizes(parts, n + 1)
        for part, where in enumerate(ndimage.find_objects(parts), 1):
            if pixels[part] * mpp**2 >= LEAST_UM2:
                yield Part((where[0], where[1]), parts[where] == part, k, int(pixels[part]))


def _matter(part: Part, seen: Colours, inner: Mask, usual: float) -> Matter:
    """What there is to say of a part beside the tissue, whose density's upper quartile is the ``usual``."""
    core = inner[part.box][part.own]
    strength, texture = seen.of(part.own, part.box)
    width, covered = _widths(part.own)
    return Matter(
        part.box,
        part.own,
        part.colour,
        part.pixels,
        unevenness=float(np.median(texture[core] if core.sum() >= 8 else texture)),
        density=float(np.median(strength)),
        contrast=float(np.percentile(strength, 75)) / usual,
        length=float(part.pixels / width**2),
        even_width=covered,
    )


def _widths(own: Mask) -> tuple[float, float]:
    """The width of a shape at its widest, and the share of it that a disc of 0.4 times that covers."""
    own = np.pad(own, 1)
    deepest = max(float(depth.max()) for _, depth in _depths(own))
    reach, rim, covered = 0.4 * deepest, np.empty(own.shape, bool), 0
    for rows, depth in _depths(own):
        rim[rows] = depth < reach
    for rows, depth in _depths(rim):
        covered += int(np.count_nonzero((depth < reach) & own[rows]))
    return 2 * deepest, covered / int(np.count_nonzero(own))


def _depths(own: Mask) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Rows and each pixel's distance (h, W) from the nearest outside; ndimage's own takes five times the memory."""
    nearest = ndimage.distance_transform_edt(own, return_distances=False, return_indices=True)
    for rows in (strip.rows for strip in strips(own.shape)):
        down = nearest[0, rows] - np.arange(rows.start, rows.stop)[:, None]
        across = nearest[1, rows] - np.arange(own.shape[1])
        yield rows, np.sqrt((down * down + across * across).astype(np.float64))


def _rim(matter: Matter, mask: Mask, foreign: Mask, fill: Mask, main: Mask) -> tuple[float, float]:
    """Shares of its outline that lie on glass, or at the image's edge, and on the tissue's own class."""
    own = np.pad(matter.own, 3)
    ring = squared(own, 2) & ~own
    total = max(1, int(ring.sum()))
    solid, foreign, fill, main = (_framed(one, matter.box, 3) for one in (mask, foreign, fill, main))
    return float((ring & ~(solid & ~foreign) & ~fill).sum() / total), float((ring & main).sum() / total)


def _framed(mask: Mask, box: tuple[slice, slice], margin: int) -> Mask:
    """A box of a mask with a margin around it, false beyond the image."""
    inside = [slice(max(0, s.start - margin), s.stop + margin) for s in box]
    part = mask[*inside]
    before = [i.start - s.start + margin for i, s in zip(inside, box, strict=True)]
    wanted = [s.stop - s.start + 2 * margin for s in box]
    return np.pad(part, [(b, w - b - n) for b, w, n in zip(before, wanted, part.shape, strict=True)])


def _foreign_ones(alike: list[tuple[Matter, float, float]], grey: bool) -> list[Matter]:
    """Which of a class's parts, each with the shares of its outline on glass and on tissue, are foreign."""
    on_glass = [(m, free) for m, free, _ in alike if free >= FREE]
    size = sum(m.pixels for m, _ in on_glass)
    strokes = sum(m.pixels * m.drawn(free) for m, free in on_glass) > DRAWN * size
    if strokes and 2 * size > sum(m.pixels for m, _, _ in alike):
        return [m for m, _ in on_glass]
    found = []
    for m, free, bound in alike:
        even = m.unevenness < EVEN and m.density > FAINT
        shadow = grey and m.density < FAINT and bound < BOUND
        line = grey and m.drawn(free) > DRAWN * m.contrast
        if free >= FREE and (even or shadow or line):
            found.append(m)
    return found


def _faded(
    ink: Mask,
    mask: Mask,
    own: Mask,
    seen: Colours,
    hue: Floats,
    axis: Floats,
    mpp: float,
) -> Mask:
    """Where ink fades into what it lies on: beside it, and nearer to its colour than tissue is.

    ``hue`` is the tissue's chroma, ``axis`` the ink's less that.
    """
    steps = max(1, round(REACH_UM / mpp))
    towards, farther = np.zeros(mask.shape, bool), np.zeros(mask.shape, bool)
    for rows in (strip.rows for strip in strips(mask.shape)):
        if mask[rows].any():
            u, v = seen.chroma(rows)
            along = ((u - hue[0]) * axis[0] + (v - hue[1]) * axis[1]) / max(1e-6, float(axis @ axis))
            towards[rows], farther[rows] = along > TOWARDS, along > 1.5 * TOWARDS
    farther = mask & (own | farther)
    for _ in range(3):  # from part to part of a broken stroke
        near = squared(ink, steps)
        ink = ndimage.binary_propagation(ink | (near & own), mask=farther)
    grown: Mask = ndimage.binary_dilation(ink, iterations=steps, mask=mask & towards)
    return grown
