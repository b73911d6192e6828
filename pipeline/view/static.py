"""The pages as files that open without a server: thumbnail, maps, boxes, and the patches that say most."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.output.folder import prepare_output
from pipeline.view.figure import BOKEH
from pipeline.view.findings import find
from pipeline.view.links import Links
from pipeline.view.page import ASSETS, refusal_page
from pipeline.view.run_folder import SlideRow
from pipeline.view.slide_page import GALLERY_SHOWN
from pipeline.view.viewer import SMALL_PX, Viewer, asset
from stages.disk import new_file
from stages.overlay.gallery import choose
from stages.slide.facts import SlideError


def write_pages(viewer: Viewer, out: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """Write all pages of a run with all that they show; the first of them is returned.

    Args:
        viewer: of the run.
        out: the folder, which is empty, not there, or one that this has written before.
        progress: told after each slide how many of how many are written.

    Raises:
        UsageError: the folder holds something else, or cannot be written.
        OSError: the disk refuses.
    """
    links = Links(served=False)
    slides = [slide for slide in viewer.run.slides if slide.folder is not None]
    pages = [links.slide(slide.number) for slide in slides]
    prepare_output(out, names=("index.html", "asset", "s", *pages))
    for name in (BOKEH, *ASSETS):
        _write(out / links.asset(name), str(asset(name)).encode())
    for done, (slide, page) in enumerate(zip(slides, pages, strict=True), 1):
        try:
            pictured = _write_pictures(viewer, slide, out / links.picture(slide.number, ""))
            text = viewer.page(slide, links, pictured=pictured)
        except UsageError as exc:
            text = refusal_page(slide.name, str(exc), links)
        _write(out / page, text.encode("utf-8", "backslashreplace"))
        progress(done, len(slides))
    _write(out / links.cohort, viewer.cohort(links).encode("utf-8", "backslashreplace"))
    return out / links.cohort


def _write_pictures(viewer: Viewer, slide: SlideRow, folder: Path) -> list[int]:
    """Write a slide's pictures; of which patches there is one, is returned."""
    small = viewer.overview(slide, SMALL_PX)
    if small is not None:
        _write(folder / "thumbnail.jpg", small)
    findings = find(slide)
    if findings.samples is None or not findings.samples.names:
        return []
    said, doubt = (
        values[:, findings.told] for values in (findings.samples.contributions, findings.samples.half_widths)
    )
    shown = [one.number for one in choose(said, doubt, GALLERY_SHOWN)]
    try:
        for number in shown:
            data = viewer.patch(slide, number)
            if data is not None:
                _write(folder / "patch" / f"{number}.jpg", data)
    except SlideError:  # the page says why
        return []
    return shown


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path, durable=False) as temporary:
        temporary.write_bytes(data)
