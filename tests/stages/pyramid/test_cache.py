"""A cached slide is the slide: same pixels, same facts, whatever happened while it was written."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from makers import empty_tile, measured_reads, start_caching, tissue_pixels, write_slide
from makers import spoil as spoil_tile
from ome_zarr_models.v05.image import Image

import stages.pyramid.layout
from stages.geometry import Box, Mpp, Raster, patch_rasters, physical_raster
from stages.pyramid.cache import cache_pyramid, verify_pyramid
from stages.pyramid.layout import level_layouts
from stages.pyramid.open import ZarrSlide, open_pyramid
from stages.pyramid.plan import Wish, choose_profile
from stages.pyramid.transaction import FullDiskError
from stages.slide.facts import SlideError
from stages.slide.files import open_slide
from stages.slide.protocol import Slide
from stages.slide.render import count_reads, render

MADE: list[tuple[str, Wish]] = [
    ("even.tif", "native"),
    ("even.tif", "portable"),
    ("odd.tif", "native"),
    ("odd.tif", "portable"),
    ("plain.tif", "portable"),
]
REAL = [
    "CMU-1-Small-Region.svs",
    "test3-DAPI-2-(387).ndpi",
    "multi_frame_jpeg_camelyon_challenge_image.dcm",
    "small.svs",
    "boxes.tiff",
]


Cached = Callable[[str, Wish], tuple[Slide, ZarrSlide]]


@pytest.fixture(scope="module")
def cached(slides_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Cached:
    """(slide, its whole pyramid) of a made slide by name and profile; each cached once."""
    folder = tmp_path_factory.mktemp("pyramids")

    def pair(name: str, profile: Wish) -> tuple[Slide, ZarrSlide]:
        slide = open_slide(slides_folder / name)
        out = cache_pyramid(slide, folder / f"{name}.{profile}.ome.zarr", profile=profile, everything=True)
        pyramid = open_pyramid(out)
        assert isinstance(pyramid, ZarrSlide)
        return slide, pyramid

    return pair


@pytest.fixture
def pyramid(tmp_path: Path) -> Path:
    """A small pyramid of a slide beside it, to be spoilt."""
    slide = write_slide(tmp_path / "slide.tif", tissue_pixels(600, 500), levels=2)
    return cache_pyramid(open_slide(slide), tmp_path / "slide.ome.zarr")


def assert_same_pixels(slide: Slide, pyramid: Slide) -> None:
    """Every level whole, then boxes of it."""
    rng = np.random.default_rng(0)
    for i, level in enumerate(slide.facts.levels):
        whole = slide.read_level(i, Box(0, 0, level.width, level.height))
        np.testing.assert_array_equal(pyramid.read_level(i, Box(0, 0, level.width, level.height)), whole)
        for _ in range(3):
            x, y = int(rng.integers(0, level.width)), int(rng.integers(0, level.height))
            box = Box(x, y, int(rng.integers(1, level.width - x + 1)), int(rng.integers(1, level.height - y + 1)))
            part = pyramid.read_level(i, box)
            np.testing.assert_array_equal(part, whole[y : y + box.height, x : x + box.width])
            assert part.flags.c_contiguous


def assert_same_renders(slide: Slide, pyramid: Slide, mpp: Mpp) -> None:
    """Thumbnails and patches at level scales, between them and off both, to the last bit."""
    finest = max(mpp.x, mpp.y)
    bounds = slide.facts.bounds
    rng = np.random.default_rng(1)
    for factor in (1.003, 1.7, 2, 3.3, 4.02, 11):
        if factor > 3:
            thumbnail = physical_raster(bounds, mpp, finest * factor)
            np.testing.assert_array_equal(render(pyramid, thumbnail), render(slide, thumbnail))
        centres = rng.uniform((bounds.x, bounds.y), (bounds.x + bounds.width, bounds.y + bounds.height), (3, 2))
        for patch in patch_rasters(centres, mpp, 96, finest * factor):
            np.testing.assert_array_equal(render(pyramid, patch), render(slide, patch))


@pytest.mark.parametrize(("name", "profile"), MADE)
def test_pixels_equal_the_slides(cached: Cached, name: str, profile: Wish) -> None:
    """Every level is copied losslessly, as tiles or as pixels."""
    assert_same_pixels(*cached(name, profile))


@pytest.mark.parametrize(("name", "profile"), MADE)
def test_later_steps_cannot_tell_the_difference(cached: Cached, name: str, profile: Wish) -> None:
    """What is rendered from the pyramid is what is rendered from the slide."""
    slide, pyramid = cached(name, profile)
    assert_same_renders(slide, pyramid, slide.facts.require_mpp())


@pytest.mark.parametrize("chunk", [256, 160])
def test_renders_do_not_depend_on_the_chunks(
    slides_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """Scanner strips are stored as square chunks; sums are exact, so the cut makes no difference."""
    monkeypatch.setattr(stages.pyramid.layout, "CHUNK_SIDES", (chunk, chunk))
    slide = open_slide(slides_folder / "odd.tif")
    pyramid = open_pyramid(cache_pyramid(slide, tmp_path / "a.ome.zarr", profile="portable", everything=True))
    assert pyramid.facts.tile_sizes != slide.facts.tile_sizes
    assert_same_renders(slide, pyramid, slide.facts.require_mpp())


@pytest.mark.parametrize(("name", "profile"), MADE)
def test_facts_are_the_slides(cached: Cached, name: str, profile: Wish) -> None:
    """All that a slide is survives but for where and how it lies on disk; the fingerprint above all."""
    slide, pyramid = cached(name, profile)
    on_disk = {"path": pyramid.facts.path, "file_bytes": pyramid.facts.file_bytes, "associated": ()}
    assert pyramid.facts == replace(slide.facts, **on_disk)
    files = [path for path in pyramid.facts.path.rglob("*") if path.is_file()]
    shards = sum(path.stat().st_size for path in files if path.name != "zarr.json")
    assert pyramid.facts.file_bytes == shards


@pytest.mark.parametrize(("name", "profile"), MADE)
def test_the_metadata_is_valid_ome_zarr(cached: Cached, name: str, profile: Wish) -> None:
    """ome-zarr-models accepts it, and its scales are the levels' true ones."""
    slide, pyramid = cached(name, profile)
    image = Image.from_zarr(zarr.open_group(pyramid.facts.path, mode="r"))
    (multiscale,) = image.attributes.ome.multiscales
    assert [(axis.name, axis.type, axis.unit) for axis in multiscale.axes] == [
        ("c", "channel", None),
        ("y", "space", "micrometer"),
        ("x", "space", "micrometer"),
    ]
    mpp = slide.facts.require_mpp()
    for level, dataset in zip(slide.facts.levels, multiscale.datasets, strict=True):
        scale, translation = dataset.coordinateTransformations
        assert scale.scale == pytest.approx([1, level.scale_y * mpp.y, level.scale_x * mpp.x])
        # the centre of the level's first pixel from the centre of level 0's
        centre = (level.to_level0((0.5, 0.5)) - 0.5) * (mpp.x, mpp.y)
        assert translation.translation == pytest.approx([0, centre[1], centre[0]])


