"""Which of a TIFF's pictures is the slide, which of its planes are its colours, and what is refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from makers import tissue_pixels
from numpy.typing import NDArray

from stages.geometry import Box
from stages.slide.facts import SlideError
from stages.slide.files import open_slide
from stages.slide.protocol import Slide
from stages.slide.tifffile_slide import TifffileSlide

HALF_MICROMETRE = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
TILED: dict[str, Any] = {"tile": (128, 128), "metadata": None, "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return tissue_pixels(500, 300, margin=0)


def halved(image: NDArray[Any]) -> NDArray[Any]:
    """Of (..., y, x) or (..., y, x, 3)."""
    return np.ascontiguousarray(image[..., ::2, ::2] if image.shape[-1] != 3 else image[..., ::2, ::2, :])


def apart(image: NDArray[Any]) -> NDArray[Any]:
    """(y, x, 3) as (3, y, x)."""
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def write_ome(path: Path, *images: NDArray[Any], axes: str, subifds: int = 0, **metadata: Any) -> Path:
    """Images of one kind, each with a level of half its size where there are ``subifds``."""
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for image in images:
            photometric = "rgb" if axes.endswith("S") or axes.startswith("S") else "minisblack"
            separate = "separate" if axes.startswith("S") else None
            options: dict[str, Any] = {"photometric": photometric, "tile": (128, 128), "planarconfig": separate}
            tiff.write(image, subifds=subifds, metadata={"axes": axes, **HALF_MICROMETRE, **metadata}, **options)
            for _ in range(subifds):
                tiff.write(halved(image), subfiletype=1, metadata=None, **options)
    return path


def shown(slide: Slide, level: int = 0) -> NDArray[np.uint8]:
    raster = slide.facts.levels[level]
    return slide.read_level(level, Box(0, 0, raster.width, raster.height))


@pytest.mark.parametrize("axes", ["CYX", "YXS", "SYX"])
def test_an_ome_tiff_has_its_colours_levels_and_size(tmp_path: Path, image: NDArray[np.uint8], axes: str) -> None:
    """Whether its colours are pages, side by side, or planes of a page; its levels are sub-IFDs."""
    stored = image if axes == "YXS" else apart(image)
    slide = open_slide(write_ome(tmp_path / "a.ome.tif", stored, axes=axes, subifds=1))
    assert slide.facts.vendor == "ome-tiff"
    assert slide.facts.mpp is not None
    assert (slide.facts.mpp.x, slide.facts.mpp.y) == (0.5, 0.5)
    assert [level.scale_x for level in slide.facts.levels] == [1, 2]
    np.testing.assert_array_equal(shown(slide), image)
    np.testing.assert_array_equal(shown(slide, 1), image[::2, ::2])
    assert any("says nothing" in warning for warning in slide.facts.warnings) == (axes == "CYX")


def test_reduced_pages_behind_an_ome_picture_are_its_levels(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    """As libvips writes them, which is given OME-XML for a description; a page of another shape is none."""
    description = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        'DimensionOrder="XYCZT" Type="uint8" SizeX="500" SizeY="300" SizeC="3" SizeZ="1" SizeT="1" '
        'PhysicalSizeX="500" PhysicalSizeXUnit="nm" PhysicalSizeY="500" PhysicalSizeYUnit="nm"><Channel '
        'ID="Channel:0:0" SamplesPerPixel="3"/><TiffData/></Pixels></Image></OME>'
    )
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        options: dict[str, Any] = {"photometric": "rgb", "tile": (128, 128), "metadata": None}
        tiff.write(image, description=description, **options)
        for part in (halved(image), image[:90, :90]):
            tiff.write(part, subfiletype=1, **options)
    slide = open_slide(tmp_path / "a.tif")
    assert slide.facts.mpp is not None
    assert (slide.facts.vendor, slide.facts.mpp.x, len(slide.facts.levels)) == ("ome-tiff", 0.5, 2)
    np.testing.assert_array_equal(shown(slide, 1), image[::2, ::2])


def test_what_contradicts_its_size_is_told(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    """Its objective and its resolution tags, as of any slide; a given size settles it."""
    description = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Instrument ID="Instrument:0"><Objective '
        'ID="Objective:0" NominalMagnification="40"/></Instrument><Image ID="Image:0"><ObjectiveSettings '
        'ID="Objective:0"/><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="500" SizeY="300" SizeC="3" '
        'SizeZ="1" SizeT="1" PhysicalSizeX="2.5" PhysicalSizeY="2.5"><Channel ID="Channel:0:0" SamplesPerPixel="3"/>'
        "<TiffData/></Pixels></Image></OME>"
    )
    options = {**TILED, "resolution": (4e4, 4e4)}
    tifffile.imwrite(tmp_path / "a.ome.tif", image, photometric="rgb", description=description, **options)
    doubt = open_slide(tmp_path / "a.ome.tif").facts.mpp_doubt
    objective = "its resolution of 2.5 µm/px contradicts an objective of 40x, about 0.25 µm/px"
    assert str(doubt).startswith(f"{objective} and 0.25 µm/px in its resolution tag: give")
    assert open_slide(tmp_path / "a.ome.tif", mpp=0.25).facts.doubts == ()


@pytest.mark.parametrize(
    "channels",
    [
        {"Name": ["Blue", "red", "G"]},
        {"Color": [0x0000FFFF, 0xFF0000FF - 2**32, 0x00FF00FF]},
        {"Name": ["B", "R", "G", "DAPI"]},
    ],
    ids=["names", "colours", "one more"],
)
def test_colours_are_found_by_what_their_channels_are_called(
    tmp_path: Path, image: NDArray[np.uint8], channels: dict[str, Any]
) -> None:
    """In any order; channels beside them are left out, and that is said."""
    blue_first = np.concatenate([apart(image)[[2, 0, 1]], apart(image)[:1] // 2])[: len(next(iter(channels.values())))]
    slide = open_slide(write_ome(tmp_path / "a.ome.tif", blue_first, axes="CYX", Channel=channels))
    np.testing.assert_array_equal(shown(slide), image)
    assert bool(slide.facts.warnings) == (len(blue_first) == 4)


def test_of_focal_planes_the_middle_one_is_read(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    """Of points in time the first; and both are said."""
    planes = np.stack([image // 3, image // 2, image, image // 4, image // 5])
    slide = open_slide(write_ome(tmp_path / "z.ome.tif", planes, axes="ZYXS", subifds=1))
    np.testing.assert_array_equal(shown(slide), image)
    np.testing.assert_array_equal(shown(slide, 1), image[::2, ::2])
    assert slide.facts.warnings == ("of its 5 focal planes the middle one, number 3, is read",)
    times = np.stack([[apart(image) // 2, apart(image)], [apart(image) // 3, apart(image) // 4]])
    slide = open_slide(write_ome(tmp_path / "t.ome.tif", times, axes="TZCYX", Channel={"Name": ["R", "G", "B"]}))
    np.testing.assert_array_equal(shown(slide), image)
    assert slide.facts.warnings == (
        "of its 2 focal planes the middle one, number 2, is read",
        "of its 2 points in time the first is read",
    )


def test_of_several_pictures_the_largest_is_read(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    """With its own size, whatever stands before it; a label is one of the slide's other images."""
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for name, part, mpp in (("label image", image[:64, :64], 9.0), ("scan 1", image, 250.0), ("2", image[:99], 1)):
            size = {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
            units = {f"PhysicalSize{axis}Unit": "nm" for axis in "XY"}
            tiff.write(
                part, photometric="rgb", tile=(128, 128), metadata={"axes": "YXS", "Name": name, **size, **units}
            )
    slide = open_slide(path)
    np.testing.assert_array_equal(shown(slide), image)
    assert slide.facts.mpp is not None
    assert slide.facts.mpp.x == pytest.approx(0.25)
    assert slide.facts.associated == ("label",)
    assert slide.facts.warnings == ("of the 2 pictures in the file the largest ('scan 1') is read, 500 x 300 px",)


def test_three_pages_are_three_colours(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    """Where nothing says otherwise; how it was read is said."""
    tifffile.imwrite(tmp_path / "a.tif", apart(image), photometric="minisblack", **TILED)
    slide = open_slide(tmp_path / "a.tif")
    np.testing.assert_array_equal(shown(slide), image)
    said = "its three grey pages of one size, of which it says nothing, are read as red, green and blue"
    assert slide.facts.warnings == (said,)


FIVE = {"Name": ["blank", "CD3", "DAPI", "CD8", "CK"]}
MARKERS = r"3 channels \(DAPI, FITC, number 3\) that are not red, green and blue: fluorescence"


@pytest.mark.parametrize(
    ("axes", "metadata", "expected"),
    [
        ("CYX", {"Channel": {"Name": ["DAPI", "FITC", "Channel 2"]}}, MARKERS),
        ("CYX", {"Channel": {"EmissionWavelength": [461, 519, 600]}}, r"3 channels \(number 1, number 2, number 3\)"),
        ("QYX", {}, ""),
        ("QYXS", {}, "holds 3 pictures of one size and does not say what they are"),
    ],
)
def test_channels_that_are_no_colours_are_named(
    tmp_path: Path, image: NDArray[np.uint8], axes: str, metadata: dict[str, Any], expected: str
) -> None:
    stored = np.stack([image, image, image]) if axes.endswith("S") else apart(image)
    path = write_ome(tmp_path / "a.ome.tif", stored, axes=axes, **metadata)
    if not expected:
        np.testing.assert_array_equal(shown(open_slide(path)), image)
        return
    with pytest.raises(SlideError, match=expected):
        open_slide(path)


def test_a_fluorescence_slide_is_refused_by_its_channels(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    path = write_ome(tmp_path / "a.ome.tif", np.stack([image[..., 0]] * 5), axes="CYX", Channel=FIVE)
    with pytest.raises(SlideError, match=re.escape("5 channels (blank, CD3, DAPI, CD8, CK) that are not red")):
        open_slide(path)


def test_a_stack_of_pages_that_says_nothing_is_refused(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    """The first of them would be read, and the others never thought of."""
    tifffile.imwrite(tmp_path / "a.tif", np.stack([image] * 4), photometric="rgb", **TILED)
    with pytest.raises(SlideError, match=r"holds 4 pictures of one size.*save the one to be read"):
        open_slide(tmp_path / "a.tif")


def test_what_imagej_writes_is_read(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    """One strip without compression, its resolution in a unit of its own; of a stack the middle plane."""
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, resolution=(4, 2), metadata={"unit": "um"})
    slide = open_slide(tmp_path / "a.tif")
    np.testing.assert_array_equal(shown(slide), image)
    assert slide.facts.mpp is not None
    assert (slide.facts.vendor, slide.facts.mpp.x, slide.facts.mpp.y) == ("imagej", 0.25, 0.5)
    stack = np.stack([image // 2, image, image // 2])
    tifffile.imwrite(tmp_path / "z.tif", stack, imagej=True, metadata={"axes": "ZYXS", "unit": "um"})
    slide = open_slide(tmp_path / "z.tif")
    np.testing.assert_array_equal(shown(slide), image)
    assert "focal planes" in slide.facts.warnings[0]


@pytest.mark.parametrize("storage", ["strips", "big endian", "zstd strips", "webp", "jpeg 2000", "sub-IFD"])
def test_what_openslide_does_not_open_is_read(tmp_path: Path, image: NDArray[np.uint8], storage: str) -> None:
    """Lazily, level by level, at the resolution of its tags."""
    options: dict[str, dict[str, Any]] = {
        "strips": {"tile": None, "rowsperstrip": 32},
        "big endian": {"byteorder": ">"},
        "zstd strips": {"tile": None, "rowsperstrip": 7, "compression": "zstd", "predictor": True},
        "webp": {"compression": "webp", "compressionargs": {"lossless": True}},
        "jpeg 2000": {"compression": "jpeg2000", "compressionargs": {"reversible": True}},
        "sub-IFD": {},
    }
    path, own = tmp_path / "a.tif", {**TILED, **options[storage]}
    subifds = int(storage == "sub-IFD")
    with tifffile.TiffWriter(path, byteorder=own.pop("byteorder", None)) as tiff:
        tiff.write(image, photometric="rgb", subifds=subifds, **own)
        tiff.write(halved(image), photometric="rgb", subfiletype=1, **{**own, "resolution": (1e4, 1e4)})
    slide = open_slide(path)
    assert isinstance(slide, TifffileSlide)
    assert slide.facts.mpp is not None
    assert (slide.facts.mpp.x, len(slide.facts.levels)) == (0.5, 2)
    np.testing.assert_array_equal(shown(slide), image)
    np.testing.assert_array_equal(shown(slide, 1), image[::2, ::2])


def test_one_strip_of_a_large_slide_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, shape=(9000, 9000, 3), dtype="uint8", photometric="rgb", rowsperstrip=9000, metadata=None)
    with pytest.raises(SlideError, match=r"level 0 is stored in one strip of 9000 x 9000 px.*vips tiffsave"):
        open_slide(path)


def test_planes_in_other_files_are_refused_by_name(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    """What lies in them is in no fingerprint and no count of bytes; the message says how to gather it."""
    first, second = tmp_path / "a.ome.tif", tmp_path / "b.ome.tif"
    write_ome(first, apart(image), axes="CYX")
    write_ome(second, apart(image), axes="CYX")
    with tifffile.TiffFile(second) as tiff:
        own = re.search(r'UUID="(urn:uuid:[^"]+)"', tiff.ome_metadata or "")
    assert own is not None
    with tifffile.TiffFile(first) as tiff:
        text = tiff.ome_metadata or ""
    elsewhere = f'<UUID FileName="b.ome.tif">{own.group(1)}</UUID>'
    parts = "".join(f'<TiffData FirstC="{c}" IFD="{c}" PlaneCount="1">{elsewhere}</TiffData>' for c in range(3))
    text = re.sub(r"<TiffData[^>]*/>|<TiffData.*?</TiffData>", "", text, flags=re.S).replace(
        "</Pixels>", parts + "</Pixels>"
    )
    with tifffile.TiffWriter(first) as tiff:
        tiff.write(apart(image), photometric="minisblack", tile=(128, 128), description=text.encode(), metadata=None)
    with pytest.raises(SlideError, match=r"parts of its picture are in other files.*bfconvert"):
        open_slide(first)
