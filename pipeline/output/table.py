"""Tables: CSV files, and predictions.csv in particular."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.output.documents import plain
from pipeline.task.task import Task
from stages.amounts import as_given
from stages.disk import new_file
from stages.place import tellable, told

PATHS = ("path", "slide")
"""Columns of where slides lie, see `stages.place.told`."""
GIVEN = ("decided_at", "risk", "stated_error", "label", "label_time")
"""Columns of what the user said, which are written as that, in all its digits."""


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Write a CSV (UTF-8, one header): numbers to six digits, but those of `GIVEN`; None, NaN and missing values as
    empty cells; nothing in it gives a terminal orders.

    Args:
        path: the file.
        rows: values by column.
        columns: what to write, in this order; default: every key that occurs, in order of appearance.
    """
    if columns is None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
    with (
        new_file(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        careful = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)  # the other leaves "\r" unquoted
        for cells in [list(columns), *([_cell(column, row.get(column)) for column in columns] for row in rows)]:
            (careful if any("\r" in cell for cell in cells) else writer).writerow(cells)


SLIDE, PATIENT = ("slide_id", "path"), ("patient", "slides")
"""Columns that say whose a row is, in predictions.csv and in patients.csv."""


def prediction_columns(task: Task, of: Sequence[str] = SLIDE) -> list[str]:
    """The columns of predictions.csv, or of patients.csv.

    Raises:
        UsageError: two columns would share a name, as with classes "x" and "x_low".
    """
    columns = [*of, "status", "error", "predicted"]
    columns += [f"{name}{end}" for name in task.columns for end in ("", "_low", "_high")]
    columns += ["patches_read", "cells", "fraction_read", "bytes_read", "seconds", "key"]
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        if task.times:
            times = ", ".join(map(repr, task.times))
            raise UsageError(f"cohort.times {times} are too near: two would give the column {twice!r}; choose others")
        raise UsageError(f"the classes {', '.join(task.names)} would give two columns {twice!r}; rename a class")
    return columns


_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.]*\Z)")
"""How a text begins that a spreadsheet would compute: it is quoted as they do, by an apostrophe; signs and numbers are
none."""
CALLS = ["call", "call_why", "label_set", "stated_error"]


def write_predictions(path: Path, rows: Sequence[Mapping[str, Any]], task: Task, of: Sequence[str] = SLIDE) -> None:
    """Write predictions.csv, one row a slide, or patients.csv, one row a patient; a failed one's numbers stay empty and
    its error is one line.

    Last come the columns ``seen`` where the model was made with a slide, ``decision``, ``decided_at`` and ``risk``
    where something was to be decided, ``out_of_distribution`` where a slide has a score, ``call``, ``call_why``,
    ``label_set`` and ``stated_error`` where slides are called, ``warnings`` where a slide has any, and ``patient`` and
    the label's columns where they are known of one: a column of nothing would be one that a table lacks the values of.
    """
    lines = [
        {
            **row,
            "error": " ".join(str(row.get("error") or "").split()),
            "warnings": "; ".join(row.get("warnings") or ()),
        }
        for row in rows
    ]
    columns = prediction_columns(task, of)
    columns += ["seen"] if any(row.get("seen") for row in rows) else []
    columns += ["decision", "decided_at", "risk"] if any("decision" in row for row in rows) else []
    columns += ["out_of_distribution"] if any(row.get("out_of_distribution") is not None for row in rows) else []
    columns += CALLS if any("call" in row for row in rows) else []
    columns += ["warnings"] if any(line["warnings"] for line in lines) else []
    known = [name for name in ("patient", *task.label_columns) if any(row.get(name) is not None for row in rows)]
    columns += [name for name in known if name not in of]
    write_table(path, lines, columns)


def decision_in_words(row: Mapping[str, Any], *, before: str = "") -> str:
    """What a row of predictions.csv says was decided, as ``settled: P(tumour) above 0.5 (risk 0.01)``; else nothing."""
    if "decision" not in row:
        return ""
    at, risk = as_given(row["decided_at"]), f"(risk {as_given(row['risk'])})"
    if row["decision"] == "undecided":
        return f"{before}undecided at {at} {risk}"
    return f"{before}settled: {settled_in_words(row)} {at} {risk}"


def settled_in_words(row: Mapping[str, Any]) -> str:
    """Of what a row of predictions.csv was settled on which side it is: a probability, where no column is called so."""
    name, side = str(row["decision"]).rsplit(" ", 1)
    return f"{name if f'{name}_low' in row else f'P({name})'} {side}"


def _cell(column: str, value: Any) -> str:
    value = plain(value)
    if isinstance(value, float):
        return as_given(value) if column in GIVEN else f"{value:.6g}"
    text = "" if value is None else told(str(value)) if column in PATHS else tellable(str(value))
    # names of slides are harmless already (see `folder_name`), and stay what they are for whoever joins tables by them
    return f"'{text}" if isinstance(value, str) and _FORMULA.match(text) else text


def as_meant(cell: str) -> str:
    """A cell of a table that `write_table` wrote, without the apostrophe that keeps a spreadsheet from computing it."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell, 1) else cell