@pytest.mark.parametrize(("name", "profile"), MADE)
def test_other_readers_see_the_same_pixels(cached: Cached, name: str, profile: Wish) -> None:
    """Plain zarr and dask open the arrays and read what our own reader does; names and codecs are as promised."""
    slide, pyramid = cached(name, profile)
    for i, level in enumerate(slide.facts.levels):
        pixels = np.moveaxis(pyramid.read_level(i, Box(0, 0, level.width, level.height)), -1, 0)
        array = zarr.open_group(pyramid.facts.path, mode="r")[str(i)]
        assert array.metadata.dimension_names == ("c", "y", "x")
        assert (array.chunks[1:], array.shards[1:]) == (pyramid.layouts[i].chunk, pyramid.layouts[i].shard)
        assert [c.to_dict()["name"] for c in array.compressors] == (
            ["zstd", "crc32c"] if profile == "portable" else ["crc32c"]
        )
        np.testing.assert_array_equal(array[:], pixels)
        lazy = da.from_zarr(array)
        np.testing.assert_array_equal(lazy[:, 100:300, 50:].compute(scheduler="sync"), pixels[:, 100:300, 50:])


def test_native_chunks_are_the_slides_own_tiles(cached: Cached) -> None:
    """Byte for byte, and in few files: a shard holds some 4096 pixels along a side."""
    slide, pyramid = cached("odd.tif", "native")
    theirs, ours = slide.tiles(0), pyramid.tiles(0)
    assert theirs is not None
    assert ours.tile == theirs.tile == (240, 240)
    rows, columns = theirs.byte_counts.shape
    assert all(ours.stored(r, c) == theirs.stored(r, c) for r in range(rows) for c in range(columns))
    assert pyramid.layouts[0].grid == (1, 1)


