"""Two models on the same patients: how far their scores differ, with an interval and a test."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.statistics.groups import check_patients, numbers, owners
from pipeline.statistics.intervals import ranks_of
from pipeline.statistics.survival import by_patient, compared

DRAWS = 2000
"""Bootstrap samples of the patients."""
FLIPS = 4095
"""Random exchanges of the models for some of the patients; of up to 12 patients all there are."""

_PARTS = 16
"""In which draws are counted, so that those of many slides fit into memory."""

Array = NDArray[np.float64]


class Difference(NamedTuple):
    """One model's score less another's.

    Attributes:
        value: the difference.
        low, high: the ends of its 95 % interval; None where the bootstrap cannot tell one.
        p: how often a difference as large comes about where the two are as good; None of a single patient.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None


class _Pairs(NamedTuple):
    """Pairs (r, c) of slides or patients, the one of whom should rank above the other.

    Attributes:
        comparable: whether that is known.
        gap: how far the first model has a pair in order, less how far the other has.
        crossed: the same where the first model's rank of the one meets the other's of the other, less the reverse.
        rows, columns: whose they are, (r,) and (c,).
    """

    comparable: Array
    gap: Array
    crossed: Array
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


def auroc_difference(
    labels: Sequence[int], one: ArrayLike, other: ArrayLike, patients: Sequence[str], *, seed: int = 0
) -> Difference | None:
    """By how much one model's AUROC is above another's on the same slides; None where they are of one class.

    The interval is the paired percentile bootstrap's: patients are drawn with replacement, each with all their slides
    and both models' predictions, among those of the same classes, so that none is lost; its ends are the 2.5 % and
    97.5 % quantiles of the difference (Efron 1979), taken further out where the smallest class has few patients, k, as
    the t quantile and ``sqrt(k / (k - 1))`` have it (Hesterberg 2015). Where all samples give the same difference, as
    when both models are perfect, it tells nothing and there is none.

    ``p`` is the permutation test's of Bandos et al. (2005): were the models alike, exchanging their ranks for any of
    the patients would change nothing; it is the share of the exchanges with which the AUROCs differ as much.

    Args:
        labels: index of each slide's class, (n,).
        one, other: probabilities (n, C) of the two models; of two classes the last is the positive, of more the AUROC
            is the mean of those of one class against the rest, over the classes that occur.
        patients: whose slide it is, (n,).
        seed: of the draws.
    """
    y = np.asarray(labels)
    first, second = (np.asarray(p, np.float64) for p in (one, other))
    kinds = range(first.shape[1]) if first.shape[1] > 2 else (1,)
    positive = np.stack([y == c for c in kinds], 1)
    return _aurocs(positive, first[:, kinds], second[:, kinds], patients, seed, classes=y)


def ordinal_difference(
    grades: Sequence[int], one: ArrayLike, other: ArrayLike, patients: Sequence[str], *, seed: int = 0
) -> Difference | None:
    """By how much one model's mean AUROC of grades (`evaluate_ordinal`) is above another's; None of one grade.

    Interval and ``p`` are as `auroc_difference` has them.

    Args:
        grades: index of each slide's grade, (n,).
        one, other: probabilities (n, G) of the two models.
        patients: whose slide it is, (n,).
        seed: of the draws.
    """
    y = np.asarray(grades)
    # of grade k or above, k from 1
    first, second = (np.asarray(p, np.float64)[:, ::-1].cumsum(1)[:, ::-1][:, 1:] for p in (one, other))
    positive = y[:, None] >= np.arange(1, first.shape[1] + 1)
    return _aurocs(positive, first, second, patients, seed, classes=y)


def multilabel_difference(
    labels: ArrayLike, one: ArrayLike, other: ArrayLike, patients: Sequence[str], *, seed: int = 0
) -> Difference | None:
    """By how much one model's mean AUROC of labels, as `evaluate_multilabel` has it, is above another's; None where no
    label is known with and without.

    Interval and ``p`` are as `auroc_difference` has them, but that patients are drawn among all: few share all labels.

    Args:
        labels: (n, L), 1, 0, or NaN where nobody looked.
        one, other: probabilities (n, L) of the two models.
        patients: whose slide it is, (n,).
        seed: of the draws.
    """
    first, second = (np.asarray(p, np.float64) for p in (one, other))
    return _aurocs(np.asarray(labels, np.float64), first, second, patients, seed)


