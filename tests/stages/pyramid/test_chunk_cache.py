"""The read-through cache: the slide's own pixels whatever became of the folder, and a folder that keeps its bounds."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import tissue_pixels, write_slide
from numpy.typing import NDArray

from stages.geometry import Box, Mpp, physical_raster
from stages.patches import PatchReader
from stages.pyramid.chunk_cache import CachedSlide, ChunkCache, chunk_cache
from stages.slide.facts import SlideError
from stages.slide.files import OpenSlideSlide, open_slide
from stages.slide.protocol import Slide
from stages.slide.render import count_reads, render

GB = 10**9


@pytest.fixture(scope="module")
def slow_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide that only OpenSlide decodes: PackBits is none of the codecs that are read directly."""
    path = tmp_path_factory.mktemp("slow") / "slow.tif"
    return write_slide(path, tissue_pixels(1301, 1003), compression="packbits", levels=2)


@pytest.fixture
def slow(slow_path: Path) -> OpenSlideSlide:
    slide = open_slide(slow_path)
    assert not any(slide.direct(level) for level in range(2))
    return slide


@pytest.fixture
def cache(tmp_path: Path) -> ChunkCache:
    return ChunkCache(tmp_path / "cache", GB)


def whole(slide: Slide, level: int = 0) -> NDArray[np.uint8]:
    raster = slide.facts.levels[level]
    return slide.read_level(level, Box(0, 0, raster.width, raster.height))


def chunks_in(cache: ChunkCache) -> list[Path]:
    return sorted(path for path in cache.folder.rglob("*") if path.is_file())


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Unreadable(OpenSlideSlide):
    """A slide whose pixels are gone: what is read of it comes from the cache."""

    def read_boxes(self, *args: Any, **kwargs: Any) -> Any:
        raise SlideError("the slide was read")


def test_what_was_read_once_comes_from_the_cache(slow: OpenSlideSlide, cache: ChunkCache) -> None:
    for level in range(2):
        np.testing.assert_array_equal(whole(CachedSlide(slow, cache), level), whole(slow, level))
    kept = CachedSlide(Unreadable(slow.facts), cache)
    for level in range(2):
        np.testing.assert_array_equal(whole(kept, level), whole(slow, level))
    shutil.rmtree(cache.folder)
    with pytest.raises(SlideError, match="the slide was read"):
        whole(kept)


