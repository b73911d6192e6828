"""A side of a threshold is settled by one-sided bounds that share the risk."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import t as student_t

from stages.prediction.intervals import Calibration, Evidence
from stages.prediction.stopping import Decide


def evidence(*log_odds: float, spread: float = 1.0) -> Evidence:
    """Of one slide: variance 0.25 ``spread`` with four degrees of freedom."""
    row = torch.tensor([log_odds], dtype=torch.float64)
    alike = torch.full_like(row, spread)
    one = row.new_ones(1, 1)
    told = len(log_odds) if len(log_odds) > 2 else 1
    return Evidence(row, 0.25 * one, 4 * one, alike, alike, alike, 4 * one, statements=told)


@pytest.mark.parametrize(("classes", "shared"), [(2, 1), (3, 3)])
def test_a_side_is_settled_beyond_the_looks_own_one_sided_quantile(classes: int, shared: int) -> None:
    """Of more than two classes the bound is that of all jointly, and on the wide side."""
    rule = Calibration(factors=(2.0,), worth=6.0)
    reach = 2 * student_t.ppf(1 - 0.02 / 5 / shared, 10) * math.sqrt(0.25)
    decide, others = Decide(0.75, 0.02, 1), [0.0] * (classes - 1)

    def side(away: float) -> str:
        found = evidence(others[0], math.log(3) + away, *others[1:])
        return decide.side(found, 8, rule, looks=5)

    near, far = reach * 0.995, reach * 1.005  # a draw's variance is floored a little
    assert [side(-far), side(-near), side(near), side(far)] == ["below", "undecided", "undecided", "above"]


def test_where_nothing_is_left_open_the_threshold_itself_counts_as_above() -> None:
    exact = evidence(0.0, 0.0)
    known = Evidence(
        *(exact.statistics, 0 * exact.unit, 0 * exact.freedom, *[0 * exact.by_design] * 3, exact.freedom_all)
    )
    assert Decide(0.5, 0.01, 1).side(known, 8, Calibration(), looks=3) == "above"
    assert Decide(0.5, 0.01, 1).beside(-1e-9) == "below"
