"""What a portable pyramid keeps is all that a run may look at, and what it does not keep it says."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from makers import tissue_pixels, write_slide
from numpy.typing import NDArray
from ome_zarr_models.v05.image import Image

from pipeline.cohort.target import find_target
from pipeline.info import describe
from stages.geometry import Box, Mpp, Raster, patch_rasters, physical_raster
from stages.pyramid.cache import cache_pyramid, verify_pyramid
from stages.pyramid.open import ZarrSlide, open_pyramid
from stages.pyramid.plan import MARGIN_UM, choose_profile, portable_plan
from stages.pyramid.record import read_record
from stages.slide.facts import SlideError
from stages.slide.files import open_slide
from stages.slide.render import render
from stages.tissue.mask import tissue_mask
from stages.tissue.thumbnail import read_thumbnail

PLACE = Box(700, 900, 1200, 1000)
"""Where the sparse slide has its tissue, in its own pixels of 0.5 µm."""


def sparse_pixels() -> NDArray[np.uint8]:
    """Much glass and little tissue; the glass is not the background that missing chunks read as."""
    image = np.full((4000, 3600, 3), 240, np.uint8)
    image[PLACE.y : PLACE.y + PLACE.height, PLACE.x : PLACE.x + PLACE.width] = tissue_pixels(
        PLACE.width, PLACE.height, margin=0
    )
    return image


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of two levels that is mostly glass."""
    path = tmp_path_factory.mktemp("sparse") / "sparse.tif"
    return write_slide(path, sparse_pixels(), tile=128, levels=2, factor=4)


@pytest.fixture(scope="module")
def kept(sparse: Path) -> ZarrSlide:
    """Its portable pyramid, as it is by default."""
    pyramid = open_pyramid(cache_pyramid(open_slide(sparse), sparse.with_name("a.ome.zarr"), profile="portable"))
    assert isinstance(pyramid, ZarrSlide)
    return pyramid


def test_tissue_and_its_surroundings_are_kept(sparse: Path, kept: ZarrSlide) -> None:
    """Within the margin the pixels are the slide's; most of the glass is not there and reads as background."""
    slide = open_slide(sparse)
    assert kept.kept == read_record(kept.facts.path).kept == "tissue"
    margin = int(MARGIN_UM / 0.5)
    near = Box(PLACE.x - margin, PLACE.y - margin, PLACE.width + 2 * margin, PLACE.height + 2 * margin)
    near = near.intersect(Box(0, 0, 3600, 4000))
    np.testing.assert_array_equal(kept.read_level(0, near), slide.read_level(0, near))
    far = Box(3000, 3500, 400, 400)
    assert (kept.read_level(0, far) == slide.facts.background).all()
    assert (slide.read_level(0, far) != slide.facts.background).all()
    assert 0.3 < (kept.tile_bytes(0) > 0).mean() < 0.6
    assert (kept.tile_bytes(1) > 0).all()
    assert verify_pyramid(kept.facts.path) == []


def test_info_says_that_it_is_not_all(sparse: Path, kept: ZarrSlide) -> None:
    """Whoever looks at it is warned."""
    assert any("only tissue" in warning for warning in describe(kept.facts.path)["warnings"])
    assert not any("only tissue" in warning for warning in describe(sparse)["warnings"])


def test_others_read_what_is_not_kept_as_background_too(kept: ZarrSlide) -> None:
    """Valid OME-Zarr whose missing chunks are the fill value."""
    group = zarr.open_group(kept.facts.path, mode="r")
    Image.from_zarr(group)
    pixels = kept.read_level(0, Box(1000, 1000, 2600, 2000))
    np.testing.assert_array_equal(np.moveaxis(group["0"][:, 1000:3000, 1000:3600], 0, -1), pixels)


@pytest.mark.parametrize("mpp", [4.0, 5.3, 8.0, 16.0])
def test_thumbnails_and_masks_are_the_slides(sparse: Path, kept: ZarrSlide, mpp: float) -> None:
    """No thumbnail is made from a level of which only tissue is kept."""
    theirs, ours = (read_thumbnail(slide, mpp) for slide in (open_slide(sparse), kept))
    np.testing.assert_array_equal(ours.rgb, theirs.rgb)
    assert tissue_mask(ours.rgb, mpp).any()


@pytest.mark.parametrize("mpp", [4.0, 8.0, 16.0, 32.0])
def test_patches_of_tissue_cells_are_the_slides(sparse: Path, kept: ZarrSlide, mpp: float) -> None:
    """Wherever the mask of whatever scale finds tissue."""
    slide = open_slide(sparse)
    thumbnail = read_thumbnail(slide, mpp)
    found = np.flatnonzero(tissue_mask(thumbnail.rgb, mpp))
    some = np.random.default_rng(0).choice(found, 12)
    centres = thumbnail.raster.centres_level0(np.concatenate([[found[0], found[-1]], some]))
    for patch in patch_rasters(centres, Mpp(0.5, 0.5), 256, 0.5):
        np.testing.assert_array_equal(render(kept, patch), render(slide, patch))


