"""DICOM results lie where the slide's own DICOM does, say whose they are, and open in other people's readers."""

from __future__ import annotations

import datetime
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import write_dicom as write_dicom_slide
from makers import tissue_pixels, write_slide
from numpy.typing import NDArray
from scn import write_scn

hd = pytest.importorskip("highdicom", reason="needs highdicom, of the extra `dicom`")

from stages.exports.dicom import write_dicom  # noqa: E402
from stages.exports.dicom_annotations import Measurement  # noqa: E402
from stages.exports.dicom_identity import Identity  # noqa: E402
from stages.exports.dicom_map import SlideMap, chosen_levels  # noqa: E402
from stages.exports.dicom_source import source_levels  # noqa: E402
from stages.geometry import Mpp, Raster, physical_raster  # noqa: E402
from stages.slide import open_slide  # noqa: E402
from stages.slide.facts import SlideFacts  # noqa: E402

MADE = datetime.datetime(2026, 1, 2, 3, 4, 5)
CELL_UM = 24.0
SPOT = (6, 4)
"""Row and column of the cell that is hot."""


def _tiff(folder: Path) -> Path:
    return write_slide(folder / "s.tif", tissue_pixels(701, 602), levels=3, factor=3)  # no level divides evenly


def _dicom(folder: Path) -> Path:
    return write_dicom_slide(folder / "dcm", tissue_pixels(701, 602), levels=2)


def _scn(folder: Path) -> Path:
    return write_scn(folder / "s.scn", tissue_pixels(512, 512), (600, 300), (1400, 1000))


SLIDES: dict[str, Callable[[Path], Path]] = {"tiff": _tiff, "dicom": _dicom, "scn": _scn}


@pytest.fixture(params=SLIDES)
def facts(request: pytest.FixtureRequest, tmp_path: Path) -> SlideFacts:
    return open_slide(SLIDES[request.param](tmp_path)).facts


def _cells(facts: SlideFacts) -> tuple[NDArray[np.float32], Raster]:
    """Attention that is even but for the spot, and the cells' raster."""
    raster = physical_raster(facts.bounds, facts.mpp or Mpp(1, 1), CELL_UM)
    attention = np.ones(raster.shape, np.float32)
    attention[SPOT] = 30
    return attention / attention.sum(), raster


def _write(folder: Path, facts: SlideFacts, *, maps: tuple[SlideMap, ...] = ()) -> Path:
    attention, raster = _cells(facts)
    x, y = raster.to_level0((SPOT[1], SPOT[0]))
    folder.mkdir()
    write_dicom(
        folder,
        facts,
        attention,
        raster,
        np.array([(x, y, raster.scale_x, raster.scale_y), (3, 5, 64, 32)]),
        name="a slide",
        mpp=facts.mpp or Mpp(1, 1),
        cells=attention.size,
        maps=maps,
        measurements=[Measurement("attention", "", [0.5, 0.25]), Measurement("to tumour", "log-odds", [1.5, np.nan])],
        identity=Identity(("fingerprint", "key"), "1.2.3", MADE),
    )
    return folder


