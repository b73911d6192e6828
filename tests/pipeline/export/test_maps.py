"""Maps and patches of a run, as other programs' readers get them, are those that the run has, where it has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import ome_zarr.io
import ome_zarr.reader
import pytest
import tifffile

from pipeline.export.export import export_run
from pipeline.export.slide_result import SlideResult, read_result
from pipeline.output.attention_map import write_attention_zarr
from pipeline.view.run_folder import open_run
from stages.overlay.attention_map import times_uniform

SLIDES = ("odd", "bounded")


def _result(run: Path, name: str) -> SlideResult:
    found = open_run(run)
    return read_result(found, next(slide for slide in found.slides if slide.name == name))


def _place(found: SlideResult) -> np.ndarray:
    """Level-0 centre of the cell of highest attention."""
    return found.raster.centres_level0([int(found.attention.argmax())])[0]


@pytest.mark.parametrize("name", SLIDES)
def test_ome_tiff_has_attention_at_its_place(run: Path, name: str) -> None:
    found = _result(run, name)
    export_run(run, ["ome-tiff"], only=[name])
    with tifffile.TiffFile(run / "export" / "ome-tiff" / f"{name}.ome.tif") as file:
        told = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        values = file.series[0].asarray()[0]
    multiple = times_uniform(found.attention, found.cells)
    assert values.max() == pytest.approx(multiple.max(), rel=1e-6)
    rows, columns = np.nonzero(values == values.max())
    level0 = np.stack([columns + 0.5, rows + 0.5]) * [[told["PhysicalSizeX"]], [told["PhysicalSizeY"]]]
    level0 /= [[found.mpp.x], [found.mpp.y]]
    assert np.abs(level0.T - _place(found)).min(0).max() <= found.raster.scale_x / 2


@pytest.mark.parametrize("name", SLIDES)
def test_ome_zarr_has_maps_and_labels_of_the_run(run: Path, name: str) -> None:
    found = _result(run, name)
    export_run(run, ["ome-zarr"], only=[name])
    location = ome_zarr.io.parse_url(run / "export" / "ome-zarr" / f"{name}.ome.zarr", mode="r")
    assert location is not None
    nodes = {node.zarr.basename(): node for node in ome_zarr.reader.Reader(location)()}
    maps = np.asarray(nodes[f"{name}.ome.zarr"].data[0])
    np.testing.assert_allclose(maps[0], times_uniform(found.attention, found.cells), rtol=1e-6)
    assert found.evidence is not None
    for channel, c in enumerate(found.told_classes, 1):
        np.testing.assert_array_equal(maps[channel], found.evidence[c])
    numbers = np.asarray(nodes["patches"].data[0])
    assert set(np.flatnonzero(numbers)) == set(found.patch_cells)
    first = nodes["patches"].metadata["properties"][1]
    assert first["weight"] == pytest.approx(found.samples.weights[0])
    c, said = found.told_classes[0], "contribution to tumour"
    assert first[f"{said}, log-odds"] == pytest.approx(found.samples.contributions[0, c])
    assert first[f"half-width of {said}"] == pytest.approx(found.samples.half_widths[0, c])
    moves = nodes["patches"].metadata["coordinateTransformations"][0][1]["translation"]
    raster, mpp = found.raster, found.mpp
    # the centre of the first cell, counted from that of the slide's first pixel
    wanted = [(raster.y + raster.scale_y / 2 - 0.5) * mpp.y, (raster.x + raster.scale_x / 2 - 0.5) * mpp.x]
    assert moves == pytest.approx(wanted)


@pytest.mark.parametrize("name", SLIDES)
def test_dicom_has_attention_and_patches_of_the_run(run: Path, name: str) -> None:
    highdicom = pytest.importorskip("highdicom", reason="needs highdicom, of the extra `dicom`")
    found = _result(run, name)
    export_run(run, ["dicom"], only=[name])
    folder = run / "export" / "dicom" / name
    image = highdicom.imread(folder / "attention-0.dcm")
    values = image.get_total_pixel_matrix(apply_real_world_transform=True)
    level = next(level for level in found.open().facts.levels if level.shape == values.shape)
    column, row = np.floor(level.from_level0(_place(found))).astype(int)
    assert values[row, column] == values.max() == pytest.approx(found.attention.max() * found.cells, rel=1e-6)
    group = highdicom.ann.annread(folder / "annotations.dcm").get_annotation_groups()[0]
    boxes = np.array([[*outline[0], *(outline[2] - outline[0])] for outline in group.get_graphic_data("2D")])
    np.testing.assert_allclose(boxes, found.samples.boxes)
    names, numbers, units = group.get_measurements()
    told = {name.meaning: (values, unit.meaning) for name, values, unit in zip(names, numbers.T, units, strict=True)}
    c, said = found.told_classes[0], "contribution to tumour"
    assert list(told) == ["attention", "weight", said, f"half-width of {said}"]
    np.testing.assert_allclose(told["weight"][0], found.samples.weights, rtol=1e-6)
    np.testing.assert_allclose(told[said][0], found.samples.contributions[:, c], rtol=1e-6)
    assert [unit for _, unit in told.values()] == ["no units", "no units", "log-odds", "log-odds"]


@pytest.mark.parametrize("name", ["ome-tiff", "ome-zarr"])
def test_map_that_is_no_number_somewhere_is_refused(run: Path, name: str) -> None:
    found = _result(run, "odd")
    spoilt = found.attention.copy()
    spoilt.flat[np.flatnonzero(spoilt)[0]] = np.nan
    write_attention_zarr(run / "slides" / "odd" / "attention.zarr", spoilt, found.raster, mpp=found.mpp)
    done = export_run(run, [name], only=["odd"])
    assert "is not a number somewhere" in done.failed["odd"]
    assert [path.name for path in (run / "export" / name).iterdir()] == [".saccade"]
