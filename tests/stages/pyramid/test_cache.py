"""A cached slide is the slide: same pixels, same renders."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from makers import (
    MADE,
    Cached,
    assert_same_pixels,
    assert_same_renders,
    empty_tile,
    tissue_pixels,
    write_slide,
)
from makers import spoil as spoil_tile
from ome_zarr_models.v05.image import Image

import stages.pyramid.layout
from stages.geometry import Box, Mpp
from stages.pyramid.cache import cache_pyramid, verify_pyramid
from stages.pyramid.open import ZarrSlide, open_pyramid
from stages.pyramid.plan import Wish, choose_profile
from stages.pyramid.record import read_record
from stages.slide.facts import SlideError
from stages.slide.files import open_slide

REAL = [
    "CMU-1-Small-Region.svs",
    "test3-DAPI-2-(387).ndpi",
    "multi_frame_jpeg_camelyon_challenge_image.dcm",
    "small.svs",
    "boxes.tiff",
]


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


@pytest.mark.parametrize("cores", [None, 1, 64])
def test_a_system_that_does_not_tell_a_processs_cores_has_them_all(
    monkeypatch: pytest.MonkeyPatch, cores: int | None
) -> None:
    """macOS and Windows."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert stages.pyramid.cache._cores() == (cores or 1)


def test_a_portable_pyramid_stays_portable_until_another_is_asked_for(slides_folder: Path, tmp_path: Path) -> None:
    """`auto` would have made a native one of this slide; whoever asked for the other may rely on it."""
    slide, out = open_slide(slides_folder / "odd.tif"), tmp_path / "a.ome.zarr"
    wishes: tuple[Wish, ...] = ("portable", "auto", "native", "auto")
    found = [read_record(cache_pyramid(slide, out, profile=profile)).profile for profile in wishes]
    assert found == ["portable", "portable", "native", "native"]


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


def test_a_pyramid_can_be_cached_in_its_turn(pyramid: Path, tmp_path: Path) -> None:
    """A pyramid is a slide like any other; cached onto itself it is left alone."""
    slide = open_pyramid(pyramid)
    assert cache_pyramid(slide, pyramid) == pyramid
    copy = open_pyramid(cache_pyramid(slide, tmp_path / "copy.ome.zarr"))
    assert copy.facts == replace(slide.facts, path=copy.facts.path, revision=copy.facts.revision)
    assert_same_pixels(slide, copy)


def test_names_may_have_spaces_and_any_script(tmp_path: Path) -> None:
    """Users' folders are not ASCII."""
    slide = open_slide(write_slide(tmp_path / "Präparat 7 組織.tif", tissue_pixels(300, 300), levels=1))
    out = cache_pyramid(slide, tmp_path / "aus gabe/Präparat 7 組織.ome.zarr")
    assert_same_pixels(slide, open_pyramid(out))


def test_no_identifying_image_is_copied(pyramid: Path) -> None:
    """The folder holds the levels and nothing else; the facts name no label or macro image."""
    assert sorted(entry.name for entry in pyramid.iterdir()) == ["0", "1", "zarr.json"]
    assert open_pyramid(pyramid).facts.associated == ()


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
