"""Features of a slide's cells: as they are rounded, kept in memory, and packed for a file."""

from __future__ import annotations

import struct
import time

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float16] | NDArray[np.float32]

_HEADER = struct.Struct("<QII")  # features, length of one, bytes per value


def narrowed(features: NDArray[np.float32]) -> Values:
    """Features (N, D) as the store keeps them: each rounded to float16, or left alone where that would spoil it."""
    with np.errstate(over="ignore"):
        half = features.astype(np.float16)
    wide = half.astype(np.float32)
    largest = np.abs(features).max(axis=1, initial=0, keepdims=True)
    fits = np.abs(wide - features).max(axis=1, initial=0, keepdims=True) <= largest * 2.0**-10
    return half if fits.all() else np.where(fits, wide, features)


def rounded(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (N, D) as they come back once they were kept: what is computed from them is then the same, kept or
    not."""
    return widened(narrowed(features))


def widened(values: Values) -> NDArray[np.float32]:
    """Finite features as float32, exactly as ``astype`` and in a sixth of its time: the exponent of float32 begins at
    ``2^-127``, that of float16 at ``2^-15``."""
    if values.dtype == np.float32:
        return values.astype(np.float32, copy=False)
    bits = values.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= np.int32(-0x70000001)  # the sign stays, its copies in the exponent go
    wide = bits.view(np.float32)
    wide *= np.float32(2.0**112)
    return wide


class FeatureTable:
    """What a process knows of one slide: a feature for each of some cells.

    Args:
        dim: length of a feature.

    Attributes:
        files: names of the files that were taken in, or that held nothing.
        touched: when they were marked as used, by the monotonic clock.
    """

    def __init__(self, dim: int) -> None:
        self.files: set[str] = set()
        self.touched = time.monotonic()
        self._cells = np.empty(0, np.int64)  # in order
        self._rows = np.empty(0, np.int64)  # of each of them in the values
        self._values: Values = np.empty((0, dim), np.float16)  # with room to grow

    @property
    def nbytes(self) -> int:
        """Memory that the values fill."""
        return self._values.nbytes

    def find(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which cells (N,) are known, and the rows of those."""
        if not len(self._cells):
            return np.zeros(len(cells), bool), np.empty(0, np.int64)
        at = np.searchsorted(self._cells, cells).clip(max=len(self._cells) - 1)
        known = self._cells[at] == cells
        return known, self._rows[at[known]]

    def take(self, known: NDArray[np.bool_], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The features (N, D) of what `find` found; 0 for what is not known."""
        wide = widened(self._values[rows])
        if known.all():
            return wide
        features = np.zeros((len(known), self._values.shape[1]), np.float32)
        features[known] = wide
        return features

    def add(self, cells: NDArray[np.int64], values: Values) -> None:
        """Take in values (N, D) of cells (N,); what is known already stays."""
        cells, first = np.unique(cells, return_index=True)
        new = ~self.find(cells)[0]
        cells, values = cells[new], values[first[new]]
        begin = len(self._cells)
        end = begin + len(cells)
        dtype = np.promote_types(self._values.dtype, values.dtype)
        if end > len(self._values) or dtype != self._values.dtype:
            grown = np.empty((max(end, begin * 3 // 2), values.shape[1]), dtype)
            grown[:begin] = self._values[:begin]
            self._values = grown
        self._values[begin:end] = values
        at = np.searchsorted(self._cells, cells)
        self._cells = np.insert(self._cells, at, cells)
        self._rows = np.insert(self._rows, at, np.arange(begin, end))


def packed(cells: NDArray[np.int64], values: Values) -> bytes:
    """As bytes: count, length and bytes per value; cells; values; little-endian."""
    header = _HEADER.pack(*values.shape, values.dtype.itemsize)
    return header + cells.astype("<i8").tobytes() + values.astype(values.dtype.newbyteorder("<")).tobytes()


def unpacked(payload: bytes, dim: int) -> tuple[NDArray[np.int64], Values]:
    """Cells (N,) and values (N, D) from what `packed` made.

    Raises:
        ValueError: it holds something else.
    """
    if len(payload) < _HEADER.size:
        raise ValueError("it ends too early")
    count, length, itemsize = _HEADER.unpack_from(payload)
    begin = _HEADER.size + 8 * count
    if length != dim or itemsize not in (2, 4) or len(payload) != begin + count * length * itemsize:
        raise ValueError(f"it does not hold features of length {dim}")
    cells = np.frombuffer(payload, "<i8", count, _HEADER.size).astype(np.int64)
    values = np.frombuffer(payload, f"<f{itemsize}", count * length, begin).reshape(count, length)
    return cells, values.astype(np.float16) if itemsize == 2 else values.astype(np.float32)
