"""The text of a cohort table: what spreadsheets save is read, and what is no table is told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cohort.rows import read_rows
from pipeline.cohort.table import find_target, read_table
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
    with pytest.raises(UsageError, match=r"cannot read the cohort table .*gone\.csv: No such file"):
        read_table(tmp_path / "gone.csv")
    with pytest.raises(UsageError, match="cannot read the cohort table"):
        read_table(tmp_path)
