"""Every example of the door runs, as it is printed, in a folder such as it speaks of."""

from __future__ import annotations

import doctest
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import saccade

NAMES = [name for name in saccade.__all__ if name != "__version__"]
FUNCTIONS = (
    "open_slide",
    "load_model",
    "predict",
    "predict_patient",
    "run",
    "train",
    "conformalize",
    "cache",
    "read_cohort",
)


def examples_of(name: str) -> list[doctest.DocTest]:
    """The examples of a public name, or of the door itself."""
    thing: Any = getattr(saccade, name) if name else saccade
    finder = doctest.DocTestFinder(exclude_empty=True, recurse=not isinstance(thing, ModuleType))
    return [test for test in finder.find(thing, name or "saccade", module=False, globs={}) if test.examples]


@pytest.mark.parametrize("name", ["", *NAMES])
def test_its_examples_run(name: str, examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.run.workers.MOST_SUITED", 1)  # each process loads torch anew
    failures: list[str] = []
    for test in examples_of(name):
        runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
        if runner.run(test, out=failures.append, clear_globs=True).failed:
            pytest.fail("".join(failures))


def test_whatever_a_user_calls_has_an_example() -> None:
    callable_names = [*FUNCTIONS, "SlideStore", "SlidePrediction"]
    assert [name for name in ["", *callable_names] if not examples_of(name)] == []


@pytest.mark.parametrize("name", NAMES)
def test_everything_says_what_it_is(name: str) -> None:
    documentation = getattr(saccade, name).__doc__
    assert documentation is not None
    assert not documentation.startswith(f"{name}(")  # what a dataclass says that nobody described
