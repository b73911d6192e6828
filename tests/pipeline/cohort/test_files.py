"""What a slide is called, and which file a table's cell means."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cohort.files import find_slides, finder, folder_name, slide_stem
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("test3-DAPI-2-(387)", "test3-DAPI-2-(387)"),
        ("Fälle 12 肝臓", "Fälle 12 肝臓"),
        ("a/b\\c:d*e?f", "a%2Fb%5Cc%3Ad%2Ae%3Ff"),
        ("a\nb\tc\0", "a%0Ab%09c%00"),
        ("50%", "50%25"),
        ("..", "%2E%2E"),
        (" x. ", "%20x.%20"),
        ("con", "%63on"),
        ("COM¹", "%43OM¹"),
        ("nul .1", "%6Eul .1"),
        ("conout$", "%63onout$"),
        ("COM1.a", "%43OM1.a"),
        ("bad\udcff", "bad%ED%B3%BF"),
    ],
)
def test_names_become_safe_folders(tmp_path, name, safe):
    assert folder_name(name) == safe
    (tmp_path / safe).mkdir()
    assert [path.name for path in tmp_path.iterdir()] == [safe]


def test_names_stay_different_when_cut():
    first, second = folder_name("é" * 300 + "1"), folder_name("é" * 300 + "2")
    assert first != second
    assert max(len(first.encode()), len(second.encode())) <= 120
    assert folder_name("a/b") != folder_name("a%2Fb")
    assert folder_name("e\u0301") == folder_name("é")


@pytest.mark.parametrize(
    ("file", "stem"),
    [
        ("a.svs", "a"),
        ("a.OME.TIFF", "a"),
        ("a.ome.zarr", "a"),
        ("TCGA-1.2f6b", "TCGA-1.2f6b"),
        ("TCGA-1.2f6b.svs", "TCGA-1.2f6b"),
        ("x.jp2", "x.jp2"),
    ],
)
def test_stems(file, stem):
    assert slide_stem(Path(file)) == stem


def test_a_pyramid_stands_in_the_place_of_its_slide(tmp_path):
    (tmp_path / "gone.ome.zarr").mkdir()
    (tmp_path / "there.ome.zarr").mkdir()
    (tmp_path / "there.tif").touch()
    find = finder(tmp_path)
    assert find("gone.tif", "row 2") == (tmp_path / "gone.ome.zarr", None)
    assert find("there.tif", "row 3") == (tmp_path / "there.tif", None)


def test_names_written_on_windows_or_in_another_case_are_found_or_told(tmp_path):
    (tmp_path / "sub dir").mkdir()
    for name in ("sub dir/e.svs", "b.ndpi"):
        (tmp_path / name).touch()
    find = finder(tmp_path)
    assert find("sub dir\\e.svs", "row 2") == (tmp_path / "sub dir" / "e.svs", None)
    _, problem = find("B.NDPI", "row 3")
    assert problem is None or problem.endswith("; there is 'b.ndpi'")  # None where file systems fold case


def test_an_image_that_may_not_be_read_is_found_so_that_it_fails_where_it_is_seen(ordinary_user):
    shut = ordinary_user / "a.zarr"
    shut.mkdir(0)
    assert find_slides(ordinary_user) == [shut]
    with pytest.raises(SlideError, match=r"its zarr\.json cannot be read: no permission to enter"):
        open_pyramid(shut)


@pytest.mark.parametrize("name", ["=1+1", "@x", "+x", "-x"])
def test_no_slide_is_called_as_a_formula_or_an_option(name: str) -> None:
    assert folder_name(name) == f"%{ord(name[0]):02X}{name[1:]}"
