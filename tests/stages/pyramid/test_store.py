"""The slide's store: a zarr store that is the slide, for zarr, dask and ome-zarr alike, and for zarr's own suite."""

from __future__ import annotations

import json
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
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.testing.store import StoreTests

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


KEPT = "zarr.json"
"""A key that every slide has."""

SKIPPED = {
    "test_set": "writes, and supports_writes is False",
    "test_set_not_open": "writes, and supports_writes is False",
    "test_set_many": "writes, and supports_writes is False",
    "test_set_if_not_exists": "writes, and supports_writes is False",
    "test_delete": "deletes, and supports_deletes is False",
    "test_delete_dir": "deletes, and supports_deletes is False",
    "test_delete_nonexistent_key_does_not_raise": "deletes, and supports_deletes is False",
    "test_clear": "deletes, and supports_deletes is False",
    "test_set_sync": "the store does not write, synchronously or otherwise",
    "test_delete_sync": "the store does not delete, synchronously or otherwise",
    "test_delete_sync_missing": "the store does not delete, synchronously or otherwise",
    "test_get_sync": "the optional synchronous protocol is not implemented: reading runs in threads",
    "test_get_sync_missing": "the optional synchronous protocol is not implemented: reading runs in threads",
}
"""Cases of zarr's suite that a read-only store cannot run. All others run: those that begin by writing keys of their
own are restated below on the keys that a slide has, with the same assertions."""


