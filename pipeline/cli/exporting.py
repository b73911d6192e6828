"""The command that writes a run in the formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.lines import echo
from pipeline.errors import UsageError
from pipeline.progress import Progress


def export(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="Folder that `saccade run` wrote.")] = None,
    format: Annotated[
        str | None,
        typer.Option(metavar="NAME[,NAME]", help="Names of formats; without it, they are listed with what opens each."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder in which each format gets one of its name; default: export in the run's folder."),
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Name of a slide to export; several; default: all.")] = None,
    slides: Annotated[
        list[Path] | None, typer.Option(help="Folder that slides lie in by now, where they were moved; several.")
    ] = None,
) -> None:
    """Write a run for other programs.

    `saccade export` by itself lists the formats: what each holds, and what opens it.
    """
    if format is None:
        from pipeline.export.formats import FORMATS

        for name, one in FORMATS.items():
            echo(f"{name}\n  {one.holds}\n  {one.opened_by}")
        return
    if run is None:
        raise UsageError("RUN is missing: name the folder that `saccade run --out` wrote")
    from pipeline import commands

    names = [name.strip() for name in format.split(",") if name.strip()]
    with Progress("exporting") as progress:
        summary = commands.export(run, names, out=out, only=only or (), slides=slides or (), progress=progress)
    echo(summary.line)
    for name in summary.formats:
        echo(f"{name}: {summary.out / name}")
    raise typer.Exit(1 if summary.failed else 0)
