"""How a cached slide lies on disk: the layout and the metadata of an OME-Zarr 0.5 pyramid of ours.

Formats: https://ngff.openmicroscopy.org/0.5/ and https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stages.geometry import Box, Mpp, Raster
from stages.place import Place
from stages.pyramid.jpeg_metadata import jpeg_metadata
from stages.slide.facts import SlideFacts
from stages.slide.jpeg import JpegTiles

SHARD_SIDE = 2048
"""Pixels along a side of a shard, about: 13 MB of RGB before compression."""
JPEG_SHARD_SIDE = 4096
"""The same of a shard that holds a slide's own JPEG tiles, some 2 MB."""
CHUNK_SIDES = (128, 1024)
"""The slide's own tiles become the chunks where their sides lie in this range; 256 px otherwise (scanner strips)."""
CHUNK_STEP = 16
"""... and where they are a multiple of this, as in every TIFF: averages of whole chunks are then whole, too."""
ZSTD_LEVEL = -1
"""On stained tissue, RGB side by side, level 1 takes half as long again, 3 three times as long; both save 4 %."""


@dataclass(frozen=True, slots=True)
class LevelLayout:
    """One level as a sharded array; pairs are (rows, columns).

    Attributes:
        folder: the level's array.
        size, chunk, shard: in pixels of the level; a shard is a whole number of chunks.
        jpeg: how the chunks are to be read where they are a slide's own JPEG tiles; they are zstd otherwise.
    """

    folder: Place
    size: tuple[int, int]
    chunk: tuple[int, int]
    shard: tuple[int, int]
    jpeg: JpegTiles | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of shards."""
        return -(-self.size[0] // self.shard[0]), -(-self.size[1] // self.shard[1])

    @property
    def chunks_per_shard(self) -> tuple[int, int]:
        """Rows and columns of chunks in a shard."""
        return self.shard[0] // self.chunk[0], self.shard[1] // self.chunk[1]

    def shard_path(self, row: int, column: int) -> Place:
        """A shard's file."""
        return self.folder / "c" / "0" / str(row) / str(column)

    def shard_box(self, row: int, column: int) -> Box:
        """A shard's part of the level, in the level's pixels."""
        height, width = self.shard
        return Box(column * width, row * height, width, height).intersect(Box(0, 0, self.size[1], self.size[0]))

    def chunks_in(self, row: int, column: int) -> list[tuple[int, int] | None]:
        """(row, column) in the level of each chunk of a shard, in the shard's order; None beyond the level's edge."""
        rows, columns = self.chunks_per_shard
        ends = [-(-size // chunk) for size, chunk in zip(self.size, self.chunk, strict=True)]
        return [
            (r, c) if r < ends[0] and c < ends[1] else None
            for r in range(row * rows, (row + 1) * rows)
            for c in range(column * columns, (column + 1) * columns)
        ]

    def chunk_box(self, row: int, column: int) -> Box:
        """A chunk's part of the level, in the level's pixels."""
        height, width = self.chunk
        return Box(column * width, row * height, width, height).intersect(Box(0, 0, self.size[1], self.size[0]))

    def shards(self) -> Iterator[tuple[Place, Box]]:
        """Each shard's file and its part of the level, in the level's pixels; row by row."""
        for row in range(self.grid[0]):
            for column in range(self.grid[1]):
                yield self.shard_path(row, column), self.shard_box(row, column)


def level_layouts(folder: Place, facts: SlideFacts) -> list[LevelLayout]:
    """How the levels of a slide lie in a pyramid at ``folder`` that holds them as zstd."""

    def chunk(side: int, full: int) -> int:
        low, high = CHUNK_SIDES
        return side if min(low, full) <= side <= high and (side % CHUNK_STEP == 0 or side == full) else min(256, full)

    layouts = []
    for i, (level, tile) in enumerate(zip(facts.levels, facts.tile_sizes, strict=True)):
        chunks = (chunk(tile[1], level.height), chunk(tile[0], level.width))
        layouts.append(LevelLayout(folder / str(i), level.shape, chunks, _shard(chunks, level.shape, SHARD_SIDE)))
    return layouts


def jpeg_layout(folder: Place, size: tuple[int, int], tile: tuple[int, int], jpeg: JpegTiles) -> LevelLayout:
    """How a level lies in a pyramid that holds its own JPEG tiles.

    Args:
        folder: the level's array.
        size, tile: (width, height) in pixels.
        jpeg: how the tiles are to be read.
    """
    shape, chunk = (size[1], size[0]), (tile[1], tile[0])
    return LevelLayout(folder, shape, chunk, _shard(chunk, shape, JPEG_SHARD_SIDE), jpeg)


def _shard(chunk: tuple[int, int], size: tuple[int, int], longest: int) -> tuple[int, int]:
    rows, columns = (
        side * max(1, min(longest // side, -(-full // side))) for side, full in zip(chunk, size, strict=True)
    )
    return rows, columns


def array_metadata(layout: LevelLayout, background: tuple[int, int, int]) -> dict[str, Any]:
    """The zarr v3 metadata of a level's array (c, y, x); its chunks hold the colours of a pixel side by side.

    Args:
        layout: the level's.
        background: RGB of what is not there, see `fill_value`.
    """
    codecs: list[dict[str, Any]] = [{"name": "transpose", "configuration": {"order": [1, 2, 0]}}]
    if layout.jpeg is None:
        codecs += [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}]
    else:
        codecs.append(jpeg_metadata(layout.jpeg))
    codecs.append({"name": "crc32c"})
    index: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    sharding = {
        "chunk_shape": [3, *layout.chunk],
        "codecs": codecs,
        "index_codecs": index,
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [3, *layout.size],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3, *layout.shard]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill_value(background),
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {},
        "dimension_names": ["c", "y", "x"],
        "storage_transformers": [],
    }


def fill_value(background: tuple[int, int, int]) -> int:
    """What an array says of chunks that are not there: it has one value for all colours, so white if not grey."""
    return background[0] if len(set(background)) == 1 else 255


def multiscale(name: str, rasters: Sequence[Raster], mpp: Mpp | None, *, channels: bool) -> dict[str, Any]:
    """An image of OME-NGFF 0.5 whose arrays "0", "1" ... lie on the slide: the frame is that of level 0.

    Its origin is the centre of level 0's first pixel, so that what is made of one slide lies on each other.

    Args:
        name: of the image.
        rasters: of its arrays, in level-0 pixels.
        mpp: of level 0; where it is None the frame is in level-0 pixels.
        channels: whether the arrays are (c, y, x), else (y, x).
    """
    unit = {"unit": "micrometer"} if mpp else {}
    side = mpp or Mpp(1, 1)

    def transformations(level: Raster) -> list[dict[str, Any]]:
        # NGFF counts from the centre of the first pixel, and a coarse pixel's centre is not a fine one's
        y, x = level.y + (level.scale_y - 1) / 2, level.x + (level.scale_x - 1) / 2
        scale, move = [level.scale_y * side.y, level.scale_x * side.x], [y * side.y, x * side.x]
        return [
            {"type": "scale", "scale": [1.0, *scale] if channels else scale},
            {"type": "translation", "translation": [0.0, *move] if channels else move},
        ]

    return {
        "name": name,
        "axes": [
            *([{"name": "c", "type": "channel"}] if channels else []),
            *({"name": name, "type": "space", **unit} for name in "yx"),
        ],
        "datasets": [
            {"path": str(i), "coordinateTransformations": transformations(raster)} for i, raster in enumerate(rasters)
        ],
    }


def ome_metadata(facts: SlideFacts, name: str) -> dict[str, Any]:
    """OME-NGFF 0.5 metadata of a slide: in µm where the file says its resolution, else in level-0 pixels.

    Args:
        facts: the slide's or its pyramid's.
        name: what programs call the image.
    """
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    channels = [
        {"label": label, "color": colour, "active": True, "window": window}
        for label, colour in (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))
    ]
    image = multiscale(name, facts.levels, facts.mpp, channels=True)
    return {"version": "0.5", "multiscales": [image], "omero": {"channels": channels}}
