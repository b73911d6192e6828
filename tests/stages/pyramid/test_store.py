"""The slide's store: a zarr store that is the slide, for zarr, dask and ome-zarr alike, and for zarr's own suite."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import ome_zarr.classes.image
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import tissue_pixels, write_slide
from numpy.typing import NDArray
from ome_zarr_models.v05.image import Image
from zarr.storage import LocalStore

from stages.geometry import Box
from stages.pyramid.layout import level_layouts
from stages.pyramid.store import SlideStore
from stages.slide.facts import SlideError
from stages.slide.files import open_slide
from stages.slide.protocol import Slide

MADE = ["even.tif", "odd.tif", "plain.tif"]


REAL = [
    "CMU-1-Small-Region.svs",
    "test3-DAPI-2-(387).ndpi",
    "multi_frame_jpeg_camelyon_challenge_image.dcm",
    "small.svs",
    "boxes.tiff",
]


def opened(slide: Slide) -> Any:
    """The slide's group, by plain zarr."""
    return zarr.open_group(SlideStore(slide), mode="r")


def whole(slide: Slide, level: int) -> NDArray[np.uint8]:
    raster = slide.facts.levels[level]
    return slide.read_level(level, Box(0, 0, raster.width, raster.height))


def assert_same_pixels(slide: Slide) -> None:
    """Every level whole, then boxes of it that cut chunks."""
    group, rng = opened(slide), np.random.default_rng(0)
    for i, level in enumerate(slide.facts.levels):
        array, expected = group[str(i)], whole(slide, i)
        np.testing.assert_array_equal(np.moveaxis(array[:], 0, -1), expected)
        for _ in range(3):
            x, y = int(rng.integers(0, level.width)), int(rng.integers(0, level.height))
            right, bottom = int(rng.integers(x + 1, level.width + 1)), int(rng.integers(y + 1, level.height + 1))
            part = np.moveaxis(array[:, y:bottom, x:right], 0, -1)
            np.testing.assert_array_equal(part, expected[y:bottom, x:right])


@pytest.mark.parametrize("name", MADE)
def test_the_store_holds_the_slides_pixels(slides_folder: Path, name: str) -> None:
    """The equality that ties the interface to the fast path: `Slide.read_level`, at every level and edge."""
    assert_same_pixels(open_slide(slides_folder / name))


@pytest.mark.realdata
@pytest.mark.parametrize("name", REAL)
def test_real_slides(shared_data: Path, name: str) -> None:
    assert_same_pixels(open_slide(shared_data / "slides" / name))


@settings(max_examples=40)
@given(data=st.data())
def test_any_region_is_the_slides_own(slides_folder: Path, data: st.DataObject) -> None:
    slide = open_slide(slides_folder / "odd.tif")
    level = data.draw(st.integers(0, len(slide.facts.levels) - 1))
    raster = slide.facts.levels[level]
    x, y = data.draw(st.integers(0, raster.width - 1)), data.draw(st.integers(0, raster.height - 1))
    width = data.draw(st.integers(1, min(600, raster.width - x)))
    height = data.draw(st.integers(1, min(600, raster.height - y)))
    part = opened(slide)[str(level)][:, y : y + height, x : x + width]
    np.testing.assert_array_equal(np.moveaxis(part, 0, -1), slide.read_level(level, Box(x, y, width, height)))


def test_chunks_are_the_slides_tiles(slides_folder: Path) -> None:
    """One chunk a tile where the slide says its tiles, and in the pyramid's own layout always."""
    slide = open_slide(slides_folder / "odd.tif")
    group = opened(slide)
    assert group["0"].chunks == (3, 240, 240)
    for i, layout in enumerate(level_layouts(slide.facts.path, slide.facts)):
        assert group[str(i)].chunks == (3, *layout.chunk)
        assert group[str(i)].shape == (3, *layout.size)
        assert group[str(i)].metadata.dimension_names == ("c", "y", "x")


@pytest.mark.parametrize("name", MADE)
def test_its_metadata_is_a_valid_ome_zarr_image(slides_folder: Path, name: str) -> None:
    group = opened(open_slide(slides_folder / name))
    image = Image.from_zarr(group)
    assert image.ome_attributes.version == "0.5"
    assert len(image.ome_attributes.multiscales[0].datasets) == len(list(group.array_keys()))


