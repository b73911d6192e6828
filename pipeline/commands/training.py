"""The training of a model, and what it came to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.commands.arguments import AnyPath
from pipeline.errors import computing
from stages.amounts import apart


@dataclass(frozen=True, slots=True)
class TrainSummary:
    """What a training came to; a notebook shows its metrics.

    Attributes:
        model: the checkpoint.
        excluded: why slides were left out, by their names.
        metrics: of each held-out part ("val" and "test", or "cross-validation"; of a model on a frozen encoder
            "out-of-bag", too), as metrics.json has them.
        learned: whether the model tells its classes apart better than chance: "yes", "no" or "unclear".
        reason: why that is said.
    """

    model: Path
    excluded: dict[str, str]
    metrics: dict[str, dict[str, Any]] = field(repr=False)
    learned: str = field(repr=False)
    reason: str = field(repr=False)

    def _repr_html_(self) -> str:
        from stages.html import table

        def cells(value: Any) -> str:
            if not isinstance(value, dict):
                return f"{value:.3f}" if isinstance(value, float) else str(value)
            if set(value) != {"value", "low", "high"}:  # slides of each class, whatever it is called
                return ", ".join(f"{count} {apart(name)}" for name, count in value.items())
            if value.get("low") is None:
                return str(value.get("value"))
            return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"

        rows = [
            (part, name, cells(value))
            for part, told in self.metrics.items()
            for name, value in told.items()
            if name not in ("sites", "folds", "curves", "patients_needed")
        ]
        rows += [("learned", self.learned, self.reason)]
        rows += [("left out", slide, reason) for slide, reason in self.excluded.items()]
        return table(rows, header=("slides", "metric", "value (95 % interval)"), caption=str(self.model))


@computing()
def train(
    config: AnyPath,
    *,
    out: AnyPath,
    overrides: Sequence[str] = (),
    strict: bool = False,
    verify: bool = False,
    say: Callable[[str], None] | None = None,
    command: Sequence[str] = ("saccade.train",),
) -> TrainSummary:
    """Train on a cohort of slides with slide-level labels, and write `model.safetensors`, splits and metrics.

    A rerun goes on where an earlier one stopped.

    Args:
        config: the configuration (YAML); configs/default.yaml explains every field.
        out: the folder for what is written; made where it is missing.
        overrides: values of the configuration in place of the file's, such as "sampling.samples=64".
        strict: leave out slides whose objective or TIFF tags contradict their resolution, instead of a warning.
        verify: read every byte of every slide: an earlier model stands only where the digests are those it recorded.
        say: called with each line about how far it is, such as `print`; train.log has them, too.
        command: what train.log records as the command.

    Raises:
        UsageError: the configuration, the cohort table or the folder cannot be used.

    Examples:
        >>> import saccade
        >>> summary = saccade.train("config.yaml", out="training", overrides=["training.epochs=1"])
        >>> summary.metrics["test"]["slides"], summary.excluded
        (2, {})
        >>> saccade.load_model(summary.model).spec.classes
        ('a', 'b')
    """
    from pipeline.config import load_config

    loaded = load_config(Path(config), overrides)
    from pipeline.train.train import train_cohort

    quiet = say or (lambda line: None)
    metrics = train_cohort(loaded, Path(out), say=quiet, strict=strict, verify=verify, command=command)
    parts = {
        name: told
        for name, told in metrics.items()
        if name not in ("task", "classes", "slides", "excluded", "threshold", "learned", "reason")
    }
    told = (metrics["excluded"], parts, metrics["learned"], metrics["reason"])
    return TrainSummary(Path(out) / "model.safetensors", *told)
