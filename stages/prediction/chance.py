"""Probabilities as text: never rounded to a certainty that no model has."""

from __future__ import annotations

import math


def chance(p: float) -> str:
    """A probability with as many digits as tell it from 0 and 1, four at most; beyond these "above" or "below"."""
    near = min(p, 1 - p)
    if near < 0.5e-4:  # 1 too: what a float makes of a probability is not certain
        return "below 0.0001" if p < 0.5 else "above 0.9999"
    digits = min(4, max(2, math.ceil(-math.log10(near))))
    return f"{p:.{digits}f}"


def brief_chance(p: float) -> str:
    """`chance` for a table or a title, such as ``>0.9999``."""
    return chance(p).replace("above ", ">").replace("below ", "<")


def with_interval(p: float, low: float, high: float) -> str:
    """A probability and the ends of its interval, such as ``0.97 [0.93, 0.99]``."""
    return f"{brief_chance(p)} [{brief_chance(low)}, {brief_chance(high)}]"


def stated(statements: int, of: str = "classes") -> str:
    """How sure so many intervals ``of`` what are not told by each other are, in a phrase."""
    return f"95 %, all {of} jointly" if statements > 1 else "95 %"
