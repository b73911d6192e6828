"""The text of a cohort table: what spreadsheets save is read, and what is no table is told in one line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from pipeline.cohort.rows import read_rows
from pipeline.cohort.table import read_table
from pipeline.cohort.target import find_target
from pipeline.errors import UsageError


@pytest.fixture
def table(tmp_path: Path):
    def write(text: str, *, encoding: str = "utf-8") -> Path:
        path = tmp_path / "cohort.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def test_rows_are_counted_as_spreadsheets_do_and_filled_up_to_the_header(table):
    header, rows, decimal = read_rows(table("slide,label,mpp\n\na.svs , x\nb.svs,y,0.5\n"))
    assert header == ["slide", "label", "mpp"]
    assert rows == [(3, ["a.svs", "x", ""]), (4, ["b.svs", "y", "0.5"])]
    assert decimal == "."


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_what_spreadsheets_save_is_read(table, separator, encoding, newline):
    mpp = '"0.25"' if separator == "," else "0,25"
    rows = [["Slide", "Label", "MPP"], ["a.svs", '"x, y; z"', mpp], ["b.ndpi", "ü", ""]]
    path = table(newline.join(separator.join(row) for row in rows) + newline, encoding=encoding)
    first, second = read_table(path).slides
    assert (first.label, first.mpp) == ("x, y; z", 0.25)
    assert (second.label, second.mpp) == ("ü", None)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_other_encodings_name_the_right_one(table, encoding):
    with pytest.raises(UsageError, match="CSV UTF-8"):
        find_target(table("slide,label\na.svs,ü\n", encoding=encoding))


def test_a_missing_table_or_a_folder_is_one_line(tmp_path):
    with pytest.raises(
        UsageError, match=r"cannot read the cohort table .*gone\.csv: there is no such file or folder: correct"
    ):
        read_table(tmp_path / "gone.csv")
    with pytest.raises(UsageError, match=r"cannot read the cohort table .*: it is a folder: give a file"):
        read_table(tmp_path)


def test_a_first_line_that_names_the_separator_is_none_of_the_rows(table):
    for text in ("sep=;\nslide;label\na.svs;x, y\n", '"sep=;"\r\nslide;label\r\na.svs;x, y\r\n'):
        header, rows, _ = read_rows(table(text))
        assert (header, rows) == (["slide", "label"], [(2, ["a.svs", "x, y"])])


@pytest.mark.parametrize("sign", ["\u2028", "\x0b", "\x85"])
def test_only_newlines_end_a_row(table, sign):
    """Not what Python's str.splitlines takes for the end of a line."""
    header, rows, _ = read_rows(table(f"slide,note\ra.svs,old{sign}scan\rb.svs,\r"))
    assert (len(header), [row[0] for _, row in rows]) == (2, ["a.svs", "b.svs"])


def test_a_separator_inside_quotes_does_not_count(table):
    header, _, _ = read_rows(table('"slide, file, scan";label\na.svs;x\n'))
    assert header == ["slide, file, scan", "label"]


@pytest.mark.parametrize("name", ["cohort.xlsx", "cohort.ods", "cohort.csv.gz"])
def test_a_spreadsheet_is_refused_as_what_it_is(tmp_path, name):
    start = gzip.compress(b"slide\n") if name.endswith("gz") else b"PK\x03\x04 workbook"
    (tmp_path / name).write_bytes(start)
    with pytest.raises(UsageError, match=r"is a spreadsheet or an archive, not text; save the table as 'CSV UTF-8'"):
        find_target(tmp_path / name)
