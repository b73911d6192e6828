"""The difference of two models' AUROCs, or C-indices, on the same patients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.statistics.multilabel import evaluate_multilabel
from pipeline.statistics.ordinal import evaluate_ordinal
from pipeline.statistics.paired import (
    Difference,
    auroc_difference,
    concordance_difference,
    correlation_difference,
    multilabel_difference,
    ordinal_difference,
)
from pipeline.statistics.regression import evaluate_regression
from pipeline.statistics.survival import evaluate_survival


def two_models(n: int, seed: int = 0, classes: int = 2) -> tuple[list[int], np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, n)
    y[:classes] = range(classes)
    scores = [random.normal(size=(n, classes)) + gain * np.eye(classes)[y] for gain in (1.0, 0.3)]
    one, other = (np.exp(s) / np.exp(s).sum(1, keepdims=True) for s in scores)
    return y.tolist(), one.round(2), other.round(2)  # rounded: ties count half


def test_it_is_the_difference_of_the_aurocs() -> None:
    y, one, other = two_models(40)
    found = auroc_difference(y, one, other, [str(i) for i in range(40)])
    assert found is not None
    assert found.value == pytest.approx(roc_auc_score(y, one[:, 1]) - roc_auc_score(y, other[:, 1]))


def test_of_more_classes_it_is_the_mean_over_them() -> None:
    y, one, other = two_models(40, classes=3)
    found = auroc_difference(y, one, other, [str(i) for i in range(40)])
    each = [np.mean([roc_auc_score(np.array(y) == c, p[:, c]) for c in range(3)]) for p in (one, other)]
    assert found is not None
    assert found.value == pytest.approx(each[0] - each[1])


def test_the_interval_is_as_wide_as_patients_are_few() -> None:
    """Ten slides of each patient that say the same are one: the interval is that of one slide each."""
    y, one, other = two_models(30)
    people = [str(i) for i in range(30)]
    alone = auroc_difference(y, one, other, people)
    tenfold = auroc_difference(y * 10, np.tile(one, (10, 1)), np.tile(other, (10, 1)), people * 10)
    assert alone is not None
    assert alone[:3] == pytest.approx(tenfold[:3])
    assert alone.p == tenfold.p


def test_of_equally_good_models_intervals_hold_0_and_tests_find_a_difference_as_often_as_they_say() -> None:
    """Of 150 cohorts of 24 patients at least 91 % hold 0, and at most 10.5 % have p <= .05: three standard errors."""
    held = found_one = 0
    for seed in range(150):
        random = np.random.default_rng(seed)
        y = np.arange(24) % 2
        both = [random.normal(size=24) + y for _ in range(2)]
        found = auroc_difference(y.tolist(), *(np.stack([-s, s], 1) for s in both), [str(i) for i in range(24)])
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        assert found.p is not None
        held += found.low <= 0 <= found.high
        found_one += found.p <= 0.05
    assert held >= 0.91 * 150
    assert found_one <= 0.105 * 150


def test_p_is_the_share_of_exchanges_of_the_models_with_which_they_differ_as_much() -> None:
    """By all exchanges of six patients, of whom one has two slides."""
    random = np.random.default_rng(3)
    y, owner = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 1, 2, 3, 4, 5, 5])
    one, other = random.permutation(7) / 10, random.permutation(7) / 10
    one[3:] += 0.35  # no ties
    ranks = [np.argsort(np.argsort(s)) for s in (one, other)]
    gaps = []
    for exchanged in np.ndindex(*(2,) * 6):
        chosen = np.array(exchanged)[owner] == 1
        first, second = np.where(chosen, ranks[1], ranks[0]), np.where(chosen, ranks[0], ranks[1])
        gaps.append(roc_auc_score(y, first) - roc_auc_score(y, second))
    found = auroc_difference(y.tolist(), *(np.stack([1 - s, s], 1) for s in (one, other)), [str(i) for i in owner])
    assert found is not None
    assert found.p == pytest.approx(np.mean(np.abs(gaps) >= abs(gaps[0]) - 1e-9))
    assert 0 < found.p < 1


def test_two_models_c_indices_differ_as_they_do_and_a_better_one_is_found() -> None:
    random = np.random.default_rng(0)
    hazard = random.normal(size=40)
    times = random.exponential(size=40) * np.exp(-2 * hazard)
    ends = random.exponential(size=40)
    told = (np.minimum(times, ends), times <= ends)
    people = [f"P{i}" for i in range(40)]
    guess = random.normal(size=40)
    found = concordance_difference(*told, hazard, guess, people)
    each = [evaluate_survival(*told, risks, people)["c_index"]["value"] for risks in (hazard, guess)]
    assert found is not None
    assert found.value == pytest.approx(each[0] - each[1])
    assert found.p is not None
    assert found.p < 0.01
    assert found.low is not None
    assert found.low > 0
    assert concordance_difference(*told, hazard, np.exp(hazard), people) == (0.0, None, None, 1.0)  # the same order
    assert concordance_difference([1, 2], [0, 0], [1, 2], [2, 1], ["a", "b"]) is None


def grades(n: int, seed: int) -> tuple[list[int], list[np.ndarray], Any, Any]:
    random = np.random.default_rng(seed)
    y = np.arange(n) % 3
    told = [p / p.sum(1, keepdims=True) for p in np.exp(random.normal(size=(2, n, 3)) + 1.5 * np.eye(3)[y])]
    return y.tolist(), told, ordinal_difference, lambda p, who: evaluate_ordinal(y, p, who, list("abc"))["auroc"]


def labels(n: int, seed: int) -> tuple[np.ndarray, list[np.ndarray], Any, Any]:
    random = np.random.default_rng(seed)
    y = (random.random((n, 3)) < 0.5).astype(float)
    y[random.random((n, 3)) < 0.2] = np.nan  # nobody looked
    told = [1 / (1 + np.exp(-random.normal(size=(n, 3)) - 1.5 * np.nan_to_num(y))) for _ in range(2)]
    return y, told, multilabel_difference, lambda p, who: evaluate_multilabel(y, p, who, list("abc"))["auroc"]


def amounts(n: int, seed: int) -> tuple[np.ndarray, list[np.ndarray], Any, Any]:
    random = np.random.default_rng(seed)
    y = random.normal(size=n)
    told = [y + random.normal(size=n), 7 - 3 + 20 * (y + random.normal(size=n))]  # of other units
    return y, told, correlation_difference, lambda x, who: evaluate_regression(y, x, who)["pearson"]


@pytest.mark.parametrize("kind", [grades, labels, amounts])
def test_of_other_labels_it_is_the_difference_of_what_they_are_scored_by(kind: Any) -> None:
    y, (one, other), difference, score = kind(40, 0)
    people = [f"p{i // 2}" for i in range(40)]
    found: Difference = difference(y, one, other, people)
    assert found.value == pytest.approx(score(one, people)["value"] - score(other, people)["value"])
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    back: Difference = difference(y, other, one, people)
    assert (back.value, back.p) == pytest.approx((-found.value, found.p))
    tenfold: Difference = difference(
        np.repeat(y, 10, 0), np.repeat(one, 10, 0), np.repeat(other, 10, 0), np.repeat(people, 10)
    )
    assert tenfold == pytest.approx(found)  # the same patients
    same: Difference = difference(y, one, one, people)
    assert same == (0.0, None, None, 1.0)


@pytest.mark.parametrize("kind", [grades, labels, amounts])
def test_where_models_are_as_good_intervals_hold_0_and_tests_find_none_as_often_as_they_say(kind: Any) -> None:
    """Of 100 cohorts of 24 patients at least 89 % hold 0, and at most 11.5 % have p <= .05: three standard errors."""
    people = [f"p{i}" for i in range(24)]
    cases = [kind(24, seed) for seed in range(100)]
    found = [difference(y, *told, people) for y, told, difference, _ in cases]
    assert sum(one.low <= 0 <= one.high for one in found) >= 89
    assert sum(one.p <= 0.05 for one in found) <= 11


def test_a_closer_prediction_correlates_better_by_a_test() -> None:
    random = np.random.default_rng(2)
    y = random.normal(size=40)
    close, guess = y + 0.5 * random.normal(size=40), random.normal(size=40)
    found = correlation_difference(y, close, guess, [str(i) for i in range(40)])
    assert found is not None
    assert found.low is not None
    assert found.low > 0.2
    assert found.p is not None
    assert found.p < 0.01
    assert correlation_difference(y, close, np.zeros(40), [str(i) for i in range(40)]) is None


def test_where_the_bootstrap_cannot_tell_there_is_no_interval() -> None:
    y, perfect = [0, 0, 1, 1], np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9]])
    assert auroc_difference(y, perfect, perfect, list("abcd")) == (0.0, None, None, 1.0)
    assert auroc_difference([1, 1, 1, 1], perfect, perfect, list("abcd")) is None