def test_levels_without_jpeg_tiles_are_held_losslessly_beside_those_with(tmp_path: Path) -> None:
    """A native pyramid of a slide whose levels differ: each in the way that suits it."""
    path, image = tmp_path / "a.tif", tissue_pixels(900, 700)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(image, tile=(256, 256), photometric="rgb", compression="jpeg", metadata=None)
        small = image.reshape(350, 2, 450, 2, 3).mean((1, 3)).astype(np.uint8)
        tiff.write(small, tile=(256, 256), photometric="rgb", compression="deflate", subfiletype=1, metadata=None)
    slide = open_slide(path)
    assert choose_profile(slide, "auto") == "portable"
    pyramid = open_pyramid(cache_pyramid(slide, tmp_path / "a.ome.zarr", profile="native"))
    assert isinstance(pyramid, ZarrSlide)
    assert [layout.jpeg is not None for layout in pyramid.layouts] == [True, False]
    assert_same_pixels(slide, pyramid)


def test_a_tile_that_is_damaged_in_the_slide_is_told_from_a_damaged_pyramid(tmp_path: Path) -> None:
    """Copied as it is, unseen; found where it is read or verified, and the message says whose damage it is."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(1500, 1500), levels=1)
    spoil_tile(path, 0, 0)  # glass: none of the tiles that are compared with OpenSlide
    out = cache_pyramid(open_slide(path), tmp_path / "a.ome.zarr", profile="native")
    with pytest.raises(SlideError, match=r"tile \(0, 0\) does not decode, nor did it in the slide"):
        open_pyramid(out).read_level(0, Box(0, 0, 300, 300))
    (line,) = verify_pyramid(out)
    assert line.startswith("level 0, tile (0, 0) does not decode, nor did it in the slide: ")


@pytest.mark.parametrize("profile", ["native", "portable"])
def test_tiles_that_were_never_scanned_read_as_in_the_slide(tmp_path: Path, profile: Wish) -> None:
    """Blank tiles hold no bytes; in a native pyramid they are not there either."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(700, 600, margin=0), levels=1)
    empty_tile(path, 0, 4)
    slide = open_slide(path)
    out = cache_pyramid(slide, tmp_path / "a.ome.zarr", profile=profile, everything=True)
    pyramid = open_pyramid(out)
    assert pyramid.direct(0)
    assert slide.tile_bytes(0)[1, 1] == 0
    assert (pyramid.tile_bytes(0)[1, 1] == 0) == (profile == "native")
    assert_same_pixels(slide, pyramid)
    pixels = pyramid.read_level(0, Box(0, 0, 700, 600))
    np.testing.assert_array_equal(np.moveaxis(zarr.open_array(out / "0", mode="r")[:], 0, -1), pixels)
    assert verify_pyramid(out) == []


