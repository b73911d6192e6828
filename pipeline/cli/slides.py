"""Commands that need no model: what a slide is, what is wrong with a cohort's, pyramids of them."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.lines import echo, peak, say
from pipeline.errors import UsageError
from pipeline.options import (
    FOUND,
    Disk,
    DryRunOption,
    FailFast,
    LimitOption,
    Memory,
    MppOption,
    RetryFailed,
    StrictOption,
    Target,
    Workers,
)
from pipeline.progress import Progress
from pipeline.run.interrupt import exit_code


class Profile(StrEnum):
    """What a pyramid holds."""

    AUTO = "auto"
    NATIVE = "native"
    PORTABLE = "portable"


class Ngff(StrEnum):
    """Versions of OME-Zarr that are written."""

    OLD = "0.4"
    NEW = "0.5"


def info(
    slide: Annotated[Path, typer.Argument(metavar="SLIDE", help="A slide file or a cached pyramid.")],
    mpp: MppOption = None,
    strict: StrictOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What a slide is, and what is wrong with it.

    Vendor, levels, resolution, tiles, bounds, warnings.
    """
    from pipeline.info import describe, render_text

    facts = describe(slide, mpp=mpp, strict=strict)
    if as_json:
        import json

        echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        echo(render_text(facts))


def check(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="SLIDES",
            help="A slide, a folder of slides, a cohort table (CSV) or a training's configuration (YAML), "
            "whose table is checked for what the training would refuse, too.",
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option(help="Check for this model's scales, too, and estimate what it will cost: bytes, time, disk."),
    ] = None,
    label: Annotated[str, typer.Option(help="The table's column of labels.")] = "label",
    mpp: MppOption = None,
    strict: StrictOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=FOUND)] = False,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", help="Write a table of what was found, a row a slide.", rich_help_panel=FOUND),
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option(
            "--fix-template",
            help="Write a cohort table of all slides, with the columns to fill in.",
            rich_help_panel=FOUND,
        ),
    ] = None,
    workers: Workers = None,
    limit: LimitOption = None,
) -> None:
    """Look for what is wrong with slides and table."""
    from pipeline import commands
    from pipeline.check.tables import render_text

    try:
        with Progress("checking") as progress:
            summary = commands.check(
                target,
                model=model,
                label=label,
                mpp=mpp,
                strict=strict,
                csv=csv,
                template=template,
                workers=workers,
                limit=limit,
                progress=progress,
            )
    except KeyboardInterrupt:
        say("saccade: interrupted; a check keeps nothing of the slides that it has looked at")
        sys.exit(exit_code())
    if as_json:
        import json

        from pipeline.output.documents import plain

        typer.echo(json.dumps(plain(summary.to_json()), indent=2))
    else:
        typer.echo(render_text(summary))
    raise typer.Exit(1 if summary.failed else 0)


def cache(
    target: Target,
    out: Annotated[Path, typer.Option(help="Folder for the pyramids, one <slide_id>.ome.zarr each.")],
    profile: Annotated[
        Profile,
        typer.Option(
            help="native copies JPEG tiles as they are; portable keeps pixels losslessly, for any program; "
            "auto is native where a slide has nothing but JPEG tiles, and leaves a pyramid portable that is so already."
        ),
    ] = Profile.AUTO,
    everything: Annotated[
        bool, typer.Option("--all", help="Keep all of a portable pyramid; else its finest levels hold tissue only.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Write nothing: read every chunk there and every byte of the slides; report what is not as it was.",
        ),
    ] = False,
    ngff: Annotated[
        Ngff, typer.Option(help="0.4 exports for QuPath and others, as <slide_id>.ngff04.ome.zarr; we read 0.5.")
    ] = Ngff.NEW,
    strict: StrictOption = False,
    retry_failed: RetryFailed = False,
    fail_fast: FailFast = False,
    dry_run: DryRunOption = False,
    workers: Workers = None,
    limit: LimitOption = None,
    memory: Memory = None,
    disk: Disk = None,
) -> None:
    """Copy slides into OME-Zarr pyramids.

    Every other command reads them in the place of the slides.
    """
    from pipeline import commands

    cohort = commands.read_cohort(target)  # before anything heavy, so that wrong usage is answered at once
    how: dict[str, Any] = {"profile": profile.value, "everything": everything, "ngff": ngff.value, "strict": strict}
    how |= {"workers": workers, "limit": limit, "memory": memory, "disk": disk, "retry_failed": retry_failed}
    if dry_run:
        if verify:
            raise UsageError("--verify writes nothing by itself: leave --dry-run out")
        with Progress("looking") as progress:
            found = commands.dry_cache(cohort, out=out, **how, progress=progress)
        echo("\n".join(found.lines))
        return
    with Progress("verifying" if verify else "caching") as progress:
        summary = commands.cache(
            cohort, out=out, **how, verify=verify, fail_fast=fail_fast, progress=progress, command=sys.argv
        )
    if summary.memory:
        say(peak(summary.memory))
    raise typer.Exit(1 if summary.failed else 0)
