"""The picture of a bench: how near each way comes to reading everything, against what it reads."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter
from numpy.typing import NDArray

from pipeline.bench.recommend import AGREE, Recommendation
from pipeline.bench.ways import ATTENTION, DECIDE, EVERYTHING, NOTHING, TOLERANCE, TOP, UNIFORM
from pipeline.task.task import Task

LEAST = 1e-5
"""Differences below this are drawn there: they are none."""


WIDTH = 170
"""Characters of a line below the picture."""


class _Style(NamedTuple):
    name: str
    colour: str
    marker: str
    line: str
    size: float = 5
    band: float = 0.08


STYLES = {
    ATTENTION: _Style("attention sampling", "#0072B2", "o", "-", band=0.2),
    UNIFORM: _Style("uniform, same estimator", "#E69F00", "s", "--"),
    TOP: _Style("top-k (biased)", "#D55E00", "^", ":"),
    TOLERANCE: _Style("read on until sure (--tolerance)", "#009E73", "D", "-."),
    DECIDE: _Style("read on until decided (--decide 0.5)", "#CC79A7", "*", "", size=13),
}
"""Okabe and Ito's colours (2008), told apart in any colour blindness; in grey by marker and line."""
GREY = "#555555"
MINUS = "\N{MINUS SIGN}"


def bench_figure(
    rows: Sequence[Mapping[str, Any]], recommended: Recommendation, task: Task, *, title: str, fine: str
) -> Figure:
    """The difference to reading everything, p*, the share of decisions that differ from its, and the task's first
    metric where there is one, each against patches and bytes.

    Args:
        rows: see `pipeline.bench.table.table_of`.
        recommended: marked; its number is the title's, its words are bench.json's.
        task: what is predicted.
        title: first line.
        fine: what bands and lines mean, beyond the axes' names; below, in small.
    """
    labelled = any(row.get(task.metric.key) is not None for row in rows)
    parts: list[Callable[..., None]] = [
        _differences,
        partial(_decisions, task),
        *([partial(_scores, task.metric.key)] if labelled else []),
    ]
    figure = Figure(figsize=(11, 2.2 + 2.6 * len(parts)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(parts), 2, squeeze=False, sharex="col", sharey="row")
    for column, x in enumerate(("patches", "bytes")):
        for row, part in enumerate(parts):
            part(axes[row, column], rows, x)
            _mark(axes[row, column], rows, x, recommended, named=row == 0 and column == 0)
            axes[row, column].grid(alpha=0.25, which="major")
            axes[row, column].spines[["top", "right"]].set_visible(False)
        axes[-1, column].set_xscale("log")
        _ticks(axes[-1, column], [row[x] for row in rows if row["way"] in STYLES])
        axes[-1, column].xaxis.set_major_formatter(FuncFormatter(_millions if x == "bytes" else _plain))
        axes[-1, column].xaxis.set_minor_formatter(NullFormatter())
    axes[-1, 0].set_xlabel("patches read of a slide, mean")
    axes[-1, 1].set_xlabel("MB read of a slide, compressed, all included")
    names = (f"|p {MINUS} p*|, {task.apart_in}", f"other {task.alike_by}", task.metric.name)
    for row, name in enumerate(names[: len(parts)]):
        axes[row, 0].set_ylabel(name)
    named = {name: one for ax in axes[:, 0] for one, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(
        named.values(),
        named,
        loc="outside lower center",
        ncols=3,
        frameon=False,
        title="\n".join(textwrap.wrap(fine, WIDTH)),
        title_fontsize=8,
        alignment="left",
    )
    told = "no number that was tried is enough" if recommended.samples is None else f"{recommended.samples} recommended"
    figure.suptitle(f"{title}; {told}", fontsize=11, x=0.01, ha="left", parse_math=False)
    return figure


def save_bench(path: Path, figure: Figure) -> None:
    """Write the picture as PNG."""
    figure.savefig(path, format="png", dpi=120)


def _line(rows: Sequence[Mapping[str, Any]], name: str, x: str) -> list[Mapping[str, Any]]:
    return sorted((row for row in rows if row["way"] == name), key=lambda row: row[x])


def _differences(axes: Axes, rows: Sequence[Mapping[str, Any]], x: str) -> None:
    for name, style in STYLES.items():
        _draw(axes, _line(rows, name, x), x, style, "difference", "difference_low", "difference_high")
    for row in rows:
        if row["way"] == NOTHING:
            axes.axhline(max(row["difference"], LEAST), color=GREY, lw=1, ls=(0, (1, 2)), label="no patch at all")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _decisions(task: Task, axes: Axes, rows: Sequence[Mapping[str, Any]], x: str) -> None:
    unlike = [{**row, "unlike": 1 - row["agreement"]} for row in rows]
    for name, style in STYLES.items():
        _draw(axes, _line(unlike, name, x), x, style, "unlike")
    for row in unlike:
        if row["way"] == NOTHING:
            axes.axhline(row["unlike"], color=GREY, lw=1, ls=(0, (1, 2)))
    axes.axhline(1 - AGREE, color="black", lw=1, ls=(0, (6, 3)), label=f"{1 - AGREE:.0%} of the {task.alike_by}")
    top = max(2 * (1 - AGREE), *(row["unlike"] for row in unlike if row["way"] in STYLES))
    axes.set_ylim(-0.04 * top, 1.08 * top)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1 if top < 0.05 else 0))


