"""Probabilities as text."""

from __future__ import annotations

import pytest

from stages.prediction.chance import chance, with_interval


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (0.5, "0.50"),
        (0.994, "0.994"),
        (0.99962, "0.9996"),
        (0.9999997, "above 0.9999"),
        (2e-9, "below 0.0001"),
        (0.031, "0.03"),
        (1.0, "above 0.9999"),
        (0.0, "below 0.0001"),
    ],
)
def test_a_probability_is_never_rounded_to_certainty(p: float, words: str) -> None:
    assert chance(p) == words


def test_an_interval_at_the_end_of_the_scale_is_no_certainty_either() -> None:
    assert with_interval(0.97, 0.9321, 0.99997) == "0.97 [0.93, >0.9999]"
    assert with_interval(0.0, 0.0, 0.004) == "<0.0001 [<0.0001, 0.004]"
