"""An image strip by strip, with the rows around each that its result depends on: memory is a strip's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

PIXELS = 2**18
"""Of a strip, about: a plane of floats is a megabyte, which a core keeps at hand."""


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


class Sample:
    """Every so many-th of values that come part by part.

    Args:
        step: of so many values the first is kept.
        count: how many come in all.
    """

    def __init__(self, step: int, count: int, dtype: DTypeLike = np.float32) -> None:
        self._step, self._passed, self._kept = step, 0, 0
        self._values = np.empty(-(-count // step), dtype)

    def add(self, part: NDArray[Any]) -> None:
        """The next values, in row-major order."""
        some = part.ravel()[-self._passed % self._step :: self._step]
        self._values[self._kept : self._kept + len(some)] = some
        self._passed, self._kept = self._passed + part.size, self._kept + len(some)

    @property
    def values(self) -> NDArray[Any]:
        """Those that were kept; the caller may reorder them."""
        return self._values[: self._kept]


def places(step: int, mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns (N,) of every ``step``-th pixel of a mask (H, W), in row-major order."""
    found, passed, width = [], 0, mask.shape[1]
    for strip in strips(mask.shape):
        inside = np.flatnonzero(mask[strip.rows])
        found.append(inside[-passed % step :: step] + strip.rows.start * width)
        passed += len(inside)
    rows, columns = np.divmod(np.concatenate(found), width)
    return rows, columns


def masked(
    values: Callable[[slice], NDArray[Any]], mask: NDArray[np.bool_], dtype: DTypeLike = np.float32
) -> NDArray[Any]:
    """``values[mask]`` of an image whose values are asked for by rows, where some of them are masked."""
    some = Sample(1, int(np.count_nonzero(mask)), dtype)
    for strip in strips(mask.shape):
        inside = mask[strip.rows]
        if inside.any():
            some.add(values(strip.rows)[inside])
    return some.values


def sizes(parts: NDArray[Any], count: int) -> NDArray[np.int64]:
    """How many pixels of an image (H, W) have each of the numbers below ``count``."""
    found = np.zeros(count, np.int64)
    for strip in strips(parts.shape):  # bincount makes eight bytes of each pixel
        found += np.bincount(parts[strip.rows].ravel(), minlength=count)
    return found


def chosen(parts: NDArray[Any], which: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where the numbers of an image (H, W) are among those that ``which`` says."""
    return by_strips(lambda rows: which.take(parts[rows]), parts.shape)
