"""Tiles that lie upon others in a file: a list of tiles that is damaged, but for blank ones that writers store once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLANK = 8
"""Grey levels that the pixels of a blank tile may differ by."""


def find_overlap(offsets: ArrayLike, byte_counts: ArrayLike) -> int | None:
    """The tile of most bytes, of those whose bytes in the file are in part another's too; None where there are none.

    Args:
        offsets, byte_counts: of each tile in the file; tiles without bytes are nowhere.

    Returns:
        Its index.
    """
    start, size = np.asarray(offsets, np.int64).ravel(), np.asarray(byte_counts, np.int64).ravel()
    filled = np.flatnonzero(size > 0)
    order = filled[np.argsort(start[filled], kind="stable")]
    into_next = start[order[:-1]] + size[order[:-1]] > start[order[1:]]
    if not into_next.any():
        return None
    shared = np.concatenate([order[:-1][into_next], order[1:][into_next]])
    return int(shared[np.argmax(size[shared])])


def overlap_doubt(level: int, tile: tuple[int, int], pixels: NDArray[np.generic] | None) -> str | None:
    """What is to be said of a tile that `find_overlap` found; None of a blank one.

    Args:
        level: its number.
        tile: (row, column).
        pixels: (height, width, any number of samples); None where it cannot be read, which is said where it is wanted.
    """
    if pixels is None or not pixels.size:
        return None
    values = pixels.reshape(-1, pixels.shape[-1]).astype(np.int64)
    if int(np.ptp(values, axis=0).max()) <= BLANK:
        return None
    return (
        f"tile {tile} of level {level}, which is not blank, and another are at one place in the file: it may be "
        "damaged: compare it with its original, or copy it again"
    )


def more_doubt(level: int, more: int) -> str:
    """What is to be said of a level whose list of tiles or strips has so many more than its sizes make."""
    return (
        f"level {level} lists {more} tiles or strips more than its sizes make, so that a part may be missing: the file "
        "may be damaged: compare it with its original, or copy it again"
    )
