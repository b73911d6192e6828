"""Where a scan has no picture: the one exact colour that a file or a reader puts where the scanner never went."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]

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
    packed = rgb[..., 0].astype(np.int32) << 16
    packed |= rgb[..., 1].astype(np.int32) << 8
    packed |= rgb[..., 2]
    fill = np.zeros(packed.shape, bool)
    thick = _thick(packed)
    for colour in _colours(packed, thick):
        core = thick & (packed == colour)
        area = ndimage.binary_dilation(core, np.ones((3, 3), bool))
        if area.mean() >= LEAST_SHARE and straight_share(area) >= STRAIGHT:
            fill |= area
    return fill


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


def _colours(packed: NDArray[np.int32], thick: Mask) -> NDArray[np.int32]:
    """The colours, nearly grey, that most of the thick pixels have."""
    found = packed[thick]
    if len(found) < LEAST_SHARE * packed.size:
        return found[:0]
    some = found[:: max(1, len(found) // 50_000)]
    colours, counts = np.unique(some, return_counts=True)
    channels = np.stack([colours >> 16, colours >> 8 & 255, colours & 255])
    counts = np.where(np.ptp(channels, axis=0) <= TINT, counts, 0)
    share = counts / len(some) * len(found) / packed.size
    order = np.argsort(-counts)[:MOST_COLOURS]
    return np.asarray(colours[order][share[order] >= LEAST_SHARE], np.int32)


def straight_share(area: Mask, beside: Mask | None = None) -> float:
    """Which share of the outline of an area (H, W) inside the image runs along rows, columns or long oblique lines.

    What of it lies ``beside`` something else, (H, W), is left out; 0 where no outline is left.
    """
    near = np.zeros_like(area) if beside is None else ndimage.binary_dilation(beside, iterations=2)
    runs, total = 0, 0
    for edge in ((area[1:] != area[:-1]) & ~near[1:], ((area[:, 1:] != area[:, :-1]) & ~near[:, 1:]).T):
        lengths = _run_lengths(edge)
        total += int(lengths.sum())
        runs += int(lengths[lengths >= STEP].sum())
    if not total or runs >= STRAIGHT * total or beside is not None:
        return runs / max(1, total)
    return max(runs / total, _oblique_share(area))


def _run_lengths(edge: Mask) -> NDArray[np.int64]:
    """Lengths of the runs of true pixels along the rows."""
    padded = np.pad(edge, ((0, 0), (1, 1))).ravel().view(np.int8)
    steps = np.diff(padded)
    return np.flatnonzero(steps == -1) - np.flatnonzero(steps == 1)


def _oblique_share(area: Mask) -> float:
    from skimage.measure import approximate_polygon, find_contours  # seldom needed, and all of scipy.signal with it

    every = int(BLOCK) // 2
    total = straight = 0.0
    for contour in find_contours(ndimage.gaussian_filter(area[::every, ::every].astype(np.float32), 2), 0.5):
        sides = every * np.linalg.norm(np.diff(approximate_polygon(contour, WOBBLE / every), axis=0), axis=1)
        if sides.sum() < SIDE:
            continue  # a speck
        total += float(sides.sum())
        straight += float(sides[sides >= SIDE].sum())
    return straight / max(1.0, total)
