"""Tables have the columns that are promised."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from makers import AWKWARD

from pipeline.cohort.table import read_table
from pipeline.errors import UsageError
from pipeline.output.table import as_meant, prediction_columns, write_predictions, write_table
from pipeline.task.build import TASKS
from pipeline.task.classes import Classes


def test_predictions_have_the_columns_that_are_promised(folder):
    done = {"slide_id": "a", "path": f"/x/{AWKWARD}/a.svs", "status": "ok", "error": "", "predicted": "yes"}
    done |= {"prob_no": 0.25, "prob_no_low": 0.2, "prob_no_high": float("nan")}
    done |= {"prob_yes": 1 / 3, "prob_yes_low": np.float32(0.5), "prob_yes_high": 1.0}
    done |= {"patches_read": 32, "cells": 123456789, "fraction_read": 1e-9, "bytes_read": 10**12, "seconds": 1.5}
    done |= {"key": "k", "not_a_column": 1}
    failed = {"slide_id": "b", "path": "/x/b\r.svs\udcff", "status": "failed", "error": "no\n  such\tfile"}
    path = folder / "predictions.csv"
    write_predictions(path, [done, failed], Classes(("no", "yes")))
    with path.open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    columns = (
        "slide_id,path,status,error,predicted,prob_no,prob_no_low,prob_no_high,prob_yes,prob_yes_low,prob_yes_high,"
        "patches_read,cells,fraction_read,bytes_read,seconds,key"
    )
    assert ",".join(first) == columns
    assert first["path"] == f"/x/{AWKWARD}/a.svs"
    assert (first["prob_no_high"], first["prob_yes"], first["cells"]) == ("", "0.333333", "123456789")
    assert (second["path"], second["error"], second["prob_no"]) == ("file:///x/b%0D.svs%FF", "no such file", "")
    frame = pd.read_csv(path)
    assert frame["bytes_read"][0] == 10**12
    assert frame["status"].tolist() == ["ok", "failed"]


def test_classes_whose_columns_collide_are_refused():
    with pytest.raises(UsageError, match=r"two columns 'prob_x_low'; rename a class"):
        prediction_columns(Classes(("x", "x_low")))
    near = TASKS["discrete_survival"](("risk_score",), ("time", "event"), (2.0000001, 2.0000002))
    with pytest.raises(UsageError, match=r"cohort.times 2.0000001, 2.0000002 are too near: .* 'survival_2'"):
        prediction_columns(near)


@pytest.mark.parametrize(
    ("kind", "names", "labels", "cells", "told"),
    [
        ("classification", ("no", "yes"), (), ("yes",), {"label": "yes"}),
        ("regression", ("value",), ("share",), ("1234567.25",), {"label": "1234567.25"}),
        (
            "multilabel",
            ("a", "b", "c"),
            ("a", "b", "c"),
            ("1", None, "0"),
            {"label_a": "1", "label_b": "", "label_c": "0"},
        ),
        ("survival", ("risk_score",), ("months", "dead"), ("12.5", "1"), {"label_time": "12.5", "label_event": "1"}),
    ],
)
def test_labels_come_last_as_the_model_reads_them(tmp_path, kind, names, labels, cells, told):
    """In all the digits that were given; a slide without one has empty cells."""
    task = TASKS[kind](names, labels)
    rows = [{"slide_id": "a", "patient": "p", **task.label_row(cells)}, {"slide_id": "b"}]
    write_predictions(tmp_path / "t.csv", rows, task)
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert list(first)[-len(told) - 1 :] == ["patient", *told]
    assert {name: first[name] for name in told} == told
    assert not any(second[name] for name in told)


def test_a_table_takes_its_columns_from_its_rows(tmp_path):
    write_table(tmp_path / "t.csv", [{"a": 1}, {"b": None, "a": 2.5}])
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,\n2.5,\n"
    write_table(tmp_path / "t.csv", [], ["a", "b"])
    assert (tmp_path / "t.csv").read_text() == "a,b\n"


def test_no_cell_is_a_formula(tmp_path):
    """Names come from others, and a table is opened with what computes; signs and numbers stay what they are."""
    texts = ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3", "\t=1", "-", "+", "-1.5", "a=b"]
    write_table(tmp_path / "t.csv", [{"text": text, "number": -1.5} for text in texts])
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [*(f"'{text}" for text in texts[:5]), *texts[5:]]
    assert {row["number"] for row in rows} == {"-1.5"}
    assert [as_meant(row["text"]) for row in rows] == texts
    assert as_meant("'quoted' by hand") == "'quoted' by hand"


@pytest.mark.parametrize("name", [b"a\x1b[31m.tif", b"caf\xe9.tif", b"100% \xc3\xa9.tif", b"\xc2\x9b31m%41\n.tif"])
def test_a_path_in_a_table_gives_no_orders_and_is_the_slides(tmp_path: Path, name: bytes) -> None:
    """Whatever bytes a name has: what the table says, and no other file, is found again by whoever is given it."""
    slide = tmp_path / os.fsdecode(name)
    slide.write_bytes(b"")
    write_table(tmp_path / "t.csv", [{"slide": slide, "error": f"stopped at {slide}"}])
    text = (tmp_path / "t.csv").read_text(encoding="utf-8")
    assert all(char.isprintable() or char == "\n" for char in text)
    (found,) = read_table(tmp_path / "t.csv").slides
    assert (found.path, found.problem) == (slide, None)
