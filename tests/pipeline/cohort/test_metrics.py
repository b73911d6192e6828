"""Metrics equal scikit-learn's, and their intervals come from patients."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sklearn.metrics as sk

from pipeline.cohort import metrics
from pipeline.cohort.metrics import METRICS, evaluate


def cohort(n: int, classes: int, *, seed: int, slides_per_patient: int = 2, strength: float = 1.0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % classes)
    logits = rng.normal(size=(n, classes)) + strength * np.eye(classes)[y]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    names = [f"c{i}" for i in range(classes)]
    return [names[i] for i in y], p, [f"P{i // slides_per_patient}" for i in range(n)], names, y


@pytest.mark.parametrize("round_to", [None, 1])
def test_binary_scores_equal_scikit_learns_also_with_ties(round_to):
    labels, p, patients, names, y = cohort(60, 2, seed=0)
    if round_to is not None:
        first = p[:, 1].round(round_to)
        p = np.stack([1 - first, first], 1)
    found = evaluate(labels, p, patients, names, resamples=10)
    predicted = p.argmax(1)
    assert found["auroc"]["value"] == pytest.approx(sk.roc_auc_score(y, p[:, 1]), abs=1e-6)
    assert found["auprc"]["value"] == pytest.approx(sk.average_precision_score(y, p[:, 1]), abs=1e-6)
    assert found["f1"]["value"] == pytest.approx(sk.f1_score(y, predicted), abs=1e-6)
    assert found["balanced_accuracy"]["value"] == pytest.approx(sk.balanced_accuracy_score(y, predicted), abs=1e-6)


def test_more_classes_are_macro_averages_one_against_the_rest():
    labels, p, patients, names, y = cohort(90, 4, seed=1)
    found = evaluate(labels, p, patients, names, resamples=10)
    each = np.eye(4, dtype=int)[y]
    assert found["auroc"]["value"] == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr"), abs=1e-6)
    assert found["auprc"]["value"] == pytest.approx(sk.average_precision_score(each, p), abs=1e-6)
    assert found["f1"]["value"] == pytest.approx(sk.f1_score(y, p.argmax(1), average="macro"), abs=1e-6)
    assert found["balanced_accuracy"]["value"] == pytest.approx(sk.balanced_accuracy_score(y, p.argmax(1)), abs=1e-6)
    assert found["slides_per_class"] == {"c0": 23, "c1": 23, "c2": 22, "c3": 22}


def test_intervals_hold_the_value_and_follow_the_seed():
    labels, p, patients, names, _ = cohort(80, 2, seed=2)
    found = evaluate(labels, p, patients, names, resamples=200, seed=5)
    for name in METRICS:
        assert 0 <= found[name]["low"] < found[name]["value"] < found[name]["high"] <= 1, name
    assert evaluate(labels, p, patients, names, resamples=200, seed=5) == found
    assert evaluate(labels, p, patients, names, resamples=200, seed=6) != found


def test_slides_of_a_patient_are_drawn_together():
    """Repeating every slide nine times adds no patients, so it may not narrow the interval."""
    labels, p, _, names, _ = cohort(40, 2, seed=3)
    one = evaluate(labels, p, [f"P{i}" for i in range(40)], names, resamples=500)
    nine = evaluate(labels * 9, np.tile(p, (9, 1)), [f"P{i}" for i in range(40)] * 9, names, resamples=500)
    alone = evaluate(labels * 9, np.tile(p, (9, 1)), [f"P{i}" for i in range(360)], names, resamples=500)

    def width(found):
        return found["auroc"]["high"] - found["auroc"]["low"]

    assert width(nine) == pytest.approx(width(one), abs=1e-5)  # the same draws of the same patients
    assert width(alone) < 0.6 * width(one)  # 1/3 if they were independent


def test_bootstrap_agrees_with_a_plain_loop():
    labels, p, patients, names, y = cohort(30, 2, seed=4)
    found = evaluate(labels, p, patients, names, resamples=100, seed=9)
    rng, people = np.random.default_rng(9), sorted(set(patients))
    scores = []
    for _ in range(100):
        drawn = [people[i] for i in rng.integers(len(people), size=len(people))]
        index = [i for patient in drawn for i in range(30) if patients[i] == patient]
        if len(set(y[index])) == 2:
            scores.append(sk.roc_auc_score(y[index], p[index, 1]))
    low, high = np.quantile(scores, [0.025, 0.975])
    assert (found["auroc"]["low"], found["auroc"]["high"]) == pytest.approx((low, high), abs=1e-6)


def test_draws_that_lost_a_class_are_left_out_and_counted():
    labels = ["a"] * 5 + ["b"]
    p = np.linspace(0.1, 0.9, 6)
    found = evaluate(labels, np.stack([1 - p, p], 1), [str(i) for i in range(6)], ["a", "b"], resamples=400)
    share = (5 / 6) ** 6  # all six draws miss the only "b"
    assert found["degenerate_resamples"] / 400 == pytest.approx(share, abs=4 * (share * (1 - share) / 400) ** 0.5)
    assert found["auroc"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_a_single_class_gives_nulls_and_never_nan():
    found = evaluate(["b", "b"], [[0.4, 0.6], [0.7, 0.3]], ["1", "2"], ["a", "b"], resamples=20)
    assert [found[name]["value"] for name in METRICS] == [None, None, None, 0.5]
    assert [found[name]["low"] for name in METRICS] == [None, None, None, 0.0]
    json.dumps(found, allow_nan=False)


def test_a_class_that_does_not_occur_is_left_out_of_the_average():
    labels, p, patients, names, y = cohort(40, 2, seed=6)
    wide = np.concatenate([p * 0.9, np.full((40, 1), 0.1)], 1)
    found = evaluate(labels, wide, patients, [*names, "c2"], resamples=10)
    expected = np.mean([sk.roc_auc_score(y == c, wide[:, c]) for c in (0, 1)])
    assert found["auroc"]["value"] == pytest.approx(expected, abs=1e-6)
    assert found["slides_per_class"]["c2"] == 0


def test_one_patient_has_values_but_no_intervals():
    found = evaluate(["a", "b"], [[0.9, 0.1], [0.2, 0.8]], ["P", "P"], ["a", "b"])
    assert found["auroc"] == {"value": 1.0, "low": None, "high": None}


@pytest.mark.parametrize(
    ("labels", "p", "patients", "message"),
    [
        (["a", "x"], [[1, 0], [0, 1]], ["1", "2"], "label 'x' is not among the classes a, b"),
        (["a", "b"], [[1, 0]], ["1", "2"], r"expected probabilities of shape \(2, 2\)"),
        (["a", "b"], [[1, 0], [0, 1]], ["1"], "found .* and 1"),
        (["a", "b"], [[1, 0], [float("nan"), 1]], ["1", "2"], r"numbers in \[0, 1\]"),
        (["a", "b"], [[1, 0], [-0.1, 1.1]], ["1", "2"], r"numbers in \[0, 1\]"),
        ([], np.zeros((0, 2)), [], "one at least"),
    ],
)
def test_what_cannot_be_scored_is_refused(labels, p, patients, message):
    with pytest.raises(ValueError, match=message):
        evaluate(labels, p, patients, ["a", "b"])


def test_each_draw_is_scored_once(monkeypatch):
    """What a thousand draws cost is in benchmarks/startup.py."""
    scored = []
    scores = metrics._scores
    monkeypatch.setattr(metrics, "_scores", lambda *args: scored.append(args) or scores(*args))
    labels, p, patients, names, _ = cohort(6, 2, seed=7, slides_per_patient=1)
    found = evaluate(labels, p, patients, names, resamples=50)
    assert found["degenerate_resamples"] > 0
    assert len(scored) == 1 + 50 - found["degenerate_resamples"]
