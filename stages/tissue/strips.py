"""An image strip by strip, with the rows around each that its result depends on: memory is a strip's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIXELS = 2**20
"""Of a strip, about."""


@dataclass(frozen=True, slots=True)
class Strip:
    """Some rows of an image.

    Attributes:
        rows: its own.
        around: the same and the halo's, as far as the image has them.
        own: its own among those.
    """

    rows: slice
    around: slice
    own: slice


def strips(shape: tuple[int, ...], *, halo: int = 0, unit: int = 1) -> Iterator[Strip]:
    """The strips of an image (H, W, ...), from above.

    Args:
        shape: of the image.
        halo: rows on either side that a row's result depends on.
        unit: rows that stay together.
    """
    height, width = shape[:2]
    count = max(1, PIXELS // max(1, width), 4 * halo)
    count = -(-count // unit) * unit
    for first in range(0, height, count):
        end = min(height, first + count)
        above = max(0, first - halo)
        yield Strip(slice(first, end), slice(above, min(height, end + halo)), slice(first - above, end - above))


def by_strips(act: Callable[[slice], NDArray[np.bool_]], shape: tuple[int, ...], *, halo: int = 0) -> NDArray[np.bool_]:
    """What ``act`` makes of all rows (H, W), asked for rows and a halo around them, of which it makes as many."""
    out = np.empty(shape[:2], bool)
    for strip in strips(shape, halo=halo):
        out[strip.rows] = act(strip.around)[strip.own]
    return out


def every(step: int, values: Callable[[slice], NDArray[Any]], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """``values[mask][::step]`` of an image whose values are asked for by rows."""
    found, passed = [], 0
    for strip in strips(mask.shape):
        inside = values(strip.rows)[mask[strip.rows]]
        found.append(inside[-passed % step :: step])
        passed += len(inside)
    return np.concatenate(found)
