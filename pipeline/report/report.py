"""The cohort at a glance: one HTML file that needs no network and opens from a file:// address."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.cohort.metrics import METRICS
from pipeline.model.quality import ABOUT_READING, UNKNOWN, Quality
from pipeline.output.table import decision_in_words

MISSING = "\N{EN DASH}"

STYLE = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
SCRIPT = Path(__file__).with_name("report.js").read_text(encoding="utf-8")
NAMES = {"auroc": "AUROC", "auprc": "AUPRC", "f1": "F1"}
NARROW = "However narrow an interval is here, what lies in it may be no better than a guess."
SCORED = " Out of distribution: how unlike the training's slides one looks; about one in a hundred of those passes 1."


def write_report(
    path: Path, rows: Sequence[Mapping[str, Any]], run: Mapping[str, Any], *, gallery: str | None = None
) -> None:
    """Write the report of a run, to lie beside its ``slides`` folder.

    Args:
        path: the HTML file.
        rows: a dict for each slide, keyed as the columns of predictions.csv; a failed slide needs only ``slide_id``,
            ``path``, ``status`` and ``error``; a predicted one has its ``words`` and ``warnings``, too.
        run: as in run.json: ``classes``, ``intervals``, ``command``, ``settings``, ``started``, ``ended``, ``reused``,
            ``bytes_read``, ``slide_bytes``, ``metrics`` (name -> ``{"value", "low", "high"}``), ``not_counted`` and
            ``quality``, of the model, None where it is not known; what is missing is left out.
        gallery: the picture of the cohort's strongest patches, beside the report.
    """
    done = [row for row in rows if row["status"] == "ok"]
    failed = [row for row in rows if row["status"] != "ok"]
    body = [
        "<h1>Saccade report</h1>",
        f'<p class="soft">{_when(run)}</p>',
        _trust(run),
        _cards(done, failed, run),
        _failures(failed),
        _metrics(run.get("metrics") or {}, run.get("not_counted") or {}),
        _slides(done, list(run.get("classes") or []), run.get("intervals")),
        _gallery(gallery),
        _origin(run),
    ]
    policy = (
        "default-src 'none'; img-src 'self' file:; base-uri 'none'; form-action 'none'; "
        f"style-src {_digest(STYLE)}; script-src {_digest(SCRIPT)}"
    )
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Saccade report: {_count(len(rows), 'slide')}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + f"\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
    # names that are not valid UTF-8 reach Python as lone surrogates
    path.write_text(page, encoding="utf-8", errors="backslashreplace", newline="\n")


def _digest(text: str) -> str:
    """What lets exactly this inline style or script through the page's content policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _number(value: Any) -> float | None:
    """A finite number, or None for what is missing, empty or not a number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _show(value: Any, form: str) -> str:
    number = _number(value)
    return MISSING if number is None else format(number, form)


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _bytes(value: Any) -> str:
    number = _number(value)
    if number is None:
        return MISSING
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} B" if unit == "B" else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} TB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _moment(run: Mapping[str, Any], key: str) -> datetime | None:
    try:
        return datetime.fromisoformat(str(run[key]))
    except (KeyError, ValueError):
        return None


def _when(run: Mapping[str, Any]) -> str:
    ended = _moment(run, "ended")
    return escape(f"{ended:%Y-%m-%d %H:%M} {ended.tzname() or ''}".strip()) if ended else ""


def _total(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return sum(_number(row.get(key)) or 0.0 for row in rows)


def _decided(done: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """The card of what was decided, where something was."""
    found = Counter(decision_in_words(row) for row in done if "decision" in row)
    open_ones = sum(row.get("decision") == "undecided" for row in done)
    words = "; ".join(f"{count:,} {name}" for name, count in sorted(found.items()))
    return [("slides decided", f"{found.total() - open_ones:,} of {found.total():,}", words)] if found else []


def _cards(done: Sequence[Mapping[str, Any]], failed: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> str:
    fractions = [f for f in (_number(row.get("fraction_read")) for row in done) if f is not None]
    started, ended = _moment(run, "started"), _moment(run, "ended")
    wall = (ended - started).total_seconds() if started and ended else None
    read, whole = _number(run.get("bytes_read")), _number(run.get("slide_bytes"))
    share = f"{read / whole:.1%} of the slides' {_bytes(whole)}" if read is not None and whole else ""
    reused = int(_number(run.get("reused")) or 0)
    cards = [
        ("slides predicted", f"{len(done):,} of {len(done) + len(failed):,}", f"{reused:,} reused" if reused else ""),
        ("slides failed", f"{len(failed):,}", "each attempted again on a rerun" if failed else ""),
        ("patches read", f"{_total(done, 'patches_read'):,.0f}", f"of {_total(done, 'cells'):,.0f} cells of tissue"),
        (
            "tissue read, mean",
            f"{sum(fractions) / len(fractions):.1%}" if fractions else MISSING,
            f"{min(fractions):.1%} to {max(fractions):.1%}" if fractions else "",
        ),
        ("bytes read", _bytes(read), share),
        *_decided(done),
        ("time", _duration(wall), f"{_duration(_total(done, 'seconds') / len(done))} per slide" if done else ""),
    ]
    return (
        '<dl class="cards">'
        + "".join(
            f'<div><dt>{escape(name)}</dt><dd class="figure">{escape(value)}</dd><dd>{escape(note)}</dd></div>'
            for name, value, note in cards
        )
        + "</dl>"
    )


def _trust(run: Mapping[str, Any]) -> str:
    """What intervals are about, and how good the model is: two things that are easily taken for one."""
    if "quality" not in run:
        return ""
    quality = None if run["quality"] is None else Quality.from_json(run["quality"])
    lines = [ABOUT_READING, UNKNOWN if quality is None else quality.in_words()]
    if run.get("encoder"):
        lines.append(_encoder(run["encoder"]))
    if quality is None or quality.warning is None:
        return '<section class="trust">' + "".join(f"<p>{escape(line)}</p>" for line in lines) + "</section>"
    lines.append(NARROW)
    return (
        f'<section class="failed trust"><h2 class="bad">Warning: {escape(quality.warning)}</h2>'
        + "".join(f"<p>{escape(line)}</p>" for line in lines)
        + "</section>"
    )


def _encoder(told: Mapping[str, Any]) -> str:
    """Whose features the model goes by, on what terms, and what is doubtful about that."""
    licence = told["licence"] or "not known"
    revision = f", {told['revision']}" if told["revision"] else ""
    doubts = "".join(f" {doubt[0].upper()}{doubt[1:]}." for doubt in told["doubts"])
    return (
        f"Features are of the frozen encoder {told['name']} ({told['source']}{revision}; licence: {licence}; digest "
        f"{told['digest'][:12]}).{doubts}"
    )


def _failures(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    lines = "".join(
        f'<tr><td class="name">{escape(str(row["slide_id"]))}<small>{escape(str(row.get("path", "")))}</small></td>'
        f"<td>{escape(str(row.get('error') or 'no reason was recorded'))}</td></tr>"
        for row in rows
    )
    return (
        f'<section class="failed"><h2 class="bad">{_count(len(rows), "slide")} failed</h2><div class="wide"><table>'
        f'<thead><tr><th scope="col">slide</th><th scope="col">reason</th></tr></thead><tbody>{lines}</tbody></table>'
        "</div></section>"
    )


def _metrics(metrics: Mapping[str, Any], not_counted: Mapping[str, int]) -> str:
    # by their names: a class may be called "value"
    scores = {name: metrics[name] for name in METRICS if isinstance(metrics.get(name), Mapping)}
    if not scores:
        return ""
    of = [_count(int(metrics[key]), key[:-1]) for key in ("slides", "patients") if _number(metrics.get(key))]
    of += [f"not counted: {count} {why}" for why, count in not_counted.items()]
    of += [f"positive class: {metrics['positive']}"] if metrics.get("positive") else []
    lines = []
    for key, score in scores.items():
        name = NAMES.get(key, key.replace("_", " "))
        value, low, high = (score.get(part) for part in ("value", "low", "high"))
        interval = MISSING if _number(low) is None else f"{_show(low, '.3f')} to {_show(high, '.3f')}"
        lines.append(
            f'<tr><th scope="row">{escape(name)}</th><td class="number">{_show(value, ".3f")}</td>'
            f'<td class="number">{interval}</td><td>{_bar(value, low, high, name)}</td></tr>'
        )
    return (
        f'<h2>Against the labels</h2><p class="soft">{escape(", ".join(of))}</p>'
        '<div class="wide"><table class="narrow"><thead><tr><th scope="col">metric</th>'
        '<th scope="col" class="number">value</th><th scope="col" class="number">95 % interval</th>'
        f'<th scope="col">0 to 1</th></tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
        + _sites(metrics.get("sites") or {})
    )


def _sites(sites: Mapping[str, Mapping[str, Any]]) -> str:
    """Each site's AUROC, or that there is none because its slides are of one class."""
    lines = []
    for site, metrics in sites.items():
        auroc = metrics["auroc"]
        interval = MISSING if auroc["low"] is None else f"{_show(auroc['low'], '.3f')} to {_show(auroc['high'], '.3f')}"
        classes = ", ".join(f"{count:,} {name}" for name, count in metrics["slides_per_class"].items())
        bar = "one class only" if auroc["value"] is None else _bar(auroc["value"], auroc["low"], auroc["high"], site)
        lines.append(
            f'<tr><th scope="row">{escape(site)}</th><td>{escape(classes)}</td><td class="number">'
            f'{_show(auroc["value"], ".3f")}</td><td class="number">{interval}</td><td>{bar}</td></tr>'
        )
    if not lines:
        return ""
    return (
        '<h3>By site</h3><div class="wide"><table class="narrow"><thead><tr><th scope="col">site</th>'
        '<th scope="col">slides</th><th scope="col" class="number">AUROC</th>'
        '<th scope="col" class="number">95 % interval</th><th scope="col">0 to 1</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _bar(value: Any, low: Any, high: Any, name: str) -> str:
    """A value between 0 and 1 with its interval, as an inline picture."""
    at = _number(value)
    if at is None:
        return MISSING
    start, end = _number(low), _number(high)
    words = f"{name}: {at:.3f}" + ("" if start is None or end is None else f", interval {start:.3f} to {end:.3f}")
    band = ""
    if start is not None and end is not None:
        width = max(1.0, 126 * (end - start))
        band = f'<rect class="band" x="{2 + 126 * start:.1f}" y="3" width="{width:.1f}" height="10"/>'
    return (
        f'<svg role="img" aria-label="{escape(words)}" width="130" height="16" viewBox="0 0 130 16">'
        f"<title>{escape(words)}</title>"
        '<rect class="track" x="2" y="7" width="126" height="2"/>'
        '<rect class="half" x="64.5" y="4" width="1" height="8"/>'
        f'{band}<rect class="point" x="{0.5 + 126 * at:.1f}" y="1" width="3" height="14" rx="1"/></svg>'
    )


def _slides(rows: Sequence[Mapping[str, Any]], classes: Sequence[str], intervals: str | None) -> str:
    if not rows:
        return ""
    # of two classes the second tells all: the first is its complement
    shown = classes[1:] if len(classes) == 2 else classes
    single = len(shown) == 1
    heads = ['<th scope="col">overlay</th>', _head("slide"), _head("prediction")]
    heads += [_head(f"probability of {shown[0]}", "number chances") if single else '<th scope="col">probabilities</th>']
    heads += [_head(name, "number") for name in ("tissue read", "patches", "bytes", "seconds")]
    scored = any(_number(row.get("out_of_distribution")) is not None for row in rows)
    heads += [_head("out of distribution", "number")] if scored else []
    body = "".join(_slide(row, shown, scored=scored) for row in rows)
    return (
        "<h2>Slides</h2>"
        f'<p class="soft">Bars run from 0 to 1: the band is the stated interval for what was not read'
        f"{escape(f' ({intervals})' if intervals else '')}, the mark the prediction. "
        f"Click a picture for the full overlay; the GeoJSON opens in QuPath.{SCORED if scored else ''}</p>"
        '<div class="tools" hidden><label>Filter '
        '<input id="filter" type="search" placeholder="name, class or path"></label>'
        '<span id="shown" class="soft" role="status"></span></div>'
        f'<div class="wide"><table id="slides"><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _head(name: str, kind: str = "") -> str:
    """A column that can be sorted by, as text or as numbers."""
    return f'<th scope="col" class="{kind}"><button type="button">{escape(name)}</button></th>'


def _slide(row: Mapping[str, Any], shown: Sequence[str], *, scored: bool) -> str:
    name, predicted = str(row["slide_id"]), str(row.get("predicted", ""))
    folder = f"slides/{quote(os.fsencode(name), safe='')}"
    chances = "".join(_chance(row, c, named=len(shown) > 1) for c in shown)
    key = _number(row.get(f"prob_{shown[0]}")) if len(shown) == 1 else None
    numbers = [
        ("fraction_read", _show(row.get("fraction_read"), ".1%")),
        ("patches_read", _show(row.get("patches_read"), ",.0f")),
        ("bytes_read", _bytes(row.get("bytes_read"))),
        ("seconds", _show(row.get("seconds"), ".1f")),
    ]
    numbers += [("out_of_distribution", _show(row.get("out_of_distribution"), ".2f"))] if scored else []
    cells = "".join(
        f'<td class="number" data-sort="{_show(row.get(column), ".9g").replace(MISSING, "-1")}">{text}</td>'
        for column, text in numbers
    )
    warned = "".join(f"<small>warning: {escape(str(warning))}</small>" for warning in row.get("warnings") or ())
    decided = decision_in_words(row)
    return (
        f'<tr data-text="{escape(" ".join((name, predicted, str(row.get("path", "")))))}">'
        f'<td><a href="{folder}/overlay.png"><img src="{folder}/overlay.png" loading="lazy" '
        f'alt="{escape(f"Attention and sampled patches on {name}")}"></a>'
        f'<a href="{folder}/evidence.png"><img src="{folder}/evidence.png" loading="lazy" '
        f'alt="{escape(f"What speaks for and against on {name}")}"></a></td>'
        f'<td class="name" data-sort="{escape(name)}"><strong>{escape(name)}</strong>'
        f"<small>{escape(str(row.get('path', '')))}</small>"
        f'<small><a href="{folder}/gallery.jpg">gallery</a> <a href="{folder}/overlay.geojson">GeoJSON</a></small>'
        f"{warned}{_words(row.get('words') or {})}</td>"
        f'<td data-sort="{escape(predicted)}">{escape(predicted)}{decided and f"<small>{escape(decided)}</small>"}</td>'
        f'<td data-sort="{escape(predicted) if key is None else f"{key:.9g}"}">{chances}</td>{cells}</tr>'
    )


def _words(words: Mapping[str, str]) -> str:
    if not words:
        return ""
    lines = "".join(f"<p>{escape(line)}</p>" for line in words.values())
    return f"<details><summary>in words</summary>{lines}</details>"


def _chance(row: Mapping[str, Any], name: str, *, named: bool) -> str:
    value, low, high = (row.get(f"prob_{name}{end}") for end in ("", "_low", "_high"))
    bar, number = _bar(value, low, high, f"probability of {name}"), _show(value, ".3f")
    if named:  # many classes: the bar, and its words on hovering, say the interval
        return f'<div class="chance"><span>{escape(name)}</span>{bar}<span>{number}</span></div>'
    interval = f'<span class="soft">[{_show(low, ".3f")}, {_show(high, ".3f")}]</span>'
    return f'<div class="chance single">{bar}<span>{number} {interval}</span></div>'


def _gallery(picture: str | None) -> str:
    if picture is None:
        return ""
    return (
        '<h2>What speaks for and against</h2><p class="soft">Of the patches that were read, those with the largest '
        "contributions, in log-odds, over all slides: what the model goes by, which need not be what makes a diagnosis."
        f'</p><p><a href="{picture}"><img class="gallery" src="{picture}" loading="lazy" '
        'alt="Patches with the largest contributions"></a></p>'
    )


def _origin(run: Mapping[str, Any]) -> str:
    settings = run.get("settings") or {}
    facts = {
        "command": shlex.join(str(part) for part in run.get("command") or []),
        **{str(key).replace("_", " "): value for key, value in settings.items() if value is not None},
        "classes": ", ".join(str(c) for c in run.get("classes") or []),
    }
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td><code>{escape(str(value))}</code></td></tr>'
        for name, value in facts.items()
        if value != ""
    )
    return (
        f'<h2>How it was made</h2><div class="wide"><table><tbody>{lines}</tbody></table></div>'
        '<p class="soft">The same figures for programs: <a href="predictions.csv">predictions.csv</a>, '
        '<a href="run.json">run.json</a>.</p>'
        if lines
        else ""
    )
