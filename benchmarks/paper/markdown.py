"""Tables and figures with intervals, as docs/benchmarks.md shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper.records import interval


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others are figures."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def with_interval(value: float, resampled: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    """A figure with its 95 % interval from resampled values."""
    low, high = interval(resampled)
    return {"value": float(value), "low": low, "high": high}


def ranged(figure: dict[str, float], *, sign: bool = False) -> str:
    """A figure of `with_interval` as text; empty where it is not defined."""
    if math.isnan(figure["value"]):
        return ""
    form = "+.3f" if sign else ".3f"
    return f"{figure['value']:{form}} [{figure['low']:{form}}, {figure['high']:{form}}]"
