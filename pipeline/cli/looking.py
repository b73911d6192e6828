"""The command that shows a run."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.lines import echo, say
from pipeline.errors import UsageError
from pipeline.options import whole
from pipeline.progress import Progress
from pipeline.run.interrupt import exit_code


def view(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `saccade run` wrote.")],
    port: Annotated[
        int | None,
        typer.Option(parser=whole(1, 65535), metavar="PORT", help="Port to listen at; default: a free one."),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in the browser.")] = True,
    slides: Annotated[
        list[Path] | None, typer.Option(help="Folder that slides lie in by now, where they were moved; several.")
    ] = None,
    outlines: Annotated[
        Path | None, typer.Option(help="Folder of outlines to show, <slide_id>.geojson, as QuPath writes them.")
    ] = None,
    maps: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="NAME=FOLDER",
            help="Folder of maps that somebody else made, one a slide, as --prior of run takes them; several.",
        ),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Folder of another run of the same slides, which is shown beside this one.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Where the run's model lies by now, to read more of slides, if it was moved.")
    ] = None,
    static: Annotated[
        Path | None,
        typer.Option(help="Write pages into this folder, which open without a server; nothing is served."),
    ] = None,
) -> None:
    """Look at a run in the browser.

    Its slides with attention, evidence, and the patches that were read; on this machine only, until Ctrl-C.
    """
    from pipeline.view.given_maps import named_maps
    from pipeline.view.view import make_viewer, view_run

    given = named_maps(maps or ())
    if static is not None:
        if port is not None:
            raise UsageError("--static serves nothing: leave --port out")
        if against is not None:
            raise UsageError("--static writes the pages of one run: leave --against out")
        from pipeline.view.static import write_pages

        viewer = make_viewer(run, slides or (), outlines, maps=given)
        with Progress("writing") as progress:
            first = write_pages(viewer, static, lambda done, total: progress(done, total, None))
        echo(str(first))
        return
    try:
        how: dict[str, Any] = {"slides": slides or (), "outlines": outlines, "maps": given}
        how |= {"model": model, "against": against, "began": partial(_began, opens=browser)}
        view_run(run, port=port, browser=browser, **how)
    except KeyboardInterrupt:  # how it ends
        sys.exit(exit_code())


def _began(address: str, *, opens: bool) -> None:
    echo(address)
    sys.stdout.flush()
    first = "if no browser opens, open this address in yours" if opens else "open this address in your browser"
    say(f"{first}; Ctrl-C ends it (the address holds the key to this run: it is for this machine's user only)")
