"""The report's table of slides: sorted and filtered in the page, a picture each, words below."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from pipeline.output.table import settled_in_words
from pipeline.refer.label_set import REFER
from pipeline.report.figures import MISSING, bar, bytes_in_words, number, show, unit_of
from pipeline.report.labels import is_wrong
from pipeline.task.task import Task
from stages.amounts import as_given
from stages.place import told
from stages.prediction.chance import brief_chance, with_interval

SCORED = " Unlike the training: 0 is like the middle of its slides; about one in a hundred of those passes 1."
READ = " Read: share of the tissue's area, and of the patches with tissue, of which those at an edge hold less."
BARS = "Bars run from 0 to 1: the band is the stated interval"
NUMBERS = "In brackets stands the stated interval"
KINDS = {
    "wrong": "prediction is not the label",
    "unlike": "looks unlike the training",
    "referred": "referred",
    "undecided": "not settled",
    "warned": "with a warning",
    "seen": "seen in the training",
}
"""What the table can be cut down to."""


def is_unlike(row: Mapping[str, Any]) -> bool:
    """Whether a slide looks unlike those that the model was trained on."""
    return (number(row.get("out_of_distribution")) or 0.0) > 1


def slides_table(rows: Sequence[Mapping[str, Any]], task: Task, intervals: str | None) -> str:
    """The section with a row for each predicted slide; see `pipeline.report.report.write_report`."""
    if not rows:
        return ""
    shown = [(task.values[i], task.columns[i]) for i in task.shown]  # of two classes the second tells all
    columns = {
        "labelled": any(row.get("label") is not None for row in rows),
        "decided": any("decision" in row for row in rows),
        "called": any("call" in row for row in rows),
        "scored": any(number(row.get("out_of_distribution")) is not None for row in rows),
    }
    unit = unit_of(rows[0])
    heads = ['<th scope="col">pictures</th>', _head(unit), _head("prediction")]
    heads += [_head("label")] if columns["labelled"] else []
    told = _told_in(shown, task)
    heads += [_head(told, "number chances") if len(shown) == 1 else f'<th scope="col">{told}</th>']
    heads += [_head("decision")] if columns["decided"] else []
    heads += [_head("call")] if columns["called"] else []
    heads += [_head("read", "number"), _head("cost", "number")]
    heads += [_head("unlike the training", "number")] if columns["scored"] else []
    body = "".join(_slide(row, shown, task, width=len(heads), **columns) for row in rows)
    return (
        f"<h2>{unit.capitalize()}s</h2>"
        f'<p class="soft">{BARS if task.chances else NUMBERS} for what was not read'
        f"{escape(f' ({intervals})' if intervals else '')}{', the mark the prediction' if task.chances else ''}.{READ}"
        f"{escape(f' {task.meaning}' if task.meaning else '')}"
        f"{SCORED if columns['scored'] else ''} Click a picture for all of it; the GeoJSON opens in QuPath.</p>"
        '<div class="tools" hidden><label>Filter '
        '<input id="filter" type="search" placeholder="name, class or path"></label>'
        f'<label>Show <select id="kind"><option value="">all</option>{_choices(rows)}</select></label>'
        '<span id="shown" class="soft" role="status"></span></div>'
        f'<div class="wide"><table id="slides"><thead><tr>{"".join(heads)}</tr></thead>{body}</table></div>'
    )


def _kinds(row: Mapping[str, Any]) -> list[str]:
    found = {
        "wrong": is_wrong(row),
        "unlike": is_unlike(row),
        "referred": row.get("call") == REFER,
        "undecided": row.get("decision") == "undecided",
        "warned": bool(row.get("warnings")),
        "seen": bool(row.get("seen")),
    }
    return [kind for kind, holds in found.items() if holds]


def _choices(rows: Sequence[Mapping[str, Any]]) -> str:
    every = [kind for row in rows for kind in _kinds(row)]
    return "".join(
        f'<option value="{kind}">{words} ({every.count(kind):,})</option>'
        for kind, words in KINDS.items()
        if kind in every
    )


def _head(name: str, kind: str = "") -> str:
    """A column that can be sorted by, as text or as numbers."""
    return f'<th scope="col" class="{kind}"><button type="button">{escape(name)}</button></th>'


def _cell(name: str, key: str, inner: str, kind: str = "") -> str:
    """A cell with what it is sorted by; its column's name stands in it where the page is narrow."""
    return f'<td class="{kind}" data-name="{escape(name)}" data-sort="{escape(key)}">{inner}</td>'


