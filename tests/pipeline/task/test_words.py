"""What each kind of task says of labels that nothing can be learnt of, and of how good predictions are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.cohort.labels import task_for
from pipeline.cohort.training_table import read_training_table
from pipeline.errors import UsageError
from pipeline.task.classes import Classes, Grades
from pipeline.task.labels import Labels
from pipeline.task.survival import DiscreteSurvival, Survival
from pipeline.task.task import Task
from pipeline.task.value import Value

SURVIVAL = Survival(labels=("time", "event"))
TIMES = DiscreteSurvival(labels=("time", "event"), times=(2.0, 9.0))
LABELS = Labels(("a", "b"), ("a", "b"))


@pytest.mark.parametrize(
    ("task", "labels", "why"),
    [
        (Classes(("a", "b")), [("a",), ("b",)], None),
        (Grades(("0", "1", "2")), [("0",), ("2",)], "no slide has the grade '1'"),
        (Grades(("0", "1", "2")), [("0",), ("2",), ("1",)], None),
        (Value(), [("2",), ("2.0",)], "every label is 2"),
        (Value(), [("2",), ("2.5",)], None),
        (LABELS, [("1", "0"), ("0", None)], "column 'b' is 0 for every slide"),
        (LABELS, [("1", None), ("0", None)], "column 'b' is empty for every slide"),
        (LABELS, [("1", "0"), ("0", "1")], None),
        (SURVIVAL, [("1", "0"), ("2", "no")], "no event was seen ('event' is 0 for every slide)"),
        (SURVIVAL, [("1", "0"), ("2", "1")], None),
        (TIMES, [("1", "1"), ("8", "0")], "nobody was seen until cohort.times 9, the latest time is 8"),
        (TIMES, [("1", "1"), ("9", "0")], None),
    ],
)
def test_labels_of_which_nothing_can_be_learnt_are_said_to_be_so(
    task: Task, labels: list[tuple[str | None, ...]], why: str | None
) -> None:
    found = task.unlearnable([task.target(cells) for cells in labels])
    assert (found is None) == (why is None)
    assert found is None or found.startswith(str(why))


def test_a_cohort_of_such_labels_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "s0.tif").touch()
    table = tmp_path / "cohort.csv"
    table.write_text("slide,patient,split,label\n" + "".join(f"s0.tif,p{i},train,2.5\n" for i in range(1)))
    cohort = read_training_table(table, label="label", classes=False)
    with pytest.raises(UsageError, match=r"cohort\.csv: every label is 2\.5: nothing can be learnt of one value"):
        task_for(cohort, "regression")


def test_all_tasks_tell_how_good_predictions_are_in_one_form() -> None:
    people = list("abcdef")
    p = np.linspace(0.1, 0.9, 6)
    two = [{"label": "ab"[i // 3], "prob_a": 1 - p[i], "prob_b": p[i]} for i in range(6)]
    told = Classes(("a", "b")).told_of(Classes(("a", "b")).evaluate(two, people))
    assert told.startswith("6 slides of 6 patients (3 a, 3 b): auroc 1.000 [")
    many = [{"label_a": i // 3, "label_b": 1, "prob_a": p[i], "prob_b": p[i]} for i in range(6)]
    told = LABELS.told_of(LABELS.evaluate(many, people))
    assert told.startswith("6 slides of 6 patients: auroc 1.000 [")
    assert ", a auroc 1.000 [" in told
    assert "b auroc" not in told  # which all have
    risks = [{"label_time": i, "label_event": 1, "risk_score": -i} for i in range(6)]
    assert SURVIVAL.told_of(SURVIVAL.evaluate(risks, people)).startswith(
        "6 slides of 6 patients (6 events): c_index 1.000 ["
    )
    lost = [{**row, "label_event": 0} for row in risks]
    assert SURVIVAL.told_of(SURVIVAL.evaluate(lost, people)).endswith("had the event first, so no c_index")
    amounts = [{"label": float(i), "value": 2.0 * i} for i in range(6)]
    assert Value().told_of(Value().evaluate(amounts, people)).startswith("6 slides of 6 patients: pearson 1.000")
