"""The report's table of slides: sorted and filtered in the page, a picture each, words below."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from pipeline.output.slide_folder import SHEET
from pipeline.output.table import settled_in_words
from pipeline.refer.label_set import REFER
from pipeline.report.embedded import folder_of
from pipeline.report.figures import MISSING, bar, bytes_in_words, number, show, unit_of
from pipeline.report.labels import agrees, is_wrong
from pipeline.task.task import Task
from stages.amounts import as_given, counted
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
PAGE = 100
"""Rows that stand in the table at a time; the page's script holds the others."""


def is_unlike(row: Mapping[str, Any]) -> bool:
    """Whether a slide looks unlike those that the model was trained on."""
    return (number(row.get("out_of_distribution")) or 0.0) > 1


def names_of(row: Mapping[str, Any]) -> list[str]:
    """The slides whose folders a row has."""
    return [str(one) for one in row.get("pictured", [row["slide_id"]])]


def by_urgency(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Slides by how much their pictures matter: what is wrong, doubtful or warned of comes first."""
    weight = {kind: 2**-i for i, kind in enumerate(KINDS)}
    return [
        one for row in sorted(rows, key=lambda row: -sum(weight[kind] for kind in _kinds(row))) for one in names_of(row)
    ]


def slides_table(
    rows: Sequence[Mapping[str, Any]], task: Task, intervals: str | None, previews: Mapping[str, str] | None = None
) -> str:
    """The section with a row for each predicted slide; see `pipeline.report.report.write_report`.

    Args:
        rows, task, intervals: see there.
        previews: by slide the address of its small picture; slides of earlier versions have none.
    """
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
    lines = [_slide(row, shown, task, previews or {}, width=len(heads), **columns) for row in rows]
    held = [len(one) for one in (previews or {}).values() if one.startswith("data:")]
    linked = len(previews or {}) - len(held)
    apart = (
        f" The pictures of {counted(len(held), 'slide')} are in this page, of those first of which most is to be said; "
        f"those of {linked:,} more show where it lies in its folder."
        if linked
        else ""
    )
    return (
        f"<h2>{unit.capitalize()}s</h2>"
        f'<p class="soft">{BARS if task.chances else NUMBERS} for what was not read'
        f"{escape(f' ({intervals})' if intervals else '')}{', the mark the prediction' if task.chances else ''}.{READ}"
        f"{escape(f' {task.meaning}' if task.meaning else '')}"
        f"{SCORED if columns['scored'] else ''} Click a picture for all of it; the GeoJSON opens in QuPath.{apart}</p>"
        '<div class="tools" hidden><label>Filter '
        '<input id="filter" type="search" placeholder="name, class or path"></label>'
        f'<label>Show <select id="kind"><option value="">all</option>{_choices(rows)}</select></label>'
        f'<label>Order <select id="order"><option value="">as listed</option>{_orders(rows, task)}</select></label>'
        '<span id="shown" class="soft" role="status"></span></div>'
        f'<div class="wide"><table id="slides"><thead><tr>{"".join(heads)}</tr></thead>'
        f"{''.join(line.standing for line in lines[:PAGE])}</table></div>{_held(lines[PAGE:], unit)}"
    )


def _held(lines: Sequence[_Line], unit: str) -> str:
    """Rows that do not stand in the table at first, for the page's script."""
    if not lines:
        return ""
    text = json.dumps([line.held for line in lines], ensure_ascii=False, separators=(",", ":"))
    text = text.replace("</", "<\\/").replace("<!", "\\u003c!")  # nothing in it ends the element, or begins a comment
    return (
        '<div class="tools pager" hidden><button type="button" id="before">back</button>'
        '<span id="place" class="soft"></span><button type="button" id="after">further</button>'
        f'<label>{unit}s at a time <select id="many"><option>{PAGE}</option><option>500</option>'
        '<option value="2000">2,000</option></select></label></div>'
        f"<noscript><p>The first {PAGE} {unit}s stand here; {len(lines):,} more show where scripts may run.</p>"
        "</noscript>"
        f'<script type="application/json" id="rows">{text}</script>'
    )


def error_of(row: Mapping[str, Any]) -> float:
    """How far a prediction is from the label: 1 less the probability of the label, and 1 more where another is
    predicted; of a number the distance; -1 where there is no label, or no such question."""
    if row.get("label") is None:
        return -1.0
    wrong = agrees(row)
    label, predicted = number(row["label"]), number(row.get("predicted"))
    if wrong is None:
        return abs(label - predicted) if label is not None and predicted is not None else -1.0
    chance = number(row.get(f"prob_{row['label']}"))
    return float(not wrong) + (0.0 if chance is None else 1 - chance)


def doubt_of(row: Mapping[str, Any], task: Task) -> float:
    """How little the most probable class is above the others: 1 less its probability; of numbers the width of the
    interval."""
    if task.chances:
        chances = [one for column in task.columns if (one := number(row.get(column))) is not None]
        return 1 - max(chances) if len(chances) > 1 else -1.0
    low, high = (number(row.get(f"{task.columns[0]}{end}")) for end in ("_low", "_high"))
    return -1.0 if low is None or high is None else high - low


def _orders(rows: Sequence[Mapping[str, Any]], task: Task) -> str:
    """What rows can be put in order by, beside their columns."""
    errors = '<option value="0">errors first</option>' if any(error_of(row) >= 0 for row in rows) else ""
    return errors + '<option value="1">least certain first</option>'


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


def _cell(name: str, key: str, inner: str, kind: str = "") -> tuple[str, str]:
    """What a cell is sorted by, and the cell; its column's name stands in it where the page is narrow."""
    return key, f'<td class="{kind}" data-name="{escape(name)}">{inner}</td>'


@dataclass(frozen=True, slots=True)
class _Line:
    """A row of the table.

    Attributes:
        cells: of HTML, what stands in it.
        text: what it is found by.
        kinds: see `KINDS`.
        orders: see `_orders`.
        keys: what columns are sorted by.
    """

    cells: str
    text: str
    kinds: str
    orders: tuple[float, float]
    keys: tuple[str, ...]

    @property
    def standing(self) -> str:
        """As it stands in the table."""
        by = json.dumps([self.orders, self.keys], ensure_ascii=False)
        told = f'data-text="{escape(self.text)}" data-kinds="{self.kinds}" data-by="{escape(by)}"'
        return f"<tbody {told}>{self.cells}</tbody>"

    @property
    def held(self) -> list[Any]:
        """As the page's script holds it."""
        return [self.cells, self.text, self.kinds, [self.orders, self.keys]]


def _slide(
    row: Mapping[str, Any],
    shown: Sequence[tuple[str, str]],
    task: Task,
    previews: Mapping[str, str],
    *,
    width: int,
    labelled: bool,
    decided: bool,
    called: bool,
    scored: bool,
) -> _Line:
    predicted = show(row.get("predicted"), ".4g") if not task.chances else str(row.get("predicted", ""))
    unit = unit_of(row)
    name = str(row.get("patient", row["slide_id"]))
    slides = names_of(row)
    folders = {one: folder_of(one) for one in slides}
    pictures = [_picture(folder, one, previews.get(one), named=unit != "slide") for one, folder in folders.items()]
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
        ("", f'<td class="pictures">{"".join(pictures)}</td>'),
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
    html = f"<tr>{''.join(cell for _, cell in cells)}</tr>{_words(row.get('words') or {}, width)}"
    orders = round(error_of(row), 6), round(doubt_of(row, task), 6)
    return _Line(html, text, " ".join(_kinds(row)), orders, tuple(key for key, _ in cells))


def _told_in(shown: Sequence[tuple[str, str]], task: Task) -> str:
    """What the column of what is told is called."""
    if len(shown) > 1:
        return "probabilities" if task.chances else "what is told"
    return f"probability of {shown[0][0]}" if task.chances else shown[0][0]


def _key(row: Mapping[str, Any], column: str) -> str:
    return show(row.get(column), ".9g").replace(MISSING, "-1")


def _bad(kind: str, holds: bool) -> str:
    return f"{kind} bad" if holds else kind


def _picture(folder: str, name: str, preview: str | None, *, named: bool) -> str:
    """Where the model looked and what speaks for and against, small."""
    told = f"{name}: where it looked; for and against"
    if preview is None:
        return (
            f'<a href="{folder}/overlay.jpg"><img src="{folder}/overlay.jpg" loading="lazy" alt="{escape(told)}"></a>'
        )
    under = f"<small>{escape(name)}</small>" if named else ""
    return (
        f'<a href="{folder}/{SHEET}"><img class="both" src="{preview}" loading="lazy" decoding="async" '
        f'alt="{escape(told)}">{under}</a>'
    )


def _links(folder: str, *, shown: bool) -> str:
    """To what lies in a slide's folder; a bag has no pixels, and no gallery to be shown."""
    gallery = f'<a href="{folder}/gallery.jpg">gallery</a> ' if shown else "no pixels, no gallery; "
    maps = f'<a href="{folder}/overlay.jpg">overlay</a> <a href="{folder}/evidence.jpg">evidence</a>'
    return f'{maps} {gallery}<a href="{folder}/overlay.geojson">GeoJSON</a>'


def _label(row: Mapping[str, Any]) -> tuple[str, str]:
    """The label, and whether it is another than predicted: sorted, these come first."""
    label = row.get("label")
    if label is None:
        return _cell("label", "2", MISSING, "text")
    note = "<small>wrong</small>" if is_wrong(row) else ""
    note += f"<small>not counted: {escape(str(row['not_counted']))}</small>" if row.get("not_counted") else ""
    return _cell(
        "label", f"{0 if is_wrong(row) else 1} {label}", escape(str(label)) + note, _bad("text", is_wrong(row))
    )


def _decision(row: Mapping[str, Any]) -> tuple[str, str]:
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
