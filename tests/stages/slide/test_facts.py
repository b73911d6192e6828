"""What a slide says of itself: levels, resolution, bounds, fingerprint; what is absurd is refused."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from makers import change_tags, tissue_pixels, write_slide

from stages.geometry import Box, Mpp, Raster
from stages.slide.facts import SlideError, _bounds
from stages.slide.files import open_slide


def test_facts_of_a_plain_slide(slides_folder: Path) -> None:
    """Levels, tiles, resolution and bounds are what was written."""
    facts = open_slide(slides_folder / "odd.tif").facts
    assert facts.levels == (Raster(0, 0, 1, 1, 1803, 2401), Raster(0, 0, 4, 4, 450, 600))
    assert facts.tile_sizes == ((240, 240), (240, 240))
    assert (facts.mpp, facts.mpp_source, facts.mpp_problem) == (Mpp(0.5, 0.5), "file", None)
    assert facts.bounds == Box(0, 0, 1803, 2401)
    assert (facts.vendor, facts.background, facts.associated) == ("generic-tiff", (255, 255, 255), ())
    assert facts.file_bytes == (slides_folder / "odd.tif").stat().st_size


def test_mpp_of_the_two_axes_may_differ(tmp_path: Path) -> None:
    """A slide scanned at 0.5 x 0.25 µm/px is just that."""
    path = write_slide(
        tmp_path / "a.tif",
        tissue_pixels(300, 300),
        mpp=None,
        levels=1,
        resolution=(2e4, 4e4),
        resolutionunit="CENTIMETER",
    )
    assert open_slide(path).facts.require_mpp() == Mpp(0.5, 0.25)


def test_an_override_replaces_the_files_mpp(slides_folder: Path) -> None:
    """What the user says of the resolution goes before what the file says; the content stays the same slide."""
    own, told = open_slide(slides_folder / "even.tif").facts, open_slide(slides_folder / "even.tif", mpp=0.25).facts
    assert (told.mpp, told.mpp_source) == (Mpp(0.25, 0.25), "override")
    assert replace(told, mpp=own.mpp, mpp_source="file") == own


@pytest.mark.parametrize("mpp", [math.nan, 0.0, -0.5, 0.005, 352.8, math.inf])
def test_an_implausible_override_is_refused(slides_folder: Path, mpp: float) -> None:
    """A resolution that no microscope has is not taken from the user either."""
    with pytest.raises(SlideError, match=r"implausible.*--mpp"):
        open_slide(slides_folder / "even.tif", mpp=mpp).facts.require_mpp()


def test_a_missing_mpp_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """A slide that does not say its resolution opens, but nothing physical can be asked of it."""
    facts = open_slide(write_slide(tmp_path / "a.tif", tissue_pixels(300, 300), mpp=None, levels=1)).facts
    assert (facts.mpp, facts.mpp_source) == (None, "none")
    with pytest.raises(SlideError, match=r"does not say its resolution.*--mpp.*cohort table"):
        facts.require_mpp()


@pytest.mark.parametrize(
    ("claimed", "bounds", "origin", "words"),
    [
        (("100", "50", "300", "200"), Box(100, 50, 300, 200), (100, 50), None),
        (("900", "700", "300", "200"), Box(900, 700, 100, 100), (900, 700), "reach beyond it"),
        (
            ("-40", "50", "300", "200"),
            Box(0, 50, 260, 200),
            (-40, 50),
            "reach beyond it: of them 260 x 200 px at (0, 50)",
        ),
        (("5000", "0", "10", "10"), Box(0, 0, 1000, 800), (0, 0), "lie outside"),
        (("0", "0", "-5", "10"), Box(0, 0, 1000, 800), (0, 0), "lie outside"),
        (("a", "50", "300", "200"), Box(0, 0, 1000, 800), (0, 0), "no numbers"),
        ((), Box(0, 0, 1000, 800), (0, 0), None),
    ],
)
def test_bounds_lie_inside_the_slide(
    claimed: tuple[str, ...], bounds: Box, origin: tuple[int, int], words: str | None
) -> None:
    """What the file says was scanned is cut to the slide, and that is said; QuPath still counts from what it says."""
    keys = (f"openslide.bounds-{name}" for name in ("x", "y", "width", "height"))
    found, corner, warning = _bounds(dict(zip(keys, claimed, strict=False)), (1000, 800))
    assert (found, corner) == (bounds, origin)
    assert warning is None if words is None else words in str(warning)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"ImageWidth": 2**23}, "claims 8388608 x 512 pixels"),
        (
            {"ImageWidth": 2**15, "ImageLength": 2**15, "TileWidth": 2**14, "TileLength": 2**14},
            "tiles of 16384 x 16384",
        ),
        ({"TileWidth": 2**15, "TileLength": 2**15}, "tiles of 32768 x 32768"),
    ],
)
def test_absurd_dimensions_are_refused_when_opened(tmp_path: Path, tags: dict[str, int], message: str) -> None:
    """A header that claims terapixels or a tile of a gigapixel is refused before anything is allocated for it."""
    path = change_tags(write_slide(tmp_path / "a.tif", tissue_pixels(512, 512), levels=1), **tags)
    with pytest.raises(SlideError, match=message):
        open_slide(path)


def test_the_fingerprint_is_that_of_the_content(slides_folder: Path, tmp_path: Path) -> None:
    """A renamed copy with another date is the same slide; one changed byte in what is sampled makes another."""
    own = open_slide(slides_folder / "even.tif").facts.fingerprint
    copy = Path(shutil.copy(slides_folder / "even.tif", tmp_path / "renamed copy.tif"))
    os.utime(copy, (1, 1))
    assert open_slide(copy).facts.fingerprint == own
    with copy.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    changed = open_slide(copy).facts.fingerprint
    assert changed != own
    with copy.open("ab") as file:
        file.write(b"more")
    assert open_slide(copy).facts.fingerprint not in (own, changed)


REAL = [
    (
        "CMU-1-Small-Region.svs",
        {"vendor": "aperio", "mpp": Mpp(0.499, 0.499), "objective_power": "20", "tile_sizes": ((240, 240),)},
        [(2220, 2967, 1)],
    ),
    (
        "test3-DAPI-2-(387).ndpi",
        {"vendor": "hamamatsu", "mpp": Mpp(0.2281750559028887, 0.2281750559028887), "associated": ("macro",)},
        [(3968 >> i, 4864 >> i, 1 << i) for i in range(7)],
    ),
    (
        "multi_frame_jpeg_camelyon_challenge_image.dcm",
        {"vendor": "dicom", "mpp": Mpp(28.969, 28.968), "associated": ()},
        [(1152, 700, 1)],
    ),
    ("small.svs", {"vendor": "aperio", "mpp": Mpp(0.499, 0.499), "tile_sizes": ((16, 16),)}, [(16, 16, 1)]),
    ("boxes.tiff", {"vendor": "generic-tiff", "mpp": None}, [(300 >> i, 250 >> i, 1 << i) for i in range(4)]),
]


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "expected", "levels"), REAL, ids=[row[0] for row in REAL])
def test_facts_of_real_slides(
    shared_data: Path, name: str, expected: dict[str, object], levels: list[tuple[int, int, int]]
) -> None:
    """Scanners' own files: their levels, resolution and tiles; and every level can be read to its far corner."""
    slide = open_slide(shared_data / "slides" / name)
    assert {key: getattr(slide.facts, key) for key in expected} == expected
    assert [(level.width, level.height, level.scale_x) for level in slide.facts.levels] == levels
    assert slide.facts.levels[0].width * slide.facts.levels[0].height == slide.facts.bounds.area
    for i, level in enumerate(slide.facts.levels):
        assert slide.read_level(i, Box(level.width - 1, level.height - 1, 1, 1)).shape == (1, 1, 3)


@pytest.mark.realdata
def test_a_resolution_from_a_print_tag_is_refused(shared_data: Path) -> None:
    """72 dpi is 352.8 µm/px: implausible, with the remedy; the remedy works."""
    path = shared_data / "slides/boxes.tiff"
    with pytest.raises(SlideError, match=r"implausible resolution 352\.8 x 352\.8.*--mpp"):
        open_slide(path).facts.require_mpp()
    assert open_slide(path, mpp=0.5).facts.require_mpp() == Mpp(0.5, 0.5)
