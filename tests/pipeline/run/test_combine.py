"""Patients of a model of slides: their slides' predictions put together, and judged beside those."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import tissue_pixels, write_slide
from models import TINY, sampler_model
from scipy.special import expit, logit, softmax

from pipeline.cohort.cohort import CohortSlide
from pipeline.cohort.target import find_target
from pipeline.model.checkpoint import save_model
from pipeline.run.combine import combined, patient_rows
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort
from pipeline.task.build import TASKS
from pipeline.task.task import Task

THREE = TASKS["classification"](("a", "b", "c"), (), ())


def row_of(task: Task, values: Any, low: Any, high: Any, **more: Any) -> dict[str, Any]:
    sums = {"patches_read": 8, "cells": 20, "bytes_read": 1000, "seconds": 1.0, "fraction_read": 0.4, "key": "k"}
    return {"status": "ok", "error": "", **task.row(values, low, high), **sums, **more}


def test_logits_are_the_slides_mean_and_the_interval_holds_as_often_as_theirs() -> None:
    """Slides whose log-odds are drawn with a known spread: of the patient's 95 % hold what the mean really is."""
    rng = np.random.default_rng(0)
    task = TASKS["classification"](("a", "b"), (), ())
    truth, spread, draws = np.array([0.3, -1.0, 2.0]), np.array([0.5, 1.0, 0.2]), 400
    held = 0
    for _ in range(draws):
        found = truth + rng.normal(0, 1, 3) * spread
        rows = []
        for x, s in zip(found, spread, strict=True):
            low, high = (expit(x + sign * 1.96 * s) for sign in (-1, 1))
            rows.append(row_of(task, [1 - expit(x), expit(x)], [1 - high, low], [1 - low, high]))
        told = combined(rows, task)
        assert logit(told["prob_b"]) == pytest.approx(found.mean())
        assert told["prob_a"] == pytest.approx(1 - told["prob_b"])
        held += told["prob_b_low"] <= expit(truth.mean()) <= told["prob_b_high"]
    assert abs(held / draws - 0.95) < 4 * np.sqrt(0.95 * 0.05 / draws)


def test_of_more_classes_their_logits_too_and_of_numbers_their_mean() -> None:
    logits = np.array([[1.0, 0.0, -1.0], [0.0, 2.0, 0.5]])
    rows = [row_of(THREE, p, p * 0.9, p * 1.05) for p in softmax(logits, 1)]
    told = combined(rows, THREE)
    expected = softmax(logits.mean(0))
    np.testing.assert_allclose([told[f"prob_{name}"] for name in "abc"], expected)
    assert told["predicted"] == "b"
    number = TASKS["regression"](("value",), ("grade",), ())
    told = combined([row_of(number, [1.0], [0.4], [1.6]), row_of(number, [3.0], [2.2], [3.8])], number)
    column = number.columns[0]
    assert told[column] == 2
    assert told[f"{column}_high"] - told[column] == pytest.approx(np.hypot(0.6, 0.8) / 2)
    # of one slide it is that slide's, and what was read whole stays exact
    assert combined(rows[:1], THREE).items() <= rows[0].items()
    exact = [row_of(THREE, p, p, p) for p in softmax(logits, 1)]
    told = combined(exact, THREE)
    assert all(told[f"prob_{n}_low"] == pytest.approx(told[f"prob_{n}"]) for n in "abc")
    # nothing is known where nothing is known of one slide
    told = combined([rows[0], row_of(THREE, softmax(logits[1]), [0, 0, 0], [1, 1, 1])], THREE)
    assert [(told[f"prob_{n}_low"], told[f"prob_{n}_high"]) for n in "abc"] == [(0, 1)] * 3


def test_a_patient_says_which_of_the_slides_failed() -> None:
    def slide(name: str, patient: str) -> CohortSlide:
        return CohortSlide(name, Path(name), patient)

    done = row_of(THREE, [0.2, 0.3, 0.5], [0.1, 0.2, 0.4], [0.3, 0.4, 0.6])
    failed = {"status": "failed", "error": "it is gone"}
    rows = patient_rows(
        [
            (slide("x", "p"), done),
            (slide("y", "q"), failed),
            (slide("z", "p"), failed),
            (slide("w", "r"), {"status": "waiting", "error": ""}),
        ],
        THREE,
    )
    assert [(row["patient"], row["slides"], row["status"]) for row in rows] == [
        *(("p", "x; z", "ok"), ("q", "y", "failed"), ("r", "w", "waiting")),
    ]
    assert rows[0]["warnings"] == ["of 1 slide of 2: z failed: it is gone"]
    assert rows[0]["prob_c"] == 0.5
    assert rows[1]["error"] == "y failed: it is gone"


def test_a_run_writes_them_where_the_table_tells_patients_with_several_slides(tmp_path: Path) -> None:
    lines = ["slide,patient,label"]
    for i, patient in enumerate("ppqrr"):
        write_slide(tmp_path / f"s{i}.tif", tissue_pixels(300 + 8 * i, 320, margin=0.1), levels=2, factor=4)
        lines.append(f"s{i}.tif,{patient},{'a' if patient == 'p' else 'b'}")
    (tmp_path / "cohort.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "single.csv").write_text("\n".join([lines[0], lines[1], lines[3]]) + "\n")
    spec = replace(TINY, classes=("a", "b"), patch_mpp=0.5, attention_mpp=4.0)
    save_model(sampler_model(spec), tmp_path / "m.safetensors")

    def ran(table: str) -> dict[str, Any]:
        settings = RunSettings(tmp_path / "m.safetensors", device="cpu")
        summary = run_cohort(find_target(tmp_path / table), tmp_path / "out", settings)
        assert any(line.startswith("by patient: ") for line in summary.judged) == (table == "cohort.csv")
        found: dict[str, Any] = json.loads((tmp_path / "out" / "metrics.json").read_text())
        return found

    metrics = ran("cohort.csv")
    with (tmp_path / "out" / "patients.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["patient"], row["slides"]) for row in rows] == [("p", "s0; s1"), ("q", "s2"), ("r", "s3; s4")]
    assert [row["label"] for row in rows] == ["a", "b", "b"]
    report = (tmp_path / "out" / "report.html").read_text()
    assert "<h2>Slides</h2>" in report
    assert "<strong>s0</strong>" in report, "a row is of a slide, and is called so"
    assert "<strong>p</strong>" not in report
    assert metrics["metrics"]["slides"] == 5
    assert metrics["patients"]["counted"] == 3
    assert metrics["patients"]["metrics"]["patients"] == 3
    assert metrics["patients"]["metrics"]["slides"] == 5
    assert "patients" not in ran("single.csv")
    assert not (tmp_path / "out" / "patients.csv").exists()
