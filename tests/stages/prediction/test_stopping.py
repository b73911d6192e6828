"""A side of a threshold is settled by one-sided bounds that share the risk."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import t as student_t

from stages.prediction.intervals import Calibration, Evidence
from stages.prediction.readout import (
    ClassReadout,
    GradeReadout,
    HazardReadout,
    LabelReadout,
    Readout,
    RiskReadout,
    ValueReadout,
)
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
        return decide.side(found, 8, rule, looks=5, readout=ClassReadout(classes))

    near, far = reach * 0.995, reach * 1.005  # a draw's variance is floored a little
    assert [side(-far), side(-near), side(near), side(far)] == ["below", "undecided", "undecided", "above"]


def test_where_nothing_is_left_open_the_threshold_itself_counts_as_above() -> None:
    exact = evidence(0.0, 0.0)
    known = Evidence(
        *(exact.statistics, 0 * exact.unit, 0 * exact.freedom, *[0 * exact.by_design] * 3, exact.freedom_all)
    )
    assert Decide(0.5, 0.01, 1).side(known, 8, Calibration(), looks=3, readout=ClassReadout(2)) == "above"
    assert Decide(0.5, 0.01, 1).beside([1e-9, -1e-9], readout=ClassReadout(2)) == "below"


def read_outs() -> dict[str, Readout]:
    """All whose statistic is a difference of logits, with numbers of a cohort."""
    value, grades, hazards = ValueReadout(), GradeReadout(4), HazardReadout((1.0, 2.0, 5.0))
    value.centre.fill_(30.0)
    value.spread.fill_(4.0)
    with torch.no_grad():
        grades.first.fill_(-0.7)
        grades.log_gaps.copy_(torch.tensor([0.1, -0.5]))
        hazards.base_odds.copy_(torch.tensor([-2.0, -1.0, -3.0]))
    return {"labels": LabelReadout(2), "value": value, "grades": grades, "risk": RiskReadout(), "hazards": hazards}


READOUTS = read_outs()


@pytest.mark.parametrize(
    ("kind", "place", "at"),
    [
        *[("labels", place, at) for place in (0, 1) for at in (1e-4, 0.3, 0.99)],
        *[("value", 0, at) for at in (-5.0, 30.0, 41.5)],
        *[("grades", place, at) for place in (0, 1, 2) for at in (0.01, 0.5, 0.9)],
        *[("risk", 0, at) for at in (-3.0, 0.0, 2.5)],
        *[("hazards", 0, at) for at in (-1.0, 1.0)],
        *[("hazards", place, at) for place in (1, 2, 3) for at in (1e-6, 0.5, 0.999999)],
    ],
)
def test_what_is_told_is_at_the_threshold_where_the_statistic_is_at_its_level(kind: str, place: int, at: float) -> None:
    """And above it on the side that is called above, however little."""
    readout = READOUTS[kind]
    threshold = readout.threshold(place, at)

    @torch.no_grad()
    def told(level: float) -> float:
        statistics = torch.zeros(readout.outputs // 2, dtype=torch.float64)
        statistics[threshold.statistic] = level
        values = readout.tell(statistics)
        return float(values[place + 1 :].sum() if kind == "grades" else values[place])

    assert told(threshold.level) == pytest.approx(at, rel=1e-9)
    for moved in (-1e-3, 1e-3):
        level = threshold.level + moved
        side = Decide(at, 0.01, place).beside([level] * 2, readout=readout)
        assert side == ("above" if told(level) > at else "below")
