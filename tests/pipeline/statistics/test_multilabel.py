"""Labels are scored each on the slides on which they are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.statistics.metrics import METRICS, evaluate
from pipeline.statistics.multilabel import evaluate_multilabel

NAMES = ("a", "value", "c")


def cohort(n: int = 40) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (n, 3)).astype(float)
    return y, np.clip(0.2 * y + 0.4 + 0.3 * rng.normal(size=(n, 3)), 0, 1), [f"P{i // 2}" for i in range(n)]


def test_each_label_is_scored_as_two_classes_on_the_slides_on_which_it_is_known() -> None:
    y, p, people = cohort()
    y[3:9, 1] = np.nan
    found = evaluate_multilabel(y, p, people, NAMES)
    for i, name in enumerate(NAMES):
        known = ~np.isnan(y[:, i])
        told = [("no", "yes")[int(one)] for one in y[known, i]]
        alone = evaluate(
            told, np.stack([1 - p[known, i], p[known, i]], 1), np.array(people)[known].tolist(), ("no", "yes")
        )
        assert {m: found["labels"][name][m] for m in METRICS} == {m: alone[m] for m in METRICS}
    each = [roc_auc_score(y[~np.isnan(y[:, i]), i], p[~np.isnan(y[:, i]), i]) for i in range(3)]
    assert found["auroc"]["value"] == pytest.approx(np.mean(each))
    assert found["labels"]["value"]["slides"] == 34


def test_a_label_that_all_have_or_of_which_nothing_is_known_is_not_in_the_mean() -> None:
    y, p, people = cohort()
    y[:, 0], y[:, 1] = 1, np.nan
    found = evaluate_multilabel(y, p, people, NAMES, sites=["N"] * 40)
    assert found["averaged"] == ["c"]
    assert found["auroc"] == found["labels"]["c"]["auroc"]
    assert found["labels"]["a"]["auroc"]["value"] is None
    assert found["labels"]["value"] is None
    assert found["sites"] == {"N": {k: v for k, v in found.items() if k not in ("sites", "curves", "patients_needed")}}
    json.dumps(found, allow_nan=False)
    nothing = evaluate_multilabel(np.full((2, 3), np.nan), np.full((2, 3), 0.5), ["a", "b"], NAMES)
    assert nothing["auroc"] == {"value": None, "low": None, "high": None}


@pytest.mark.parametrize(
    ("y", "p", "message"),
    [
        ([[0, 1, 2]], [[0, 0, 0]], "label 'c': expected 0, 1 or NaN, found 2 in row 0"),
        ([[0, 1, 1]], [[0, 0, 1.5]], r"numbers in \[0, 1\]"),
        ([[0, 1, 1]], [[0, 0, np.nan]], "probabilities: expected finite numbers"),
        ([[0, 1]], [[0, 0, 1]], r"labels: expected shape \(1, 3\), found \(1, 2\)"),
    ],
)
def test_what_cannot_be_scored_is_refused(y, p, message) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_multilabel(y, p, ["a"], NAMES)
