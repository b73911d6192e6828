"""DICOM files in one folder are told apart by reading the header of each once."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

import pytest

from pipeline.cohort.files import find_slides
from stages.slide import dicom_header
from stages.slide.dicom_header import series_files, series_of

LEVELS = 4


def write_header(path: Path, series: str) -> Path:
    """A file that begins as DICOM does and names its series."""
    elements = b""
    for group, number, value in ((0x0002, 0x0010, "1.2.840.10008.1.2.4.50"), (0x0020, 0x000E, series)):
        text = value.encode() + bytes(len(value) % 2)
        elements += struct.pack("<HH2sH", group, number, b"UI", len(text)) + text
    path.write_bytes(bytes(128) + b"DICM" + elements)
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was opened."""
    counts, really = Counter[str](), dicom_header.open_regular

    def counting(path: Path) -> object:
        counts[path.name] += 1
        return really(path)

    monkeypatch.setattr(dicom_header, "open_regular", counting)
    return counts


def test_each_header_of_a_folder_is_read_once(tmp_path: Path, opened: Counter[str]) -> None:
    """By the search for slides and by the opening of every one of them together; another file is read again."""
    files = [write_header(tmp_path / f"{i:03d}.dcm", f"1.2.{i // LEVELS}") for i in range(400)]
    slides = find_slides(tmp_path)
    assert slides == files[::LEVELS]
    for i, slide in enumerate(slides):
        assert series_files(slide) == files[LEVELS * i : LEVELS * (i + 1)]
    assert opened == dict.fromkeys((file.name for file in files), 1)
    write_header(files[1], "1.2.99999")
    assert series_files(slides[0]) == [files[0], *files[2:LEVELS]]
    assert opened.pop("001.dcm") == 2
    assert set(opened.values()) == {1}


def test_what_names_no_series_is_of_none_and_stays_to_fail(tmp_path: Path) -> None:
    whole = write_header(tmp_path / "a.dcm", "1.2.3")
    (tmp_path / "cut.dcm").write_bytes(whole.read_bytes()[:150])
    (tmp_path / "text.dcm").write_text("no DICOM")
    (tmp_path / "none.dcm").symlink_to(tmp_path / "nowhere")
    assert {series_of(tmp_path / name) for name in ("cut.dcm", "text.dcm")} == {""}
    assert series_files(tmp_path / "text.dcm") == []
    assert series_files(whole) == [whole]
    assert {path.name for path in find_slides(tmp_path)} == {"a.dcm", "cut.dcm", "text.dcm", "none.dcm"}