def _slide(
    row: Mapping[str, Any],
    shown: Sequence[tuple[str, str]],
    task: Task,
    *,
    width: int,
    labelled: bool,
    decided: bool,
    called: bool,
    scored: bool,
) -> str:
    predicted = show(row.get("predicted"), ".4g") if not task.chances else str(row.get("predicted", ""))
    unit = unit_of(row)
    name = str(row.get("patient", row["slide_id"]))
    slides = [str(one) for one in row.get("pictured", [row["slide_id"]])]
    folders = {one: f"slides/{quote(os.fsencode(one), safe='')}" for one in slides}
    pictures = [
        _picture(folder, file, one, caption if unit == "slide" else f"{one}: {caption}")
        for one, folder in folders.items()
        for file, caption in (("overlay.jpg", "where it looked"), ("evidence.jpg", "for and against"))
    ]
    has = row.get("gallery", True)  # of a patient, which slides have one
    links = [
        _links(folder, shown=one in (slides if has is True else has or ())) + (f" {escape(one)}" * (unit == "patient"))
        for one, folder in folders.items()
    ]
    where = str(row.get("path", "")) if unit == "slide" else ""
    named = len(shown) > 1
    numbers = "".join(
        _chance(row, *one, named=named) if task.is_chance(one[0]) else _number(row, *one, named=named) for one in shown
    )
    key = predicted if named else _key(row, shown[0][1])
    warned = "".join(f"<small>warning: {escape(str(warning))}</small>" for warning in row.get("warnings") or ())
    warned += f"<small>seen in the training: {escape(str(row['seen']))}</small>" if row.get("seen") else ""
    cells = [
        f'<td class="pictures">{"".join(pictures)}</td>',
        _cell(
            unit,
            name,
            f"<strong>{escape(name)}</strong><small>{escape(where)}</small>"
            + "".join(f"<small>{link}</small>" for link in links)
            + warned,
            "name",
        ),
        _cell("prediction", predicted, escape(predicted), "text"),
    ]
    cells += [_label(row)] if labelled else []
    cells += [_cell(_told_in(shown, task), key, numbers, "chances")]
    cells += [_decision(row)] if decided else []
    if called:
        why = f"<small>{escape(str(row['call_why']))}</small>" if row.get("call_why") else ""
        call = str(row.get("call", MISSING))
        cells += [_cell("call", call, escape(call) + why, "text")]
    patches = f"{show(row.get('patches_read'), ',.0f')} of {show(row.get('cells'), ',.0f')} patches"
    cost = f"{show(row.get('seconds'), '.1f')} s<small>{bytes_in_words(row.get('bytes_read'))}</small>"
    read = f"{show(row.get('fraction_read'), '.1%')}<small>{patches}</small>"
    cells += [_cell("read", _key(row, "fraction_read"), read, "number")]
    cells += [_cell("cost", _key(row, "seconds"), cost, "number")]
    if scored:
        score = show(row.get("out_of_distribution"), ".2f")
        cells += [_cell("unlike the training", _key(row, "out_of_distribution"), score, _bad("number", is_unlike(row)))]
    text = " ".join((name, *(slides if unit == "patient" else ()), predicted, str(row.get("label") or ""), told(where)))
    return (
        f'<tbody data-text="{escape(text)}" data-kinds="{" ".join(_kinds(row))}"><tr>{"".join(cells)}</tr>'
        f"{_words(row.get('words') or {}, width)}</tbody>"
    )


