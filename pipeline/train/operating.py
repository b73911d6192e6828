"""The threshold from which on a slide is called positive: chosen where the model was chosen, judged elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.statistics.groups import owners
from pipeline.statistics.thresholds import Threshold, at_threshold, choose_threshold, cross_fitted
from pipeline.train.held_out import averaged
from stages.amounts import apart

CHOSEN_ON = ("val", "cross-validation")
"""Parts that a threshold may be chosen on, the first that there is."""
NAMES = ("sensitivity", "specificity", "positive_predictive_value", "negative_predictive_value")


def operating_point(
    rows: Sequence[Mapping[str, Any]], classes: Sequence[str], *, sensitivity: float | None
) -> dict[str, Any] | None:
    """The threshold of two classes' positive one, and what it comes to on slides that it was not chosen on.

    It is chosen on the slides of split val and judged on those of test; or on all slides of a cross-validation, where a
    fold is judged by a threshold that was chosen on patients who are not in it. Of repeats, of which each has its own
    score of a patient, what each comes to is told in the mean, and of its limits: they add no patient.

    Args:
        rows: of predictions.csv.
        classes: of the model; of two the last is the positive one.
        sensitivity: as `choose_threshold` takes it.

    Returns:
        ``{"positive", "value", "rule", "chosen_on", "slides", "sensitivity", "specificity", "judged_on": {part: what
        at_threshold finds}}``; None of more than two classes, and where the slides to choose on are of one.
    """
    if len(classes) != 2:
        return None
    parts = {part: [row for row in rows if row["part"] == part] for part in {row["part"] for row in rows}}
    chosen_on = next((part for part in CHOSEN_ON if part in parts), None)
    if chosen_on is None:
        return None
    found = choose_threshold(*_told(parts[chosen_on], classes)[:2], sensitivity=sensitivity)
    if found is None:
        return None
    judged = {}
    if "test" in parts:
        judged["test"] = at_threshold(*_told(parts["test"], classes), found.value)
    folds = [row.get("fold") for row in parts[chosen_on]]
    if chosen_on == "cross-validation" and all(folds):
        each = cross_fitted(*_told(parts[chosen_on], classes), folds, sensitivity=sensitivity)
        if each is not None:
            judged[chosen_on] = _judged(parts[chosen_on], classes, each)
    slides = len({row.get("slide_id", row["patient"]) for row in parts[chosen_on]})
    return _as_written(found, classes[1], chosen_on, slides) | {"judged_on": judged}


def _judged(rows: Sequence[Mapping[str, Any]], classes: Sequence[str], each: NDArray[np.float64]) -> dict[str, Any]:
    """What slides come to by thresholds of their own (n,)."""
    positive, scores, owner = _told(rows, classes)
    repeats = [row.get("repeat") for row in rows]
    places = [np.flatnonzero([one == repeat for one in repeats]) for repeat in dict.fromkeys(repeats)]
    found = [at_threshold(positive[i], scores[i], owner[i], each[i]) for i in places]
    return found[0] if len(found) == 1 else {**averaged(found), "repeats": len(found)}


def in_lines(told: Mapping[str, Any] | None) -> list[str]:
    """What is said of it."""
    if told is None:
        return []
    how = "the most sensitivity + specificity" if told["rule"] == "youden" else f"sensitivity {told['sensitivity']:.2f}"
    lines = [f"threshold: {apart(told['positive'])} from {told['value']:.3f} on ({how} on {told['chosen_on']})"]
    for part, found in told["judged_on"].items():
        shares = ", ".join(
            f"{name.replace('_', ' ')} {one['value']:.3f}"
            + ("" if one["low"] is None else f" [{one['low']:.3f}, {one['high']:.3f}]")
            for name, one in ((name, found[name]) for name in NAMES)
            if one["value"] is not None
        )
        own = ", a fold by what was chosen on the others" if part == told["chosen_on"] else ""
        own += f", mean of {found['repeats']} repeats" if "repeats" in found else ""
        lines.append(f"threshold, {part}{own}: {shares}")
    return lines


def _as_written(found: Threshold, positive: str, chosen_on: str, slides: int) -> dict[str, Any]:
    return {"positive": positive, **found.to_json(), "chosen_on": chosen_on, "slides": slides}


def _told(
    rows: Sequence[Mapping[str, Any]], classes: Sequence[str]
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.int64]]:
    """Which slides are positive, how probable that was said to be, and whose they are."""
    return (
        np.array([row["label"] == classes[1] for row in rows]),
        np.array([row[f"prob_{classes[1]}"] for row in rows], np.float64),
        owners([str(row["patient"]) for row in rows]),
    )
