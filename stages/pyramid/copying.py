"""Copy a slide's levels into the chunks that a plan asks for: every tile is read once, in bounded memory.

Work goes shard by shard, on several threads. Levels that the slide lacks are averaged from the pixels that pass through
on their way into the level before: shards come in an order in which those of one averaged shard follow each other, so
that one shard of each such level is in memory at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stages.geometry import Box
from stages.pyramid.chunks import jpeg_chunk
from stages.pyramid.format import Format, Progress
from stages.pyramid.layout import LevelLayout
from stages.pyramid.plan import STEP, Plan, own_jpeg
from stages.slide.facts import SlideError
from stages.slide.protocol import Slide

Pixels = NDArray[np.uint8]

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class _Shard:
    level: int
    row: int
    column: int

    def averaged(self) -> _Shard:
        """The shard of the next level that this one becomes a part of."""
        return _Shard(self.level + 1, self.row // STEP, self.column // STEP)


def write_levels(source: Slide, plan: Plan, form: Format, *, progress: Progress | None, writers: int) -> None:
    """Store every shard of a plan that is not there yet.

    Args:
        source: the slide.
        plan: where the pyramid is to be, and what it holds.
        form: how it is stored.
        progress: called from this thread.
        writers: shards copied at once.

    Raises:
        SlideError: the slide cannot be read.
        OSError: a chunk cannot be written.
    """
    work = _Work(source, plan, form)
    copied_levels = [level for level, own in enumerate(plan.own) if own is not None]
    total = sum(plan.layouts[level].size[0] * plan.layouts[level].size[1] for level in copied_levels)
    done = written = 0
    with ThreadPoolExecutor(writers) as pool:
        every = [_Shard(i, *place) for i, layout in enumerate(plan.layouts) for place in _depth_first(layout, 0)]
        work.missing = {shard for shard, whole in zip(every, pool.map(work.is_whole, every), strict=True) if not whole}
        for level in copied_levels:
            averages = _Averages(work, level)
            shards = (_Shard(level, *place) for place in _depth_first(plan.layouts[level], averages.depth))
            for shard, size, average in _ahead(pool, work.copy, shards, 2 * writers):
                written += size
                if average is not None:
                    written += averages.add(shard, average)
                done += work.box(shard).area
                if progress is not None:
                    progress(done, total, written)
            written += averages.finish()
        if progress is not None:
            progress(total, total, written)


class _Work:
    """What all threads share."""

    def __init__(self, source: Slide, plan: Plan, form: Format) -> None:
        self.source, self.plan, self.form = source, plan, form
        self.missing: set[_Shard] = set()

    def box(self, shard: _Shard) -> Box:
        """A shard's part of its level."""
        return self.plan.layouts[shard.level].shard_box(shard.row, shard.column)

    def wanted(self, shard: _Shard) -> list[bool]:
        """Which chunks of a shard are to be stored, in its order."""
        keep = self.plan.keep[shard.level]
        places = self.plan.layouts[shard.level].chunks_in(shard.row, shard.column)
        return [place is not None and (keep is None or bool(keep[place])) for place in places]

    def is_whole(self, shard: _Shard) -> bool:
        """Whether a shard is there already."""
        return self.form.is_whole(self.plan.layouts[shard.level], shard.row, shard.column, self.wanted(shard))

    def copy(self, shard: _Shard) -> tuple[_Shard, int, Pixels | None]:
        """Store a shard that is missing; returns it, the bytes written and, where needed, what it averages to."""
        averaging = self._feeds_a_missing_one(shard)
        if shard not in self.missing and not averaging:
            return shard, 0, None
        own = self.plan.own[shard.level]
        assert own is not None
        if self.plan.layouts[shard.level].jpeg is not None:
            return shard, self._write(shard, self._tiles(shard, own)), None
        layout, box, wanted = self.plan.layouts[shard.level], self.box(shard), self.wanted(shard)
        average = np.empty((-(-box.height // STEP), -(-box.width // STEP), 3), np.uint8) if averaging else None
        chunks: list[bytes | None] = [None] * len(wanted)
        for index, place, pixels in self._pixels(shard, own, [averaging or want for want in wanted]):
            if wanted[index] and shard in self.missing:
                chunks[index] = self.encode(layout, pixels)
            if average is not None:
                part = layout.chunk_box(*place)
                y, x = (part.y - box.y) // STEP, (part.x - box.x) // STEP
                small = averaged(pixels)
                average[y : y + small.shape[0], x : x + small.shape[1]] = small
        return shard, self._write(shard, chunks) if shard in self.missing else 0, average

    def store(self, shard: _Shard, pixels: Pixels) -> int:
        """Store a missing shard whose pixels are at hand; returns the bytes written."""
        layout, box = self.plan.layouts[shard.level], self.box(shard)
        chunks: list[bytes | None] = []
        for place, want in zip(layout.chunks_in(shard.row, shard.column), self.wanted(shard), strict=True):
            if want and place is not None:
                part = layout.chunk_box(*place)
                y, x = part.y - box.y, part.x - box.x
                chunks.append(self.encode(layout, pixels[y : y + part.height, x : x + part.width]))
            else:
                chunks.append(None)
        return self._write(shard, chunks)

    def encode(self, layout: LevelLayout, pixels: Pixels) -> bytes:
        """A chunk as it is stored; beyond the level's edge it holds background."""
        if pixels.shape[:2] != layout.chunk:
            whole = np.empty((*layout.chunk, 3), np.uint8)
            whole[:] = self.plan.facts.background
            whole[: pixels.shape[0], : pixels.shape[1]] = pixels
            pixels = whole
        return self.form.encode(pixels)

    def _write(self, shard: _Shard, chunks: Sequence[bytes | None]) -> int:
        return self.form.write(self.plan.layouts[shard.level], shard.row, shard.column, chunks)

    def _feeds_a_missing_one(self, shard: _Shard) -> bool:
        while shard.level + 1 < len(self.plan.own) and self.plan.own[shard.level + 1] is None:
            shard = shard.averaged()
            if shard in self.missing:
                return True
        return False

    def _tiles(self, shard: _Shard, own: int) -> list[bytes | None]:
        """A shard of the slide's JPEG tiles as they are."""
        found = own_jpeg(self.source, own)
        assert found is not None
        tiles, _ = found
        places = self.plan.layouts[shard.level].chunks_in(shard.row, shard.column)
        try:
            return [None if p is None or tiles.is_blank(*p) else jpeg_chunk(tiles.stored(*p)) for p in places]
        except (OSError, ValueError) as exc:
            box = self.box(shard)
            raise SlideError(
                f"cannot read level {own} near ({box.x}, {box.y}): a tile {exc}; the file is damaged: copy it again"
            ) from exc

    def _pixels(self, shard: _Shard, own: int, wanted: Sequence[bool]) -> Iterator[tuple[int, tuple[int, int], Pixels]]:
        """(index in the shard, place in the level, RGB) of the wanted chunks, in the shard's order."""
        layout = self.plan.layouts[shard.level]
        places = layout.chunks_in(shard.row, shard.column)
        across, tiles = layout.chunks_per_shard[1], self.source.tiles(own)
        if tiles is not None and tiles.tile != layout.chunk[::-1]:
            across = len(places)  # tiles that reach over several rows of chunks are decoded once all the same
        for start in range(0, len(places), across):
            row = [(i, place) for i, place in enumerate(places[start : start + across], start) if place and wanted[i]]
            if tiles is not None:
                boxes = [layout.chunk_box(*place) for _, place in row]
                for (i, place), pixels in zip(row, self.source.read_boxes(own, boxes), strict=True):
                    yield i, place, pixels
                continue
            for run in _runs(row):  # OpenSlide's cost is by the call
                first, last = layout.chunk_box(*run[0][1]), layout.chunk_box(*run[-1][1])
                long = self.source.read_level(own, Box(first.x, first.y, last.x + last.width - first.x, first.height))
                for i, place in run:
                    part = layout.chunk_box(*place)
                    yield i, place, long[:, part.x - first.x :][:, : part.width]


class _Averages:
    """The levels that are averaged from one that is copied; each holds one unfinished shard."""

    def __init__(self, work: _Work, level: int) -> None:
        self._work, self._level, self.depth = work, level, 0
        own = work.plan.own
        while level + self.depth + 1 < len(own) and own[level + self.depth + 1] is None:
            self.depth += 1
        self._open: dict[int, tuple[_Shard, Pixels]] = {}

    def add(self, part: _Shard, pixels: Pixels) -> int:
        """Put in what a shard of the level before averages to; returns the bytes written."""
        whole, written = part.averaged(), 0
        if whole.level in self._open and self._open[whole.level][0] != whole:
            written += self._close(whole.level)
        if whole.level not in self._open:
            box = self._work.box(whole)
            self._open[whole.level] = (whole, np.empty((box.height, box.width, 3), np.uint8))
        height, width = (side // STEP for side in self._work.plan.layouts[part.level].shard)
        y, x = part.row % STEP * height, part.column % STEP * width
        self._open[whole.level][1][y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
        return written

    def finish(self) -> int:
        """No more parts will come; returns the bytes written."""
        return sum(self._close(level) for level in range(self._level + 1, self._level + self.depth + 1))

    def _close(self, level: int) -> int:
        if level not in self._open:
            return 0
        shard, pixels = self._open.pop(level)
        written = self._work.store(shard, pixels) if shard in self._work.missing else 0
        if level < self._level + self.depth:
            written += self.add(shard, averaged(pixels))
        return written


def averaged(pixels: Pixels) -> Pixels:
    """Means of squares of `STEP` x `STEP` pixels (H, W, 3), half to even; squares that the edge cuts are smaller.

    Returns:
        (ceil(H / STEP), ceil(W / STEP), 3).
    """
    height, width = (-(-side // STEP) for side in pixels.shape[:2])
    if pixels.shape[:2] != (height * STEP, width * STEP):
        whole = np.zeros((height * STEP, width * STEP, 3), np.uint8)
        whole[: pixels.shape[0], : pixels.shape[1]] = pixels
    else:
        whole = pixels
    down = whole[0::STEP].astype(np.uint16)
    for i in range(1, STEP):
        down += whole[i::STEP]
    sums = down[:, 0::STEP].copy()
    for i in range(1, STEP):
        sums += down[:, i::STEP]
    rows, columns = (
        np.minimum(STEP, side - STEP * np.arange(count, dtype=np.float32))
        for side, count in zip(pixels.shape[:2], (height, width), strict=True)
    )
    # sums are whole and counts small, so that a quotient is at one half exactly where the mean is
    means: Pixels = np.rint(sums / (rows[:, None] * columns)[..., None]).astype(np.uint8)
    return means


def _depth_first(layout: LevelLayout, depth: int) -> list[tuple[int, int]]:
    """(row, column) of a level's shards: those that average into one follow each other, ``depth`` levels up."""
    places = [(row, column) for row in range(layout.grid[0]) for column in range(layout.grid[1])]
    return sorted(places, key=lambda p: [(p[0] // STEP**d, p[1] // STEP**d) for d in range(depth, -1, -1)])


def _runs(row: Sequence[tuple[int, tuple[int, int]]]) -> Iterator[list[tuple[int, tuple[int, int]]]]:
    """Neighbouring chunks of a row, together."""
    run: list[tuple[int, tuple[int, int]]] = []
    for item in row:
        if run and item[0] != run[-1][0] + 1:
            yield run
            run = []
        run.append(item)
    if run:
        yield run


def _ahead(pool: ThreadPoolExecutor, work: Callable[[_T], _R], items: Iterable[_T], ahead: int) -> Iterator[_R]:
    """The results of ``work`` in order, at most so many computed before they are asked for."""
    pending: deque[Future[_R]] = deque()
    for item in items:
        pending.append(pool.submit(work, item))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
