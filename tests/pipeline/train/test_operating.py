"""A training's threshold is chosen where the model was chosen and judged on other slides."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.train.operating import in_lines, operating_point

CLASSES = ("normal", "tumour")


def rows(part: str, told: list[tuple[str, float]], **more: Any) -> list[dict[str, Any]]:
    return [
        {"part": part, "label": label, "prob_tumour": p, "patient": f"{part}{i}", **{k: v[i] for k, v in more.items()}}
        for i, (label, p) in enumerate(told)
    ]


VAL = rows("val", [("normal", 0.1), ("normal", 0.3), ("tumour", 0.2), ("tumour", 0.7), ("tumour", 0.8)])
TEST = rows("test", [("normal", 0.2), ("normal", 0.6), ("tumour", 0.4), ("tumour", 0.9)])


def test_it_is_chosen_on_val_and_judged_on_test() -> None:
    found = operating_point([*VAL, *TEST], CLASSES, sensitivity=None)
    assert found is not None
    assert (found["positive"], found["chosen_on"], found["value"]) == ("tumour", "val", pytest.approx(0.5))
    test = found["judged_on"]["test"]
    assert (test["sensitivity"]["value"], test["specificity"]["value"]) == (0.5, 0.5)
    lines = in_lines(found)
    assert lines[0] == "threshold: tumour from 0.500 on (the most sensitivity + specificity on val)"
    assert lines[1].startswith("threshold, test: sensitivity 0.500 [0.")
    all_of_them = operating_point([*VAL, *TEST], CLASSES, sensitivity=1.0)
    assert all_of_them is not None
    assert all_of_them["value"] == pytest.approx(0.15)
    assert "(sensitivity 1.00 on val)" in in_lines(all_of_them)[0]


def test_in_cross_validation_a_fold_is_judged_by_what_was_chosen_on_the_others() -> None:
    """Fold b's scores are shifted: its own threshold would be perfect, that of fold a calls all of it positive."""
    told = [("normal", 0.1), ("tumour", 0.3), ("normal", 0.7), ("tumour", 0.9)]
    found = operating_point(rows("cross-validation", told, fold="aabb"), CLASSES, sensitivity=None)
    assert found is not None
    judged = found["judged_on"]["cross-validation"]
    assert (judged["sensitivity"]["value"], judged["specificity"]["value"]) == (0.5, 0.5)
    assert "a fold by what was chosen on the others" in in_lines(found)[1]


def test_repeats_add_no_patient() -> None:
    """Two cross-validations that say the same: shares and intervals are those of one of them."""
    told = [("normal", 0.1), ("tumour", 0.3), ("normal", 0.7), ("tumour", 0.9)] * 3
    one = rows("cross-validation", told, fold="aabb" * 3, repeat=[0] * 12)
    two = rows("cross-validation", told, fold="ccdd" * 3, repeat=[1] * 12)
    once, twice = (operating_point(each, CLASSES, sensitivity=None) for each in (one, [*one, *two]))
    assert once is not None
    assert twice is not None
    assert (once["slides"], twice["slides"]) == (12, 12)
    judged = twice["judged_on"]["cross-validation"]
    assert judged == {**once["judged_on"]["cross-validation"], "repeats": 2}
    assert "a fold by what was chosen on the others, mean of 2 repeats: " in in_lines(twice)[1]


@pytest.mark.parametrize(
    ("told", "classes"),
    [
        (TEST, CLASSES),  # nothing to choose on but the test
        ([*VAL[:2], *TEST], CLASSES),  # of one class
        ([*VAL, *TEST], ("normal", "tumour", "other")),
    ],
)
def test_where_there_is_nothing_to_choose_on_there_is_none(told, classes) -> None:
    assert operating_point(told, classes, sensitivity=None) is None
    assert in_lines(None) == []
