"""The `saccade` command: parse, call, report. Everything heavy is imported when a command needs it."""

from __future__ import annotations

import io
import os
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import UsageError, printable
from pipeline.exits import INTERRUPTED, ending
from pipeline.help import HelpByTopic
from pipeline.options import (
    REST,
    ByClass,
    DecideOption,
    Device,
    Disk,
    DryRunOption,
    EncoderWeights,
    FailFast,
    Features,
    Label,
    LimitOption,
    Memory,
    Model,
    MppOption,
    OneMoreBudget,
    Overrides,
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
from stages.amounts import counted, size
from stages.sampling.schemes import choices, in_words

app = typer.Typer(
    name="saccade",
    help="Whole-slide histopathology by attention sampling: look where it matters, predict with a stated confidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Profile(StrEnum):
    """What a pyramid holds."""

    AUTO = "auto"
    NATIVE = "native"
    PORTABLE = "portable"


class Ngff(StrEnum):
    """Versions of OME-Zarr that are written."""

    OLD = "0.4"
    NEW = "0.5"


Scheme = StrEnum("Scheme", {name.upper(): name for name in choices()})  # type: ignore[misc]


def _print_version(wanted: bool) -> None:
    if wanted:
        from pipeline.version import saccade_version

        _echo(f"saccade {saccade_version()}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Whole-slide histopathology by attention sampling: look where it matters, predict with a stated confidence."""


@app.command(cls=HelpByTopic)
def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("saccade-demo"),
    seed: Seed = 0,
) -> None:
    """Make slides, train and predict, in a few minutes.

    The cohort is made from real stained tissue.
    """
    from pipeline.demo.demo import run_demo

    run_demo(out, seed=seed, say=_say)


@app.command(cls=HelpByTopic)
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

        _echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        _echo(render_text(facts))


@app.command(cls=HelpByTopic)
def encoders(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="One of them, timm:MODEL, or an .onnx or .pt2 file; without: the list."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Check this file, or folder as the hub gives it, as the encoder's weights.")
    ] = None,
    hub: Annotated[Path | None, typer.Option(help="Folder of models, ORG/MODEL; default: the hub's own cache.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Run a .pt2 file, which may hold any code.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Which pretrained encoders there are.

    And how to get one, and whether a local file of weights is what it should be.
    """
    from pipeline.encoders import check, described, listed, render, table

    if name is None:
        if weights is not None:
            raise typer.BadParameter("weights of which encoder? name it", param_hint="NAME")
        found: Any = listed(hub)
    else:
        found = (weights is None and described(name, hub)) or check(name, weights, hub=hub, trust=trust)
    if as_json:
        import json

        _echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _echo(table(found) if name is None else render(found))


@app.command()
def check(
    target: Target,
    model: Annotated[
        Path | None,
        typer.Option(help="Check for this model's scales, too, and estimate what it will cost: bytes, time, disk."),
    ] = None,
    label: Annotated[str, typer.Option(help="The table's column of labels.")] = "label",
    mpp: MppOption = None,
    strict: StrictOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write a table of what was found, a row a slide.")] = None,
    template: Annotated[
        Path | None,
        typer.Option("--fix-template", help="Write a cohort table of all slides, with the columns to fill in."),
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
        _say("saccade: interrupted; a check keeps nothing of the slides that it has looked at")
        sys.exit(INTERRUPTED)
    if as_json:
        import json

        from pipeline.output.documents import plain

        typer.echo(json.dumps(plain(summary.to_json()), indent=2))
    else:
        typer.echo(render_text(summary))
    raise typer.Exit(1 if summary.failed else 0)


@app.command(cls=HelpByTopic)
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
        _echo("\n".join(found.lines))
        return
    with Progress("verifying" if verify else "caching") as progress:
        summary = commands.cache(
            cohort, out=out, **how, verify=verify, fail_fast=fail_fast, progress=progress, command=sys.argv
        )
    if summary.memory:
        _say(_peak(summary.memory))
    raise typer.Exit(1 if summary.failed else 0)


@app.command(cls=HelpByTopic)
def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="Configuration (YAML); configs/default.yaml explains every field.")
    ],
    out: Annotated[Path, typer.Option(help="Where the checkpoint, splits and metrics go; resumes what is there.")],
    overrides: Overrides = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Then fit plain ways to read a slide on the same splits and features, and write comparison.csv.",
        ),
    ] = False,
    strict: StrictOption = False,
    verify: VerifyOption = False,
) -> None:
    """Train a model on slides with one label each.

    Cross-validates where the table has no splits; writes the checkpoint and metrics.
    """
    from pipeline import commands

    chosen = [*(overrides or ()), *(["training.compare=true"] if compare else [])]
    summary = commands.train(
        config, out=out, overrides=chosen, strict=strict, verify=verify, say=_say, command=sys.argv
    )
    _echo(f"model:   {summary.model}\nmetrics: {out / 'metrics.json'}")
    raise typer.Exit(1 if summary.excluded else 0)


@app.command(cls=HelpByTopic)
def distil(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="Configuration (YAML); configs/distil.yaml has its keys.")
    ],
    out: Annotated[Path, typer.Option(help="Where the checkpoint and how near it is to the teacher go.")],
    overrides: Overrides = None,
) -> None:
    """Train a model to predict as attention MIL does.

    From CLAM or TRIDENT bags; it reads a few tiles of a slide.
    """
    from pipeline import commands

    summary = commands.distil(config, out=out, overrides=overrides or (), say=_say)
    _echo(f"model:    {summary.model}\nfidelity: {out / 'fidelity.csv'}")
    raise typer.Exit(1 if summary.excluded else 0)


@app.command(cls=HelpByTopic)
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
    prior: Annotated[
        Path | None,
        typer.Option(
            help="Where to look: a folder of maps <slide>.npy, .png or .tif, or an .onnx network.",
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
        _say(cohort.reading)
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
        "retry_failed": retry_failed,
    }
    if dry_run:
        with Progress("looking") as progress:
            found = commands.dry_run(cohort, model, out=out, **how, progress=progress)
        _echo("\n".join(found.lines))
        return
    with Progress("predicting") as progress:
        also: dict[str, Any] = {"wait": wait, "progress": progress, "within": progress.within, "command": sys.argv}
        summary = commands.run(cohort, model, out=out, **how, fail_fast=fail_fast, **also)
    _echo(summary.line)
    if summary.others:
        told = "were done with another model or other settings: they stay there, and are not in this table"
        _echo(f"{counted(summary.others, 'other slide')} in {out} {told}")
    if summary.not_counted:
        told = ", ".join(f"{count} {why}" for why, count in summary.not_counted.items())
        _echo(f"labelled slides that the metrics do not count: {told}")
    if summary.ok:
        about = "where reading all the tissue would put it, not how often it is right"
        _echo(f"intervals:   {summary.intervals}: {about}")
    if summary.refer is not None:
        from pipeline.refer.measure import run_in_lines

        for line in run_in_lines(summary.refer):
            _echo(line)
    if summary.quality is not None and summary.quality.warning:
        _echo(f"WARNING:     {summary.quality.warning}")
    _echo(_peak(summary.memory))
    _echo(f"predictions: {out / 'predictions.csv'}\nreport:      {out / 'report.html'}")
    raise typer.Exit(1 if summary.failed else 0)


def _peak(memory: dict[str, int]) -> str:
    """What processes held at the most, in a line."""
    largest, together = (size(memory[f"{name}_bytes"]) for name in ("largest_process", "together"))
    more = f", at most {together} in {memory['processes']} processes" if memory["processes"] > 1 else ""
    return f"memory:      {largest} at the peak{more}"


@app.command(cls=HelpByTopic)
def conformalize(
    model: Model,
    target: Annotated[
        Path, typer.Argument(metavar="TABLE", help="Cohort table (CSV) of labelled slides of other patients.")
    ],
    out: Annotated[Path, typer.Option(help="Where the calibrated model goes: a .safetensors file, or its folder.")],
    label: Label = "label",
    split: Split = None,
    samples: OneMoreBudget = None,
    strict: StrictOption = False,
    device: Device = "auto",
    seed: Seed = 0,
    encoder_weights: EncoderWeights = None,
    features: Features = None,
) -> None:
    """Calibrate a model for `saccade run --refer`.

    On labelled slides of patients that it was not trained on.
    """
    from pipeline import commands

    summary = commands.conformalize(
        model,
        commands.read_cohort(target, label=label),
        out=out,
        split=split,
        samples=samples,
        strict=strict,
        seed=seed,
        device=device,
        encoder_weights=encoder_weights,
        features=features,
        say=_say,
    )
    _echo(
        f"calibrated on {counted(summary.slides, 'slide')} of {counted(summary.patients, 'patient')}, "
        f"{len(summary.excluded)} left out"
    )
    _echo(f"model: {summary.model}")
    raise typer.Exit(1 if summary.excluded else 0)


@app.command(cls=HelpByTopic)
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
    _echo("\n".join(summary.lines))
    _echo(f"table:   {out / 'bench.csv'}\npicture: {out / 'bench.png'}")
    raise typer.Exit(1 if summary.failed else 0)


def _echo(text: str) -> None:
    typer.echo("\n".join(map(printable, text.split("\n"))))


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)


def main() -> None:
    """Entry point: errors become one line with the remedy, and the exit codes that the README states."""
    # threads of torch that wait for each other by spinning take nine times as long where another program has a core
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = "--debug" in sys.argv
    if debug:  # wanted before or after the command's name
        sys.argv.remove("--debug")
    if isinstance(sys.stdout, io.TextIOWrapper):  # files have names that not every terminal can show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="saccade", standalone_mode=False) or 0
    except Exception as exc:
        if debug:
            raise
        if type(exc).__name__ == "NoArgsIsHelpError":
            exc.show()  # type: ignore[attr-defined]
            sys.exit(2)
        told = ending(exc)
        if told is None:  # a fault of ours: nobody will see it again as it was
            traceback.print_exc()
            _say(f"saccade: internal error: {type(exc).__name__}: {exc}; report it, with the lines above")
            sys.exit(3)
        _say(f"saccade: error: {told[0]}")
        code = told[1]
    if code == INTERRUPTED:  # typer's answer to Ctrl-C
        _say("saccade: interrupted; what was finished is kept, and the same command goes on from there")
    sys.exit(code)


if __name__ == "__main__":
    main()
