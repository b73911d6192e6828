"""Sampled cells -> lazily read patches."""

from __future__ import annotations

import pickle
from pathlib import Path

import dask
import numpy as np
import pytest
from conftest import tissue_pixels, write_slide

from stages.geometry import physical_raster
from stages.patches import BLOCK, PatchReader
from stages.rasters import ReadCount, render
from stages.slides import SlideError, open_slide


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
        lazy = read.patches(np.zeros(100, np.int64))
        blocks = -(-100 // BLOCK)
        assert lazy.npartitions == blocks
        assert len(lazy.__dask_graph__()) <= 2 * blocks + 1


def test_every_scheduler_reads_the_same(slides_folder: Path) -> None:
    """Threads, processes and distributed workers: the reader ships by path."""
    from distributed import Client, LocalCluster

    read = reader(slides_folder / "even.tif")
    assert len(pickle.dumps(read)) < 4096
    lazy = read.patches(np.arange(0, 96, 2))
    expected = lazy.compute(scheduler="synchronous")
    assert (lazy.compute(scheduler="threads") == expected).all()
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs="ERROR") as cluster,
        Client(cluster) as client,
    ):
        assert (client.compute(lazy).result() == expected).all()


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


def test_counts_follow_the_patches(slides_folder: Path) -> None:
    read = reader(slides_folder / "even.tif")
    assert read.count([]) == ReadCount()
    one = read.count([40])
    assert one.tiles >= 1
    assert read.count([40, 40]) == one + one
    assert one.bytes == read.slide.tile_bytes(0).ravel()[_touched(read, 40)].sum()


def _touched(read: PatchReader, cell: int) -> list[int]:
    x, y, w, h = read.boxes_level0([cell])[0].astype(int)
    columns = -(-read.slide.facts.levels[0].width // 256)
    return [
        r * columns + c
        for r in range(y // 256, (y + h - 1) // 256 + 1)
        for c in range(x // 256, (x + w - 1) // 256 + 1)
    ]
