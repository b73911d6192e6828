"""Samples as RGB: the true range of 9 to 16 bits, grey, samples beside the colours, transparency; and no colours."""

from __future__ import annotations

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

TILED: dict[str, Any] = {"tile": (128, 128), "metadata": None}
STRIPS: dict[str, Any] = {"rowsperstrip": 20, "metadata": None}


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return tissue_pixels(300, 200, margin=0)


def read(path: Path) -> NDArray[np.int64]:
    level = open_slide(path).facts.levels[0]
    return open_slide(path).read_level(0, Box(0, 0, level.width, level.height)).astype(np.int64)


def tag(code: int, *values: int) -> dict[str, Any]:
    return {"extratags": [(code, "H", len(values), values if len(values) > 1 else values[0], True)]}


@pytest.mark.parametrize("layout", [TILED, STRIPS], ids=["tiles", "strips"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_sixteen_bits_are_shown_by_their_highest_value(
    tmp_path: Path, image: NDArray[np.uint8], layout: dict[str, Any], planes: str
) -> None:
    """All 16 where the picture has so much light, else as many as the file states."""
    cases: dict[str, tuple[int, dict[str, Any]]] = {
        "full": (257, {}),
        "12 bits": (16, tag(281, 4095, 4095, 4095)),
        "brightest there is": (16, tag(281, int(image.max()) * 16)),
        "14 bits": (64, tag(341, 16383, 16383, 16383)),
    }
    for name, (factor, options) in cases.items():
        stored = image.astype(np.uint16) * factor
        stored = stored if planes == "contig" else np.ascontiguousarray(stored.transpose(2, 0, 1))
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planes, **layout, **options)
        assert np.abs(read(path) - image).max() <= 1, name


def test_ome_states_the_bits(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    metadata = {"axes": "YXS", "SignificantBits": 10}
    tifffile.imwrite(
        tmp_path / "a.ome.tif", image.astype(np.uint16) * 4, photometric="rgb", tile=(128, 128), metadata=metadata
    )
    assert np.abs(read(tmp_path / "a.ome.tif") - image).max() <= 1


@pytest.mark.parametrize("bits", [10, 12])
def test_packed_bits_are_unpacked(tmp_path: Path, image: NDArray[np.uint8], bits: int) -> None:
    """Samples of 10 or 12 bits that lie side by side without gaps."""
    values = image.astype(np.uint16) << (bits - 8)
    packed = np.unpackbits(values[..., None].astype(">u2").view(np.uint8), axis=-1)[..., 16 - bits :]
    rows = [np.packbits(row.reshape(-1)).tobytes() for row in packed]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="rgb", rowsperstrip=1, metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages.first
        for row, offset in zip(rows, page.dataoffsets, strict=True):
            tiff.filehandle.seek(offset)
            tiff.filehandle.write(row)
        page.tags["BitsPerSample"].overwrite((bits,) * 3)
        page.tags["StripByteCounts"].overwrite([len(rows[0])] * len(rows))
    assert np.abs(read(path) - image).max() <= 1


def test_too_dark_for_sixteen_bits_says_what_was_seen(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    """Scaled by all 16, a picture of 12 would be black glass without tissue."""
    opaque = np.full(image.shape[:2], 65535, np.uint16)
    stored = np.dstack([image.astype(np.uint16) * 16, opaque])
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["unassalpha"], **TILED)
    seen = int(image.max()) * 16
    with pytest.raises(SlideError, match=rf"16 bits, the brightest that was seen is {seen}.*-s 281 4095"):
        open_slide(tmp_path / "a.tif")


@pytest.mark.parametrize("layout", [TILED, STRIPS], ids=["tiles", "strips"])
@pytest.mark.parametrize("kind", ["grey", "white is 0", "16 bits", "palette", "alpha"])
def test_grey_is_three_equal_colours(
    tmp_path: Path, image: NDArray[np.uint8], layout: dict[str, Any], kind: str
) -> None:
    """And a palette's are its own, whichever library reads it."""
    grey, expected = image[..., 0].copy(), np.repeat(image[..., :1], 3, axis=2)
    options: dict[str, Any] = {"photometric": "minisblack"}
    stored: NDArray[Any] = grey
    if kind == "white is 0":
        stored, options["photometric"] = 255 - grey, "miniswhite"
    elif kind == "16 bits":
        stored = grey.astype(np.uint16) * 257
    elif kind == "palette":
        palette = np.random.default_rng(0).integers(0, 256, (3, 256))
        options = {"photometric": "palette", "colormap": (palette * 257).astype(np.uint16)}
        expected = palette.T[grey].astype(np.uint8)
    elif kind == "alpha":
        stored = np.dstack([grey, np.full_like(grey, 255)])
        options |= {"extrasamples": ["unassalpha"], "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", stored, **options, **layout)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize("layout", [TILED, STRIPS], ids=["tiles", "strips"])
@pytest.mark.parametrize("extra", [1, 2])
def test_samples_that_are_no_alpha_are_left_alone(
    tmp_path: Path, image: NDArray[np.uint8], layout: dict[str, Any], extra: int
) -> None:
    """Whatever they hold, also the nothing that would make all of the slide transparent."""
    stored = np.dstack([image, *[np.zeros(image.shape[:2], np.uint8)] * extra])
    options: dict[str, Any] = {"extrasamples": ["unspecified"] * extra, "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **options, **layout)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), image)


@pytest.mark.parametrize("layout", [TILED, STRIPS], ids=["tiles", "strips"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_transparency_shows_the_background(
    tmp_path: Path, image: NDArray[np.uint8], layout: dict[str, Any], planes: str, kind: str
) -> None:
    """Whether the colours were multiplied by it or not."""
    alpha = np.full(image.shape[:2], 255, np.uint8)
    alpha[:50], alpha[50:100] = 0, 102
    expected = image * (alpha[..., None] / 255) + 255 * (1 - alpha[..., None] / 255)
    own = image if kind == "unassalpha" else np.rint(image * (alpha[..., None] / 255)).astype(np.uint8)
    stored = np.dstack([own, alpha])
    stored = stored if planes == "contig" else np.ascontiguousarray(stored.transpose(2, 0, 1))
    options: dict[str, Any] = {"extrasamples": [kind], "planarconfig": planes}
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **options, **layout)
    assert np.abs(read(tmp_path / "a.tif") - expected).max() <= 2


@pytest.mark.parametrize("layout", [TILED, STRIPS], ids=["tiles", "strips"])
def test_a_slide_that_is_nothing_but_transparent_is_shown(
    tmp_path: Path, image: NDArray[np.uint8], layout: dict[str, Any]
) -> None:
    """An alpha that nobody filled in hides no slide; that it was left aside is said."""
    stored = np.dstack([image, np.zeros(image.shape[:2], np.uint8)])
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["unassalpha"], **layout)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), image)
    assert "transparency" in open_slide(tmp_path / "a.tif").facts.warnings[0]


@pytest.mark.parametrize("layout", [TILED, STRIPS], ids=["tiles", "strips"])
@pytest.mark.parametrize(
    ("dtype", "photometric", "expected"),
    [
        ("float32", "rgb", "samples are 32-bit floating-point numbers.*convert it to 8-bit RGB"),
        ("float16", "minisblack", "samples are 16-bit floating-point numbers"),
        ("uint32", "rgb", "samples are 32-bit numbers"),
        ("int16", "rgb", "samples are 16-bit signed whole numbers"),
        ("int8", "rgb", "samples are 8-bit signed whole numbers"),
        ("bool", "minisblack", "samples are 1-bit numbers"),
        ("uint8", "separated", "inks.*profile"),
        ("uint8", "cielab", "CIE L.*white point"),
    ],
)
def test_what_are_no_colours_is_refused_by_name(
    tmp_path: Path, image: NDArray[np.uint8], layout: dict[str, Any], dtype: str, photometric: str, expected: str
) -> None:
    stored = np.dstack([image, image[..., :1]]) if photometric == "separated" else image
    stored = (stored if photometric != "minisblack" else stored[..., 0]).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, **layout)
    with pytest.raises(SlideError, match=expected):
        open_slide(tmp_path / "a.tif")