def _slide_mm(header: pydicom.Dataset, column_row: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where points of a total pixel matrix, counted from its outer corner, lie on the glass, in mm: by highdicom."""
    origin = header.TotalPixelMatrixOriginSequence[0]
    measures = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    to_slide = hd.spatial.ImageToReferenceTransformer(
        image_position=(float(origin.XOffsetInSlideCoordinateSystem), float(origin.YOffsetInSlideCoordinateSystem), 0),
        image_orientation=[float(v) for v in header.ImageOrientationSlide],
        pixel_spacing=[float(v) for v in measures.PixelSpacing],
    )
    return np.asarray(to_slide(np.atleast_2d(column_row)))


def test_spot_lies_where_it_is_on_the_slide_in_every_level(facts: SlideFacts, tmp_path: Path) -> None:
    """Its centre on the glass is that of its cell, by the header that the slide's own level has."""
    folder = _write(tmp_path / "out", facts)
    raster = _cells(facts)[1]
    centre = raster.to_level0((SPOT[1] + 0.5, SPOT[0] + 0.5))
    source = source_levels(facts, name="a slide", mpp=facts.mpp or Mpp(1, 1))
    levels = chosen_levels(source, raster)
    files = sorted(folder.glob("attention-*.dcm"))
    assert len(files) == len(levels) > 0
    for file, level in zip(files, levels, strict=True):
        image = hd.imread(file)
        values = image.get_total_pixel_matrix(apply_real_world_transform=True)
        assert values.shape == level.raster.shape
        rows, columns = np.nonzero(values == values.max())
        found = _slide_mm(image, np.array([columns.mean() + 0.5, rows.mean() + 0.5]))
        wanted = _slide_mm(level.header, level.raster.from_level0(centre))
        half = np.array(level.header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing).max() / 2
        assert np.abs(found - wanted).max() <= half + 1e-9


def test_pyramid_has_sizes_spacing_and_origin_of_levels_of_the_slide(facts: SlideFacts, tmp_path: Path) -> None:
    """Viewers lay a map over a level of its own spacing and origin; its frame and container are the slide's."""
    folder = _write(tmp_path / "out", facts)
    source = source_levels(facts, name="a slide", mpp=facts.mpp or Mpp(1, 1))
    spacings = {
        tuple(level.header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing) for level in source
    }
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in folder.glob("attention-*.dcm")]
    for header in headers:
        assert tuple(header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing) in spacings
        assert header.FrameOfReferenceUID == source[0].header.FrameOfReferenceUID
        assert header.ContainerIdentifier == source[0].header.ContainerIdentifier
        assert header.StudyInstanceUID == source[0].header.StudyInstanceUID
    assert len({header.PyramidUID for header in headers}) == len({header.SeriesInstanceUID for header in headers}) == 1
    assert len({header.SOPInstanceUID for header in headers}) == len(headers)


def test_dicom_slide_is_referenced_by_its_own_uids(tmp_path: Path) -> None:
    path = _dicom(tmp_path)
    folder = _write(tmp_path / "out", open_slide(path).facts)
    own = {pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in path.parent.iterdir()}
    maps = [pydicom.dcmread(file, stop_before_pixels=True) for file in folder.glob("attention-*.dcm")]
    assert {m.SourceImageSequence[0].ReferencedSOPInstanceUID for m in maps} <= own
    annotations = pydicom.dcmread(folder / "annotations.dcm")
    first = pydicom.dcmread(path, stop_before_pixels=True)
    assert annotations.ReferencedImageSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID


def test_values_are_the_cells_values(facts: SlideFacts, tmp_path: Path) -> None:
    """At every pixel the value of the cell at its centre, where pixels are smaller than cells."""
    evidence = np.random.default_rng(0).normal(size=_cells(facts)[0].shape)
    folder = _write(tmp_path / "out", facts, maps=(SlideMap("evidence-0", "Evidence for a", "log-odds", evidence),))
    raster = _cells(facts)[1]
    for file in folder.glob("evidence-0-*.dcm"):
        image = hd.imread(file)
        values = image.get_total_pixel_matrix(apply_real_world_transform=True)
        level = next(level for level in facts.levels if level.shape == values.shape)
        rows, columns = np.mgrid[: level.height, : level.width]
        at = raster.from_level0(level.to_level0(np.stack([columns + 0.5, rows + 0.5], -1)))
        j, i = np.floor(at[..., 0]).astype(int), np.floor(at[..., 1]).astype(int)
        inside = (i >= 0) & (j >= 0) & (i < raster.height) & (j < raster.width)
        wanted = np.where(inside, evidence[np.clip(i, 0, raster.height - 1), np.clip(j, 0, raster.width - 1)], 0)
        np.testing.assert_allclose(values, wanted, rtol=1e-6)


def test_levels_that_would_only_show_the_same_finer_are_left_out(tmp_path: Path) -> None:
    facts = open_slide(_tiff(tmp_path)).facts  # of factors 1, 3 and 9
    source = source_levels(facts, name="s", mpp=Mpp(0.5, 0.5))

    def scales(cell: float) -> list[float]:
        return [level.raster.scale_x for level in chosen_levels(source, Raster(0, 0, cell, cell, 9, 9))]

    assert [scales(cell) for cell in (16, 17, 48, 49, 1000)] == [[1, 3, 9], [3, 9], [3, 9], [9], [9]]


