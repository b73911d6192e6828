"""How a cached slide lies on disk: the layout, the metadata and the marks of an OME-Zarr 0.5 pyramid of ours.

Formats: https://ngff.openmicroscopy.org/0.5/ and https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.geometry import Box, Mpp, Raster
from stages.slides import SlideError, SlideFacts

SHARD_SIDE = 2048
"""Pixels along a side of a shard, about: 13 MB of RGB."""
CHUNK_SIDES = (128, 1024)
"""The slide's own tiles become the chunks where their sides lie in this range; 256 px otherwise (scanner strips)."""

FORMAT = 1
"""Version of the layout and of the record that we keep in the group's metadata."""
REMEDY = "delete it and run `saccade cache` again"

_NO_CHUNK = 2**64 - 1


@dataclass(frozen=True, slots=True)
class LevelLayout:
    """One level as a sharded array; pairs are (rows, columns).

    Attributes:
        folder: the level's array.
        size, chunk, shard: in pixels of the level; a shard is a whole number of chunks.
    """

    folder: Path
    size: tuple[int, int]
    chunk: tuple[int, int]
    shard: tuple[int, int]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of shards."""
        return -(-self.size[0] // self.shard[0]), -(-self.size[1] // self.shard[1])

    @property
    def chunks_per_shard(self) -> tuple[int, int]:
        """Rows and columns of chunks in a shard."""
        return self.shard[0] // self.chunk[0], self.shard[1] // self.chunk[1]

    def shards(self) -> Iterator[tuple[Path, Box]]:
        """Each shard's file and its part of the level, in the level's pixels; row by row."""
        (height, width), whole = self.shard, Box(0, 0, self.size[1], self.size[0])
        for row in range(self.grid[0]):
            for column in range(self.grid[1]):
                box = Box(column * width, row * height, width, height).intersect(whole)
                yield self.folder / "c" / "0" / str(row) / str(column), box


def level_layouts(folder: Path, facts: SlideFacts) -> list[LevelLayout]:
    """How the levels of a slide lie in a pyramid at ``folder``; the same from the slide's facts and the pyramid's."""

    def chunk(side: int, full: int) -> int:
        low, high = CHUNK_SIDES
        return side if min(low, full) <= side <= high else min(256, full)

    def shard(side: int, full: int) -> int:
        return side * max(1, min(SHARD_SIDE // side, -(-full // side)))

    layouts = []
    for i, (level, tile) in enumerate(zip(facts.levels, facts.tile_sizes, strict=True)):
        chunks = (chunk(tile[1], level.height), chunk(tile[0], level.width))
        shards = (shard(chunks[0], level.height), shard(chunks[1], level.width))
        layouts.append(LevelLayout(folder / str(i), level.shape, chunks, shards))
    return layouts


def chunk_bytes(shard: Path, chunks: tuple[int, int]) -> NDArray[np.int64] | None:
    """Bytes of each chunk (rows, columns) by the index at a shard's end, or None where the shard is not whole."""
    length = 16 * chunks[0] * chunks[1] + 4  # (offset, bytes) as u64 each, then a checksum
    try:
        with shard.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < length:
                return None
            file.seek(size - length)
            index = np.frombuffer(file.read(length - 4), "<u8").reshape(*chunks, 2)
    except FileNotFoundError:
        return None
    sizes = np.where(index[..., 0] == _NO_CHUNK, 0, index[..., 1])
    # a truncated or zeroed file cannot account for its own length
    return sizes.astype(np.int64) if int(sizes.sum()) + length == size > length else None


def pyramid_facts(facts: SlideFacts, folder: Path) -> SlideFacts:
    """The facts of a slide's pyramid: the slide's own, but for what lies on disk."""
    tiles = tuple((layout.chunk[1], layout.chunk[0]) for layout in level_layouts(folder, facts))
    return replace(facts, path=folder, tile_sizes=tiles, associated=())


