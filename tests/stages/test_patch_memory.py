"""Patches kept in memory: what is asked for is what is given, whoever read it, within the bounds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest

from stages.patch_memory import PatchMemory
from stages.slide.facts import SlideError

PATCHES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
SIZE = PATCHES[0].nbytes
MUCH = np.ones((20, 20), bool)
"""Tissue that is too much to be read at once."""


def test_what_is_kept_is_not_read_again_and_is_the_same() -> None:
    asked: list[list[int]] = []

    def reader(cells: np.ndarray) -> np.ndarray:
        asked.append(cells.tolist())
        return PATCHES[cells]

    memory = PatchMemory(3 * SIZE)
    for cells, read in (
        ([3, 1, 3], [3, 1]),  # one that is drawn twice is read once
        ([1, 3], None),
        ([5, 1], [5]),
        ([1, 7], [7]),  # 3 was asked for the time before last: it makes room
        ([1, 5, 7], None),
        ([3, 5, 7], [3]),  # and now all were asked for but now: there is no room
        ([3, 5], [3]),
    ):
        asked.clear()
        found, *_ = dask.compute(memory.read("a", reader, MUCH, np.array(cells)), scheduler="threads")
        np.testing.assert_array_equal(found, PATCHES[cells])
        assert asked == ([] if read is None else [read])
        assert memory.nbytes <= 3 * SIZE


@pytest.mark.parametrize("room", [80, 20, 5])
def test_of_a_cohort_that_does_not_fit_such_a_share_as_does_is_not_read_again(room: int) -> None:
    """Slides that are asked for in turns, in another order each epoch: of those kept last, none would come again."""
    memory, read = PatchMemory(room * SIZE), 0
    rng = np.random.default_rng(0)

    def reader(cells: np.ndarray) -> np.ndarray:
        nonlocal read
        read += len(cells)
        return PATCHES[cells]

    for epoch in range(5):
        if epoch == 1:
            read = 0
        for slide in rng.permutation(8).tolist():
            dask.compute(memory.read(slide, reader, MUCH, rng.permutation(10)))
    assert read == 4 * (80 - room)


def test_what_is_no_longer_drawn_makes_room() -> None:
    """Attention moves on: from the third time that the slides are asked for, only the new cells are kept."""
    memory, read = PatchMemory(8 * SIZE), []

    def reader(cells: np.ndarray) -> np.ndarray:
        read.extend(cells.tolist())
        return PATCHES[cells]

    for cells in ([0, 1], [2, 3], [2, 3], [2, 3], [2, 3]):
        read.clear()
        for slide in range(4):
            dask.compute(memory.read(slide, reader, MUCH, np.array(cells)))
    assert not read


def test_slides_do_not_mix_and_threads_may_ask_at_once() -> None:
    memory, readers = PatchMemory(10 * SIZE), {name: partial(np.add, k) for k, name in enumerate("ab")}
    rng = np.random.default_rng(1)

    def ask(cells: np.ndarray) -> bool:
        lazy = [memory.read(name, lambda c, act=act: act(PATCHES[c]), MUCH, cells) for name, act in readers.items()]
        found = dask.compute(*lazy, scheduler="threads")
        return all(np.array_equal(one, k + PATCHES[cells]) for k, one in enumerate(found))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, [rng.integers(0, 40, 6) for _ in range(100)]))
    assert memory.nbytes <= 10 * SIZE


def test_what_fails_is_not_kept_and_no_room_keeps_nothing() -> None:
    def fails(cells: np.ndarray) -> np.ndarray:
        raise SlideError("gone")

    memory = PatchMemory(0)
    with pytest.raises(SlideError, match="gone"):
        dask.compute(memory.read("a", fails, MUCH, np.array([1])))
    np.testing.assert_array_equal(
        dask.compute(memory.read("a", PATCHES.__getitem__, MUCH, np.array([1])))[0], PATCHES[[1]]
    )
    assert memory.nbytes == 0


def test_a_slide_of_little_tissue_is_read_at_once_but_what_is_damaged_elsewhere_costs_nothing() -> None:
    asked: list[list[int]] = []
    tissue = np.zeros((5, 8), bool)
    tissue[1:4, 2:6] = True
    cells, every = np.array([10, 27]), np.flatnonzero(tissue).tolist()
    assert np.isin(cells, every).all()

    def reader(cells: np.ndarray) -> Any:
        def taken() -> np.ndarray:
            asked.append(cells.tolist())
            if damaged in cells:
                raise SlideError("gone")
            return PATCHES[cells]

        return da.from_delayed(dask.delayed(taken)(), (len(cells), *PATCHES.shape[1:]), np.uint8)

    for spoilt, room, wanted, kept in (
        (-1, 40, [every], True),
        (every[-2], 40, [every, [10, 27]], False),  # which was not asked for
        (-1, 11, [[10, 27]], False),  # there is no room for all
    ):
        damaged, memory = spoilt, PatchMemory(room * SIZE)
        asked.clear()
        for _ in range(2):
            (found,) = dask.compute(memory.read("a", reader, tissue, cells))
            np.testing.assert_array_equal(found, PATCHES[cells])
        assert asked == wanted
        assert (memory.nbytes == len(every) * SIZE) == kept
    damaged = 27
    with pytest.raises(SlideError, match="gone"):
        dask.compute(PatchMemory(40 * SIZE).read("a", reader, tissue, cells))
