"""The difference of two models' AUROCs on the same patients."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.statistics.paired import auroc_difference


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
    assert alone == pytest.approx(tenfold)


def test_the_interval_holds_what_it_says() -> None:
    """Of 150 cohorts of models that are equally good, at least 91 % hold 0: 95 %, less two standard errors."""
    held = 0
    for seed in range(150):
        random = np.random.default_rng(seed)
        y = np.arange(60) % 2
        both = [random.normal(size=60) + y for _ in range(2)]
        found = auroc_difference(y.tolist(), *(np.stack([-s, s], 1) for s in both), [str(i) for i in range(60)])
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0 <= found.high
    assert held >= 0.91 * 150


def test_where_the_bootstrap_cannot_tell_there_is_no_interval() -> None:
    y, perfect = [0, 0, 1, 1], np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9]])
    assert auroc_difference(y, perfect, perfect, list("abcd")) == (0.0, None, None)
    assert auroc_difference([1, 1, 1, 1], perfect, perfect, list("abcd")) is None
