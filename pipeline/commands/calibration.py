"""The calibration of a model's calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.arguments import AnyPath, check_reading
from pipeline.commands.slides import given_cohort
from pipeline.errors import computing

if TYPE_CHECKING:
    from pipeline.cohort.cohort import Cohort
    from pipeline.conformalize import ConformalSummary


@computing()
def conformalize(
    model: AnyPath,
    target: Cohort | AnyPath,
    *,
    out: AnyPath,
    label: str = "label",
    split: str | None = None,
    samples: int | None = None,
    strict: bool = False,
    seed: int = 0,
    device: str = "auto",
    encoder_weights: AnyPath | None = None,
    features: AnyPath | None = None,
    say: Callable[[str], None] | None = None,
) -> ConformalSummary:
    """Calibrate a model's calls on labelled slides of patients that it was not trained on, and write it with them.

    The model that is written predicts as before; with ``refer``, `predict` and `run` also call or refer. A training
    with slides of split val has done this by itself.

    Args:
        model: the checkpoint's path, or its folder's.
        target: a cohort table with labels, by its path; or what `read_cohort` gave.
        out: the new checkpoint (`.safetensors`), or a folder for it.
        label: the table's column of labels; by default the one that the model learnt from, where the table has it.
        split: only slides of this part of the table, such as "val".
        samples: a number of patches that runs will ask for, beside those that are calibrated anyway.
        strict: leave out slides whose objective or TIFF tags contradict their resolution, instead of a warning.
        seed: of the draws.
        device: see `load_model`.
        encoder_weights: see `load_model`.
        features: see `run`.
        say: called with each line about how far it is, such as `print`.

    Raises:
        UsageError: the model was trained on one of the slides, a class has none, or the target, the model or the place
            cannot be used.

    Examples:
        >>> import saccade
        >>> model = saccade.train("config.yaml", out="training", overrides=["training.epochs=1"]).model
        >>> summary = saccade.conformalize(model, "cohort.csv", out="calibrated", split="test")
        >>> summary
        ConformalSummary(slides=2, patients=2, patients_of={'a': 1, 'b': 1}, least_error=0.333)
        >>> prediction = saccade.predict("s4.tif", summary.model, refer=0.4)
        >>> prediction.label_set.call in ("a", "b", "refer")
        True
    """
    check_reading(samples, None, None, None, None)
    cohort = given_cohort(target, label=label)
    from pipeline.conformalize import conformalize_model

    return conformalize_model(
        Path(model),
        cohort,
        Path(out),
        split=split,
        samples=samples,
        strict=strict,
        seed=seed,
        device=device,
        encoder_weights=None if encoder_weights is None else Path(encoder_weights),
        features=None if features is None else Path(features),
        say=say or (lambda line: None),
    )
