"""Sets of classes that hold a slide's label as often as is stated: split conformal prediction, patient by patient.

Where the interval (`stages.prediction.intervals`) is about tissue that was not read, this is about the label. Scores
are of predictions from drawn patches, so that what a draw leaves to chance is in them, as it is in the prediction that
a set is made for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

WHOLE = 0
"""The budget of a model that reads every cell."""

ERRORS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
"""Stated errors of an abstention curve."""

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Conformal:
    """Scores of S slides of calibration: what a stated error makes thresholds of.

    The score of class c is ``1 - p_c`` (M. Sadinle, J. Lei and L. Wasserman, "Least ambiguous set-valued classifiers
    with bounded error levels", JASA 114, 2019), from so many different draws of a slide. A patient counts once, however
    many slides and draws there are of one: with ``F_i`` the distribution of the label's scores within patient i, of n,

        ``t = min { t : F_1(t) + ... + F_n(t) >= (n + 1) (1 - error) }``, infinite where there is none.

    The set ``{ c : 1 - p_c <= t }`` of a slide of another such patient, drawn as those were, then holds its label with
    probability at least ``1 - error`` and, as scores are continuous, at most ``1 - error + 2 / (n + 1)`` (Y. Lee, R. F.
    Barber and R. Willett, "Distribution-free inference with hierarchical data", 2023; of one draw of one slide of each
    patient it is ``ceil((n + 1) (1 - error)) / (n + 1)``, as ever). By class (Mondrian: V. Vovk, A. Gammerman and G.
    Shafer, *Algorithmic Learning in a Random World*) each class has the threshold of its own slides, and the same holds
    of the slides of each.

    Attributes:
        budgets: patches that were drawn, ascending; `WHOLE` alone of a model that draws none.
        scores: of each budget (S, D, C), D draws.
        labels: (S,), class indices.
        patients: (S,), which slides are of one patient.
    """

    budgets: tuple[int, ...]
    scores: tuple[Floats, ...]
    labels: NDArray[np.int64]
    patients: NDArray[np.int64]

    def patients_of(self, label: int | None = None) -> int:
        """How many patients there are, or have a slide of this class."""
        return len(np.unique(self.patients if label is None else self.patients[self.labels == label]))

    def at(self, samples: int, most: int | None = None) -> tuple[int, ...]:
        """The budgets that stand for ``samples`` patches: it, or its neighbours; beyond the largest, that, from which
        more patches differ by less than a draw of its own does.

        Args:
            samples: patches that are drawn.
            most: at most, where the draw goes on until it is sure enough: every budget on the way counts.
        """
        if self.budgets == (WHOLE,):
            return self.budgets
        low = max((n for n in self.budgets if n <= samples), default=self.budgets[0])
        high = min((n for n in self.budgets if n >= (most or samples)), default=self.budgets[-1])
        return tuple(n for n in self.budgets if low <= n <= max(low, high))

    def thresholds(self, error: float, *, budgets: Sequence[int], by_class: bool = False) -> Floats:
        """The largest score (C,) with which a class is in the set: of several budgets the widest.

        Raises:
            ValueError: ``error`` does not lie between 0 and 1.
        """
        if not 0 < error < 1:
            raise ValueError(f"the stated error must lie between 0 and 1, found {error:g}")
        widest: Floats = np.max([self._thresholds(error, self._at(n), by_class) for n in budgets], axis=0)
        return widest

    def predict_set(
        self, probabilities: ArrayLike, error: float, *, budgets: Sequence[int], by_class: bool = False
    ) -> NDArray[np.bool_]:
        """Which classes (..., C) are in the sets of predictions with these probabilities (..., C)."""
        found: NDArray[np.bool_] = scores_of(probabilities) <= self.thresholds(
            error, budgets=budgets, by_class=by_class
        )
        return found

    def abstention(
        self, errors: Sequence[float], *, budgets: Sequence[int], by_class: bool = False
    ) -> list[dict[str, float]]:
        """What stated errors come to on these patients, each judged by the thresholds of the others (left one out).

        Returns:
            For each error its ``stated_error``; the shares of slides ``referred``, of them ``several`` with more
            classes than one and ``none`` with no class; ``wrong``, called and not what the label says;
            ``error_of_called``, that as a share of the called (NaN where none is); ``coverage``, whose set holds the
            label. Patients count once.
        """
        names = ("referred", "several", "none", "wrong", "coverage")
        found = []
        for error, totals in zip(
            errors, np.mean([self._left_one_out(errors, self._at(n), by_class) for n in budgets], axis=0), strict=True
        ):
            told = dict(zip(names, (float(one) for one in totals), strict=True))
            called = 1 - told["referred"]
            wrong = told["wrong"] / called if called > _ROUNDING else math.nan
            found.append({"stated_error": error, **told, "error_of_called": wrong})
        return found

    def _at(self, budget: int) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
        """Scores (R, C), label and patient (R,) of every draw of a budget."""
        scores = self.scores[self.budgets.index(budget)]
        draws = scores.shape[1]
        return scores.reshape(-1, scores.shape[2]), np.repeat(self.labels, draws), np.repeat(self.patients, draws)

    def _thresholds(
        self, error: float, rows: tuple[Floats, NDArray[np.int64], NDArray[np.int64]], by_class: bool
    ) -> Floats:
        scores, labels, patients = rows
        own = scores[np.arange(len(labels)), labels]
        if not by_class:
            return np.full(scores.shape[1], threshold(own, patients, error))
        return np.array([threshold(own[labels == c], patients[labels == c], error) for c in range(scores.shape[1])])

    def _left_one_out(
        self, errors: Sequence[float], rows: tuple[Floats, NDArray[np.int64], NDArray[np.int64]], by_class: bool
    ) -> Floats:
        """Of each error (E, 5), in the order of `abstention`."""
        scores, labels, patients = rows
        own = scores[np.arange(len(labels)), labels]
        parts = [labels == c for c in range(scores.shape[1])] if by_class else [np.ones(len(labels), bool)]
        ranked = [_Ranked.of(own[part], patients[part]) for part in parts]
        totals = []
        for patient in np.unique(patients):
            out = patients == patient
            limits = np.stack([one.thresholds(errors, without=patient) for one in ranked], 1)  # (E, C or 1)
            chosen = scores[out] <= limits[:, None]  # (E, R, C)
            count, holds = chosen.sum(2), chosen[:, np.arange(out.sum()), labels[out]]
            told = (count != 1, count > 1, count == 0, (count == 1) & ~holds, holds)
            totals.append(np.stack([one.mean(1) for one in told], 1))
        mean: Floats = np.mean(totals, axis=0)
        return mean


@dataclass(frozen=True, slots=True, eq=False)
class _Ranked:
    """Scores (R,), ascending, whose each is, and by how much it counts: a patient's together by 1."""

    scores: Floats
    owners: NDArray[np.int64]
    weights: Floats

    @classmethod
    def of(cls, scores: Floats, patients: NDArray[np.int64]) -> _Ranked:
        """Of scores in any order."""
        order = np.argsort(scores, kind="stable")
        _, owner, count = np.unique(patients[order], return_inverse=True, return_counts=True)
        return cls(scores[order], patients[order], 1 / count[owner])

    def thresholds(self, errors: Sequence[float], *, without: int | None = None) -> Floats:
        """The finite-sample quantiles (E,) of `Conformal`, of all patients or ``without`` one; infinite of too few."""
        weights = self.weights if without is None else self.weights * (self.owners != without)
        reached = np.cumsum(weights)
        people = round(float(reached[-1])) if len(reached) else 0
        wanted = (people + 1) * (1 - np.asarray(errors)) - _ROUNDING
        at = np.searchsorted(reached, wanted)
        enough = wanted <= people
        found = np.full(len(wanted), math.inf)
        found[enough] = self.scores[at[enough]]
        return found


def conformalize(scores: Mapping[int, ArrayLike], labels: Sequence[int], patients: Sequence[str | int]) -> Conformal:
    """What is needed to make sets for other slides.

    Args:
        scores: of each budget (S, D, C), of D draws of S slides: see `scores_of`.
        labels: (S,), class indices.
        patients: (S,), whose slides they are.

    Raises:
        ValueError: lengths differ, there is no slide, a label is no class, or a score is not a number in [0, 1].
    """
    found = {n: np.asarray(scores[n], np.float64) for n in sorted(scores)}
    y, owner = np.asarray(labels, np.int64), np.unique(np.asarray(patients), return_inverse=True)[1].astype(np.int64)
    if not found or not len(y) or len(owner) != len(y) or any(s.ndim != 3 or len(s) != len(y) for s in found.values()):
        shapes = {n: s.shape for n, s in found.items()}
        raise ValueError(
            f"expected scores (slides, draws, classes) of {len(y)} labels, {len(owner)} patients: {shapes}"
        )
    classes = {s.shape[2] for s in found.values()}
    if len(classes) != 1 or y.min() < 0 or y.max() >= min(classes):
        raise ValueError(f"labels from {y.min()} to {y.max()} with scores of {sorted(classes)} classes")
    if not all(((s >= 0) & (s <= 1)).all() for s in found.values()):  # NaN compares false
        raise ValueError("scores must be numbers in [0, 1]: the checkpoint or the features are damaged")
    return Conformal(tuple(found), tuple(found.values()), y, owner)


def scores_of(probabilities: ArrayLike) -> Floats:
    """``1 - p`` (..., C) as the sum of the other classes' probabilities (..., C): near 0 it keeps its digits."""
    p = np.asarray(probabilities, np.float64)
    found: Floats = p @ (1 - np.eye(p.shape[-1]))
    return found


def threshold(scores: Floats, patients: NDArray[np.int64], error: float) -> float:
    """The finite-sample quantile of `Conformal`, of scores (R,) and whose each is; infinite of too few patients."""
    return float(_Ranked.of(scores, patients).thresholds([error])[0])


def least_error(patients: int) -> float:
    """The smallest error that so many patients can be the ground for, ``1 / (n + 1)``."""
    return 1 / (patients + 1)


def patients_needed(error: float) -> int:
    """How many patients an error needs, ``ceil(1 / error) - 1``."""
    return math.ceil(1 / error - _ROUNDING) - 1
