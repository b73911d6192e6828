"""How good predictions of several labels at a time are, each by itself and in the mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.statistics.curves import curves
from pipeline.statistics.groups import by_group, check_patients, numbers, owners
from pipeline.statistics.metrics import METRICS, class_scores
from pipeline.statistics.power import auroc_patients, needed


def evaluate_multilabel(
    labels: ArrayLike,
    probabilities: ArrayLike,
    patients: Sequence[str],
    names: Sequence[str],
    *,
    sites: Sequence[str | None] | None = None,
    folds: Sequence[str | None] | None = None,
) -> dict[str, Any]:
    """Score each label as `evaluate` scores two classes, over the slides on which it is known, and the labels' mean.

    A slide counts as predicted to have a label from a probability of 1/2. The mean (macro average) is over the labels
    of which slides are known with and without; its limits are the means of theirs, as if all labels erred together.

    Args:
        labels: (n, L), 1 where a slide has the label, 0 where it has not, NaN where that is not known.
        probabilities: (n, L), of each label; they need not sum to 1.
        patients: whose slide it is, (n,).
        names: of the labels, in the columns' order.
        sites, folds: as for `evaluate`.

    Returns:
        ``{"slides", "patients", "labels": {name: what evaluate finds, or None where no slide is known}, "auroc",
        "auprc", "f1", "balanced_accuracy", "auroc_by_chance", "averaged": the labels that the means are of,
        "curves": {"of": as evaluate has them}, "patients_needed"}``, and ``"sites"``, ``"folds"``: the scores of each.

    Raises:
        ValueError: a shape is another, a label is not 0, 1 or NaN, or a probability is not a number in [0, 1].
    """
    check_patients(patients, len(patients))
    shape = (len(patients), len(names))
    y = numbers(labels, "labels", shape=shape, missing=True)
    p = numbers(probabilities, "probabilities", shape=shape)
    wrong = ~np.isnan(y) & (y != 0) & (y != 1)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(f"label {names[column]!r}: expected 0, 1 or NaN, found {y[row, column]:g} in row {row} from 0")
    people = np.asarray(patients)

    def score(kept: NDArray[np.bool_]) -> dict[str, Any]:
        each = {name: _one(y[kept, i], p[kept, i], people[kept]) for i, name in enumerate(names)}
        both = {name: one for name, one in each.items() if one is not None and one["auroc"]["value"] is not None}
        told: dict[str, Any] = {"slides": int(kept.sum()), "patients": len(np.unique(people[kept])), "labels": each}
        for metric in METRICS:
            told[metric] = {end: _mean([one[metric][end] for one in both.values()]) for end in ("value", "low", "high")}
        told["auroc_by_chance"] = _mean([one["auroc_by_chance"] for one in both.values()])
        return told | {"averaged": list(both)}

    found = score(np.ones(len(people), bool))
    drawn: dict[str, Any] = {}
    aurocs, shares = [], []
    for i, name in enumerate(names):
        if name in found["averaged"]:
            known = ~np.isnan(y[:, i])
            drawn |= curves(*_as_classes(y[known, i], p[known, i], people[known]), ("", name))["of"]
            aurocs.append(found["labels"][name]["auroc"]["value"])
            shares.append(float(y[known, i].mean()))
    found |= {"curves": {"of": drawn}, "patients_needed": needed("auroc", auroc_patients(aurocs, shares))}
    return found | by_group(score, {"sites": sites, "folds": folds})


def _one(y: NDArray[np.float64], p: NDArray[np.float64], people: NDArray[Any]) -> dict[str, Any] | None:
    known = ~np.isnan(y)
    if not known.any():
        return None
    return class_scores(*_as_classes(y[known], p[known], people[known]), ("without", "with"))


def _as_classes(
    y: NDArray[np.float64], p: NDArray[np.float64], people: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """A label as two classes: without, with."""
    if ((p < 0) | (p > 1)).any():
        raise ValueError("probabilities must be numbers in [0, 1]")
    return y.astype(np.int64), np.stack([1 - p, p], 1), owners(people.tolist())


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None
