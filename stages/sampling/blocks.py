"""Draws of squares: the unit that is drawn is a block of cells, and all of its tissue is read.

A block's share of the measure is the sum of its cells'. Whatever a scheme promises of the cells that it draws then
holds of blocks: with weights ``w_b`` such that ``E[sum_b w_b 1{b drawn}] = 1``, every cell of a drawn block counts
``w_b``, and so every cell is expected once. Contrasts compare totals of blocks, ``sum_{i in b} a_i f_i``: cells of one
block come together or not at all, and tell the variance as one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stages.sampling.designs import Draw


def block_cells(rows: int, columns: int, side: int) -> Tensor:
    """Row-major indices of the cells of each block of a grid, (blocks, side^2), blocks in row-major order; -1 where a
    block reaches past the grid.

    Raises:
        ValueError: a side below 1.
    """
    if side < 1:
        raise ValueError(f"a block needs a side of at least one cell, got {side}")
    grid = torch.full((-(-rows // side) * side, -(-columns // side) * side), -1)
    grid[:rows, :columns] = torch.arange(rows * columns).view(rows, columns)
    blocks = grid.unfold(0, side, side).unfold(1, side, side)
    return blocks.flatten(0, 1).flatten(1)


def block_measure(log_attention: Tensor, cells: Tensor) -> Tensor:
    """Log of each block's sum: (B, K), -inf off the tissue, and `block_cells` (J, side^2) -> (B, J)."""
    return _of_blocks(log_attention, cells).logsumexp(2)


def whole_blocks(blocks: Draw, log_attention: Tensor, cells: Tensor) -> Draw:
    """A draw of blocks as one of their cells: each tissue cell weighs what its block does.

    Args:
        blocks: (B, N) of the J blocks.
        log_attention: (B, K), of the cells.
        cells: `block_cells`, (J, side^2).

    Returns:
        Draw of (B, N side^2), in a run for each block, whose first is the block's first tissue cell; what is no tissue
        repeats that with weight 0. Its ``regions`` are the blocks, and all its contrasts compare them.
    """
    n = blocks.cells.shape[1]
    drawn = cells[blocks.cells]  # (B, N, side^2)
    there = (_of_blocks(log_attention, cells) > -torch.inf).gather(1, blocks.cells.unsqueeze(2).expand_as(drawn))
    first = drawn.gather(2, there.long().argmax(2, keepdim=True))
    order = (~there).long().argsort(dim=2, stable=True)  # the tissue first
    there, drawn = there.gather(2, order), torch.where(there, drawn, first).gather(2, order)
    weights = torch.where(there, blocks.weights.unsqueeze(2), 0.0).flatten(1)
    if blocks.contrasts is None:
        return Draw(drawn.flatten(1), weights)
    contrasts = torch.where(there.unsqueeze(1), blocks.contrasts.unsqueeze(3), 0.0).flatten(2)
    return Draw(drawn.flatten(1), weights, contrasts, n, contrasts.shape[1])


def draw_blocks(log_attention: Tensor, n: int, *, cells: Tensor, order: Tensor, take: Callable[..., Draw]) -> Draw:
    """Draw ``n`` blocks of every slide, and with them all of their tissue cells.

    Args:
        log_attention: (B, K), of the cells.
        n: blocks to draw; a slide of at most so many is taken whole.
        cells: `block_cells`.
        order: (J,), the walk over the blocks.
        take: `stages.sampling.draw.draw` or `draw_judged`, with a scheme and a generator.

    Raises:
        ValueError: as ``take``.
    """
    return whole_blocks(take(block_measure(log_attention, cells), n, order=order), log_attention, cells)


def _of_blocks(log_attention: Tensor, cells: Tensor) -> Tensor:
    """(B, J, side^2), -inf also past the grid."""
    beyond = log_attention.new_full((len(log_attention), 1), -torch.inf)
    return torch.cat([log_attention, beyond], 1)[:, cells]  # -1 is the last