def test_a_slide_without_a_resolution_is_cached_in_pixels(tmp_path: Path) -> None:
    """No unit is claimed that the file does not have; the remedy works on the pyramid as on the slide."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(500, 400), mpp=None, levels=2)
    out = cache_pyramid(open_slide(path, mpp=0.25), tmp_path / "a.ome.zarr", profile="portable")
    (multiscale,) = Image.from_zarr(zarr.open_group(out, mode="r")).attributes.ome.multiscales
    assert [axis.unit for axis in multiscale.axes] == [None, None, None]
    assert multiscale.datasets[1].coordinateTransformations[0].scale == [1, 2, 2]
    with pytest.raises(SlideError, match="does not say its resolution"):
        open_pyramid(out).facts.require_mpp()
    assert open_pyramid(out, mpp=0.25).facts.require_mpp() == Mpp(0.25, 0.25)


def test_an_override_is_not_cached(slides_folder: Path, tmp_path: Path) -> None:
    """The pyramid holds the file's own resolution; an override applies where it is given."""
    out = cache_pyramid(open_slide(slides_folder / "plain.tif", mpp=0.3), tmp_path / "a.ome.zarr")
    assert (open_pyramid(out).facts.mpp, open_pyramid(out).facts.mpp_source) == (Mpp(0.5, 0.5), "file")
    told = open_pyramid(out, mpp=0.3).facts
    assert (told.mpp, told.mpp_source) == (Mpp(0.3, 0.3), "override")


