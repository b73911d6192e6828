"""Intervals hold on few patients, whose slides count as far as they differ."""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
import pytest
import scipy.stats

from pipeline.statistics.intervals import (
    alikeness,
    auroc_by_chance,
    auroc_interval,
    concordance_interval,
    independent,
    share_interval,
)
from pipeline.statistics.ranking import ranked
from pipeline.statistics.survival import concordance


def test_a_patient_of_many_slides_counts_as_no_more_than_one():
    """Nineteen slides of one patient and one of another are worth (20^2 / 362) = 1.1 patients."""
    assert independent(np.array([0] * 19 + [1])) == pytest.approx(400 / 362)
    assert independent(np.arange(7)) == 7


def test_an_auroc_interval_ends_where_its_own_standard_error_reaches_what_was_seen():
    m, n, seen = 6, 10, 0.85
    for a in auroc_interval(seen, m, n):
        one, two = a / (2 - a), 2 * a * a / (1 + a)  # Hanley & McNeil 1982
        variance = (a * (1 - a) + (m - 1) * (one - a * a) + (n - 1) * (two - a * a)) / (m * n)
        assert abs(seen - a) == pytest.approx(1.959964 * variance**0.5, rel=1e-6)
    assert auroc_interval(1 - seen, n, m) == pytest.approx([1 - x for x in reversed(auroc_interval(seen, m, n))])


def test_chance_ranks_beyond_what_is_said_to_be_beyond_it_in_at_most_2_5_percent():
    """By the exact distribution of every pair of sizes up to 12 and 16."""

    @cache
    def orders(m, n, pairs):
        if min(m, n) == 0 or pairs < 0:
            return int(pairs == 0)
        return orders(m - 1, n, pairs - n) + orders(m, n - 1, pairs)

    for m, n in itertools.product(range(1, 13), range(1, 17)):
        limit = auroc_by_chance(m, n)
        beyond = sum(orders(m, n, pairs) for pairs in range(m * n + 1) if pairs / (m * n) > limit)
        assert beyond <= 0.025 * math.comb(m + n, m), (m, n)
    assert auroc_by_chance(4, 4) < 1 < auroc_by_chance(3, 4)


def test_a_share_interval_is_wilsons():
    for hits in (0, 3, 20):
        wilson = scipy.stats.binomtest(hits, 20).proportion_ci(method="wilson")
        assert share_interval(hits / 20, 20) == pytest.approx(tuple(wilson), abs=1e-6)


@pytest.mark.parametrize("patients", [8, 16, 32])
@pytest.mark.parametrize("auroc", [0.6, 0.8, 0.95])
def test_auroc_intervals_hold_the_truth_as_often_as_they_say(patients, auroc):
    """Two normal distributions, half of the patients positive: the stated 95 % within 2, and five standard errors."""
    half, cohorts = patients // 2, 4000
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(size=(2, cohorts, half, 1))
    seen = (positive + 2**0.5 * scipy.stats.norm.ppf(auroc) > negative.transpose(0, 2, 1)).mean((1, 2))
    values, counts = np.unique(seen.round(12), return_counts=True)
    limits = np.array([auroc_interval(value, half, half) for value in values])
    held = counts @ ((limits[:, 0] <= auroc) & (auroc <= limits[:, 1])) / cohorts
    assert abs(held - 0.95) < 0.02 + 5 * (0.95 * 0.05 / cohorts) ** 0.5


def test_of_few_patients_the_rarer_class_is_taken_to_vary_more_and_of_many_what_was_seen_counts():
    """Where positives spread, an interval is as wide as they are few; it is wider than that of the reverse."""
    unknown = np.ptp(auroc_interval(0.8, 5, 20))
    spread, close = (np.ptp(auroc_interval(0.8, 5, 20, spread=seen)) for seen in ((1.0, 0.0), (0.0, 1.0)))
    assert close < unknown < spread
    assert auroc_interval(0.8, 1, 20, spread=(0.0, 1.0)) == auroc_interval(0.8, 1, 20, spread=(1.0, 0.0))
    assert auroc_interval(0.8, 12, 12) == auroc_interval(0.8, 12, 12, spread=(1.0, 0.0))


