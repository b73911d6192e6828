"""docs/reading-results.md: its example is what the product computes of the numbers in its tables."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from pages import blocks, text_of

from stages.prediction.conformal import conformalize

PAGE = "docs/reading-results.md"


def rows(beginning: str) -> list[list[str]]:
    """Cells of the lines of a table from the one that begins so."""
    table = (text_of(PAGE) + "\n\n").partition(f"\n| {beginning}")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in f"| {beginning}{table}".splitlines()]


def test_its_python_prints_what_it_says() -> None:
    [block] = blocks(PAGE, "pycon")
    test = doctest.DocTestParser().get_doctest(block.text, {}, PAGE, PAGE, 0)
    told: list[str] = []
    assert not doctest.DocTestRunner(verbose=False).run(test, out=told.append).failed, "".join(told)


def test_its_tables_are_computed() -> None:
    (_, *labels), (_, *p), (_, *surprise) = rows("true label")
    tumour = np.array(p, float)
    label = [int(one == "tumour") for one in labels]
    assert np.array(surprise, float) == pytest.approx(np.where(label, 1 - tumour, tumour))
    seen = conformalize({1: [[[one, 1 - one]] for one in tumour]}, label, range(len(label)))
    _, _, *slides = rows("new slide")
    assert [slide[0] for slide in slides] == list("ABCD")
    for _, told, interval, *calls in slides:
        low, high = (float(end) for end in interval.strip("[]").split(","))
        assert low < float(told) < high
        for error, call in zip((0.1, 0.2), calls, strict=True):
            [*chosen] = seen.predict_set([1 - float(told), float(told)], error, budgets=[1])
            classes = [name for name, one in zip(("normal", "tumour"), chosen, strict=True) if one]
            assert call == {1: f"{''.join(classes)}: called", 0: "none: referred"}[len(classes)]
