"""What kind of label a model predicts: how it is read from a table, what is told of a slide, and how good that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError
from stages.prediction.chance import brief_chance, stated, with_interval

if TYPE_CHECKING:  # commands that predict nothing need no torch
    from torch import Tensor

    from pipeline.statistics.paired import Difference
    from stages.prediction.kinds import Kind

ALIKE = 0.2
"""Standard deviations among slides within which two numbers are alike: errors of which 99 % are within it, .08 of them
in the mean square, lower a correlation by .3 %."""
Floats = NDArray[np.float64]

Cells = Sequence[str | None]
"""A slide's label as it stands in the table: a text for each column that holds it, None where there is none."""


class Metric(NamedTuple):
    """What says first how good predictions are: its key in what `Task.evaluate` gives, its name, its value by chance,
    and the least that a model would be of use with."""

    key: str
    name: str
    chance: float
    useful: float


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of label and the names that belong to it; each kind is a class of its own.

    Attributes:
        names: of the classes, labels or grades; else of the values that are told.
        labels: columns of the table that hold the label; empty: the one that is called so.
        times: ends of the intervals of discrete survival.
        kind: as `stages.prediction.readout` has it.
        unit: what contributions of patches are in.
        chances: whether values are probabilities.
        of_patient: whether a label is the patient's, and the same for all of his slides.
        metric: what says first how good predictions are.
        metrics: keys of all scores that `evaluate` gives.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...] = ()
    times: tuple[float, ...] = ()
    kind: ClassVar[Kind]
    unit: ClassVar[str] = "log-odds"
    chances: ClassVar[bool] = True
    of_patient: ClassVar[bool] = False
    metric: ClassVar[Metric] = Metric("auroc", "AUROC", 0.5, 0.8)
    metrics: ClassVar[tuple[str, ...]] = ("auroc", "auroc_within_folds", "auprc", "f1", "balanced_accuracy")

    # -- what is told --------------------------------------------------------------------------------------------

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the values that are told, in their order."""
        return self.names

    @property
    def columns(self) -> tuple[str, ...]:
        """The values' columns of tables; the ends of their intervals are called so with ``_low`` and ``_high``."""
        return tuple(f"prob_{name}" for name in self.values)

    @property
    def statistics(self) -> tuple[str, ...]:
        """What each statistic of the read-out speaks for."""
        return self.names

    @property
    def statements(self) -> int:
        """Intervals that are not told by each other: see `Readout.statements`."""
        return 1

    @property
    def confidence(self) -> str:
        """How sure intervals are, in a phrase."""
        return stated(self.statements, "labels" if self.kind == "multilabel" else "classes")

    @property
    def meaning(self) -> str:
        """What values mean, in a sentence, where their names do not say it."""
        return ""

    @property
    def shown(self) -> tuple[int, ...]:
        """The values that say all, by their place."""
        return tuple(range(len(self.values)))

    def predicted(self, values: Sequence[float]) -> str | float:
        """What stands in the column ``predicted``."""
        raise NotImplementedError

    def is_told(self, predicted: object) -> bool:
        """Whether this may stand in the column ``predicted``."""
        return isinstance(predicted, int | float)

    def column_of(self, predicted: str | float) -> int:
        """The statistic whose evidence is shown for a prediction, by its place."""
        return 0

    def in_words(self, values: Sequence[float], low: Sequence[float], high: Sequence[float], *, exact: bool) -> str:
        """A prediction in a phrase, with the interval of what it says first."""
        raise NotImplementedError

    # -- what may be decided -------------------------------------------------------------------------------------

    @property
    def decided(self) -> dict[str, str]:
        """What `--decide` may be about: how it is named, and told; in the order of `Readout.threshold`."""
        return {name: name for name in self.values}

    @property
    def decided_first(self) -> str | None:
        """What `--decide` is about unless another is named; None: one has to be."""
        return self.values[0] if len(self.values) == 1 else None

    def is_chance(self, name: str) -> bool:
        """Whether one of `decided` is a probability."""
        return self.chances

    def row(self, values: Sequence[float], low: Sequence[float], high: Sequence[float]) -> dict[str, Any]:
        """The prediction's cells of a table."""
        told = {"predicted": self.predicted(values)}
        for ends, numbers in (("", values), ("_low", low), ("_high", high)):
            told |= dict(zip((f"{column}{ends}" for column in self.columns), numbers, strict=True))
        return told

    @property
    def reading(self) -> str:
        """What labels are taken for, in a phrase."""
        return f"labels are {WORDS[self.kind]}: {', '.join(self.names)}"

    # -- labels --------------------------------------------------------------------------------------------------

    def target(self, cells: Cells) -> float | int | list[float]:
        """What a read-out takes a label for.

        Raises:
            ValueError: the text is no such label; says what it should be.
        """
        raise NotImplementedError

    def tensor(self, labels: Sequence[Cells]) -> Tensor:
        """Targets of slides as the read-out has them."""
        import torch

        found = [self.target(cells) for cells in labels]
        whole = isinstance(found[0], int) if found else False
        return torch.tensor(found, dtype=torch.int64 if whole else torch.float64)

    def unlearnable(self, targets: Sequence[Any]) -> str | None:
        """Why nothing can be learnt of a cohort's targets, in a clause: all alike, no event, grades that nobody has;
        None where something can."""
        return None

    def rank(self, cells: Cells) -> float | None:
        """What slides of one stratum differ by in size, and folds are to hold evenly, too; None: by nothing."""
        return None

    def unjudged(self, targets: Sequence[Any]) -> str | None:
        """What slides of such targets lack, in a phrase, so that how good predictions of them are cannot be told; None
        where nothing is known to be lacking."""
        return None

    def stratum(self, cells: Cells) -> str:
        """What a slide is dealt out to folds by, as even as may be."""
        raise NotImplementedError

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Columns of a table that hold a label."""
        return ("label",)

    def label_row(self, cells: Cells) -> dict[str, Any]:
        """A label's cells of a table, by `label_columns`."""
        return {"label": cells[0]}

    def label_in_words(self, cells: Cells) -> str:
        """A label in a phrase."""
        return ", ".join("" if cell is None else cell for cell in cells)

    def agrees(self, predicted: str | float, cells: Cells) -> bool | None:
        """Whether a prediction is the label; None where that is no question of yes or no."""
        return None

    def told_in(self, rows: Sequence[Mapping[str, Any]]) -> list[list[float]]:
        """What rows of tables tell in `columns`."""
        return [[row[column] for column in self.columns] for row in rows]

    # -- how good ------------------------------------------------------------------------------------------------

    def evaluate(
        self,
        rows: Sequence[Mapping[str, Any]],
        patients: Sequence[str],
        *,
        sites: Sequence[str | None] | None = None,
        folds: Sequence[str | None] | None = None,
    ) -> dict[str, Any]:
        """How good predictions are, as `pipeline.statistics` tells it of each kind; rows hold `row` and `label_row`.

        Args:
            rows: of slides.
            patients: whose they are.
            sites, folds: where they are from, and by which fold's model they were told; None where nobody says.
        """
        raise NotImplementedError

    def difference(
        self, rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], patients: Sequence[str]
    ) -> Difference | None:
        """By how much `metric` of one model's rows is above that of another's; None where it is not defined.

        Args:
            rows, others: of the same slides, as `evaluate` takes them.
            patients: whose they are.
        """
        raise NotImplementedError

    def apart(self, values: Floats, others: Floats) -> Floats:
        """How far predictions (..., T) are from others, (...), in `apart_in`: the difference of what is told first."""
        found: Floats = np.abs(values[..., 0] - others[..., 0])
        return found

    def alike(self, values: Floats, others: Floats) -> NDArray[np.bool_]:
        """Whether predictions (slides, draws, T) come to the same as others (slides, 1, T), (slides, draws): numbers,
        that are within `ALIKE` standard deviations, among the slides, of the others."""
        near: NDArray[np.bool_] = self.apart(values, others) <= ALIKE * others[..., 0].std()
        return near

    @property
    def apart_in(self) -> str:
        """What `apart` is in."""
        return "probability" if self.chances else self.unit

    @property
    def alike_by(self) -> str:
        """What `alike` calls the same, in a phrase, of several."""
        return "decisions" if self.chances else f"predictions within {ALIKE:g} standard deviations"

    def told_of(self, metrics: Mapping[str, Any]) -> str:
        """What `evaluate` found, in one line."""
        from pipeline.statistics.metrics import SCORES, in_words

        return in_words(metrics, [name for name in self.metrics if name in SCORES])


def chance_in_words(name: str, value: float, low: float, high: float, *, exact: bool) -> str:
    """A class's probability in a phrase."""
    told = f"{brief_chance(value)}, exact: every cell was read" if exact else with_interval(value, low, high)
    return f"{name} {told}"


def number_in_words(value: float) -> str:
    """A number to the digits that a reader takes in."""
    return f"{value:.4g}"


def number(text: str | None, what: str) -> float:
    """A label's number.

    Raises:
        ValueError: it is none, or not finite.
    """
    import math

    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{what} must be a number, found {told(text)}")
    return value


def told(text: str | None) -> str:
    """What stands in a cell, for a message."""
    return "nothing" if text is None else repr(text)


def refuse_untold(task: Task, what: str) -> None:
    """Refuse what is only told of classes.

    Raises:
        UsageError: the task's label is another.
    """
    if task.kind != "classification":
        raise UsageError(f"{what} is told of classes, and this model predicts {WORDS[task.kind]}")


WORDS = {
    "classification": "classes",
    "multilabel": "several labels at once",
    "ordinal": "grades",
    "regression": "a value",
    "survival": "a risk",
    "discrete_survival": "a risk over time",
}
"""What a model predicts, in a phrase."""
