"""When enough was read: the side of a threshold on which the exhaustive prediction lies is settled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # what users are told of it needs no torch
    from stages.prediction.intervals import Calibration, Evidence

Side = Literal["above", "below", "undecided"]

RISK = 0.01
"""How often a decision may be wrong unless the user says otherwise."""

FIRST_LOOK = 8
"""Patches that are read before the first decision, and the fewest that intervals are calibrated for; each further look
doubles what is read."""


def first_look(calibration: Calibration, *, surveyed: bool) -> int:
    """Patches of the first look: no fewer than intervals are calibrated for.

    Args:
        calibration: of the intervals.
        surveyed: whether all tissue was seen at a coarse scale, so that patches only add to what is known. Elsewhere
            they are all that is known, eight may miss what is rare and look alike, and twice as many are read.
    """
    return max(FIRST_LOOK if surveyed else 2 * FIRST_LOOK, calibration.budgets[0])


@dataclass(frozen=True, slots=True)
class Decide:
    """Read on until it is settled on which side of ``at`` the exhaustive model's probability of a class lies.

    The class's log-odds ``l`` are settled where ``|l - logit(at)|`` exceeds a one-sided bound. Every look has its share
    of the risk (Bonferroni), so that stopping at any of them is fair; and as the truth lies on one side, only a bound
    to the other can be wrong:

        ``P(decided for the wrong side) <= sum_r risk / J = risk``.

    Attributes:
        at: the threshold, 0 < at < 1.
        risk: 0 < risk < 0.5.
        positive: the class's place among the classes.
    """

    at: float
    risk: float
    positive: int

    def side(self, evidence: Evidence, drawn: int, calibration: Calibration, *, looks: int) -> Side:
        """Where the class lies by the evidence of ``drawn`` cells of one slide (B = 1), at one of ``looks`` looks."""
        # a two-sided interval of twice the level; of more than two classes it holds for all, and so for this one
        bound = calibration.half_width(evidence, drawn, confidence=self.confidence(looks))[0, self.positive]
        return self.beside(float(evidence.statistics[0, self.positive]), float(bound))

    def confidence(self, looks: int) -> float:
        """Of the interval at each of so many looks, both of whose ends are bounds to one side."""
        return 1 - 2 * self.risk / looks

    def beside(self, log_odds: float, bound: float = 0.0) -> Side:
        """On which side log-odds lie that may be off by less than ``bound``; at the threshold counts as above."""
        away = log_odds - math.log(self.at) + math.log1p(-self.at)
        if abs(away) < bound:
            return "undecided"
        return "above" if away >= 0 else "below"
