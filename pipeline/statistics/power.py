"""How many patients an interval of a given width would take."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.statistics.intervals import Interval, Z, auroc_interval, concordance_interval

HALF_WIDTH = 0.05
MOST = 1_000_000
"""Patients beyond which nobody looks."""
NAMES = {"auroc": "AUROC", "c_index": "C-index", "pearson": "correlation"}
"""Of metrics, in words."""


def needed(metric: str, patients: int | None) -> dict[str, Any]:
    """As it is written: ``{"metric", "half_width", "patients"}``; None: more than `MOST`, or nothing to tell it by."""
    return {"metric": metric, "half_width": HALF_WIDTH, "patients": patients}


def auroc_patients(aurocs: Sequence[float], positive: Sequence[float], *, half_width: float = HALF_WIDTH) -> int | None:
    """How many patients would give an AUROC's 95 % interval half that wide, were it as seen.

    Args:
        aurocs: what was seen; of several (classes, labels), the interval is that of their mean. None where empty.
        positive: of each the share of the patients who are positive.
        half_width: half of the distance between the interval's ends.
    """
    if not aurocs:
        return None

    def interval(n: float) -> Interval:
        ends = [auroc_interval(a, share * n, (1 - share) * n) for a, share in zip(aurocs, positive, strict=True)]
        return float(np.mean([low for low, _ in ends])), float(np.mean([high for _, high in ends]))

    return _fewest(interval, half_width)


def correlation_patients(correlation: float, *, half_width: float = HALF_WIDTH) -> int | None:
    """The same of a correlation, by Fisher's z."""
    z = math.atanh(min(max(correlation, -1 + 1e-9), 1 - 1e-9))

    def interval(n: float) -> Interval:
        half = Z / math.sqrt(n - 3) if n > 3 else math.inf
        return math.tanh(z - half), math.tanh(z + half)

    return _fewest(interval, half_width)


def concordance_patients(
    earlier: NDArray[np.float64],
    later: NDArray[np.float64],
    ordered: NDArray[np.float64],
    *,
    half_width: float = HALF_WIDTH,
) -> int | None:
    """The same of a C-index, were there more patients of the same kind, as often censored as these.

    Args:
        earlier, later, ordered: of each patient, as `concordance_interval` takes them.
        half_width: half of the distance between the interval's ends.
    """
    seen = len(earlier)
    return _fewest(lambda n: concordance_interval(earlier, later, ordered, times=n / seen), half_width)


def power_in_words(metrics: Mapping[str, Any]) -> str | None:
    """How many patients it would take, for a person; None where the interval is as narrow, or there is none."""
    told = metrics.get("patients_needed")
    score = metrics.get(told["metric"]) if told else None
    if told is None or score is None or score["low"] is None:
        return None
    if (score["high"] - score["low"]) / 2 <= told["half_width"]:
        return None
    name, many = NAMES.get(told["metric"], told["metric"]), told["patients"]
    about = f"about {many if many < 100 else round(many, 2 - len(str(many))):,}" if many else f"more than {MOST:,}"
    return (
        f"{about} patients are needed for a 95 % interval of the {name} as narrow as ± {told['half_width']:g}, if the "
        f"{name} stays at {score['value']:.2f}"
    )


def _fewest(interval: Callable[[float], Interval], half_width: float) -> int | None:
    """The fewest patients whose interval is as narrow as that; None of more than `MOST`."""
    if not 0 < half_width < 0.5:
        raise ValueError(f"half_width: expected a number between 0 and 0.5, found {half_width}")

    def wide(n: int) -> bool:
        low, high = interval(float(n))
        return (high - low) / 2 > half_width

    few, many = 2, 4
    while wide(many):
        few, many = many, 2 * many
        if many > 2 * MOST:
            return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if wide(middle) else (few, middle)
    return many
