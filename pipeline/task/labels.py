"""Several labels at once, each of them present or not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.task.task import Cells, Floats, Task, chance_in_words
from stages.amounts import apart

if TYPE_CHECKING:
    from pipeline.statistics.paired import Difference
    from stages.prediction.kinds import Kind

PRESENT = ("1", "1.0", "true", "yes", "y", "positive", "pos", "present", "+")
ABSENT = ("0", "0.0", "false", "no", "n", "negative", "neg", "absent")


@dataclass(frozen=True, slots=True)
class Labels(Task):
    """Several labels at once; an empty cell says that nobody looked."""

    kind: ClassVar[Kind] = "multilabel"

    @property
    def reading(self) -> str:
        return f"labels from {', '.join(map(repr, self.names))}"

    @property
    def statements(self) -> int:
        return len(self.names)

    def predicted(self, values: Sequence[float]) -> str:
        return "; ".join(name for name, p in zip(self.names, values, strict=True) if p >= 0.5) or "none"

    def is_told(self, predicted: object) -> bool:
        return isinstance(predicted, str)

    def column_of(self, predicted: str | float) -> int:
        first = str(predicted).split("; ")[0]
        return self.names.index(first) if first in self.names else 0

    def in_words(self, values: Sequence[float], low: Sequence[float], high: Sequence[float], *, exact: bool) -> str:
        parts = zip(self.names, values, low, high, strict=True)
        return ", ".join(chance_in_words(apart(name), p, *ends, exact=exact) for name, p, *ends in parts)

    def target(self, cells: Cells) -> list[float]:
        return [self._one(name, cell) for name, cell in zip(self.names, cells, strict=True)]

    def _one(self, name: str, cell: str | None) -> float:
        if cell is None:
            return math.nan
        if cell.casefold() in PRESENT:
            return 1.0
        if cell.casefold() in ABSENT:
            return 0.0
        raise ValueError(f"{name} must be 1, 0 or empty, found {cell!r}")

    def unlearnable(self, targets: Sequence[Any]) -> str | None:
        for i, name in enumerate(self.names):
            values = {row[i] for row in targets if not math.isnan(row[i])}
            if len(values) < 2:
                only = "empty" if not values else f"{values.pop():.0f}"
                return f"column {name!r} is {only} for every slide: leave it out of cohort.labels"
        return None

    def stratum(self, cells: Cells) -> str:
        return "".join("?" if math.isnan(one) else f"{one:.0f}" for one in self.target(cells))

    @property
    def label_columns(self) -> tuple[str, ...]:
        return tuple(f"label_{name}" for name in self.names)

    def label_row(self, cells: Cells) -> dict[str, Any]:
        return dict(zip(self.label_columns, self.target(cells), strict=True))

    def label_in_words(self, cells: Cells) -> str:
        told = [name for name, one in zip(self.names, self.target(cells), strict=True) if one == 1]
        return "; ".join(told) or "none"

    def apart(self, values: Floats, others: Floats) -> Floats:
        """``|p - q|``, mean over the labels."""
        found: Floats = np.abs(values - others).mean(-1)
        return found

    def alike(self, values: Floats, others: Floats) -> NDArray[np.bool_]:
        """Whether all labels are on the same side of .5."""
        found: NDArray[np.bool_] = ((values >= 0.5) == (others >= 0.5)).all(-1)
        return found

    def evaluate(
        self,
        rows: Sequence[Mapping[str, Any]],
        patients: Sequence[str],
        *,
        sites: Sequence[str | None] | None = None,
        folds: Sequence[str | None] | None = None,
    ) -> dict[str, Any]:
        from pipeline.statistics.multilabel import evaluate_multilabel

        return evaluate_multilabel(
            self._labels_in(rows), self.told_in(rows), patients, self.names, sites=sites, folds=folds
        )

    def difference(
        self, rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], patients: Sequence[str]
    ) -> Difference | None:
        from pipeline.statistics.paired import multilabel_difference

        return multilabel_difference(self._labels_in(rows), self.told_in(rows), self.told_in(others), patients)

    def _labels_in(self, rows: Sequence[Mapping[str, Any]]) -> list[list[float]]:
        return [[row[f"label_{name}"] for name in self.names] for row in rows]
