"""How long until an event: a risk, and the chance to be without it at given times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.task.task import Cells, Metric, Task, number, told
from pipeline.task.value import numbers_in_words

if TYPE_CHECKING:
    from pipeline.statistics.paired import Difference
    from stages.prediction.kinds import Kind

RISK = "risk_score"
SEEN = ("1", "1.0", "true", "yes", "dead", "deceased", "event")
CENSORED = ("0", "0.0", "false", "no", "alive", "living", "censored")


@dataclass(frozen=True, slots=True)
class Survival(Task):
    """A risk, the logarithm of the hazard beside that of other patients: see `RiskReadout`."""

    names: tuple[str, ...] = (RISK,)
    kind: ClassVar[Kind] = "survival"
    unit: ClassVar[str] = "log hazard"
    chances: ClassVar[bool] = False
    of_patient: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = ("c_index", "c_index_within_folds")
    metric: ClassVar[Metric] = Metric("c_index", "C-index", 0.5, 0.7)

    @property
    def reading(self) -> str:
        return f"survival: time from {self.labels[0]!r}, event from {self.labels[1]!r}"

    @property
    def columns(self) -> tuple[str, ...]:
        return self.values

    @property
    def meaning(self) -> str:
        return (
            "A risk is a log hazard, of which only the difference between two counts: 0.69 more is twice the hazard at "
            "any time, and 0 is nobody's in particular."
        )

    @property
    def statistics(self) -> tuple[str, ...]:
        return (RISK,)

    @property
    def shown(self) -> tuple[int, ...]:
        return (0,)

    def predicted(self, values: Sequence[float]) -> float:
        return float(values[0])

    def in_words(self, values: Sequence[float], low: Sequence[float], high: Sequence[float], *, exact: bool) -> str:
        return f"risk {numbers_in_words(values[0], low[0], high[0], exact=exact)}"

    def target(self, cells: Cells) -> list[float]:
        time = number(cells[0], f"the time {self.labels[0]!r}")
        if time < 0:
            raise ValueError(f"the time {self.labels[0]!r} must be 0 or more, found {cells[0]!r}")
        event = str(cells[1]).casefold()
        if event not in (*SEEN, *CENSORED):
            raise ValueError(
                f"the event {self.labels[1]!r} must be 1 where it was seen and 0 where not, found {told(cells[1])}"
            )
        return [time, float(event in SEEN)]

    def unlearnable(self, targets: Sequence[Any]) -> str | None:
        if not any(event for _, event in targets):
            return f"no event was seen ({self.labels[1]!r} is 0 for every slide): nothing to learn"
        first, latest = (pick(time for time, _ in targets) for pick in (min, max))
        if first == latest:
            return f"every {self.labels[0]!r} is {first:g}: nobody is sooner than another"
        end = self.times[-1] if self.times else latest
        if end > latest:
            return f"nobody was seen until cohort.times {end:g}, the latest time is {latest:g}: choose earlier ones"
        if not any(event and time <= end for time, event in targets):
            return f"no event was seen until cohort.times {end:g}, all are later: choose later ones"
        return None

    def unjudged(self, targets: Sequence[Any]) -> str | None:
        return None if any(event for _, event in targets) else "no event"

    def rank(self, cells: Cells) -> float:
        return self.target(cells)[0]

    def stratum(self, cells: Cells) -> str:
        return "event" if self.target(cells)[1] else "no event"

    @property
    def label_columns(self) -> tuple[str, ...]:
        return ("label_time", "label_event")

    def label_row(self, cells: Cells) -> dict[str, Any]:
        time, event = self.target(cells)
        return dict(zip(self.label_columns, (time, int(event)), strict=True))

    def label_in_words(self, cells: Cells) -> str:
        time, event = self.target(cells)
        return f"{'event at' if event else 'none until'} {repr(time).removesuffix('.0')}"

    def evaluate(
        self,
        rows: Sequence[Mapping[str, Any]],
        patients: Sequence[str],
        *,
        sites: Sequence[str | None] | None = None,
        folds: Sequence[str | None] | None = None,
    ) -> dict[str, Any]:
        from pipeline.statistics.survival import evaluate_survival

        times, events, risks = ([row[name] for row in rows] for name in ("label_time", "label_event", RISK))
        return evaluate_survival(times, events, risks, patients, sites=sites, folds=folds)

    def difference(
        self, rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], patients: Sequence[str]
    ) -> Difference | None:
        from pipeline.statistics.paired import concordance_difference

        times, events, one = ([row[name] for row in rows] for name in ("label_time", "label_event", RISK))
        return concordance_difference(times, events, one, [row[RISK] for row in others], patients)


@dataclass(frozen=True, slots=True)
class DiscreteSurvival(Survival):
    """A risk, and the chance to be without the event at the end of each interval: see `HazardReadout`."""

    kind: ClassVar[Kind] = "discrete_survival"
    unit: ClassVar[str] = "log-odds of the hazard"

    @property
    def values(self) -> tuple[str, ...]:
        return (RISK, *(f"survival_{time:g}" for time in self.times))

    @property
    def meaning(self) -> str:
        return (
            "survival_t is the chance to be without the event until time t. A risk is what it follows from: log-odds "
            "to have the event in an interval if not before: 0.69 more is twice these odds in each."
        )

    @property
    def shown(self) -> tuple[int, ...]:
        return tuple(range(len(self.values)))

    def is_chance(self, name: str) -> bool:
        return name != RISK
