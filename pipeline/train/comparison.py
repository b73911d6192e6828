"""The table of a comparison: how good each way to read is, how far that is from the model's, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.task.task import Task


def judged(
    name: str, rows: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]], task: Task, *, seconds: float
) -> list[dict[str, Any]]:
    """The table's rows of one way to read, one for each held-out part.

    Args:
        name: the way's.
        rows: of each slide ``part``, ``slide_id``, ``patient``, what `Task.evaluate` takes, and what it cost:
            ``patches``, ``bytes``, ``seconds``.
        own: the same of the model itself, which it is compared with.
        task: what is predicted.
        seconds: that its fit took.
    """
    out = []
    key = task.metric.key
    for part in dict.fromkeys(row["part"] for row in rows):
        here = [row for row in rows if row["part"] == part]
        score = task.evaluate(here, [row["patient"] for row in here])[key]
        model = {row["slide_id"]: row for row in own if row["part"] == part}
        shared = [row for row in here if row["slide_id"] in model]
        apart = None
        if rows is not own and shared:
            others = [model[row["slide_id"]] for row in shared]
            apart = task.difference(shared, others, [row["patient"] for row in shared])
        mean = {what: float(np.mean([row[what] for row in here])) for what in ("patches", "bytes", "seconds")}
        out.append(
            {
                "part": part,
                "way": name,
                "slides": len(here),
                key: score["value"],
                f"{key}_low": score["low"],
                f"{key}_high": score["high"],
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


def in_words(table: Sequence[Mapping[str, Any]], task: Task) -> list[str]:
    """The table as lines of text, a part after the other."""
    key = task.metric.key
    head = f"{'':34}{task.metric.name:>22}{'minus this model':>26}{'patches':>9}{'MB':>8}{'s/slide':>9}{'s fit':>7}"
    lines = []
    for part in dict.fromkeys(row["part"] for row in table):
        lines += [f"comparison, {part}:", head]
        for row in (row for row in table if row["part"] == part):
            score = _interval(row[key], row[f"{key}_low"], row[f"{key}_high"], "")
            apart = _interval(row["minus_model"], row["minus_model_low"], row["minus_model_high"], "+")
            cost = f"{row['patches_per_slide']:9.0f}{row['bytes_per_slide'] / 1e6:8.2f}{row['seconds_per_slide']:9.2f}"
            lines.append(f"{row['way']:34}{score:>22}{apart:>26}{cost}{row['seconds_of_training']:7.0f}")
    return lines


def _interval(value: float | None, low: float | None, high: float | None, sign: str) -> str:
    if value is None:
        return "-"
    return f"{value:{sign}.3f}" + ("" if low is None or high is None else f" [{low:{sign}.3f}, {high:{sign}.3f}]")
