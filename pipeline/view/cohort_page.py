"""The page of all slides: a table that is sorted and cut down in the page; a click opens a slide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from pipeline.output.run_record import NOTICE
from pipeline.output.slide_folder import THUMBNAIL
from pipeline.report.figures import MISSING, number, paragraphs, show
from pipeline.task.task import Task
from pipeline.view.against import Against
from pipeline.view.cuts import Choices, classes_there, doubts_there, kinds_of, kinds_there, sureness_of
from pipeline.view.links import Links
from pipeline.view.page import label_html, page, values_html
from pipeline.view.run_folder import RunFolder, SlideRow
from stages.place import told
from stages.prediction.chance import brief_chance

BESIDE, APART = "the other run", "difference"
"""Columns of what another run says."""


def cohort_page(run: RunFolder, links: Links, against: Against | None = None) -> str:
    """The page of all slides, with what another run says of them beside it where there is one."""
    shown = [(run.task.values[i], run.task.columns[i]) for i in run.task.shown]
    has = _columns(run, against)
    heads = "".join(
        f'<th scope="col" class="{kind}"><button type="button">{escape(name)}</button></th>'
        if kind != "pictures"
        else '<th scope="col"><span class="hidden">picture</span></th>'
        for name, kind in (("", "pictures"), *has)
    )
    body = "".join(_row(one, run.task, shown, [name for name, _ in has], links, against) for one in run.slides)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in (*run.notes, *(against.notes if against else ())))
    beside = (
        f'<p class="soft">Beside it: {escape(against.run.title)} ({escape(str(against.run.folder))})</p>'
        f"{paragraphs([against.run.how_good] if against.run.how_good not in ('', run.how_good) else [])}"
        if against
        else ""
    )
    good, notice = paragraphs([run.how_good] if run.how_good else []), f'<p class="soft">{escape(NOTICE)}</p>'
    content = (
        f"<header><h1>{escape(run.title)}</h1>{good}{notice}{beside}</header>{notes}"
        f'<div class="tools"><label>Find <input id="find" type="search" placeholder="slide, patient, path"></label>'
        f"{_select('class', 'Predicted', classes_there(run))}{_select('kind', 'Show', kinds_there(run, against))}"
        f"{_select('sure', 'Doubt', doubts_there(run))}"
        f'<button type="button" id="errors"{"" if any(s.label is not None for s in run.slides) else " hidden"}>'
        'Errors first</button><span id="shown" class="soft" role="status"></span></div>'
        f'<div class="wide"><table id="slides"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )
    return page(run.title, content, links, scripts=("cohort.js",), kind="cohort")


def _select(name: str, label: str, choices: Choices) -> str:
    if not choices:
        return ""
    options = "".join(f'<option value="{escape(value)}">{escape(words)}</option>' for value, words in choices)
    return f'<label>{label} <select id="{name}"><option value="">all</option>{options}</select></label>'


def _columns(run: RunFolder, against: Against | None) -> list[tuple[str, str]]:
    shown = [run.task.values[i] for i in run.task.shown]
    single = (f"probability of {shown[0]}" if run.task.chances else shown[0]) if len(shown) == 1 else "probabilities"
    labelled = any(one.label is not None for one in run.slides)
    off = any(one.off is not None for one in run.slides)
    return [
        ("slide", "text"),
        *([("predicted", "text")] if run.task.chances else []),
        (single, "number chances"),
        *([(BESIDE, "number chances"), (APART, "number")] if against is not None else []),
        *([("label", "text")] if labelled else []),
        *([("error", "number")] if off else []),
        *([("call", "text")] if any("call" in one.row for one in run.slides) else []),
        ("read", "number"),
        ("status", "text"),
    ]


def _row(
    slide: SlideRow,
    task: Task,
    shown: Sequence[tuple[str, str]],
    names: Sequence[str],
    links: Links,
    against: Against | None,
) -> str:
    row, here = slide.row, slide.folder is not None
    pictured = slide.folder is not None and (slide.folder / THUMBNAIL).is_file()
    picture = (
        f'<a tabindex="-1" aria-hidden="true" href="{links.slide(slide.number)}">'
        f'<img src="{links.picture(slide.number, "thumbnail.jpg")}" loading="lazy" alt=""></a>'
    )
    name = _link(slide, links)
    if row.get("patient") and row["patient"] != slide.name:
        name += f"<small>patient {escape(str(row['patient']))}</small>"
    if row.get("seen"):
        name += f'<small class="bad">{escape(str(row["seen"]))}</small>'
    failed = row.get("status") != "ok"
    status = escape(str(row.get("status") or MISSING))
    why = row.get("error") if failed else "" if here else "its results are gone"
    for words, kind in ((why, "bad"), (slide.warned, "soft")):
        status += (
            f'<small class="{kind} clip" title="{escape(str(words))}">{escape(str(words))}</small>' if words else ""
        )
    first = slide.values.get(shown[0][0])
    cells = {
        "slide": (slide.name, name, "name"),
        "predicted": (str(row.get("predicted") or ""), escape(str(row.get("predicted") or MISSING)), "text"),
        "label": (slide.label or "", label_html(slide), "text"),
        "error": (f"{-1 if slide.off is None else slide.off:.9g}", _off(slide, task), "number"),
        "call": (str(row.get("call") or ""), _call(row), "text"),
        "read": (show(row.get("fraction_read"), ".9g").replace(MISSING, "-1"), _read(row), "number"),
        "status": (str(row.get("status")), status, "text"),
    }
    if against is not None:
        cells |= _beside(slide, task, shown, against)
    chances = (f"{first[0]:.9g}" if first else "-1", values_html(slide, task, shown, named=len(shown) > 1), "chances")
    html = f'<td class="pictures">{picture if pictured else ""}</td>'
    for head in names:
        key, inner, kind = cells.get(head, chances)
        bad = " bad" if head in ("label", "error") and slide.wrong else ""
        bad = " bad" if head == BESIDE and against is not None and against.otherwise(slide) else bad
        html += f'<td class="{kind}{bad}" data-name="{escape(head)}" data-sort="{escape(key)}">{inner}</td>'
    rank = (2 if slide.wrong else 1 if failed else 0) + min(0.999, slide.off or 0.0)
    text = " ".join((slide.name, str(row.get("patient") or ""), told(str(row.get("path") or "")), slide.label or ""))
    chance, width = sureness_of(slide, task)
    sure = " ".join(
        f'data-{name}="{"" if value is None else f"{value:.9g}"}"'
        for name, value in (("chance", chance), ("width", width))
    )
    kinds = " ".join(kinds_of(slide, against))
    return (
        f'<tr data-number="{slide.number if here else ""}" {sure} data-text="{escape(text)}" data-rank="{rank:.6g}" '
        f'data-class="{escape(str(row.get("predicted") or ""))}" data-kinds="{kinds}">{html}</tr>'
    )


def _beside(
    slide: SlideRow, task: Task, shown: Sequence[tuple[str, str]], against: Against
) -> dict[str, tuple[str, str, str]]:
    """What the other run says of a slide, and how far that is from this one."""
    other, name = against.slides.get(slide.number), shown[0][0]
    apart = against.apart(slide, name)
    if other is None:
        said, key = f"<small>{escape(against.why.get(slide.number, MISSING))}</small>", "-1"
    else:
        both = [one for one in shown if one[0] in other.values]
        said = values_html(other, task, both, named=len(shown) > 1)
        predicted = other.row.get("predicted") if task.chances else None
        said += f"<small>predicted {escape(str(predicted))}</small>" if predicted else ""
        key = f"{other.values[name][0]:.9g}" if name in other.values else "-1"
    words = MISSING if apart is None else f"{apart:+.2g}".replace("-", "\N{MINUS SIGN}")
    return {
        BESIDE: (key, said, "chances"),
        APART: ("-1" if apart is None else f"{abs(apart):.9g}", words, "number"),
    }


def _off(slide: SlideRow, task: Task) -> str:
    if slide.off is None:
        return MISSING
    return escape(brief_chance(slide.off)) if task.chances else f"{slide.off:.3g}"


def _link(slide: SlideRow, links: Links) -> str:
    name = escape(slide.name)
    return f'<a href="{links.slide(slide.number)}">{name}</a>' if slide.folder is not None else name


def _call(row: Mapping[str, Any]) -> str:
    why = f"<small>{escape(str(row['call_why']))}</small>" if row.get("call_why") else ""
    return escape(str(row.get("call") or MISSING)) + why


def _read(row: Mapping[str, Any]) -> str:
    if number(row.get("fraction_read")) is None:
        return MISSING
    patches = f"{show(row.get('patches_read'), ',.0f')} of {show(row.get('cells'), ',.0f')} patches"
    return f"{show(row.get('fraction_read'), '.1%')}<small>{patches}</small>"
