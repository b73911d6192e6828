"""Small plots of a report, drawn into the page: axes, lines, points with their intervals, bars of counts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

SIZE, LEFT, BOTTOM, TOP, RIGHT = 240, 48, 34, 8, 10
"""Pixels of a plot, and what its axes take."""
COLOURS = 6
"""Lines that can be told apart by their colours, which report.css has; further ones begin again."""

Range = tuple[float, float]


class Plot:
    """A square plot that is added to, layer upon layer."""

    def __init__(self, title: str, x: str, y: str, *, x_range: Range = (0, 1), y_range: Range = (0, 1)) -> None:
        self._title, self._x, self._y = title, x, y
        self._ranges = tuple((low, high if high > low else low + 1) for low, high in (x_range, y_range))
        self._layers: list[str] = []
        self._names: list[tuple[int, str]] = []

    def line(self, xs: Sequence[float], ys: Sequence[float], *, name: str = "", steps: bool = False) -> None:
        """A line in a colour of its own; with ``steps`` it keeps its height until the next point."""
        colour = len(self._names) % COLOURS
        self._names.append((colour, name))
        points = list(zip(xs, ys, strict=True))
        if steps:
            points = [p for (x, y), (then, _) in pairwise(points) for p in ((x, y), (then, y))]
        self._layers.append(f'<polyline class="line c{colour}" points="{self._path(points)}"/>')

    def guide(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        """A thin line to compare with."""
        self._layers.append(f'<polyline class="guide" points="{self._path(list(zip(xs, ys, strict=True)))}"/>')

    def dots(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        """Points."""
        self._layers += [f'<circle class="dot" cx="{x}" cy="{y}" r="2"/>' for x, y in self._at(xs, ys)]

    def whiskers(self, xs: Sequence[float], low: Sequence[float], high: Sequence[float]) -> None:
        """An upright interval at each x."""
        ends = zip(self._at(xs, low), self._at(xs, high), strict=True)
        self._layers += [f'<path class="whisker" d="M{x} {y}V{to}"/>' for (x, y), (_, to) in ends]

    def counts(self, edges: Sequence[Range], counts: Sequence[int], what: str) -> None:
        """A bar for each count along the lower edge, with the count in it; a quarter of the plot high at most."""
        for (start, end), count in zip(edges, counts, strict=True):
            (x, _), (to, foot) = self._at((start, end), (self._ranges[1][0],) * 2)
            height = (SIZE - TOP - BOTTOM) / 4 * count / max(counts)
            words = f"{count:,} {what}, {start:g} to {end:g}"
            self._layers.append(
                f'<rect class="count" x="{x}" y="{foot - height:.1f}" width="{to - x - 1:.1f}" height="{height:.1f}">'
                f"<title>{escape(words)}</title></rect>"
                f'<text class="small" x="{(x + to) / 2:.1f}" y="{foot - 2}">{count:,}</text>'
            )

    def svg(self, words: str) -> str:
        """The plot, which ``words`` tell, with a legend of its lines where there are several."""
        x0, y0, x1, y1 = LEFT, SIZE - BOTTOM, SIZE - RIGHT, TOP
        ticks = []
        for share in (0.0, 0.5, 1.0):
            across, up = (low + share * (high - low) for low, high in self._ranges)
            x, y = x0 + share * (x1 - x0), y0 + share * (y1 - y0)
            ticks.append(f'<text class="tick" x="{x}" y="{y0 + 13}">{_tick(across)}</text>')
            ticks.append(f'<text class="tick side" x="{x0 - 4}" y="{y + 4}">{_tick(up)}</text>')
        legend = ""
        if len(self._names) > 1:
            named = (f'<span class="c{colour}">{escape(name)}</span>' for colour, name in self._names)
            legend = f'<figcaption class="soft">{" ".join(named)}</figcaption>'
        return (
            f'<figure class="plot"><h4>{escape(self._title)}</h4>'
            f'<svg role="img" aria-label="{escape(words)}" width="{SIZE}" height="{SIZE}" viewBox="0 0 {SIZE} {SIZE}">'
            f'<rect class="axes" x="{x0}" y="{y1}" width="{x1 - x0}" height="{y0 - y1}"/>{"".join(self._layers)}'
            f'{"".join(ticks)}<text class="tick" x="{(x0 + x1) / 2}" y="{SIZE - 5}">{escape(self._x)}</text>'
            f'<text class="tick" transform="translate(10 {(y0 + y1) / 2}) rotate(-90)">{escape(self._y)}</text>'
            f"</svg>{legend}</figure>"
        )

    def _at(self, xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
        """Pixels of points; what lies outside is drawn at the edge."""
        (left, right), (low, high) = self._ranges
        return [
            (
                round(LEFT + min(max((x - left) / (right - left), 0), 1) * (SIZE - LEFT - RIGHT), 1),
                round(SIZE - BOTTOM - min(max((y - low) / (high - low), 0), 1) * (SIZE - BOTTOM - TOP), 1),
            )
            for x, y in zip(xs, ys, strict=True)
        ]

    def _path(self, points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{x},{y}" for x, y in self._at([x for x, _ in points], [y for _, y in points]))


def _tick(value: float) -> str:
    """A number on an axis."""
    return f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"
