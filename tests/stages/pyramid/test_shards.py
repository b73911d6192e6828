"""Shards are what zarr reads, whoever wrote them, and reading them takes few open files."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from makers import tissue_pixels

import stages.pyramid.shards
from stages.geometry import Box
from stages.pyramid.chunks import zstd_chunk
from stages.pyramid.layout import LevelLayout, array_metadata
from stages.pyramid.record import write_json
from stages.pyramid.shards import ShardTiles, shard_damage, write_shard

BACKGROUND = (250, 250, 250)


def write_level(folder: Path, height: int, width: int, *, missing: float = 0.0) -> tuple[LevelLayout, np.ndarray]:
    """A level of chunks of 32 x 48 in shards of 2 x 3, some of them missing; and its pixels."""
    layout = LevelLayout(folder / "0", (height, width), (32, 48), (64, 144))
    pixels = tissue_pixels(width, height)
    rng = np.random.default_rng(height * width)
    for row in range(layout.grid[0]):
        for column in range(layout.grid[1]):
            chunks: list[bytes | None] = []
            for place in layout.chunks_in(row, column):
                if place is None:
                    chunks.append(None)
                    continue
                box = layout.chunk_box(*place)
                part = pixels[box.y : box.y + box.height, box.x : box.x + box.width]
                if rng.random() < missing:
                    part[:] = BACKGROUND
                    chunks.append(None)
                else:
                    whole = np.zeros((32, 48, 3), np.uint8)
                    whole[: box.height, : box.width] = part
                    chunks.append(zstd_chunk(whole))
            path = layout.shard_path(row, column)
            path.parent.mkdir(parents=True, exist_ok=True)
            assert write_shard(path, chunks) == path.stat().st_size
    write_json(layout.folder / "zarr.json", array_metadata(layout, BACKGROUND))
    return layout, pixels


@given(st.integers(1, 150), st.integers(1, 300), st.sampled_from([0.0, 0.5, 1.0]))
def test_zarr_reads_what_is_written_and_so_do_we(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, missing: float
) -> None:
    """Any size, any chunks missing, even all of a shard."""
    layout, pixels = write_level(tmp_path_factory.mktemp("level"), height, width, missing=missing)
    tiles = ShardTiles(layout)
    np.testing.assert_array_equal(tiles.read(Box(0, 0, width, height), blank=BACKGROUND), pixels)
    array = zarr.open_array(layout.folder, mode="r")
    np.testing.assert_array_equal(np.moveaxis(array[:], 0, -1), pixels)
    counts = tiles.byte_counts
    assert counts.shape == (-(-height // 32), -(-width // 48))
    blank = [[tiles.is_blank(r, c) for c in range(counts.shape[1])] for r in range(counts.shape[0])]
    np.testing.assert_array_equal(counts == 0, blank)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list a process's open files")
def test_few_shards_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are read from, on several threads; what a thread reads from is not closed under it."""
    monkeypatch.setattr(stages.pyramid.shards, "OPEN_SHARDS", 2)
    layout, pixels = write_level(tmp_path, 640, 700)
    tiles, before = ShardTiles(layout), len(os.listdir("/proc/self/fd"))
    boxes = [Box(x, y, 50, 40) for y in range(0, 600, 37) for x in range(0, 650, 41)]
    np.random.default_rng(0).shuffle(boxes)  # type: ignore[arg-type]
    with ThreadPoolExecutor(4) as pool:
        for box, found in zip(boxes, pool.map(tiles.read, boxes), strict=True):
            np.testing.assert_array_equal(found, pixels[box.y : box.y + 40, box.x : box.x + 50])
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    del tiles
    assert len(os.listdir("/proc/self/fd")) <= before


def test_damage_is_told_chunk_by_chunk(tmp_path: Path) -> None:
    """One spoilt chunk of a shard is one line; a spoilt index is all of them."""
    layout, _ = write_level(tmp_path, 64, 144)
    path = layout.shard_path(0, 0)
    data = bytearray(path.read_bytes())
    assert shard_damage(ShardTiles(layout), layout, 0, 0, decode=True) == []
    data[10] ^= 1
    path.write_bytes(data)
    (line,) = shard_damage(ShardTiles(layout), layout, 0, 0, decode=True)
    assert line == "level 0, tile (0, 0) does not have the checksum that was written"
    data[-30] ^= 1
    path.write_bytes(data)
    lines = shard_damage(ShardTiles(layout), layout, 0, 0, decode=True)
    assert len(lines) == 6
    assert all("is in a damaged shard: 0/c/0/0/0" in line for line in lines)


def test_a_shard_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """A folder that was taken away is not made again, and nothing half-written stays."""
    with pytest.raises(FileNotFoundError):
        write_shard(tmp_path / "gone" / "0", [b"chunk"])
    assert list(tmp_path.iterdir()) == []
