"""The page of a slide: what its script puts into Bokeh's figure, and what stands beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from string import Template
from typing import Any

from pipeline.output.run_record import NOTICE
from pipeline.task.task import Task
from pipeline.view.figure import BOKEH
from pipeline.view.findings import Findings
from pipeline.view.links import Links
from pipeline.view.page import in_page, label_html, own, page, sentence, values_html
from pipeline.view.run_folder import RunFolder, SlideRow
from pipeline.view.samples import Samples
from stages.overlay.gallery import choose

GALLERY_SHOWN = 12
"""Patches for and against, at most, of each."""
WORDS = ("what", "how_sure", "evidence", "not_read", "unusual")
"""Sentences on a slide, in order; how good the model is stands on the page of all."""
TEMPLATE = Template(own("slide.html"))
_DATA = "@@data@@"
"""Where that goes which takes longer."""
Figure = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Beside:
    """What another run found of the slide of a page.

    Attributes:
        run: the other one.
        slide: as it has it.
        findings: of that.
        figure: makes it, as that of a page.
        links: of its pictures.
    """

    run: RunFolder
    slide: SlideRow
    findings: Findings
    figure: Figure
    links: Links


def slide_page(
    run: RunFolder,
    slide: SlideRow,
    findings: Findings,
    figure: Figure,
    links: Links,
    *,
    notes: Sequence[str],
    background: tuple[int, int, int],
    patches: Sequence[int],
    tiled: bool = False,
    beside: Beside | None = None,
) -> Iterator[str]:
    """The page of a slide, in two parts: what is seen of it at once, and what its script makes a figure of.

    Args:
        run: that it belongs to.
        slide: whose.
        findings: of it.
        figure: makes it, see `pipeline.view.figure.figure_json`; that takes some tenths of a second.
        links: of the page.
        notes: what cannot be shown beside what the findings lack, in sentences.
        background: RGB of what was never scanned.
        patches: numbers of the patches of which there is a picture.
        tiled: whether the slide itself can be read.
        beside: what another run found of it; None: nothing is compared.
    """
    shown = [(run.task.values[i], run.task.columns[i]) for i in run.task.shown]
    pictured = set(patches)
    there = [one.number for one in run.slides if one.folder is not None]
    data: dict[str, Any] = {
        "number": slide.number,
        "slides": there,
        "address": links.slide(0).replace("0", "{}", 1),
        "frame": [findings.frame.fx, findings.frame.fy, findings.frame.width, findings.frame.height],
        "background": background,
        "mpp": [findings.mpp.x, findings.mpp.y] if findings.mpp else None,
        "layers": _told_of_layers(findings),
        **told_of_patches(
            findings.samples,
            findings.told,
            findings.cells,
            lambda i: links.picture(slide.number, f"patch/{i}.jpg") if i in pictured else None,
        ),
        "of": findings.told,
        "more": links.picture(slide.number, "more") if links.served and tiled else None,
    }
    missing = [*notes, *findings.missing]
    shown_notes = "".join(f'<p class="note">{escape(sentence(note))}</p>' for note in missing)
    lines = "".join(f"<p>{escape(findings.words[name])}</p>" for name in WORDS if name in findings.words)
    words = f'<section class="told"><details open><summary>in words</summary>{lines}</details></section>'
    label = f'<p class="label{" bad" if slide.wrong else ""}">Label: {label_html(slide)}</p>' if slide.label else ""
    warned = f'<p class="doubt">{escape(sentence(slide.warned))}</p>' if slide.warned else ""
    content = TEMPLATE.substitute(
        cohort=links.cohort,
        name=escape(slide.name),
        notes=shown_notes,
        predicted=_predicted(slide, run.task) + values_html(slide, run.task, shown, named=True),
        label=warned + label + ("" if beside is None else _other_html(slide, beside)),
        this=escape(f"this run: {run.folder.name}"),
        other="" if beside is None else escape(f"the other run: {beside.run.folder.name}"),
        first=_first(slide, findings, links),
        two="" if beside is None else " two",
        words=words if lines else "",
        evidence=_evidence_choices(run, findings) if links.served else "",
        notice=escape(NOTICE),
        data=_DATA,
    )
    whole = page(slide.name, content, links, scripts=(BOKEH, "more.js", "viewer.js"), kind="slide")
    first, _, last = whole.rpartition(_DATA)  # all texts come before
    yield first
    data["figure"] = figure()
    data["beside"] = None if beside is None else _told_of_other(beside, tiled)
    yield in_page(data) + last


def _told_of_layers(findings: Findings) -> list[dict[str, Any]]:
    told = ("name", "label", "title", "colours", "ticks", "signed")
    return [{name: getattr(one, name) for name in told} for one in findings.layers]


def _told_of_other(beside: Beside, tiled: bool) -> dict[str, Any]:
    found, number = beside.findings, beside.slide.number
    return {
        "figure": beside.figure(),
        "layers": _told_of_layers(found),
        **told_of_patches(
            found.samples,
            found.told,
            found.cells,
            lambda i: beside.links.picture(number, f"patch/{i}.jpg") if tiled else None,
        ),
    }


def _other_html(slide: SlideRow, beside: Beside) -> str:
    """What the other run predicts, and how far that is from this one."""
    task, other = beside.run.task, beside.slide
    shown = [(task.values[i], task.columns[i]) for i in task.shown]
    apart = [
        f"{name} {other.values[name][0] - slide.values[name][0]:+.2g}".replace("-", "\N{MINUS SIGN}")
        for name, _ in shown
        if name in other.values and name in slide.values
    ]
    moved = f'<p class="soft">beside this run: {escape(", ".join(apart))}</p>' if apart else ""
    predicted = f"The other run: {escape(str(other.row.get('predicted')))}" if task.chances else "The other run"
    return f'<div id="other"><h2>{predicted}</h2>{values_html(other, task, shown, named=True)}{moved}</div>'


def _first(slide: SlideRow, findings: Findings, links: Links) -> str:
    """The thumbnail where the figure will have it, for as long as Bokeh is loading."""
    if findings.thumbnail is None or not links.served:
        return ""
    return f'<div id="first"><img src="{links.picture(slide.number, "overview.jpg")}" alt=""></div>'


def _predicted(slide: SlideRow, task: Task) -> str:
    """What is predicted, in a heading; numbers stand below it."""
    return f"<h2>Predicted {escape(str(slide.row.get('predicted')))}</h2>" if task.chances else "<h2>Predicted</h2>"


def _evidence_choices(run: RunFolder, findings: Findings) -> str:
    """Which class's evidence is shown; of two, each says the other's with the sign turned."""
    names = findings.samples.names if findings.samples is not None else ()
    if len(names) < 2 or (len(names) == 2 and run.task.kind == "classification"):
        return ""
    options = "".join(
        f'<option value="{i}"{" selected" if i == findings.told else ""}>{escape(name)}</option>'
        for i, name in enumerate(names)
    )
    return f'<label>Evidence for <select id="of">{options}</select></label>'


def told_of_patches(
    samples: Samples | None, told: int, cells: int | None, picture: Callable[[int], str | None]
) -> dict[str, Any]:
    """What the page's script is told of the patches that were read.

    Args:
        samples: the patches; None: nobody knows.
        told: whose evidence is told, by its place among the samples' names.
        cells: over how many attention is; None: nobody knows.
        picture: address of a patch's picture; None where there is none.
    """
    if samples is None:
        return {"patches": [], "gallery": [[], []], "told": None, "unit": None}
    rows = [
        {
            "box": samples.boxes[i].tolist(),
            "attention": samples.attention[i],
            "times": samples.attention[i] * cells if cells else None,
            "weight": samples.weights[i],
            "contribution": samples.contributions[i, told] if samples.names else None,
            "half": samples.half_widths[i, told] if samples.names else None,
            "picture": picture(i),
        }
        for i in range(len(samples.boxes))
    ]
    chosen = (
        choose(samples.contributions[:, told], samples.half_widths[:, told], GALLERY_SHOWN) if samples.names else []
    )
    gallery: list[list[int]] = [[], []]
    for one in chosen:
        gallery[one.row].append(one.number)
    name = samples.names[told] if samples.names else None
    return {"patches": rows, "gallery": gallery, "told": name, "unit": samples.unit}