def correlation_difference(
    values: ArrayLike, one: ArrayLike, other: ArrayLike, patients: Sequence[str], *, seed: int = 0
) -> Difference | None:
    """By how much one model's correlation with the truth (Pearson's r) is above another's on the same slides; None
    where the truth, or a model, says the same of all.

    The interval is as `auroc_difference` has it, patients drawn among all; so is ``p``, what is exchanged being the
    models' predictions, each in its own standard deviations.

    Args:
        values: true values, (n,).
        one, other: predictions of the two models, (n,).
        patients: whose slide it is, (n,).
        seed: of the draws.
    """
    shape = (len(patients),)
    told = [numbers(v, what, shape=shape) for v, what in ((values, "values"), (one, "one"), (other, "other"))]
    if min(np.ptp(v) for v in told) <= 0:
        return None
    y, first, second = ((v - v.mean()) / v.std() for v in told)
    owner = owners(patients)
    count = int(owner.max()) + 1

    def gap(weights: Array, x: Array, z: Array) -> Array:
        return _correlation(weights, y, x) - _correlation(weights, y, z)

    everyone = np.ones((1, len(y)))
    value = float(gap(everyone, first, second)[0])
    if count < 2:
        return Difference(value, None, None, None)
    random = np.random.default_rng(seed)
    drawn = np.concatenate([gap(w[:, owner], first, second) for w in np.split(_drawn([0] * count, random), _PARTS)])
    found = []
    for exchanged in np.array_split(_exchanges(count, random), _PARTS):
        turned = exchanged[:, owner]
        found.append(gap(everyone, np.where(turned, second, first), np.where(turned, first, second)))
    p = float((np.abs(np.concatenate(found)) >= abs(value) - 1e-12).mean())
    return Difference(value, *_ends(drawn, count), p)


def concordance_difference(
    times: ArrayLike,
    events: ArrayLike,
    one: ArrayLike,
    other: ArrayLike,
    patients: Sequence[str],
    *,
    seed: int = 0,
) -> Difference | None:
    """By how much one model's C-index is above another's on the same patients; None where no pair is comparable.

    Interval and ``p`` are as `auroc_difference` has them, patients drawn among those with the event and those without.

    Args:
        times, events: as `evaluate_survival` takes them, (n,).
        one, other: risks of the two models, (n,).
        patients: whose slide it is, (n,); of several the mean risk.
        seed: of the draws.
    """
    check_patients(patients, len(patients))
    shape = (len(patients),)
    t, e, first, second = (
        numbers(values, what, shape=shape)
        for values, what in ((times, "times"), (events, "events"), (one, "risks"), (other, "risks"))
    )
    time, event, risk = by_patient(t, e, first, patients)
    against = by_patient(t, e, second, patients)[2]
    comparable = compared(time, event, risk, slice(None))[0]
    if not comparable.any():
        return None
    everyone = np.ones(len(time), bool)
    ranks = [ranks_of(risk), ranks_of(against)]
    found = _pairs(comparable.astype(np.float64), ranks, everyone, everyone, np.arange(len(time)))
    return _difference([found], event.tolist(), seed)


def _aurocs(
    positive: NDArray[Any],
    one: Array,
    other: Array,
    patients: Sequence[str],
    seed: int,
    *,
    classes: NDArray[Any] | None = None,
) -> Difference | None:
    """The difference of two models' AUROCs, mean over K columns; None where none has slides of both kinds.

    Args:
        positive: (n, K), whether a slide is, or NaN where nobody knows.
        one, other: scores (n, K) of the two models.
        patients: whose slide it is, (n,).
        seed: of the draws.
        classes: (n,), what patients are drawn within; None: among all.
    """
    owner = owners(patients)
    found, fewest = [], []
    for column in range(positive.shape[1]):
        above, below = positive[:, column] == 1, positive[:, column] == 0
        if not (above.any() and below.any()):
            continue
        known = above | below
        ranks = [np.zeros(len(owner)) for _ in range(2)]
        for told, scores in zip(ranks, (one, other), strict=True):
            told[known] = ranks_of(scores[known, column])
        found.append(_pairs(np.ones((int(above.sum()), int(below.sum()))), ranks, above, below, owner))
        fewest.append(min(len(np.unique(owner[kind])) for kind in (above, below)))
    if not found:
        return None
    if classes is None:
        return _difference(found, [0] * (int(owner.max()) + 1), seed, few=min(fewest))
    strata = [tuple(np.unique(classes[owner == patient]).tolist()) for patient in range(owner.max() + 1)]
    return _difference(found, strata, seed)


