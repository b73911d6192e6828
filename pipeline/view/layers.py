"""Maps of a slide as the screen lays them over it: one of 256 colours a cell, and what the colours stand for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.geometry import Raster
from stages.overlay.attention_map import times_uniform
from stages.overlay.evidence_picture import AGAINST, FOR, LEAST, LEAST_ELSE, LOG_ODDS
from stages.overlay.picture import COLOURS, OPACITY

STEPS = 256
PEAKED = 10
"""Means that a map's highest value may be, at most, and be told from 0 up."""

Colour = tuple[int, int, int, float]
"""Red, green, blue, and the opacity as a share of what the user asks for."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A map.

    Attributes:
        name: "attention", "evidence", or "given-0" and so on of one that somebody else made.
        label: what it is called.
        title: what it shows.
        steps: (rows, cols) uint8, the colour of each cell.
        raster: of the cells.
        colours: of each step.
        ticks: what some steps stand for, in words.
        signed: whether the middle step is 0, so that a threshold is one of the distance from it.
        top: what the last step stands for.
    """

    name: str
    label: str
    title: str
    steps: NDArray[np.uint8]
    raster: Raster
    colours: Sequence[Colour]
    ticks: Sequence[tuple[int, str]]
    signed: bool
    top: float


def attention_layer(attention: NDArray[np.floating], raster: Raster, cells: int | None, *, least: float = 2.0) -> Layer:
    """Attention (rows, cols) in multiples of uniform attention, log scale; below uniform nothing is shown.

    Args:
        attention: of the slide.
        raster: of its cells.
        cells: see `times_uniform`.
        least: what the last colour stands for, at least: that of another map, to be on its scale.
    """
    multiple = times_uniform(attention, cells)
    top = max(least, float(multiple.max(initial=0.0)))
    title = "attention, in multiples of even attention"
    return _multiples(multiple, raster, top, name="attention", label="attention", title=title)


def given_layer(values: NDArray[np.floating], raster: Raster, *, name: str, label: str) -> Layer:
    """A map (rows, cols) that somebody else made, none negative and not all 0: in its own values from 0 to the highest;
    where few of them are high, as of shares of attention, in multiples of the mean of those above 0, log scale."""
    top, mean = float(values.max()), float(values[values > 0].mean())
    if top > PEAKED * mean:
        title = f"{label}, in multiples of its mean where it is not 0"
        return _multiples(values / mean, raster, top / mean, name=name, label=label, title=title)
    ticks = [(1, "0"), (1 + (STEPS - 2) // 2, f"{top / 2:.3g}"), (STEPS - 1, f"{top:.3g}")]
    clear = (0.0, 1.0)  # what is next to nothing is next to not shown
    names = {"name": name, "label": label, "title": f"{label}, as given"}
    return _rising(values / top, values > 0, raster, top, ticks, clear, **names)


def _multiples(multiple: NDArray[np.floating], raster: Raster, top: float, **names: str) -> Layer:
    """Multiples on a log scale from 1, below which nothing is shown."""
    height = np.log(np.clip(multiple, 1.0, top)) / math.log(top)
    ticks = [(1 + round((STEPS - 2) * share), f"{top**share:.3g}\N{MULTIPLICATION SIGN}") for share in (0, 0.5, 1)]
    return _rising(height, multiple > 1.0, raster, top, ticks, OPACITY, **names)


def _rising(
    height: NDArray[np.floating],
    shown: NDArray[np.bool_],
    raster: Raster,
    top: float,
    ticks: Sequence[tuple[int, str]],
    opacity: tuple[float, float],
    **names: str,
) -> Layer:
    """Heights from 0 to 1 in the colours of attention, the more opaque the higher, where they are shown."""
    steps = np.where(shown, 1 + np.rint(height * (STEPS - 2)), 0).astype(np.uint8)
    low, high = opacity
    at, ramp = np.linspace(0, 1, len(COLOURS)), np.array(COLOURS, float)
    colours: list[Colour] = [(0, 0, 0, 0.0)]
    for share in np.linspace(0, 1, STEPS - 1):
        red, green, blue = (round(float(np.interp(share, at, ramp[:, k]))) for k in range(3))
        colours.append((red, green, blue, (low + (high - low) * float(share)) / high))
    return Layer(steps=steps, raster=raster, colours=colours, ticks=ticks, signed=False, top=top, **names)


def evidence_layer(
    evidence: NDArray[np.floating], raster: Raster, *, name: str, unit: str, least: float = 0.0
) -> Layer:
    """What each cell (rows, cols) adds for a class, or to a number, in ``unit``: orange for it, blue against it; the
    last colour stands for ``least`` at least."""
    top = max(least, LEAST if unit == LOG_ODDS else LEAST_ELSE, float(np.abs(evidence).max(initial=0.0)))
    half = (STEPS - 2) / 2
    steps = (1 + np.rint(half + half * np.clip(evidence / top, -1, 1))).astype(np.uint8)
    colours: list[Colour] = []
    for step in range(STEPS):
        signed = (step - 1 - half) / half
        red, green, blue = FOR if signed > 0 else AGAINST
        colours.append((red, green, blue, math.sqrt(min(1.0, abs(signed)))))
    digits = max(0, 1 - math.floor(math.log10(top)))
    marks = [(1, -top), (1 + round(half), 0.0), (STEPS - 1, top)]
    ticks = [(step, f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}") if value else "0") for step, value in marks]
    return Layer("evidence", "evidence", f"{unit} per cell, for {name}", steps, raster, colours, ticks, True, top)
