"""Tile and cache: a slide as a chunked OME-Zarr 0.5 pyramid, pixel for pixel.

Every level is copied as it is, losslessly, so that each later step gives the same result from the slide and from its
pyramid. A pyramid's folder comes into being complete: shards are written, one writer each, beside the folder's place
under a name that follows from the slide, so that a run which was killed goes on where it stopped; the group's metadata
comes last, and then the folder is renamed. Two runs at once share the work: what they write is the same, and the first
to finish puts it in place.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.errors
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from stages.geometry import Box
from stages.ngff import (
    FORMAT,
    REMEDY,
    LevelLayout,
    chunk_bytes,
    level_layouts,
    marked_facts,
    read_mark,
    write_mark,
)
from stages.slides import Slide, SlideError, SlideFacts, open_slide, override_mpp

WRITERS = 2
"""Shards written at once; more than the slide's decoding can feed gains nothing."""


class ZarrSlide:
    """A pyramid that `cache_pyramid` wrote: the slide's pixels without the slide."""

    def __init__(self, facts: SlideFacts) -> None:
        self.facts = facts
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._pid = -1
        self._arrays: list[Any] = []
        self._tile_bytes: dict[int, NDArray[np.int64]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"facts": self.facts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.facts = state["facts"]
        self._reset()

    def _array(self, level: int) -> Any:
        with self._lock:
            if self._pid != os.getpid():
                layouts = level_layouts(self.facts.path, self.facts)
                self._arrays, self._pid = [_open_array(layout) for layout in layouts], os.getpid()
            return self._arrays[level]

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """See `Slide.read_level`."""
        array = self._array(level)
        try:
            pixels = array[:, box.y : box.y + box.height, box.x : box.x + box.width]
        except Exception as exc:  # zarr's codecs raise their own types; to the caller it is one thing: damage
            raise SlideError(f"cannot read the pyramid's level {level} at ({box.x}, {box.y}): {exc}; {REMEDY}") from exc
        return np.ascontiguousarray(np.moveaxis(pixels, 0, -1))

    def tile_bytes(self, level: int) -> NDArray[np.int64]:
        """See `Slide.tile_bytes`: exact, from the shards' own indices."""
        if level not in self._tile_bytes:
            layout = level_layouts(self.facts.path, self.facts)[level]
            per_shard = layout.chunks_per_shard
            counts = np.zeros((layout.grid[0] * per_shard[0], layout.grid[1] * per_shard[1]), np.int64)
            for path, box in layout.shards():
                found = chunk_bytes(path, per_shard)
                if found is None:
                    raise SlideError(f"this pyramid is damaged: {path.relative_to(self.facts.path)}; {REMEDY}")
                row, column = box.y // layout.chunk[0], box.x // layout.chunk[1]
                counts[row : row + per_shard[0], column : column + per_shard[1]] = found
            rows, columns = (-(-side // chunk) for side, chunk in zip(layout.size, layout.chunk, strict=True))
            self._tile_bytes[level] = counts[:rows, :columns]
        return self._tile_bytes[level]

    def direct(self, level: int) -> bool:
        """See `Slide.direct`: always, a pyramid's chunks are its tiles."""
        return True


def open_pyramid(path: Path | str, *, mpp: float | None = None) -> Slide:
    """Open the pixels of a slide, be it a whole-slide file or the pyramid that `cache_pyramid` made of one.

    Args:
        path: the file or the pyramid's folder.
        mpp: µm per level-0 pixel that replaces the file's own.

    Raises:
        SlideError: missing, not a slide, damaged, or an OME-Zarr that was not written here.
    """
    path = Path(path)
    if not path.is_dir():
        return open_slide(path, mpp=mpp)
    mark = read_mark(path)
    if mark is None:
        raise SlideError(
            "a folder, but not a finished pyramid of ours: name the slide file itself, "
            "or make a pyramid of it with `saccade cache`"
        )
    slide = ZarrSlide(override_mpp(marked_facts(path, mark), mpp))
    slide._array(0)  # damaged metadata shows now, not at the first patch
    return slide


def _open_array(layout: LevelLayout) -> Any:
    try:
        array = zarr.open_array(layout.folder, mode="r", zarr_format=3)
        found = (array.shape, array.chunks, array.shards, str(array.dtype))
    except Exception as exc:  # whatever zarr makes of metadata that is none
        raise SlideError(f"this pyramid's level {layout.folder.name} cannot be opened ({exc}): {REMEDY}") from exc
    expected = ((3, *layout.size), (3, *layout.chunk), (3, *layout.shard), "uint8")
    if found != expected:
        raise SlideError(f"this pyramid's level {layout.folder.name} is {found}, expected {expected}: {REMEDY}")
    return array


def cache_pyramid(
    slide: Slide, out: Path | str, *, progress: Callable[[int, int], None] | None = None, writers: int = WRITERS
) -> Path:
    """Copy a slide into a pyramid at ``out`` and return that path; at once where it is there already.

    A pyramid there of other content (the slide was replaced) or a damaged one is rebuilt and only then exchanged;
    anything there that is not a pyramid of ours is left alone. What a killed run finished is kept. The label, macro and
    thumbnail images are not copied, and the µm/px are the file's own, whatever ``slide`` was opened with.

    Args:
        slide: what to copy.
        out: the pyramid's folder.
        progress: called with (pixels done, pixels in all), from this thread.
        writers: shards written at once, some 50 MB each.

    Raises:
        SlideError: the slide cannot be read, or the pyramid not be written.
    """
    out = Path(os.path.abspath(out))
    source = open_pyramid(slide.facts.path)
    fingerprint = source.facts.fingerprint
    if _is_current(out, fingerprint):
        return out
    if os.path.lexists(out) and read_mark(out) is None:
        raise SlideError(f"{out} exists and is not a pyramid of ours: move it away or choose another folder")
    partial = out.with_name(f".{out.name}.{fingerprint[:16]}-{FORMAT}.partial")
    try:
        shard_bytes = _write_levels(source, partial, progress, writers)
        if open_pyramid(slide.facts.path).facts.fingerprint != fingerprint:
            shutil.rmtree(partial)
            raise SlideError("the file changed while it was being copied: run `saccade cache` again")
        write_mark(partial, source.facts, shard_bytes)
        _put_in_place(partial, out)
    except OSError as exc:
        if not _is_current(out, fingerprint):  # else another run was first, and took the folder that we worked in
            raise SlideError(
                f"cannot write {out}: {exc.strerror or exc}; check the disk and its permissions, "
                "then run `saccade cache` again: it goes on where it stopped"
            ) from exc
        shutil.rmtree(partial, ignore_errors=True)
    for litter in out.glob("*/c/0/*/*.partial"):  # half a shard each, of runs that were killed
        litter.unlink(missing_ok=True)
    return out


def _write_levels(
    source: Slide, partial: Path, progress: Callable[[int, int], None] | None, writers: int
) -> list[list[int]]:
    """Write every shard that is not there yet; returns the sizes of their files, level by level."""
    layouts = level_layouts(partial, source.facts)
    partial.mkdir(parents=True, exist_ok=True)
    arrays = [_create_array(layout) for layout in layouts]
    shards = [(level, path, box) for level, layout in enumerate(layouts) for path, box in layout.shards()]
    for level, path, _ in shards:
        if path.exists() and chunk_bytes(path, layouts[level].chunks_per_shard) is None:
            path.unlink(missing_ok=True)  # torn: writes are atomic, but a machine may lose power

    def write(work: tuple[int, Path, Box]) -> int:
        level, path, box = work
        if not path.exists():
            if not partial.is_dir():  # zarr would make it again
                raise FileNotFoundError(f"{partial} was taken away")
            pixels = source.read_level(level, box)
            arrays[level][:, box.y : box.y + box.height, box.x : box.x + box.width] = np.moveaxis(pixels, -1, 0)
            with path.open("r+b") as file:
                os.fsync(file.fileno())
        return box.area

    done, total = 0, sum(box.area for _, _, box in shards)
    with ThreadPoolExecutor(writers) as pool:
        for area in pool.map(write, shards):
            done += area
            if progress is not None:
                progress(done, total)
    return [[path.stat().st_size for path, _ in layout.shards()] for layout in layouts]


def _create_array(layout: LevelLayout) -> Any:
    config: Any = {"write_empty_chunks": True}  # so that a shard which is missing is damage
    try:
        return zarr.create_array(
            layout.folder,
            shape=(3, *layout.size),
            chunks=(3, *layout.chunk),
            shards=(3, *layout.shard),
            dtype=np.uint8,
            fill_value=255,
            compressors=ZstdCodec(level=3, checksum=True),
            dimension_names=("c", "y", "x"),
            zarr_format=3,
            config=config,
        )
    except zarr.errors.ContainsArrayError:  # of a run that was killed, or of one that is at work beside us
        return zarr.open_array(layout.folder, mode="r+", zarr_format=3, config=config)


def _put_in_place(partial: Path, out: Path) -> None:
    """Rename ``partial`` to ``out``; an outdated pyramid there is deleted once the new one has its place."""
    retired = out.with_name(f".{out.name}.{uuid.uuid4().hex}.old")
    if out.exists():
        os.rename(out, retired)
    try:
        os.rename(partial, out)
    except OSError:  # another run was first: what we retired was its pyramid
        if retired.exists():
            os.rename(retired, out)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _is_current(folder: Path, fingerprint: str) -> bool:
    """Whether a whole pyramid of this content is there."""
    with contextlib.suppress(SlideError, OSError):
        return folder.is_dir() and open_pyramid(folder).facts.fingerprint == fingerprint
    return False
