"""The course of a training as a small picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.train.curve import Curve
from stages.disk import new_file

LINES = {
    "loss": ("training", "#0072B2", "-"),
    "val_loss": ("validation", "#D55E00", "-"),
    "out_of_bag_loss": ("out of bag", "#009E73", "--"),
}
"""Columns of losses, what they are called, and Okabe and Ito's colours (2008), told apart in any colour blindness."""
GREY = "#555555"


def save_curve(path: Path, curve: Curve) -> None:
    """Write the picture as PNG, the same course as the same bytes: losses with the training's standard error, the
    AUROC of validation slides where it is known, and which epoch is kept."""
    with new_file(path) as temporary:
        _figure(curve).savefig(temporary, format="png", dpi=100, metadata={"Software": None})


def _figure(curve: Curve) -> Figure:
    epochs = np.arange(1, len(curve.rows) + 1)
    auroc = _column(curve, "val_auroc")
    both = bool(np.isfinite(auroc).any())
    figure = Figure(figsize=(6.4, 4.8 if both else 3.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 if both else 1, 1, squeeze=False, sharex=True, height_ratios=(2, 1) if both else (1,))
    _losses(axes[0, 0], curve, epochs)
    if both:
        axes[1, 0].plot(epochs, auroc, color=LINES["val_loss"][1], marker=_marker(epochs), ms=4)
        axes[1, 0].axhline(0.5, color=GREY, lw=1, ls=":")
        axes[1, 0].set_ylabel("validation AUROC")
        axes[1, 0].set_ylim(min(0.45, float(np.nanmin(auroc)) - 0.05), 1.02)
    for one in axes[:, 0]:
        if curve.kept:
            one.axvline(curve.kept, color="black", lw=5, alpha=0.15, zorder=0)
        one.grid(alpha=0.25)
        one.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel("epoch")
    axes[-1, 0].set_xlim(0.5, max(1, len(epochs)) + 0.5)
    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _losses(axes: Axes, curve: Curve, epochs: NDArray[np.int64]) -> None:
    for column, (name, colour, line) in LINES.items():
        values = _column(curve, column)
        if np.isfinite(values).any():
            axes.plot(epochs, values, color=colour, ls=line, marker=_marker(epochs), ms=4, label=name)
    loss, error = _column(curve, "loss"), _column(curve, "error")
    axes.fill_between(epochs, loss - error, loss + error, color=LINES["loss"][1], alpha=0.15, lw=0)
    if curve.base:
        axes.axhline(curve.base, color=GREY, lw=1, ls=":", label="knowing how frequent labels are, no more")
    axes.set_ylabel("loss (nats)")
    if curve.kept:
        axes.plot([], [], color="black", lw=5, alpha=0.15, label=f"epoch {curve.kept} is kept")
        axes.legend(frameon=False, fontsize=8)


def _marker(epochs: NDArray[np.int64]) -> str:
    """Of single points, which no line shows."""
    return "o" if len(epochs) < 3 else ""


def _column(curve: Curve, name: str) -> NDArray[np.float64]:
    """Values of the epochs, NaN where there are none."""

    def value(found: Any) -> float:
        return math.nan if found is None else float(found)

    return np.array([value(row[name]) for row in curve.rows], np.float64)
