"""What was exported comes back as where to look: maps and places of other programs, on a slide with bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from makers import saccade
from numpy.typing import NDArray

from pipeline.export.export import export_run
from pipeline.output.attention_map import read_attention_zarr
from stages.geometry import Raster
from stages.given_map import MapError
from stages.prior import Prior
from stages.pyramid.open import open_pyramid

LESION = (1703.0, 1507.0)
"""A level-0 point of the slide, which is of 3200 x 2560 px, scanned from (901, 757) on, 1203 x 1101 px."""


@pytest.fixture
def map_of(ran: Path) -> tuple[NDArray[np.float32], Raster]:
    return read_attention_zarr(ran / "slides" / "bounded" / "attention.zarr")


def shares(ran: Path, prior: Prior, cells: Raster, tissue: NDArray[np.bool_]) -> NDArray[np.float64]:
    slide = open_pyramid(ran.parent / "bounded.scn")
    return prior.on(slide, cells=cells, tissue=tissue, attention_mpp=8.0).shares


def test_attention_goes_to_qupath_and_back(
    ran: Path, tmp_path: Path, map_of: tuple[NDArray[np.float32], Raster]
) -> None:
    attention, cells = map_of
    export_run(ran, ["qupath"], out=tmp_path, only=["bounded"])
    prior = Prior(tmp_path / "qupath", measurement="attention, times uniform").of("bounded")
    found = shares(ran, prior, cells, attention > 0)
    np.testing.assert_allclose(found, attention / attention.sum(), atol=0.1 * attention.max())
    assert np.corrcoef(found.ravel(), attention.ravel())[0, 1] > 0.98  # patches, which reach past cells, come last


@pytest.mark.parametrize(("corner", "size"), [((0, 0), (3200, 2560)), ((901, 757), (1203, 1101))])
def test_an_ome_tiff_lies_where_its_micrometres_put_it(
    ran: Path,
    tmp_path: Path,
    map_of: tuple[NDArray[np.float32], Raster],
    corner: tuple[int, int],
    size: tuple[int, int],
) -> None:
    """Whether it is of the whole slide, or of what was scanned, as programs have it that crop."""
    attention, cells = map_of
    values = np.zeros((-(-size[1] // 31), -(-size[0] // 31)), np.float32)
    column, row = (int((at - start) // 31) for at, start in zip(LESION, corner, strict=True))
    values[row, column] = 1
    metadata = {"axes": "YX", "PhysicalSizeX": 15.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 15.5}
    tifffile.imwrite(tmp_path / "bounded.ome.tif", values, ome=True, metadata=metadata)
    found = shares(ran, Prior(tmp_path).of("bounded"), cells, attention > 0)
    at = np.floor(cells.from_level0(LESION)).astype(int)
    nearest = np.argwhere(found > 0)[:, ::-1]
    assert np.abs(nearest - at).max() <= 1
    assert found[at[1], at[0]] > 0


def test_an_ome_tiff_of_another_size_is_refused(
    ran: Path, tmp_path: Path, map_of: tuple[NDArray[np.float32], Raster]
) -> None:
    attention, cells = map_of
    metadata = {"axes": "YX", "PhysicalSizeX": 31.0, "PhysicalSizeY": 31.0}  # twice what it is
    tifffile.imwrite(tmp_path / "bounded.ome.tif", np.ones((83, 104), np.float32), ome=True, metadata=metadata)
    with pytest.raises(MapError, match="the map is of 6448 x 5146 level-0 px by its 31 µm/px, the slide of 3200 x"):
        shares(ran, Prior(tmp_path).of("bounded"), cells, attention > 0)


def test_a_run_looks_where_qupath_s_objects_say(ran: Path, checkpoint: Path, tmp_path: Path) -> None:
    """By the command, with the measurement behind the folder; without it, it is asked for."""
    export_run(ran, ["qupath"], out=tmp_path, only=["odd"])
    slide = ran.parent / "odd.tif"
    command = ("run", slide, "--model", checkpoint, "--out", tmp_path / "out", "--workers", 0)
    refused = saccade(*command, "--prior", tmp_path / "qupath")
    assert refused.returncode == 1
    assert "say which one by #NAME after the folder" in refused.stderr
    done = saccade(*command, "--prior", f"{tmp_path / 'qupath'}#attention, times uniform")
    assert done.returncode == 0, done.stderr
