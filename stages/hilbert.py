"""A walk over a grid of cells on which neighbours in the walk are neighbours on the slide."""

from __future__ import annotations

import torch
from torch import Tensor


def hilbert_order(rows: int, cols: int) -> Tensor:
    """Row-major indices of a grid's cells along a Hilbert curve: (rows * cols,) int64, a permutation.

    Squares of side 2^k that just hold the short side are chained along the long side (a curve ends in the corner next
    to where it began, so the chain is continuous), and what lies outside the grid is left out. Where nothing is left
    out, consecutive cells share a side.

    Raises:
        ValueError: a side below 1.
    """
    if rows < 1 or cols < 1:
        raise ValueError(f"a grid needs at least one row and one column, got {rows} x {cols}")
    cell = torch.arange(rows * cols)
    row, col = cell // cols, cell % cols
    along, across = (col, row) if cols >= rows else (row, col)
    side = 1 << (min(rows, cols) - 1).bit_length()
    x, y = along % side, across
    position = (along // side) * side**2
    s = side // 2
    while s:
        right, up = (x & s) > 0, (y & s) > 0
        position += s * s * ((3 * right.long()) ^ up.long())
        # the lower quadrants hold the curve transposed, the right one of them backwards as well
        turned = right & ~up
        x, y = torch.where(turned, side - 1 - x, x), torch.where(turned, side - 1 - y, y)
        x, y = torch.where(up, x, y), torch.where(up, y, x)
        s //= 2
    return position.argsort()
