"""What lies on a slide and is no tissue: pen, dirt, shadows, told by colour, by where it lies and by how it is drawn.

Ink of any colour can be the colour of a stain, so colour alone tells nothing. The colours of what is not glass fall
into classes; the class that most of the textured matter has is the tissue's own. Another class is a stain where it lies
within tissue, as melanin, mucin or fibres do, and foreign where it lies on glass as a stroke of a pen does, or is too
even to be tissue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from stages.tissue.strips import strips

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

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
Labels = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Matter:
    """Connected pixels of one class of colour.

    Attributes:
        box: rows and columns around it, with a margin.
        own: (h, w) within that box.
        colour: its class.
        pixels: how many.
        unevenness: median relative deviation of its density within 3 x 3 pixels.
        density: median optical density, of the channel that absorbs most.
        contrast: upper quartile of the same over that of the tissue.
        length: area over squared width, 0.8 for a disc.
        even_width: share of it that a disc of 0.4 times its width covers.
    """

    box: tuple[slice, slice]
    own: Mask
    colour: int
    pixels: int
    unevenness: float
    density: float
    contrast: float
    length: float
    even_width: float

    def drawn(self, free: float) -> float:
        """How much it is a stroke: long, of even width, denser than tissue, on glass by a share ``free`` of its rim."""
        return free * max(0.0, self.length - 2) * self.contrast * self.even_width**2


def find_foreign(density: Floats, mask: Mask, fill: Mask, mpp: float) -> Mask:
    """Where in a mask (H, W) of what is not glass there is no tissue.

    Args:
        density: (3, H, W) natural optical density of the red, green and blue channels, at ``mpp`` µm/px.
        mask: what is denser than glass.
        fill: what was never scanned; nothing is known of what lies on it.
        mpp: about `GRID_UM`.
    """
    foreign = np.zeros(mask.shape, bool)
    if not mask.any():
        return foreign
    u, v = chroma(density)
    strength = np.maximum(density.max(axis=0), 0)
    texture = _texture(density.mean(axis=0))
    del density
    classes = colour_classes(u, v, strength, mask)
    inner = ndimage.binary_erosion(mask, iterations=2)
    tissue = _tissue_class(classes, texture, strength, inner)
    if not tissue:
        return mask.copy()
    solid = (classes == tissue) & (strength > SOLID) & (texture < EVEN)  # ink of the tissue's own colour
    solid = ndimage.binary_dilation(ndimage.binary_opening(solid, SQUARE), iterations=4)
    classes[solid & (classes == tissue)] = classes.max() + 1
    main = classes == tissue
    hue = np.array([np.median(u[main]), np.median(v[main])])
    foreign |= _shadows(mask, inner, texture, u, v)
    found = _matters(classes, texture, strength, inner, tissue, mpp)
    for _ in range(2):  # what touches foreign matter lies on glass as well
        judged = foreign.copy()
        solid, unseen, body = np.pad(mask & ~foreign, 3), np.pad(fill, 3), np.pad(main, 3)
        rims = [_rim(m, solid, unseen, body) for m in found]
        for colour in {m.colour for m in found}:
            alike = [(m, free, bound) for m, (free, bound) in zip(found, rims, strict=True) if m.colour == colour]
            own = classes == colour
            its = np.array([np.median(u[own]), np.median(v[own])])
            grey = bool(np.hypot(*its) < APART < np.hypot(*hue))
            for m in _foreign_ones(alike, grey):
                judged[m.box] |= m.own
            ink = judged & own
            if ink.any() and not grey:
                judged |= _faded(ink, mask, own, (u - hue[0], v - hue[1]), its - hue, mpp)
        if (judged == foreign).all():
            break
        foreign = judged
    if foreign.any():
        body = ndimage.binary_opening(main & ~foreign, np.ones((5, 5), bool))
        if not body.any():
            return mask.copy()
        rim = ndimage.binary_dilation(foreign, iterations=4) & mask & ~body  # what is left of a stroke's soft edge
        foreign = ndimage.binary_dilation(foreign | rim)
    return foreign


def chroma(density: Floats) -> tuple[Floats, Floats]:
    """Colour without strength of densities (3, H, W): u, v (H, W), both 0 for grey (van der Laak et al. 2000)."""
    total = np.maximum(density.sum(axis=0), 1e-3)
    r, g, b = density
    return (r - b) / total, (2 * g - r - b) / total / np.float32(3**0.5)


def colour_classes(u: Floats, v: Floats, strength: Floats, mask: Mask) -> Labels:
    """Classes (H, W) of the mask's pixels by the peaks of their chroma histogram, from 1; 0 elsewhere."""
    index, counts = np.empty(mask.shape, np.uint16), np.zeros(BINS * BINS)
    for strip in strips(mask.shape):
        rows = strip.rows
        # dense ink covers less than pale tissue
        weight = np.minimum(1, (strength[rows] / SURE) ** 2) * np.minimum(strength[rows], 2)
        i, j = (np.clip(((x[rows] + CHROMA) * (BINS / (2 * CHROMA))).astype(np.int32), 0, BINS - 1) for x in (u, v))
        index[rows] = i * BINS + j
        # one after the other, so that the sums do not depend on the strips
        np.add.at(counts, index[rows][mask[rows]], weight[mask[rows]].astype(np.float64))
    smooth = ndimage.gaussian_filter(counts.reshape(BINS, BINS), 1.8, mode="constant")
    height = np.log(smooth + 1e-5 * smooth.sum())
    peaks, _ = ndimage.label(_peaks(height, float(np.log(DIP))))
    return np.where(mask, watershed(-height, peaks).ravel().astype(np.int32)[index], np.int32(0))


