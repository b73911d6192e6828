"""The table of a bench, from what was found on each slide."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.bench.table import Person, in_words, table_of


def record(exact: float, drawn: list[float], *, patches: float, spent: bool = False) -> dict[str, Any]:
    """A slide by its second class's probability: of everything, and of each draw."""

    def way(name: str, setting: int | None, patches: float, p: list[float]) -> dict[str, Any]:
        probabilities = [[1 - one, one] for one in p]
        told = {"patches": patches, "bytes": 10 * patches, "undecided": 0.0, "probabilities": probabilities}
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
    people = [Person("p", "b"), Person("q", "a"), Person("r", "b")]
    whole, drawn = table_of(RECORDS, people, ["a", "b"])
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
    lines = in_words([whole, drawn])
    assert len(lines) == 3
    assert "83.3%" in lines[2]


def test_without_labels_of_two_classes_there_is_no_auroc() -> None:
    people = [Person("p", None), Person("q", "a"), Person("r", None)]
    assert all("auroc" not in row and row["difference"] is not None for row in table_of(RECORDS, people, ["a", "b"]))
