"""Tile and cache: a slide as a chunked OME-Zarr 0.5 pyramid that is read in its place.

A pyramid's folder comes into being complete: shards are written, one writer each, beside the folder's place under a
name that follows from the slide and from what is kept of it, so that a run which was killed goes on where it stopped,
once every checksum is found right; the group's metadata comes last, and then the folder is renamed. Two runs at once
share the work: what they write is the same, and the first to finish puts it in place.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.budget import Room
from stages.disk import holds_only
from stages.place import Place, Url, exists, local, place, true_name
from stages.pyramid.chunks import zstd_chunk
from stages.pyramid.format import Progress
from stages.pyramid.layout import LevelLayout, array_metadata
from stages.pyramid.open import ZarrSlide, open_pyramid
from stages.pyramid.plan import Plan, Wish, choose_profile, native_plan, portable_plan
from stages.pyramid.record import Record, has_record, read_record, refuse_another, write_json, write_record
from stages.pyramid.shards import ShardTiles, shard_damage, write_shard
from stages.pyramid.task import Task
from stages.pyramid.transaction import build
from stages.pyramid.upload import upload_pyramid
from stages.slide.facts import SlideError, SlideFacts, unreadable
from stages.slide.protocol import Slide


def _cores() -> int:
    """Those that this process may use, where the system tells (macOS and Windows do not)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


WRITERS = max(1, min(8, _cores()))
"""Shards copied at once, some 20 MB each."""


@unreadable()
def cache_pyramid(
    slide: Slide,
    out: Place | str,
    *,
    profile: Wish = "auto",
    everything: bool = False,
    progress: Progress | None = None,
    writers: int = WRITERS,
    room: Room | None = None,
    wait: bool = True,
) -> Place:
    """Copy a slide into a pyramid at ``out`` and return that path; at once where it is there already.

    A pyramid there of other content (the slide was replaced, or more is wanted) or a damaged one is rebuilt and only
    then exchanged; one of a slide that lies elsewhere, and anything that is not a pyramid of ours, is left alone. What
    a killed run finished is kept. The label, macro and thumbnail images are not copied, and the µm/px are the file's
    own, whatever ``slide`` was opened with.

    Args:
        slide: what to copy; where tissue is on it is judged by its µm/px.
        out: the pyramid's folder, or its URL: see `stages.pyramid.upload` for what is otherwise there.
        profile: `native` copies JPEG tiles as they are and other levels losslessly; `portable` holds pixels losslessly,
            and levels that the slide lacks; `auto` is native where every level consists of JPEG tiles, unless a
            portable pyramid is there already.
        everything: keep all chunks of a portable pyramid; by default the finest levels hold the surroundings of tissue.
        progress: called from this thread.
        writers: shards copied at once.
        room: what of the disk may be taken; None: all.
        wait: for another process that is making it; else see below.

    Raises:
        BusyError: another process is making it, or has reserved what it may not take in the end.
        FullDiskError: there is no room; nor will there be for another slide.
        DiskBudgetError: it may take more than there is room for.
        SlideError: the slide cannot be read, or the pyramid not be written.
    """
    where = place(out)
    task = pyramid_task(slide, where, profile=profile, everything=everything)
    how: dict[str, Any] = {"plan": task.plan, "is_current": task.is_current, "progress": progress, "writers": writers}
    if isinstance(where, Url):
        return upload_pyramid(task.source, where, **how)
    return build(task.source, where, task.form, room=room, wait=wait, **how)


