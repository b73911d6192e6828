"""How good predictions are: AUROC, AUPRC, F1 and balanced accuracy, with intervals that respect patients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

METRICS = ("auroc", "auprc", "f1", "balanced_accuracy")


def evaluate(
    labels: Sequence[str],
    probabilities: ArrayLike,
    patients: Sequence[str],
    classes: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score predictions against labels, with bootstrap 95 % percentile intervals.

    Of two classes the second is the positive; more are scored one against the rest and averaged over those that occur
    in ``labels``. AUPRC is the average precision. Predictions are the most probable class. Patients are drawn with
    replacement, each with all of its slides, because slides of one patient are not independent. A draw that lost a
    class which the labels have cannot be scored; it is left out and counted.

    Args:
        labels: the true class of each slide, (n,).
        probabilities: (n, C), a column for each class.
        patients: whose slide it is, (n,).
        classes: class names, in the columns' order.
        resamples: bootstrap draws.
        seed: of the draws.

    Returns:
        ``{"slides", "patients", "slides_per_class", "resamples", "degenerate_resamples", "auroc", "auprc", "f1",
        "balanced_accuracy"}``; each metric is ``{"value", "low", "high"}``, None where it is undefined: intervals of
        fewer than two patients, and, where the labels have a single class, all but balanced accuracy (the recall).

    Raises:
        ValueError: lengths differ, a label is not among the classes, or a probability is not a number in [0, 1].
    """
    p = np.asarray(probabilities, np.float64)
    _check(labels, p, patients, classes)
    y = np.array([classes.index(label) for label in labels], np.int64)
    present = np.unique(y)
    people, owner = np.unique(np.asarray(patients), return_inverse=True)
    slides_of = [np.flatnonzero(owner == i) for i in range(len(people))]
    point = _scores(y, p, present)
    rng = np.random.default_rng(seed)
    draws: list[NDArray[np.float64]] = []
    degenerate = 0
    for _ in range(resamples if len(people) > 1 else 0):
        drawn = np.concatenate([slides_of[i] for i in rng.integers(len(people), size=len(people))])
        if np.unique(y[drawn]).size < present.size:
            degenerate += 1
        else:
            draws.append(_scores(y[drawn], p[drawn], present))
    low, high = np.quantile(draws, (0.025, 0.975), axis=0) if draws else np.full((2, len(METRICS)), np.nan)
    return {
        "slides": len(y),
        "patients": len(people),
        "slides_per_class": {name: int((y == i).sum()) for i, name in enumerate(classes)},
        "resamples": resamples,
        "degenerate_resamples": degenerate,
        **{
            name: {"value": _number(point[i]), "low": _number(low[i]), "high": _number(high[i])}
            for i, name in enumerate(METRICS)
        },
    }


def _scores(y: NDArray[np.int64], p: NDArray[np.float64], present: NDArray[np.int64]) -> NDArray[np.float64]:
    """`METRICS` of labels (n,) and probabilities (n, C); all but the last are NaN where only one class is present."""
    import torch
    from torchmetrics.functional.classification import (
        binary_auroc,
        binary_average_precision,
        binary_f1_score,
        binary_recall,
    )

    truth = {c: torch.from_numpy(y == c).long() for c in present.tolist()}
    score = torch.from_numpy(p)
    chosen = score.argmax(1)
    recalls = [float(binary_recall((chosen == c).long(), t, validate_args=False)) for c, t in truth.items()]
    one_sided = np.full(len(METRICS) - 1, np.nan)
    if present.size > 1:
        if p.shape[1] == 2:
            truth = {1: truth[1]}
        one_sided = np.mean(
            [
                (
                    float(binary_auroc(score[:, c], t, validate_args=False)),
                    float(binary_average_precision(score[:, c], t, validate_args=False)),
                    float(binary_f1_score((chosen == c).long(), t, validate_args=False)),
                )
                for c, t in truth.items()
            ],
            axis=0,
        )
    return np.array([*one_sided, np.mean(recalls)], np.float64)


def _check(labels: Sequence[str], p: NDArray[np.float64], patients: Sequence[str], classes: Sequence[str]) -> None:
    if p.shape != (len(labels), len(classes)) or len(patients) != len(labels) or not len(labels):
        raise ValueError(
            f"expected probabilities of shape ({len(labels)}, {len(classes)}) and {len(labels)} patients for "
            f"{len(labels)} labels (one at least), found {p.shape} and {len(patients)}"
        )
    unknown = sorted(set(labels) - set(classes))
    if unknown:
        raise ValueError(f"label {unknown[0]!r} is not among the classes {', '.join(classes)}")
    if not ((p >= 0) & (p <= 1)).all():  # NaN compares false
        raise ValueError("probabilities must be numbers in [0, 1]; look for a slide whose prediction is NaN")


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
