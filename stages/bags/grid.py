"""A grid whose cells are the tiles of a bag, one each: where maps of them lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.bags.bag import BagError
from stages.geometry import Raster

FINEST = 8
"""Tiles overlap by steps of at least so many to a side; finer ones are no step but chance."""
FARTHEST = 16
"""Cells within which a tile finds a free one."""
MAX_CELLS = 2**24


def lay(corners: NDArray[np.float64], side: tuple[float, float]) -> tuple[Raster, NDArray[np.int64]]:
    """Cells for tiles, and which one is each tile's, (N,), row-major; no two share one.

    The cells' pitch is the step from tile to tile where tiles overlap, else their side, and the grid lies as most
    tiles do, each in the middle of its cell. A tile off it, as CLAM has of every other piece of tissue, has the nearest
    cell that is free.

    Args:
        corners: top-left corners (N, 2) x, y in level-0 pixels, no two alike.
        side: (x, y) of a tile in level-0 pixels.

    Raises:
        BagError: they lie too far apart, or too many in one place.
    """
    pitch = np.array([min(side[axis], _step(corners, axis, side[axis])) for axis in (0, 1)])
    start = np.array([_most_common(corners[:, axis] % pitch[axis]) for axis in (0, 1)])
    there = (corners - start) / pitch
    cells = np.rint(there).astype(np.int64)
    columns, rows = cells.max(0) - cells.min(0) + 1
    if columns * rows > MAX_CELLS:
        raise BagError(
            f"its {len(corners)} tiles of {side[0]:g} x {side[1]:g} level-0 px lie as far apart as {columns} x {rows} "
            "of them: its coordinates are damaged, or of other units; write the bag anew"
        )
    _spread(cells, np.abs(there - cells).max(1))
    first = cells.min(0)
    columns, rows = cells.max(0) - first + 1
    corner = start + first * pitch + (np.array(side) - pitch) / 2
    raster = Raster(float(corner[0]), float(corner[1]), float(pitch[0]), float(pitch[1]), int(columns), int(rows))
    return raster, (cells[:, 1] - first[1]) * columns + cells[:, 0] - first[0]


def _step(corners: NDArray[np.float64], axis: int, side: float) -> float:
    """From a tile to the next along an axis, as it is most often; the side where no two are neighbours."""
    order = np.lexsort((corners[:, axis], corners[:, 1 - axis]))
    along, across = corners[order, axis], corners[order, 1 - axis]
    steps = np.diff(along)[np.diff(across) == 0]
    steps = steps[steps >= side / FINEST]
    found = _most_common(steps) if len(steps) else side
    return side if abs(found - side) <= 1 else found  # steps are rounded to whole pixels


def _most_common(values: NDArray[np.float64]) -> float:
    found, counts = np.unique(np.round(values, 3), return_counts=True)
    return float(found[counts.argmax()])


def _spread(cells: NDArray[np.int64], off: NDArray[np.float64]) -> None:
    """Give tiles that share a cell (N, 2) the nearest free ones, in place; the one that is least ``off`` it stays."""
    taken: set[tuple[int, int]] = set()
    homeless = []
    for tile in np.argsort(off, kind="stable").tolist():
        cell = (int(cells[tile, 0]), int(cells[tile, 1]))
        if cell in taken:
            homeless.append(tile)
        taken.add(cell)
    if not homeless:
        return
    around = np.arange(-FARTHEST, FARTHEST + 1)
    steps = np.stack(np.meshgrid(around, around), -1).reshape(-1, 2)
    steps = steps[np.argsort(np.square(steps).sum(1), kind="stable")]
    for tile in homeless:
        near = ((int(x), int(y)) for x, y in cells[tile] + steps)
        free = next((cell for cell in near if cell not in taken), None)
        if free is None:
            raise BagError(
                f"more than {len(steps)} tiles lie around ({cells[tile, 0]}, {cells[tile, 1]}), counted in tiles: its "
                "coordinates are damaged, or of other units; write the bag anew"
            )
        cells[tile] = free
        taken.add(free)