def test_slide_narrower_than_a_cell(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "thin.tif", tissue_pixels(300, 40), levels=1)
    facts = open_slide(path).facts
    raster = physical_raster(facts.bounds, Mpp(0.5, 0.5), 100.0)
    assert raster.shape == (1, 2)
    (tmp_path / "out").mkdir()
    write_dicom(
        tmp_path / "out",
        facts,
        np.array([[0.25, 0.75]], np.float32),
        raster,
        np.array([(0, 0, 40, 40)]),
        name="thin",
        mpp=Mpp(0.5, 0.5),
        cells=2,
        maps=(),
        measurements=(),
        identity=Identity(("a",), "1", MADE),
    )
    values = hd.imread(tmp_path / "out/attention-0.dcm").get_total_pixel_matrix(apply_real_world_transform=True)
    assert values.shape == (40, 300)
    np.testing.assert_array_equal(np.unique(values[:, :200]), [0.5])
    np.testing.assert_array_equal(np.unique(values[:, 200:]), [1.5])


def test_annotations_by_highdicom(facts: SlideFacts, tmp_path: Path) -> None:
    folder = _write(tmp_path / "out", facts)
    raster = _cells(facts)[1]
    read = hd.ann.annread(folder / "annotations.dcm")
    patches, region = read.get_annotation_groups()
    corners = raster.to_level0([(SPOT[1], SPOT[0]), (SPOT[1] + 1, SPOT[0] + 1)])
    for group in (patches, region):
        outline = group.get_graphic_data("2D")[0]
        np.testing.assert_allclose([outline.min(0), outline.max(0)], corners)
    np.testing.assert_allclose(patches.get_graphic_data("2D")[1], [(3, 5), (67, 5), (67, 37), (3, 37)])
    names, values, units = patches.get_measurements()
    assert [name.meaning for name in names] == ["attention", "to tumour"]
    assert [unit.value for unit in units] == ["1", "{log-odds}"]
    np.testing.assert_array_equal(values, np.array([(0.5, 1.5), (0.25, np.nan)], np.float32))


def test_annotations_by_wsidicom_beside_their_slide(tmp_path: Path) -> None:
    wsidicom = pytest.importorskip("wsidicom")
    path = _dicom(tmp_path)
    facts = open_slide(path).facts
    folder = _write(tmp_path / "out", facts)
    with wsidicom.WsiDicom.open([*path.parent.iterdir(), folder / "annotations.dcm"]) as slide:
        (instance,) = slide.annotations
        patches, region = instance.groups
        box = region.annotations[0].geometry.box
        corner = _cells(facts)[1].to_level0((SPOT[1], SPOT[0]))
        assert (box.start.x, box.start.y) == tuple(corner)
        assert [m.value for m in patches.annotations[0].measurements] == [0.5, 1.5]


def test_regions_with_holes_tell_the_holes_apart(tmp_path: Path) -> None:
    facts = open_slide(_tiff(tmp_path)).facts
    raster = physical_raster(facts.bounds, Mpp(0.5, 0.5), CELL_UM)
    attention = np.full(raster.shape, 1e-3)
    attention[5:8, 5:8], attention[6, 6] = 1, 0
    (tmp_path / "out").mkdir()
    boxes, how = np.zeros((0, 4)), {"name": "s", "mpp": Mpp(0.5, 0.5), "cells": attention.size, "maps": ()}
    write_dicom(
        tmp_path / "out", facts, attention, raster, boxes, measurements=(), identity=Identity(("a",), "1", MADE), **how
    )
    region, hole = hd.ann.annread(tmp_path / "out/annotations.dcm").get_annotation_groups()
    assert hole.AnnotationGroupLabel.startswith("Holes in")
    for group, (first, last) in ((region, (5, 8)), (hole, (6, 7))):
        (outline,) = group.get_graphic_data("2D")
        np.testing.assert_allclose([outline.min(0), outline.max(0)], raster.to_level0([(first, first), (last, last)]))