def test_tile_bytes_are_those_of_the_chunks(cached: Cached) -> None:
    """Costs are exact: all chunks and the shards' indices make up the files."""
    _, pyramid = cached("odd.tif", "portable")
    for i, layout in enumerate(pyramid.layouts):
        files = [path.stat().st_size for path, _ in layout.shards()]
        index = 16 * layout.chunks_per_shard[0] * layout.chunks_per_shard[1] + 4
        assert pyramid.direct(i)
        counts = pyramid.tile_bytes(i)
        assert counts.shape == (-(-layout.size[0] // 240), -(-layout.size[1] // 240))
        assert counts.min() > 0
        assert counts.sum() == sum(files) - index * len(files)
    patch = Raster(30, 30, 1, 1, 400, 100)
    assert count_reads(pyramid, [patch]).bytes == pyramid.tile_bytes(0)[0, :2].sum()


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count a process's reads")
@pytest.mark.parametrize("profile", ["native", "portable"])
def test_counted_bytes_are_the_bytes_really_read(cached: Cached, profile: Wish) -> None:
    """Reading patches costs their chunks, and of each shard that they touch its index and a reader's buffer."""
    _, pyramid = cached("odd.tif", profile)
    centres = np.random.default_rng(2).uniform((300, 300), (1500, 2100), (20, 2))
    patches = patch_rasters(centres, Mpp(0.5, 0.5), 256, 0.5)
    ((counted, read),) = measured_reads([(pyramid.facts.path, patches)])
    touched = count_reads(pyramid, patches).tiles
    assert counted <= read <= counted + touched * (16 * 17**2 + 4 + 2 * 8192)


def test_progress_counts_every_pixel(slides_folder: Path, tmp_path: Path) -> None:
    """Progress grows to the pixels of all levels; of a pyramid that is there already nothing is reported."""
    slide = open_slide(slides_folder / "even.tif")
    seen: list[tuple[int, int]] = []
    total = sum(level.width * level.height for level in slide.facts.levels)
    for _ in range(2):
        cache_pyramid(
            slide, tmp_path / "a.ome.zarr", profile="portable", progress=lambda done, of, _: seen.append((done, of))
        )
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_pyramid_that_is_there_is_left_alone(pyramid: Path) -> None:
    """The second call returns at once and touches no file."""
    before = {path: path.stat().st_mtime_ns for path in pyramid.rglob("*")}
    assert cache_pyramid(open_slide(pyramid.with_name("slide.tif")), pyramid) == pyramid
    assert {path: path.stat().st_mtime_ns for path in pyramid.rglob("*")} == before


def test_a_pyramid_can_be_cached_in_its_turn(pyramid: Path, tmp_path: Path) -> None:
    """A pyramid is a slide like any other; cached onto itself it is left alone."""
    slide = open_pyramid(pyramid)
    assert cache_pyramid(slide, pyramid) == pyramid
    copy = open_pyramid(cache_pyramid(slide, tmp_path / "copy.ome.zarr"))
    assert copy.facts == replace(slide.facts, path=copy.facts.path)
    assert_same_pixels(slide, copy)


def test_a_replaced_slide_is_cached_anew(pyramid: Path) -> None:
    """Another content under the same name: the outdated pyramid is exchanged, and nothing is left beside it."""
    path = write_slide(pyramid.with_name("slide.tif"), tissue_pixels(900, 300), levels=2)
    slide = open_slide(path)
    cache_pyramid(slide, pyramid)
    assert open_pyramid(pyramid).facts.fingerprint == slide.facts.fingerprint
    assert_same_pixels(slide, open_pyramid(pyramid))
    assert sorted(entry.name for entry in pyramid.parent.iterdir()) == ["slide.ome.zarr", "slide.tif"]


@pytest.mark.parametrize("what", ["file", "empty folder", "folder", "other zarr", "dangling link"])
def test_what_we_did_not_write_is_never_deleted(pyramid: Path, tmp_path: Path, what: str) -> None:
    """Whatever is in the way and not ours stays, and the error says what to do."""
    out = tmp_path / "in the way"
    if what == "file":
        out.write_text("precious")
    elif what == "dangling link":
        out.symlink_to(tmp_path / "nowhere")
    else:
        out.mkdir()
        if what == "folder":
            (out / "notes.txt").write_text("precious")
        elif what == "other zarr":
            zarr.create_group(out)
    before = [out, *sorted(out.rglob("*"))] if out.is_dir() else out.lstat().st_size
    with pytest.raises(SlideError, match=r"exists and is not a pyramid of ours: move it away or choose another"):
        cache_pyramid(open_slide(pyramid.with_name("slide.tif")), out)
    assert ([out, *sorted(out.rglob("*"))] if out.is_dir() else out.lstat().st_size) == before


def test_names_may_have_spaces_and_any_script(tmp_path: Path) -> None:
    """Users' folders are not ASCII."""
    slide = open_slide(write_slide(tmp_path / "Präparat 7 組織.tif", tissue_pixels(300, 300), levels=1))
    out = cache_pyramid(slide, tmp_path / "aus gabe/Präparat 7 組織.ome.zarr")
    assert_same_pixels(slide, open_pyramid(out))


def test_a_pyramid_pickles_small_and_reads_in_another_process(pyramid: Path) -> None:
    """What travels is the path and the facts."""
    slide = open_pyramid(pyramid)
    pixels = slide.read_level(0, Box(200, 100, 64, 64))
    assert len(pickle.dumps(slide)) < 6000
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(slide.read_level, 0, Box(200, 100, 64, 64)).result(timeout=60)
    np.testing.assert_array_equal(there, pixels)


def test_no_identifying_image_is_copied(pyramid: Path) -> None:
    """The folder holds the levels and nothing else; the facts name no label or macro image."""
    assert sorted(entry.name for entry in pyramid.iterdir()) == ["0", "1", "zarr.json"]
    assert open_pyramid(pyramid).facts.associated == ()


def test_a_missing_or_truncated_shard_is_noticed_when_opened(pyramid: Path) -> None:
    """Zarr would read a missing shard as blank; here it is damage, and the remedy works."""
    slide = open_slide(pyramid.with_name("slide.tif"))
    shard = pyramid / "0/c/0/0/0"
    for spoil in (lambda: os.truncate(shard, shard.stat().st_size - 1), shard.unlink):
        spoil()
        with pytest.raises(SlideError, match=r"damaged: 0/c/0/0/0 has \d+ bytes, expected \d+; delete it and run"):
            open_pyramid(pyramid)
        cache_pyramid(slide, pyramid)
        assert_same_pixels(slide, open_pyramid(pyramid))


def test_flipped_bits_are_noticed_when_read(pyramid: Path) -> None:
    """Chunks carry a checksum: damaged pixels are an error, never data."""
    shard = pyramid / "0/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 0xFF
    shard.write_bytes(data)
    slide = open_pyramid(pyramid)
    with pytest.raises(SlideError, match=r"cannot read the pyramid's level 0 .*delete it and run `saccade cache`"):
        slide.read_level(0, Box(0, 0, 600, 500))


@pytest.mark.parametrize(
    "spoil", ["garbage", "no record", "no facts", "no levels", "no array", "other array", "unfinished"]
)
def test_damaged_metadata_is_a_slide_error(pyramid: Path, spoil: str) -> None:
    """Whatever happened to the metadata, opening says so with a remedy."""
    root = pyramid / "zarr.json"
    group = json.loads(root.read_text())
    if spoil == "garbage":
        root.write_text(root.read_text()[:100])
    elif spoil == "unfinished":
        root.unlink()
    elif spoil == "no array":
        (pyramid / "0/zarr.json").write_text("{}")
    elif spoil == "other array":
        text = (pyramid / "0/zarr.json").read_text()
        (pyramid / "0/zarr.json").write_text(text.replace("500", "501"))
    else:
        if spoil == "no record":
            del group["attributes"]["saccade"]
        elif spoil == "no facts":
            del group["attributes"]["saccade"]["facts"]["background"]
        else:
            group["attributes"]["saccade"]["facts"]["levels"] = []
        root.write_text(json.dumps(group))
    with pytest.raises(SlideError, match="saccade cache"):
        open_pyramid(pyramid)


def test_what_is_no_pyramid_of_ours_is_refused(tmp_path: Path) -> None:
    """A folder, another zarr, and a missing path each get a clear line; a slide file opens as one."""
    zarr.create_group(tmp_path / "other.zarr")
    for name in (".", "other.zarr"):
        with pytest.raises(SlideError, match=r"not a finished pyramid of ours.*`saccade cache`"):
            open_pyramid(tmp_path / name)
    with pytest.raises(SlideError, match="no such file"):
        open_pyramid(tmp_path / "missing.ome.zarr")
    path = write_slide(tmp_path / "a.tif", tissue_pixels(300, 300), levels=1)
    assert open_pyramid(path, mpp=0.25).facts == open_slide(path, mpp=0.25).facts


def test_a_killed_run_leaves_no_pyramid_and_is_resumed(slides_folder: Path, tmp_path: Path, small_shards: None) -> None:
    """Killed outright in the middle: nothing under the pyramid's name, and what was finished is not done again."""
    slide = open_slide(slides_folder / "even.tif")
    out = tmp_path / "a.ome.zarr"
    killed = start_caching(slide.facts.path, out, stop_after=4)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    (partial,) = tmp_path.iterdir()
    layout = level_layouts(partial, slide.facts)[0]
    finished = {path: path.stat().st_mtime_ns for path, _ in layout.shards() if path.exists()}
    assert 4 <= len(finished) < 12
    torn = next(path for path, _ in layout.shards() if path not in finished)
    torn.parent.mkdir(parents=True, exist_ok=True)
    torn.write_bytes(next(iter(finished)).read_bytes()[:-100])  # as a machine that lost power may leave it
    litter = torn.with_name(f".saccade-{'0' * 32}")
    litter.write_bytes(b"half a shard")
    for name in (".saccade-notes", "notes.partial", f".saccade-{'0' * 31}"):
        torn.with_name(name).write_text("the user's")

    cache_pyramid(slide, out)
    assert_same_pixels(slide, open_pyramid(out))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ome.zarr"]
    found = {path.name for path in (out / torn.relative_to(partial)).parent.iterdir() if not path.name.isdigit()}
    assert found == {".saccade-notes", "notes.partial", f".saccade-{'0' * 31}"}
    for path, written in finished.items():
        assert (out / path.relative_to(partial)).stat().st_mtime_ns == written


@pytest.mark.parametrize("profile", ["native", "portable"])
def test_two_runs_at_once_make_one_good_pyramid(
    slides_folder: Path, tmp_path: Path, small_shards: None, profile: Wish
) -> None:
    """Both succeed, whoever is first; the result is whole and nothing is left beside it."""
    slide, out = open_slide(slides_folder / "even.tif"), tmp_path / "a.ome.zarr"
    runs = [start_caching(slide.facts.path, out, profile=profile) for _ in range(2)]
    for run in runs:
        _, errors = run.communicate(timeout=120)
        assert run.returncode == 0, errors
    assert verify_pyramid(out) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ome.zarr"]


def test_the_run_that_comes_second_finds_the_first_ones(
    slides_folder: Path, tmp_path: Path, small_shards: None
) -> None:
    """Another run finishes while this one is at work: this one ends well, and without writing it all again."""
    slide, out = open_slide(slides_folder / "even.tif"), tmp_path / "a.ome.zarr"
    calls: list[int] = []

    def other_run_finishes(done: int, total: int, written: int) -> None:
        calls.append(done)
        if len(calls) == 2:
            cache_pyramid(slide, out)

    cache_pyramid(slide, out, progress=other_run_finishes, writers=1)
    assert_same_pixels(slide, open_pyramid(out))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ome.zarr"]


def test_a_slide_that_changes_meanwhile_is_not_cached(tmp_path: Path, small_shards: None) -> None:
    """Half of one slide and half of another would be a pyramid of neither."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(1500, 1100))
    other = write_slide(tmp_path / "b.tif", tissue_pixels(1500, 1100, margin=0.3))
    out = tmp_path / "a.ome.zarr"

    def replace_it(done: int, total: int, written: int) -> None:
        if other.exists():
            os.replace(other, path)

    with pytest.raises(SlideError, match="changed while it was being copied"):
        cache_pyramid(open_slide(path), out, progress=replace_it, writers=1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize(("compression", "profile"), [(None, "portable"), ("jpeg", "native"), ("jpeg", "portable")])
def test_a_damaged_slide_fails_as_a_slide(tmp_path: Path, compression: str | None, profile: Wish) -> None:
    """What the slide cannot give is the slide's error, and no pyramid comes of it."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(1536, 1536), levels=1, compression=compression)
    slide = open_slide(path)
    assert slide.direct(0)
    os.truncate(path, path.stat().st_size * 2 // 3)
    with pytest.raises(SlideError):
        cache_pyramid(open_slide(path), tmp_path / "a.ome.zarr", profile=profile, everything=True)
    assert not (tmp_path / "a.ome.zarr").exists()


def test_an_unwritable_place_is_one_clear_error(slides_folder: Path, tmp_path: Path) -> None:
    """A target below what is a file."""
    slide = open_slide(slides_folder / "plain.tif")
    (tmp_path / "file").touch()
    with pytest.raises(SlideError, match=r"cannot write .*file.*check the disk and its permissions"):
        cache_pyramid(slide, tmp_path / "file/a.ome.zarr")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_place_is_one_clear_error(slides_folder: Path, tmp_path: Path) -> None:
    """A folder without permission to write."""
    tmp_path.chmod(0o500)
    with pytest.raises(SlideError, match=r"cannot write .*Permission denied; check the disk"):
        cache_pyramid(open_slide(slides_folder / "plain.tif"), tmp_path / "a.ome.zarr")


def test_a_write_that_the_system_refuses_is_one_clear_error_and_resumed(
    slides_folder: Path, tmp_path: Path, small_shards: None
) -> None:
    """A file larger than the process may write ends the run with a clear line; allowed again, it goes on."""
    slide, out = open_slide(slides_folder / "even.tif"), tmp_path / "a.ome.zarr"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))  # the largest file that this process may write
    try:
        with pytest.raises(SlideError, match=r"cannot write .*File too large.*it goes on where it stopped"):
            cache_pyramid(slide, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not out.exists()
    cache_pyramid(slide, out)
    assert_same_pixels(slide, open_pyramid(out))


@pytest.mark.parametrize("profile", ["native", "portable"])
def test_a_full_disk_is_one_clear_error_and_resumed(
    slides_folder: Path, small_disk: Path, small_shards: None, profile: Wish
) -> None:
    """The pyramid that is there stays good, nothing half-written has a name, and with room again it goes on."""
    first = cache_pyramid(open_slide(slides_folder / "odd.tif"), small_disk / "first.ome.zarr", profile="native")
    filler = small_disk / "filler"
    slide = open_slide(write_slide(small_disk.with_name("b.tif"), tissue_pixels(700, 900), compression="jpeg"))
    out = small_disk / "a.ome.zarr"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 60_000))
    with pytest.raises(FullDiskError, match=r"cannot write .*the disk is full .*make room on it, .* where it stopped"):
        cache_pyramid(slide, out, profile=profile)
    assert not out.exists()
    assert verify_pyramid(first) == []
    assert not list(small_disk.rglob("*.ome.zarr/**/.saccade-*"))
    filler.unlink()
    shutil.rmtree(first)
    cache_pyramid(slide, out, profile=profile)
    assert verify_pyramid(out) == []
    assert [entry.name for entry in small_disk.iterdir()] == ["a.ome.zarr"]


