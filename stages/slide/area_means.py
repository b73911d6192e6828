"""Average pixels by area, exactly: the result does not depend on how the work is cut into blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy import sparse

_SHARES = 2.0**22
"""Weights are whole multiples of 1/this: pixels (8 bits) weighed along two axes then fit a float64's 53 bits, every sum
is exact, and the result cannot depend on how the work was cut into blocks."""

_FACTORS = (1, 2, 4, 8, 16)
"""Whole factors whose averages are sums and a shift."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What each pixel of a line adds to each output.

    Attributes:
        matrix: (outputs, inputs).
        factor: where each output is the mean of so many pixels, 1 to 16 and a power of two, and the next output begins
            where it ends; 0 elsewhere.
    """

    matrix: sparse.csr_array
    factor: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        outputs, inputs = self.matrix.shape
        return outputs, inputs


@lru_cache(maxsize=16)
def area_weights(start: float, scale: float, outputs: int, inputs: int) -> Weights:
    """Weights (outputs, inputs) that average a line of pixels by area: output ``i`` covers
    ``[start + i*scale, start + (i+1)*scale)`` and weighs input ``j`` by the share of it that ``[j, j+1)`` covers.

    Rows sum to exactly 1: the cumulative shares are rounded, not the weights.
    """
    low = start + scale * np.arange(outputs)[:, None]
    first = np.clip(np.floor(low), 0, inputs - 1)
    borders = first + np.arange(int(np.ceil(scale)) + 2)  # (outputs, borders of the inputs that one may touch)
    shares = np.rint(np.clip((borders - low) / scale, 0, 1) * _SHARES) / _SHARES
    shares[:, 0] = 0
    shares[borders >= inputs] = 1  # what rounding puts past an end belongs to the last input
    weights = np.diff(shares, axis=1)
    kept = weights > 0
    indptr = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    columns = borders[:, :-1][kept].astype(np.int64)
    from scipy import sparse  # a quarter of a second, which no rerun needs

    matrix = sparse.csr_array((weights[kept], columns, indptr), shape=(outputs, inputs))
    factor = inputs // outputs
    means = factor in _FACTORS and matrix.nnz == inputs == outputs * factor and (matrix.data == 1 / factor).all()
    return Weights(matrix, factor if means else 0)


def resample(pixels: NDArray[np.uint8], down: Weights, across: Weights) -> NDArray[np.floating]:
    """Apply weights (h, H) along the rows and (w, W) along the columns of an RGB image: (H, W, 3) -> (h, w, 3)."""
    area = down.factor * across.factor
    if area and area * 255 < 2**16:
        return _sums(pixels, down.factor, across.factor) * np.float32(1 / area)  # exact: 16 bits, a power of two
    (h, H), (w, W) = down.shape, across.shape
    rows = (down.matrix @ pixels.reshape(H, W * 3)).reshape(h, W, 3)
    columns = (across.matrix @ _transposed(rows).reshape(W, h * 3)).reshape(w, h, 3)
    return columns.transpose(1, 0, 2)


def round_into(values: NDArray[np.floating], out: NDArray[np.uint8]) -> None:
    """Fill ``out`` (h, w, 3) with what `resample` gave, rounded to whole grey levels, halves to even."""
    grey = np.rint(values).astype(np.uint8)
    if grey.flags.c_contiguous:
        out[:] = grey
    else:  # it lies as (w, h, 3)
        for channel in range(3):
            out[..., channel] = grey[..., channel]


def _sums(pixels: NDArray[np.uint8], down: int, across: int) -> NDArray[np.uint16]:
    """Sums of the cells of ``down x across`` pixels of an RGB image, (h, w, 3)."""
    height, width, _ = pixels.shape
    cells = pixels.reshape(height // down, down, width * 3)
    rows = cells[:, 0].astype(np.uint16)
    for i in range(1, down):
        rows += cells[:, i]
    rows = rows.reshape(height // down, width, 3)
    out = np.empty((height // down, width // across, 3), np.uint16)
    for channel in range(3):  # so that numpy loops along the row, not over three channels
        sums = out[..., channel]
        sums[:] = rows[:, ::across, channel]
        for i in range(1, across):
            sums += rows[:, i::across, channel]
    return out


def _transposed(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """(H, W, 3) -> (W, H, 3), contiguous; channel by channel is three times as fast as all at once."""
    out = np.empty((image.shape[1], image.shape[0], 3))
    for channel in range(3):
        out[..., channel] = image[..., channel].T
    return out