def test_a_run_predicts_the_same_from_it(sparse: Path, kept: ZarrSlide, checkpoint: Path, tmp_path: Path) -> None:
    """The whole way from the thumbnail to the intervals."""
    from pipeline.run.keys import RunSettings
    from pipeline.run.run import run_cohort

    rows = []
    for name, path in (("slide", sparse), ("pyramid", kept.facts.path)):
        summary = run_cohort(find_target(path), tmp_path / name, RunSettings(model=checkpoint))
        rows.append(summary.rows[0])
    for column in ("predicted", "prob_tumour", "prob_tumour_low", "prob_tumour_high", "cells", "key"):
        assert rows[0][column] == rows[1][column]


def test_everything_is_kept_on_request_and_satisfies_both(sparse: Path, tmp_path: Path) -> None:
    """Who asks for more than is there gets it made anew; who asks for less takes what is there."""
    slide, out = open_slide(sparse), tmp_path / "a.ome.zarr"

    def cached(everything: bool) -> tuple[str, int]:
        cache_pyramid(slide, out, profile="portable", everything=everything)
        return read_record(out).kept, os.stat(out / "zarr.json").st_ino

    small = cached(False)
    assert cached(False) == small
    whole = cached(True)
    assert (small[0], whole[0]) == ("tissue", "all")
    assert cached(True) == cached(False) == whole


def test_the_stated_resolution_tells_where_tissue_is(tmp_path: Path) -> None:
    """A slide that does not say its resolution is kept whole, unless the user says it."""
    path = write_slide(tmp_path / "a.tif", sparse_pixels(), mpp=None, levels=2, factor=4)
    unknown, known = open_slide(path), open_slide(path, mpp=0.5)
    assert portable_plan(unknown, seen=unknown, everything=False).kept == "all"
    assert portable_plan(unknown, seen=known, everything=False).kept == "tissue"
    cache_pyramid(known, tmp_path / "a.ome.zarr", profile="portable")
    assert read_record(tmp_path / "a.ome.zarr").kept == "tissue"


@pytest.mark.parametrize("what", ["no tissue", "only tissue", "coarse"])
def test_where_nothing_can_be_left_out_everything_is_kept(tmp_path: Path, what: str) -> None:
    """And the record says so."""
    image = np.full((900, 900, 3), 240, np.uint8) if what == "no tissue" else tissue_pixels(900, 900, margin=0)
    slide = open_slide(write_slide(tmp_path / "a.tif", image, mpp=2.0 if what == "coarse" else 0.5, levels=1))
    out = cache_pyramid(slide, tmp_path / "a.ome.zarr", profile="portable")
    assert read_record(out).kept == "all"
    np.testing.assert_array_equal(open_pyramid(out).read_level(0, Box(0, 0, 900, 900)), image_of(slide))


def image_of(slide: object) -> NDArray[np.uint8]:
    """All of a small slide's level 0."""
    return slide.read_level(0, Box(0, 0, 900, 900))  # type: ignore[attr-defined, no-any-return]


def test_a_part_of_a_slide_is_not_cached_as_if_it_were_all(kept: ZarrSlide, tmp_path: Path) -> None:
    """What is not there cannot be copied; onto itself it is left alone."""
    with pytest.raises(SlideError, match=r"holds only its slide's tissue: cache the slide itself"):
        cache_pyramid(kept, tmp_path / "copy.ome.zarr", profile="portable", everything=True)
    assert cache_pyramid(kept, kept.facts.path) == kept.facts.path


def test_profiles_follow_from_the_slide(slides_folder: Path, tmp_path: Path) -> None:
    """JPEG tiles on every level are copied, anything else is not; who asks for what cannot be is told."""
    jpeg, other = open_slide(slides_folder / "even.tif"), open_slide(slides_folder / "plain.tif")
    assert (choose_profile(jpeg, "auto"), choose_profile(other, "auto")) == ("native", "portable")
    assert choose_profile(jpeg, "portable") == "portable"
    with pytest.raises(SlideError, match=r"no JPEG tiles that could be copied as they are: use --profile portable"):
        cache_pyramid(other, tmp_path / "a.ome.zarr", profile="native")
    out = cache_pyramid(jpeg, tmp_path / "a.ome.zarr")
    assert read_record(out).profile == "native"
    cache_pyramid(jpeg, out, profile="portable")
    assert read_record(out).profile == "portable"


def test_a_thumbnail_of_a_flat_slide_comes_from_a_level_that_was_made(tmp_path: Path) -> None:
    """There is always a level small enough; its pixels are the slide's means: inside, only rounding differs."""
    slide = open_slide(write_slide(tmp_path / "a.tif", tissue_pixels(2500, 3001), levels=1))
    pyramid = open_pyramid(cache_pyramid(slide, tmp_path / "a.ome.zarr", profile="portable", everything=True))
    assert [(level.width, level.height) for level in pyramid.facts.levels] == [(2500, 3001), (625, 751)]
    assert pyramid.facts.levels[1] == Raster(0, 0, 4, 4, 625, 751)
    thumbnail = physical_raster(slide.facts.bounds, Mpp(0.5, 0.5), 8.0)
    theirs, ours = render(slide, thumbnail).astype(int), render(pyramid, thumbnail).astype(int)
    assert 0 < np.abs(ours - theirs)[:-1, :-1].max() <= 1
    whole = render(slide, Raster(0, 0, 4, 4, 625, 750))
    np.testing.assert_array_equal(pyramid.read_level(1, Box(0, 0, 625, 750)), whole)
