"""Thresholds are chosen on some slides and judged on others."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.statistics.thresholds import at_threshold, choose_threshold, cross_fitted

Y = np.array([False, False, False, False, True, True, True, True])
P = np.array([0.1, 0.2, 0.4, 0.6, 0.3, 0.7, 0.8, 0.9])


def test_youdens_is_halfway_between_the_scores_where_sensitivity_and_specificity_are_best() -> None:
    found = choose_threshold(Y, P)
    assert found is not None
    assert (found.value, found.sensitivity, found.specificity) == (pytest.approx(0.65), 0.75, 1.0)


def test_a_stated_sensitivity_is_reached_at_the_highest_threshold() -> None:
    found = choose_threshold(Y, P, sensitivity=0.95)
    assert found is not None
    assert (found.value, found.sensitivity, found.specificity) == (pytest.approx(0.25), 1.0, 0.5)
    half = choose_threshold(Y, P, sensitivity=0.5)
    assert half is not None
    assert half.value == pytest.approx(0.75)
    with pytest.raises(ValueError, match="above 0, 1 at most, found 95"):
        choose_threshold(Y, P, sensitivity=95)


def test_of_one_class_there_is_none() -> None:
    assert choose_threshold(Y[:4], P[:4]) is None
    assert cross_fitted(Y, P, np.arange(8), [0, 0, 0, 0, 1, 1, 1, 1]) is None


def test_at_a_threshold_shares_are_counted_with_intervals_over_patients() -> None:
    found = at_threshold(Y, P, np.arange(8), 0.65)
    assert found["sensitivity"]["value"] == 0.75
    assert found["specificity"]["value"] == found["positive_predictive_value"]["value"] == 1
    assert found["negative_predictive_value"]["value"] == 0.8
    assert found["specificity"]["low"] == pytest.approx(0.5101, abs=1e-4)  # Wilson's of 4 of 4
    none = at_threshold(Y, P, np.arange(8), 2.0)
    assert none["positive_predictive_value"] == {"value": None, "low": None, "high": None}
    assert at_threshold(Y, P, np.zeros(8, np.int64), 0.5)["sensitivity"]["low"] is None


def test_no_slide_is_judged_by_a_threshold_that_it_was_chosen_with() -> None:
    folds = [0, 1, 0, 1, 0, 1, 0, 1]
    found = cross_fitted(Y, P, np.arange(8), folds)
    assert found is not None
    for fold in (0, 1):
        others = choose_threshold(Y[1 - fold :: 2], P[1 - fold :: 2])
        assert others is not None
        assert found[fold::2].tolist() == [others.value] * 4


def test_scores_of_other_repeats_do_not_choose_the_threshold_that_their_patient_is_judged_by() -> None:
    """Scores that know nothing: were a patient's score of another repeat among those that choose, as it is where every
    other fold's are, sensitivity + specificity would be above that of chance, 1."""
    sums = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        positive = rng.permutation(np.arange(24) % 2 == 0)
        scores = rng.random(24)[:, None] + 0.02 * rng.random((24, 3))  # the three repeats differ little
        folds = np.stack([3 * repeat + rng.permutation(np.arange(24) % 3) for repeat in range(3)], 1)
        told = np.repeat(positive, 3), scores.ravel(), np.repeat(np.arange(24), 3)
        each = cross_fitted(*told, folds.ravel().tolist())
        assert each is not None
        own = scores.copy()
        own[0] = 5 - own[0]  # another score of one patient in all repeats moves no threshold of his
        moved = cross_fitted(told[0], own.ravel(), told[2], folds.ravel().tolist())
        assert moved is not None
        assert (moved[:3] == each[:3]).all()
        found = at_threshold(*told, each)
        sums.append(found["sensitivity"]["value"] + found["specificity"]["value"])
    assert np.mean(sums) < 1 + 2 * np.std(sums) / len(sums) ** 0.5
