"""What a run's metrics count: no slide that the model was made with, unless that is asked for; and it is said."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import commands
from pipeline.cohort.cohort import CohortSlide
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model, save_model
from pipeline.run.combine import patient_metrics
from pipeline.run.counting import DIFFER, Counted, count
from pipeline.task.build import TASKS
from pipeline.task.classes import Classes
from stages.pyramid.open import open_pyramid

CLASSES = ("a", "b")


def predicted(name: str, seen: str | None = None, **told: Any) -> tuple[CohortSlide, dict[str, Any]]:
    slide = CohortSlide(name, Path(f"/x/{name}"), **{"patient": f"P{name}", "label": "a", **told})
    return slide, {"seen": seen, "prob_a": 0.75, "prob_b": 0.25}


def judged(*done: tuple[CohortSlide, dict[str, Any]], split: str | None = None, count_seen: bool = False) -> Counted:
    return count(done, Classes(CLASSES), split=split, count_seen=count_seen)


def names(found: Counted) -> list[str]:
    return [slide.slide_id for slide, _ in found.slides]


TABLE = (
    predicted("fit", "trained on", split="test"),
    predicted("chosen", "validated on", split="test", label="b"),
    predicted("plain", split="test"),
    predicted("other", split="test", label="b"),
    predicted("val", split="val"),
    predicted("train", split="train"),
    predicted("unlabelled", "trained on", label=None),
)


def test_what_the_model_has_seen_never_counts_whatever_the_table_says() -> None:
    found = judged(*TABLE)
    assert names(found) == ["plain", "other"]
    assert found.not_counted == {"trained on": 1, "validated on": 1, "val": 1, "train": 1}
    assert found.metrics["slides"] == 2
    said = "\n".join(found.in_lines())
    assert "2 slides of 2 patients" in said
    assert "1 of split val, 1 of split train" in said
    assert "3 slides: 2 trained on, 1 validated on: none is counted" in said


def test_a_split_that_is_asked_for_counts_and_what_was_seen_of_it_does_not() -> None:
    assert names(judged(*(one for one in TABLE if one[0].split == "val"), split="val")) == ["val"]
    assert names(judged(predicted("x", "validated on", split="val"), split="val")) == []


def test_what_was_seen_counts_where_that_is_asked_for() -> None:
    found = judged(*TABLE, count_seen=True)
    assert names(found) == ["fit", "chosen", "plain", "other"]
    assert found.seen.keys() == {"fit", "chosen", "unlabelled"}
    assert found.in_lines()[-1].endswith(
        "counted all the same, as --count-seen asks: the metrics are no proof of how good the model is"
    )


def test_another_slide_of_a_patient_who_was_trained_on_does_not_count() -> None:
    found = judged(predicted("one", "trained on", patient="P"), predicted("two", patient="P"), predicted("three"))
    assert names(found) == ["three"]
    assert found.why == {"one": "trained on", "two": "of a patient trained on"}


@pytest.mark.parametrize("times", [(), (2.0,)])
def test_patients_whose_times_differ_do_not_count_and_that_is_said_once(times: tuple[float, ...]) -> None:
    kind = TASKS["discrete_survival" if times else "survival"]
    task = kind(("risk_score",), ("time", "event"), times)
    done = []
    for i in range(12):
        differs = i == 1  # of the first patient, of two slides each
        cells = (("time", f"{1 + i // 2 + differs}"), ("event", "1"))
        slide = CohortSlide(f"s{i}", Path(f"/x/s{i}"), f"p{i // 2}", None, others=cells)
        values = [float(-i)] + [0.5] * len(times)
        done.append((slide, {"seen": None, **task.row(values, values, values)}))
    found = count(done, task, split=None, count_seen=False)
    assert found.why == {"s0": DIFFER, "s1": DIFFER}
    assert found.metrics["patients"] == 5
    assert found.metrics["c_index"]["value"] == 1.0
    by_patient = patient_metrics(found, task)
    assert by_patient is not None
    assert (by_patient["counted"], by_patient["labels_differ"]) == (5, 1)
    assert [line for line in found.in_lines() if "differ" in line] == [
        f"not counted: 2 {DIFFER}: what is predicted is the patient's, so give all of his the same"
    ]
    alone = count(done[:2], task, split=None, count_seen=True)
    assert (alone.metrics, alone.not_counted) == ({}, {DIFFER: 2})


def test_without_labels_there_is_nothing_to_say_but_what_was_seen() -> None:
    assert judged(predicted("x", label=None)).in_lines() == []
    (line,) = judged(predicted("x", "trained on", label=None)).in_lines()
    assert line.endswith("1 trained on: what the model says of them is no proof of how good it is")


def test_classes_are_sought_in_the_column_that_the_model_learnt_from_else_in_label() -> None:
    """What stands under `label` beside the model's own column is of something else."""
    task = Classes(CLASSES, ("Verdict",))
    row = {"seen": None, "prob_a": 0.75, "prob_b": 0.25}
    own = [
        (CohortSlide(f"s{i}", Path(f"/x/{i}"), f"p{i}", "other", others=(("verdict", "ab"[i % 2]),)), row)
        for i in range(4)
    ]
    found = count(own, task, split=None, count_seen=False)
    assert found.metrics["slides_per_class"] == {"a": 2, "b": 2}
    assert names(count([predicted("x"), predicted("y", label="b")], task, split=None, count_seen=False)) == ["x", "y"]
    bare = [predicted("x", label=None)]
    assert count(bare, task, split=None, count_seen=False).in_lines() == []
    for how in ({"split": "test", "count_seen": False}, {"split": None, "count_seen": True}):
        (line,) = count(bare, task, **how).in_lines()
        assert line == "metrics:     none: no slide has a label under 'Verdict': call its column so"


def test_a_run_of_one_split_says_what_counts_on_the_terminal_and_in_files(
    slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """With a slide that the model was trained on under another name among those of test."""
    model = load_model(checkpoint)
    model.trained_on = frozenset({open_pyramid(slides_folder / "even.tif").facts.fingerprint})
    save_model(model, tmp_path / "model.safetensors")
    table, out = tmp_path / "cohort.csv", tmp_path / "out"
    one, other = model.spec.classes[:2]
    rows = [("even", one, "test"), ("odd", other, "testing"), ("plain", one, "train")]
    lines = [f"{slides_folder / name}.tif,{label},{split}" for name, label, split in rows]
    table.write_text("\n".join(["slide,label,split", *lines]))
    summary = commands.run(table, tmp_path, out=out, split="Testing", workers=0)
    assert (summary.total, summary.metrics["slides"], summary.not_counted) == (2, 1, {"trained on": 1})
    told = json.loads((out / "metrics.json").read_text())
    assert told["slides"] == {"labelled": 2, "counted": 1}
    assert told["metrics"] == summary.metrics
    with (out / "predictions.csv").open(newline="") as file:
        assert {row["slide_id"]: row["seen"] for row in csv.DictReader(file)} == {"even": "trained on", "odd": ""}
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "1 slide seen in the training" in report
    assert "the metrics do not count them" in report
    commands.run(slides_folder / "odd.tif", tmp_path, out=out, workers=0)
    assert not (out / "metrics.json").exists(), "of a run with labels"
    for split, words in (("val", "no slides of split val, found only test, train"), ("tset", "must be train, val")):
        with pytest.raises(UsageError, match=words):
            commands.run(table, tmp_path, out=out, split=split)
    with pytest.raises(UsageError, match="found no split column; add one, or leave --split out"):
        commands.run(slides_folder, tmp_path, out=out, split="test")