@settings(max_examples=40)
@given(data=st.data())
def test_any_boxes_are_the_slides_own(slow_path: Path, tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """Overlapping or not, at any edge, into new or given memory; the second time from the cache."""
    slide = open_slide(slow_path)
    level = data.draw(st.integers(0, 1))
    raster = slide.facts.levels[level]

    def box() -> Box:
        x, y = data.draw(st.integers(0, raster.width - 1)), data.draw(st.integers(0, raster.height - 1))
        width = data.draw(st.integers(1, min(400, raster.width - x)))
        return Box(x, y, width, data.draw(st.integers(1, min(400, raster.height - y))))

    boxes = [box() for _ in range(data.draw(st.integers(1, 4)))]
    expected = slide.read_boxes(level, boxes)
    cached = CachedSlide(slide, ChunkCache(tmp_path_factory.mktemp("any"), GB))
    for _ in range(2):
        into = [np.zeros((b.height, b.width, 3), np.uint8) for b in boxes]
        for found in (cached.read_boxes(level, boxes), cached.read_boxes(level, boxes, out=into), into):
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["test3-DAPI-2-(387).ndpi", "multi_frame_jpeg_camelyon_challenge_image.dcm"])
def test_real_slides(shared_data: Path, cache: ChunkCache, name: str) -> None:
    slide = open_slide(shared_data / "slides" / name)
    cached = CachedSlide(slide, cache)
    coarse = len(slide.facts.levels) - 1
    raster = slide.facts.levels[0]
    boxes = [Box(x, y, min(300, raster.width - x), min(300, raster.height - y)) for x, y in [(0, 0), (200, 130)]]
    for _ in range(2):
        np.testing.assert_array_equal(whole(cached, coarse), whole(slide, coarse))
        for ours, theirs in zip(cached.read_boxes(0, boxes), slide.read_boxes(0, boxes), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert bool(chunks_in(cache)) == (not slide.direct(0))


def test_thumbnails_patches_and_counts_are_the_slides_own(slow: OpenSlideSlide, cache: ChunkCache) -> None:
    cached = CachedSlide(slow, cache)
    raster = physical_raster(slow.facts.bounds, Mpp(0.5, 0.5), 3.0)
    np.testing.assert_array_equal(render(cached, raster), render(slow, raster))
    assert count_reads(cached, [raster]) == count_reads(slow, [raster])
    cells = np.arange(6)
    for scheduler in ("threads", "synchronous"):
        ours = PatchReader(cached, raster.pooled(30, 15, 7, 5), 48, 0.7).patches(cells).compute(scheduler=scheduler)
        theirs = PatchReader(slow, raster.pooled(30, 15, 7, 5), 48, 0.7).patches(cells).compute(scheduler=scheduler)
        np.testing.assert_array_equal(ours, theirs)


def test_levels_that_are_read_directly_are_left_alone(slides_folder: Path, cache: ChunkCache) -> None:
    slide = open_slide(slides_folder / "even.tif")
    assert slide.direct(0)
    cached = CachedSlide(slide, cache)
    assert cached.direct(0)
    assert cached.tiles(0) is slide.tiles(0)
    np.testing.assert_array_equal(whole(cached), whole(slide))
    assert not cache.folder.exists()


def test_it_goes_by_content_not_by_name(cache: ChunkCache, tmp_path: Path) -> None:
    """A slide that was replaced is read anew; one that was moved is not."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(600, 400), compression="packbits", levels=1)
    whole(CachedSlide(open_slide(path), cache))
    moved = open_slide(path.rename(tmp_path / "b.tif"))
    np.testing.assert_array_equal(whole(CachedSlide(Unreadable(moved.facts), cache)), whole(moved))
    other = open_slide(write_slide(path, tissue_pixels(600, 400)[::-1], compression="packbits", levels=1))
    np.testing.assert_array_equal(whole(CachedSlide(other, cache)), whole(other))


def cut(path: Path, others: list[Path]) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip(path: Path, others: list[Path]) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def empty(path: Path, others: list[Path]) -> None:
    path.write_bytes(b"")


def swap(path: Path, others: list[Path]) -> None:
    path.write_bytes(next(other for other in others if other.name != path.name).read_bytes())


def folder(path: Path, others: list[Path]) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [cut, flip, empty, swap, folder])
def test_a_damaged_chunk_is_read_anew(
    slow: OpenSlideSlide, cache: ChunkCache, damage: Callable[[Path, list[Path]], None]
) -> None:
    """Torn by a power cut, spoilt by the disk, or another chunk's bytes in its place: never shown."""
    cached = CachedSlide(slow, cache)
    expected = whole(cached)
    for path in chunks_in(cache):
        damage(path, chunks_in(cache))
    np.testing.assert_array_equal(whole(cached), expected)
    if damage is not folder:  # and mended
        np.testing.assert_array_equal(whole(CachedSlide(Unreadable(slow.facts), cache)), expected)


def test_it_stays_within_its_limit(slow: OpenSlideSlide, tmp_path: Path) -> None:
    """At every moment, as long as one process writes."""
    full = ChunkCache(tmp_path / "full", GB)
    expected = whole(CachedSlide(slow, full))
    limit = size_of(full.folder) // 3
    cached = CachedSlide(slow, ChunkCache(tmp_path / "bounded", limit))
    sizes = []
    for y in range(0, 1003 - 256, 64):
        for x in range(0, 1301 - 256, 64):
            found = cached.read_level(0, Box(x, y, 256, 256))
            np.testing.assert_array_equal(found, expected[y : y + 256, x : x + 256])
            sizes.append(size_of(tmp_path / "bounded"))
    assert limit / 2 < max(sizes) <= limit


def read_forever(cached: Slide, seed: int) -> None:
    """Read boxes at random until killed; a wrong pixel ends the process with an error."""
    rng, expected = np.random.default_rng(seed), whole(open_slide(cached.facts.path))
    while True:
        x, y = int(rng.integers(0, 1301 - 300)), int(rng.integers(0, 1003 - 300))
        found = cached.read_level(0, Box(x, y, 300, 300))
        np.testing.assert_array_equal(found, expected[y : y + 300, x : x + 300])


def test_processes_share_a_folder_and_may_be_killed_at_any_time(slow: OpenSlideSlide, tmp_path: Path) -> None:
    """Two at a time under a tight limit, so that they evict each other's chunks; none ever shows a wrong pixel."""
    full = ChunkCache(tmp_path / "full", GB)
    expected = whole(CachedSlide(slow, full))
    shared, limit = tmp_path / "shared", size_of(full.folder) // 2
    cached = CachedSlide(slow, ChunkCache(shared, limit))
    context = multiprocessing.get_context("spawn")
    readers = [context.Process(target=read_forever, args=(cached, seed)) for seed in range(2)]
    for reader in readers:
        reader.start()
    deadline = time.monotonic() + 60
    while not shared.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    for reader in readers:
        time.sleep(1.3)
        assert reader.is_alive(), "it saw a wrong pixel, or an error"
        assert reader.pid is not None
        os.kill(reader.pid, signal.SIGKILL)
        reader.join()
    half_written = sum(path.stat().st_size for path in shared.rglob(".*"))
    assert 0 < size_of(shared) - half_written <= limit * (1 + 1 / 32)
    np.testing.assert_array_equal(whole(CachedSlide(slow, ChunkCache(shared, limit))), expected)


def test_a_folder_that_cannot_be_made_fails_no_read(
    slow: OpenSlideSlide, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning, not one for each chunk."""
    (tmp_path / "file").write_bytes(b"")
    cached = CachedSlide(slow, ChunkCache(tmp_path / "file" / "cache", GB))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            np.testing.assert_array_equal(whole(cached), whole(slow))
    (record,) = caplog.records
    assert str(tmp_path / "file") in record.getMessage()
    assert "work goes on without" in record.getMessage()


def test_a_full_disk_fails_no_read(slow: OpenSlideSlide, cache: ChunkCache, caplog: pytest.LogCaptureFixture) -> None:
    """What was kept before is still used, nothing half-written stays."""
    cached, expected = CachedSlide(slow, cache), whole(slow)
    cached.read_level(0, Box(0, 0, 256, 256))
    before = chunks_in(cache)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # the largest file that this process may write
    try:
        np.testing.assert_array_equal(whole(cached), expected)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert chunks_in(cache) == before
    assert len(caplog.records) == 1
    np.testing.assert_array_equal(
        CachedSlide(Unreadable(slow.facts), cache).read_level(0, Box(9, 9, 99, 99)), expected[9:108, 9:108]
    )


def test_what_cannot_be_read_is_the_slides_error_and_is_not_kept(cache: ChunkCache, tmp_path: Path) -> None:
    """A patch beside damage is served, though the chunk that it lies in is damaged."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(512, 512), compression="packbits", levels=2, tile=64)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        offsets = tiff.pages[0].tags["TileOffsets"]
        offsets.overwrite([10**9, *offsets.value[1:]])  # beyond the end of the file
    slide = open_slide(path)
    cached = CachedSlide(slide, cache)
    for reader in (slide, cached):
        with pytest.raises(SlideError, match="damaged"):
            reader.read_level(0, Box(0, 0, 300, 300))
    assert not [chunk for chunk in chunks_in(cache) if chunk.name.startswith("0_0_")]
    box = Box(70, 70, 300, 300)
    for _ in range(2):
        np.testing.assert_array_equal(cached.read_level(0, box), slide.read_level(0, box))


def test_it_pickles_by_path_and_each_process_keeps_one_cache(slow: OpenSlideSlide, tmp_path: Path) -> None:
    cache = chunk_cache(tmp_path / "cache", GB)
    assert chunk_cache(tmp_path / "cache", GB) is cache
    cached = CachedSlide(slow, cache)
    whole(cached)
    travelled = pickle.loads(pickle.dumps(cached))
    assert travelled._cache is cache
    assert len(pickle.dumps(cached)) < 4096
    np.testing.assert_array_equal(whole(travelled), whole(slow))
