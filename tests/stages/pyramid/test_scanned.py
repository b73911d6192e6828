"""The scanned part of a slide lies where QuPath shows it: what is written for one program fits together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from makers import tissue_pixels
from scn import write_scn

from stages.geometry import Box, Raster
from stages.overlay.geojson import geojson
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.export import export_ngff04
from stages.pyramid.open import open_pyramid
from stages.pyramid.scanned import scanned
from stages.slide.files import open_slide

SIZE = (1600, 2400)


@pytest.mark.parametrize("corner", [(300, 1100), (301, 1103), (-120, 900), (900, -33), (1100, 1800)])
def test_an_export_begins_where_objects_count_from(tmp_path: Path, corner: tuple[int, int]) -> None:
    """A patch's outline, drawn onto the exported image, surrounds the pixels that were read; so too off the slide."""
    image = tissue_pixels(1024, 900, margin=0)
    slide = open_slide(write_scn(tmp_path / "a.scn", image, corner, SIZE))
    assert slide.facts.origin == corner
    assert bool(slide.facts.warnings) == (slide.facts.bounds != Box(*corner, 1024, 900))
    inside = slide.facts.bounds
    x, y = inside.x + 200, inside.y + 150
    found = geojson(
        np.ones((1, 1)),
        Raster(inside.x, inside.y, 64, 64, 1, 1),
        [[x, y, 64, 48]],
        attention_at=[1.0],
        weights=[1.0],
        origin=slide.facts.origin,
    )
    left, top = found["features"][-1]["geometry"]["coordinates"][0][0]
    out = export_ngff04(slide, tmp_path / "a.ngff04.ome.zarr", everything=True)
    exported = zarr.open_group(out, mode="r", zarr_format=2)
    shown = exported["0"][0, :, 0, int(top) : int(top) + 48, int(left) : int(left) + 64]
    np.testing.assert_array_equal(np.moveaxis(shown, 0, -1), slide.read_level(0, Box(x, y, 64, 48)))
    written = json.loads((out / ".zattrs").read_text())
    assert written["saccade"]["level0_box"][:2] == list(corner) == found["saccade"]["origin_level0"]
    moved = written["multiscales"][0]["datasets"][0]["coordinateTransformations"][1]["translation"]
    assert moved[3:] == [corner[1] * 0.5, corner[0] * 0.5]


def test_every_level_of_the_part_shows_the_slide(tmp_path: Path) -> None:
    """Each begins with the pixel that the corner lies in, and says so; what lies outside the slide is background."""
    slide = open_slide(write_scn(tmp_path / "a.scn", tissue_pixels(1024, 900, margin=0), (-121, 902), SIZE))
    part = scanned(slide)
    for level, (mine, own) in enumerate(zip(part.facts.levels, slide.facts.levels, strict=True)):
        left, top = (round(v) for v in own.from_level0((mine.x, mine.y)).tolist())
        shown = part.read_level(level, Box(0, 0, mine.width, mine.height))
        assert (shown[:, :-left] == slide.facts.background).all()
        there = slide.read_level(level, Box(0, top, mine.width + left, mine.height))
        np.testing.assert_array_equal(shown[:, -left:], there)


def test_a_slide_without_bounds_is_its_own_part(slides_folder: Path) -> None:
    """Nothing is wrapped that is whole."""
    slide = open_slide(slides_folder / "even.tif")
    assert scanned(slide) is slide


def test_a_pyramid_in_the_slides_place_counts_from_the_same_corner(tmp_path: Path) -> None:
    """Its objects are those of the slide, and so are its warnings."""
    slide = open_slide(write_scn(tmp_path / "a.scn", tissue_pixels(600, 500, margin=0), (-120, 900), SIZE))
    facts = open_pyramid(cache_pyramid(slide, tmp_path / "a.ome.zarr")).facts
    assert (facts.origin, facts.bounds, facts.doubts) == (slide.facts.origin, slide.facts.bounds, slide.facts.doubts)
    assert len(facts.doubts) == 1
