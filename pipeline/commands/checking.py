"""The search for what is wrong with slides and their table."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.arguments import AnyPath
from pipeline.errors import UsageError
from stages.disk import refusal
from stages.place import place

if TYPE_CHECKING:
    from pipeline.check.values import CheckSummary
    from pipeline.run.run import Progress

CONFIGURATIONS = (".yaml", ".yml")
"""How the configuration of a training is called."""


def check(
    target: AnyPath,
    *,
    model: AnyPath | None = None,
    label: str = "label",
    root: AnyPath | None = None,
    mpp: float | None = None,
    strict: bool = False,
    csv: AnyPath | None = None,
    template: AnyPath | None = None,
    workers: int | None = None,
    limit: float | None = None,
    progress: Progress | None = None,
) -> CheckSummary:
    """Look for what is wrong with slides and their table before hours of work: open and sample every one of them.

    Of each slide a few tiles of every level, the thumbnail and its tissue are read. What is wrong is a finding: an
    error where `run` or `train` would fail or be misled, else a warning.

    Args:
        target: a slide, a folder (searched for slides) or a cohort table, by its path; or a training's configuration
            (`.yaml`), of which the table is checked, and what the training would refuse before it reads a slide.
        model: a checkpoint's path, or its folder's, whose scales slides are checked for and whose cost is estimated.
        label: see `read_cohort`; a configuration says itself.
        root: see `read_cohort`; a configuration says itself.
        mpp: see `run`.
        strict: a resolution that the objective or TIFF tags contradict is an error, instead of a warning.
        csv: a file for all of it, a row a slide.
        template: a file for a cohort table of all slides, with the columns to fill in.
        workers: see `run`.
        limit: see `run`.
        progress: called with (slides finished, slides in all, a line about the last one where something is wrong).

    Raises:
        UsageError: the target or the model cannot be used at all, or a file cannot be written.

    Examples:
        >>> import saccade
        >>> summary = saccade.check("slides", workers=0)
        >>> summary.counts, summary.failed
        ({'ok': 3, 'warning': 0, 'error': 0}, False)
    """
    from pipeline.check.check import check_cohort
    from pipeline.check.slide import CheckSettings
    from pipeline.check.tables import write_findings, write_template
    from pipeline.cohort.target import examine_target

    unsearched: list[str] = []
    where, folder, config = place(target), None if root is None else Path(root), None
    asked: dict[str, Any] = {"label": label, "root": folder}
    if isinstance(where, Path) and where.suffix.lower() in CONFIGURATIONS:
        from pipeline.config import load_config

        if label != "label" or root is not None:
            raise UsageError(f"{where} says where labels and slides are: leave out label and root")
        config = load_config(where)
        told = config.cohort
        where = told.table
        asked = {"label": told.label, "root": told.slides, "columns": told.columns, "bags": told.bags}
    cohort, faults = examine_target(where, **asked, told=unsearched.append)
    summary = check_cohort(
        cohort,
        CheckSettings(mpp, strict),
        faults=faults,
        unsearched=tuple(unsearched),
        model=None if model is None else Path(model),
        config=config,
        workers=workers,
        limit=limit,
        progress=progress,
    )
    for path, write in ((csv, write_findings), (template, partial(write_template, cohort=cohort))):
        if path is not None:
            try:
                write(summary, path=Path(path))
            except OSError as exc:
                raise UsageError(f"cannot write {path}: {refusal(exc, Path(path), writing=True)}") from exc
    return summary