def _pairs(
    comparable: Array,
    ranks: Sequence[Array],
    above: NDArray[np.bool_],
    below: NDArray[np.bool_],
    owner: NDArray[np.int64],
) -> _Pairs:
    one, other = ranks
    gap = _in_order(one[above], one[below]) - _in_order(other[above], other[below])
    crossed = _in_order(one[above], other[below]) - _in_order(other[above], one[below])
    return _Pairs(comparable, gap * comparable, crossed * comparable, owner[above], owner[below])


def _difference(kinds: Sequence[_Pairs], strata: Sequence[object], seed: int, *, few: int | None = None) -> Difference:
    """The mean over kinds of pairs; patients are drawn within their strata, the smallest of which has ``few``."""
    random = np.random.default_rng(seed)
    patients = len(strata)
    # exchanging the models for some patients gives the difference sum_i sign_i adds_i: of a pair of which both are
    # exchanged -gap, of which the one is -crossed, the other +crossed
    value, adds = 0.0, np.zeros(patients)
    for pairs in kinds:
        size = pairs.comparable.sum() * len(kinds)
        value += float(pairs.gap.sum() / size)
        adds += np.bincount(pairs.rows, (pairs.gap + pairs.crossed).sum(1), patients) / (2 * size)
        adds += np.bincount(pairs.columns, (pairs.gap - pairs.crossed).sum(0), patients) / (2 * size)
    if patients < 2:
        return Difference(value, None, None, None)
    weights = _drawn(strata, random)
    gaps = np.mean([_gap(pairs, weights) for pairs in kinds], axis=0)
    low, high = _ends(gaps, min(Counter(strata).values()) if few is None else few)
    signs = 1.0 - 2 * _exchanges(patients, random)
    return Difference(value, low, high, float((np.abs(signs @ adds) >= abs(adds.sum()) - 1e-12).mean()))


def _ends(gaps: Array, few: int) -> tuple[float | None, float | None]:
    """The ends of the interval by bootstrapped differences, some of which may be NaN, of so few patients; None where
    all are the same."""
    from scipy.special import ndtr, stdtrit

    gaps = gaps[np.isfinite(gaps)]
    if not len(gaps) or float(np.ptp(gaps)) <= 1e-12:
        return None, None
    tail = 0.025 if few < 2 else float(ndtr(-math.sqrt(few / (few - 1)) * stdtrit(few - 1, 0.975)))
    low, high = np.quantile(gaps, [tail, 1 - tail])
    return float(low), float(high)


def _exchanges(patients: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """For which of the patients the models are exchanged, (exchanges, patients); the first time for none."""
    if patients <= 12:
        return ((np.arange(2**patients)[:, None] >> np.arange(patients)) & 1).astype(bool)
    drawn = random.choice([-1.0, 1.0], (FLIPS, patients)) < 0
    return np.concatenate([np.zeros((1, patients), bool), drawn])


def _drawn(strata: Sequence[object], random: np.random.Generator) -> Array:
    """How often each patient is drawn, (DRAWS, patients)."""
    members: dict[object, list[int]] = {}
    for patient, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(patient)
    counts = np.ones((DRAWS, len(strata)))
    for chosen in members.values():
        n = len(chosen)
        counts[:, chosen] = random.multinomial(n, np.full(n, 1 / n), size=DRAWS)
    return counts


def _gap(pairs: _Pairs, weights: Array) -> Array:
    """The difference for each row of patients' weights (B, patients); NaN where no pair is left."""
    rows, columns = weights[:, pairs.rows], weights[:, pairs.columns]
    with np.errstate(invalid="ignore"):
        told: Array = ((rows @ pairs.gap) * columns).sum(1) / ((rows @ pairs.comparable) * columns).sum(1)
    return told


def _correlation(weights: Array, y: Array, x: Array) -> Array:
    """Pearson's r with each row of weights (B, n), of predictions (n,) or (B, n); NaN where all are the same."""
    size = weights.sum(1)

    def mean(values: Array) -> Array:
        told: Array = (weights * values).sum(1) / size
        return told

    a, b = mean(y), mean(x)
    spread = np.sqrt((mean(y * y) - a * a).clip(0) * (mean(x * x) - b * b).clip(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 1e-12, (mean(y * x) - a * b) / spread, np.nan)


def _in_order(high: Array, low: Array) -> Array:
    """Whether the one is above the other, (m, n): 1, 1/2 or 0."""
    above: Array = np.heaviside(high[:, None] - low, 0.5)
    return above
