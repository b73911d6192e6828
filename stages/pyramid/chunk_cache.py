"""The chunk cache, for slides that are slow to read: what was read once comes from a folder the next time.

For training, which reads the same slides epoch after epoch, in formats whose tiles only OpenSlide can decode. Each
chunk of a level is a file of its own: a checksum, then the pixels as LZ4. Files are written beside their place and
renamed, so that several processes can share a folder with no lock between them: at worst two of them read the same
chunk from the slide. What a file holds is never executed, and is read anew where its checksum does not fit. No file is
needed: where the folder cannot be written, reading goes on without it.

diskcache would be the library for this; it was left because it unpickles what it finds, because its SQLite index is
written on every hit, and because SQLite does not work on the network file systems that hold slides.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import google_crc32c
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from stages.disk import is_temporary, new_file
from stages.geometry import Box
from stages.pyramid.layout import level_layouts
from stages.slide.facts import SlideError
from stages.slide.protocol import Slide
from stages.slide.tiles import TileGrid

FORMAT = 1
"""Version of what lies in the folder; files of another one are never read."""

KEPT = 0.9
"""Share of the limit that the most recently used chunks may fill when others are evicted."""
UNSEEN = 1 / 32
"""Share of the limit that a process writes before it looks at the folder again: one process stays below the limit, and
each further one may exceed it by this."""
LITTER_SECONDS = 3600
"""Half-written files older than this were left by a process that was killed."""

_CHECKSUM_BYTES = 4
_log = logging.getLogger(__name__)


class ChunkCache:
    """A folder of chunks, bounded in size; for any number of threads and processes at once.

    Use `chunk_cache`, which keeps one for each folder and process.

    Args:
        folder: where; made when the first chunk is written.
        limit: bytes that the chunks may fill.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._root = folder / f"saccade-chunks-{FORMAT}"
        self._lock = threading.Lock()
        self._room = 0  # bytes that may be written before looking at the folder again
        self._writable = True

    def __reduce__(self) -> tuple[Callable[[Path, int], ChunkCache], tuple[Path, int]]:
        return chunk_cache, (self.folder, self.limit)

    def read(self, name: str) -> bytes | None:
        """What was written under a name, and marks it as used; None where there is nothing, or something else."""
        path = self._root / name
        try:
            data = path.read_bytes()
        except OSError:
            return None
        payload = data[_CHECKSUM_BYTES:]
        if data[:_CHECKSUM_BYTES] != _checksum(name, payload):
            return None
        with contextlib.suppress(OSError):  # evicted just now, or not ours to mark
            os.utime(path)
        return payload

    def write(self, name: str, payload: bytes) -> None:
        """Keep bytes under a name; where that fails, say so once and keep nothing from then on."""
        if not self._writable:
            return
        data = _checksum(name, payload) + payload
        path = self._root / name
        try:
            with self._lock:
                if len(data) > self._room:
                    self._make_room(len(data))
                self._room -= len(data)
            path.parent.mkdir(parents=True, exist_ok=True)
            with new_file(path, durable=False) as beside:  # the checksum tells what a power cut tore
                beside.write_bytes(data)
        except OSError as exc:
            self._writable = False
            _log.warning(
                "the read cache %s cannot be written (%s): reading goes on without; free some space, correct its "
                "permissions or name another folder",
                self.folder,
                exc.strerror or exc,
            )

    def _make_room(self, size: int) -> None:
        """Look at the folder, and evict the least recently used chunks if ``size`` bytes or a share more do not fit."""
        files = list(self._files())
        total = sum(size for _, size, _ in files)
        room = max(size, int(self.limit * UNSEEN))
        if total + room > self.limit:
            for _, evicted, path in sorted(files):
                if total <= min(self.limit * KEPT, self.limit - room):
                    break
                path.unlink(missing_ok=True)
                total -= evicted
        self._room = room

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """(time of last use in ns, bytes, path) of each chunk; removes litter."""
        now = time.time_ns()
        for folder, _, names in os.walk(self._root):
            for name in names:
                path = Path(folder, name)
                try:
                    status = path.stat()
                except FileNotFoundError:  # another process was faster
                    continue
                if not name.startswith("."):  # what others keep here, as file managers do, is hidden
                    yield status.st_mtime_ns, status.st_size, path
                elif is_temporary(name) and now - status.st_mtime_ns > LITTER_SECONDS * 10**9:
                    path.unlink(missing_ok=True)


