"""Where a scan has no picture: the one exact colour that a file or a reader puts where the scanner never went."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stages.heap import put_aside
from stages.tissue.morphology import dilated, runs, squared
from stages.tissue.strips import by_strips, places, strips

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]

LEAST_SHARE = 0.002
"""Of the image: fewer pixels of one colour are no fill."""
MOST_COLOURS = 8
TINT = 24
"""Grey levels between the channels of a fill at the most."""
STEP = 6
"""Pixels: a straight run along a row or column that a piece of tissue or a patch of glass seldom has at its edge."""
SIDE = 120
"""Pixels: a straight oblique line that no outline of tissue has."""
WOBBLE = 3.5
"""Pixels by which that line may depart from straight."""
BLOCK = 8.0
"""Pixels of a compressed block, in whole numbers of which a fill that was compressed ends."""
STRAIGHT = 0.5
"""Share of a fill's outline that runs straight."""
RINGING = 8
"""Pixels beside a fill in which compression may leave traces of it."""


def find_fill(rgb: NDArray[np.uint8]) -> Mask:
    """Where an image (H, W, 3) uint8 was never scanned: areas of one exact colour with a straight outline, (H, W).

    Glass can be of one exact colour too, where it saturates or compression evens it out, but follows the tissue's
    ragged outline. An image without any outline has no fill.
    """
    shape = rgb.shape[:2]
    fill = np.zeros(shape, bool)
    thick = by_strips(lambda rows: _thick(_packed(put_aside(rgb)[rows])), shape, halo=1)
    colours = _colours(rgb, thick)
    if not len(colours):
        return fill
    number = thick.view(np.uint8)  # of a thick pixel's colour, from 1; in place of whether it is thick
    for strip in strips(shape):
        thick_here = thick[strip.rows].copy()
        if not thick_here.any():
            continue
        packed, number[strip.rows] = _packed(put_aside(rgb)[strip.rows]), 0
        for i, colour in enumerate(colours, 1):
            number[strip.rows] += np.uint8(i) * (thick_here & (packed == colour))
    put_aside(rgb)
    for i in range(1, len(colours) + 1):

        def grown(rows: slice, i: int = i) -> Mask:
            return squared(number[rows] == i, 1)

        area = by_strips(grown, shape, halo=1)
        if np.count_nonzero(area) / area.size >= LEAST_SHARE and straight_share(area) >= STRAIGHT:
            fill |= area
    return fill


def _packed(rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Each pixel's colour (..., 3) as one number."""
    parts = np.zeros((*rgb.shape[:-1], 4), np.uint8)
    for i in range(3):
        parts[..., i] = rgb[..., 2 - i]
    return parts.view("<i4")[..., 0]


def _thick(packed: NDArray[np.int32]) -> Mask:
    """Pixels that equal all their eight neighbours; beyond the image's edge lies more of the same."""
    along = np.ones(packed.shape, bool)
    along[:, 1:] = packed[:, 1:] == packed[:, :-1]
    along[:, :-1] &= along[:, 1:]
    down = np.ones(packed.shape, bool)
    down[1:] = packed[1:] == packed[:-1]
    thick = along.copy()
    thick[1:] &= along[:-1] & down[1:]
    thick[:-1] &= along[1:] & down[1:]
    return thick


def _colours(rgb: NDArray[np.uint8], thick: Mask) -> NDArray[np.int32]:
    """The colours, nearly grey, that most of the thick pixels have."""
    found = int(np.count_nonzero(thick))
    if found < LEAST_SHARE * thick.size:
        return np.zeros(0, np.int32)
    some = _packed(rgb[places(max(1, found // 50_000), thick)])
    colours, counts = np.unique(some, return_counts=True)
    channels = np.stack([colours >> 16, colours >> 8 & 255, colours & 255])
    counts = np.where(np.ptp(channels, axis=0) <= TINT, counts, 0)
    share = counts / len(some) * found / thick.size
    order = np.argsort(-counts)[:MOST_COLOURS]
    return np.asarray(colours[order][share[order] >= LEAST_SHARE], np.int32)


def straight_share(area: Mask, beside: Mask | None = None) -> float:
    """Which share of the outline of an area (H, W) inside the image runs along rows, columns or long oblique lines.

    What of it lies ``beside`` something else, (H, W), is left out; 0 where no outline is left.
    """
    long, total = 0, 0
    for strip in strips(area.shape, halo=STEP + 2):
        part = area[strip.around]
        below, right = np.zeros(part.shape, bool), np.zeros(part.shape, bool)  # from the neighbour above, on the left
        below[1:], right[:, 1:] = part[1:] != part[:-1], part[:, 1:] != part[:, :-1]
        if beside is not None:
            there = ~dilated(beside[strip.around], 2)
            below &= there
            right &= there
        total += sum(int(np.count_nonzero(edge[strip.own])) for edge in (below, right))
        long += sum(int(np.count_nonzero(run[strip.own])) for run in (runs(below, STEP), runs(right.T, STEP).T))
    if not total or long >= STRAIGHT * total or beside is not None:
        return long / max(1, total)
    return max(long / total, _oblique_share(area))


def _oblique_share(area: Mask) -> float:
    from skimage.measure import find_contours  # seldom needed

    every = int(BLOCK) // 2
    total = straight = 0.0
    some = area[::every, ::every].astype(np.float32)
    if min(some.shape) < 2:
        return 0.0  # too narrow for an oblique line
    for contour in find_contours(ndimage.gaussian_filter(some, 2), 0.5):
        sides = every * np.linalg.norm(np.diff(simplified(contour, WOBBLE / every), axis=0), axis=1)
        if sides.sum() < SIDE:
            continue  # a speck
        total += float(sides.sum())
        straight += float(sides[sides >= SIDE].sum())
    return straight / max(1.0, total)


def simplified(line: Points, tolerance: float) -> Points:
    """Those of a line's points (N, 2), its ends among them, that no other is farther than ``tolerance`` away from the
    line of (D. Douglas & T. Peucker, 1973).

    As scikit-image's `approximate_polygon`, for which all of scipy.signal and scipy.stats would be imported: a second.
    """
    kept = np.zeros(len(line), bool)
    kept[[0, -1]] = True
    parts = [(0, len(line) - 1)]
    while parts:
        first, last = parts.pop()
        away = _distances(line[first + 1 : last], line[first], line[last])
        if (away > tolerance).any():
            farthest = first + 1 + int(np.argmax(away))
            kept[farthest] = True
            parts += [(farthest, last), (first, farthest)]
    return line[kept]


def _distances(points: Points, start: Points, end: Points) -> NDArray[np.float64]:
    """How far points (N, 2) are from the straight way between two."""
    along, (after, before) = end - start, (points - start, points - end)
    angle = -np.arctan2(*along)
    line = start[1] * np.sin(angle) + start[0] * np.cos(angle)
    beside = ((after * along).sum(axis=1) > 0) & ((before * along).sum(axis=1) < 0)
    from_line = np.abs(points[:, 0] * np.cos(angle) + points[:, 1] * np.sin(angle) - line)
    from_ends = np.minimum(*(np.sqrt(way[:, 1] ** 2 + way[:, 0] ** 2) for way in (after, before)))
    return np.asarray(np.where(beside, from_line, from_ends))
