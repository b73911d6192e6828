"""What the page of a slide is told of reading more of it: how far that is, and how the prediction has moved."""

from __future__ import annotations

import base64
from dataclasses import replace
from html import escape
from typing import Any

import numpy as np

from pipeline.task.task import Task
from pipeline.view.figure import patch_columns
from pipeline.view.findings import Findings, find
from pipeline.view.layers import evidence_layer
from pipeline.view.links import Links
from pipeline.view.more import MOST, USUAL, More, Since
from pipeline.view.page import values_html
from pipeline.view.run_folder import RunFolder, SlideRow
from pipeline.view.slide_page import told_of_patches
from stages.amounts import counted


def more_state(
    run: RunFolder, slide: SlideRow, more: More, links: Links, told: int | None, shown: int = 0
) -> dict[str, Any]:
    """How reading more of a slide stands, for the page's script.

    Args:
        run, slide: which.
        more: of the run.
        links: of the slide's page.
        told: see `pipeline.view.findings.find`.
        shown: after how many times the page shows what was found: that is not told again.
    """
    job, since = more.job, more.since(slide)
    state: dict[str, Any] = {"why": more.why_not(slide), "usual": USUAL, "most": MOST, "job": None, "found": None}
    if job is not None:
        state["job"] = {
            "own": job.slide.number == slide.number,
            "name": job.slide.name,
            "doing": job.doing,
            "done": job.done,
            "total": job.total,
            "error": job.error,
        }
    if since is not None:
        times = len(since.boxes)
        state["found"] = {"times": times} if times == shown else _found(run, slide, since, links, told)
    return state


def _found(run: RunFolder, slide: SlideRow, since: Since, links: Links, told: int | None) -> dict[str, Any]:
    findings, samples = find(slide, told), since.samples
    assert samples is not None
    times = len(since.boxes)
    return {
        "times": times,
        "html": change_html(run.task, slide, since),
        "boxes": [list(box) for box in since.boxes],
        "columns": patch_columns(samples, findings.frame, findings.told),
        "maps": _maps(since, findings),
        **told_of_patches(
            samples,
            findings.told,
            findings.cells,
            lambda i: links.picture(slide.number, f"more/{times}/{i}.jpg"),
        ),
    }


def _maps(since: Since, findings: Findings) -> list[dict[str, Any]]:
    """The maps that are others by now: of evidence, unless that was told from more than is known here (see `redrawn`).
    Colours stand for what they stood for, as far as they reach."""
    former = next((one for one in findings.layers if one.name == "evidence"), None)
    if former is None or not redrawn(since):
        return []
    assert since.found is not None
    told, samples = since.found.prediction, since.samples
    assert samples is not None
    cells = told.attribution.cells[:, findings.told].reshape(told.attention.shape)
    name = samples.names[findings.told]
    now = evidence_layer(cells, told.attention_raster, name=name, unit=samples.unit, least=former.top)
    steps = base64.b64encode(np.flipud(now.steps).tobytes()).decode()
    return [{"name": now.name, "title": f"{now.title}, with all that was read", "ticks": now.ticks, "steps": steps}]


def redrawn(since: Since) -> bool:
    """Whether the map of evidence is drawn anew: what a cell by itself says does not go by how it was drawn. Of models
    that look twice the run knew attention inside the regions that it had opened, which nobody opens again here."""
    assert since.found is not None
    return since.found.prediction.spec.inner_mpp is None


def change_html(task: Task, slide: SlideRow, since: Since) -> str:
    """What was read, and how each value that is told has moved."""
    found = since.found
    assert found is not None
    now = replace(slide, values=now_of(since))
    rows = ""
    for i in task.shown:
        name, one = task.values[i], [(task.values[i], task.columns[i])]
        rows += f'<tr><th scope="rowgroup" colspan="2">{escape(name)}</th></tr>'
        for when, which in (("the run", slide), ("now", now)):
            rows += f'<tr><th scope="row">{when}</th><td>{values_html(which, task, one, named=False)}</td></tr>'
        rows += f'<tr><td></td><td class="soft">{escape(_moved(slide, now, name))}</td></tr>'
    told = found.prediction
    sound = "unbiased" if told.spec.teacher is None else "about as unbiased as the run's"
    left = (
        f"; {counted(found.unread, 'patch')} of it are still unread" if found.unread else ", all that was unread of it"
    )
    lines = [
        f"Read here: {counted(found.inside, 'patch')}{left}. "
        f"Elsewhere: {found.elsewhere:,}, drawn anew. "
        f"By now {told.patches_read:,} of the slide's {counted(told.cells, 'patch')} are read.",
        f"The estimate is {sound} wherever you read on. "
        + (
            "Nothing is left to chance."
            if told.exact
            else f"This interval has {100 * found.confidence:.3g} % confidence, so that those of all times that you "
            "read on hold together with 95 %."
        ),
        "The map of evidence is drawn anew, of all that was read; attention is as it was."
        if redrawn(since)
        else "Maps are the run's, as they were before.",
        *told.warnings,
    ]
    words = "".join(f"<p>{escape(line)}</p>" for line in lines)
    predicted = ""
    if task.chances and str(told.predicted) != str(slide.row.get("predicted")):
        predicted = f"<p><b>Now predicted: {escape(str(told.predicted))}</b></p>"
    return f'{predicted}<table class="change"><tbody>{rows}</tbody></table>{words}'


def now_of(since: Since) -> dict[str, tuple[float, float | None, float | None]]:
    """Each value with the ends of its interval, by now."""
    assert since.found is not None
    told = since.found.prediction
    return {name: (value, *told.intervals[name]) for name, value in told.values.items()}


def _moved(slide: SlideRow, now: SlideRow, name: str) -> str:
    if name not in slide.values:
        return ""
    (value, low, high), (new, new_low, new_high) = slide.values[name], now.values[name]
    words = f"{new - value:+.2g}".replace("-", "\N{MINUS SIGN}") if abs(new - value) >= 5e-5 else "as it was"
    if low is None or high is None or new_low is None or new_high is None or high <= low:
        return words
    share = (new_high - new_low) / (high - low)
    if share < 1e-3:
        return f"{words}; the interval has closed"
    wide = "as wide" if abs(share - 1) < 0.01 else f"{abs(1 - share):.0%} {'narrower' if share < 1 else 'wider'}"
    return f"{words}; the interval is {wide}"