def test_without_patches_and_regions_there_are_no_annotations(tmp_path: Path) -> None:
    """A file of none would be invalid: DICOM wants a group at least."""
    facts = open_slide(_tiff(tmp_path)).facts
    raster = physical_raster(facts.bounds, Mpp(0.5, 0.5), CELL_UM)
    even = np.full(raster.shape, 1 / raster.width / raster.height)
    (tmp_path / "out").mkdir()
    boxes, how = np.zeros((0, 4)), {"name": "s", "mpp": Mpp(0.5, 0.5), "cells": even.size, "maps": ()}
    write_dicom(
        tmp_path / "out", facts, even, raster, boxes, measurements=(), identity=Identity(("a",), "1", MADE), **how
    )
    assert not (tmp_path / "out/annotations.dcm").exists()
    assert (tmp_path / "out/attention-0.dcm").exists()


DEIDENTIFIED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime"),
    *("AccessionNumber", "ContainerIdentifier", "SpecimenDescriptionSequence", "FrameOfReferenceUID"),
    *("TotalPixelMatrixOriginSequence", "ImageOrientationSlide", "ImagedVolumeDepth"),
)


def _edit(path: Path, change: Callable[[pydicom.Dataset], None]) -> None:
    for file in path.parent.iterdir():
        slide = pydicom.dcmread(file)
        change(slide)
        slide.save_as(file)


def test_what_a_deidentified_slide_lacks_is_filled_by_the_rules(tmp_path: Path) -> None:
    path = _dicom(tmp_path)

    def strip(slide: pydicom.Dataset) -> None:
        for keyword in DEIDENTIFIED:
            slide.pop(keyword, None)

    _edit(path, strip)
    folder = _write(tmp_path / "out", open_slide(path).facts)
    for file in folder.iterdir():
        result = pydicom.dcmread(file)
        for keyword in DEIDENTIFIED[:8]:
            assert result[keyword].value in ("", None), keyword
    found = pydicom.dcmread(folder / "attention-0.dcm")
    assert found.ContainerIdentifier == found.SpecimenDescriptionSequence[0].SpecimenIdentifier == "a slide"
    assert [float(v) for v in found.ImageOrientationSlide] == [0, -1, 0, -1, 0, 0]
    assert found.TotalPixelMatrixOriginSequence[0].XOffsetInSlideCoordinateSystem == 0
    again = source_levels(open_slide(path).facts, name="a slide", mpp=Mpp(1, 1))[0].header
    assert found.FrameOfReferenceUID == again.FrameOfReferenceUID  # made of the series, so always the same


def test_spacing_that_is_missing_comes_from_the_volume_else_from_the_run(tmp_path: Path) -> None:
    path = _dicom(tmp_path)
    facts = open_slide(path).facts

    def lose(slide: pydicom.Dataset) -> None:
        del slide.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing

    _edit(path, lose)
    (header, *_) = [level.header for level in source_levels(facts, name="a", mpp=Mpp(7, 9))]
    spacing = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    np.testing.assert_allclose([float(v) for v in spacing], 0.0005, rtol=1e-5)
    _edit(path, lambda slide: (slide.pop("ImagedVolumeWidth"), slide.pop("ImagedVolumeHeight")))
    headers = [level.header for level in source_levels(facts, name="a", mpp=Mpp(7, 9))]
    spacings = [h.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing for h in headers]
    np.testing.assert_allclose([[float(v) for v in s] for s in spacings], [(0.009, 0.007), (0.018, 0.014)])


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_values_that_dicom_does_not_allow_are_left_out(tmp_path: Path) -> None:
    path = _dicom(tmp_path)

    def spoil(slide: pydicom.Dataset) -> None:
        slide.PatientSex, slide.PatientName = "U", "Anon^1"
        slide.add_new("PatientBirthDate", "DA", "unknown")

    _edit(path, spoil)
    folder = _write(tmp_path / "out", open_slide(path).facts)
    result = pydicom.dcmread(folder / "annotations.dcm")
    assert (result.PatientSex, result.PatientBirthDate, result.PatientName) == ("", "", "Anon^1")


