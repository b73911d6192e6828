"""Units of length as people write them; what is no length has none."""

from __future__ import annotations

import pytest

from stages.slide.units import micrometres


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        *(("\u00b5m", 1), ("\u03bcm", 1), ("um", 1), ("Micron", 1), ("micrometers", 1), ("micrometre", 1)),
        *(("nm", 1e-3), (" mm ", 1e3), ("cm", 1e4), ("m", 1e6), ("Å", 1e-4), ("in", 25400), ("inch", 25400)),
        *(("", None), ("pixel", None), ("reference frame", None), ("s", None)),
    ],
)
def test_units_are_lengths_or_none(unit: str, expected: float | None) -> None:
    """Both letters that look like a mu are it."""
    assert micrometres(unit) == (None if expected is None else pytest.approx(expected))
