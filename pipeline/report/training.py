"""What a training came to, on a page: how good the model was found to be, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from pipeline.model.quality import Quality
from pipeline.report.figures import estimate
from pipeline.report.labels import HEADS, against_labels
from pipeline.report.learning import learning_section
from pipeline.report.page import write_page
from stages.amounts import counted

RULE = "It is said of the part with the most patients, of those below that have enough of them to tell."


def write_training_report(
    path: Path, metrics: Mapping[str, Any], quality: Quality, *, parts: Mapping[str, int], threshold: list[str]
) -> None:
    """Write the report of a training, to lie beside its metrics.json.

    Args:
        path: the HTML file.
        metrics: as in metrics.json.
        quality: of the model.
        parts: the parts that were judged and how many slides each has, the first first.
        threshold: what is said of the threshold, in lines.
    """
    body = [
        "<h1>Saccade training</h1>",
        _quality(quality),
        *(_part(part, metrics[part], slides) for part, slides in parts.items()),
        _threshold(metrics.get("threshold"), threshold),
        learning_section(path.parent),
        _inner(metrics.get("inner_val") or {}),
        _excluded(metrics.get("excluded") or {}),
        '<p class="soft">The same figures for programs: <a href="metrics.json">metrics.json</a>, '
        '<a href="predictions.csv">predictions.csv</a>, <a href="curve.csv">curve.csv</a>.</p>',
    ]
    write_page(path, "Saccade training", body)


def _quality(quality: Quality) -> str:
    """How good the model was found to be, and whether it has learned."""
    rule = "" if quality.part is None else f" {RULE}"
    told = f"<p>{escape(quality.in_words() + rule)}</p>"
    if quality.warning is None:
        return f'<section class="trust">{told}<p>Learned: {escape(quality.reason)}.</p></section>'
    return f'<section class="failed trust"><h2 class="bad">Warning: {escape(quality.warning)}</h2>{told}</section>'


def _part(name: str, found: Mapping[str, Any], slides: int) -> str:
    """A part of the cohort: metrics, curves, sites, folds."""
    section = against_labels([], found, {}).replace("<h2>Against the labels</h2>", "", 1)
    return f"<h2>{escape(name)}: {counted(slides, 'slide')}</h2>{section}"


def _threshold(told: Mapping[str, Any] | None, lines: list[str]) -> str:
    """The threshold, and what it comes to on slides that it was not chosen on."""
    if not told:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(part)}: {escape(name.replace("_", " "))}</th>'
        f"{estimate(one['value'], one['low'], one['high'], name)}</tr>"
        for part, found in told["judged_on"].items()
        for name, one in found.items()
        if isinstance(one, Mapping)
    )
    table = (
        '<div class="wide"><table class="narrow"><thead><tr><th scope="col"></th>'
        f'<th scope="col" class="number">value</th>{HEADS}<tbody>{rows}</tbody></table></div>'
        if rows
        else '<p class="soft">There are no other slides to judge it on.</p>'
    )
    return f"<h2>Threshold</h2><p>{escape(lines[0][0].upper() + lines[0][1:])}.</p>{table}"


def _inner(sites: Mapping[str, list[str]]) -> str:
    """Which sites chose the epoch of which model."""
    if not sites:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(", ".join(own))}</td></tr>' for name, own in sites.items()
    )
    return (
        '<h2>Sites that chose the epoch</h2><p class="soft">training.inner_val took them from what the model is '
        f'fitted to; none is judged on its own.</p><div class="wide"><table class="narrow"><tbody>{rows}</tbody>'
        "</table></div>"
    )


def _excluded(excluded: Mapping[str, str]) -> str:
    """Which slides were left out, and why."""
    if not excluded:
        return ""
    rows = "".join(
        f'<tr><td class="name">{escape(name)}</td><td>{escape(reason)}</td></tr>' for name, reason in excluded.items()
    )
    return (
        f'<section class="failed"><h2 class="bad">{counted(len(excluded), "slide")} left out</h2><div class="wide">'
        f"<table><tbody>{rows}</tbody></table></div></section>"
    )
