"""Outlines cover exactly the cells that they are of."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Ring
from numpy.typing import NDArray
from scipy import ndimage

from stages.overlay.outlines import trace


def area(ring: NDArray[np.int64]) -> float:
    x, y = ring.T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_traced_rings_cover_exactly_the_cells(cells: NDArray[np.bool_]) -> None:
    """Even-odd filling gives the cells back; each ring is simple, outer and holes turn in opposite ways."""
    parts, count = ndimage.label(cells)
    outlines = trace(parts)
    assert len(outlines) == count
    covered = np.zeros(cells.shape, int)
    rows, columns = np.mgrid[: cells.shape[0], : cells.shape[1]]
    centres = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    for n in range(1, count + 1):
        rings = outlines[n - 1]
        areas = [area(ring) for ring in rings]
        assert areas[0] > 0
        assert all(a < 0 for a in areas[1:])
        assert sum(areas) == (parts == n).sum()
        for ring in rings:
            assert (ring[0] == ring[-1]).all()
            assert max(Counter(map(tuple, ring[:-1].tolist())).values()) == 1
            turns = np.diff(np.concatenate([ring, ring[1:2]]), axis=0)
            assert (turns[1:] * turns[:-1]).sum(axis=1).tolist() == [0] * (len(turns) - 1)  # corners only
            covered += Ring(ring).contains_points(centres).reshape(cells.shape)
    assert np.array_equal(covered % 2 == 1, cells)
