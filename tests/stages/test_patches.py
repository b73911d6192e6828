"""Sampled cells -> lazily read patches."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import pytest
import tifffile
from makers import tissue_pixels, write_slide

from stages.geometry import Box, Raster, physical_raster
from stages.patches import BLOCK, PatchReader
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError
from stages.slide.files import open_slide
from stages.slide.render import ReadCount, render
from stages.slide.tiff import TiffTiles


def reader(path: Path, *, patch_px: int = 64, patch_mpp: float = 0.5) -> PatchReader:
    """Cells that tile the slide, as uniform attention would have them."""
    slide = open_slide(path)
    cells = physical_raster(slide.facts.bounds, slide.facts.require_mpp(), patch_px * patch_mpp)
    return PatchReader(slide, cells, patch_px, patch_mpp)


def test_patches_are_the_slide_at_the_cells(slides_folder: Path) -> None:
    read = reader(slides_folder / "odd.tif")
    cells = np.array([0, 5, 17, 17, read.cells.width * read.cells.height - 1])
    lazy = read.patches(cells)
    assert lazy.shape == (5, 64, 64, 3)
    got = lazy.compute(scheduler="synchronous")
    for patch, raster in zip(got, read.rasters(cells), strict=True):
        assert (patch == render(read.slide, raster)).all()
    assert (got[2] == got[3]).all()
    corner = read.cells.to_level0((0, 0))
    assert np.allclose(read.boxes_level0([0])[0], [*corner, 64, 64])


def test_the_graph_depends_on_the_number_of_patches_only(tmp_path: Path) -> None:
    for side in (512, 4096):
        read = reader(write_slide(tmp_path / f"{side}.tif", tissue_pixels(side, side), levels=1))
        blocks = -(-100 // BLOCK)
        for cells in (np.zeros(100, np.int64), np.arange(100) * 7 % 60):
            lazy = read.patches(cells)
            assert lazy.npartitions == 1  # so that nothing is put together after it was read
            assert len(lazy.__dask_graph__()) == blocks + 2


def test_every_scheduler_reads_the_same(slides_folder: Path) -> None:
    """Threads, processes and distributed workers: the reader ships by path."""
    from distributed import Client, LocalCluster

    read = reader(slides_folder / "even.tif")
    assert len(pickle.dumps(read)) < 4096
    lazy = read.patches(np.arange(0, 96, 2))
    expected = lazy.compute(scheduler="synchronous")
    assert (lazy.compute(scheduler="threads") == expected).all()
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # None would take port 8787
            silence_logs="ERROR",
        ) as cluster,
        Client(cluster) as client,
    ):
        assert (client.compute(lazy).result() == expected).all()


def test_what_is_computed_twice_is_read_into_memory_of_its_own(slides_folder: Path) -> None:
    """Also at once: whoever changes what came of one computation changes nothing of another."""
    read = reader(slides_folder / "even.tif")
    lazy = read.patches(np.arange(0, 96, 2))
    first, second = lazy.compute(scheduler="threads"), lazy.compute(scheduler="threads")
    expected = second.copy()
    first[:] = 0
    assert (second == expected).all()
    assert (dask.compute(lazy, lazy[3:40], scheduler="threads")[1] == expected[3:40]).all()


def test_physical_size_is_true_whatever_the_slides_resolution(tmp_path: Path) -> None:
    """The same tissue scanned at 0.25 and at 0.4 µm/px gives patches of the same micrometres."""
    image = tissue_pixels(1600, 1600, margin=0.0)
    for mpp in (0.25, 0.4):
        read = reader(write_slide(tmp_path / f"{mpp}.tif", image, mpp=mpp, levels=1, compression="deflate"))
        boxes = read.boxes_level0([7])
        assert np.allclose(boxes[0, 2:], 64 * 0.5 / mpp)


def test_a_damaged_tile_names_the_slide(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "cut.tif", tissue_pixels(1024, 1024), levels=1)
    read = reader(path)
    read.slide.read_level(0, read.slide.facts.bounds)  # opened and verified while whole
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 3)
    with pytest.raises(SlideError, match=r"cut\.tif"), dask.config.set(scheduler="synchronous"):
        read.patches(np.arange(read.cells.width * read.cells.height)).compute()


def spoil_tiles(path: Path, victims: list[int]) -> None:
    """Overwrite tiles of the first page with noise."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0].aspage()
        with path.open("r+b") as file:
            for index in victims:
                file.seek(page.dataoffsets[index])
                file.write(np.random.default_rng(index).bytes(page.databytecounts[index]))


