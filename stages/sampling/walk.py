"""A walk over a grid of cells on which neighbours in the walk are neighbours on the slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor


def hilbert_order(rows: int, cols: int) -> Tensor:
    """Row-major indices of a grid's cells along a Hilbert curve: (rows * cols,) int64, a permutation.

    Squares of side 2^k that just hold the short side are chained along the long side (a curve ends in the corner next
    to where it began, so the chain is continuous), and what lies outside the grid is left out. Where nothing is left
    out, consecutive cells share a side.

    Raises:
        ValueError: a side below 1.
    """
    import torch  # deferred: workers that only read patches do without

    if rows < 1 or cols < 1:
        raise ValueError(f"a grid needs at least one row and one column, got {rows} x {cols}")
    return torch.from_numpy(np.argsort(hilbert_position(rows, cols, np.arange(rows * cols))))


def hilbert_position(rows: int, cols: int, cells: ArrayLike) -> NDArray[np.int64]:
    """Positions of cells (row-major indices, (N,)) along the curve of `hilbert_order`; gaps are what lies outside."""
    row, col = np.divmod(np.asarray(cells, np.int64), cols)
    along, across = (col, row) if cols >= rows else (row, col)
    side = 1 << (min(rows, cols) - 1).bit_length()
    x, y = along % side, across
    position: NDArray[np.int64] = (along // side) * side**2
    s = side // 2
    while s:
        right, up = (x & s) > 0, (y & s) > 0
        position += s * s * ((3 * right.astype(np.int64)) ^ up.astype(np.int64))
        # the lower quadrants hold the curve transposed, the right one of them backwards as well
        turned = right & ~up
        x, y = np.where(turned, side - 1 - x, x), np.where(turned, side - 1 - y, y)
        x, y = np.where(up, x, y), np.where(up, y, x)
        s //= 2
    return position
