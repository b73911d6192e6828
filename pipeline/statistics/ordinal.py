"""How good predictions of grades are: agreement, distance in grades, and the ranking at each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.statistics.curves import confusion, roc
from pipeline.statistics.groups import by_group, check_patients, numbers, owners
from pipeline.statistics.intervals import independent, named, score_interval, share_interval, transformed_interval
from pipeline.statistics.power import auroc_patients, needed
from pipeline.statistics.ranking import ranked


def evaluate_ordinal(
    grades: ArrayLike,
    probabilities: ArrayLike,
    patients: Sequence[str],
    names: Sequence[str],
    *,
    sites: Sequence[str | None] | None = None,
    folds: Sequence[str | None] | None = None,
) -> dict[str, Any]:
    """Score predictions of ordered grades; the most probable grade is the predicted one.

    ``kappa`` is quadratic weighted (Cohen 1968), ``1 - mean (y - x)^2 / (var y + var x + (mean y - mean x)^2)`` for
    grades y predicted as x, its interval on Fisher's z, with the larger of the patients' jackknife and ``1 / sqrt(n -
    2)``; of perfect agreement it ends where as many are off by one grade as may be. ``mae`` is the mean distance in
    grades; its score interval has the variance ``A (g - A) / n``, ``g = sum e^2 / sum |e|``, which is the binomial's
    where no prediction is off by more than one grade. ``auroc`` tells slides of grade k or above from those below by
    their probability, mean over the k of which there are both.

    Args:
        grades: index of each slide's grade, (n,), from 0.
        probabilities: (n, G), a column for each grade.
        patients: whose slide it is, (n,); a patient's count as one in ``kappa`` and ``mae``.
        names: of the grades, from the lowest.
        sites, folds: as for `evaluate`.

    Returns:
        ``{"slides", "patients", "slides_per_class", "kappa", "mae", "auroc", "auroc_by_chance", "thresholds"}``, of
        which the last has the AUROC from each grade on: ``{name: {"value", "low", "high"}}``; ``"curves"``: `confusion`
        and `roc` of each grade or above, ``"patients_needed"`` (`needed`). Each metric is
        ``{"value", "low", "high"}``, None where it is undefined: kappa where all are of, and predicted to be of, one
        grade; intervals of fewer than two patients, of kappa of fewer than three.

    Raises:
        ValueError: a shape is another, a grade is not a whole number from 0 to G - 1, or a probability is not a number
            in [0, 1].
    """
    check_patients(patients, len(patients))
    y = numbers(grades, "grades", shape=(len(patients),))
    p = numbers(probabilities, "probabilities", shape=(len(patients), len(names)))
    if ((p < 0) | (p > 1)).any():
        raise ValueError("probabilities must be numbers in [0, 1]")
    wrong = (y != np.round(y)) | (y < 0) | (y >= len(names))
    if wrong.any():
        raise ValueError(f"grade {y[wrong][0]:g} is not a whole number from 0 to {len(names) - 1}")
    people = np.asarray(patients)

    def score(kept: NDArray[np.bool_]) -> dict[str, Any]:
        return _scores(y[kept].astype(np.int64), p[kept], owners(people[kept].tolist()), names)

    everyone = np.ones(len(y), bool)
    found = score(everyone)
    steps = {name: k for k, name in enumerate(names) if 0 < (y >= k).sum() < len(y)}
    found["curves"] = {
        "confusion": confusion(y.astype(np.int64), p.argmax(1), names),
        "of": {f"{name} or above": {"roc": roc(y >= k, p[:, k:].sum(1))} for name, k in steps.items()},
    }
    aurocs = [found["thresholds"][name]["value"] for name in steps]
    shares = [float((y >= k).mean()) for k in steps.values()]
    found["patients_needed"] = needed("auroc", auroc_patients(aurocs, shares))
    return found | by_group(score, {"sites": sites, "folds": folds})


def quadratic_kappa(grades: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Cohen's (1968) quadratic weighted kappa; NaN where both are the same one grade throughout."""
    apart = float(((grades - predicted) ** 2).mean())
    most = float(grades.var() + predicted.var() + (grades.mean() - predicted.mean()) ** 2)
    return 1 - apart / most if most > 0 else math.nan


def _scores(
    y: NDArray[np.int64], p: NDArray[np.float64], owner: NDArray[np.int64], names: Sequence[str]
) -> dict[str, Any]:
    x = p.argmax(1)
    patients = int(owner.max()) + 1
    worth = independent(owner)
    off = np.abs(y - x).astype(np.float64)
    size = float((off**2).sum() / off.sum()) if off.any() else 1.0
    mae = float(off.mean())
    steps: dict[str, Any] = {}
    known = []
    for k in range(1, len(names)):
        ranking = ranked(y >= k, p[:, k:].sum(1), owner)
        steps[names[k]] = named(None)
        if ranking is not None:
            steps[names[k]] = named(ranking.auroc[0], ranking.auroc[1:] if patients > 1 else None)
            known.append((*ranking.auroc, ranking.by_chance))
    mean = np.mean(known, axis=0).tolist() if known else None
    return {
        "slides": len(y),
        "patients": patients,
        "slides_per_class": {name: int((y == i).sum()) for i, name in enumerate(names)},
        "kappa": _kappa(y, x, owner, worth),
        "mae": named(
            mae,
            score_interval(mae, lambda a: a * (max(size, a) - a) / worth, most=len(names) - 1)
            if patients > 1
            else None,
        ),
        "auroc": named(mean and mean[0], (mean[1], mean[2]) if mean and patients > 1 else None),
        "auroc_by_chance": mean and mean[3],
        "thresholds": steps,
    }


def _kappa(
    y: NDArray[np.int64], x: NDArray[np.int64], owner: NDArray[np.int64], worth: float
) -> dict[str, float | None]:
    value = quadratic_kappa(y, x)
    if math.isnan(value):
        return named(None)
    if worth <= 2:
        return named(value)
    most = float(y.var() + x.var() + (y.mean() - x.mean()) ** 2)
    if value == 1:  # of which neither error tells: as many may be off by one grade as the interval of `mae` has it
        return named(value, (1 - share_interval(0.0, worth)[1] / most, 1.0))
    end = 1 - 0.5 / (len(y) * most)  # without a patient it may be 1: half of the smallest disagreement stands for that

    def forth(kappa: float) -> float:
        return math.atanh(min(max(kappa, -end), end)) if not math.isnan(kappa) else math.nan

    return named(
        value,
        transformed_interval(
            value,
            lambda kept: quadratic_kappa(y[kept], x[kept]),
            owner,
            forth=forth,
            back=math.tanh,
            normal_error=1 / math.sqrt(worth - 2),
            student=False,
        ),
    )
