"""Commands that make models: which encoders there are, training, distillation, calibration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.lines import echo, say
from pipeline.options import (
    Device,
    EncoderWeights,
    Features,
    Label,
    Model,
    OneMoreBudget,
    Overrides,
    Seed,
    Split,
    StrictOption,
    VerifyOption,
)
from stages.amounts import counted


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

        echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        echo(table(found) if name is None else render(found))


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
    """Train a model on labelled slides, patients or bags.

    Cross-validates where the table has no splits; writes the checkpoint and metrics.
    """
    from pipeline import commands

    chosen = [*(overrides or ()), *(["training.compare=true"] if compare else [])]
    summary = commands.train(config, out=out, overrides=chosen, strict=strict, verify=verify, say=say, command=sys.argv)
    echo(f"model:   {summary.model}\nmetrics: {out / 'metrics.json'}")
    raise typer.Exit(1 if summary.excluded else 0)


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

    summary = commands.distil(config, out=out, overrides=overrides or (), say=say)
    echo(f"model:    {summary.model}\nfidelity: {out / 'fidelity.csv'}")
    raise typer.Exit(1 if summary.excluded else 0)


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
        say=say,
    )
    echo(
        f"calibrated on {counted(summary.slides, 'slide')} of {counted(summary.patients, 'patient')}, "
        f"{len(summary.excluded)} left out"
    )
    echo(f"model: {summary.model}")
    raise typer.Exit(1 if summary.excluded else 0)
