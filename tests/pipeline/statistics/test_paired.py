"""The difference of two models' AUROCs, or C-indices, on the same patients."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.statistics.paired import auroc_difference, concordance_difference
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


def test_where_the_bootstrap_cannot_tell_there_is_no_interval() -> None:
    y, perfect = [0, 0, 1, 1], np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9]])
    assert auroc_difference(y, perfect, perfect, list("abcd")) == (0.0, None, None, 1.0)
    assert auroc_difference([1, 1, 1, 1], perfect, perfect, list("abcd")) is None
