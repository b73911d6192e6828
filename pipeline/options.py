"""What several commands ask for; numbers that are no numbers or out of bounds are refused in words of ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import MOST_WORKERS
from stages.prediction.stopping import RISK


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A function from what was typed to a whole number within these bounds."""
    words = f"a whole number {_between(low, high)}"

    def parse(text: str | int) -> int:
        try:
            number = int(text)
        except ValueError:
            raise typer.BadParameter(f"expected {words}, found {text!r}") from None
        if number < low or (high is not None and number > high):
            raise typer.BadParameter(f"expected {words}, found {number}")
        return number

    return parse


def number(low: float, high: float | None = None, *, such_as: str) -> Callable[[str], float]:
    """A function from what was typed to a number within these bounds."""
    words = f"a number {_between(low, high)}, such as {such_as}"

    def parse(text: str | float) -> float:
        try:
            value = float(text)
        except ValueError:
            raise typer.BadParameter(f"expected {words}, found {text!r}") from None
        if not math.isfinite(value) or value < low or (high is not None and value > high):
            raise typer.BadParameter(f"expected {words}, found {text}")
        return value

    return parse


def several(one: Callable[[str], float], *, such_as: str) -> Callable[[str], list[float]]:
    """A function from what was typed, numbers with commas between, to each of them as ``one`` has it."""

    def parse(text: str | list[float]) -> list[float]:
        if isinstance(text, list):
            return text
        parts = [part for part in text.replace(",", " ").split() if part]
        if not parts:
            raise typer.BadParameter(f"expected numbers with commas between, such as {such_as}, found {text!r}")
        return [one(part) for part in parts]

    return parse


def inside(low: float, high: float, *, such_as: str) -> Callable[[str], float]:
    """A function from what was typed to a number between these bounds, which are none."""
    words = f"a number between {low:g} and {high:g}, such as {such_as}"

    def parse(text: str | float) -> float:
        try:
            value = float(text)
        except ValueError:
            raise typer.BadParameter(f"expected {words}, found {text!r}") from None
        if not low < value < high:
            raise typer.BadParameter(f"expected {words}, found {text}")
        return value

    return parse


def _between(low: float, high: float | None) -> str:
    return f"of at least {low:g}" if high is None else f"from {low:.10g} to {high:.10g}"


def _number(help: str, parser: Callable[[str], float], *names: str) -> typer.models.OptionInfo:
    metavar = "INTEGER" if "whole" in parser.__qualname__ else "NUMBER"
    option: typer.models.OptionInfo = typer.Option(*names, help=help, parser=parser, metavar=metavar)
    return option


Target = Annotated[Path, typer.Argument(help="A slide, a directory (searched for slides) or a cohort table (CSV).")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one configuration value, e.g. --set sampling.samples=64. Repeatable."),
]
MppOption = Annotated[
    float | None,
    _number("True µm per level-0 pixel, in place of what the files say.", number(1e-3, such_as="0.25"), "--mpp"),
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict", help="Refuse slides whose objective or TIFF tags contradict their resolution; else a warning."
    ),
]
Samples = Annotated[
    int | None,
    _number(
        "Patches to read per slide (with --tolerance or --decide: at most); default: the model's.", whole(1, 1_000_000)
    ),
]
Tolerance = Annotated[
    float | None,
    _number(
        "Read on until every interval is within this of its probability, e.g. 0.02.", number(1e-6, 1, such_as="0.02")
    ),
]
DecideOption = Annotated[
    float | None,
    _number(
        "Read on only until it is settled whether the positive class's probability, had every patch been read, lies "
        "above or below this; a slide where --samples end first is undecided.",
        inside(0, 1, such_as="0.5"),
        "--decide",
    ),
]
RiskOption = Annotated[
    float | None,
    _number(
        f"With --decide: how often a slide may be decided for the wrong side; default: {RISK:g}.",
        inside(0, 0.5, such_as="0.01"),
        "--risk",
    ),
]
PositiveOption = Annotated[
    str | None,
    typer.Option("--positive", help="With --decide: the class; default: of two classes the second."),
]
OneMoreBudget = Annotated[
    int | None,
    _number("Patches that runs will ask for, beside the numbers that are calibrated anyway.", whole(1, 1_000_000)),
]
Refer = Annotated[
    bool,
    typer.Option(
        "--refer",
        help="Call each slide's class, or refer it: sets that miss the label as seldom as --error says, by a "
        "model that `saccade conformalize` or a training with a val part has calibrated.",
    ),
]
StatedError = Annotated[
    float | None,
    _number(
        "With --refer, the share of slides whose set may miss the label; default: 0.1.",
        number(1e-6, 1 - 1e-6, such_as="0.1"),
        "--error",
    ),
]
ByClass = Annotated[
    bool, typer.Option("--by-class", help="With --refer, state the error of the slides of each class, not of all.")
]
Seed = Annotated[int, _number("Seed of all that is random: the same seed, the same results.", whole(0, 2**32 - 1))]
Workers = Annotated[int, _number("Worker processes; 0 works in this one.", whole(0, MOST_WORKERS))]
