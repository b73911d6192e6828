"""Numbers: metrics equal the libraries', intervals hold, patients count."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as sk

from pipeline.statistics.regression import evaluate_regression

METRICS = ("mae", "rmse", "r2", "pearson", "spearman")


def test_scores_equal_the_libraries() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=50).round(1)
    x = (y + rng.normal(size=50)).round(1)  # rounded: ties
    found = evaluate_regression(y, x, [str(i) for i in range(50)])
    expected = (
        sk.mean_absolute_error(y, x),
        sk.root_mean_squared_error(y, x),
        sk.r2_score(y, x),
        scipy.stats.pearsonr(y, x).statistic,
        scipy.stats.spearmanr(y, x).statistic,
    )
    assert [found[name]["value"] for name in METRICS] == pytest.approx(expected)


@pytest.mark.parametrize("patients", [8, 16, 32])
def test_intervals_hold_the_truth_as_often_as_they_say(patients: int) -> None:
    """Normal errors, half the variance explained: 95 % within 3 points and three standard errors, of R^2 within 6."""
    rng, cohorts = np.random.default_rng(1), 400
    rho = 2**-0.5
    truth = (np.sqrt(2 / np.pi), 1.0, 0.5, rho, 6 / np.pi * np.arcsin(rho / 2))
    held = np.zeros(5)
    for _ in range(cohorts):
        x = rng.normal(size=patients)
        found = evaluate_regression(x + rng.normal(size=patients), x, [str(i) for i in range(patients)])
        held += [found[name]["low"] <= true <= found[name]["high"] for name, true in zip(METRICS, truth, strict=True)]
    slack = np.array([0.03, 0.03, 0.06, 0.03, 0.03]) + 3 * (0.95 * 0.05 / cohorts) ** 0.5
    assert (abs(held / cohorts - 0.95) < slack).all(), held / cohorts


def test_more_slides_of_the_same_patients_do_not_narrow_intervals() -> None:
    rng = np.random.default_rng(2)
    y = rng.normal(size=20)
    x, people = y + rng.normal(size=20), [str(i) for i in range(20)]
    once, ninefold = evaluate_regression(y, x, people), evaluate_regression(np.tile(y, 9), np.tile(x, 9), people * 9)
    for name in METRICS:
        assert ninefold[name] == pytest.approx(once[name], rel=1e-6), name


def test_what_is_undefined_is_none_and_never_nan() -> None:
    same = evaluate_regression([2, 2, 2], [1, 2, 3], list("abc"), sites=["N", "N", None])
    assert [same[name]["value"] for name in METRICS[2:]] == [None] * 3
    exact = evaluate_regression([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], list("abcde"))
    assert exact["mae"] == {"value": 0, "low": None, "high": None}
    assert exact["spearman"]["low"] < 1
    few = evaluate_regression([1, 2, 3], [3, 2, 4], list("abc"))
    assert few["pearson"]["value"] is not None
    assert few["pearson"]["low"] is None
    json.dumps([same, exact, few, evaluate_regression([1], [2], ["a"])], allow_nan=False)


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="predictions: expected finite numbers, found nan in row 1"):
        evaluate_regression([1, 2], [1, np.nan], ["a", "b"])
