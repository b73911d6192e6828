"""Commands that predict: of a cohort what a model says, and how many patches that takes."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.lines import echo, peak, say
from pipeline.errors import UsageError
from pipeline.options import (
    REST,
    ByClass,
    CountSeen,
    DecideOption,
    Device,
    DryRunOption,
    EncoderWeights,
    EnsembleOption,
    FailFast,
    Features,
    Label,
    LimitOption,
    Memory,
    Model,
    MppOption,
    PositiveOption,
    Refer,
    RetryFailed,
    RiskOption,
    Samples,
    Scheduler,
    Seed,
    Split,
    StatedError,
    StrictOption,
    Target,
    Tolerance,
    VerifyOption,
    Wait,
    Workers,
    number,
    several,
    whole,
)
from pipeline.progress import Progress
from stages.amounts import counted
from stages.sampling.schemes import choices, in_words

Scheme = StrEnum("Scheme", {name.upper(): name for name in choices()})  # type: ignore[misc]


def run(
    target: Target,
    out: Annotated[Path, typer.Option(help="Folder for predictions, overlays and the report.")],
    model: Annotated[Path, typer.Option(help="What `saccade train` wrote, or its folder.")],
    mpp: MppOption = None,
    strict: StrictOption = False,
    samples: Samples = None,
    tolerance: Tolerance = None,
    decide: DecideOption = None,
    risk: RiskOption = None,
    positive: PositiveOption = None,
    refer: Refer = False,
    error: StatedError = None,
    by_class: ByClass = False,
    retry_failed: RetryFailed = False,
    fail_fast: FailFast = False,
    dry_run: DryRunOption = False,
    device: Device = "auto",
    workers: Workers = None,
    limit: LimitOption = None,
    memory: Memory = None,
    scheduler: Scheduler = None,
    wait: Wait = None,
    scheme: Annotated[
        Scheme | None,
        typer.Option(help=f"How patches are drawn; default: the model's. {in_words()}.", rich_help_panel=REST),
    ] = None,
    seed: Seed = 0,
    split: Split = None,
    count_seen: CountSeen = False,
    ensemble: EnsembleOption = False,
    prior: Annotated[
        Path | None,
        typer.Option(
            help="Where to look: a folder of maps of slides, or an .onnx network.",
            rich_help_panel=REST,
        ),
    ] = None,
    prior_mpp: Annotated[
        float | None,
        typer.Option(help="µm/px that such a network is given; default: the model's.", rich_help_panel=REST),
    ] = None,
    prior_channel: Annotated[
        int | None, typer.Option(help="Its channel, from 0; default: its only one.", rich_help_panel=REST)
    ] = None,
    encoder_weights: EncoderWeights = None,
    features: Features = None,
    verify: VerifyOption = False,
) -> None:
    """Predict slides, with intervals and a report.

    Of every slide an attention overlay, too; a rerun does only what is missing.
    """
    from pipeline import commands

    if not refer and (error is not None or by_class):
        given = "--by-class" if error is None else "--error"
        raise UsageError(f"{given} says how slides are called: give --refer, too")
    cohort = commands.read_cohort(target)
    if cohort.columns:
        say(cohort.reading)
    how: dict[str, Any] = {
        "samples": samples,
        "tolerance": tolerance,
        "decide": decide,
        "risk": risk,
        "positive": positive,
        "scheme": scheme,
        "mpp": mpp,
        "strict": strict,
        "seed": seed,
        "prior": prior,
        "prior_mpp": prior_mpp,
        "prior_channel": prior_channel,
        "refer": (0.1 if error is None else error) if refer else None,
        "by_class": by_class,
        "device": device,
        "workers": workers,
        "limit": limit,
        "memory": memory,
        "scheduler": scheduler,
        "encoder_weights": encoder_weights,
        "features": features,
        "verify": verify,
        "split": split,
        "count_seen": count_seen,
        "ensemble": ensemble,
        "retry_failed": retry_failed,
    }
    if dry_run:
        with Progress("looking") as progress:
            found = commands.dry_run(cohort, model, out=out, **how, progress=progress)
        echo("\n".join(found.lines))
        return
    with Progress("predicting") as progress:
        also: dict[str, Any] = {"wait": wait, "progress": progress, "within": progress.within, "command": sys.argv}
        summary = commands.run(cohort, model, out=out, **how, fail_fast=fail_fast, **also)
    echo(summary.line)
    if summary.others:
        told = f"{counted(summary.others, 'result')} of other slides with another model or other settings"
        echo(f"{out} also holds {told}: not in this table, and kept")
    if summary.stale:
        echo(f"{counted(summary.stale, 'row')} of earlier runs may no longer hold: their warnings say why")
    for line in summary.judged:
        echo(line)
    if summary.ok:
        about = "where reading all the tissue would put it, not how often it is right"
        echo(f"intervals:   {summary.intervals}: {about}")
    if summary.refer is not None:
        from pipeline.refer.measure import run_in_lines

        for line in run_in_lines(summary.refer):
            echo(line)
    if summary.quality is not None and summary.quality.warning:
        echo(f"WARNING:     {summary.quality.warning}")
    echo(peak(summary.memory))
    table = "patients.csv" if summary.unit == "patient" else "predictions.csv"
    echo(f"predictions: {out / table}\nreport:      {out / 'report.html'}")
    raise typer.Exit(1 if summary.failed or summary.left_out else 0)


def bench(
    model: Model,
    target: Annotated[Path, typer.Argument(metavar="TABLE", help="A cohort table (CSV) with labels.")],
    out: Annotated[Path, typer.Option(help="Where the table and the picture go; resumes what is there.")],
    samples: Annotated[
        Any,
        typer.Option(
            help="Patches a slide to try, such as 8,16,32; default: powers of two from 4 to 512, and the model's own.",
            parser=several(whole(1, 1_000_000), such_as="8,16,32"),
            metavar="<int,...>",
        ),
    ] = None,
    tolerances: Annotated[
        Any,
        typer.Option(
            "--tolerance",
            help="Tolerances of `saccade run` to try; default: 0.1,0.05,0.02.",
            parser=several(number(1e-6, 1, such_as="0.02"), such_as="0.05,0.02"),
            metavar="<float,...>",
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option(help="Of each slide and number of patches.", parser=whole(1, 1000), metavar="<int>")
    ] = 20,
    slides: Annotated[
        int | None,
        typer.Option(
            help="At most so many slides, of every class alike; default: all.",
            parser=whole(1, 1_000_000),
            metavar="<int>",
        ),
    ] = None,
    label: Label = "label",
    split: Split = None,
    device: Device = "auto",
    seed: Seed = 0,
    encoder_weights: EncoderWeights = None,
    features: Features = None,
) -> None:
    """Find how many patches slides need, and their cost.

    Reads unseen slides whole once, then compares ways to read less of them.
    """
    from pipeline import commands

    cohort = commands.read_cohort(target, label=label)
    with Progress("reading") as progress:
        summary = commands.bench(
            model,
            cohort,
            out=out,
            samples=samples,
            draws=draws,
            slides=slides,
            split=split,
            **({} if tolerances is None else {"tolerances": tolerances}),
            seed=seed,
            device=device,
            encoder_weights=encoder_weights,
            features=features,
            progress=progress,
            within=progress.within,
        )
    echo("\n".join(summary.lines))
    echo(f"table:   {out / 'bench.csv'}\npicture: {out / 'bench.png'}")
    raise typer.Exit(1 if summary.failed else 0)
