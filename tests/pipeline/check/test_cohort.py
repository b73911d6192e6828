"""What is wrong with slides only where they are looked at together."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.check.cohort import check_together
from pipeline.check.values import SlideCheck
from pipeline.cohort.cohort import Cohort, CohortSlide


def found(
    *slides: dict[str, object], columns: tuple[str, ...] = ("slide", "label", "patient")
) -> list[tuple[str, bool]]:
    """(kind, whether it is an error) of all that is found in a cohort of such slides, each of its own content."""
    made, checks = [], []
    for i, told in enumerate(slides):
        content = told.pop("content", str(i))
        known = {"slide_id": f"s{i}", "path": Path(f"/s{i}.tif"), "patient": f"p{i}", "label": "ab"[i % 2], **told}
        made.append(CohortSlide(**known))
        checks.append(SlideCheck(made[-1], fingerprint=content))
    cohort = Cohort(Path("t.csv"), tuple(made), dict.fromkeys(columns, "column"))
    return [(finding.kind, finding.error) for finding in check_together(cohort, checks)]


GOOD = ({}, {}, {}, {})


def test_a_good_cohort_has_nothing_wrong() -> None:
    assert found(*GOOD) == []


@pytest.mark.parametrize(
    ("slides", "kind", "error"),
    [
        (({"content": "x"}, {}, {"content": "x"}), "content", False),
        (({"content": "x"}, {"content": "x"}), "label", True),
        (
            (
                {"content": "x", "split": "train"},
                {"split": "train"},
                {"content": "x", "split": "test"},
                {"split": "test"},
            ),
            "split",
            True,
        ),
        (
            (
                {"patient": "p", "split": "train"},
                {"split": "train"},
                {"patient": "p", "split": "test"},
                {"split": "test"},
            ),
            "split",
            True,
        ),
        (({"split": "train"}, {"split": "train"}, {"split": "test"}), "label", False),
        (({"patient": "p"}, {"patient": "p"}), "label", False),
        (({"patient": "p", "site": "A"}, {}, {"patient": "p", "site": "B"}), "site", False),
        (({"patient": "p", "fold": 0}, {"fold": 0}, {"patient": "p", "fold": 1}, {"fold": 1}), "split", True),
        (({"label": None}, {}, {}), "label", False),
    ],
    ids=[
        *("twins", "twins of two labels", "twins in two parts", "a patient in two parts", "a class missing in a part"),
        *("a patient of two labels", "a patient at two sites", "a patient in two folds", "a label missing"),
    ],
)
def test_what_is_wrong_is_found_once(slides: tuple[dict[str, object], ...], kind: str, error: bool) -> None:
    assert found(*(dict(slide) for slide in slides)) == [(kind, error)]