def _told_in(shown: Sequence[tuple[str, str]], task: Task) -> str:
    """What the column of what is told is called."""
    if len(shown) > 1:
        return "probabilities" if task.chances else "what is told"
    return f"probability of {shown[0][0]}" if task.chances else shown[0][0]


def _key(row: Mapping[str, Any], column: str) -> str:
    return show(row.get(column), ".9g").replace(MISSING, "-1")


def _bad(kind: str, holds: bool) -> str:
    return f"{kind} bad" if holds else kind


def _picture(folder: str, file: str, name: str, caption: str) -> str:
    return (
        f'<a href="{folder}/{file}"><img src="{folder}/{file}" loading="lazy" '
        f'alt="{escape(f"{name}: {caption}")}"><small>{caption}</small></a>'
    )


def _links(folder: str, *, shown: bool) -> str:
    """To what lies in a slide's folder; a bag has no pixels, and no gallery to be shown."""
    gallery = f'<a href="{folder}/gallery.jpg">gallery</a> ' if shown else "no pixels, no gallery; "
    return f'{gallery}<a href="{folder}/overlay.geojson">GeoJSON</a>'


def _label(row: Mapping[str, Any]) -> str:
    """The label, and whether it is another than predicted: sorted, these come first."""
    label = row.get("label")
    if label is None:
        return _cell("label", "2", MISSING, "text")
    note = "<small>wrong</small>" if is_wrong(row) else ""
    note += f"<small>not counted: {escape(str(row['not_counted']))}</small>" if row.get("not_counted") else ""
    return _cell(
        "label", f"{0 if is_wrong(row) else 1} {label}", escape(str(label)) + note, _bad("text", is_wrong(row))
    )


def _decision(row: Mapping[str, Any]) -> str:
    if "decision" not in row:
        return _cell("decision", "", MISSING, "text")
    at, risk = as_given(row["decided_at"]), f"<small>risk {as_given(row['risk'])}</small>"
    if row["decision"] == "undecided":
        return _cell("decision", "undecided", f"not settled at {at}{risk}", "text")
    words = escape(f"settled: {settled_in_words(row)} {at}")
    return _cell("decision", str(row["decision"]), words + risk, "text")


def _words(words: Mapping[str, str], width: int) -> str:
    """The sentences on a slide, in a row of their own; how good the model is stands above, once."""
    lines = "".join(f"<p>{escape(line)}</p>" for name, line in words.items() if name != "how_good")
    if not lines:
        return ""
    return f'<tr class="words"><td colspan="{width}"><details><summary>in words</summary>{lines}</details></td></tr>'


def _number(row: Mapping[str, Any], name: str, column: str, *, named: bool) -> str:
    value, low, high = (show(row.get(f"{column}{end}"), ".4g") for end in ("", "_low", "_high"))
    called = f"<span>{escape(name)}</span>" if named else ""
    return f'<div class="chance single">{called}<span>{value} [{low}, {high}]</span></div>'


def _chance(row: Mapping[str, Any], name: str, column: str, *, named: bool) -> str:
    value, low, high = (number(row.get(f"{column}{end}")) for end in ("", "_low", "_high"))
    if value is None:
        told, short = MISSING, MISSING
    elif low is None or high is None:
        told = short = brief_chance(value)
    else:
        told, short = with_interval(value, low, high), brief_chance(value)
    picture = bar(value, low, high, f"probability of {name}: {told}")
    if named:  # many classes: the bar, and its words on hovering, say the interval
        return f'<div class="chance"><span>{escape(name)}</span>{picture}<span>{escape(short)}</span></div>'
    return f'<div class="chance single">{picture}<span>{escape(told)}</span></div>'
