"""Two models on the same patients: how far their AUROCs or C-indices differ, with an interval and a test."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.statistics.groups import check_patients, numbers, owners
from pipeline.statistics.intervals import ranks_of
from pipeline.statistics.survival import by_patient, compared

DRAWS = 2000
"""Bootstrap samples of the patients."""
FLIPS = 4095
"""Random exchanges of the models for some of the patients; of up to 12 patients all there are."""

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
    present = np.unique(y)
    if len(present) < 2:
        return None
    both = [np.asarray(p, np.float64) for p in (one, other)]
    owner = owners(patients)
    kinds = present if both[0].shape[1] > 2 else present[1:]
    found = []
    for c in kinds:
        positive = y == c
        ranks = [ranks_of(p[:, c]) for p in both]
        all_of_them = np.ones((int(positive.sum()), int((~positive).sum())))
        found.append(_pairs(all_of_them, ranks, positive, ~positive, owner))
    classes = [tuple(np.unique(y[owner == patient]).tolist()) for patient in range(owner.max() + 1)]
    return _difference(found, classes, seed)


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


def _difference(kinds: Sequence[_Pairs], strata: Sequence[object], seed: int) -> Difference:
    """The mean over kinds of pairs; patients are drawn within their strata."""
    from scipy.special import ndtr, stdtrit

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
    gaps = gaps[np.isfinite(gaps)]
    few = min(n for n in Counter(strata).values())
    tail = 0.025 if few < 2 else float(ndtr(-math.sqrt(few / (few - 1)) * stdtrit(few - 1, 0.975)))
    low, high = np.quantile(gaps, [tail, 1 - tail])
    told = float(np.ptp(gaps)) > 1e-12
    return Difference(value, float(low) if told else None, float(high) if told else None, _flipped(adds, random))


def _flipped(adds: Array, random: np.random.Generator) -> float:
    """The share of signs of the patients with which the sum is as far from 0 as it is with none exchanged."""
    count = len(adds)
    if count <= 12:
        signs = 1.0 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
    else:
        signs = np.concatenate([np.ones((1, count)), random.choice([-1.0, 1.0], (FLIPS, count))])
    return float((np.abs(signs @ adds) >= abs(adds.sum()) - 1e-12).mean())


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


def _in_order(high: Array, low: Array) -> Array:
    """Whether the one is above the other, (m, n): 1, 1/2 or 0."""
    above: Array = np.heaviside(high[:, None] - low, 0.5)
    return above
