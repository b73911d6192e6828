"""95 % intervals of shares, of rankings and of what a jackknife tells; patients count, not slides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054
"""Standard errors on either side of 95 % of a normal distribution."""
_EDGE = 1e-9
"""How near 0 and 1 the roots are sought: at the ends themselves every variance is zero."""

Interval = tuple[float, float]


def named(value: float | None, interval: Interval | None = None) -> dict[str, float | None]:
    """A metric as it is written: ``{"value", "low", "high"}``, None where it is undefined."""
    low, high = (None, None) if value is None or interval is None else interval
    return {"value": value, "low": low, "high": high}


def score_interval(value: float, variance: Callable[[float], float], *, most: float = 1.0) -> Interval:
    """Every number in [0, most] within 1.96 of its own standard errors of the value that was seen (Wilson 1927)."""
    from scipy.optimize import brentq

    def excess(other: float) -> float:
        return abs(other - inside) - Z * math.sqrt(max(variance(other), 0.0))

    inside = min(max(value, _EDGE * most), (1 - _EDGE) * most)
    low = 0.0 if value <= 0 or excess(0.0) <= 0 else float(brentq(excess, 0.0, inside))
    high = most if value >= most or excess(most) <= 0 else float(brentq(excess, inside, most))
    return min(low, value), max(high, value)


def share_interval(share: float, count: float) -> Interval:
    """Wilson's (1927) 95 % interval of a share of so many independent ones."""
    return score_interval(share, lambda s: s * (1 - s) / count)


def auroc_interval(
    auroc: float,
    positives: float | Sequence[float],
    negatives: float | Sequence[float],
    *,
    spread: tuple[float, float] = (0.0, 0.0),
) -> Interval:
    """The 95 % score interval of an AUROC: see `auroc_variance`.

    It holds every A with ``|auroc - A| <= 1.96 sqrt(V(A))``, taken at A, not at the AUROC that was seen, so that a
    perfect score has an interval too (as in Newcombe's method 5, 2006).
    """
    return score_interval(auroc, lambda a: auroc_variance(a, positives, negatives, spread=spread))


def auroc_variance(
    auroc: float,
    positives: float | Sequence[float],
    negatives: float | Sequence[float],
    *,
    spread: tuple[float, float] = (0.0, 0.0),
) -> float:
    """The variance of the AUROC of so many positive and negative patients, where the true one is A.

    ``V(A) = (A (1 - A) + (n - 1) C_m + (m - 1) C_n) / (m n)`` is Hanley & McNeil's (1982), ``C_m`` the covariance of
    two pairs that share a positive, ``C_n`` a negative. Their sum is theirs, ``A / (2 - A) + 2 A^2 / (1 + A) - 2 A^2``.
    Of few patients the rarer class is given the larger part of it; the more patients that class has, k, the more counts
    what was seen: ``(k - 1) / (k + 1)``.

    Args:
        auroc: A.
        positives, negatives: m and n, how many independent patients (`independent`) these are worth; sequences where
            only pairs within a group count, such as a fold's: of each group.
        spread: variances of the positive and of the negative patients' placements (DeLong 1988), which say whose
            covariance is the larger; zeros, as of a perfect score, say nothing.
    """
    m, n = np.atleast_1d(np.asarray(positives, float)), np.atleast_1d(np.asarray(negatives, float))
    all_m, all_n, known = float(m.sum()), float(n.sum()), sum(spread) > 0
    one = auroc / (2 - auroc) - auroc * auroc
    other = 2 * auroc * auroc / (1 + auroc) - auroc * auroc
    both = one + other
    rarer = max(one, other) / both if both > 0 else 0.5
    share = 0.5 if all_m == all_n else rarer if all_m < all_n else 1 - rarer
    if known:
        few = min(all_m, all_n)
        trust = max(few - 1, 0) / (few + 1)
        share = trust * spread[0] / sum(spread) + (1 - trust) * share
    shared = (n - 1).clip(0) * share + (m - 1).clip(0) * (1 - share)
    return float((m * n * (auroc * (1 - auroc) + shared * both)).sum() / (m * n).sum() ** 2)


def auroc_by_chance(positives: float, negatives: float) -> float:
    """The AUROC that ranking so many patients by lot exceeds in at most 2.5 % of cases; above 1: none is beyond it.

    ``1/2 + 1 / (2 m n) + 1.96 sqrt((m + n + 1) / (12 m n))``: Mann & Whitney's (1947) with the continuity correction,
    without which three patients against three, of whom lot ranks one order in 20 perfectly, would seem to be enough.
    """
    m, n = positives, negatives
    return 0.5 + 0.5 / (m * n) + Z * math.sqrt((m + n + 1) / (12 * m * n))


