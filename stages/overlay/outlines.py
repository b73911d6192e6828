"""Outlines of regions on a grid of cells, as rings of corners."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray


def trace(cells: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """The outline of edge-connected cells (rows, cols), exactly along their borders.

    Returns:
        Closed rings (n, 2) of (column, row) corners: first the outer one, then the holes, which turn the other way.
        Rings may touch in a corner and never cross, so that they make a valid polygon.
    """
    padded = np.zeros((cells.shape[0] + 2, cells.shape[1] + 2), bool)  # np.pad takes longer than most outlines do
    padded[1:-1, 1:-1] = cells
    leaving: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    # each border edge runs with its cell on the right-hand side, as seen with y downwards
    for (dy, dx), start, step in (
        ((-1, 0), (0, 0), (1, 0)),  # nothing above: along the top, rightwards
        ((0, 1), (1, 0), (0, 1)),
        ((1, 0), (1, 1), (-1, 0)),
        ((0, -1), (0, 1), (0, -1)),
    ):
        beside = padded[1 + dy : padded.shape[0] - 1 + dy, 1 + dx : padded.shape[1] - 1 + dx]
        for i, j in zip(*(at.tolist() for at in np.nonzero(cells & ~beside)), strict=True):
            leaving[(j + start[0], i + start[1])].append(step)
    rings = []
    for first in sorted(leaving):
        if first not in leaving:
            continue
        corner, step = first, (0, 0)
        ring = []
        while True:
            steps = leaving[corner]
            # where two cells meet in a corner only, turn left, across to the other cell: turning right would lead one
            # ring through the corner twice
            turn = steps.index((step[1], -step[0])) if len(steps) > 1 and (step[1], -step[0]) in steps else 0
            following = steps.pop(turn)
            if not steps:
                del leaving[corner]
            if following != step:
                ring.append(corner)
            step = following
            corner = (corner[0] + step[0], corner[1] + step[1])
            if corner == first:
                break
        rings.append(np.array([*ring, ring[0]], np.int64))
    # the first ring starts at the leftmost corner, so it is the outer one
    return rings