def test_patient_of_the_slide_is_that_of_the_results(tmp_path: Path) -> None:
    path = _dicom(tmp_path)

    def name(slide: pydicom.Dataset) -> None:
        slide.SpecificCharacterSet = "ISO_IR 100"
        slide.PatientName, slide.PatientID, slide.StudyDate = "Mü^A", "7", "20250102"

    _edit(path, name)
    folder = _write(tmp_path / "out", open_slide(path).facts)
    for file in folder.iterdir():
        result = pydicom.dcmread(file)
        assert (str(result.PatientName), result.PatientID, result.StudyDate) == ("Mü^A", "7", "20250102")


def test_same_results_are_the_same_bytes_and_others_have_other_uids(facts: SlideFacts, tmp_path: Path) -> None:
    first, second = _write(tmp_path / "1", facts), _write(tmp_path / "2", facts)
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()
    made = Identity(("fingerprint", "key"), "1.2.3", MADE)
    others = (replace(made, parts=("fingerprint", "key 2")), replace(made, version="1.2.4"))
    assert len({one.uid("annotations") for one in (made, *others)}) == 3


def test_slide_too_large_at_every_level_has_one_that_is_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.exports.dicom_map.MOST_PIXELS", 2**17)
    path = write_slide(tmp_path / "one.tif", tissue_pixels(700, 601), levels=1)
    facts = open_slide(path).facts
    folder = _write(tmp_path / "out", facts)
    (file,) = folder.glob("attention-*.dcm")
    image = hd.imread(file)
    values = image.get_total_pixel_matrix(apply_real_world_transform=True)
    assert values.shape == (301, 350)
    rows, columns = np.nonzero(values == values.max())
    centre = _cells(facts)[1].to_level0((SPOT[1] + 0.5, SPOT[0] + 0.5))
    np.testing.assert_allclose([(columns.mean() + 0.5) * 2, (rows.mean() + 0.5) * 2], centre, atol=1)
    measures = image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [float(v) for v in measures.PixelSpacing] == [0.001, 0.001]


def test_pyramid_of_a_dicom_slide_without_its_files_is_refused(tmp_path: Path) -> None:
    from stages.slide.facts import SlideError

    path = _dicom(tmp_path)
    facts = open_slide(path).facts
    shutil.rmtree(path.parent)
    with pytest.raises(SlideError, match="nothing tells which study"):
        _write(tmp_path / "out", facts)


def test_dciodvfy_finds_no_fault(facts: SlideFacts, tmp_path: Path) -> None:
    """But for one that it always finds in annotations of two dimensions, though the attribute is not there."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("needs dciodvfy, of Debian's dicom3tools")
    evidence = np.random.default_rng(0).normal(size=_cells(facts)[0].shape)
    folder = _write(tmp_path / "out", facts, maps=(SlideMap("evidence-0", "Evidence for a", "log-odds", evidence),))
    for file in folder.iterdir():
        found = subprocess.run(["dciodvfy", "-new", file], capture_output=True, text=True)
        errors = [line for line in (found.stdout + found.stderr).splitlines() if line.startswith("Error")]
        assert [
            line for line in errors if "CommonZCoordinateValue" not in line and "has same value as" not in line
        ] == []


@pytest.mark.realdata
def test_real_slide_of_an_archive(shared_data: Path, tmp_path: Path) -> None:
    """It was de-identified by its archive: no patient, no container, no origin."""
    path = tmp_path / "slide.dcm"
    shutil.copy(shared_data / "slides/multi_frame_jpeg_camelyon_challenge_image.dcm", path)
    facts = open_slide(path).facts
    folder = _write(tmp_path / "out", facts)
    own = pydicom.dcmread(path, stop_before_pixels=True)
    image = hd.imread(folder / "attention-0.dcm")
    assert image.FrameOfReferenceUID == own.FrameOfReferenceUID
    assert image.SourceImageSequence[0].ReferencedSOPInstanceUID == own.SOPInstanceUID
    assert (
        image.SpecimenDescriptionSequence[0].SpecimenIdentifier == own.SpecimenDescriptionSequence[0].SpecimenIdentifier
    )
    values = image.get_total_pixel_matrix(apply_real_world_transform=True)
    assert values.shape == (own.TotalPixelMatrixRows, own.TotalPixelMatrixColumns)
