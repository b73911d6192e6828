"""Outlines of regions on a grid of cells, as rings of corners."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.int64]

SIDES = (((-1, 0), (0, 0)), ((0, 1), (1, 0)), ((1, 0), (1, 1)), ((0, -1), (0, 1)))
"""Of a cell, from the upper one on to the right: where the neighbour lies beyond it (down, right), and the corner
(right, down) from which it runs with the cell on the right-hand side, as seen with y downwards."""


def trace(parts: NDArray[np.integer[Any]]) -> list[list[Ring]]:
    """The outlines of edge-connected parts of a grid, exactly along their cells' borders.

    Args:
        parts: (rows, cols), each cell's part from 1 on; 0 where there is none.

    Returns:
        Of each part closed rings (n, 2) of (column, row) corners: first the outer one, then the holes, which turn the
        other way. Rings may touch in a corner and never cross, so that they make a valid polygon.
    """
    rows, columns = parts.shape
    padded = np.zeros((rows + 2, columns + 2), parts.dtype)
    padded[1:-1, 1:-1] = parts
    down, right = 1, rows + 1  # corners are numbered by part, column and row
    leaving: dict[int, list[int]] = defaultdict(list)
    for side, ((dy, dx), (x, y)) in enumerate(SIDES):
        beyond = padded[1 + dy : rows + 1 + dy, 1 + dx : columns + 1 + dx]
        i, j = np.nonzero((parts > 0) & (parts != beyond))
        corners = (parts[i, j].astype(np.int64) * (columns + 1) + j + x) * right + i + y
        for corner in corners.tolist():
            leaving[corner].append(side)
    steps = right, down, -right, -down
    every: list[int] = []
    ends: list[int] = []
    for first in sorted(leaving):
        if first not in leaving:
            continue
        corner, side, start = first, -1, len(every)
        while True:
            sides = leaving[corner]
            # where two cells meet in a corner only, turn left, across to the other cell: turning right would lead one
            # ring through the corner twice
            left = (side - 1) % 4
            following = sides.pop(sides.index(left) if len(sides) > 1 and left in sides else 0)
            if not sides:
                del leaving[corner]
            if following != side:
                every.append(corner)
            side = following
            corner += steps[side]
            if corner == first:
                break
        every.append(every[start])
        ends.append(len(every))
    at, row = np.divmod(np.array(every, np.int64), right)
    part, column = np.divmod(at, columns + 1)
    points = np.stack([column, row], axis=1)
    found: list[list[Ring]] = [[] for _ in range(int(parts.max(initial=0)))]
    for begin, end, number in zip([0, *ends], ends, part[np.array(ends, np.int64) - 1].tolist(), strict=False):
        # each part's first ring starts at its leftmost corner, so it is the outer one
        found[number - 1].append(points[begin:end])
    return found


@dataclass(frozen=True, slots=True)
class Region:
    """Cells that touch along edges.

    Attributes:
        cells: (rows, columns) of each, as numpy takes indices.
        rings: see `trace`, in corners of the whole grid.
    """

    cells: tuple[NDArray[np.intp], NDArray[np.intp]]
    rings: list[Ring]


def regions(chosen: NDArray[np.bool_]) -> Iterator[Region]:
    """The regions that chosen cells (rows, cols) make, from top to bottom."""
    from scipy import ndimage  # a rerun that finds all done outlines none

    labels, _ = ndimage.label(chosen)
    for number, (part, rings) in enumerate(zip(ndimage.find_objects(labels), trace(labels), strict=True), 1):
        rows, columns = np.nonzero(labels[part] == number)
        yield Region((rows + part[0].start, columns + part[1].start), rings)
