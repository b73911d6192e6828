"""What a report says of the run as a whole: what was done, how far to trust it, what failed, how it was made."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from pipeline.model.quality import ABOUT_READING, UNKNOWN, Quality
from pipeline.output.table import decision_in_words
from pipeline.refer.measure import parts_of, run_in_lines
from pipeline.report.figures import MISSING, bytes_in_words, duration, moment, number, paragraphs, total, unit_of
from pipeline.report.slides import is_unlike
from stages.amounts import counted, size
from stages.appearance import score_in_words
from stages.place import told

NARROW = "However narrow an interval is here, what lies in it may be no better than a guess."
AGAIN = "; more than all, since a tile counts each time that it is read, for the thumbnail and for every patch on it"
FEW = 10
"""Slides that are named on top."""


def _decided(done: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """The card of what was decided, where something was."""
    found = Counter(decision_in_words(row) for row in done if "decision" in row)
    open_ones = sum(row.get("decision") == "undecided" for row in done)
    words = "; ".join(f"{many:,} {name}" for name, many in sorted(found.items()))
    return [("slides decided", f"{found.total() - open_ones:,} of {found.total():,}", words)] if found else []


def cards(
    done: Sequence[Mapping[str, Any]],
    failed: Sequence[Mapping[str, Any]],
    waiting: Sequence[Mapping[str, Any]],
    run: Mapping[str, Any],
) -> str:
    """What was done, in figures."""
    fractions = [f for f in (number(row.get("fraction_read")) for row in done) if f is not None]
    started, ended = moment(run, "started"), moment(run, "ended") or moment(run, "written")
    wall = (ended - started).total_seconds() if started and ended else None
    read, whole = number(run.get("bytes_read")), number(run.get("slide_bytes"))
    share = ""
    if read is not None and whole:
        share = f"{read / whole:.1%} of the slides' {bytes_in_words(whole)}" + (AGAIN if read > whole else "")
    reused, unit = int(number(run.get("reused")) or 0), run.get("unit", "slide")
    beside = [f"{reused:,} reused"] * bool(reused) + [f"{len(waiting):,} not tried"] * bool(waiting)
    of = len(done) + len(failed) + len(waiting)
    cards = [
        (f"{unit}s predicted", f"{len(done):,} of {of:,}", ", ".join(beside)),
        (f"{unit}s failed", f"{len(failed):,}", "each attempted again on a rerun" if failed else ""),
        ("patches read", f"{total(done, 'patches_read'):,.0f}", f"of {total(done, 'cells'):,.0f} with tissue"),
        (
            "tissue read, mean",
            f"{sum(fractions) / len(fractions):.1%}" if fractions else MISSING,
            f"{min(fractions):.1%} to {max(fractions):.1%}" if fractions else "",
        ),
        ("bytes read", bytes_in_words(read), share),
        *_decided(done),
        ("time", duration(wall), f"{duration(total(done, 'seconds') / len(done))} per {unit}" if done else ""),
    ]
    return (
        '<dl class="cards">'
        + "".join(
            f'<div><dt>{escape(name)}</dt><dd class="figure">{escape(value)}</dd><dd>{escape(note)}</dd></div>'
            for name, value, note in cards
        )
        + "</dl>"
    )


def trust(run: Mapping[str, Any]) -> str:
    """What intervals are about, and how good the model is: two things that are easily taken for one."""
    if "quality" not in run:
        return ""
    quality = None if run["quality"] is None else Quality.from_json(run["quality"])
    lines = [ABOUT_READING, UNKNOWN if quality is None else quality.in_words()]
    refer = run.get("refer") or {}
    if refer:
        lines += run_in_lines(refer, held=False)
    if run.get("encoder"):
        lines.append(_encoder(run["encoder"]))
    held = _label_sets(refer["found"]) if refer.get("found") else ""
    if quality is None or quality.warning is None:
        return f'<section class="trust">{paragraphs(lines)}{held}</section>'
    head = f'<h2 class="bad">Warning: {escape(quality.warning)}</h2>'
    return f'<section class="failed trust">{head}{paragraphs([*lines, NARROW])}{held}</section>'


def seen(run: Mapping[str, Any]) -> str:
    """How many slides the model was made with: said on top, for it says more of them than it knows."""
    found = run.get("seen") or {}
    if not found:
        return ""
    told = ", ".join(f"{many:,} {how}" for how, many in found.items())
    counts = (run.get("settings") or {}).get("count_seen")
    weight = "the metrics count them, as was asked for" if counts else "the metrics do not count them"
    return (
        f'<section class="failed"><h2 class="bad">{counted(sum(found.values()), run.get("unit", "slide"))} seen in the '
        "training</h2>"
        f"<p>{escape(told)}: what the model says of them is no proof of how good it is, and {weight}. The table below "
        "can be cut down to them (Show: seen in the training).</p></section>"
    )


def _label_sets(found: Mapping[str, Any]) -> str:
    """How often label sets held the label: overall, by class and by site."""

    def line(name: str, one: Mapping[str, Any]) -> str:
        held, wrong = one["coverage"], one.get("error_of_called")
        cells = (
            f"{one['patients']:,}",
            f"{held['value']:.1%}",
            f"{held['low']:.1%} to {held['high']:.1%}",
            f"{one['referred']['value']:.1%}",
            MISSING if wrong is None else f"{wrong['value']:.1%}",
        )
        return f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'

    heads = ("of", "patients", "label in the set", "95 % interval", "referred", "wrong, of the called")
    lines = [line("all", found), *(line(name, one) for name, one in parts_of(found))]
    return (
        '<div class="wide"><table class="narrow"><caption>Label sets against the labels</caption><thead><tr>'
        + "".join(f'<th scope="col">{head}</th>' for head in heads)
        + f"</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
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


def _encoder_in_full(told: Mapping[str, Any]) -> str:
    """All that is known of a frozen encoder, for whoever has to make the same again."""
    facts = {"": told.get("name"), "from": told.get("source"), "revision": told.get("revision")}
    facts |= {"licence": told.get("licence") or ("not known" if told else ""), "digest": told.get("digest")}
    return ", ".join(f"{name} {value}".strip() for name, value in facts.items() if value)


def failures(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which slides failed, and why."""
    if not rows:
        return ""
    head = f'<h2 class="bad">{counted(len(rows), unit_of(rows[0]))} failed</h2>'
    return f'<section class="failed">{head}{_reasons(rows)}</section>'


