"""The arrays of an OME-Zarr image that others wrote, as grids of tiles: pixels by zarr-python, which knows the codecs.

A chunk that is not there is its array's fill value, as zarr has it.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore  # zarr takes text for an address and cuts it at "#" and "?"

import stages.pyramid.codec  # noqa: F401  (the JPEG codecs, wherever this runs uninstalled)
from stages import object_store
from stages.disk import refuse_changed, version_of
from stages.geometry import Box
from stages.passing import UnreadableError, patiently
from stages.place import Opened, Place, Url, each, exists, file_sizes, read, reading
from stages.pyramid.ahead import Ahead
from stages.pyramid.object_array import ObjectStore
from stages.slide.facts import SlideError
from stages.slide.tiles import TileGrid

SAMPLES = 16
"""Files of an array that are looked at, spread evenly over it, where looking at all would take too long."""
READ_SIDE = 256
"""Pixels along a side of what is read at once where chunks are smaller: zarr takes a millisecond a call."""


@dataclass(frozen=True, slots=True)
class Plane:
    """What is read of an image: y and x whole, and of its other axes one place, or the colours.

    Attributes:
        axes: what each dimension is, see `Multiscales.axes`.
        at: of each dimension but y and x the places that are read: one, or along c those of red, green and blue.
    """

    axes: tuple[str, ...]
    at: tuple[tuple[int, ...], ...]

    @property
    def y(self) -> int:
        """The dimension that runs down."""
        return self.axes.index("y")

    @property
    def x(self) -> int:
        """The dimension that runs to the right."""
        return self.axes.index("x")

    def selection(self, box: Box) -> tuple[slice, ...]:
        """The smallest block that holds a box of it."""
        spans = [slice(min(places), max(places) + 1) if places else slice(None) for places in self.at]
        spans[self.y], spans[self.x] = slice(box.y, box.y + box.height), slice(box.x, box.x + box.width)
        return tuple(spans)

    def rgb(self, block: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """RGB (height, width, 3) of a block that `selection` took; a view of it where colours are side by side."""
        kept = [self.y, self.x, *(i for i, axis in enumerate(self.axes) if axis == "c")]
        kept += [i for i in range(block.ndim) if i not in kept]
        found = block.transpose(kept).reshape(block.shape[self.y], block.shape[self.x], -1)
        colours = next((places for places, axis in zip(self.at, self.axes, strict=True) if axis == "c"), (0,))
        first = min(colours)
        if colours != tuple(range(first, first + len(colours))):
            found = found[..., [place - first for place in colours]]
        return np.broadcast_to(found, (*found.shape[:2], 3))


class ArrayTiles(TileGrid):
    """A level of an OME-Zarr image as a grid of its chunks, or of so many of them that a call is worth it.

    Args:
        folder: the level's array.
        plane: what is read of it.
    """

    def __init__(self, folder: Place, plane: Plane) -> None:
        self._folder, self._array, self._plane = folder, open_array(folder), plane
        self._ahead = Ahead(self._pixels) if isinstance(folder, Url) else None
        self.size = (self._array.shape[plane.x], self._array.shape[plane.y])
        self.tile = tile_of(self._array, plane)
        self._said = folder / (".zarray" if self._array.metadata.zarr_format == 2 else "zarr.json")
        opened = self._status()
        self._opened = None if opened is None else version_of(opened)

    @cached_property
    def byte_counts(self) -> NDArray[np.int64]:  # type: ignore[override]
        """As `TileGrid.byte_counts`: of the chunks of all colours; their files are looked at for it, once."""
        array, plane = self._array, self._plane
        stored, chunk, file = files_of(self._folder, self._array), array.chunks, array.shards or array.chunks
        sizes = stored.sizes
        per_file = [whole // part for whole, part in zip(file, chunk, strict=True)]
        counts = np.zeros([-(-side // part) for side, part in zip(array.shape, chunk, strict=True)], np.int64)
        block = [
            span.indices(side) for span, side in zip(plane.selection(Box(0, 0, *self.size)), array.shape, strict=True)
        ]
        files = [
            range(start // whole, (stop - 1) // whole + 1) for (start, stop, _), whole in zip(block, file, strict=True)
        ]
        if not stored.complete:
            counts[...] = -(-stored.total // (stored.most * math.prod(per_file)))
            files = [range(0)]
        names = {place: array.metadata.encode_chunk_key(place) for place in product(*files)}
        names = {place: name for place, name in names.items() if sizes.get(name)}

        def of_chunks(name: str) -> NDArray[np.int64] | int:
            size = sizes[name]
            return size if array.shards is None else _shard_sizes(self._folder / name, size, array.metadata, per_file)

        for place, found in zip(names, each(self._folder, of_chunks, names.values()), strict=True):
            inside = counts[tuple(slice(i * n, (i + 1) * n) for i, n in zip(place, per_file, strict=True))]
            inside[...] = found if isinstance(found, int) else found[tuple(slice(0, n) for n in inside.shape)]
        used = counts[tuple(slice(a // n, (b - 1) // n + 1) for (a, b, _), n in zip(block, chunk, strict=True))]
        summed: NDArray[np.int64] = used.sum(axis=tuple(i for i in range(used.ndim) if i not in (plane.y, plane.x)))
        summed = summed if plane.y < plane.x else summed.T
        for axis, side, part in ((0, self.tile[1], chunk[plane.y]), (1, self.tile[0], chunk[plane.x])):
            summed = np.add.reduceat(summed, range(0, summed.shape[axis], side // part), axis=axis)
        return summed

    def is_blank(self, row: int, column: int) -> bool:
        """As `TileGrid.is_blank`: never, what is not stored is the fill value and no background."""
        return False

    def coming(self, tiles: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
        """As `TileGrid.coming`."""
        return tiles if self._ahead is None else self._ahead.through(tiles)

    def pixels(self, row: int, column: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """As `TileGrid.pixels`, as zarr decodes them: a chunk may be a whole plane, and is not copied."""
        return self._pixels(row, column) if self._ahead is None else self._ahead.take(row, column)

    def _pixels(self, row: int, column: int) -> NDArray[np.uint8]:
        try:
            with reading(self._folder):
                box = self._plane.selection(self.box(row, column))
                found = np.asarray(patiently(lambda: self._array[box]))
            self._refuse_changed()  # else chunks of a folder that was removed are its fill value
            return self._plane.rgb(found)
        except UnreadableError:
            raise
        except Exception as exc:  # codecs raise their own types; to the caller it is one thing: damage
            raise ValueError(f"cannot be read: {' '.join(str(exc).split()) or repr(exc)}") from exc

    def _status(self) -> os.stat_result | None:
        """Of the metadata's file; None in a store."""
        if isinstance(self._said, Url):
            return None
        with reading(self._said):
            return patiently(self._said.stat)

    def _refuse_changed(self) -> None:
        if self._opened is None:
            return
        try:
            now = self._status()
        except FileNotFoundError as exc:
            raise UnreadableError("it was removed while it was read: restore it", passing=False) from exc
        assert now is not None
        refuse_changed(now, self._opened)

    def stored(self, row: int, column: int) -> bytes:
        """As `TileGrid.stored`, but decoded: chunks are zarr's, and a tile may be several of them."""
        return self.pixels(row, column).tobytes()

    def decode(self, data: bytes, row: int, column: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """As `TileGrid.decode`."""
        box = self.box(row, column)
        return np.frombuffer(data, np.uint8).reshape(box.height, box.width, 3)


def open_array(folder: Place) -> Any:
    """The zarr array at a folder, of either version, to be read.

    Raises:
        SlideError: there is none, or zarr cannot read it.
    """
    version: Literal[2, 3] = 2 if exists(folder / ".zarray") else 3
    if version == 2 and b'"imagecodecs_' in read(folder / ".zarray"):
        from imagecodecs.numcodecs import register_codecs  # all of imagecodecs: for those arrays only

        register_codecs(verbose=False)
    try:
        # of codecs that are in no specification yet; and newer versions of zarr read impossible chunks as others
        with warnings.catch_warnings(record=True, action="always") as told:
            store = ObjectStore(folder) if isinstance(folder, Url) else LocalStore(folder, read_only=True)
            array = zarr.open_array(store, mode="r", zarr_format=version)
            sides = (*array.shape, *array.chunks, *(array.shards or ()))
    except UnreadableError:
        raise
    except FileNotFoundError as exc:
        raise SlideError(
            f"its level {folder.name} is not there: copy the folder again, with all that is in it"
        ) from exc
    except (UnicodeDecodeError, json.JSONDecodeError, ZeroDivisionError) as exc:
        raise SlideError(f"the metadata of its level {folder.name} are damaged ({exc}): copy the folder again") from exc
    except Exception as exc:  # of zarr's own types and of codecs'
        raise SlideError(
            f"its level {folder.name} cannot be opened by zarr ({' '.join(str(exc).split()) or repr(exc)}): "
            "copy it again, or write it with codecs that zarr has (zstd, blosc, gzip)"
        ) from exc
    amended = next((str(one.message) for one in told if "invalid" in str(one.message)), None)
    if amended is not None:
        raise SlideError(f"the metadata of its level {folder.name} are damaged ({amended}): copy the folder again")
    if min(sides, default=0) < 1:
        raise SlideError(
            f"its level {folder.name} claims {' x '.join(map(str, array.shape))} samples in chunks of "
            f"{' x '.join(map(str, array.chunks))}: its metadata are damaged: copy the folder again"
        )
    return array


def tile_of(array: Any, plane: Plane) -> tuple[int, int]:
    """(width, height) of what is read at once: a chunk, or as many small ones as fit `READ_SIDE`."""
    width, height = array.chunks[plane.x], array.chunks[plane.y]
    return width * max(1, READ_SIDE // width), height * max(1, READ_SIDE // height)


@dataclass(frozen=True, slots=True)
class Files:
    """The files, or objects, that hold an array's chunks.

    Attributes:
        sizes: bytes of each, by its name in the array's folder.
        most: how many there are where none is missing.
        complete: whether they are all that are there; else a sample, as their store lists nothing.
    """

    sizes: dict[str, int]
    most: int
    complete: bool

    @property
    def total(self) -> int:
        """Bytes of all; estimated where a sample is known."""
        found = sum(self.sizes.values())
        return found if self.complete or not self.sizes else round(found * self.most / len(self.sizes))


def files_of(folder: Place, array: Any) -> Files:
    """Which files hold the chunks of an array at a folder."""
    grid = [-(-side // part) for side, part in zip(array.shape, array.shards or array.chunks, strict=True)]
    listed, most = file_sizes(folder), math.prod(grid)
    if listed is None:
        places = [np.unravel_index(i * (most - 1) // (SAMPLES - 1), grid) for i in range(SAMPLES)]
        names = list(dict.fromkeys(array.metadata.encode_chunk_key(tuple(map(int, place))) for place in places))
        found = zip(names, each(folder, lambda name: object_store.size(f"{folder}/{name}"), names), strict=True)
        return Files({name: size for name, size in found if size is not None}, most, complete=False)
    own = {path: size for path, size in listed.items() if _holds_chunks(path.rpartition("/")[2])}
    return Files(own, most, complete=True)


def _holds_chunks(name: str) -> bool:
    return not name.startswith(".") and name != "zarr.json"


def _shard_sizes(path: Place, size: int, metadata: Any, chunks: Sequence[int]) -> NDArray[np.int64]:
    """Bytes of each chunk in a shard, from its index; shared out evenly where the index is not stored as usual."""
    (sharding,) = metadata.codecs
    names = [type(codec).__name__ for codec in sharding.index_codecs]
    count = math.prod(chunks)
    if names not in (["BytesCodec", "Crc32cCodec"], ["BytesCodec"]):
        return np.full(chunks, -(-size // count), np.int64)
    length = 16 * count + (4 if len(names) == 2 else 0)
    place = getattr(sharding.index_location, "value", sharding.index_location)  # an enumeration once
    with Opened(path) as file:
        data = file.read_at(16 * count, 0 if place == "start" else max(0, size - length))
    if len(data) < 16 * count:
        raise OSError(f"{path.name} is no whole shard")
    index = np.frombuffer(data, "<u8").reshape(*chunks, 2)
    return np.where(index[..., 1] == 2**64 - 1, 0, index[..., 1]).astype(np.int64)
