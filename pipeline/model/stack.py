"""The grids of cells of a patient's slides as one grid: one below the other, with empty rows between them.

Row-major indices of the one grid list the slides' cells slide after slide, each in its own row-major order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.sampling.walk import hilbert_order

Cells = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stack:
    """Where the cells of each slide lie on the grid of all; of one slide the grid is its own.

    Attributes:
        shapes: rows and columns of each slide's grid.
        apart: empty rows between two slides, so that no cell sees another slide's among its neighbours.
    """

    shapes: tuple[tuple[int, int], ...]
    apart: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid of all."""
        rows = sum(rows for rows, _ in self.shapes) + self.apart * (len(self.shapes) - 1)
        return rows, max(columns for _, columns in self.shapes)

    @property
    def tops(self) -> tuple[int, ...]:
        """The row at which each slide begins."""
        return tuple(accumulate((rows + self.apart for rows, _ in self.shapes[:-1]), initial=0))

    def joined(self, values: Sequence[Tensor]) -> Tensor:
        """Values of each slide's cells, (rows, columns, ...) -> those of all cells; 0 where there is no slide."""
        if len(self.shapes) == 1:
            return values[0]
        out = values[0].new_zeros((*self.shape, *values[0].shape[2:]))
        for top, (rows, columns), own in zip(self.tops, self.shapes, values, strict=True):
            out[top : top + rows, :columns] = own
        return out

    def parts(self, values: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """Values of all cells, (rows, columns, ...) -> those of each slide's."""
        return [values[top : top + r, :c] for top, (r, c) in zip(self.tops, self.shapes, strict=True)]

    def cells(self, slide: int, own: Cells) -> Cells:
        """Indices on the grid of all of a slide's cells, by their indices on its own."""
        row, column = np.divmod(own, self.shapes[slide][1])
        found: Cells = (row + self.tops[slide]) * self.shape[1] + column
        return found

    def split(self, cells: Cells) -> Iterator[tuple[int, Cells, Cells]]:
        """Of cells (N,) by their indices on the grid of all: each slide that has some, which of the N they are, and
        their indices on its own grid."""
        row, column = np.divmod(cells, self.shape[1])
        of = np.searchsorted(self.tops, row, side="right") - 1
        for slide in np.unique(of).tolist():
            places = np.flatnonzero(of == slide)
            yield slide, places, (row[places] - self.tops[slide]) * self.shapes[slide][1] + column[places]


@lru_cache(maxsize=32)
def walk(stack: Stack) -> Tensor:
    """A walk over all cells, slide after slide, each along `hilbert_order`, and then over those of no slide; the steps
    of training ask for the same ones."""
    orders = [hilbert_order(*shape) for shape in stack.shapes]
    if len(orders) == 1:
        return orders[0]
    own = np.concatenate([stack.cells(slide, order.numpy()) for slide, order in enumerate(orders)])
    rows, columns = stack.shape
    return torch.from_numpy(np.concatenate([own, np.setdiff1d(np.arange(rows * columns), own)]))
