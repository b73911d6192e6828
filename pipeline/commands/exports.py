"""A run's slides in the formats of other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.arguments import AnyPath

if TYPE_CHECKING:
    from pipeline.export.export import ExportSummary, Progress


def export(
    run: AnyPath,
    format: str | Sequence[str],
    *,
    out: AnyPath | None = None,
    only: Sequence[str] = (),
    slides: Sequence[AnyPath] = (),
    progress: Progress | None = None,
) -> ExportSummary:
    """Write the slides of a run in formats that other programs open.

    A slide that cannot be written fails by itself, and the others go on. Nothing that Saccade did not write is
    replaced.

    Args:
        run: the folder that `run` wrote.
        format: a name, such as "qupath", or several; docs/exports.md says what each holds and what opens it.
        out: where each format gets a folder of its name; default: `export` in the run's folder.
        only: names (`slide_id`) of the slides to export; default: all of the run.
        slides: folders that slides lie in by now, where they were moved: some formats hold what only the slide tells.
        progress: called with (slides finished, slides in all, a line about the last one).

    Raises:
        UsageError: nothing was written, because there is no such run, format or slide, or ``out`` cannot be used.
        ImportError: a package that a format needs is missing.
    """
    from pipeline.export.export import export_run

    return export_run(
        Path(run),
        [format] if isinstance(format, str) else list(format),
        out=None if out is None else Path(out),
        only=only,
        slides=[Path(folder) for folder in slides],
        **({} if progress is None else {"progress": progress}),
    )
