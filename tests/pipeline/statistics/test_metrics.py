"""Metrics equal scikit-learn's, and their intervals hold on few patients."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sklearn.metrics as sk

from pipeline.statistics.groups import NO_SITE
from pipeline.statistics.metrics import METRICS, evaluate, in_words


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
    found = evaluate(labels, p, patients, names)
    predicted = p.argmax(1)
    assert found["auroc"]["value"] == pytest.approx(sk.roc_auc_score(y, p[:, 1]), abs=1e-6)
    assert found["auprc"]["value"] == pytest.approx(sk.average_precision_score(y, p[:, 1]), abs=1e-6)
    assert found["f1"]["value"] == pytest.approx(sk.f1_score(y, predicted), abs=1e-6)
    assert found["balanced_accuracy"]["value"] == pytest.approx(sk.balanced_accuracy_score(y, predicted), abs=1e-6)


def test_more_classes_are_macro_averages_one_against_the_rest():
    labels, p, patients, names, y = cohort(90, 4, seed=1)
    found = evaluate(labels, p, patients, names)
    each = np.eye(4, dtype=int)[y]
    assert found["auroc"]["value"] == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr"), abs=1e-6)
    assert found["auprc"]["value"] == pytest.approx(sk.average_precision_score(each, p), abs=1e-6)
    assert found["f1"]["value"] == pytest.approx(sk.f1_score(y, p.argmax(1), average="macro"), abs=1e-6)
    assert found["balanced_accuracy"]["value"] == pytest.approx(sk.balanced_accuracy_score(y, p.argmax(1)), abs=1e-6)
    assert found["slides_per_class"] == {"c0": 23, "c1": 23, "c2": 22, "c3": 22}


def test_intervals_hold_the_value_and_stay_within_0_and_1():
    labels, p, patients, names, _ = cohort(80, 2, seed=2)
    found = evaluate(labels, p, patients, names)
    for name in METRICS:
        assert 0 <= found[name]["low"] < found[name]["value"] < found[name]["high"] <= 1, name


def test_more_slides_of_the_same_patients_do_not_narrow_intervals():
    """Repeating every slide nine times adds no patients; as many patients of their own would."""
    labels, p, _, names, _ = cohort(40, 2, seed=3)
    one = evaluate(labels, p, [f"P{i}" for i in range(40)], names)
    nine = evaluate(labels * 9, np.tile(p, (9, 1)), [f"P{i}" for i in range(40)] * 9, names)
    alone = evaluate(labels * 9, np.tile(p, (9, 1)), [f"P{i}" for i in range(360)], names)
    for name in ("auroc", "f1", "balanced_accuracy"):
        width, same, narrower = (found[name]["high"] - found[name]["low"] for found in (one, nine, alone))
        assert same == pytest.approx(width, abs=1e-5), name
        assert narrower < 0.5 * width, name  # about 1/3


def test_a_perfect_score_has_intervals_that_say_how_little_four_patients_tell():
    labels = ["a", "a", "b", "b"]
    found = evaluate(labels, np.eye(2)[[0, 0, 1, 1]], list("1234"), ["a", "b"])
    for name in METRICS:
        assert found[name]["value"] == found[name]["high"] == 1.0, name
        assert found[name]["low"] < 0.7, name


def test_each_site_is_scored_by_itself_and_one_class_is_said():
    labels, p, patients, names, _ = cohort(30, 2, seed=8)
    sites = ["N"] * 20 + [None] * 10
    found = evaluate(labels, p, patients, names, sites=sites)
    alone = evaluate(labels[:20], p[:20], patients[:20], names)
    assert found["sites"]["N"] == {key: one for key, one in alone.items() if key not in ("curves", "patients_needed")}
    assert found["sites"][NO_SITE]["slides"] == 10
    assert "sites" not in evaluate(labels, p, patients, names, sites=[None] * 30)
    alone = evaluate(["b", "b"], [[0.4, 0.6], [0.7, 0.3]], ["1", "2"], ["a", "b"])
    assert "one class only, so no auroc" in in_words(alone)
    assert in_words(found).startswith("30 slides of 15 patients (15 c0, 15 c1): auroc 0.")
    assert "(2 '0', 1 '1')" in in_words(evaluate(["0", "0", "1"], np.eye(2)[[0, 0, 1]], list("abc"), ["0", "1"]))


@pytest.mark.parametrize("classes", [2, 3])
def test_within_folds_only_slides_that_one_model_scored_are_compared(classes):
    """A shift of a fold's scores changes the pooled AUROC, not the one within folds: the mean over pairs of a fold."""
    labels, p, patients, names, y = cohort(48, classes, seed=4)
    folds = [str(i % 3) for i in range(48)]
    shifted = p.copy()
    shifted[::3, 1:] **= 0.2
    found, apart = (evaluate(labels, told, patients, names, folds=folds) for told in (p, shifted))
    assert apart["auroc_within_folds"] == pytest.approx(found["auroc_within_folds"])
    assert apart["auroc"]["value"] != pytest.approx(found["auroc"]["value"])
    each = []
    for c in range(classes) if classes > 2 else [1]:
        pairs = [
            ((y[k::3] == c).sum() * (y[k::3] != c).sum(), sk.roc_auc_score(y[k::3] == c, p[k::3, c])) for k in range(3)
        ]
        each.append(sum(n * a for n, a in pairs) / sum(n for n, _ in pairs))
    assert found["auroc_within_folds"]["value"] == pytest.approx(np.mean(each))
    one = evaluate(labels, p, patients, names, folds=["all"] * 48)
    assert one["auroc_within_folds"] == pytest.approx(one["auroc"])
    alone = evaluate(labels, p, patients, names, folds=labels)  # each fold of one class
    assert alone["auroc_within_folds"] == {"value": None, "low": None, "high": None}


def test_of_two_classes_the_last_is_the_positive():
    labels, p, patients, names, y = cohort(60, 2, seed=0)
    found = evaluate(labels, p, patients, names)
    turned = evaluate(labels, p[:, ::-1], patients, names[::-1])
    assert (found["positive"], turned["positive"]) == ("c1", "c0")
    assert turned["auroc"]["value"] == pytest.approx(found["auroc"]["value"], abs=1e-6)
    assert turned["f1"]["value"] == pytest.approx(sk.f1_score(y, p.argmax(1), pos_label=0), abs=1e-6)


def test_a_single_class_gives_nulls_and_never_nan():
    found = evaluate(["b", "b"], [[0.4, 0.6], [0.7, 0.3]], ["1", "2"], ["a", "b"])
    assert [found[name]["value"] for name in METRICS] == [None, None, None, 0.5]
    assert [found[name]["low"] for name in METRICS] == [None, None, None, pytest.approx(0.0945, abs=1e-4)]
    json.dumps(found, allow_nan=False)


def test_a_class_that_does_not_occur_is_left_out_of_the_average():
    labels, p, patients, names, y = cohort(40, 2, seed=6)
    wide = np.concatenate([p * 0.9, np.full((40, 1), 0.1)], 1)
    found = evaluate(labels, wide, patients, [*names, "c2"])
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
