"""What making a pyramid of a slide comes to, before anything is made."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.budget import Room
from stages.place import Place, Url
from stages.pyramid.format import FolderFormat
from stages.pyramid.layout import LevelLayout
from stages.pyramid.plan import Keep, Plan, own_jpeg
from stages.pyramid.transaction import partial_of, refuse_foreign, refuse_over
from stages.pyramid.upload import own_objects
from stages.slide.protocol import Slide

SAMPLED = 8
"""Chunks of each level that are read and encoded to tell what all of them will take."""


@dataclass(frozen=True, slots=True)
class Task:
    """A pyramid that is wanted of a slide.

    Attributes:
        source: the slide.
        form: how it is stored.
        missing: why what is in a folder will not do; "" where nothing is there, None where it will.
        plan: tells what is to be made.
    """

    source: Slide
    form: FolderFormat
    missing: Callable[[Place], str | None]
    plan: Callable[[], Plan]

    def is_current(self, folder: Place) -> bool:
        """Whether what is there will do."""
        return self.missing(folder) is None


@dataclass(frozen=True, slots=True)
class Cost:
    """About what making a pyramid takes.

    Attributes:
        read_bytes: compressed, of the slide.
        disk_bytes: of the pyramid.
        seconds: of one core, for the levels that are copied.
    """

    read_bytes: int
    disk_bytes: int
    seconds: float


def cost_of(task: Task, out: Place, *, room: Room | None = None) -> Cost:
    """What a pyramid in a folder or a store will take, by its plan and some chunks of each level; nothing is written.

    What is copied as it is, is known to the byte but for indices; pixels are as small as those that are tried.

    Raises:
        DiskBudgetError: it may take more than there is ``room`` for, see `build`.
        SlideError: the slide cannot be read, or something is at ``out`` that would not be replaced.
    """
    if isinstance(out, Url):
        own_objects(out)
        plan = task.plan()
    else:
        refuse_foreign(out, task.form)
        plan = task.plan()
        refuse_over(room, partial_of(out, task.form, plan), plan, task.source)
    read = disk = seconds = shrunk = 0.0
    for level, (layout, own, keep) in enumerate(zip(plan.layouts, plan.own, plan.keep, strict=True)):
        places = _places(layout, keep)
        raw = 3 * layout.chunk[0] * layout.chunk[1] * len(places)
        if own is None:  # an average of the level before: about as small for its pixels
            disk += shrunk * raw
            continue
        held = _spread(task.source.tile_bytes(own), task.source.facts.tile_sizes[own], layout)
        kept = np.array([held[place] for place in places])
        feeds = None in plan.own[level + 1 : level + 2]
        read += float(held.sum() if feeds else kept.sum())
        some = _sampled(len(places))
        started = time.perf_counter()
        found = own_jpeg(task.source, own) if layout.jpeg is not None else None
        if found is not None:
            for row, column in (places[i] for i in some):
                if not found[0].is_blank(row, column):
                    found[0].stored(row, column)
            size = float(kept.sum())
        else:
            sizes = [len(task.form.encode(_chunk(task.source, own, plan, layout, places[i]))) for i in some]
            # what the slide needs many bytes for, a pyramid does, too
            size = sum(sizes) / max(1.0, float(kept[some].sum())) * float(kept.sum())
        disk += size
        shrunk = size / max(1, raw)
        seconds += (time.perf_counter() - started) * len(places) / max(1, len(some))
    return Cost(round(read), round(disk), seconds)


def _spread(tile_bytes: NDArray[np.int64], tile: tuple[int, int], layout: LevelLayout) -> NDArray[np.float64]:
    """Compressed bytes of the slide in each chunk of a level, as if each tile's lay evenly in it."""
    sums = np.pad(tile_bytes.cumsum(0).cumsum(1), ((1, 0), (1, 0))).astype(np.float64)
    for axis, (size, chunk, side) in enumerate(zip(layout.size, layout.chunk, tile[::-1], strict=True)):
        edges = np.minimum(np.arange(-(-size // chunk) + 1) * chunk, size) / side
        edges[-1] = sums.shape[axis] - 1  # all of the last tile, whatever of it lies beyond
        before = np.minimum(edges.astype(np.int64), sums.shape[axis] - 2)
        part = np.expand_dims(edges - before, 1 - axis)
        sums = sums.take(before, axis) * (1 - part) + sums.take(before + 1, axis) * part
    return np.diff(np.diff(sums, axis=0), axis=1)


def _places(layout: LevelLayout, keep: Keep | None) -> list[tuple[int, int]]:
    """(row, column) of the chunks that are kept."""
    if keep is None:
        keep = np.ones([-(-size // chunk) for size, chunk in zip(layout.size, layout.chunk, strict=True)], bool)
    return [(int(row), int(column)) for row, column in np.argwhere(keep)]


def _sampled(count: int) -> NDArray[np.int64]:
    """One at random of each of `SAMPLED` equal parts: even steps would meet the same columns in every row."""
    parts = min(SAMPLED, count)
    return ((np.arange(parts) + np.random.default_rng(0).random(parts)) / max(1, parts) * count).astype(np.int64)


def _chunk(slide: Slide, own: int, plan: Plan, layout: LevelLayout, place: tuple[int, int]) -> NDArray[np.uint8]:
    """A chunk's pixels, background beyond the level's edge."""
    whole = np.empty((*layout.chunk, 3), np.uint8)
    whole[:] = plan.facts.background
    pixels = slide.read_level(own, layout.chunk_box(*place))
    whole[: pixels.shape[0], : pixels.shape[1]] = pixels
    return whole