def pyramid_task(slide: Slide, out: Place, *, profile: Wish = "auto", everything: bool = False) -> Task:
    """What `cache_pyramid` has to do for these arguments; nothing is written.

    Raises:
        SlideError: the slide cannot be read.
    """
    source = open_pyramid(slide.facts.path)
    earlier = _readable_record(out)
    # whoever once asked for a portable pyramid may rely on it
    kept = profile == "auto" and earlier is not None and earlier.profile == "portable"
    chosen = choose_profile(source, "portable" if kept else profile)

    def missing(folder: Place) -> str | None:
        found = _readable_record(folder)
        if found is None:
            return (
                "what is there is damaged, or no pyramid"
                if not isinstance(folder, Url) and os.path.lexists(folder)
                else ""
            )
        if found.facts.fingerprint != source.facts.fingerprint:
            refuse_another(folder, found.origin, source.facts.path)
            return "its slide has changed"
        if true_name(folder) == true_name(source.facts.path):
            return None
        # earlier versions recorded no revision
        if found.facts.revision is not None and not source.facts.unchanged(found.facts.revision):
            refuse_another(folder, found.origin, source.facts.path)
            return "its slide has changed"
        # what is left out of a slide was not always so
        if found.facts.warnings != source.facts.warnings:
            return "what its slide's file claims is judged otherwise"
        if found.profile != chosen:
            return f"it is {found.profile}, and {chosen} is wanted"
        return None if found.kept == "all" or not everything else "it holds tissue only, and all is wanted"

    def plan() -> Plan:
        if isinstance(source, ZarrSlide) and source.kept != "all":
            raise SlideError("a pyramid that holds only its slide's tissue: cache the slide itself")
        if chosen == "native":
            return native_plan(source)
        return portable_plan(source, seen=slide, everything=everything)

    return Task(source, _Pyramid(), missing, plan)


_IN_FOLDERS = "this pyramid is made in a folder"


class _Pyramid:
    """How a pyramid is stored, see `stages.pyramid.format.Format`."""

    name = "ngff05"

    def start(self, plan: Plan) -> None:
        for layout in plan.layouts:
            for row in range(layout.grid[0]):
                local(layout.shard_path(row, 0), _IN_FOLDERS).parent.mkdir(parents=True, exist_ok=True)
            write_json(layout.folder / "zarr.json", array_metadata(layout, plan.facts.background))

    def is_whole(self, layout: LevelLayout, row: int, column: int, wanted: Sequence[bool]) -> bool:
        if not exists(layout.shard_path(row, column)):
            return False
        return not shard_damage(ShardTiles(layout), layout, row, column, decode=False)

    def encode(self, pixels: NDArray[np.uint8]) -> bytes:
        return zstd_chunk(pixels)

    def write(self, layout: LevelLayout, row: int, column: int, chunks: Sequence[bytes | None]) -> int:
        return write_shard(layout.shard_path(row, column), chunks)

    def finish(self, plan: Plan, source: SlideFacts) -> None:
        sizes = tuple(
            tuple(local(path, _IN_FOLDERS).stat().st_size for path, _ in layout.shards()) for layout in plan.layouts
        )
        write_record(Record(plan.facts, plan.layouts, plan.profile, plan.kept, sizes), source)

    def is_ours(self, folder: Path) -> bool:
        return has_record(folder) and holds_only(folder, ("zarr.json", "c"))


def _readable_record(folder: Place) -> Record | None:
    with contextlib.suppress(SlideError, OSError):
        return read_record(folder) if has_record(folder) else None
    return None


def verify_pyramid(path: Place | str, *, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Read every chunk of a pyramid, compare its checksum and decode it; returns what is wrong, one line each.

    Args:
        path: the pyramid's folder.
        progress: called with (pixels looked at, pixels in all), from this thread.

    Raises:
        SlideError: it cannot be opened.
    """
    slide = open_pyramid(path)
    if not isinstance(slide, ZarrSlide):
        raise SlideError("not a pyramid: there is nothing in it to verify")
    shards = [
        (level, row, column)
        for level, layout in enumerate(slide.layouts)
        for row in range(layout.grid[0])
        for column in range(layout.grid[1])
    ]
    total = sum(level.width * level.height for level in slide.facts.levels)

    def look(shard: tuple[int, int, int]) -> tuple[int, list[str]]:
        level, row, column = shard
        layout = slide.layouts[level]
        found = shard_damage(slide.tiles(level), layout, row, column, decode=True)
        return layout.shard_box(row, column).area, found

    done, damage = 0, []
    with ThreadPoolExecutor(WRITERS) as pool:
        for area, found in pool.map(look, shards):
            done += area
            damage += found
            if progress is not None:
                progress(done, total)
    return damage
