"""What we write is read by others: ome-zarr, and a process that has only zarr and our codec's entry point."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr.io
import ome_zarr.reader
import pytest
from numpy.typing import NDArray
from ome_zarr.classes.image import OMEZarrMultiscale

from pipeline.output.attention_map import write_attention_zarr
from stages.geometry import Box, Mpp, Raster
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.export import export_ngff04
from stages.slide.files import open_slide

Store = Callable[[str, Any], Path]
PROFILES = ["native", "portable"]


@pytest.fixture(scope="module")
def stored(slides_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A made slide's pyramid by name and profile; each made once."""
    folder = tmp_path_factory.mktemp("interop")

    def path(name: str, profile: Any) -> Path:
        slide = open_slide(slides_folder / name)
        return cache_pyramid(slide, folder / f"{name}.{profile}.ome.zarr", profile=profile, everything=True)

    return path


def level_of(slide_path: Path, level: int) -> NDArray[np.uint8]:
    """(c, y, x), as OME-Zarr orders its axes."""
    slide = open_slide(slide_path)
    raster = slide.facts.levels[level]
    return np.moveaxis(slide.read_level(level, Box(0, 0, raster.width, raster.height)), -1, 0)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ["even.tif", "odd.tif"])
def test_ome_zarr_opens_a_pyramid(stored: Store, slides_folder: Path, name: str, profile: str) -> None:
    """The reference implementation finds every level, its scale in µm, its channels and its pixels."""
    slide = open_slide(slides_folder / name)
    image: Any = OMEZarrMultiscale.from_ome_zarr(str(stored(name, profile)))
    for i, level in enumerate(slide.facts.levels):
        found = image.images[i]
        assert found.axes == ["c", "y", "x"]
        assert found.scale == pytest.approx({"c": 1, "y": 0.5 * level.scale_y, "x": 0.5 * level.scale_x})
        assert found.axes_units == {"y": "micrometer", "x": "micrometer"}
        np.testing.assert_array_equal(found.data.compute(), level_of(slides_folder / name, i))
    assert [channel.label for channel in image.omero.channels] == ["red", "green", "blue"]


@pytest.mark.parametrize("profile", PROFILES)
def test_ome_zarrs_reader_finds_an_image(stored: Store, slides_folder: Path, profile: str) -> None:
    """The way that napari's plugin and the command line of ome-zarr go."""
    location = ome_zarr.io.parse_url(stored("even.tif", profile), mode="r")
    assert location is not None
    (node, *_) = list(ome_zarr.reader.Reader(location)())
    assert any(isinstance(spec, ome_zarr.reader.Multiscales) for spec in node.specs)
    np.testing.assert_array_equal(node.data[1].compute(), level_of(slides_folder / "even.tif", 1))


def test_ome_zarr_opens_an_export_of_version_04(slides_folder: Path, tmp_path: Path) -> None:
    path = export_ngff04(open_slide(slides_folder / "even.tif"), tmp_path / "even.ome.zarr", everything=True)
    image: Any = OMEZarrMultiscale.from_ome_zarr(str(path))
    assert image.images[1].scale["x"] == pytest.approx(1.0)
    np.testing.assert_array_equal(np.squeeze(image.images[1].data.compute()), level_of(slides_folder / "even.tif", 1))


def test_xarray_opens_a_level_and_a_map(stored: Store, slides_folder: Path, tmp_path: Path) -> None:
    """Levels have one name for each axis and different lengths, so of a pyramid the other levels are left out."""
    xarray = pytest.importorskip("xarray")
    path = stored("even.tif", "portable")
    level = xarray.open_zarr(path, consolidated=False, drop_variables=["0", "2"])["1"]
    assert level.dims == ("c", "y", "x")
    np.testing.assert_array_equal(level, level_of(slides_folder / "even.tif", 1))
    write_attention_zarr(tmp_path / "a.zarr", np.eye(3), Raster(0, 0, 64, 64, 3, 3), mpp=Mpp(0.5, 0.5))
    np.testing.assert_array_equal(xarray.open_zarr(tmp_path / "a.zarr", consolidated=False)["0"], np.eye(3))


def test_ngff_zarr_opens_a_pyramid_and_a_map_in_one_frame(stored: Store, slides_folder: Path, tmp_path: Path) -> None:
    ngff_zarr = pytest.importorskip("ngff_zarr")
    found = ngff_zarr.from_ngff_zarr(str(stored("even.tif", "portable")))
    assert found.metadata.name == "even.tif"
    assert [image.scale["x"] for image in found.images] == pytest.approx([0.5, 1, 2])
    assert [image.translation["x"] for image in found.images] == pytest.approx([0, 0.25, 0.75])
    np.testing.assert_array_equal(found.images[1].data.compute(), level_of(slides_folder / "even.tif", 1))
    write_attention_zarr(tmp_path / "a.zarr", np.eye(3), Raster(8, 0, 64, 64, 3, 3), mpp=Mpp(0.5, 0.5))
    (image,) = ngff_zarr.from_ngff_zarr(str(tmp_path / "a.zarr")).images
    assert (image.scale, image.translation) == ({"y": 32, "x": 32}, {"y": 15.75, "x": 19.75})


@pytest.mark.parametrize("profile", PROFILES)
def test_plain_zarr_opens_a_pyramid(stored: Store, slides_folder: Path, profile: str) -> None:
    """In a process that imports nothing of ours by itself; a portable pyramid needs nothing of ours to be installed."""
    code = """
import json, sys, zarr
group = zarr.open_group(sys.argv[1], mode="r")
sums = {name: int(array[:].sum()) for name, array in group.arrays()}
print(json.dumps([sums, [name for name in sys.modules if name.startswith("stages.")]]))
"""
    path = stored("odd.tif", profile)
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    sums, ours = json.loads(done.stdout)
    for level in range(2):
        assert sums[str(level)] == int(level_of(slides_folder / "odd.tif", level).sum())
    assert bool(ours) == (profile == "native")
