"""Masks grow and shrink as ndimage has them do."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from stages.tissue.morphology import dilated, eroded, opened, runs, runs_along, squared, stretched

Act = Callable[[NDArray[np.bool_], int], NDArray[np.bool_]]


def square(reach: int) -> NDArray[np.bool_]:
    return np.ones((2 * reach + 1, 2 * reach + 1), bool)


def long_runs(mask: NDArray[np.bool_], length: int) -> NDArray[np.bool_]:
    """Row by row, run by run."""
    rows = []
    for row in mask:
        lengths = [(inside, len(list(run))) for inside, run in groupby(row)]
        rows.append(np.concatenate([np.full(n, inside and n >= length) for inside, n in lengths]))
    return np.array(rows)


@pytest.mark.parametrize(
    ("ours", "plain"),
    [
        (dilated, lambda mask, steps: ndimage.binary_dilation(mask, iterations=steps)),
        (eroded, lambda mask, steps: ndimage.binary_erosion(mask, iterations=steps)),
        (squared, lambda mask, reach: ndimage.maximum_filter(mask, 2 * reach + 1)),
        (opened, lambda mask, reach: ndimage.binary_opening(mask, square(reach))),
        (runs, long_runs),
    ],
    ids=["dilated", "eroded", "squared", "opened", "runs"],
)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_a_mask_of_any_size_is_as_ndimage_has_it(ours: Act, plain: Act, share: float) -> None:
    """Also where the reach is beyond its edges and where it lies in memory by columns; and the mask stays as it was."""
    rng = np.random.default_rng(0)
    for reach in range(1, 13):
        for shape in ((1, 1), (1, 30), (30, 1), (3, 5), (33, 40)):
            mask = rng.random(shape) < share
            kept = mask.copy()
            for one in (mask, np.asfortranarray(mask)):
                np.testing.assert_array_equal(ours(one, reach), plain(mask, reach))
                np.testing.assert_array_equal(one, kept)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.97, 1.0])
def test_runs_along_the_rows_are_the_mask(share: float) -> None:
    """All of it, no run across two rows or beside another; and long ones are what `runs` keeps."""
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (1, 30), (30, 1), (3, 5), (33, 40)):
        mask = rng.random(shape) < share
        starts, lengths = runs_along(mask)
        assert (starts // shape[1] == (starts + lengths - 1) // shape[1]).all()
        np.testing.assert_array_equal(stretched(starts, lengths), np.flatnonzero(mask))
        long = lengths >= 3
        np.testing.assert_array_equal(stretched(starts[long], lengths[long]), np.flatnonzero(runs(mask, 3)))
