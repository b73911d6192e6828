"""The slide's store: any slide as a read-only OME-Zarr 0.5 image, with nothing copied.

Every level is an array (c, y, x) whose chunks are the slide's own tiles, or 256-px squares where the format hides them.
A chunk is made when it is asked for, by `Slide.read_level`, and handed out as plain bytes: whatever reads zarr reads
the slide, with no codec of ours, in whatever format the slide is. `stages.patches` is the fast way to many patches;
this is the way in for everything else.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from stages.pyramid.layout import LevelLayout, array_metadata, fill_value, level_layouts, ome_metadata
from stages.slide.protocol import Slide

_CHUNK_KEY = re.compile(r"(0|[1-9]\d*)/c/0/(0|[1-9]\d*)/(0|[1-9]\d*)", re.ASCII)


class SlideStore(Store):
    """A zarr store that shows a slide; open it with ``zarr.open_group(SlideStore(slide), mode="r")``.

    It costs no more than the slide's own facts, pickles by the slide's path and equals the store of the same slide. A
    region that cannot be read raises `SlideError`, as `Slide.read_level` does.

    Args:
        slide: of whatever kind.

    Examples:
        >>> import saccade, zarr
        >>> store = saccade.SlideStore(saccade.open_slide("slides/even.tif"))
        >>> group = zarr.open_group(store, mode="r")
        >>> group["0"].shape, group["0"][:, 700:702, 900].shape
        ((3, 1536, 2048), (3, 2))
    """

    supports_writes: ClassVar[bool] = False
    supports_deletes: ClassVar[bool] = False
    supports_listing: ClassVar[bool] = True
    supports_consolidated_metadata: ClassVar[bool] = False

    def __init__(self, slide: Slide) -> None:
        super().__init__(read_only=True)
        self._slide = slide
        self._layouts = level_layouts(slide.facts.path, slide.facts)
        group = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {"ome": ome_metadata(slide.facts, slide.facts.path.name)},
        }
        self._documents = {"zarr.json": _json(group)}
        arrays = [_array(layout, slide.facts.background) for layout in self._layouts]
        self._documents |= {f"{i}/zarr.json": _json(array) for i, array in enumerate(arrays)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlideStore) and self._slide.facts == other._slide.facts

    def __hash__(self) -> int:
        return hash(self._slide.facts.fingerprint)

    def __str__(self) -> str:
        return f"slide://{self._slide.facts.path}"

    def __repr__(self) -> str:
        return f"SlideStore('{self}')"

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The value of a key, or the given part of it; None where there is no such key."""
        value = self._documents.get(key)
        if value is None:
            place = self._place(key)
            if place is None:
                return None
            value = await asyncio.to_thread(self._chunk, *place)
        return prototype.buffer.from_bytes(value[_slice(byte_range, len(value))])

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """The values of several keys, or parts of them; see `get`."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is such a key; nothing is read."""
        return self._size(key) is not None

    async def getsize(self, key: str) -> int:
        """Bytes of a value; nothing is read."""
        size = self._size(key)
        if size is None:
            raise FileNotFoundError(key)
        return size

    async def list(self) -> AsyncIterator[str]:
        """All keys, one by one."""
        for key in self._keys():
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """All keys that begin with ``prefix``."""
        for key in self._keys():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """What stands directly under ``prefix``: keys, and the first part of longer ones."""
        for name in self._children([part for part in prefix.split("/") if part]):
            yield name

    async def set(self, key: str, value: Buffer) -> None:
        """Refused."""
        self._refuse()

    async def delete(self, key: str) -> None:
        """Refused."""
        self._refuse()

    def _refuse(self) -> None:
        raise ValueError(
            f"store was opened in read-only mode and does not support writing: {self._slide.facts.path} is a slide; "
            "copy it with `saccade cache`, or write to a store of its own"
        )

    def _keys(self) -> Iterator[str]:
        yield from self._documents
        for level, layout in enumerate(self._layouts):
            rows, columns = _grid(layout)
            yield from (f"{level}/c/0/{row}/{column}" for row in range(rows) for column in range(columns))

    def _children(self, parts: Sequence[str]) -> Iterable[str]:
        grids = {str(level): _grid(layout) for level, layout in enumerate(self._layouts)}
        match parts:
            case []:
                return ("zarr.json", *grids)
            case [level] if level in grids:
                return ("zarr.json", "c")
            case [level, "c"] if level in grids:
                return ("0",)
            case [level, "c", "0"] if level in grids:
                return map(str, range(grids[level][0]))
            case [level, "c", "0", row] if level in grids and row in map(str, range(grids[level][0])):
                return map(str, range(grids[level][1]))
        return ()

    def _place(self, key: str) -> tuple[int, int, int] | None:
        """Level, row and column of a chunk's key; None where there is no such chunk."""
        found = _CHUNK_KEY.fullmatch(key)
        if found is None:
            return None
        level, row, column = map(int, found.groups())
        if level >= len(self._layouts):
            return None
        rows, columns = _grid(self._layouts[level])
        return (level, row, column) if row < rows and column < columns else None

    def _size(self, key: str) -> int | None:
        if key in self._documents:
            return len(self._documents[key])
        place = self._place(key)
        if place is None:
            return None
        height, width = self._layouts[place[0]].chunk
        return height * width * 3

    def _chunk(self, level: int, row: int, column: int) -> bytes:
        layout = self._layouts[level]
        box = layout.chunk_box(row, column)
        pixels = self._slide.read_level(level, box)
        if pixels.shape[:2] != layout.chunk:  # at the level's far edges
            beyond = ((0, layout.chunk[0] - box.height), (0, layout.chunk[1] - box.width), (0, 0))
            pixels = np.pad(pixels, beyond, constant_values=fill_value(self._slide.facts.background))
        return pixels.tobytes()


def _grid(layout: LevelLayout) -> tuple[int, int]:
    """Rows and columns of a level's chunks."""
    return -(-layout.size[0] // layout.chunk[0]), -(-layout.size[1] // layout.chunk[1])


def _array(layout: LevelLayout, background: tuple[int, int, int]) -> dict[str, Any]:
    """A level's metadata as in a pyramid, but with every chunk by itself and its pixels as they are."""
    chunks = {"name": "regular", "configuration": {"chunk_shape": [3, *layout.chunk]}}
    codecs = [{"name": "transpose", "configuration": {"order": [1, 2, 0]}}, {"name": "bytes"}]
    return {**array_metadata(layout, background), "chunk_grid": chunks, "codecs": codecs}


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, allow_nan=False).encode()


def _slice(part: ByteRequest | None, size: int) -> slice:
    match part:
        case None:
            return slice(None)
        case RangeByteRequest(start, end):
            return slice(start, end)
        case OffsetByteRequest(offset):
            return slice(offset, None)
        case SuffixByteRequest(suffix):
            return slice(max(0, size - suffix), None)
    raise TypeError(f"Unexpected byte_range, got {part!r}")