def test_slides_of_a_patient_count_as_far_as_they_differ():
    rng = np.random.default_rng(0)
    owner, kind = np.repeat(np.arange(200), 4), np.repeat(np.arange(200) % 2, 4)
    own = rng.normal(size=200)[owner]
    assert alikeness(own, owner, kind) == 1  # they tell all the same
    told = [alikeness(r**0.5 * own + (1 - r) ** 0.5 * rng.normal(size=800), owner, kind) for r in (0.0, 0.5, 0.9)]
    assert told == pytest.approx([0, 0.5, 0.9], abs=0.1)
    assert alikeness(rng.normal(size=800), np.arange(800), kind) == 1  # nobody has two: independent() counts each once
    assert independent(owner, 0.0) == 800


@pytest.mark.parametrize("shared", [0.2, 0.7])
def test_auroc_intervals_of_several_slides_a_patient_hold_the_truth_as_often_as_they_say(shared):
    """Four slides of each of 16 patients: at least 93 %, less three standard errors, and an interval that is narrower
    than if patients counted once."""
    cohorts, rng, truth = 300, np.random.default_rng(1), 0.8
    positive = np.repeat(np.arange(16) < 8, 4)
    owner = np.repeat(np.arange(16), 4)
    held = narrower = 0
    for _ in range(cohorts):
        scores = shared**0.5 * rng.normal(size=16)[owner] + (1 - shared) ** 0.5 * rng.normal(size=64)
        found = ranked(positive, scores + positive * 2**0.5 * scipy.stats.norm.ppf(truth), owner)
        assert found is not None
        value, low, high = found.auroc
        held += low <= truth <= high
        narrower += high - low < np.ptp(auroc_interval(value, 8, 8))
    assert held / cohorts > 0.93 - 3 * (0.93 * 0.07 / cohorts) ** 0.5
    assert narrower / cohorts > (0.95 if shared < 0.5 else 0.4)


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0, 8.0])
def test_pairs_that_share_a_patient_covary_as_the_concordance_interval_takes_them_to(strength):
    """By 400 000 triples of normal risks and log times: within a tenth and three standard errors of a proportion."""
    rng = np.random.default_rng(0)
    risks = rng.normal(size=(400_000, 3))
    order = (rng.normal(size=risks.shape) - strength * risks).argsort(1)
    first, second, third = np.take_along_axis(risks, order, 1).T
    early, wide, late = first > second, first > third, second > third
    c = float(np.mean([early, wide, late]))
    shared, noise = c * c * (1 - c) / (1 + c), 3 * 0.5 / 400_000**0.5
    for both, expected in ((early & wide, shared), (wide & late, shared), (early & late, -2 * c * shared)):
        assert abs(both.mean() - c * c - expected) < 0.1 * abs(expected) + noise


@pytest.mark.parametrize("patients", [8, 16, 32])
@pytest.mark.parametrize(("strength", "censored"), [(0.5, False), (0.5, True), (3.0, True)])
def test_concordance_intervals_hold_the_truth_as_often_as_they_say(patients, strength, censored):
    """Proportional hazards, two fifths censored at most: within 4 points, and three standard errors, of 95 %."""
    rng = np.random.default_rng(2)
    cohorts = 400

    def drawn(n):
        risks = rng.normal(size=n)
        times = rng.exponential(size=n) * np.exp(-strength * risks)
        ends = rng.exponential(size=n) * 1.5 if censored else np.full(n, np.inf)
        found = concordance(np.minimum(times, ends), times <= ends, risks)
        return found if found.pairs else drawn(n)

    truth = np.mean([drawn(3000).value for _ in range(4)])
    limits = np.array([concordance_interval(*drawn(patients)) for _ in range(cohorts)])
    held = ((limits[:, 0] <= truth) & (truth <= limits[:, 1])).mean()
    assert abs(held - 0.95) < 0.04 + 3 * (0.95 * 0.05 / cohorts) ** 0.5
