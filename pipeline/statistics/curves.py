"""What a single number hides, as points: ROC, precision and recall, reliability, decisions, confusion, survival."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.statistics.intervals import independent, share_interval

POINTS = 100
"""A curve's points at most: more cannot be told apart in a picture, and are not kept."""
BINS = 10
"""Of the reliability diagram, equally wide from 0 to 1."""

Array = NDArray[np.float64]


def curves(y: NDArray[np.int64], p: Array, owner: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """The curves of probabilities of classes, and what was taken for what.

    Args:
        y: index of each slide's class, (n,).
        p: (n, C), a column for each class.
        owner: whose slide it is, (n,), as numbers.
        classes: in the columns' order; of two the last is the positive one, of more each has its curves against the
            rest.

    Returns:
        ``{"confusion", "of": {class: {"roc", "precision_recall", "reliability", "decision"}}}``; classes of which
        there is no slide, or of which all are, have none.
    """
    told = range(len(classes)) if len(classes) > 2 else range(1, len(classes))
    return {
        "confusion": confusion(y, p.argmax(1), classes),
        "of": {
            classes[c]: {
                "roc": roc(y == c, p[:, c]),
                "precision_recall": precision_recall(y == c, p[:, c]),
                "reliability": reliability(y == c, p[:, c], owner),
                "decision": decision(y == c, p[:, c]),
            }
            for c in told
            if 0 < (y == c).sum() < len(y)
        },
    }


def confusion(y: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """How many slides of each class (rows) are predicted to be of which (columns)."""
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (y, predicted), 1)
    return {"classes": list(classes), "counts": counts.tolist()}


def roc(positive: NDArray[np.bool_], scores: Array) -> dict[str, Any]:
    """Sensitivity by false positive rate, from (0, 0) to (1, 1), a point for each distinct score; and the area.

    ``threshold`` is the least score that is called positive; above all scores at (0, 0), where it is 1 at least.
    """
    thresholds, hits, misses = _called(positive, scores)
    thresholds = np.concatenate([[max(1.0, float(thresholds[0]))], thresholds])
    x = np.concatenate([[0.0], misses / max((~positive).sum(), 1)])
    y = np.concatenate([[0.0], hits / max(positive.sum(), 1)])
    area = float(np.trapezoid(y, x))
    return {"auroc": area, **_points(x, y, "false_positive_rate", "sensitivity", threshold=thresholds)}


def precision_recall(positive: NDArray[np.bool_], scores: Array) -> dict[str, list[float]]:
    """Precision by recall (sensitivity), a point for each distinct score; precision is 1 at recall 0."""
    thresholds, hits, misses = _called(positive, scores)
    precision = hits / (hits + misses)
    return _points(
        np.concatenate([[0.0], hits / max(positive.sum(), 1)]),
        np.concatenate([[1.0], precision]),
        "recall",
        "precision",
        threshold=np.concatenate([[max(1.0, float(thresholds[0]))], thresholds]),
    )


def reliability(positive: NDArray[np.bool_], p: Array, owner: NDArray[np.int64]) -> dict[str, Any]:
    """How often slides are positive, by how probable that was said to be: in `BINS` bins that hold any.

    ``low`` and ``high`` are the ends of the share's 95 % interval (Wilson 1927), a patient's slides counting as one;
    ``brier`` is the mean of ``(p - y)^2`` (Brier 1950), ``calibration_error`` the mean distance of share and mean
    probability over the bins, weighted by their slides (Naeini 2015).
    """
    which = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    bins: list[dict[str, float]] = []
    for k in np.unique(which).tolist():
        inside = which == k
        share = float(positive[inside].mean())
        low, high = share_interval(share, independent(owner[inside]))
        bins.append(
            {
                "from": k / BINS,
                "to": (k + 1) / BINS,
                "slides": int(inside.sum()),
                "patients": len(np.unique(owner[inside])),
                "probability": float(p[inside].mean()),
                "share": share,
                "low": low,
                "high": high,
            }
        )
    apart = sum(one["slides"] * abs(one["share"] - one["probability"]) for one in bins) / len(p)
    return {"bins": bins, "brier": float(((p - positive) ** 2).mean()), "calibration_error": apart}


def decision(positive: NDArray[np.bool_], p: Array) -> dict[str, list[float]]:
    """Net benefit by the threshold probability t from which one acts (Vickers & Elkin 2006).

    ``(hits - false alarms * t / (1 - t)) / n`` of acting where p >= t, and of acting on all; of acting on none it is 0.
    """
    thresholds = np.arange(1, 100) / 100
    called = p >= thresholds[:, None]
    odds = thresholds / (1 - thresholds)
    model = ((called & positive).sum(1) - (called & ~positive).sum(1) * odds) / len(p)
    everyone = positive.mean() - (1 - positive.mean()) * odds
    return {"threshold": thresholds.tolist(), "net_benefit": model.tolist(), "act_on_all": everyone.tolist()}


def survival_curve(times: Array, events: NDArray[np.bool_]) -> dict[str, list[float]]:
    """The share of patients without the event by time (Kaplan & Meier 1958): steps, from time 0 to the last."""
    at, share, value = [0.0], [1.0], 1.0
    for time in np.unique(times[events]).tolist():
        value *= 1 - (events & (times == time)).sum() / (times >= time).sum()
        at.append(time)
        share.append(float(value))
    at.append(float(times.max()))
    return _points(np.array(at), np.array([*share, share[-1]]), "time", "share")


def by_risk(times: Array, events: NDArray[np.bool_], risks: Array) -> dict[str, Any]:
    """`survival_curve` of the patients with a risk above the median, and of the others; None of an empty half."""
    high = risks > np.median(risks)
    return {
        name: {"patients": int(half.sum()), **survival_curve(times[half], events[half])} if half.any() else None
        for name, half in (("lower", ~high), ("higher", high))
    }


def pairs(values: Array, predictions: Array) -> dict[str, list[float]]:
    """True values and predictions, of `POINTS` slides at most, evenly spread over the values."""
    order = np.argsort(values, kind="stable")
    kept = order[np.unique(np.linspace(0, len(order) - 1, min(POINTS, len(order))).round().astype(np.int64))]
    return {"value": values[kept].tolist(), "predicted": predictions[kept].tolist()}


def _called(positive: NDArray[np.bool_], scores: Array) -> tuple[Array, Array, Array]:
    """Distinct scores, the highest first, and how many positives and negatives have that or a higher one."""
    order = np.argsort(-scores, kind="stable")
    ordered, is_positive = scores[order], positive[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    hits = np.cumsum(is_positive)[last]
    return ordered[last], hits.astype(np.float64), (last + 1 - hits).astype(np.float64)


def _points(x: Array, y: Array, x_name: str, y_name: str, **more: Array) -> dict[str, list[float]]:
    """A curve's points: the first, the last, and of the others `POINTS` - 2 at most, evenly spread along it."""
    if len(x) > POINTS:
        steps = np.abs(np.diff(x)) / max(np.ptp(x), 1e-9) + np.abs(np.diff(y)) / max(np.ptp(y), 1e-9)
        along = np.concatenate([[0], np.cumsum(steps)])
        kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], POINTS)).clip(0, len(x) - 1))
        x, y, more = x[kept], y[kept], {name: values[kept] for name, values in more.items()}
    return {x_name: x.tolist(), y_name: y.tolist()} | {name: values.tolist() for name, values in more.items()}
