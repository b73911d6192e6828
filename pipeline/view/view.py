"""Show a run: by a server on loopback until it is ended, or as pages in a folder."""

from __future__ import annotations

import asyncio
import threading
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from pipeline.errors import UsageError
from pipeline.model.header import find_model
from pipeline.view.figure import import_bokeh
from pipeline.view.run_folder import open_run
from pipeline.view.viewer import Viewer, refuse_no_folder


def view_run(
    folder: Path,
    *,
    port: int | None = None,
    browser: bool = True,
    slides: Sequence[Path] = (),
    outlines: Path | None = None,
    model: Path | None = None,
    against: Path | None = None,
    maps: Mapping[str, Path] = MappingProxyType({}),
    began: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve a run on loopback until `KeyboardInterrupt`.

    Args:
        folder: that `saccade run` wrote.
        port: to listen at; None: a free one.
        browser: whether to open the address in the user's browser.
        slides: folders that slides lie in by now.
        outlines: folder of outlines to show, ``<slide>.geojson``.
        model: where the run's model lies by now, to read more.
        against: folder of another run, which is shown beside it.
        maps: folders of maps that somebody else made, by the names that they are shown by.
        began: told the address, once it answers.

    Raises:
        UsageError: there is no such run, folder, map or model, or the port is taken.
        ImportError: bokeh is missing.
    """
    viewer = make_viewer(folder, slides, outlines, model, against, maps)
    from pipeline.view.server import listen, serve  # tornado comes with bokeh

    def told(address: str, once: str) -> None:
        began(address)
        if browser:  # some browsers are programs of the terminal, which end when the user does
            threading.Thread(target=webbrowser.open, args=(once,), daemon=True).start()

    asyncio.run(serve(viewer, listen(port), told))


def make_viewer(
    folder: Path,
    slides: Sequence[Path] = (),
    outlines: Path | None = None,
    model: Path | None = None,
    against: Path | None = None,
    maps: Mapping[str, Path] = MappingProxyType({}),
) -> Viewer:
    """What shows a run; arguments as `view_run` has them.

    Raises:
        UsageError: there is no such run, folder, map or model.
        ImportError: bokeh is missing.
    """
    import_bokeh()
    for one in slides:
        refuse_no_folder(one, "--slides")
    if outlines is not None:
        refuse_no_folder(outlines, "--outlines")
    if model is not None and not find_model(model).is_file():
        raise UsageError(f"--model: there is no {model}: name one that is there, or leave --model out")
    beside = open_run(against) if against is not None else None
    return Viewer(open_run(folder), slides, outlines, model, beside, maps)
