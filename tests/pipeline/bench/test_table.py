"""The table of a bench, from what was found on each slide."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.bench.table import Person, in_words, table_of
from pipeline.task.classes import Classes
from pipeline.task.labels import Labels
from pipeline.task.survival import DiscreteSurvival
from pipeline.task.task import Task
from pipeline.task.value import Value

TWO = Classes(("a", "b"))


def record(exact: float, drawn: list[float], *, patches: float, spent: bool = False) -> dict[str, Any]:
    """A slide by its second class's probability: of everything, and of each draw."""

    def way(name: str, setting: int | None, patches: float, p: list[float]) -> dict[str, Any]:
        values = [[1 - one, one] for one in p]
        told = {"patches": patches, "bytes": 10 * patches, "undecided": 0.0, "values": values}
        return {"name": name, "setting": setting, **told}

    one = {"seconds": 1.0, "cpu_seconds": 2.0, "wh": None}
    return {
        "fixed_bytes": 1000,
        "ways": [way("everything", None, 100, [exact]), way("attention", 8, patches, drawn)],
        **({"spent": {"survey": one, "patch": {**one, "seconds": 0.5}}} if spent else {}),
    }


RECORDS = [
    record(0.9, [0.8, 0.4], patches=8, spent=True),
    record(0.2, [0.2], patches=4),  # has no more than four cells: read whole, so every draw is the same
    record(0.6, [0.6, 0.6], patches=8),
]


def test_a_row_tells_how_near_a_way_comes_to_reading_everything_and_what_it_costs() -> None:
    people = [Person("p", {"label": "b"}), Person("q", {"label": "a"}), Person("r", {"label": "b"})]
    whole, drawn = table_of(RECORDS, people, TWO)
    assert whole["difference"] == 0
    assert whole["agreement"] == 1
    assert whole["auroc"] == 1
    assert drawn["difference"] == pytest.approx((0.1 + 0.5) / 6)
    assert drawn["difference_low"] == pytest.approx(0)
    assert drawn["difference_high"] == pytest.approx(0.3)
    assert (drawn["agreement"], drawn["decisions"]) == (pytest.approx(5 / 6), 6)
    assert drawn["auroc"] == 1
    assert drawn["auroc_minus_everything"] == 0
    assert drawn["patches"] == pytest.approx(20 / 3)
    assert drawn["bytes"] == pytest.approx(1000 + 200 / 3)
    assert drawn["seconds"] == pytest.approx(1 + 20 / 3 / 2)
    assert drawn["cpu_seconds"] == pytest.approx(2 + 2 * 20 / 3)
    assert "wh" not in drawn
    lines = in_words([whole, drawn], TWO)
    assert len(lines) == 3
    assert "83.3%" in lines[2]


def test_without_labels_of_two_classes_there_is_no_auroc() -> None:
    people = [Person("p", None), Person("q", {"label": "a"}), Person("r", None)]
    assert all("auroc" not in row and row["difference"] is not None for row in table_of(RECORDS, people, TWO))


def of_values(*slides: list[list[float]]) -> list[dict[str, Any]]:
    """Of each slide what reading everything tells, then what two draws do."""
    told = {"patches": 8.0, "bytes": 80.0, "undecided": 0.0}
    return [
        {
            "fixed_bytes": 1000,
            "ways": [
                {"name": "everything", "setting": None, **told, "values": slide[:1]},
                {"name": "attention", "setting": 8, **told, "values": slide[1:]},
            ],
        }
        for slide in slides
    ]


@pytest.mark.parametrize(
    ("task", "slides", "labels", "difference", "agreement", "score"),
    [
        (  # of a standard deviation of 10 a fifth is 2: a draw that is off by 3 is not alike
            Value(),
            [[[0.0], [1.0], [1.0]], [[20.0], [20.0], [23.0]], [[20.0], [20.0], [20.0]], [[0.0], [0.0], [0.0]]],
            [{"label": v} for v in (1.0, 21.0, 20.0, 0.0)],
            5 / 8,
            7 / 8,
            "pearson",
        ),
        (  # all of a slide's labels are to be on their sides
            Labels(("x", "y"), ("x", "y")),
            [[[0.9, 0.1], [0.8, 0.1], [0.4, 0.1]], [[0.2, 0.7], [0.2, 0.7], [0.2, 0.7]]],
            [{"label_x": 1, "label_y": 0}, {"label_x": 0, "label_y": 1}],
            (0.1 + 0.5) / 8,
            3 / 4,
            "auroc",
        ),
        (  # the risk, whatever chances are beside it
            DiscreteSurvival(labels=("t", "e"), times=(1.0,)),
            [[[2.0, 0.1], [1.0, 0.3], [2.0, 0.1]], [[-2.0, 0.9], [-2.0, 0.9], [-2.0, 0.9]]],
            [{"label_time": 1, "label_event": 1}, {"label_time": 2, "label_event": 0}],
            1 / 4,
            3 / 4,
            "c_index",
        ),
    ],
)
def test_of_other_tasks_it_is_in_their_unit_and_by_their_metric(
    task: Task, slides: Any, labels: Any, difference: float, agreement: float, score: str
) -> None:
    people = [Person(f"p{i}", label) for i, label in enumerate(labels)]
    whole, drawn = table_of(of_values(*slides), people, task)
    assert (whole["difference"], whole["agreement"]) == (0, 1)
    assert drawn["difference"] == pytest.approx(difference)
    assert drawn["agreement"] == pytest.approx(agreement)
    assert 0 < drawn[score] <= 1
    assert drawn[f"{score}_minus_everything"] == pytest.approx(drawn[score] - whole[score])
    assert task.metric.name in in_words([whole, drawn], task)[0]