@pytest.mark.parametrize("scheduler", ["synchronous", "processes"])
def test_lost_patches_are_counted_and_their_tiles_named(tmp_path: Path, scheduler: str) -> None:
    """What cannot be read is said of all patches that were read together, in this process and from another."""
    path = write_slide(tmp_path / "spoilt.tif", tissue_pixels(1024, 1024, margin=0), levels=1)
    sizes = open_slide(path).tile_bytes(0).ravel()
    by_size = np.argsort(sizes, kind="stable")
    first, second = sorted(int(i) for i in by_size[1:8] if i not in (by_size[8], 15))[:2]  # not compared when opened
    spoil_tiles(path, [first, second])
    read = reader(path, patch_px=128, patch_mpp=1.0)  # a patch is a tile
    tiles = [divmod(i, 4) for i in (first, second)]
    expected = rf"spoilt\.tif: 2 of 16 patches are lost: .*tile \({tiles[0][0]}, {tiles[0][1]}\) does not decode"
    expected += rf".*and 1 more tiles: \({tiles[1][0]}, {tiles[1][1]}\)"
    with pytest.raises(SlideError, match=expected):
        read.patches(np.arange(16)).compute(scheduler=scheduler, num_workers=1)
    whole = [i for i in range(16) if i not in (first, second)]
    assert read.patches(whole).compute(scheduler=scheduler, num_workers=1).shape == (14, 128, 128, 3)