def concordance_interval(
    earlier: NDArray[np.float64], later: NDArray[np.float64], ordered: NDArray[np.float64], *, times: float = 1.0
) -> Interval:
    """The 95 % score interval of a C-index.

    It holds every C whose own standard errors, times 1.96, reach what was seen, with the variance
    ``V(C) = (N C (1 - C) + 2 K(C) (S - 2 C H)) / N^2``, ``K(C) = C^2 (1 - C) / (1 + C)``: N pairs, of which S pairs of
    pairs share the patient who has the event first in both, or is without it for longer in both, with the covariance K
    of Hanley & McNeil (1982), and H share one who is the first in the one and the other in the other, with ``-2 C K``.
    That last one is ours: exact at C = 1/2 (Kendall 1938: -1/12), and within a tenth of what normal scores and log
    times have.

    So it is for few patients. The more of them, d, are in a pair that is out of order, the more counts the
    infinitesimal jackknife's variance (Efron 1982): V is multiplied by its ratio to V at what was seen, which has the
    weight ``(d - 2) / (d + 2)`` beside 1.

    Args:
        earlier, later: of each patient, in how many comparable pairs they have the event first, or are the other, (n,).
        ordered: how many of these pairs are in order, (n,), half for equal risks.
        times: as if there were so many times the patients, each in so many times the pairs.
    """
    count, pairs = len(earlier), float(earlier.sum())
    value = float(ordered.sum()) / 2 / pairs

    def model(c: float, k: float = 1.0) -> float:
        first, second, every = k * earlier, k * later, k * k * pairs
        same = k * float((first * (first - 1) + second * (second - 1)).sum()) / 2
        chained = k * float((first * second).sum())
        shared = c * c * (1 - c) / (1 + c)
        return (every * c * (1 - c) + 2 * shared * max(same - 2 * c * chained, 0.0)) / every**2

    inside = min(max(value, 0.5 / pairs), 1 - 0.5 / pairs)
    adds = ordered - value * (earlier + later)
    seen = float((adds**2).sum()) / pairs**2 * count / max(count - 1, 1)
    out = max(int((ordered < earlier + later).sum()) - 2, 0)
    trust = out / (out + 4)
    expected = model(inside)
    ratio = trust * min(max(seen / expected, 0.2), 3.0) + 1 - trust if expected > 0 else 1.0
    return score_interval(value, lambda c: ratio * model(c, times))


def independent(owner: NDArray[np.int64], alike: float = 1.0) -> float:
    """How many independent patients so many slides of each are worth: ``(sum m)^2 / sum m (1 + (m - 1) r)``.

    Args:
        owner: whose slide each is, (n,); a patient has m of them.
        alike: r, the correlation of a patient's slides; 1: they tell all the same (Kish 1965).
    """
    counts = np.bincount(owner)
    return float(counts.sum() ** 2 / (counts * (1 + (counts - 1) * alike)).sum())


def alikeness(scores: NDArray[np.float64], owner: NDArray[np.int64], kind: NDArray[Any]) -> float:
    """How alike the slides of a patient are scored among those of their class: an intraclass correlation of ranks.

    ``(F - 1) / (F + m - 1)`` of the one-way analysis of variance of the ranks within each class (Fisher 1925), F
    enlarged by ``(t / 1.96)^2``, t the 97.5 % quantile of as many degrees of freedom as there are patients to tell by,
    so that few are not taken to differ by luck; 1 where there are none, or no patient has two slides.
    """
    from scipy.special import stdtrit

    between = within = m0 = 0.0
    between_df = within_df = 0
    for one in np.unique(kind):
        members = kind == one
        count = int(members.sum())
        ranks = ranks_of(scores[members]) / count
        people, whose = np.unique(owner[members], return_inverse=True)
        slides = np.bincount(whose)
        means = np.bincount(whose, ranks) / slides
        between += float((slides * (means - ranks.mean()) ** 2).sum())
        within += float(((ranks - means[whose]) ** 2).sum())
        between_df += len(people) - 1
        within_df += count - len(people)
        m0 += count - float((slides**2).sum()) / count
    if between_df < 1 or within_df < 1 or within <= 0:
        return 1.0
    ratio = between / between_df / (within / within_df) * (float(stdtrit(between_df, 0.975)) / Z) ** 2
    return float(np.clip((ratio - 1) / (ratio + m0 / between_df - 1), 0, 1))


def ranks_of(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1, (n,); those that are equal share the mean of theirs."""
    ordered = np.sort(values)
    both = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    ranks: NDArray[np.float64] = (both + 1) / 2
    return ranks


def jackknife_error(statistic: Callable[[NDArray[np.bool_]], float], owner: NDArray[np.int64]) -> float:
    """The standard error of a statistic by leaving out a patient at a time (Tukey 1958).

    Args:
        statistic: of the slides that a mask (n,) keeps; where it is NaN without a patient, that one is not counted.
        owner: whose slide each is, (n,), 0 to P - 1.
    """
    patients = int(owner.max()) + 1
    without = np.array([statistic(owner != patient) for patient in range(patients)])
    without = without[np.isfinite(without)]
    if len(without) < 2:
        return 0.0
    return math.sqrt((len(without) - 1) / len(without) * float(((without - without.mean()) ** 2).sum()))


def transformed_interval(
    value: float,
    statistic: Callable[[NDArray[np.bool_]], float],
    owner: NDArray[np.int64],
    *,
    forth: Callable[[float], float],
    back: Callable[[float], float],
    normal_error: float,
    student: bool,
) -> Interval | None:
    """A 95 % interval on the scale where a statistic is nearly normal; None of fewer than two patients.

    Its standard error is the larger of two: the patients' jackknife, which is short where few patients happen to be
    alike, and that of normal data, which is short where tails are heavy.

    Args:
        value: what was seen.
        statistic: as `jackknife_error` takes it, on the scale of ``value``.
        owner: whose slide each is, (n,), 0 to P - 1.
        forth, back: to the scale and from it; monotone.
        normal_error: standard error on that scale of so many independent patients, were the data normal.
        student: whether to take the t quantile of P - 1 degrees of freedom, not 1.96.
    """
    from scipy.special import stdtrit

    patients = int(owner.max()) + 1
    if patients < 2 or not math.isfinite(normal_error):
        return None
    error = max(jackknife_error(lambda kept: forth(statistic(kept)), owner), normal_error)
    half = error * (float(stdtrit(patients - 1, 0.975)) if student else Z)
    ends = sorted((back(forth(value) - half), back(forth(value) + half)))
    return min(ends[0], value), max(ends[1], value)
