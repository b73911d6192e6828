"""Labels that cannot be learnt from: each refused in one line before a slide is read, by the table of a training."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cohort.folds import check_folds, deal_folds
from pipeline.cohort.labels import dealt, refuse_unknown_labels
from pipeline.cohort.target import find_target
from pipeline.config import load_config
from pipeline.errors import UsageError
from pipeline.task.build import TASKS
from pipeline.train.spec import configured_cohort, configured_task

TIMED = "{table: t.csv, time: OS, event: dead}"
DISCRETE = "{table: t.csv, time: OS, event: dead, times: [1, 2, 5]}"
GRADED = "{table: t.csv, task: ordinal, grades: [I, II, III]}"
ROWS = range(10)


def check(folder: Path, cohort: str, columns: str, cells: list[str], *changes: str) -> list[str]:
    """What a training is told of its folds before it reads a slide: what is doubtful."""
    rows = [f"s{i}.tif,p{i},{cell}" for i, cell in enumerate(cells)]
    (folder / "t.csv").write_text("\n".join((f"slide,patient,{columns}", *rows, "")))
    for i in range(len(cells)):
        (folder / f"s{i}.tif").touch()
    (folder / "c.yaml").write_text(f"cohort: {cohort}")
    config = load_config(folder / "c.yaml", list(changes))
    told = config.training
    found = configured_cohort(config.cohort, folds=told.folds)
    task = configured_task(config.cohort, found)
    return check_folds(dealt(found, task, told.folds or 5).slides, folds=told.folds, seed=told.seed, task=task)


@pytest.mark.parametrize(
    ("cohort", "columns", "cells"),
    [
        ("{table: t.csv, task: regression}", "label", [str(i / 3) for i in ROWS]),
        (TIMED, "OS,dead", [f"{i},{i % 2}" for i in ROWS]),
        (DISCRETE, "OS,dead", [f"{i},{i % 2}" for i in ROWS]),
        ("{table: t.csv, labels: [a, b]}", "a,b", [f"{i % 2},{i // 5}" for i in ROWS]),
        (GRADED, "label", [("I", "II", "III")[i % 3] for i in ROWS]),
        ("{table: t.csv}", "label", ["ab"[i % 2] for i in ROWS]),
    ],
    ids=["numbers", "survival", "discrete survival", "labels", "grades", "classes"],
)
def test_labels_of_every_kind_are_dealt_to_folds_without_a_doubt(
    cohort: str, columns: str, cells: list[str], tmp_path: Path
) -> None:
    """Numbers that are all unlike, and rare combinations of labels, are no classes that a fold could lack."""
    assert check(tmp_path, cohort, columns, cells) == []


def test_folds_hold_early_and_late_events_alike(tmp_path: Path) -> None:
    """Half of forty patients have the event, most of the early ones in the table's first rows: dealt by events alone a
    fold may have few of them."""
    cells = [f"{i},{i % 2}" for i in range(40)]
    check(tmp_path, TIMED, "OS,dead", cells)
    config = load_config(tmp_path / "c.yaml")
    found = configured_cohort(config.cohort)
    task = configured_task(config.cohort, found)
    for seed in range(8):
        for fold in deal_folds(dealt(found, task, 5).slides, folds=5, seed=seed, path=None):
            told = [task.target(slide.cells(task.labels)) for slide in fold.test]
            for seen in (0, 1):
                early = [time < 20 for time, event in told if event == seen]
                assert (len(early), sum(early)) == (4, 2)
    assert {slide.dealt_by for slide in dealt(found, task, 5, by_site=True).slides} == {"event", "no event"}


def test_folds_and_parts_without_an_event_are_doubted(tmp_path: Path) -> None:
    two = [f"{i},{int(i in (2, 7))}" for i in ROWS]
    lines = check(tmp_path, TIMED, "OS,dead", two)
    assert [line.partition(" is judged on ")[2] for line in lines] == [
        "no event: it counts with the other folds only"
    ] * 3
    assert check(tmp_path, TIMED, "OS,dead", two, "training.folds=2") == []
    parted = [f"{cells},{'test' if i > 7 else 'train'}" for i, cells in enumerate(two)]
    assert check(tmp_path, TIMED, "OS,dead,split", parted) == [
        "split test has no event: how good the model is cannot be told on it"
    ]


@pytest.mark.parametrize(
    ("cohort", "columns", "cells", "words"),
    [
        (TIMED, "OS,dead", [f"{-1 if i == 3 else i},{i % 2}" for i in ROWS], "'s3': the time 'OS' must be 0 or more"),
        (TIMED, "OS,dead", [f"{'' if i == 3 else i},{i % 2}" for i in ROWS], "'s3': the time 'OS' .*found nothing"),
        (TIMED, "OS,dead", [f"{'1 y' if i == 3 else i},{i % 2}" for i in ROWS], "'s3': the time 'OS' .*found '1 y'"),
        (TIMED, "OS,dead", [f"{'inf' if i == 3 else i},{i % 2}" for i in ROWS], "'s3': the time 'OS' .*found 'inf'"),
        (TIMED, "OS,dead", [f"{i},{1 + i % 2}" for i in ROWS], "'s1': the event 'dead' must be 1 .*found '2'"),
        (TIMED, "OS,dead", [f"{i},{'NA' if i == 3 else 1}" for i in ROWS], "'s3': the event 'dead' .*found nothing"),
        (TIMED, "OS,dead", [f"6,{i % 2}" for i in ROWS], "every 'OS' is 6: nobody is sooner"),
        (TIMED, "OS,dead", [f"{i},0" for i in ROWS], "no event was seen"),
        (TIMED, "OS,dead", [f"{i},{int(i == 3)}" for i in ROWS], r"the training of fold-\d: no event was seen"),
        (DISCRETE, "OS,dead", [f"{i + 6},{i % 2}" for i in ROWS], "no event was seen until cohort.times 5"),
        (DISCRETE, "OS,dead", [f"{i / 9},1" for i in ROWS], "nobody was seen until cohort.times 5"),
        (GRADED, "label", [("I", "II", "IV")[i % 3] for i in ROWS], "'s2': the label must be one of I, II, III"),
        (GRADED, "label", ["III" if i == 0 else "I" for i in ROWS], "no slide has the grade 'II'"),
        (GRADED, "label", ["III" if i == 0 else ("I", "II")[i % 2] for i in ROWS], r"fold-\d: no .*grade 'III'"),
        (
            "{table: t.csv, task: ordinal, grades: [I, II]}",
            "label",
            ["I", "II"] * 5,
            "three grades or more",
        ),
        ("{table: t.csv, labels: [a, b]}", "a,b", [f"{i % 2},{2 if i == 4 else 0}" for i in ROWS], "'s4': b must be 1"),
        (
            "{table: t.csv, labels: [a, b]}",
            "a,b",
            [f"{i % 2},{int(i == 4)}" for i in ROWS],
            "column 'b' is 0",
        ),
        ("{table: t.csv, task: regression}", "label", ["high", *map(str, range(9))], "'s0': the label .*found 'high'"),
        (
            "{table: t.csv}",
            "label",
            [f'"{i},5"' for i in ROWS],
            "column 'label' looks like numbers with decimal commas, as '0,5': write them with points",
        ),
        ("{table: t.csv}", "label", ["b", *"a" * 9], "class 'b' has 1 patient of its own, too few for 5 folds"),
    ],
)
def test_what_cannot_be_learnt_is_one_line(
    cohort: str, columns: str, cells: list[str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"^[^\n]*{words}[^\n]*$"):
        check(tmp_path, cohort, columns, cells)


def test_a_class_that_one_patient_has_to_train_on_is_a_doubt(tmp_path: Path) -> None:
    cells = [f"{'b' if i in (0, 9) else 'a'},{'train' if i < 7 else 'test'}" for i in ROWS]
    (line,) = check(tmp_path, "{table: t.csv}", "label,split", cells)
    assert line.startswith("split train has a single patient of class 'b'")


def test_a_label_that_a_model_writes_otherwise_is_refused_with_how(tmp_path: Path) -> None:
    """As 0.0 of a table in which labels are missing, which pandas wrote as numbers."""
    table = tmp_path / "t.csv"
    (tmp_path / "s.tif").touch()
    for label, said in (("0.0", "write it as the model does, if '0' and '0.0' are one; else use"), ("2", "1: use")):
        table.write_text(f"slide,label\ns.tif,{label}\n")
        with pytest.raises(UsageError, match=said):
            refuse_unknown_labels(find_target(table), TASKS["classification"](("0", "1")), Path("m"))