def write_mark(folder: Path, facts: SlideFacts, shard_bytes: list[list[int]]) -> None:
    """Write the group's metadata: what makes the folder a pyramid, so the last thing in it.

    Args:
        facts: the slide's own.
        shard_bytes: size of each shard's file, level by level, in the order of `LevelLayout.shards`.
    """
    kept = asdict(pyramid_facts(facts, folder))
    for name in ("path", "file_bytes", "associated"):
        del kept[name]
    mark = {
        "format": FORMAT,
        "facts": kept,
        "source": {"name": facts.path.name, "bytes": facts.file_bytes},
        "shard_bytes": shard_bytes,
    }
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome_metadata(facts), "saccade": mark}}
    beside = folder / f".zarr.json.{uuid.uuid4().hex}"
    try:
        with beside.open("w", encoding="utf-8") as file:
            json.dump(group, file, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, folder / "zarr.json")
    finally:
        beside.unlink(missing_ok=True)


def read_mark(folder: Path) -> dict[str, Any] | None:
    """What `write_mark` recorded, or None where it did not."""
    try:
        mark = json.loads((folder / "zarr.json").read_bytes())["attributes"]["saccade"]
        return mark if mark["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def marked_facts(folder: Path, mark: dict[str, Any]) -> SlideFacts:
    """The facts of the pyramid at ``folder``, whose shards are looked at one by one.

    Raises:
        SlideError: the record makes no sense, or a shard is not as it was written.
    """
    try:
        kept, shard_bytes = mark["facts"], mark["shard_bytes"]
        stored = {
            **kept,
            "path": folder,
            "levels": tuple(Raster(**level) for level in kept["levels"]),
            "tile_sizes": tuple((int(width), int(height)) for width, height in kept["tile_sizes"]),
            "mpp": None if kept["mpp"] is None else Mpp(**kept["mpp"]),
            "bounds": Box(**kept["bounds"]),
            "background": tuple(kept["background"]),
            "associated": (),
            "file_bytes": sum(sum(sizes) for sizes in shard_bytes),
        }
        facts = SlideFacts(**stored)
        shards = [list(layout.shards()) for layout in level_layouts(folder, facts)]
        expected = [
            (path, size)
            for level, sizes in zip(shards, shard_bytes, strict=True)
            for (path, _), size in zip(level, sizes, strict=True)
        ]
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as exc:
        raise SlideError(f"this pyramid's metadata is damaged ({exc!r}): {REMEDY}") from exc
    for path, size in expected:
        found = path.stat().st_size if path.is_file() else 0
        if found != size:
            raise SlideError(
                f"this pyramid is damaged: {path.relative_to(folder)} has {found} bytes, expected {size}; {REMEDY}"
            )
    return facts


def ome_metadata(facts: SlideFacts) -> dict[str, Any]:
    """OME-NGFF 0.5 multiscales metadata: in µm where the file says its resolution, else in level-0 pixels."""
    unit = {"unit": "micrometer"} if facts.mpp else {}
    mpp = facts.mpp or Mpp(1, 1)

    def transformations(level: Raster) -> list[dict[str, Any]]:
        # NGFF counts from the centre of the first pixel, and a coarse pixel's centre is not a fine one's
        y, x = level.y + (level.scale_y - 1) / 2, level.x + (level.scale_x - 1) / 2
        return [
            {"type": "scale", "scale": [1.0, level.scale_y * mpp.y, level.scale_x * mpp.x]},
            {"type": "translation", "translation": [0.0, y * mpp.y, x * mpp.x]},
        ]

    axes = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space", **unit} for name in "yx")]
    datasets = [
        {"path": str(i), "coordinateTransformations": transformations(level)} for i, level in enumerate(facts.levels)
    ]
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    channels = [
        {"label": label, "color": colour, "active": True, "window": window}
        for label, colour in (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))
    ]
    return {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}], "omero": {"channels": channels}}
