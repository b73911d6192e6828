"""The table of a comparison: AUROCs, how far they are from the model's, and what each way to read costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.statistics.metrics import evaluate
from pipeline.statistics.paired import auroc_difference


def judged(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    own: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    *,
    seconds: float,
) -> list[dict[str, Any]]:
    """The table's rows of one way to read, one for each held-out part.

    Args:
        name: the way's.
        rows: of each slide ``part``, ``slide_id``, ``patient``, ``label``, ``prob_<class>`` and what it cost:
            ``patches``, ``bytes``, ``seconds``.
        own: the same of the model itself, which it is compared with.
        classes: in the order of the model's logits.
        seconds: that its fit took.
    """
    out = []
    for part in dict.fromkeys(row["part"] for row in rows):
        here = [row for row in rows if row["part"] == part]
        auroc = evaluate(
            [row["label"] for row in here], _probabilities(here, classes), [row["patient"] for row in here], classes
        )["auroc"]
        model = {row["slide_id"]: row for row in own if row["part"] == part}
        shared = [row for row in here if row["slide_id"] in model]
        apart = None
        if rows is not own and shared:
            apart = auroc_difference(
                [classes.index(row["label"]) for row in shared],
                _probabilities(shared, classes),
                _probabilities([model[row["slide_id"]] for row in shared], classes),
                [row["patient"] for row in shared],
            )
        mean = {key: float(np.mean([row[key] for row in here])) for key in ("patches", "bytes", "seconds")}
        out.append(
            {
                "part": part,
                "way": name,
                "slides": len(here),
                "auroc": auroc["value"],
                "auroc_low": auroc["low"],
                "auroc_high": auroc["high"],
                "minus_model": None if apart is None else apart.value,
                "minus_model_low": None if apart is None else apart.low,
                "minus_model_high": None if apart is None else apart.high,
                "minus_model_p": None if apart is None else apart.p,
                "patches_per_slide": mean["patches"],
                "bytes_per_slide": mean["bytes"],
                "seconds_per_slide": mean["seconds"],
                "seconds_of_training": seconds,
            }
        )
    return out


def _probabilities(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> NDArray[np.float64]:
    return np.array([[row[f"prob_{c}"] for c in classes] for row in rows], np.float64)


def in_words(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table as lines of text, a part after the other."""
    head = f"{'':34}{'AUROC':>22}{'minus this model':>26}{'patches':>9}{'MB':>8}{'s/slide':>9}{'s fit':>7}"
    lines = []
    for part in dict.fromkeys(row["part"] for row in table):
        lines += [f"comparison, {part}:", head]
        for row in (row for row in table if row["part"] == part):
            auroc = _interval(row["auroc"], row["auroc_low"], row["auroc_high"], "")
            apart = _interval(row["minus_model"], row["minus_model_low"], row["minus_model_high"], "+")
            cost = f"{row['patches_per_slide']:9.0f}{row['bytes_per_slide'] / 1e6:8.2f}{row['seconds_per_slide']:9.2f}"
            lines.append(f"{row['way']:34}{auroc:>22}{apart:>26}{cost}{row['seconds_of_training']:7.0f}")
    return lines


def _interval(value: float | None, low: float | None, high: float | None, sign: str) -> str:
    if value is None:
        return "-"
    return f"{value:{sign}.3f}" + ("" if low is None or high is None else f" [{low:{sign}.3f}, {high:{sign}.3f}]")
