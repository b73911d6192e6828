"""The commands under one name, in the order of the help."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.demonstration import demo
from pipeline.cli.exporting import export
from pipeline.cli.lines import echo
from pipeline.cli.looking import view
from pipeline.cli.models import conformalize, distil, encoders, train
from pipeline.cli.runs import bench, run
from pipeline.cli.slides import cache, check, info
from pipeline.help import HelpByTopic

app = typer.Typer(
    name="saccade",
    help="Whole-slide histopathology by attention sampling: look where it matters, predict with a stated confidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from pipeline.version import saccade_version

        echo(f"saccade {saccade_version()}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Whole-slide histopathology by attention sampling: look where it matters, predict with a stated confidence."""


for command in (demo, info, encoders, check, cache, train, distil, run, view, export, conformalize, bench):
    app.command(cls=HelpByTopic)(command)
