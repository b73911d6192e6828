"""Grades: metrics equal scikit-learn's, intervals hold."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import cohen_kappa_score, mean_absolute_error, roc_auc_score

from pipeline.statistics.ordinal import evaluate_ordinal, quadratic_kappa

GRADES = ("G1", "G2", "G3", "G4")


def cohort(n: int, rng: np.random.Generator, noise: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    y = rng.permutation(np.arange(n) % 4)
    p = np.exp(-((np.arange(4) - y[:, None] - noise * rng.normal(size=(n, 1))) ** 2))
    return y, p / p.sum(1, keepdims=True)


def test_scores_equal_scikit_learns() -> None:
    y, p = cohort(60, np.random.default_rng(0))
    found = evaluate_ordinal(y, p, [str(i) for i in range(60)], GRADES)
    assert found["kappa"]["value"] == pytest.approx(cohen_kappa_score(y, p.argmax(1), weights="quadratic"))
    assert found["mae"]["value"] == pytest.approx(mean_absolute_error(y, p.argmax(1)))
    each = [roc_auc_score(y >= k, p[:, k:].sum(1)) for k in (1, 2, 3)]
    assert [found["thresholds"][name]["value"] for name in GRADES[1:]] == pytest.approx(each)
    assert found["auroc"]["value"] == pytest.approx(np.mean(each))


def test_the_interval_of_a_mean_distance_is_wilsons_where_none_is_off_by_two() -> None:
    y = np.arange(20) % 4
    x = np.where(np.arange(20) < 5, np.abs(y - 1), y)  # five off by one
    found = evaluate_ordinal(y, np.eye(4)[x], [str(i) for i in range(20)], GRADES)["mae"]
    wilson = scipy.stats.binomtest(5, 20).proportion_ci(method="wilson")
    assert (found["low"], found["high"]) == pytest.approx(tuple(wilson), abs=1e-6)


def test_intervals_of_kappa_hold_the_truth_as_often_as_they_say() -> None:
    """Of 16 patients at least 93 %, less three standard errors."""
    rng, cohorts, patients = np.random.default_rng(1), 250, 16
    large, p = cohort(40_000, rng)
    truth = quadratic_kappa(large, p.argmax(1))
    held = 0
    for _ in range(cohorts):
        chosen = rng.integers(0, 40_000, patients)
        found = evaluate_ordinal(large[chosen], p[chosen], [str(i) for i in range(patients)], GRADES)["kappa"]
        held += found["low"] is not None and found["low"] <= truth <= found["high"]
    assert held / cohorts > 0.93 - 3 * (0.93 * 0.07 / cohorts) ** 0.5


def test_perfect_agreement_of_few_leaves_room_for_as_many_errors_as_there_may_be() -> None:
    y = np.array([0, 1, 2, 3] * 2)
    found = evaluate_ordinal(y, np.eye(4)[y], [str(i) for i in range(8)], GRADES)
    assert found["kappa"]["value"] == found["kappa"]["high"] == 1
    assert found["kappa"]["low"] == pytest.approx(1 - found["mae"]["high"] / (2 * y.var()))


def test_one_grade_or_one_patient_gives_nulls_and_never_nan() -> None:
    same = evaluate_ordinal([1, 1, 1], np.eye(4)[[1, 1, 1]], list("abc"), GRADES)
    assert same["kappa"]["value"] is None
    assert same["auroc"]["value"] is None
    one = evaluate_ordinal([0, 1, 2], np.eye(4)[[0, 1, 1]], ["a"] * 3, GRADES)
    assert one["mae"] == {"value": pytest.approx(1 / 3), "low": None, "high": None}
    assert one["kappa"]["low"] is None
    json.dumps([same, one], allow_nan=False)


@pytest.mark.parametrize(
    ("grades", "message"),
    [([4], "grade 4 is not a whole number from 0 to 3"), ([0.5], "grade 0.5 is not"), ([np.nan], "found nan in row 0")],
)
def test_what_is_no_grade_is_refused(grades, message) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_ordinal(grades, [[1, 0, 0, 0]], ["a"], GRADES)
