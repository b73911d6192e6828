"""What all pages share: their shell, what they may load, and how values of a run come into them.

Names are text in pages, whatever characters they have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from pipeline.output.documents import plain
from pipeline.report.figures import MISSING, bar
from pipeline.report.page import STYLE
from pipeline.task.task import Task
from pipeline.view.links import Links
from pipeline.view.run_folder import SlideRow
from stages.place import tellable
from stages.prediction.chance import brief_chance, with_interval


def own(name: str) -> str:
    """A file that lies beside this one."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


ASSETS = {
    "viewer.css": f"{STYLE}\n{own('viewer.css')}",
    "cohort.js": own("cohort.js"),
    "more.js": own("more.js"),
    "viewer.js": own("viewer.js"),
}
"""Style and scripts of ours, by name."""


def values_html(slide: SlideRow, task: Task, shown: Sequence[tuple[str, str]], *, named: bool) -> str:
    """The values that are told of a slide, each with its interval, and its name where that is asked for."""
    told_of = [name for name, _ in shown if name in slide.values]
    if not told_of:
        return MISSING
    return "".join(_value(name, *slide.values[name], task=task, named=named) for name in told_of)


def _value(name: str, value: float, low: float | None, high: float | None, *, task: Task, named: bool) -> str:
    interval = low is not None and high is not None
    if task.chances:
        words = with_interval(value, low, high) if low is not None and high is not None else brief_chance(value)
        picture = bar(value, low, high, f"probability of {name}: {words}")
    else:
        words = f"{value:.4g} [{low:.4g}, {high:.4g}]" if interval else f"{value:.4g}"
        picture = ""
    if named:
        return f'<div class="chance"><span>{escape(name)}</span>{picture}<span>{escape(words)}</span></div>'
    return f'<div class="chance single">{picture}<span>{escape(words)}</span></div>'


def label_html(slide: SlideRow) -> str:
    """What a slide is, and whether something else was predicted."""
    if slide.label is None:
        return MISSING
    return escape(slide.label) + ("<small>wrong</small>" if slide.wrong else "")


def sentence(words: str) -> str:
    """Words with a capital at first, unless the first is a path."""
    first = words.partition(" ")[0]
    return words if set(first) & set("/\\.") else words[:1].upper() + words[1:]


def in_page(data: Any) -> str:
    """JSON as it may stand in a page: nothing in it can end the element that holds it."""
    text = json.dumps(plain(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def refusal_page(title: str, words: str, links: Links) -> str:
    """A page that says why there is nothing to show."""
    content = f'<header><h1>{escape(title)}</h1></header><p class="note">{escape(sentence(words))}</p>'
    content += f'<p><a href="{links.cohort}">All slides</a></p>'
    return page(title, content, links, scripts=(), kind="refusal")


def policy(served: bool) -> str:
    """What a page may load: what lies beside it, and nothing from anywhere else."""
    own = "'self'" if served else "'self' file:"
    return (
        f"default-src 'none'; script-src {own}; style-src {own} 'unsafe-inline'; img-src {own} data: blob:; "
        "base-uri 'none'; form-action 'none'" + ("; connect-src 'self'; frame-ancestors 'none'" if served else "")
    )


def page(title: str, content: str, links: Links, *, scripts: Sequence[str], kind: str) -> str:
    """A page of some content, which is HTML; scripts are names of assets."""
    guard = "" if links.served else f'<meta http-equiv="Content-Security-Policy" content="{policy(False)}">\n'
    loads = "".join(f'<script src="{links.asset(name)}" defer></script>\n' for name in scripts)
    return tellable(
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{guard}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        '<link rel="icon" href="data:,">\n'
        f'<link rel="stylesheet" href="{links.asset("viewer.css")}">\n{loads}</head>\n'
        f'<body class="{kind}">\n{content}\n</body>\n</html>\n'
    )
