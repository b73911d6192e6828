"""The attention map as overlays show it: in multiples of uniform attention, and under the pixels of any raster."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.geometry import Raster

Floats = NDArray[np.float64]


def times_uniform(attention: NDArray[np.floating], cells: int | None = None) -> Floats:
    """Attention (rows, cols) as a multiple of what each cell would get if all with any were alike: ``a_i K``.

    Args:
        attention: of a slide.
        cells: K, where it sums to one over more than the slide's own: those of all of a patient's slides.
    """
    values = np.asarray(attention, np.float64)
    return values * (cells or np.count_nonzero(values))


def attention_image(raster: Raster, attention: NDArray[np.floating], attention_raster: Raster) -> Floats:
    """The attention of the cell under each pixel centre of ``raster``, (H, W); 0 where there is no cell."""
    return under(raster, np.asarray(attention, np.float64), attention_raster)


def under(raster: Raster, values: NDArray[Any], values_raster: Raster) -> NDArray[Any]:
    """What lies under each pixel centre of ``raster``, (H, W, ...), of values (rows, cols, ...); 0 outside of these."""
    bordered = np.pad(values, [(1, 1), (1, 1), *[(0, 0)] * (values.ndim - 2)])
    rows, columns = np.arange(raster.height), np.arange(raster.width)
    across = raster.to_level0(np.stack([columns + 0.5, np.zeros(raster.width)], axis=-1))
    down = raster.to_level0(np.stack([np.zeros(raster.height), rows + 0.5], axis=-1))
    j = np.floor(values_raster.from_level0(across)[:, 0]).astype(np.int64)
    i = np.floor(values_raster.from_level0(down)[:, 1]).astype(np.int64)
    inner = bordered[:, np.clip(j, -1, values_raster.width) + 1]
    return inner[np.clip(i, -1, values_raster.height) + 1]


def on_raster(values: NDArray[Any], raster: Raster, target: Raster) -> NDArray[np.float64]:
    """Values of cells (rows, cols) on another raster: under a pixel's centre, or their mean where it is larger than a
    cell; 0 where there is no cell."""
    parts = max(1, math.ceil(max(target.scale_x / raster.scale_x, target.scale_y / raster.scale_y) - 1e-6))
    fine = under(target.divided(parts), np.asarray(values, np.float64), raster)
    pooled: NDArray[np.float64] = fine.reshape(target.height, parts, target.width, parts).mean((1, 3))
    return pooled
