"""How good predictions are: AUROC, AUPRC, F1 and balanced accuracy, with intervals that respect patients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.amounts import apart, counted
from stages.torchvision import admit_torchvision

METRICS = ("auroc", "auprc", "f1", "balanced_accuracy")
NO_SITE = "no site given"

_Z = 1.959963984540054
"""Standard errors on either side of 95 % of a normal distribution."""
_EDGE = 1e-9
"""How near 0 and 1 the roots are sought: at the ends themselves every variance is zero."""

Interval = tuple[float, float]


def evaluate(
    labels: Sequence[str],
    probabilities: ArrayLike,
    patients: Sequence[str],
    classes: Sequence[str],
    *,
    sites: Sequence[str | None] | None = None,
) -> dict[str, Any]:
    """Score predictions against labels, with 95 % intervals that hold on few patients and at a perfect score.

    Of two classes the last is the positive; more are scored one against the rest and averaged over those that occur in
    ``labels``. AUPRC is the average precision. Predictions are the most probable class.

    An interval holds every value whose own standard error, times 1.96, reaches the score that was seen (Wilson 1927):
    recalls and precision by the binomial's, AUROC by Hanley & McNeil's (`auroc_interval`), F1 by that of the share of
    true positives among all that is positive by label or prediction, whose monotone map it is. The slides of a patient
    count as one: ``n = (sum m_i)^2 / sum m_i^2`` for patients with ``m_i`` slides (Kish 1965), as if they told all the
    same. Averages over classes have the averages of the limits, as if all classes erred together.

    Args:
        labels: the true class of each slide, (n,).
        probabilities: (n, C), a column for each class.
        patients: whose slide it is, (n,).
        classes: class names, in the columns' order.
        sites: where each slide is from, (n,), None where nobody says; where any is given, each site is scored too.

    Returns:
        ``{"slides", "patients", "slides_per_class", "right_per_class", "positive", "auroc", "auprc", "f1",
        "balanced_accuracy", "auroc_by_chance"}``, with sites also ``"sites"``: the same for each; ``"positive"`` is
        None of more than two classes, ``"right_per_class"`` counts the slides of each class that are predicted to be of
        it, ``"auroc_by_chance"`` is what `auroc_by_chance` says of so many patients. Each metric is
        ``{"value", "low", "high"}``, None where it is undefined: intervals of fewer than two patients, and, where the
        labels have a single class, all but balanced accuracy (the recall).

    Raises:
        ValueError: lengths differ, a label is not among the classes, or a probability is not a number in [0, 1].
    """
    p = np.asarray(probabilities, np.float64)
    _check(labels, p, patients, classes)
    y = np.array([classes.index(label) for label in labels], np.int64)
    people, owner = np.unique(np.asarray(patients), return_inverse=True)
    found = {
        "slides": len(y),
        "patients": len(people),
        "slides_per_class": {name: int((y == i).sum()) for i, name in enumerate(classes)},
        "right_per_class": {name: int((p.argmax(1)[y == i] == i).sum()) for i, name in enumerate(classes)},
        "positive": classes[-1] if len(classes) == 2 else None,
        **_scores(y, p, owner),
    }
    if sites is not None and any(sites):
        names = np.array([site or NO_SITE for site in sites])
        found["sites"] = {
            str(name): evaluate(
                [label for label, here in zip(labels, names == name, strict=True) if here],
                p[names == name],
                [patient for patient, here in zip(patients, names == name, strict=True) if here],
                classes,
            )
            for name in np.unique(names)
        }
    return found


def in_words(metrics: dict[str, Any]) -> str:
    """What `evaluate` found, in one line; a site has one more, which `evaluate` gives under "sites"."""
    per_class = metrics["slides_per_class"]
    told = [f"{counted(metrics['slides'], 'slide')} of {counted(metrics['patients'], 'patient')}"]
    told.append("(" + ", ".join(f"{count} {apart(name)}" for name, count in per_class.items()) + ")")
    scores = [
        f"{name} {score['value']:.3f}" + ("" if score["low"] is None else f" [{score['low']:.3f}, {score['high']:.3f}]")
        for name, score in ((name, metrics[name]) for name in METRICS)
        if score["value"] is not None
    ]
    if sum(count > 0 for count in per_class.values()) < 2:
        scores.append("one class only, so no auroc")
    return " ".join(told) + ": " + ", ".join(scores)


def auroc_interval(auroc: float, positives: float, negatives: float) -> Interval:
    """The 95 % score interval of an AUROC from so many positive and negative patients.

    It holds every A with ``|auroc - A| <= 1.96 sqrt(V(A))``, where ``V(A)`` is Hanley & McNeil's (1982) variance,
    ``(A (1 - A) + (m - 1) (A / (2 - A) - A^2) + (n - 1) (2 A^2 / (1 + A) - A^2)) / (m n)``: taken at A, not at the
    AUROC that was seen, so that a perfect score has an interval too (as in Newcombe's method 5, 2006). Which of the
    classes spreads more is not known: m and n are put in the order of the larger variance.
    """
    m, n = positives, negatives

    def variance(a: float) -> float:
        one, other = a / (2 - a) - a * a, 2 * a * a / (1 + a) - a * a
        more, fewer = max(m, n) - 1, min(m, n) - 1
        return (a * (1 - a) + more * max(one, other) + fewer * min(one, other)) / (m * n)

    return _score_interval(auroc, variance)


def auroc_by_chance(positives: float, negatives: float) -> float:
    """The AUROC that ranking so many patients by lot exceeds in at most 2.5 % of cases; above 1: none is beyond it.

    ``1/2 + 1 / (2 m n) + 1.96 sqrt((m + n + 1) / (12 m n))``: Mann & Whitney's (1947) with the continuity correction,
    without which three patients against three, of whom lot ranks one order in 20 perfectly, would seem to be enough.
    """
    m, n = positives, negatives
    return 0.5 + 0.5 / (m * n) + _Z * math.sqrt((m + n + 1) / (12 * m * n))


def share_interval(share: float, count: float) -> Interval:
    """Wilson's (1927) 95 % interval of a share of so many independent ones."""
    return _score_interval(share, lambda s: s * (1 - s) / count)


def _score_interval(value: float, variance: Callable[[float], float]) -> Interval:
    """The lowest and highest number in [0, 1] within 1.96 of its own standard errors of the value."""
    from scipy.optimize import brentq

    def excess(other: float) -> float:
        return abs(other - inside) - _Z * math.sqrt(variance(other))

    inside = min(max(value, _EDGE), 1 - _EDGE)
    low = 0.0 if value <= 0 else float(brentq(excess, 0.0, inside))
    high = 1.0 if value >= 1 else float(brentq(excess, inside, 1.0))
    return min(low, value), max(high, value)


def _scores(y: NDArray[np.int64], p: NDArray[np.float64], owner: NDArray[np.int64]) -> dict[str, Any]:
    """`METRICS` with intervals, of labels (n,), probabilities (n, C) and whose slide it is (n,)."""
    import torch

    admit_torchvision()
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    present = np.unique(y).tolist()
    chosen = p.argmax(1)
    recalls, rest, by_chance = [], [], []
    for c in present:
        recall = float((chosen[y == c] == c).mean())
        recalls.append((recall, *share_interval(recall, _independent(owner[y == c]))))
    for c in present if p.shape[1] > 2 else present[1:]:
        if len(present) < 2:
            break
        truth, score = torch.from_numpy(y == c).long(), torch.from_numpy(p[:, c])
        positives, negatives = _independent(owner[y == c]), _independent(owner[y != c])
        auroc = float(binary_auroc(score, truth, validate_args=False))
        by_chance.append(auroc_by_chance(positives, negatives))
        auprc = float(binary_average_precision(score, truth, validate_args=False))
        either = (y == c) | (chosen == c)
        hits = float((y == chosen)[either].mean())  # Jaccard index J; F1 = 2 J / (1 + J)
        f1 = [2 * j / (1 + j) for j in (hits, *share_interval(hits, _independent(owner[either])))]
        rest.append(
            [(auroc, *auroc_interval(auroc, positives, negatives)), (auprc, *share_interval(auprc, positives)), f1]
        )
    told = [*(np.mean(rest, axis=0) if rest else [None] * (len(METRICS) - 1)), np.mean(recalls, axis=0)]
    return {
        name: _named(None if one is None else one, intervals=len(np.unique(owner)) > 1)
        for name, one in zip(METRICS, told, strict=True)
    } | {"auroc_by_chance": float(np.mean(by_chance)) if by_chance else None}


def _independent(owner: NDArray[np.int64]) -> float:
    """How many independent patients so many slides of each are worth at least, where a patient's tell all the same."""
    counts = np.bincount(owner)
    return float(counts.sum() ** 2 / (counts**2).sum())


def _named(one: Any, *, intervals: bool) -> dict[str, float | None]:
    value, low, high = (None, None, None) if one is None else (float(number) for number in one)
    return {"value": value, "low": low if intervals else None, "high": high if intervals else None}


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