@functools.cache
def chunk_cache(folder: Path, limit: int) -> ChunkCache:
    """This process's `ChunkCache` of a folder and limit in bytes."""
    return ChunkCache(folder, limit)


class CachedTiles(TileGrid):
    """One level as a grid of chunks that come from the cache, or else from the slide and are then kept.

    Args:
        slide, level: where the pixels are.
        chunk: (height, width) in the level's pixels.
        cache: what is kept of them.
    """

    def __init__(self, slide: Slide, level: int, chunk: tuple[int, int], cache: ChunkCache) -> None:
        self._slide, self._level, self._cache = slide, level, cache
        raster = slide.facts.levels[level]
        self.size, self.tile = (raster.width, raster.height), (chunk[1], chunk[0])
        # how long they are shows only when they are made; none is blank
        self.byte_counts = np.broadcast_to(np.int64(1), (-(-raster.height // chunk[0]), -(-raster.width // chunk[1])))

    def stored(self, row: int, column: int) -> bytes:
        """As `TileGrid.stored`; raises `SlideError` where the slide cannot be read."""
        box = self.box(row, column)
        place = f"{row}_{column}_{box.height}x{box.width}"  # chunks of another size are other chunks
        name = f"{self._slide.facts.fingerprint}/{self._level}/{place}"
        payload = self._cache.read(name)
        if payload is None:
            pixels = self._slide.read_level(self._level, box)
            # zstd saves a tenth on stained tissue and takes several times as long to unpack
            payload = bytes(imagecodecs.lz4_encode(pixels.tobytes()))
            self._cache.write(name, payload)
        return payload

    def decode(self, data: bytes, row: int, column: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """As `TileGrid.decode`."""
        box = self.box(row, column)
        shape = (box.height, box.width, 3)
        pixels = into if into is not None and into.shape == shape else np.empty(shape, np.uint8)
        imagecodecs.lz4_decode(data, out=pixels.reshape(-1).data)
        return pixels


class CachedSlide(Slide):
    """A slide whose slow levels are read through a `ChunkCache`; pixel for pixel the slide.

    Levels that are read from the slide's own tiles are left alone: nothing is faster.

    Args:
        slide: what is read.
        cache: what is kept of it.
    """

    def __init__(self, slide: Slide, cache: ChunkCache) -> None:
        self.facts = slide.facts
        self._slide, self._cache = slide, cache
        layouts = level_layouts(slide.facts.path, slide.facts)
        self._chunks = [CachedTiles(slide, level, layout.chunk, cache) for level, layout in enumerate(layouts)]

    def __reduce__(self) -> tuple[type[CachedSlide], tuple[Slide, ChunkCache]]:
        return CachedSlide, (self._slide, self._cache)

    def read_boxes(
        self, level: int, boxes: Sequence[Box], *, out: Sequence[NDArray[np.uint8]] | None = None
    ) -> list[NDArray[np.uint8]]:
        """See `Slide.read_boxes`."""
        if not self.direct(level):
            # what cannot be read may lie beside what was asked for: then the slide's own answer counts
            with contextlib.suppress(SlideError):
                return self._chunks[level].read_many(boxes, out=out)
        return self._slide.read_boxes(level, boxes, out=out)

    def tile_bytes(self, level: int) -> NDArray[np.int64]:
        """See `Slide.tile_bytes`: of the slide's own tiles, cached or not."""
        return self._slide.tile_bytes(level)

    def tiles(self, level: int) -> TileGrid | None:
        """See `Slide.tiles`."""
        return self._slide.tiles(level)

    def direct(self, level: int) -> bool:
        """See `Slide.direct`."""
        return self._slide.direct(level)


def _checksum(name: str, payload: bytes) -> bytes:
    """CRC-32C of a name and of its bytes: a file in the wrong place is as wrong as a torn one."""
    checksum: int = google_crc32c.extend(google_crc32c.value(name.encode()), payload)
    return checksum.to_bytes(_CHECKSUM_BYTES, "big")