def test_ome_zarr_opens_it(slides_folder: Path) -> None:
    """The reference implementation, levels and pixels and scale."""
    slide = open_slide(slides_folder / "even.tif")
    image = ome_zarr.classes.image.OMEZarrMultiscale.from_ome_zarr(opened(slide))
    assert len(image.images) == len(slide.facts.levels)
    for i, level in enumerate(image.images):
        assert level.scale["x"] == pytest.approx(0.5 * 2**i)
        np.testing.assert_array_equal(
            np.moveaxis(level.data[:, :300, :300].compute(), 0, -1), whole(slide, i)[:300, :300]
        )


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_dask_reads_it_on_any_scheduler(slides_folder: Path, scheduler: str) -> None:
    slide = open_slide(slides_folder / "odd.tif")
    array = da.from_zarr(SlideStore(slide), component="1")
    sums = array.map_blocks(lambda block: block.astype(np.int64)).sum(axis=(1, 2))
    options = {"num_workers": 2} if scheduler == "processes" else {}
    np.testing.assert_array_equal(sums.compute(scheduler=scheduler, **options), whole(slide, 1).sum(axis=(0, 1)))


def test_dask_copies_it_into_shards_block_by_block(slides_folder: Path, tmp_path: Path) -> None:
    """As docs/ome-zarr.md says: of blocks smaller than a shard dask loses most (findings/dask-to-zarr-shards.sh)."""
    slide = open_slide(slides_folder / "even.tif")
    array = da.from_zarr(SlideStore(slide), component="0")
    channels, height, width = array.chunksize
    shards = (channels, 3 * height, 3 * width)
    layout = {"shape": array.shape, "dtype": array.dtype, "chunks": array.chunksize, "shards": shards}
    copy = zarr.create_array(LocalStore(tmp_path / "copy.zarr"), **layout)
    array.rechunk(shards).store(copy, lock=False)
    np.testing.assert_array_equal(np.moveaxis(copy[:], 0, -1), whole(slide, 0))


def read_elsewhere(store: SlideStore) -> int:
    array: Any = zarr.open_group(store, mode="r")["0"]
    return int(array[:, :100, :100].sum())


def test_it_pickles_by_path(slides_folder: Path) -> None:
    """A fresh process opens the slide for itself; what travels is a few kilobytes, whatever the slide's size."""
    slide = open_slide(slides_folder / "even.tif")
    store = SlideStore(slide)
    whole(slide, 0)  # handles are open now
    assert len(pickle.dumps(store)) < 8192
    assert pickle.loads(pickle.dumps(store)) == store
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(read_elsewhere, store).result() == int(whole(slide, 0)[:100, :100].sum())


def test_equal_are_the_stores_of_the_same_slide(slides_folder: Path, tmp_path: Path) -> None:
    store = SlideStore(open_slide(slides_folder / "even.tif"))
    assert store == SlideStore(open_slide(slides_folder / "even.tif"))
    assert hash(store) == hash(SlideStore(open_slide(slides_folder / "even.tif")))
    assert store != SlideStore(open_slide(slides_folder / "odd.tif"))
    path = write_slide(tmp_path / "slide.tif", tissue_pixels(300, 300), levels=1)
    before = SlideStore(open_slide(path))
    write_slide(path, tissue_pixels(300, 300)[::-1], levels=1)
    assert SlideStore(open_slide(path)) != before, "the slide was replaced"
    assert store != str(store)


def test_a_region_that_cannot_be_read_is_an_error_not_the_fill_value(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tif", tissue_pixels(900, 300), levels=1, compression="deflate")
    before = opened(open_slide(path))["0"][:, :256, :256]
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages[0].dataoffsets[1]
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(500))
    array = opened(open_slide(path))["0"]
    np.testing.assert_array_equal(array[:, :256, :256], before)
    with pytest.raises(SlideError, match="damaged"):
        array[:, :256, 256:512]


def test_writing_is_refused_with_the_remedy(slides_folder: Path) -> None:
    store = SlideStore(open_slide(slides_folder / "even.tif"))
    array: Any = zarr.open_group(store, mode="r")["0"]
    for write in (lambda: array.__setitem__((slice(None), 0, 0), 0), lambda: array.update_attributes({"a": 1})):
        with pytest.raises(ValueError, match="saccade cache"):
            write()
    with pytest.raises(ValueError, match="read-only"):
        zarr.open_group(store, mode="a")
    with pytest.raises(ValueError, match="read-only"):
        zarr.create_group(store, overwrite=True)


def test_opening_reads_no_pixels_and_grows_with_the_levels_alone(tmp_path: Path) -> None:
    """What the store holds is its metadata; a hundred times the tiles make it no larger."""
    held = []
    for side in (256, 2560):
        store = SlideStore(open_slide(write_slide(tmp_path / f"{side}.tif", tissue_pixels(side, side), levels=1)))
        zarr.open_group(store, mode="r")
        held.append(len(pickle.dumps(store)))
    assert held[1] - held[0] < 64
