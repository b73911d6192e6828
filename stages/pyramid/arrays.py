"""The arrays of an OME-Zarr image that others wrote, as grids of tiles: pixels by zarr-python, which knows the codecs.

A chunk that is not there is its array's fill value, as zarr has it.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore  # zarr takes text for an address and cuts it at "#" and "?"

import stages.pyramid.codec  # noqa: F401  (the JPEG codecs, wherever this runs uninstalled)
from stages.slide.facts import SlideError
from stages.slide.tiles import TileGrid

READ_SIDE = 256
"""Pixels along a side of what is read at once where chunks are smaller: zarr takes a millisecond a call."""


class ArrayTiles(TileGrid):
    """A level of an OME-Zarr image as a grid of its chunks, or of so many of them that a call is worth it.

    Args:
        folder: the level's array.
        axes: what its dimensions are, see `Multiscales.axes`.
    """

    def __init__(self, folder: Path, axes: Sequence[str]) -> None:
        self._folder, self._array, self._axes = folder, open_array(folder), tuple(axes)
        self._y, self._x = self._axes.index("y"), self._axes.index("x")
        shape, chunks = self._array.shape, self._array.chunks
        self.size = (shape[self._x], shape[self._y])
        self.tile = tile_of(self._array, self._axes)
        self._chunk = (chunks[self._x], chunks[self._y])

    @cached_property
    def byte_counts(self) -> NDArray[np.int64]:  # type: ignore[override]
        """As `TileGrid.byte_counts`: of the chunks of all colours; all files are looked at for it, once."""
        array, y, x = self._array, self._y, self._x
        chunks = np.zeros([-(-side // chunk) for side, chunk in zip(array.shape, array.chunks, strict=True)], np.int64)
        sizes = files_of(self._folder)
        files = array.shards or array.chunks
        per_file = [file // chunk for file, chunk in zip(files, array.chunks, strict=True)]
        grid = [-(-side // file) for side, file in zip(array.shape, files, strict=True)]
        for place in np.ndindex(*grid):
            name = array.metadata.encode_chunk_key(place)
            size = sizes.get(name, 0)
            if size:
                at = tuple(slice(i * n, (i + 1) * n) for i, n in zip(place, per_file, strict=True))
                inside = chunks[at]
                if array.shards is None:
                    inside[...] = size
                else:
                    index = _shard_sizes(self._folder / name, array.metadata, per_file)
                    inside[...] = index[tuple(slice(0, n) for n in inside.shape)]
        others = tuple(i for i in range(chunks.ndim) if i not in (y, x))
        plane = chunks.sum(axis=others) if y < x else chunks.sum(axis=others).T
        rows, columns = self.tile[1] // self._chunk[1], self.tile[0] // self._chunk[0]
        plane = np.add.reduceat(plane, range(0, plane.shape[0], rows), axis=0)
        counts: NDArray[np.int64] = np.add.reduceat(plane, range(0, plane.shape[1], columns), axis=1)
        return counts

    def is_blank(self, row: int, column: int) -> bool:
        """As `TileGrid.is_blank`: never, what is not stored is the fill value and no background."""
        return False

    def stored(self, row: int, column: int) -> bytes:
        """As `TileGrid.stored`, already decoded by zarr: RGB of the tile's part of the level."""
        box = self.box(row, column)
        part: list[Any] = [slice(0, 3) if axis == "c" else 0 for axis in self._axes]
        part[self._y], part[self._x] = slice(box.y, box.y + box.height), slice(box.x, box.x + box.width)
        try:
            found = np.asarray(self._array[tuple(part)])
        except Exception as exc:  # codecs raise their own types; to the caller it is one thing: damage
            raise ValueError(f"cannot be read: {' '.join(str(exc).split()) or repr(exc)}") from exc
        kept = [axis for axis in self._axes if axis in ("c", "y", "x")]
        if "c" not in kept:
            found, kept = found[None], ["c", *kept]
        found = found.transpose(kept.index("y"), kept.index("x"), kept.index("c"))
        return bytes(np.broadcast_to(found, (box.height, box.width, 3)).tobytes())

    def decode(self, data: bytes, row: int, column: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """As `TileGrid.decode`."""
        box = self.box(row, column)
        return np.frombuffer(data, np.uint8).reshape(box.height, box.width, 3)


def open_array(folder: Path) -> Any:
    """The zarr array at a folder, of either version, to be read.

    Raises:
        SlideError: there is none, or zarr cannot read it.
    """
    version: Literal[2, 3] = 2 if (folder / ".zarray").exists() else 3
    if version == 2 and '"imagecodecs_' in (folder / ".zarray").read_text(errors="replace"):
        from imagecodecs.numcodecs import register_codecs  # all of imagecodecs: for those arrays only

        register_codecs(verbose=False)
    try:
        with warnings.catch_warnings(action="ignore"):  # of codecs that are in no specification yet
            return zarr.open_array(LocalStore(folder, read_only=True), mode="r", zarr_format=version)
    except FileNotFoundError as exc:
        raise SlideError(
            f"its level {folder.name} is not there: copy the folder again, with all that is in it"
        ) from exc
    except Exception as exc:  # of zarr's own types and of codecs'
        raise SlideError(
            f"its level {folder.name} cannot be opened by zarr ({' '.join(str(exc).split()) or repr(exc)}): "
            "write it again with chunks that zarr reads by itself (zstd, blosc, gzip)"
        ) from exc


def tile_of(array: Any, axes: Sequence[str]) -> tuple[int, int]:
    """(width, height) of what is read at once: a chunk, or as many small ones as fit `READ_SIDE`."""
    width, height = (array.chunks[axes.index(axis)] for axis in "xy")
    return width * max(1, READ_SIDE // width), height * max(1, READ_SIDE // height)


def files_of(folder: Path) -> dict[str, int]:
    """Bytes of each file that holds chunks of an array, by its name in the array's folder."""
    sizes: dict[str, int] = {}
    for here, _, names in os.walk(folder):
        inside = Path(here).relative_to(folder).as_posix()
        for name in names:
            if not name.startswith(".") and name != "zarr.json":
                sizes[name if inside == "." else f"{inside}/{name}"] = os.stat(os.path.join(here, name)).st_size
    return sizes


def _shard_sizes(path: Path, metadata: Any, chunks: Sequence[int]) -> NDArray[np.int64]:
    """Bytes of each chunk in a shard, from its index; shared out evenly where the index is not stored as usual."""
    (sharding,) = metadata.codecs
    names = [type(codec).__name__ for codec in sharding.index_codecs]
    count = math.prod(chunks)
    size = path.stat().st_size
    if names not in (["BytesCodec", "Crc32cCodec"], ["BytesCodec"]):
        return np.full(chunks, -(-size // count), np.int64)
    length = 16 * count + (4 if len(names) == 2 else 0)
    with path.open("rb") as file:
        file.seek(0 if sharding.index_location.value == "start" else max(0, size - length))
        data = file.read(16 * count)
    if len(data) < 16 * count:
        raise OSError(f"{path.name} is no whole shard")
    index = np.frombuffer(data, "<u8").reshape(*chunks, 2)
    return np.where(index[..., 1] == 2**64 - 1, 0, index[..., 1]).astype(np.int64)
