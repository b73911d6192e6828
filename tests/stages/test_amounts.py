"""Amounts: a unit that shows something, a noun that fits its number."""

from __future__ import annotations

import pytest

from stages.amounts import amount, apart, as_given, counted, size


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_700, "1 MB"), (48_300, "48.3 kB"), (1.214e9, "1.21 GB")],
)
def test_a_size_is_in_the_unit_that_shows_three_digits(count: float, words: str) -> None:
    assert size(count) == words


def test_one_is_singular() -> None:
    assert [counted(n, "slide") for n in (0, 1, 2, 1000)] == ["0 slides", "1 slide", "2 slides", "1,000 slides"]


def test_plurals_are_english() -> None:
    assert [counted(n, "patch") for n in (1, 3)] == ["1 patch", "3 patches"]


@pytest.mark.parametrize(
    ("name", "told"), [("tumour", "tumour"), ("1", "'1'"), ("3+4", "'3+4'"), ("-1", "'-1'"), ("énorme", "énorme")]
)
def test_a_name_that_runs_into_a_number_is_quoted(name: str, told: str) -> None:
    assert apart(name) == told


@pytest.mark.parametrize("text", ["0.5", "0.9999999999", "1e-300", "0.123456789", "1", "1e-05"])
def test_what_was_given_keeps_its_digits(text: str) -> None:
    assert as_given(float(text)) == text


@pytest.mark.parametrize(
    ("text", "count"),
    [("4GB", 4 * 10**9), ("1.5 gib", 3 * 2**29), ("500m", 5 * 10**8), ("2e3", 2000), (" 12 kB ", 12_000), ("7", 7)],
)
def test_a_size_is_read_in_any_unit(text: str, count: int) -> None:
    assert amount(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "4 GBit", "ib", "4iB", "nan", "1,5GB"])
def test_what_is_no_size_is_refused_with_one(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size, such as 4GB or 500MB, found"):
        amount(text)
