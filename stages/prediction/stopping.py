"""When enough was read: the side of a threshold on which the exhaustive prediction lies is settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # what users are told of it needs no torch
    from stages.prediction.intervals import Calibration, Evidence
    from stages.prediction.readout import Readout

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
    """Read on until it is settled on which side of ``at`` something lies that the exhaustive model would tell.

    It is settled where its statistic ``l``, of a class the log-odds, is farther from the threshold's level
    (`Readout.threshold`; of a probability ``logit(at)``) than a one-sided bound. Every look has its share of the risk
    (Bonferroni), so that stopping at any of them is fair; and as the truth lies on one side, only a bound to the other
    can be wrong:

        ``P(decided for the wrong side) <= sum_r risk / J = risk``.

    Attributes:
        at: the threshold: of a probability 0 < at < 1.
        risk: 0 < risk < 0.5.
        positive: what is decided about, by its place among all that may be.
    """

    at: float
    risk: float
    positive: int

    def side(self, evidence: Evidence, drawn: int, calibration: Calibration, *, looks: int, readout: Readout) -> Side:
        """Where it lies by the evidence of ``drawn`` cells of one slide (B = 1), at one of ``looks`` looks."""
        # a two-sided interval of twice the level; of several statistics it holds for all, and so for this one
        bound = calibration.half_width(evidence, drawn, confidence=self.confidence(looks))[0]
        return self.beside(evidence.statistics[0].tolist(), bound.tolist(), readout=readout)

    def confidence(self, looks: int) -> float:
        """Of the interval at each of so many looks, both of whose ends are bounds to one side."""
        return 1 - 2 * self.risk / looks

    def beside(self, statistics: Sequence[float], bounds: Sequence[float] | None = None, *, readout: Readout) -> Side:
        """Where it lies by statistics that may be off by less than bounds; at the threshold counts as above."""
        threshold = readout.threshold(self.positive, self.at)
        away = statistics[threshold.statistic] - threshold.level
        if bounds is not None and abs(away) < bounds[threshold.statistic]:
            return "undecided"
        return "above" if (away if threshold.rising else -away) >= 0 else "below"
