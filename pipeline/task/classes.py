"""One of several classes, or one of several grades that have an order."""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Classes(Task):
    """One of several classes; of two the last is the positive."""

    kind: ClassVar[Kind] = "classification"

    @property
    def statements(self) -> int:
        return len(self.names) if len(self.names) > 2 else 1

    @property
    def shown(self) -> tuple[int, ...]:
        return (1,) if len(self.names) == 2 else tuple(range(len(self.names)))

    def predicted(self, values: Sequence[float]) -> str:
        return self.names[int(np.argmax(values))]

    def is_told(self, predicted: object) -> bool:
        return predicted in self.names

    def column_of(self, predicted: str | float) -> int:
        return 1 if len(self.names) == 2 else self.names.index(str(predicted))

    @property
    def decided_first(self) -> str | None:
        return self.names[1] if len(self.names) == 2 else None

    def in_words(self, values: Sequence[float], low: Sequence[float], high: Sequence[float], *, exact: bool) -> str:
        i = int(np.argmax(values))
        return chance_in_words(apart(self.names[i]), values[i], low[i], high[i], exact=exact)

    def target(self, cells: Cells) -> int:
        if cells[0] not in self.names:
            raise ValueError(f"the label must be one of {', '.join(self.names)}, found {cells[0]!r}")
        return self.names.index(cells[0])

    def stratum(self, cells: Cells) -> str:
        return str(cells[0])

    def agrees(self, predicted: str | float, cells: Cells) -> bool | None:
        return str(predicted) == cells[0]

    def apart(self, values: Floats, others: Floats) -> Floats:
        """``1/2 sum_c |p_c - q_c|``: of two classes ``|p - q|``."""
        found: Floats = 0.5 * np.abs(values - others).sum(-1)
        return found

    def alike(self, values: Floats, others: Floats) -> NDArray[np.bool_]:
        """Whether the same class is predicted: of two, the same side of .5."""
        found: NDArray[np.bool_] = values.argmax(-1) == others.argmax(-1)
        return found

    def evaluate(
        self,
        rows: Sequence[Mapping[str, Any]],
        patients: Sequence[str],
        *,
        sites: Sequence[str | None] | None = None,
        folds: Sequence[str | None] | None = None,
    ) -> dict[str, Any]:
        from pipeline.statistics.metrics import evaluate

        labels = [str(row["label"]) for row in rows]
        return evaluate(labels, self.told_in(rows), patients, self.names, sites=sites, folds=folds)

    def difference(
        self, rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], patients: Sequence[str]
    ) -> Difference | None:
        from pipeline.statistics.paired import auroc_difference

        classes = [self.names.index(str(row["label"])) for row in rows]
        return auroc_difference(classes, self.told_in(rows), self.told_in(others), patients)


@dataclass(frozen=True, slots=True)
class Grades(Classes):
    """One of several grades, from the least to the greatest."""

    kind: ClassVar[Kind] = "ordinal"
    metrics: ClassVar[tuple[str, ...]] = ("kappa", "mae", "auroc")

    @property
    def statements(self) -> int:
        return 1  # one number tells all of them

    @property
    def shown(self) -> tuple[int, ...]:
        return tuple(range(len(self.names)))

    @property
    def statistics(self) -> tuple[str, ...]:
        return (f"above {self.names[0]}",)

    @property
    def decided(self) -> dict[str, str]:
        return {name: f"at least {name}" for name in self.names[1:]}

    @property
    def decided_first(self) -> str | None:
        return None

    def column_of(self, predicted: str | float) -> int:
        return 0

    def unlearnable(self, targets: Sequence[Any]) -> str | None:
        lost = [name for i, name in enumerate(self.names) if i not in targets]
        return f"no slide has the grade {lost[0]!r} of cohort.grades: leave it out, or add patients" if lost else None

    def evaluate(
        self,
        rows: Sequence[Mapping[str, Any]],
        patients: Sequence[str],
        *,
        sites: Sequence[str | None] | None = None,
        folds: Sequence[str | None] | None = None,
    ) -> dict[str, Any]:
        from pipeline.statistics.ordinal import evaluate_ordinal

        grades = [self.names.index(str(row["label"])) for row in rows]
        return evaluate_ordinal(grades, self.told_in(rows), patients, self.names, sites=sites, folds=folds)

    def difference(
        self, rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], patients: Sequence[str]
    ) -> Difference | None:
        from pipeline.statistics.paired import ordinal_difference

        grades = [self.names.index(str(row["label"])) for row in rows]
        return ordinal_difference(grades, self.told_in(rows), self.told_in(others), patients)
