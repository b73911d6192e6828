"""The export is what older programs expect: OME-Zarr 0.4 on zarr v2, with the slide's pixels."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from makers import tissue_pixels, write_slide
from ome_zarr_models.v04.image import Image

from pipeline.cohort.target import find_target
from stages.geometry import Box
from stages.pyramid.export import export_ngff04
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError
from stages.slide.files import open_slide
from stages.slide.protocol import Slide


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Slide:
    """Two levels, and one between that is made; odd sizes."""
    path = tmp_path_factory.mktemp("slides") / "odd.tif"
    return open_slide(write_slide(path, tissue_pixels(1301, 1003), levels=2, factor=8, tile=240))


@pytest.fixture(scope="module")
def exported(slide: Slide) -> Path:
    """Its export."""
    return export_ngff04(slide, slide.facts.path.with_name("a.ngff04.ome.zarr"))


def test_it_is_valid(slide: Slide, exported: Path) -> None:
    """ome-zarr-models accepts it; five axes, true scales, as 0.4 has them."""
    image = Image.from_zarr(zarr.open_group(exported, mode="r", zarr_format=2))
    (multiscale,) = image.attributes.multiscales
    assert multiscale.version == "0.4"
    assert [(axis.name, axis.type) for axis in multiscale.axes] == [
        ("t", "time"),
        ("c", "channel"),
        ("z", "space"),
        ("y", "space"),
        ("x", "space"),
    ]
    scales = [dataset.coordinateTransformations[0].scale for dataset in multiscale.datasets]
    assert scales == [[1, 1, 1, 0.5, 0.5], [1, 1, 1, 2, 2], [1, 1, 1, 4, 4]]
    moves = [dataset.coordinateTransformations[1].translation for dataset in multiscale.datasets]
    assert moves == [[0, 0, 0, 0, 0], [0, 0, 0, 0.75, 0.75], [0, 0, 0, 1.75, 1.75]]


def test_it_has_the_slides_pixels(slide: Slide, exported: Path) -> None:
    """In plain files of one chunk each, nested by axis, deflated."""
    group = zarr.open_group(exported, mode="r", zarr_format=2)
    for name, level in (("0", 0), ("2", 1)):
        raster = slide.facts.levels[level]
        pixels = np.moveaxis(slide.read_level(level, Box(0, 0, raster.width, raster.height)), -1, 0)
        np.testing.assert_array_equal(group[name][0, :, 0], pixels)
    metadata = json.loads((exported / "0/.zarray").read_text())
    assert metadata["compressor"] == {"id": "zlib", "level": 1}
    assert metadata["dimension_separator"] == "/"
    assert (exported / "0/0/0/0/4/5").is_file()
    assert not list(exported.rglob(".saccade-*"))


def test_what_is_not_kept_is_background(tmp_path: Path) -> None:
    """As in a portable pyramid; everything is kept on request."""
    image = np.full((2500, 2500, 3), 240, np.uint8)
    image[:500, :500] = tissue_pixels(500, 500, margin=0)
    slide, out = open_slide(write_slide(tmp_path / "a.tif", image)), tmp_path / "a.ngff04.ome.zarr"
    export_ngff04(slide, out)
    assert (zarr.open_group(out, mode="r", zarr_format=2)["0"][0, :, 0, 2000:, 2000:] == 255).all()
    before = os.stat(out).st_ino
    export_ngff04(slide, out)
    assert os.stat(out).st_ino == before
    export_ngff04(slide, out, everything=True)
    level0 = np.moveaxis(slide.read_level(0, Box(0, 0, 2500, 2500)), -1, 0)
    np.testing.assert_array_equal(zarr.open_group(out, mode="r", zarr_format=2)["0"][0, :, 0], level0)


def test_a_search_leaves_it_alone_and_who_names_it_gets_it(slide: Slide, exported: Path) -> None:
    """The slide that it was made of lies beside it, as a rule, and would count twice."""
    (found,) = find_target(exported.parent).slides
    assert found.path.name == "odd.tif"
    image = open_pyramid(exported)
    assert image.facts.mpp == slide.facts.mpp
    # the level between was averaged
    levels = [(level.width, level.height, level.scale_x, level.x) for level in image.facts.levels]
    assert levels == [(1301, 1003, 1, 0), (326, 251, 4, 0), (162, 125, 8, 0)]
    whole = Box(0, 0, 162, 125)
    np.testing.assert_array_equal(image.read_level(2, whole), slide.read_level(1, whole))


def test_what_is_in_the_way_stays(slide: Slide, tmp_path: Path) -> None:
    """Only an export of ours is replaced."""
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(SlideError, match=r"exists and is not a pyramid of ours, or holds something else"):
        export_ngff04(slide, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "precious"


def test_a_replaced_slide_is_exported_anew(slide: Slide, tmp_path: Path) -> None:
    """It is known by its content."""
    path, out = tmp_path / "a.tif", tmp_path / "a.ngff04.ome.zarr"
    path.write_bytes(slide.facts.path.read_bytes())
    export_ngff04(open_slide(path), out)
    other = open_slide(write_slide(path, tissue_pixels(700, 600), levels=1))
    export_ngff04(other, out)
    pixels = np.moveaxis(other.read_level(0, Box(0, 0, 700, 600)), -1, 0)
    np.testing.assert_array_equal(zarr.open_group(out, mode="r", zarr_format=2)["0"][0, :, 0], pixels)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.ngff04.ome.zarr", "a.tif"]
