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
Seed = Annotated[int, _number("Seed of all that is random: the same seed, the same results.", whole(0, 2**32 - 1))]
Workers = Annotated[int, _number("Worker processes; 0 works in this one.", whole(0, MOST_WORKERS))]
