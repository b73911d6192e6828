"""Rows of patients: their slides together, where these agree on what is the patient's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.cohort.cohort import Cohort, CohortSlide
from pipeline.cohort.patients import by_patient, refuse_two_labels, slides_of, two_labelled
from pipeline.errors import UsageError
from pipeline.task.build import TASKS

CLASSES = TASKS["classification"](("a", "b"), (), ())
SURVIVAL = TASKS["survival"](("risk_score",), ("time", "event"), ())


def slide(name: str, patient: str, label: str | None = "a", **more: Any) -> CohortSlide:
    return CohortSlide(name, Path(f"/{name}.tif"), patient, label, **more)


def test_a_row_each_with_what_is_the_patients_and_all_slides_by_name() -> None:
    slides = (
        slide("z", "p", None, split="train", site="x", mpp=0.5),
        slide("y", "q/1", "b", split="test", problem="it is gone"),
        slide("x", "p", "a", split="train", site="y"),
    )
    rows = by_patient(slides, CLASSES, "t.csv")
    assert [(row.slide_id, row.patient, row.label, row.split, row.site, row.mpp) for row in rows] == [
        ("p", "p", "a", "train", None, None),
        ("q%2F1", "q/1", "b", "test", None, None),
    ]
    assert [one.slide_id for one in rows[0].each] == ["x", "z"]
    assert rows[0].each[1].mpp == 0.5
    assert rows[1].problem is None, "whether the others can be read shows when they are"
    assert slides_of(rows) == (slides[2], slides[0], slides[1])
    assert slides_of(slides) == slides


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"label": "b"}, r"two labels, 'a' \('x'\) and 'b' \('y'\)"),
        ({"split": "test"}, "in two parts of the split"),
        ({"fold": 1}, "in two parts of the split"),
        ({"rounds": ("train", "test")}, "in two parts of the split"),
        ({"site": "elsewhere"}, "at two sites"),
    ],
)
def test_slides_that_differ_in_what_is_the_patients_are_named(change: dict[str, Any], told: str) -> None:
    one = slide("x", "p", "a", split="train", site="here")
    with pytest.raises(UsageError, match=told):
        by_patient((one, replace(one, slide_id="y", **change)), CLASSES, "t.csv", by_site=True)


def test_labels_of_several_columns_are_compared_whole() -> None:
    one = slide("x", "p", None, others=(("time", "3"), ("event", "1")))
    assert len(by_patient((one, replace(one, slide_id="y")), SURVIVAL, "t.csv")) == 1
    other = replace(one, slide_id="y", others=(("time", "4"), ("event", "1")))
    with pytest.raises(UsageError, match="two labels"):
        by_patient((one, other), SURVIVAL, "t.csv")


def test_slides_by_themselves_may_differ_but_in_what_is_the_patients() -> None:
    """A time that differs in its tenth digit is another; one that is written otherwise is not."""
    one = slide("x", "p", None, others=(("time", "3"), ("event", "1")))
    same = replace(one, slide_id="y", others=(("time", "3.0"), ("event", "yes")))
    other = replace(one, slide_id="z", others=(("time", "3.000000001"), ("event", "1")))
    bare = replace(one, slide_id="w", others=())
    refuse_two_labels((bare, one, same), SURVIVAL, "t.csv")
    assert two_labelled((bare, one, same), SURVIVAL) == frozenset()
    told = r"t.csv: patient 'p' has two labels, 'event at 3' \('x'\) and 'event at 3.000000001' \('z'\), but a risk is"
    with pytest.raises(UsageError, match=told):
        refuse_two_labels((one, same, other), SURVIVAL, "t.csv")
    assert two_labelled((one, same, other, slide("v", "q")), SURVIVAL) == {"p"}
    refuse_two_labels((slide("x", "p", "a"), slide("y", "p", "b")), CLASSES, "t.csv")
    assert two_labelled((slide("x", "p", "a"), slide("y", "p", "b")), CLASSES) == frozenset()


def test_a_cohort_of_patients_tells_how_many_slides_they_have() -> None:
    slides = tuple(slide(name, patient, "a") for name, patient in (("x", "p"), ("y", "p"), ("z", "q")))
    cohort = Cohort(Path("t.csv"), slides, {"patient": "patient"})
    assert replace(cohort, slides=by_patient(slides, CLASSES, "t.csv")).reading == cohort.reading
    assert "3 slides of 2 patients" in cohort.reading