@pytest.mark.parametrize("profile", ["native", "portable"])
def test_a_pyramid_on_a_read_only_disk_is_read_and_found_current(
    slides_folder: Path, small_disk: Path, profile: Wish
) -> None:
    """A cache that is given out read-only: everything that reads works, what would write says so."""
    slide = open_slide(slides_folder / "odd.tif")
    if profile == "portable":
        slide = open_slide(write_slide(small_disk.with_name("b.tif"), tissue_pixels(400, 300), compression="deflate"))
    out = cache_pyramid(slide, small_disk / "a.ome.zarr", profile=profile)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert cache_pyramid(slide, out, profile=profile) == out
    assert_same_pixels(slide, open_pyramid(out))
    assert verify_pyramid(out) == []
    with pytest.raises(SlideError, match=r"cannot write .*Read-only file system; check the disk and its permissions"):
        cache_pyramid(slide, small_disk / "b.ome.zarr")


@pytest.mark.parametrize("bad", ["gone", "empty", "short", "cut", "shifted", "zeroed", "longer", "other index"])
def test_a_shard_that_is_not_whole_is_noticed(pyramid: Path, bad: str) -> None:
    """However a shard was spoilt, behind the back of who has the pyramid open: an error that names it, no pixels."""
    slide = open_pyramid(pyramid)
    shard = pyramid / "0/c/0/0/0"
    data = shard.read_bytes()
    shard.unlink()
    if bad != "gone":
        flipped = bytes([data[-20] ^ 1])
        contents = {
            "empty": b"",
            "short": data[:50],
            "cut": data[:-1],
            "shifted": data[1:],
            "zeroed": bytes(len(data)),
            "longer": data + b"x",
            "other index": data[:-20] + flipped + data[-19:],
        }
        shard.write_bytes(contents[bad])
    with pytest.raises(SlideError, match=r"cannot read the pyramid's level 0 .*c/0/0/0.*delete it and run"):
        slide.read_level(0, Box(0, 0, 10, 10))
    with pytest.raises(SlideError, match=r"cannot read the pyramid's level 0.*c/0/0/0.*delete it and run"):
        slide.tile_bytes(0)


