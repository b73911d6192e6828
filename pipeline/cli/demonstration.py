"""The command that shows all the others at work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.lines import say
from pipeline.options import Seed


def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("saccade-demo"),
    seed: Seed = 0,
) -> None:
    """Make slides, train and predict: 5 to 20 minutes.

    The cohort is made from real stained tissue.
    """
    from pipeline.demo.demo import run_demo

    run_demo(out, seed=seed, say=say)