def _peaks(height: NDArray[np.float64], dip: float) -> Mask:
    """The tops of what rises by ``dip`` above what surrounds it: height less its reconstruction from ``dip`` below."""
    below, risen = height, height - dip
    while not np.array_equal(risen, below):
        below, risen = risen, np.minimum(ndimage.maximum_filter(risen, 3), height)
    return np.asarray(height - risen >= dip - 1e-9)


def _texture(density: Floats) -> Floats:
    """Relative deviation of a density (H, W) within 3 x 3 pixels."""
    mean = ndimage.uniform_filter(density, 3)
    variance = ndimage.uniform_filter(density * density, 3) - mean * mean
    relative: Floats = np.sqrt(np.maximum(variance, 0)) / np.maximum(mean, 0.02)
    return relative


def _tissue_class(classes: Labels, texture: Floats, strength: Floats, inner: Mask) -> int:
    """The class of most matter, where it has texture; 0 where all is too dense to be so even."""
    best, most = 0, 0.0
    for k in range(1, int(classes.max()) + 1):
        own = classes == k
        core = own & inner if (own & inner).any() else own
        if not core.any():
            continue
        if np.percentile(texture[core], 25) < EVEN and np.percentile(strength[own], 75) > DENSE:
            continue
        even = float(np.median(texture[core])) < EVEN
        size = float(own.sum()) * (0.2 if even else 1.0)
        if size > most:
            best, most = k, size
    return best


def _shadows(mask: Mask, inner: Mask, texture: Floats, u: Floats, v: Floats) -> Mask:
    """Separate grey objects without texture, of less than half of all there is: shadows, dust, bubbles, dots of ink."""
    parts, count = ndimage.label(mask)
    chosen = np.zeros(count + 1, bool)
    sizes, cores = np.zeros((2, count + 1), np.int64)
    sums = np.zeros((3, count + 1))
    for rows in (strip.rows for strip in strips(mask.shape)):
        sizes += np.bincount(parts[rows].ravel(), minlength=count + 1)
        core = parts[rows][inner[rows]]
        cores += np.bincount(core, minlength=count + 1)
        for total, values in zip(sums, (texture, u, v), strict=True):
            # one after the other, so that the sums do not depend on the strips
            np.add.at(total, core, values[rows][inner[rows]].astype(np.float64))
    index = np.flatnonzero((cores >= 8) & (sizes < 0.5 * mask.sum()))
    even, along, across = sums[:, index] / cores[index]
    chosen[index] = (even < EVEN) & (np.hypot(along, across) < APART)
    return np.asarray(chosen[parts])


def _matters(classes: Labels, texture: Floats, strength: Floats, inner: Mask, tissue: int, mpp: float) -> list[Matter]:
    """The connected parts of every class but the tissue's."""
    usual = max(0.05, float(np.percentile(strength[classes == tissue], 75)))
    found = []
    for k in range(1, int(classes.max()) + 1):
        if k == tissue:
            continue
        parts, n = ndimage.label(classes == k, SQUARE)
        sizes = np.bincount(parts.ravel(), minlength=n + 1)
        for part, where in enumerate(ndimage.find_objects(parts), 1):
            if sizes[part] * mpp**2 < LEAST_UM2:
                continue
            own = parts[where] == part
            core = own & inner[where]
            depth = ndimage.distance_transform_edt(np.pad(own, 1))
            reach = 0.4 * depth.max()
            covered = ndimage.distance_transform_edt(depth < reach)[1:-1, 1:-1] < reach
            found.append(
                Matter(
                    box=(where[0], where[1]),
                    own=own,
                    colour=k,
                    pixels=int(sizes[part]),
                    unevenness=float(np.median(texture[where][core if core.sum() >= 8 else own])),
                    density=float(np.median(strength[where][own])),
                    contrast=float(np.percentile(strength[where][own], 75)) / usual,
                    length=float(sizes[part] / (2 * depth.max()) ** 2),
                    even_width=float(covered[own].mean()),
                )
            )
    return found


def _rim(matter: Matter, solid: Mask, fill: Mask, main: Mask) -> tuple[float, float]:
    """Shares of its outline that lie on glass, or at the image's edge, and on the tissue's own class."""
    own = np.pad(matter.own, 3)
    ring = ndimage.maximum_filter(own, 5) & ~own
    rows, columns = (slice(s.start, s.stop + 6) for s in matter.box)
    total = max(1, int(ring.sum()))
    return float((ring & ~solid[rows, columns] & ~fill[rows, columns]).sum() / total), float(
        (ring & main[rows, columns]).sum() / total
    )


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
    ink: Mask, mask: Mask, own: Mask, apart: tuple[Floats, Floats], axis: NDArray[np.float64], mpp: float
) -> Mask:
    """Where ink fades into what it lies on: beside it, and nearer to its colour than tissue is.

    ``apart`` is each pixel's chroma less the tissue's, ``axis`` the ink's less the tissue's.
    """
    steps = max(1, round(REACH_UM / mpp))
    along = (apart[0] * axis[0] + apart[1] * axis[1]) / max(1e-6, float(axis @ axis))
    for _ in range(3):  # from part to part of a broken stroke
        near = ndimage.maximum_filter(ink, 2 * steps + 1)
        ink = ndimage.binary_propagation(ink | (near & own), mask=mask & (own | (along > 1.5 * TOWARDS)))
    grown: Mask = ndimage.binary_dilation(ink, iterations=steps, mask=mask & (along > TOWARDS))
    return grown
