"""From which probability on a slide is called positive: chosen on some slides, judged on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.statistics.intervals import alikeness, independent, named, share_interval

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Threshold:
    """A probability from which on (>=) a slide is called positive, and what it was chosen by.

    Attributes:
        value: of the probability.
        rule: "youden": most sensitivity + specificity; "sensitivity": the highest one that finds so many positives.
        sensitivity, specificity: on the slides that it was chosen on, where they are too good.
    """

    value: float
    rule: str
    sensitivity: float
    specificity: float

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def choose_threshold(
    positive: NDArray[np.bool_], scores: Array, *, sensitivity: float | None = None
) -> Threshold | None:
    """The threshold with the most sensitivity + specificity (Youden 1950), or the highest of a given sensitivity.

    It lies halfway between the score that it calls positive and the next lower one, so that neither decides; of equally
    good ones the middle one is taken. None where slides are of one class.

    Args:
        positive: which slides are positive, (n,).
        scores: their probabilities, (n,).
        sensitivity: the least share of the positives that it is to find, in (0, 1]; None: as Youden has it.
    """
    if sensitivity is not None and not 0 < sensitivity <= 1:
        raise ValueError(f"sensitivity: expected a number above 0, 1 at most, found {sensitivity}")
    if positive.all() or not positive.any():
        return None
    levels = np.unique(scores)[::-1]
    called = scores >= levels[:, None]
    found = (called & positive).sum(1) / positive.sum()
    right = (~called & ~positive).sum(1) / (~positive).sum()
    if sensitivity is None:
        best = np.flatnonzero(found + right >= (found + right).max() - 1e-12)
        k = int(best[len(best) // 2])
    else:
        k = int((found >= sensitivity - 1e-12).argmax())
    value = float(levels[k]) if k + 1 == len(levels) else float((levels[k] + levels[k + 1]) / 2)
    return Threshold(value, "youden" if sensitivity is None else "sensitivity", float(found[k]), float(right[k]))


def at_threshold(
    positive: NDArray[np.bool_], scores: Array, owner: NDArray[np.int64], threshold: float | Array
) -> dict[str, Any]:
    """Sensitivity, specificity and predictive values of calling slides positive, with Wilson's 95 % intervals.

    Args:
        positive: which slides are positive, (n,).
        scores: their probabilities, (n,).
        owner: whose slide it is, (n,), as numbers; slides of a patient count as far as they differ.
        threshold: from which on a slide is called positive; one for each slide where each has its own.

    Returns:
        ``{"slides", "patients", "sensitivity", "specificity", "positive_predictive_value",
        "negative_predictive_value"}``, the shares ``{"value", "low", "high"}``, None of no slides.
    """
    called = scores >= threshold
    alike = alikeness(scores, owner, positive)

    def share(of: NDArray[np.bool_], right: NDArray[np.bool_]) -> dict[str, float | None]:
        if not of.any():
            return named(None)
        value = float(right[of].mean())
        several = len(np.unique(owner)) > 1
        return named(value, share_interval(value, independent(owner[of], alike)) if several else None)

    return {
        "slides": len(scores),
        "patients": len(np.unique(owner)),
        "sensitivity": share(positive, called),
        "specificity": share(~positive, ~called),
        "positive_predictive_value": share(called, positive),
        "negative_predictive_value": share(~called, ~positive),
    }


def cross_fitted(
    positive: NDArray[np.bool_],
    scores: Array,
    owner: NDArray[np.int64],
    folds: Sequence[Any],
    *,
    sensitivity: float | None = None,
) -> Array | None:
    """For each slide the threshold that is chosen on the slides of the patients who are not in its fold, (n,).

    Of repeated cross-validations a patient has a score in each, so that no fold of another repeat counts whole: nobody
    is judged by what his own scores chose, whichever repeat they are from. None where the slides of the patients
    outside some fold are of one class.
    """
    names = np.array([str(fold) for fold in folds])
    chosen = np.empty(len(scores))
    for fold in np.unique(names):
        inside = names == fold
        others = ~np.isin(owner, owner[inside])
        found = choose_threshold(positive[others], scores[others], sensitivity=sensitivity)
        if found is None:
            return None
        chosen[inside] = found.value
    return chosen