def not_tried(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many slides were not tried, and what is known of them from before."""
    if not rows:
        return ""
    head = f"<h2>{counted(len(rows), unit_of(rows[0]))} not tried</h2>"
    known = [row for row in rows if row.get("error")]
    why = (
        "The run has not come to them yet, or was stopped before it did, or tried again only what had failed. The same "
        "command without --retry-failed goes on with them."
    )
    return f"<section>{head}<p>{why}</p>{_reasons(known) if known else ''}</section>"


def _reasons(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = "".join(
        f'<tr><td class="name">{escape(str(row["slide_id"]))}'
        f"<small>{escape(told(str(row.get('path', ''))))}</small></td>"
        f"<td>{escape(str(row.get('error') or 'no reason was recorded'))}</td></tr>"
        for row in rows
    )
    head = f'<tr><th scope="col">{unit_of(rows[0])}</th><th scope="col">reason</th></tr>'
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{lines}</tbody></table></div>'


def gallery_section(picture: str | None, held: Sequence[str] = ()) -> str:
    """The picture of the strongest patches, where there is one.

    Args:
        picture: its address.
        held: what the page itself holds of it, in parts; empty: nothing.
    """
    if picture is None:
        return ""
    parts = "".join(
        f'<img src="{one}" alt="{"" if n else "Patches with the largest contributions"}">'
        for n, one in enumerate(held or [picture])
    )
    return (
        '<h2>What speaks for and against</h2><p class="soft">Of the patches that were read, those with the largest '
        "contributions, in log-odds, over all slides: what the model goes by, which need not be what makes a "
        "diagnosis. Where less than three quarters of a patch are tissue, it says so: it may speak of the edge."
        f'</p><p><a class="gallery" href="{picture}">{parts}</a></p>'
    )


def unlike(done: Sequence[Mapping[str, Any]]) -> str:
    """Which slides look unlike those of the training: said on top, for nothing else of them shows it."""
    found = sorted((row for row in done if is_unlike(row)), key=lambda row: -float(row["out_of_distribution"]))
    if not found:
        return ""
    named = ", ".join(f"{row['slide_id']} ({score_in_words(float(row['out_of_distribution']))})" for row in found[:FEW])
    more = f" and {len(found) - FEW:,} more" if len(found) > FEW else ""
    verb = "looks" if len(found) == 1 else "look"
    unit = unit_of(found[0])
    head = f"{counted(len(found), unit)} {verb} unlike those of the training"
    return (
        f'<section class="failed"><h2 class="bad">{head}</h2>'
        f"<p>{escape(named + more)}; the limit is 1. How good the model was found to be need not hold for them. "
        "The table below can be cut down to them (Show: looks unlike the training).</p></section>"
    )


def origin(run: Mapping[str, Any]) -> str:
    """Command, settings as given and as they came to be, versions."""
    settings = run.get("settings") or {}
    versions = {name: version for name, version in (run.get("versions") or {}).items() if version}
    facts = {
        "command": shlex.join(str(part) for part in run.get("command") or []),
        **{
            str(key).replace("_", " "): size(value) if key == "memory" else value
            for key, value in settings.items()
            if value is not None and value is not False  # a seed may be 0
        },
        **(run.get("effective") or {}),
        "encoder": _encoder_in_full(run.get("encoder") or {}),
        "classes": ", ".join(str(c) for c in run.get("classes") or []),
        "started": run.get("started") or "",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td><code>{escape(str(value))}</code></td></tr>'
        for name, value in facts.items()
        if value != ""
    )
    table = "patients.csv" if run.get("unit") == "patient" else "predictions.csv"
    return (
        f'<h2>How it was made</h2><div class="wide"><table><tbody>{lines}</tbody></table></div>'
        '<p class="soft">The same figures for programs: '
        f'<a href="{table}">{table}</a>, '
        '<a href="run.json">run.json</a>.</p>'
        if lines
        else ""
    )