def counted_tiles(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Every tile that is fetched from a file from now on."""
    fetched: list[tuple[int, int]] = []
    stored = TiffTiles.stored

    def noted(self: TiffTiles, row: int, column: int) -> bytes:
        fetched.append((row, column))
        return stored(self, row, column)

    monkeypatch.setattr(TiffTiles, "stored", noted)
    return fetched


@pytest.mark.parametrize("patch_mpp", [0.5, 0.7, 1.0])
def test_a_tile_is_decoded_once_for_a_block(
    slides_folder: Path, monkeypatch: pytest.MonkeyPatch, patch_mpp: float
) -> None:
    """However many patches of a block touch it; and what is counted is what is fetched."""
    slide = open_slide(slides_folder / "odd.tif")
    slide.direct(0)  # compares some tiles
    cells = physical_raster(slide.facts.bounds, slide.facts.require_mpp(), 64 * patch_mpp * 0.6)  # patches overlap
    read = PatchReader(slide, cells, 64, patch_mpp)
    drawn = np.random.default_rng(0).permutation(cells.width * cells.height)[:200]
    fetched = counted_tiles(monkeypatch)
    read.patches(drawn[:BLOCK]).compute(scheduler="synchronous")
    assert fetched
    assert len(fetched) == len(set(fetched)) == read.count(drawn[:BLOCK]).tiles
    fetched.clear()
    read.patches(drawn).compute(scheduler="synchronous")
    assert len(fetched) == read.count(drawn).tiles
    each = sum(read.count([cell]).tiles for cell in drawn)
    assert len(fetched) < each / 2  # neighbours share tiles, and a block holds neighbours


def test_patches_come_back_in_the_callers_order(slides_folder: Path) -> None:
    """Blocks are cut along a curve over the slide, which nobody need know; repeated cells are repeated."""
    read = reader(slides_folder / "even.tif")
    drawn = np.random.default_rng(1).integers(0, read.cells.width * read.cells.height, 3 * BLOCK + 5)
    lazy = read.patches(drawn)
    assert [len(block) for block in read.blocks(drawn)] == [BLOCK, BLOCK, BLOCK, 5]
    for patch, raster in zip(lazy.compute(scheduler="threads"), read.rasters(drawn), strict=True):
        np.testing.assert_array_equal(patch, render(read.slide, raster))


def test_blocks_hold_fewer_patches_where_they_are_made_of_more_pixels(tmp_path: Path) -> None:
    """Memory is bounded by what is read, not by how many patches come of it."""
    slide = open_slide(write_slide(tmp_path / "a.tif", tissue_pixels(2048, 2048), levels=1))
    cells = physical_raster(slide.facts.bounds, slide.facts.require_mpp(), 64)
    for factor, block in [(1, 32), (8, 32), (16, 16), (32, 4)]:
        assert len(PatchReader(slide, cells, 64, 0.5 * factor).blocks(np.zeros(40, int))[0]) == block


def test_counts_follow_the_patches(slides_folder: Path) -> None:
    read = reader(slides_folder / "even.tif")
    assert read.count([]) == ReadCount()
    one = read.count([40])
    assert one.tiles >= 1
    assert read.count([40, 40]) == one  # read together
    assert read.count([40] * (BLOCK + 1)) == one + one  # in two blocks
    assert one.bytes == read.slide.tile_bytes(0).ravel()[_touched(read, 40)].sum()


@pytest.mark.parametrize(
    ("patch_px", "tile", "step"), [(256, 256, 256), (128, 256, 128), (200, 240, 240), (300, 256, 256)]
)
def test_snapped_patches_lie_on_the_tiles(tmp_path: Path, patch_px: int, tile: int, step: int) -> None:
    """Each corner moves to the grid, by half a step at most; what is recorded is what is read."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(2000, 1900), tile=tile, levels=1)
    slide = open_slide(path)
    cells = Raster(70, 33, patch_px, patch_px, 1900 // patch_px, 1800 // patch_px)
    free, snapped = (PatchReader(slide, cells, patch_px, 0.5, snap=snap) for snap in (False, True))
    every = np.arange(cells.width * cells.height)
    before, after = free.boxes_level0(every), snapped.boxes_level0(every)
    moved = np.abs(after - before)[:, :2]
    on_grid = after[:, :2] % step == 0
    assert moved.max() <= step / 2
    assert (on_grid | (moved == 0)).all()
    assert (moved > 0).any()
    assert (after[:, :2] + patch_px <= (2000, 1900)).all()
    inside = after[:, :2].max(axis=1) < 1500  # away from the edges, where bounds come first
    assert on_grid[inside].all()
    read = snapped.patches(every).compute(scheduler="synchronous")
    for patch, (x, y, _, _) in zip(read, after, strict=True):
        np.testing.assert_array_equal(patch, slide.read_level(0, Box(int(x), int(y), patch_px, patch_px)))


def test_snapped_patches_take_one_tile_each(slides_folder: Path) -> None:
    """Where a patch is as large as a tile of the level that is read: one in place of four."""
    slide = open_slide(slides_folder / "even.tif")
    cells = Raster(100, 90, 256, 256, 4, 3)
    for mpp, cell in [(0.5, 5), (1.0, 5)]:
        free, snapped = (PatchReader(slide, cells, 256, mpp, snap=snap) for snap in (False, True))
        assert (free.count([cell]).tiles, snapped.count([cell]).tiles) == (4, 1)


def test_a_model_says_whether_its_patches_are_snapped(slides_folder: Path) -> None:
    """The choice is the model's, so that it is trained on what it will read."""
    from pipeline.model.look import look_at
    from pipeline.model.sampler import AttentionSampler
    from pipeline.model.spec import ModelSpec

    spec = ModelSpec(("a", "b"), 8.0, 0.5, 48, "uniform", "small", 8, "systematic", 4)
    slide = open_slide(slides_folder / "even.tif")
    for snap in (False, True):
        reader = look_at(slide, AttentionSampler(replace(spec, snap=snap))).reader
        corners = reader.boxes_level0(np.arange(40))[:, :2]
        assert (corners % 64 == 0).all() == snap


def _touched(read: PatchReader, cell: int) -> list[int]:
    x, y, w, h = read.boxes_level0([cell])[0].astype(int)
    columns = -(-read.slide.facts.levels[0].width // 256)
    return [
        r * columns + c
        for r in range(y // 256, (y + h - 1) // 256 + 1)
        for c in range(x // 256, (x + w - 1) // 256 + 1)
    ]


def test_the_place_tells_readers_apart_whose_cells_show_other_pixels(slides_folder: Path, tmp_path: Path) -> None:
    """And is the same for the same pixels: of a copy, and of a pyramid that copies its tiles."""
    read = reader(slides_folder / "even.tif")
    facts = read.slide.facts
    finer = replace(read, slide=open_slide(facts.path, mpp=0.4))
    cells = replace(read.cells, x=read.cells.x + 32)
    others = [finer, *(replace(read, **change) for change in ({"cells": cells}, {"inside": False}, {"snap": True}))]
    assert len({read.place, *(other.place for other in others)}) == 1 + len(others)
    copy = reader(Path(shutil.copy(facts.path, tmp_path / "copy.tif")))
    pyramid = replace(read, slide=open_pyramid(cache_pyramid(read.slide, tmp_path / "a.ome.zarr", profile="native")))
    for same in (copy, pyramid):
        assert (same.place, same.slide.facts.fingerprint) == (read.place, facts.fingerprint)
