"""Amounts: a unit that shows something, a noun that fits its number."""

from __future__ import annotations

import pytest

from stages.amounts import counted, size


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_700, "1 MB"), (48_300, "48.3 kB"), (1.214e9, "1.21 GB")],
)
def test_a_size_is_in_the_unit_that_shows_three_digits(count: float, words: str) -> None:
    assert size(count) == words


def test_one_is_singular() -> None:
    assert [counted(n, "slide") for n in (0, 1, 2, 1000)] == ["0 slides", "1 slide", "2 slides", "1,000 slides"]
