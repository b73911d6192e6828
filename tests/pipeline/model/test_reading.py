"""What a model reads becomes tensors: all slides' pixels in one computation, in the order asked for."""

from __future__ import annotations

import pickle
from typing import Any

import dask.array as da
import numpy as np
import pytest
import torch
from dask import delayed
from dask.highlevelgraph import HighLevelGraph

from pipeline.model import reading
from pipeline.model.reading import UnreadError, image, read_together
from stages.patches import LazyPatches
from stages.slide.facts import SlideError

CPU = torch.device("cpu")


def test_pixels_of_all_slides_come_from_one_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    slides = [np.arange(10 * 4 * 4 * 3, dtype=np.uint8).reshape(10, 4, 4, 3) + k for k in (0, 100)]
    asked = [
        (lambda cells, s=s: da.from_array(s[cells], chunks=1), torch.tensor(c))
        for s, c in zip(slides, ([3, 1], [9]), strict=True)
    ]
    calls, compute = [], reading.on_threads
    monkeypatch.setattr(reading, "on_threads", lambda graph, keys: calls.append(len(keys)) or compute(graph, keys))
    first, second = read_together(asked, CPU)
    assert calls == [2]
    assert np.array_equal(first.numpy(), slides[0][[3, 1]])
    assert np.array_equal(second.numpy(), slides[1][[9]])


def test_an_image_has_its_channels_first_and_white_is_one() -> None:
    rgb = np.zeros((2, 5, 7, 3), np.uint8)
    rgb[1, 4, 6] = (255, 0, 51)
    found = image(rgb, CPU)
    assert found.shape == (2, 3, 5, 7)
    assert found[1, :, 4, 6].tolist() == pytest.approx([1, 0, 0.2])


def test_whose_fault_it_is_that_some_cannot_be_read_together() -> None:
    def fine(cells: np.ndarray) -> np.ndarray:
        return np.zeros((len(cells), 2, 2, 3), np.uint8)

    def broken(cells: np.ndarray) -> da.Array:
        def fail(block: np.ndarray) -> np.ndarray:
            raise SlideError("s1.svs: a tile is damaged")

        return da.zeros((len(cells), 2, 2, 3), np.uint8).map_blocks(fail, dtype=np.uint8, meta=np.empty(0, np.uint8))

    one, none = torch.arange(3), torch.arange(0)
    with pytest.raises(UnreadError, match=r"^s1\.svs: a tile is damaged$") as caught:
        read_together([(fine, one), (broken, one), (broken, none)], CPU)
    assert list(caught.value.reasons) == [1]
    assert list(pickle.loads(pickle.dumps(caught.value)).reasons) == [1]


def test_what_fails_only_once_is_read() -> None:
    """As on a network's file system now and then."""
    calls = []

    def now_and_then(cells: np.ndarray) -> da.Array:
        def read(block: np.ndarray) -> np.ndarray:
            calls.append(block)
            if len(calls) == 1:
                raise OSError("stale file handle")
            return block + 7

        return da.zeros((len(cells), 2, 2, 3), np.uint8).map_blocks(read, dtype=np.uint8, meta=np.empty(0, np.uint8))

    (found,) = read_together([(now_and_then, torch.arange(3))], CPU)
    assert (found == 7).all()


def test_readers_of_different_kinds_give_each_its_own_pixels() -> None:
    """Real, delayed, arrays of dask and what dask reads of a slide, in any order: `dask.compute` sorts them by kind."""

    def patches(value: int) -> np.ndarray[Any, Any]:
        return np.full((1, 2, 2, 3), value, np.uint8)

    def lazily(value: int) -> LazyPatches:
        key = (f"patches-{value}", 0, 0, 0, 0)
        graph = HighLevelGraph.from_collections(key[0], {key: (patches, value)}, [])
        return LazyPatches(graph, key, (1, 2, 2, 3))

    kinds = [
        patches,
        lambda value: delayed(patches)(value),
        lambda value: da.from_array(patches(value), chunks=-1),
        lambda value: da.from_array(patches(value), chunks=(1, 1, 1, 3)),
        lazily,
    ]
    order = [1, 4, 3, 1, 0, 4, 2, 3, 1, 2, 0, 4]
    asked = [(lambda cells, i=i, kind=kind: kinds[kind](i), torch.tensor([0])) for i, kind in enumerate(order)]
    found = read_together(asked, torch.device("cpu"))
    assert [int(one.unique()) for one in found] == list(range(len(order)))