class TestContract(StoreTests[SlideStore, cpu.Buffer]):
    """zarr's own suite for stores."""

    store_cls = SlideStore
    buffer_cls = cpu.Buffer

    @pytest.fixture(autouse=True)
    def _skipped(self, request: pytest.FixtureRequest) -> None:
        name = request.node.originalname
        if name in SKIPPED:
            pytest.skip(SKIPPED[name])

    @pytest.fixture
    def slide(self, slides_folder: Path) -> Slide:
        return open_slide(slides_folder / "odd.tif")

    @pytest.fixture
    def store_kwargs(self, slide: Slide) -> dict[str, Any]:
        return {"slide": slide}

    @pytest.fixture
    def values(self, slide: Slide) -> dict[str, bytes]:
        """Some keys and their values, found without the store: both documents, a chunk inside and one at the edge."""
        found = {}
        for key in ("1/c/0/0/0", "1/c/0/1/1"):
            row, column = map(int, key.split("/")[3:])
            level, chunk = slide.facts.levels[1], 240
            box = Box(column * chunk, row * chunk, chunk, chunk).intersect(Box(0, 0, level.width, level.height))
            tile = np.full((chunk, chunk, 3), 255, np.uint8)
            tile[: box.height, : box.width] = slide.read_level(1, box)
            found[key] = tile.tobytes()
        return found

    async def set(self, store: SlideStore, key: str, value: cpu.Buffer) -> None:
        raise NotImplementedError("a slide is not written to")

    async def get(self, store: SlideStore, key: str) -> cpu.Buffer:
        raise NotImplementedError("only the cases that write need it")

    def test_store_repr(self, store: SlideStore) -> None:
        assert str(store) == f"slide://{store._slide.facts.path}"
        assert repr(store) == f"SlideStore('{store}')"

    def test_store_supports_writes(self, store: SlideStore) -> None:
        assert not store.supports_writes
        assert not store.supports_deletes

    def test_store_supports_listing(self, store: SlideStore) -> None:
        assert store.supports_listing

    # restated: the suite's forms write first

    def test_store_read_only(self, store: SlideStore) -> None:
        assert store.read_only
        with pytest.raises(AttributeError):
            store.read_only = False  # type: ignore[misc]

    async def test_store_open_read_only(self, open_kwargs: dict[str, Any]) -> None:
        """There is no other mode to ask for."""
        store = await SlideStore.open(**open_kwargs)
        assert store._is_open
        assert store.read_only
        with pytest.raises(TypeError):
            await SlideStore.open(**open_kwargs, read_only=False)

    async def test_read_only_store_raises(self, store: SlideStore) -> None:
        match = "store was opened in read-only mode and does not support writing"
        with pytest.raises(ValueError, match=match):
            await store.set("foo", self.buffer_cls.from_bytes(b"bar"))
        with pytest.raises(ValueError, match=match):
            await store.delete(KEPT)

    async def test_with_read_only_store(self, store: SlideStore) -> None:
        with pytest.raises(NotImplementedError, match="with_read_only is not implemented"):
            store.with_read_only(read_only=False)

    async def test_serializable_store(self, store: SlideStore, values: dict[str, bytes]) -> None:
        copy: SlideStore = pickle.loads(pickle.dumps(store))
        assert copy == store
        assert copy.read_only
        for key, value in values.items():
            observed = await copy.get(key, default_buffer_prototype())
            assert observed is not None
            assert observed.to_bytes() == value

    @pytest.mark.parametrize("key", ["1/c/0/0/0", "1/c/0/1/1"])
    @pytest.mark.parametrize(
        "byte_range",
        [None, RangeByteRequest(1, 4), OffsetByteRequest(100), SuffixByteRequest(7), SuffixByteRequest(200_000)],
    )
    async def test_get(self, store: SlideStore, values: dict[str, bytes], key: str, byte_range: Any) -> None:
        observed = await store.get(key, prototype=default_buffer_prototype(), byte_range=byte_range)
        value = values[key]
        match byte_range:
            case RangeByteRequest(start, end):
                value = value[start:end]
            case OffsetByteRequest(offset):
                value = value[offset:]
            case SuffixByteRequest(suffix):
                value = value[-suffix:]
        assert observed is not None
        assert observed.to_bytes() == value

    async def test_get_not_open(self, store_not_open: SlideStore, values: dict[str, bytes]) -> None:
        assert not store_not_open._is_open
        observed = await store_not_open.get("1/c/0/0/0", prototype=default_buffer_prototype())
        assert observed is not None
        assert observed.to_bytes() == values["1/c/0/0/0"]

    async def test_get_raises(self, store: SlideStore) -> None:
        for key in (KEPT, "1/c/0/0/0"):
            with pytest.raises((ValueError, TypeError), match=r"Unexpected byte_range, got.*"):
                await store.get(key, prototype=default_buffer_prototype(), byte_range=(0, 2))  # type: ignore[arg-type]

    async def test_get_many(self, store: SlideStore, values: dict[str, bytes]) -> None:
        requests = [(key, default_buffer_prototype(), None) for key in values]
        observed = {key: value async for key, value in store._get_many(requests)}
        assert {key: value.to_bytes() for key, value in observed.items() if value is not None} == values

    @pytest.mark.parametrize("key", [KEPT, "0/zarr.json", "0/c/0/0/0", "1/c/0/1/1"])
    async def test_getsize(self, store: SlideStore, key: str) -> None:
        observed = await store.get(key, default_buffer_prototype())
        assert observed is not None
        assert await store.getsize(key) == len(observed)

    async def test_getsize_prefix(self, store: SlideStore) -> None:
        layout = level_layouts(store._slide.facts.path, store._slide.facts)[1]
        chunks = int(np.prod([-(-side // chunk) for side, chunk in zip(layout.size, layout.chunk, strict=True)]))
        assert await store.getsize_prefix("1/c/") == chunks * int(np.prod(layout.chunk)) * 3

    async def test_get_partial_values(self, store: SlideStore, values: dict[str, bytes]) -> None:
        key_ranges = [
            (KEPT, RangeByteRequest(0, 2)),
            ("1/c/0/0/0", SuffixByteRequest(2)),
            ("1/c/0/1/1", OffsetByteRequest(2)),
            ("1/c/0/0/0", None),
            ("no such key", None),
        ]
        observed = await store.get_partial_values(default_buffer_prototype(), key_ranges)
        one_by_one = [await store.get(key, default_buffer_prototype(), part) for key, part in key_ranges]
        assert [value and value.to_bytes() for value in observed] == [
            value and value.to_bytes() for value in one_by_one
        ]
        assert observed[-1] is None
        assert observed[3] is not None
        assert observed[3].to_bytes() == values["1/c/0/0/0"]

    async def test_exists(self, store: SlideStore) -> None:
        for key in (KEPT, "0/zarr.json", "1/c/0/0/0"):
            assert await store.exists(key)
        wrong = ("", "foo", "0", "0/c", "9/zarr.json", "2/c/0/0/0", "1/c/1/0/0", "1/c/0/99/0", "1/c/0/0/99")
        for key in (
            *wrong,
            "01/c/0/0/0",
            "/c/0/0/0",
            "1/c/0/00/0",
            "1/c/0/-1/0",
            "1/c/0/0/0/",
            "1/c/0/\u0660/0",
            "0/.zarray",
        ):
            assert not await store.exists(key)
            assert await store.get(key, default_buffer_prototype()) is None

    async def test_is_empty(self, store: SlideStore) -> None:
        for prefix in ("", "0", "0/", "1/c/0/0"):
            assert not await store.is_empty(prefix)
        for prefix in ("fo", "spam/", "1/c/1", "99"):
            assert await store.is_empty(prefix)

    async def test_list(self, store: SlideStore) -> None:
        """Exactly the keys that exist: the group's, and for every array its own and its chunks'."""
        expected = {KEPT}
        for i, layout in enumerate(level_layouts(store._slide.facts.path, store._slide.facts)):
            rows, columns = (-(-side // chunk) for side, chunk in zip(layout.size, layout.chunk, strict=True))
            expected |= {f"{i}/zarr.json", *(f"{i}/c/0/{row}/{column}" for row, column in np.ndindex(rows, columns))}
        keys = [key async for key in store.list()]
        assert sorted(keys) == sorted(expected)
        assert all([await store.exists(key) for key in keys])

    @pytest.mark.parametrize("prefix", ["", "0/", "1/c/0/1", "z", "nothing"])
    async def test_list_prefix(self, store: SlideStore, prefix: str) -> None:
        observed = sorted([key async for key in store.list_prefix(prefix)])
        assert observed == sorted([key async for key in store.list() if key.startswith(prefix)])

    async def test_list_empty_path(self, store: SlideStore) -> None:
        assert [key async for key in store.list_prefix("")] == [key async for key in store.list()]

    @pytest.mark.parametrize("root", ["", "0", "1", "1/c", "1/c/0", "1/c/0/2", "1/c/0/99", "2", "foo", "1/c/0/0/0"])
    async def test_list_dir(self, store: SlideStore, root: str) -> None:
        start = f"{root}/" if root else ""
        expected = {key.removeprefix(start).split("/")[0] async for key in store.list() if key.startswith(start)}
        assert sorted([name async for name in store.list_dir(root)]) == sorted(expected)
        assert sorted([name async for name in store.list_dir(root + "/")]) == sorted(expected)

    async def test_get_bytes(self, store: SlideStore, values: dict[str, bytes]) -> None:
        assert await store._get_bytes("1/c/0/0/0", prototype=default_buffer_prototype()) == values["1/c/0/0/0"]
        with pytest.raises(FileNotFoundError):
            await store._get_bytes("nonexistent_key", prototype=default_buffer_prototype())

    def test_get_bytes_sync(self, store: SlideStore, values: dict[str, bytes]) -> None:
        assert store._get_bytes_sync("1/c/0/0/0", prototype=default_buffer_prototype()) == values["1/c/0/0/0"]

    async def test_get_json(self, store: SlideStore) -> None:
        group = await store._get_json(KEPT, prototype=default_buffer_prototype())
        assert group["attributes"]["ome"]["version"] == "0.5"

    def test_get_json_sync(self, store: SlideStore) -> None:
        text = store._get_bytes_sync(KEPT, prototype=default_buffer_prototype())
        assert store._get_json_sync(KEPT, prototype=default_buffer_prototype()) == json.loads(text)


def test_every_case_of_the_suite_runs_or_is_skipped_with_a_reason() -> None:
    """A case that zarr adds, or one that is skipped here in vain, does not go unnoticed."""
    suite = {name for name in vars(StoreTests) if name.startswith("test_")}
    inherited = suite - set(vars(TestContract))
    assert set(SKIPPED) <= inherited
    assert inherited - set(SKIPPED) == {
        "test_store_supports_partial_writes",
        "test_store_type",
        "test_store_eq",
        "test_store_context_manager",
        "test_getsize_raises",
    }
