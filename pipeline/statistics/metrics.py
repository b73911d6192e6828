"""How good predictions of classes are: AUROC, AUPRC, F1, balanced accuracy, with intervals that respect patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.statistics.curves import curves
from pipeline.statistics.groups import by_group, owners
from pipeline.statistics.intervals import alikeness, independent, named, share_interval
from pipeline.statistics.power import auroc_patients, needed
from pipeline.statistics.ranking import ranked, ranked_within
from stages.amounts import apart, counted

METRICS = ("auroc", "auprc", "f1", "balanced_accuracy")


def evaluate(
    labels: Sequence[str],
    probabilities: ArrayLike,
    patients: Sequence[str],
    classes: Sequence[str],
    *,
    sites: Sequence[str | None] | None = None,
    folds: Sequence[str | None] | None = None,
) -> dict[str, Any]:
    """Score predictions against labels, with 95 % intervals that hold on few patients and at a perfect score.

    Of two classes the last is the positive; more are scored one against the rest and averaged over those that occur in
    ``labels``. AUPRC is the average precision. Predictions are the most probable class.

    An interval holds every value whose own standard error, times 1.96, reaches the score that was seen (Wilson 1927):
    recalls and precision by the binomial's, AUROC by Hanley & McNeil's (`auroc_interval`), F1 by that of the share of
    true positives among all that is positive by label or prediction, whose monotone map it is. Slides of a patient
    count as far as they differ: ``n = (sum m)^2 / sum m (1 + (m - 1) r)`` for patients of m slides, whose scores have
    the correlation r within their class (`alikeness`); those that tell all the same count as one. Averages over classes
    have the averages of the limits, as if all classes erred together.

    Args:
        labels: the true class of each slide, (n,).
        probabilities: (n, C), a column for each class.
        patients: whose slide it is, (n,).
        classes: class names, in the columns' order.
        sites: where each slide is from, (n,), None where nobody says; where any is given, each site is scored too.
        folds: in which fold each slide was held out, (n,); where any is given, each is scored too.

    Returns:
        ``{"slides", "patients", "slides_per_class", "patients_per_class", "right_per_class", "positive", "auroc",
        "auprc", "f1", "balanced_accuracy", "auroc_by_chance"}``, with sites also ``"sites"``, with folds ``"folds"``:
        the same for each. ``"positive"`` is None of more than two classes, ``"right_per_class"`` counts the slides of
        each class that are predicted to be of it, ``"auroc_by_chance"`` is what `auroc_by_chance` says of so many
        patients. Each metric is ``{"value", "low", "high"}``, None where it is undefined: intervals of fewer than two
        patients, and, where the labels have a single class, all but balanced accuracy (the recall). Of all slides there
        are also ``"curves"`` (`curves`), ``"patients_needed"`` for an AUROC's interval of ± .05, were it as seen
        (`needed`), and with folds ``"auroc_within_folds"`` (`ranked_within`).

    Raises:
        ValueError: lengths differ, a label is not among the classes, or a probability is not a number in [0, 1].
    """
    p = np.asarray(probabilities, np.float64)
    _check(labels, p, patients, classes)
    y = np.array([classes.index(label) for label in labels], np.int64)
    owner = owners(patients)
    found = class_scores(y, p, owner, classes)
    drawn = curves(y, p, owner, classes)
    aurocs = {name: one["roc"]["auroc"] for name, one in drawn["of"].items()}
    shares = [found["patients_per_class"][name] / max(sum(found["patients_per_class"].values()), 1) for name in aurocs]
    if folds is not None and any(folds):
        kinds = [c for c in np.unique(y).tolist() if p.shape[1] > 2 or c]
        within = [one for c in kinds if (one := ranked_within(y == c, p[:, c], owner, folds)) is not None]
        mean = np.mean(within, axis=0).tolist() if within else None
        found["auroc_within_folds"] = _told(mean, intervals=found["patients"] > 1)
    return (
        found
        | {"curves": drawn, "patients_needed": needed("auroc", auroc_patients(list(aurocs.values()), shares))}
        | by_group(
            lambda kept: class_scores(y[kept], p[kept], np.unique(owner[kept], return_inverse=True)[1], classes),
            {"sites": sites, "folds": folds},
        )
    )


def class_scores(
    y: NDArray[np.int64], p: NDArray[np.float64], owner: NDArray[np.int64], classes: Sequence[str]
) -> dict[str, Any]:
    """What `evaluate` finds, but for curves and groups.

    Args:
        y: index of each slide's class, (n,).
        p: (n, C).
        owner: whose slide it is, (n,), as numbers.
        classes: in the columns' order.
    """
    return {
        "slides": len(y),
        "patients": len(np.unique(owner)),
        "slides_per_class": {name: int((y == i).sum()) for i, name in enumerate(classes)},
        "patients_per_class": {name: len(np.unique(owner[y == i])) for i, name in enumerate(classes)},
        "right_per_class": {name: int((p.argmax(1)[y == i] == i).sum()) for i, name in enumerate(classes)},
        "positive": classes[-1] if len(classes) == 2 else None,
        **_scores(y, p, owner),
    }


SCORES = (*METRICS, "kappa", "mae", "rmse", "r2", "pearson", "spearman", "c_index")
"""Keys of all scores that this room gives, in the order in which they are told."""


def in_words(metrics: Mapping[str, Any], names: Sequence[str] = SCORES) -> str:
    """What `evaluate`, or its like for another kind of label, found, in one line: those of ``names`` that there are."""
    told = [f"{counted(metrics['slides'], 'slide')} of {counted(metrics['patients'], 'patient')}"]
    per_class = metrics.get("slides_per_class")
    if per_class is not None:
        told.append("(" + ", ".join(f"{count} {apart(name)}" for name, count in per_class.items()) + ")")
    if "events" in metrics:
        told.append(f"({counted(metrics['events'], 'event')})")
    scores = [_one_in_words(name, metrics[name]) for name in names if name in metrics]
    for name, one in metrics.get("labels", {}).items():
        scores += [] if one is None else [_one_in_words(f"{apart(name)} auroc", one["auroc"])]
    if per_class is not None and sum(count > 0 for count in per_class.values()) < 2:
        scores.append("one class only, so no auroc")
    if "events" in metrics and not metrics["pairs"]:
        scores.append("no two patients of whom it is known who had the event first, so no c_index")
    return " ".join(told) + ": " + (", ".join(one for one in scores if one) or "nothing can be compared")


def _one_in_words(name: str, score: Mapping[str, float | None]) -> str:
    """A score with its interval; nothing where there is none."""
    if score["value"] is None:
        return ""
    return f"{name} {score['value']:.3f}" + (
        "" if score["low"] is None else f" [{score['low']:.3f}, {score['high']:.3f}]"
    )


def _scores(y: NDArray[np.int64], p: NDArray[np.float64], owner: NDArray[np.int64]) -> dict[str, Any]:
    """`METRICS` with intervals, of labels (n,), probabilities (n, C) and whose slide it is (n,)."""
    present = np.unique(y).tolist()
    chosen = p.argmax(1)
    recalls, rest, by_chance = [], [], []
    for c in present:
        alike = alikeness(p[:, c], owner, y == c)
        recall = float((chosen[y == c] == c).mean())
        recalls.append((recall, *share_interval(recall, independent(owner[y == c], alike))))
        ranking = ranked(y == c, p[:, c], owner) if p.shape[1] > 2 or c else None
        if ranking is None:
            continue
        by_chance.append(ranking.by_chance)
        either = (y == c) | (chosen == c)
        hits = float((y == chosen)[either].mean())  # Jaccard index J; F1 = 2 J / (1 + J)
        f1 = [2 * j / (1 + j) for j in (hits, *share_interval(hits, independent(owner[either], alike)))]
        rest.append([ranking.auroc, ranking.auprc, f1])
    told = [*(np.mean(rest, axis=0) if rest else [None] * (len(METRICS) - 1)), np.mean(recalls, axis=0)]
    return {
        name: _told(None if one is None else one.tolist(), intervals=len(np.unique(owner)) > 1)
        for name, one in zip(METRICS, told, strict=True)
    } | {"auroc_by_chance": float(np.mean(by_chance)) if by_chance else None}


def _told(one: list[float] | None, *, intervals: bool) -> dict[str, float | None]:
    return named(None) if one is None else named(one[0], (one[1], one[2]) if intervals else None)


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
