"""A number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.task.task import Cells, Metric, Task, number

if TYPE_CHECKING:
    from pipeline.statistics.paired import Difference
    from stages.prediction.kinds import Kind


@dataclass(frozen=True, slots=True)
class Value(Task):
    """A number, in the unit of its column."""

    names: tuple[str, ...] = ("value",)
    kind: ClassVar[Kind] = "regression"
    unit: ClassVar[str] = "standard deviations of the label"
    chances: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = ("pearson", "spearman", "r2", "mae", "rmse")
    metric: ClassVar[Metric] = Metric("pearson", "correlation", 0.0, 0.5)

    @property
    def reading(self) -> str:
        return "labels are numbers (regression)"

    @property
    def columns(self) -> tuple[str, ...]:
        return self.names

    def predicted(self, values: Sequence[float]) -> float:
        return float(values[0])

    def in_words(self, values: Sequence[float], low: Sequence[float], high: Sequence[float], *, exact: bool) -> str:
        return f"{self.names[0]} {numbers_in_words(values[0], low[0], high[0], exact=exact)}"

    def target(self, cells: Cells) -> float:
        return number(cells[0], "the label")

    def unlearnable(self, targets: Sequence[Any]) -> str | None:
        return f"every label is {targets[0]:g}: nothing can be learnt of one value" if len(set(targets)) == 1 else None

    def rank(self, cells: Cells) -> float:
        return self.target(cells)

    def stratum(self, cells: Cells) -> str:
        return ""  # by their size alone

    def label_row(self, cells: Cells) -> dict[str, Any]:
        return {"label": self.target(cells)}

    @property
    def apart_in(self) -> str:
        return "the label's unit"

    def evaluate(
        self,
        rows: Sequence[Mapping[str, Any]],
        patients: Sequence[str],
        *,
        sites: Sequence[str | None] | None = None,
        folds: Sequence[str | None] | None = None,
    ) -> dict[str, Any]:
        from pipeline.statistics.regression import evaluate_regression

        values, predictions = ([row[name] for row in rows] for name in ("label", self.columns[0]))
        return evaluate_regression(values, predictions, patients, sites=sites, folds=folds)

    def difference(
        self, rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], patients: Sequence[str]
    ) -> Difference | None:
        from pipeline.statistics.paired import correlation_difference

        values = [row["label"] for row in rows]
        one, other = ([row[self.columns[0]] for row in each] for each in (rows, others))
        return correlation_difference(values, one, other, patients)


def numbers_in_words(value: float, low: float, high: float, *, exact: bool) -> str:
    """A number with its interval, to the digits that the interval leaves."""
    if exact:
        return f"{value:.4g}, exact: every cell was read"
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"
