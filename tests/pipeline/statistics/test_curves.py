"""Curves are what scikit-learn's are, and their definitions."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sklearn.metrics as sk
from sklearn.calibration import calibration_curve

from pipeline.statistics.curves import (
    POINTS,
    by_risk,
    curves,
    decision,
    precision_recall,
    reliability,
    roc,
    survival_curve,
)


def cohort(n: int, *, seed: int = 0, digits: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3 == 0
    return y, (1 / (1 + np.exp(-rng.normal(size=n) - 1.5 * y))).round(digits)


def test_roc_and_precision_recall_are_scikit_learns() -> None:
    y, p = cohort(60)
    found = roc(y, p)
    x, z, thresholds = sk.roc_curve(y, p, drop_intermediate=False)
    assert found["false_positive_rate"] == pytest.approx(x)
    assert found["sensitivity"] == pytest.approx(z)
    assert found["threshold"][1:] == pytest.approx(thresholds[1:])
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(y, p))
    precision, recall, _ = sk.precision_recall_curve(y, p)
    told = precision_recall(y, p)
    at = len(told["recall"])
    assert told["recall"] == pytest.approx(recall[::-1][:at])
    assert told["precision"] == pytest.approx(precision[::-1][:at])


def test_a_curve_of_many_slides_has_few_points_that_lie_on_it() -> None:
    y, p = cohort(3000, digits=9)
    found, whole = roc(y, p), sk.roc_curve(y, p, drop_intermediate=False)
    assert len(found["sensitivity"]) <= POINTS
    points = set(zip(whole[0].round(9), whole[1].round(9), strict=True))
    kept = list(zip(np.round(found["false_positive_rate"], 9), np.round(found["sensitivity"], 9), strict=True))
    assert set(kept) <= points
    assert (kept[0], kept[-1]) == ((0, 0), (1, 1))
    assert np.trapezoid(found["sensitivity"], found["false_positive_rate"]) == pytest.approx(found["auroc"], abs=0.005)


def test_reliability_tells_of_each_bin_how_many_slides_it_has() -> None:
    y, p = cohort(90, digits=9)
    found = reliability(y, p, np.arange(90))
    share, mean = calibration_curve(y, p, n_bins=10)
    assert [one["share"] for one in found["bins"]] == pytest.approx(share)
    assert [one["probability"] for one in found["bins"]] == pytest.approx(mean)
    assert sum(one["slides"] for one in found["bins"]) == 90
    assert all(one["low"] <= one["share"] <= one["high"] for one in found["bins"])
    assert found["brier"] == pytest.approx(sk.brier_score_loss(y, p))
    alone, together = (reliability(y, p, owner)["bins"][3] for owner in (np.arange(90), np.zeros(90, np.int64)))
    assert together["patients"] == 1
    assert together["high"] - together["low"] > alone["high"] - alone["low"]


def test_net_benefit_weighs_false_alarms_by_the_odds_of_the_threshold() -> None:
    y, p = cohort(60)
    found = decision(y, p)
    at = found["threshold"].index(0.25)
    called = p >= 0.25
    assert found["net_benefit"][at] == pytest.approx((y & called).mean() - (~y & called).mean() / 3)
    assert found["act_on_all"][at] == pytest.approx(y.mean() - (~y).mean() / 3)
    assert found["net_benefit"][0] == pytest.approx(found["act_on_all"][0], abs=0.02)


def test_of_two_classes_the_last_has_curves_and_of_more_each_that_occurs() -> None:
    y, p = cohort(30)
    both = np.stack([1 - p, p], 1)
    two = curves(y.astype(int), both, np.arange(30), ("a", "value"))
    assert list(two["of"]) == ["value"]
    assert two["confusion"]["counts"] == sk.confusion_matrix(y, both.argmax(1)).tolist()
    three = curves(y.astype(int), np.concatenate([both, 0 * both[:, :1]], 1), np.arange(30), ("a", "b", "c"))
    assert list(three["of"]) == ["a", "b"]
    json.dumps([two, three], allow_nan=False)
    assert curves(np.ones(3, int), both[:3], np.arange(3), ("a", "b"))["of"] == {}


def test_a_survival_curve_falls_at_events_by_those_at_risk() -> None:
    """Of five, one dies at 1, one is lost at 2, one dies at 3: 4/5, then 4/5 * 2/3."""
    found = survival_curve(np.array([1.0, 2, 3, 4, 5]), np.array([True, False, True, False, False]))
    assert found["time"] == [0, 1, 3, 5]
    assert found["share"] == pytest.approx([1, 0.8, 0.8 * 2 / 3, 0.8 * 2 / 3])
    halves = by_risk(np.array([1.0, 2, 3, 4]), np.ones(4, bool), np.array([4.0, 3, 2, 1]))
    assert (halves["higher"]["time"][-1], halves["lower"]["time"][-1]) == (2, 4)
    assert by_risk(np.array([1.0, 2]), np.ones(2, bool), np.ones(2))["higher"] is None