@pytest.mark.realdata
@pytest.mark.parametrize("name", REAL)
def test_real_slides_and_their_pyramids_are_the_same(shared_data: Path, tmp_path: Path, name: str) -> None:
    """Scanners' own files, direct or through OpenSlide: same pixels, same renders, same fingerprint, valid metadata."""
    slide = open_slide(shared_data / "slides" / name)
    out = cache_pyramid(slide, tmp_path / "a.ome.zarr")
    pyramid = open_pyramid(out)
    assert isinstance(pyramid, ZarrSlide)
    Image.from_zarr(zarr.open_group(out, mode="r"))
    assert pyramid.facts.fingerprint == slide.facts.fingerprint
    assert_same_pixels(slide, pyramid)
    assert_same_renders(slide, pyramid, slide.facts.mpp or Mpp(0.5, 0.5))
    assert pyramid.facts.associated == ()
    shutil.rmtree(out)


@pytest.mark.realdata
def test_a_real_slide_that_cannot_be_read_gives_no_pyramid(shared_data: Path, tmp_path: Path) -> None:
    """The header opens, the pixels do not."""
    with pytest.raises(SlideError, match="the file is damaged"):
        cache_pyramid(open_slide(shared_data / "slides/broken/unreadable.svs"), tmp_path / "a.ome.zarr")
    assert not (tmp_path / "a.ome.zarr").exists()
