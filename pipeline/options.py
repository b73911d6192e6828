"""What several commands ask for; numbers that are no numbers or out of bounds are refused in words of ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.arguments import MOST_WORKERS
from stages.amounts import amount
from stages.prediction.stopping import RISK

READING, CALLING, BATCH = "How much is read", "Calls and referrals", "What is done"
FOUND = "What becomes of it"
MACHINE, REST = "Machine", "Seldom needed"
"""Topics of the help, in order."""


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


def number(low: float | None = None, high: float | None = None, *, such_as: str) -> Callable[[str], float]:
    """A function from what was typed to a number, within these bounds where there are any."""
    words = f"a number{'' if low is None else f' {_between(low, high)}'}, such as {such_as}"

    def parse(text: str | float) -> float:
        try:
            value = float(text)
        except ValueError:
            raise typer.BadParameter(f"expected {words}, found {text!r}") from None
        if not math.isfinite(value) or (low is not None and value < low) or (high is not None and value > high):
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


def in_bytes(text: str | int) -> int:
    """What was typed as a size."""
    try:
        return amount(str(text))
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from None


def _between(low: float, high: float | None) -> str:
    return f"of at least {low:g}" if high is None else f"from {low:.10g} to {high:.10g}"


def _number(
    help: str, parser: Callable[[str], float], *names: str, topic: str | None = None
) -> typer.models.OptionInfo:
    metavar = "<int>" if "whole" in parser.__qualname__ else "<float>"
    option: typer.models.OptionInfo = typer.Option(
        *names, help=help, parser=parser, metavar=metavar, rich_help_panel=topic
    )
    return option


Target = Annotated[Path, typer.Argument(metavar="SLIDES", help="A slide, a folder of slides or a cohort table (CSV).")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Override one configuration value, e.g. --set sampling.samples=64; paths start from where you are, not "
        "from the file's folder. Repeatable.",
        metavar="<key=value>",
    ),
]
MppOption = Annotated[
    float | None,
    _number("True µm per level-0 pixel, in place of the file's.", number(1e-3, such_as="0.25"), "--mpp"),
]
StrictOption = Annotated[
    bool,
    typer.Option("--strict", help="Refuse slides whose resolution the file contradicts, instead of a warning."),
]
Samples = Annotated[
    int | None,
    _number(
        "Patches to read of a slide; default: the model's. With --tolerance or --decide at most; default: all.",
        whole(1, 1_000_000),
        topic=READING,
    ),
]
Tolerance = Annotated[
    float | None,
    _number(
        "Read on until every interval is within this of its probability, e.g. 0.02.",
        number(1e-6, 1, such_as="0.02"),
        topic=READING,
    ),
]
DecideOption = Annotated[
    float | None,
    _number(
        "Read on only until it is settled on which side of this the positive class's probability, or the predicted "
        "number, lies, e.g. 0.5.",
        number(such_as="0.5"),
        "--decide",
        topic=READING,
    ),
]
RiskOption = Annotated[
    float | None,
    _number(
        f"With --decide: how often it may be the wrong side; default: {RISK:g}.",
        inside(0, 0.5, such_as="0.01"),
        "--risk",
        topic=READING,
    ),
]
PositiveOption = Annotated[
    str | None,
    typer.Option(
        "--positive",
        help="With --decide: the class, label, grade to be reached, or number, such as survival_5; default: of two "
        "classes the second, or the only number.",
        rich_help_panel=READING,
    ),
]
OneMoreBudget = Annotated[
    int | None,
    _number("Patches that runs will ask for, beside the numbers that are calibrated anyway.", whole(1, 1_000_000)),
]
Refer = Annotated[
    bool,
    typer.Option(
        "--refer",
        help="Call each slide's class, or refer it; the model must be calibrated (`saccade conformalize`, or a "
        "training with split val).",
        rich_help_panel=CALLING,
    ),
]
StatedError = Annotated[
    float | None,
    _number(
        "With --refer: the share of slides whose set may miss the label; default: 0.1.",
        number(1e-6, 1 - 1e-6, such_as="0.1"),
        "--error",
        topic=CALLING,
    ),
]
ByClass = Annotated[
    bool,
    typer.Option(
        "--by-class", help="With --refer: state the error of each class, not of all.", rich_help_panel=CALLING
    ),
]
Seed = Annotated[int, _number("The same seed, the same results.", whole(0, 2**32 - 1), topic=REST)]
Workers = Annotated[
    int | None,
    _number(
        "Worker processes; 0 works in this one; default: as many as fit the machine.",
        whole(0, MOST_WORKERS),
        topic=MACHINE,
    ),
]
LimitOption = Annotated[
    float | None,
    _number(
        "Seconds after which a slide fails; default: 20 times the typical, 10 minutes at least.",
        number(0.1, such_as="600"),
        "--limit",
        topic=MACHINE,
    ),
]
Memory = Annotated[
    int | None,
    typer.Option(
        "--memory",
        help="Memory that each process may take, such as 4GB, else a slide is refused; default: its share of "
        "80 % of the machine's.",
        parser=in_bytes,
        metavar="<size>",
        rich_help_panel=MACHINE,
    ),
]
Disk = Annotated[
    int | None,
    typer.Option(
        "--disk",
        help="Disk that the pyramids may take, such as 500GB; default: all that is free, but 5 % or 1 GB.",
        parser=in_bytes,
        metavar="<size>",
        rich_help_panel=MACHINE,
    ),
]
RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed",
        help="Do only slides that failed here before; without it, these come last.",
        rich_help_panel=BATCH,
    ),
]
FailFast = Annotated[
    bool,
    typer.Option(
        "--fail-fast",
        help="Begin no more slides once one has failed; what is being worked on is finished.",
        rich_help_panel=BATCH,
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Write nothing: say what would be done to each slide and why, and what it takes.",
        rich_help_panel=BATCH,
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option("--scheduler", help="Address of a dask scheduler, or its scheduler file.", rich_help_panel=MACHINE),
]
Wait = Annotated[
    float | None,
    _number(
        "Seconds to wait for the scheduler's workers; default: 30.", number(0, such_as="600"), "--wait", topic=MACHINE
    ),
]
Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="What `saccade train` wrote: model.safetensors, or its folder.")
]
Device = Annotated[
    str,
    typer.Option(
        help="auto (cuda where there is a GPU for it, else cpu), cpu, cuda, cuda:N or mps.", rich_help_panel=MACHINE
    ),
]
EncoderWeights = Annotated[
    Path | None,
    typer.Option(help="Of the model's frozen encoder; default: what its name stands for.", rich_help_panel=REST),
]
Features = Annotated[
    Path | None,
    typer.Option(help="Where encoded patches are kept; default: the user's cache folder.", rich_help_panel=REST),
]
VerifyOption = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Read every byte of every slide, and let only stand what was made of the same. Without it, files of the "
        "same size and time of writing count as unchanged, once samples of them are found to be.",
        rich_help_panel=REST,
    ),
]
Label = Annotated[str, typer.Option("--label", help="The table's column of labels.")]
Split = Annotated[str | None, typer.Option("--split", help="Only slides of this split of the table: val or test.")]
CountSeen = Annotated[
    bool,
    typer.Option(
        "--count-seen",
        help="Count slides in the metrics, too, that the model was trained or validated on.",
        rich_help_panel=REST,
    ),
]
EnsembleOption = Annotated[
    bool,
    typer.Option(
        "--ensemble",
        help="Predict by the models of the folds together (training.ensemble); of a slide that some were trained on, "
        "by the others.",
        rich_help_panel=REST,
    ),
]
