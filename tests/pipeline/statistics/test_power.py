"""How many patients it takes is as the intervals are."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.statistics.intervals import auroc_interval, concordance_interval
from pipeline.statistics.metrics import evaluate
from pipeline.statistics.power import (
    auroc_patients,
    concordance_patients,
    correlation_patients,
    power_in_words,
)
from pipeline.statistics.survival import Concordance, concordance


def test_so_many_patients_have_an_interval_as_narrow_and_one_fewer_has_not() -> None:
    many = auroc_patients([0.85], [0.25])
    assert many is not None
    halves = [np.ptp(auroc_interval(0.85, 0.25 * n, 0.75 * n)) / 2 for n in (many - 1, many)]
    assert halves[1] <= 0.05 < halves[0]
    rarer = auroc_patients([0.85], [0.05])
    assert rarer is not None
    assert rarer > 2 * many
    assert auroc_patients([], []) is None
    correlated = correlation_patients(0.8)
    assert correlated is not None
    assert correlated == pytest.approx((1.96 * 0.36 / 0.05) ** 2, rel=0.05)  # delta method
    with pytest.raises(ValueError, match="between 0 and"):
        auroc_patients([0.8], [0.5], half_width=5)


def test_more_patients_of_the_same_kind_narrow_a_c_index_as_they_would() -> None:
    """What ten times the patients are said to give is what ten times the patients give, within a fifth."""
    rng = np.random.default_rng(0)

    def drawn(n: int) -> Concordance:
        risks = rng.normal(size=n)
        times, ends = rng.exponential(size=n) * np.exp(-risks), rng.exponential(size=n)
        return concordance(np.minimum(times, ends), times <= ends, risks)

    few, more = drawn(100), drawn(1000)
    told = np.ptp(concordance_interval(*few, times=10))
    assert told == pytest.approx(np.ptp(concordance_interval(*more)), rel=0.2)
    assert told < 0.4 * np.ptp(concordance_interval(*few))
    many = concordance_patients(*few)
    assert many is not None
    assert np.ptp(concordance_interval(*few, times=many / 100)) / 2 <= 0.05


def test_it_is_said_where_an_interval_is_wider_and_only_there() -> None:
    p = np.array([0.1, 0.2, 0.6, 0.4, 0.7, 0.9])
    few = evaluate(list("aaabbb"), np.stack([1 - p, p], 1), list("123456"), ["a", "b"])
    many = few["patients_needed"]["patients"]
    assert 150 < many < 200
    assert power_in_words(few) == (
        f"about {round(many, -1)} patients are needed for a 95 % interval of the AUROC as narrow as ± 0.05, if the "
        "AUROC stays at 0.89"
    )
    narrow = {"auroc": {"value": 0.9, "low": 0.87, "high": 0.92}, "patients_needed": few["patients_needed"]}
    assert power_in_words(narrow) is None
    assert power_in_words(evaluate(["a"], [[1, 0]], ["1"], ["a", "b"])) is None
