"""How well risks rank times to an event that not everybody has had: Harrell's C-index, patient by patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.statistics.curves import by_risk
from pipeline.statistics.groups import by_group, check_patients, numbers
from pipeline.statistics.intervals import concordance_interval, named
from pipeline.statistics.power import concordance_patients, needed

_ROWS = 512
"""Patients that are compared with all others at a time."""


class Concordance(NamedTuple):
    """In how many comparable pairs each patient is, and how many of them are in order.

    Attributes:
        earlier, later: of each patient, pairs of which theirs is the earlier event, or the other, (n,).
        ordered: those of both of which the patient with the earlier event has the higher risk, (n,); half for equal
            risks.
    """

    earlier: NDArray[np.float64]
    later: NDArray[np.float64]
    ordered: NDArray[np.float64]

    @property
    def pairs(self) -> float:
        """How many there are."""
        return float(self.earlier.sum())

    @property
    def value(self) -> float | None:
        """Harrell's C: the share in order; None where no pair is comparable."""
        return float(self.ordered.sum()) / 2 / self.pairs if self.pairs else None


def evaluate_survival(
    times: ArrayLike,
    events: ArrayLike,
    risks: ArrayLike,
    patients: Sequence[str],
    *,
    sites: Sequence[str | None] | None = None,
    folds: Sequence[str | None] | None = None,
) -> dict[str, Any]:
    """Harrell's (1982) C-index of risks, with a 95 % interval that holds on few patients (`concordance_interval`).

    Of the pairs of patients of whom it is known who had the event first, it is the share in which that one has the
    higher risk; equal risks count half. A patient whose time ends with the event comes before one whose equal time
    ends without; two events at the same time are not comparable. So counts lifelines; scikit-survival too, but that it
    takes risks for equal that differ by less than 1e-8. Time is the patient's: the risk of several slides is their
    mean. What it tends to depends on the censoring.

    Args:
        times: to the event or to the end of what is known, (n,), above or equal to 0, in any unit.
        events: 1 where it ends with the event, 0 where without (censored), (n,).
        risks: (n,), the higher the sooner.
        patients: whose slide it is, (n,).
        sites, folds: as for `evaluate`; a pair counts within a group where both are of it.

    Returns:
        ``{"slides", "patients", "events", "pairs", "c_index": {"value", "low", "high"}}``, None where no pair is
        comparable, as where all are censored; ``"curves"``: `by_risk`, ``"patients_needed"`` (`needed`); and
        ``"sites"``, ``"folds"``: the scores of each; with folds ``"c_index_within_folds"``: over pairs of patients of
        one fold, for risks of several models are each on a scale of its own.

    Raises:
        ValueError: lengths differ, a time is negative, an event is not 0 or 1, a value is not a finite number, or
            slides of one patient differ in time or event.
    """
    check_patients(patients, len(patients))
    shape = (len(patients),)
    t, r = numbers(times, "times", shape=shape), numbers(risks, "risks", shape=shape)
    e = numbers(events, "events", shape=shape)
    if (t < 0).any():
        raise ValueError(
            f"times: expected none below 0, found {t[t < 0][0]:g} of patient {patients[int((t < 0).argmax())]!r}"
        )
    wrong = (e != 0) & (e != 1)
    if wrong.any():
        raise ValueError(
            f"events: expected 1 (the event) or 0 (censored), found {e[wrong][0]:g} of patient "
            f"{patients[int(wrong.argmax())]!r}"
        )
    people = np.asarray(patients)

    def score(kept: NDArray[np.bool_], *, whole: bool = False) -> dict[str, Any]:
        told = by_patient(t[kept], e[kept], r[kept], people[kept].tolist())
        found = concordance(*told)
        scores = {
            "slides": int(kept.sum()),
            "patients": len(found.earlier),
            "events": int(told[1].sum()),
            "pairs": int(found.pairs),
            "c_index": named(found.value, None if found.value is None else concordance_interval(*found)),
        }
        if not whole:
            return scores
        patients = None if found.value is None else concordance_patients(*found)
        return scores | {"curves": {"by_risk": by_risk(*told)}, "patients_needed": needed("c_index", patients)}

    found = score(np.ones(len(t), bool), whole=True) | by_group(score, {"sites": sites, "folds": folds})
    if "folds" in found:
        names = np.array([str(fold) for fold in folds or ()])
        inside = [names == name for name in np.unique(names)]
        each = [concordance(*by_patient(t[one], e[one], r[one], people[one].tolist())) for one in inside]
        within = Concordance(*map(np.concatenate, zip(*each, strict=True)))
        interval = None if within.value is None else concordance_interval(*within)
        found["c_index_within_folds"] = named(within.value, interval)
    return found


def by_patient(
    times: NDArray[np.float64], events: NDArray[np.float64], risks: NDArray[np.float64], patients: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Time, event and mean risk of each patient, in the order of their names, (P,).

    Raises:
        ValueError: slides of one patient differ in time or event.
    """
    names, first, owner = np.unique(np.asarray(patients), return_index=True, return_inverse=True)
    differ = (times != times[first][owner]) | (events != events[first][owner])
    if differ.any():
        one = str(names[owner[differ.argmax()]])
        raise ValueError(
            f"patient {one!r} has slides with different times or events; survival is the patient's: give all slides of "
            "one the same"
        )
    return times[first], events[first] == 1, np.bincount(owner, risks) / np.bincount(owner)


def concordance(times: NDArray[np.float64], events: NDArray[np.bool_], risks: NDArray[np.float64]) -> Concordance:
    """The comparable pairs of patients and how many are in order; ties as `evaluate_survival` says.

    Args:
        times, events, risks: of each patient, (n,).
    """
    earlier, later, ordered = np.zeros((3, len(times)))
    for start in range(0, len(times), _ROWS):
        rows = slice(start, start + _ROWS)
        pairs, wins = compared(times, events, risks, rows)
        won = pairs * wins
        earlier[rows] = pairs.sum(1)
        later += pairs.sum(0)
        ordered[rows] += won.sum(1)
        ordered += won.sum(0)
    return Concordance(earlier, later, ordered)


def compared(
    times: NDArray[np.float64], events: NDArray[np.bool_], risks: NDArray[np.float64], rows: slice
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Whether a patient's event is known to come before another's, and how far his risk is higher (1, 1/2 or 0).

    Both are (rows, n); what stands in a pair that is not comparable means nothing.
    """
    before = times[rows, None] < times
    before |= (times[rows, None] == times) & ~events
    before &= events[rows, None]
    above = risks[rows, None]
    return before, (above > risks) + 0.5 * (above == risks)
