"""What a file is that is no slide: the true cause, and what to do."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
from makers import APERIO, small_slide, tissue_pixels, write_slide
from PIL import Image

from stages.slide.facts import SlideError
from stages.slide.files import open_slide
from stages.slide.kinds import is_tiff


def picture(kind: str) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (60, 40)).save(held, kind)
    return held.getvalue()


def workbook() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return held.getvalue()


KINDS = {
    "a.svs": (picture("PNG"), r"a PNG picture: convert it to a tiled TIFF"),
    "b.tif": (picture("JPEG"), r"a JPEG picture"),
    "c.tif": (picture("BMP"), r"a BMP picture"),
    "cohort.xlsx": (workbook(), r"a ZIP archive, as workbooks and documents are too"),
    "empty.svs": (b"", r"an empty file: copy it again"),
    "zeros.svs": (bytes(5000), r"a file of zeros, as a copy that broke off leaves"),
    "text.svs": (
        b"slide,label\na.svs,1\n" * 90,
        r"a text file, whatever its name: name the slide itself, or take this one out",
    ),
    "words.svs": ("Schnitt für Ä 組織 ".encode() * 90, r"a text file"),
    "page.ndpi": (b"<!doctype HTML><p>Sign in", r"a web page, as a download that failed leaves"),
    "lfs.svs": (b"version https://git-lfs.github.com/spec/v1\noid", r"Git LFS pointer.*git lfs pull"),
    "a.dcm": (bytes(128) + b"DICM" + bytes(range(200)), r"DICOM that is no VL Whole Slide Microscopy"),
    "noise.svs": (bytes(range(255, 100, -1)) * 9, r"in any format that is read: convert it to OME-TIFF"),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_slide_is_named(tmp_path: Path, name: str) -> None:
    """By what it is, not by what its name says."""
    data, expected = KINDS[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SlideError, match=rf"^not a whole-slide image.*{expected}"):
        open_slide(tmp_path / name)


def test_companions_are_missed_only_where_they_are_missing(tmp_path: Path) -> None:
    """An MRXS is a JPEG picture beside a folder."""
    path = tmp_path / "a.mrxs"
    path.write_bytes(picture("JPEG"))
    with pytest.raises(SlideError, match=r"the folder 'a' beside it, which holds its pixels, is missing"):
        open_slide(path)
    (tmp_path / "a").mkdir()
    with pytest.raises(SlideError, match=r"^(?!.*missing).*not a whole-slide image"):
        open_slide(path)


def test_a_tiff_that_is_cut_off_says_so(tmp_path: Path) -> None:
    path = small_slide(tmp_path / "a.tif")
    whole = path.stat().st_size
    os.truncate(path, whole // 2)
    with pytest.raises(SlideError, match=rf"a TIFF that is cut off: it ends after {whole // 2} bytes, its tiles after"):
        open_slide(path)
    assert is_tiff(path)


@pytest.mark.parametrize("left", [0.5, 0.9])
def test_a_scanners_slide_that_is_cut_off_is_no_unknown_kind(tmp_path: Path, left: float) -> None:
    """Whether OpenSlide refuses it at once, or tifffile is asked what else it might be."""
    options = {"compression": "aperio_jp2000_rgb", "description": APERIO}
    path = write_slide(tmp_path / "a.svs", tissue_pixels(600, 500, margin=0), **options)
    os.truncate(path, int(path.stat().st_size * left))
    with pytest.raises(SlideError, match=r"cut off: it ends after \d+ bytes, .*copy it again"):
        open_slide(path)


def test_permission_is_the_reason_where_it_is(ordinary_user: Path) -> None:
    """Of the file, and of a folder on the way to it."""
    (ordinary_user / "in").mkdir()
    path = small_slide(ordinary_user / "in/a.tif")
    path.chmod(0)
    with pytest.raises(SlideError, match=r"no permission to read \S+a\.tif: have its owner grant that"):
        open_slide(path)
    path.chmod(0o644)
    (ordinary_user / "in").chmod(0)
    with pytest.raises(SlideError, match=r"no permission to enter \S+in: have its owner"):
        open_slide(path)
    (ordinary_user / "in").chmod(0o755)
    assert open_slide(path).facts.levels[0].width == 1024
