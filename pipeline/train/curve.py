"""The course of a training, epoch by epoch: losses, what validation slides say, and whose weights are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.output.table import write_table
from pipeline.statistics.metrics import evaluate
from stages.prediction.readout import ClassReadout, Readout

SMOOTH = 3
"""Epochs that the losses of a validation slide are averaged over before epochs are compared."""
COLUMNS = ("epoch", "loss", "error", "val_loss", "val_auroc", "out_of_bag_loss")

Keep = Literal["best", "last"]


@dataclass
class Curve:
    """A training's epochs, and which of them is kept.

    The validation loss of a few slides is noise: the slides' losses are averaged over `SMOOTH` epochs, and an epoch is
    kept where it is the lowest so far, or no higher than the lowest by more than one standard error of the paired
    differences between slides. So the last epoch, whose step size has come down, stays unless another is better by
    more than noise.

    Attributes:
        keep: "best" as told, where there are validation slides; else "last".
        patience: epochs without a lower validation loss after which the training ends; None: it never does.
        rows: of the epochs, by `COLUMNS`; losses in nats.
        kept: the epoch, from 1, whose weights are kept; 0 before the first.
        lowest: the epoch of the lowest loss; 0 where there is none.
        base: loss of one who knows the frequencies of labels and no more; None: not known.
    """

    keep: Keep = "last"
    patience: int | None = None
    base: float | None = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    kept: int = 0
    lowest: int = 0
    _recent: list[Tensor] = field(default_factory=list)
    _best: Tensor | None = None

    def add(self, *, loss: float, error: float, val: Tensor | None, auroc: float | None, unseen: float | None) -> bool:
        """Enter an epoch, and say whether its weights are to be kept.

        Args:
            loss: mean over the training slides.
            error: its standard error.
            val: loss of each validation slide (n,), NaN of one that could not be read; None: there are none.
            auroc: theirs.
            unseen: loss of members on the slides that they are not fitted to; None: there are no such.
        """
        known = None if val is None or bool(val.isnan().all()) else val
        epoch = len(self.rows) + 1
        told = None if known is None else float(known.nanmean())
        values = (epoch, loss, error, told, auroc, unseen)
        self.rows.append(dict(zip(COLUMNS, values, strict=True)))
        if known is None or self.keep == "last":
            self.kept = epoch
        if known is not None:
            self._compare(epoch, known)
        return self.kept == epoch

    @property
    def over(self) -> bool:
        """Whether it is time to stop."""
        return self.patience is not None and self.lowest > 0 and len(self.rows) - self.lowest >= self.patience

    @property
    def losses(self) -> tuple[float, float] | None:
        """Training loss of the kept epoch, and its standard error."""
        if not self.kept:
            return None
        row = self.rows[self.kept - 1]
        return row["loss"], row["error"]

    @property
    def overfitting(self) -> str | None:
        """That the training loss went on falling while the loss of slides that are not fitted to rose, in words; None
        where it did not.

        Means over `SMOOTH` epochs are compared, the last and those at the lowest. The rise counts beyond two standard
        errors of the paired differences between validation slides, or, out of bag, beyond one of the training loss.
        """
        key, what = next(
            ((k, w) for k, w in (("val_loss", "validation"), ("out_of_bag_loss", "out of bag")) if self._tells(k)),
            (None, ""),
        )
        if key is None:
            return None
        rows = [row for row in self.rows if row[key] is not None]
        unseen, fitted = (_smooth([row[name] for row in rows]) for name in (key, "loss"))
        low = min(range(len(unseen)), key=unseen.__getitem__)
        noise = 2 * self._above()[1] if key == "val_loss" else rows[-1]["error"]
        if not (unseen[-1] - unseen[low] > noise and fitted[-1] < fitted[low]):
            return None
        since = rows[low + SMOOTH - 1]["epoch"]
        return (
            f"overfitting: after epoch {since} the training loss fell from {fitted[low]:.3f} to {fitted[-1]:.3f}, "
            f"while that of {what} rose from {unseen[low]:.3f} to {unseen[-1]:.3f}"
        )

    def write(self, path: Path) -> None:
        """As CSV, a row an epoch."""
        write_table(path, self.rows, COLUMNS)

    def state(self) -> dict[str, Any]:
        """What going on with it takes."""
        names = ("rows", "kept", "lowest", "_recent", "_best")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with what an interrupted training entered."""
        for name, value in state.items():
            setattr(self, name, value)

    def _compare(self, epoch: int, val: Tensor) -> None:
        self._recent = [*self._recent, val][-SMOOTH:]
        smooth = torch.stack(self._recent).nanmean(0)
        above, noise = self._above()
        if self._best is None or above < 0:
            self._best, self.lowest = smooth, epoch
        elif above > noise:
            return
        if self.keep == "best":
            self.kept = epoch

    def _above(self) -> tuple[float, float]:
        """How far the validation loss is above the lowest, and the standard error of that."""
        if self._best is None:
            return 0.0, 0.0
        higher = torch.stack(self._recent).nanmean(0) - self._best
        higher = higher[~higher.isnan()]
        noise = float(higher.std() / len(higher) ** 0.5) if len(higher) > 1 else 0.0
        return (float(higher.mean()) if len(higher) else 0.0), noise

    def _tells(self, key: str) -> bool:
        return sum(row[key] is not None for row in self.rows) > 2 * SMOOTH


def _smooth(values: Sequence[float]) -> list[float]:
    """Means over `SMOOTH` of them that follow each other."""
    return [sum(values[i : i + SMOOTH]) / SMOOTH for i in range(len(values) - SMOOTH + 1)]


def of_validation(logits: Tensor, targets: Tensor, readout: Readout) -> tuple[Tensor, float | None]:
    """Losses (n,) and, of classes, AUROC of slides of known targets (n, ...) by their logits (n, K); NaN where these
    are."""
    read = ~logits.isnan().any(1)
    losses = torch.full((len(logits),), torch.nan)
    if not bool(read.any()):
        return losses, None
    losses[read] = readout.nll(logits[read][:, None], targets[read], torch.ones(int(read.sum()), 1))[:, 0].to(losses)
    if not isinstance(readout, ClassReadout):
        return losses, None
    labels = targets
    names = [str(i) for i in range(logits.shape[1])]
    told = [names[i] for i in labels[read].tolist()]
    found = evaluate(told, logits[read].double().softmax(1).numpy(), [str(i) for i in range(len(told))], names)
    return losses, found["auroc"]["value"]
