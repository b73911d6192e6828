"""Make a pyramid in a store of objects: shard by shard, in place, and the record that makes it one last.

A store has no folder that could be renamed and no lease that a dead writer loses. So the record of what was there goes
first: what is unfinished has none and is never taken for a pyramid. A marker says who writes; whoever comes later takes
over, and the earlier one stops at its next shard. What an interrupted writer of the same plan put there is kept: an
object is there whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from stages import object_store
from stages.passing import UnreadableError
from stages.place import Url, each, read
from stages.pyramid.chunks import zstd_chunk
from stages.pyramid.copying import write_levels
from stages.pyramid.format import Progress
from stages.pyramid.layout import LevelLayout, array_metadata
from stages.pyramid.plan import Plan
from stages.pyramid.record import Record, has_record, write_json, write_record
from stages.pyramid.shards import write_shard
from stages.pyramid.transaction import copied_facts
from stages.slide.facts import SlideError, SlideFacts
from stages.slide.protocol import Slide

MARK = ".saccade-writing"
"""Object that says which plan is being written, and by whom."""
AGAIN = "then run `saccade cache` again"


def upload_pyramid(
    source: Slide,
    out: Url,
    *,
    plan: Callable[[], Plan],
    is_current: Callable[[Url], bool],
    progress: Progress | None,
    writers: int,
) -> Url:
    """Make a pyramid at ``out`` and return it; at once where one is there that will do.

    Args:
        source: the slide.
        out: of the pyramid; what is there of another one of ours is taken away first.
        plan, is_current, progress, writers: as of `stages.pyramid.transaction.build`.

    Raises:
        SlideError: the slide cannot be read, the pyramid not be written, or another process began to.
    """
    if is_current(out):
        return out
    try:
        there = own_objects(out)
        wanted = plan().at(out)
        form = _Upload(out, wanted.digest(), there)
        form.start(wanted)
        write_levels(source, wanted, form, progress=progress, writers=writers)
        form.finish(wanted, copied_facts(source))
    except UnreadableError as exc:
        raise SlideError(f"cannot write {out}: {exc}; {AGAIN}") from exc
    return out


def own_objects(out: Url) -> dict[str, int]:
    """Bytes of each object that is there of a pyramid of ours, whole or begun, by its name below it.

    Raises:
        SlideError: there is something else, or its store does not tell.
        UnreadableError: the store does not answer.
    """
    there = object_store.listed(out.text)
    if there is None:
        raise SlideError(f"cannot write {out}: its store lists nothing, so that what is there may not be replaced")
    if there and not _is_ours(out, there):
        raise SlideError(f"{out} holds something that is no pyramid of ours: take it away or choose another --out")
    return there


def _is_ours(out: Url, there: Collection[str]) -> bool:
    """Whether all that is there is a pyramid of ours, or was to become one."""
    parts = {part for name in there for part in name.split("/")}
    known = all(part in ("zarr.json", "c", MARK) or part.isdecimal() for part in parts)
    return known and (MARK in there or has_record(out))


class _Upload:
    """How it is stored, see `stages.pyramid.format.Format`."""

    name = "ngff05"

    def __init__(self, out: Url, digest: str, there: Collection[str]) -> None:
        self._out, self._token = out, os.urandom(16).hex()
        self._mark = f"{digest} {self._token}".encode()
        goes_on = MARK in there and read(out / MARK).split()[:1] == [digest.encode()]
        self._kept = set(there) if goes_on else set()
        self._replaced = set(there) - self._kept - {MARK, "zarr.json"}
        self._sizes: dict[str, int] = {}

    def start(self, plan: Plan) -> None:
        mark = (self._out / MARK).text
        object_store.put(mark, f"- {self._token}".encode())  # of no plan, whose shards could be gone on with
        object_store.remove((self._out / "zarr.json").text)
        each(self._out, lambda name: object_store.remove(f"{self._out}/{name}"), self._replaced)
        object_store.put(mark, self._mark)
        for layout in plan.layouts:
            write_json(layout.folder / "zarr.json", array_metadata(layout, plan.facts.background))

    def is_whole(self, layout: LevelLayout, row: int, column: int, wanted: Sequence[bool]) -> bool:
        return _name(layout, row, column) in self._kept

    def encode(self, pixels: NDArray[np.uint8]) -> bytes:
        return zstd_chunk(pixels)

    def write(self, layout: LevelLayout, row: int, column: int, chunks: Sequence[bytes | None]) -> int:
        self._refuse_taken()
        size = write_shard(layout.shard_path(row, column), chunks)
        self._sizes[_name(layout, row, column)] = size
        return size

    def finish(self, plan: Plan, source: SlideFacts) -> None:
        names = [
            [_name(layout, row, column) for row in range(layout.grid[0]) for column in range(layout.grid[1])]
            for layout in plan.layouts
        ]
        there = object_store.listed(self._out.text) or {}
        shards = [name for level in names for name in level]
        own = {MARK, *(f"{layout.folder.name}/zarr.json" for layout in plan.layouts), *shards}
        if own - there.keys() or any(there[name] != size for name, size in self._sizes.items()):
            raise SlideError(f"{self._out} is not as it was written: something else writes there, too: {AGAIN}")
        self._refuse_taken()
        sizes = tuple(tuple(there[name] for name in level) for level in names)
        write_record(Record(plan.facts, plan.layouts, plan.profile, plan.kept, sizes), source)
        object_store.remove((self._out / MARK).text)

    def _refuse_taken(self) -> None:
        """Stop where another process has begun to write there since."""
        try:
            mark = read(self._out / MARK)
        except FileNotFoundError:
            mark = b""
        if mark != self._mark:
            raise SlideError(f"another process began to write {self._out}, and goes on: nothing is to be done here")


def _name(layout: LevelLayout, row: int, column: int) -> str:
    """What a shard is called below its pyramid."""
    return f"{layout.folder.name}/c/0/{row}/{column}"
