"""Label images lie on the slide's own pyramid, and say of each object what is known of it, to every reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr.io
import ome_zarr.reader
import pytest
import zarr
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel

from stages.exports.label_image import write_label_image
from stages.geometry import Mpp, Raster
from stages.overlay.attention_map import times_uniform
from stages.pyramid.multiscales import is_slide

RASTER = Raster(600, 300, 127.3, 131.1, 33, 29)
"""Of a slide with bounds; no cell is a whole number of pixels."""
MPP = Mpp(0.5, 0.25)
SPOTS = ((6, 4), (20, 30))
READ = (6 * 33 + 4, 9, 9)
"""Cells that patches were read of: one of them twice."""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    attention = np.ones(RASTER.shape)
    attention[SPOTS[0]], attention[SPOTS[1]] = 40, 20
    multiple = times_uniform(attention / attention.sum())
    path = tmp_path / "s.ome.zarr"
    path.mkdir()
    maps = {"attention": multiple, "evidence": np.random.default_rng(0).normal(size=RASTER.shape)}
    told = {"attention": [1.0, 2.0, 3.0], "contribution": [np.nan, 5.0, 6.0]}
    write_label_image(path, maps, RASTER, mpp=MPP, name="s", multiple=multiple, patch_cells=READ, measurements=told)
    return path


def _level0(found: dict[str, Any], row: int, column: int) -> np.ndarray[Any, Any]:
    """Where the centre of a pixel is in the edge coordinates of level 0, by a reader's scale and translation in µm,
    which count from the centre of level 0's first pixel."""
    x = column * found["scale"]["x"] + found["translation"]["x"]
    y = row * found["scale"]["y"] + found["translation"]["y"]
    return np.array([x / MPP.x, y / MPP.y]) + 0.5


def _wanted(row: int, column: int) -> np.ndarray[Any, Any]:
    return RASTER.centres_level0([row * RASTER.width + column])[0]


def test_by_ome_zarr(written: Path) -> None:
    location = ome_zarr.io.parse_url(written, mode="r")
    assert location is not None
    nodes = {node.zarr.basename(): node for node in ome_zarr.reader.Reader(location)()}
    regions, patches = nodes["regions"], nodes["patches"]
    numbers = np.asarray(regions.data[0])
    assert [int(numbers[spot]) for spot in SPOTS] == [1, 2]
    assert np.count_nonzero(numbers) == 2
    scale, move = (step[step["type"]] for step in regions.metadata["coordinateTransformations"][0])
    told = {"scale": dict(zip("yx", scale, strict=True)), "translation": dict(zip("yx", move, strict=True))}
    np.testing.assert_allclose(_level0(told, *SPOTS[1]), _wanted(*SPOTS[1]))
    assert regions.metadata["properties"][1]["cells"] == 1
    assert regions.metadata["color"][1] == pytest.approx([253 / 255, 191 / 255, 17 / 255, 1])
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(patches.data[0])), sorted(set(READ)))
    # the cell that two patches were read of has the first one's number; what is not known is left out
    assert patches.metadata["properties"] == {1: {"attention": 1.0}, 2: {"attention": 2.0, "contribution": 5.0}}


def test_metadata_are_valid(written: Path) -> None:
    Image.from_zarr(zarr.open_group(written, mode="r"))
    for name in ("regions", "patches"):
        ImageLabel.from_zarr(zarr.open_group(written / "labels" / name, mode="r"))


def test_image_holds_the_maps_as_they_are(written: Path) -> None:
    group = zarr.open_group(written, mode="r")
    np.testing.assert_array_equal(group["0"][1], np.random.default_rng(0).normal(size=RASTER.shape).astype(np.float32))
    low, high = (channel["window"]["min"] for channel in group.attrs["ome"]["omero"]["channels"])
    assert low == 0 > high  # evidence has a sign


def test_export_is_no_slide_to_a_search(written: Path) -> None:
    assert not is_slide(written)


def test_without_regions_and_patches_labels_are_empty(tmp_path: Path) -> None:
    even = np.ones(RASTER.shape)
    write_label_image(
        tmp_path, {"attention": even}, RASTER, mpp=MPP, name="s", multiple=even, patch_cells=[], measurements={}
    )
    for name in ("regions", "patches"):
        group = zarr.open_group(tmp_path / "labels" / name, mode="r")
        assert not group["0"][:].any()
        ImageLabel.from_zarr(group)


def test_by_ngff_zarr(written: Path) -> None:
    ngff_zarr = pytest.importorskip("ngff_zarr")
    (image,) = ngff_zarr.from_ngff_zarr(str(written / "labels" / "regions")).images
    found = {"scale": image.scale, "translation": image.translation}
    np.testing.assert_allclose(_level0(found, *SPOTS[0]), _wanted(*SPOTS[0]))


def test_by_ngio(written: Path) -> None:
    ngio = pytest.importorskip("ngio")
    container = ngio.open_ome_zarr_container(written)
    assert sorted(container.list_labels()) == ["patches", "regions"]
    label = container.get_label("regions")
    assert (label.pixel_size.x, label.pixel_size.y) == pytest.approx((127.3 * 0.5, 131.1 * 0.25))
    assert int(label.get_as_numpy()[SPOTS[1]]) == 2


def test_by_xarray(written: Path) -> None:
    xarray = pytest.importorskip("xarray")
    label = xarray.open_zarr(written / "labels" / "patches", consolidated=False)["0"]
    assert label.dims == ("y", "x")
    assert int(label[SPOTS[0]]) == 1
