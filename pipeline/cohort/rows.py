"""A cohort table's text: rows as spreadsheets write and count them, and the values of their cells."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path

from pipeline.errors import UsageError
from stages.disk import read_regular, refusal

_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x1f\x8b", b"PAR1")  # xlsx, ods, zip; xls; gz; parquet

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "tune"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def read_rows(table: Path) -> tuple[list[str], list[tuple[int, list[str]]], str]:
    """(column names, (row number as a spreadsheet counts, cells) for every row that is not blank, decimal sign).

    A first line ``sep=;``, by which spreadsheets are told the separator, is none of the rows.

    Raises:
        UsageError: unreadable, a spreadsheet, not UTF-8, no valid CSV, empty, or a row with more cells than the header.
    """
    try:
        content = read_regular(table)
        if content.startswith(_WORKBOOKS):
            raise UsageError(f"{table} is a spreadsheet or an archive, not text; save the table as 'CSV UTF-8'")
        text = content.decode("utf-8-sig")
        if "\0" in text:
            raise UnicodeError
    except OSError as exc:
        why = refusal(exc, table, writing=False)
        raise UsageError(f"cannot read the cohort table {table}: {why}; a CSV file is expected") from exc
    except UnicodeError as exc:
        raise UsageError(f"{table}: not UTF-8 text; save the table as 'CSV UTF-8'") from exc
    told = re.match(r'"?sep=(.)"?[ \t]*(?:\r\n|\n|\r)', text, re.IGNORECASE)
    if told:
        text = text[told.end() :]
    first = (re.split("[\r\n]", text.lstrip("\r\n"), maxsplit=1))[0]
    separator = told[1] if told else max(",;\t|", key=lambda sign: len(next(csv.reader([first], delimiter=sign), [])))
    try:
        # cells may hold what str.splitlines takes for the end of a line, such as U+2028
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as exc:
        raise UsageError(f"{table}: not a valid CSV ({exc}); save it again as 'CSV UTF-8'") from exc
    rows = [(i, [cell.strip() for cell in line]) for i, line in enumerate(lines, 1)]
    rows = [(i, line) for i, line in rows if any(line)]
    if not rows:
        raise UsageError(f"{table}: empty; expected a header such as slide,patient,label and a row for each slide")
    header = rows[0][1]
    for i, line in rows[1:]:
        if any(line[len(header) :]):
            raise UsageError(
                f"{table}, row {i}: {len(line)} cells under {len(header)} columns; "
                f"put values that contain {separator!r} in double quotes, and nothing above the header, for which "
                f"{separator.join(header)!r} is taken"
            )
        line += [""] * (len(header) - len(line))
    # spreadsheets that separate by ';' do so because their decimal sign is the comma
    return header, rows[1:], "." if separator == "," else ","


def mpp_of(cell: str, where: str) -> tuple[float | None, str | None]:
    """µm/px, or None and, where the cell is not empty, why and what to do."""
    if not cell:
        return None, None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if math.isfinite(value) and value > 0:
        return value, None
    return None, f"{where}: mpp must be a positive number of µm/px, found {cell!r}; correct it or leave it empty"


def split_of(cell: str, where: str) -> str | None:
    """One of "train", "val" and "test", or None where the cell is empty.

    Raises:
        UsageError: another word.
    """
    if cell and cell.lower() not in _SPLITS:
        raise UsageError(f"{where}: split must be train, val or test, found {cell!r}; correct it")
    return _SPLITS.get(cell.lower())


def fold_of(cell: str, where: str) -> int | None:
    """A fold's number, or None where the cell is empty.

    Raises:
        UsageError: no whole number.
    """
    if not cell:
        return None
    if not re.fullmatch(r"[0-9]{1,9}(\.0*)?", cell):  # 2.0: what pandas makes of whole numbers beside empty cells
        raise UsageError(f"{where}: fold must be a whole number from 0, found {cell!r}; correct it")
    return int(cell.partition(".")[0])