def _scores(key: str, axes: Axes, rows: Sequence[Mapping[str, Any]], x: str) -> None:
    for name, style in STYLES.items():
        _draw(axes, _line(rows, name, x), x, style, key, f"{key}_5", f"{key}_95")
    (whole,) = (row for row in rows if row["way"] == EVERYTHING)
    told = "reading everything"
    if not math.isnan(whole[f"{key}_low"]):
        axes.axhspan(whole[f"{key}_low"], whole[f"{key}_high"], color="black", alpha=0.06, lw=0)
        told += f", {whole[key]:.3f} [{whole[f'{key}_low']:.3f}, {whole[f'{key}_high']:.3f}]"
    axes.axhline(whole[key], color="black", lw=1.2, label=told)
    for row in rows:
        if row["way"] == NOTHING:
            axes.axhline(row[key], color=GREY, lw=1, ls=(0, (1, 2)))
    # the interval over patients is wider than all that reading does: what differs would not be seen
    low = min(row[f"{key}_5"] for row in rows)
    high = max(row[f"{key}_95"] for row in rows)
    room = max(0.1 * (high - low), 0.01)
    axes.set_ylim(low - room, min(high + room, 1 + 0.3 * room))


def _draw(
    axes: Axes,
    line: Sequence[Mapping[str, Any]],
    x: str,
    style: _Style,
    value: str,
    low: str | None = None,
    high: str | None = None,
) -> None:
    if not line:
        return
    at = np.array([row[x] for row in line], np.float64)
    least = LEAST if value == "difference" else -math.inf

    def of(name: str) -> NDArray[np.float64]:
        return np.maximum(np.array([row[name] for row in line], np.float64), least)

    axes.plot(
        at, of(value), color=style.colour, marker=style.marker, ls=style.line, lw=1.8, ms=style.size, label=style.name
    )
    if low is not None and high is not None:
        axes.fill_between(at, of(low), of(high), color=style.colour, alpha=style.band, lw=0)


def _mark(axes: Axes, rows: Sequence[Mapping[str, Any]], x: str, recommended: Recommendation, *, named: bool) -> None:
    chosen = [row for row in rows if row["way"] == ATTENTION and row["setting"] == recommended.samples]
    for row in chosen:
        axes.axvline(row[x], color=STYLES[ATTENTION].colour, lw=5, alpha=0.25, label=None, zorder=0)
        if named:
            axes.annotate(
                f"{recommended.samples} recommended",
                (row[x], 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(6, -4),
                textcoords="offset points",
                va="top",
                color=STYLES[ATTENTION].colour,
                fontsize=9,
                fontweight="bold",
            )


def _ticks(axes: Axes, values: Sequence[float]) -> None:
    """One, two and five of every decade, where two decades or fewer are shown."""
    low, high = min(values), max(values)
    steps = (1, 2, 5) if high / low < 300 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    places = [step * 10.0**k for k in decades for step in steps]
    axes.set_xlim(0.85 * low, 1.2 * high)
    axes.set_xticks([place for place in places if 0.85 * low <= place <= 1.2 * high])


def _plain(value: float, _: Any) -> str:
    return f"{value:g}"


def _millions(value: float, _: Any) -> str:
    return f"{value / 1e6:g}"
