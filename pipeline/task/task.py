"""What kind of label a model predicts: how it is read from a table, what is told of a slide, and how good that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pipeline.errors import UsageError
from stages.amounts import counted
from stages.prediction.chance import brief_chance, stated, with_interval

if TYPE_CHECKING:  # commands that predict nothing need no torch
    from torch import Tensor

    from stages.prediction.kinds import Kind

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
        metric: what says first how good predictions are.
        metrics: keys of all scores that `evaluate` gives.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...] = ()
    times: tuple[float, ...] = ()
    kind: ClassVar[Kind]
    unit: ClassVar[str] = "log-odds"
    chances: ClassVar[bool] = True
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

    def stratum(self, cells: Cells) -> str:
        """What a slide is dealt out to folds by, as even as may be."""
        raise NotImplementedError

    def label_row(self, cells: Cells) -> dict[str, Any]:
        """A label's cells of a table."""
        return {"label": cells[0]}

    def label_in_words(self, cells: Cells) -> str:
        """A label in a phrase."""
        return ", ".join("" if cell is None else cell for cell in cells)

    def agrees(self, predicted: str | float, cells: Cells) -> bool | None:
        """Whether a prediction is the label; None where that is no question of yes or no."""
        return None

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

    def told_of(self, metrics: Mapping[str, Any]) -> str:
        """What `evaluate` found, in one line."""
        return scores_in_words(metrics, self.metrics)


def chance_in_words(name: str, value: float, low: float, high: float, *, exact: bool) -> str:
    """A class's probability in a phrase."""
    told = f"{brief_chance(value)}, exact: every cell was read" if exact else with_interval(value, low, high)
    return f"{name} {told}"


def scores_in_words(metrics: Mapping[str, Any], names: Sequence[str], *, who: bool = True) -> str:
    """Scores of so many slides with their intervals, in one line."""
    told = [
        f"{name} {score['value']:.3f}" + ("" if score["low"] is None else f" [{score['low']:.3f}, {score['high']:.3f}]")
        for name, score in ((name, metrics[name]) for name in names)
        if score["value"] is not None
    ]
    found = ", ".join(told) or "nothing can be compared"
    if not who:
        return found
    return f"{counted(metrics['slides'], 'slide')} of {counted(metrics['patients'], 'patient')}: {found}"


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
