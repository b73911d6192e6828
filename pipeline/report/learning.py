"""How a model learned, as plots: losses by epoch from the curve.csv that a training wrote beside it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.model.header import checkpoint_files
from pipeline.output.documents import read_json
from pipeline.report.figures import number
from pipeline.report.plots import Plot

CURVE, TRAINING = "curve.csv", "training.json"
LOSSES = {"loss": "training", "val_loss": "validation", "out_of_bag_loss": "out of bag"}
SHOWN = 6
"""Models of an ensemble that have a plot, at most."""
Curve = Sequence[Mapping[str, str]]


def read_curve(folder: Path) -> list[dict[str, str]]:
    """The epochs of the training that wrote into a folder; none where it has no such file."""
    try:
        with (folder / CURVE).open(encoding="utf-8", newline="") as file:
            return [row for row in csv.DictReader(file) if number(row.get("loss")) is not None]
    except (OSError, ValueError, csv.Error):
        return []


def learning_of(model: Path) -> str:
    """The section on how a run's model learned, or why there is none.

    Args:
        model: its checkpoint, or an ensemble.json.
    """
    try:
        folders = [file.parent for file in checkpoint_files(model)]
    except UsageError:
        folders = [model.parent]
    plots = [plot for folder in folders[:SHOWN] for plot in _plots(folder, folder.name if len(folders) > 1 else "")]
    told = f"Of {len(folders)} models together, the first {SHOWN}. " if len(folders) > SHOWN else ""
    if not plots:
        return (
            '<h2>How the model learned</h2><p class="soft">Not known here: no curve.csv, which a training writes, lies '
            "beside the model.</p>"
        )
    return (
        f'<h2>How the model learned</h2><div class="plots">{"".join(plots)}</div><p class="soft">{told}Losses by '
        "epoch, from the curve.csv beside the model: lower is better. Dashed across: the loss of a guess that knows "
        "only how often each label occurs. Dashed upright: the epoch that was kept. Out of bag: slides of training, "
        "judged only by members of the ensemble that were not fitted to them.</p>"
    )


def learning_section(folder: Path) -> str:
    """The section of a training's own report; nothing where it has no curve."""
    plots = _plots(folder, "")
    return f'<h2>Learning</h2><div class="plots">{"".join(plots)}</div>' if plots else ""


def _plots(folder: Path, name: str) -> list[str]:
    """Losses, and the validation AUROC where there is one."""
    rows = read_curve(folder)
    if not rows:
        return []
    told = read_json(folder / TRAINING) or {}
    losses = told.get("losses")
    base = number(losses.get("base")) if isinstance(losses, Mapping) else None
    kept, epochs = number(told.get("kept_epoch")), [float(i) for i in range(1, len(rows) + 1)]
    across = (1.0, max(2.0, epochs[-1]))
    lines = {key: _column(rows, key) for key in LOSSES}
    top = max([y for _, ys in lines.values() for y in ys] + [base or 0.0])
    title = f"Loss{f': {name}' if name else ''}"
    plot = Plot(title, "epoch", "loss", x_range=across, y_range=(min(0.0, *lines["loss"][1]), top))
    if base:
        plot.guide(across, (base, base))
    if kept:
        plot.guide((kept, kept), (0, top))
    for key, (xs, ys) in lines.items():
        if ys:
            plot.line(xs, ys, name=LOSSES[key])
    first, *_, last = (*lines["loss"][1], *lines["loss"][1])
    plots = [plot.svg(f"{title} by epoch, {len(rows)} epochs, of training from {first:.3g} to {last:.3g}")]
    xs, ys = _column(rows, "val_auroc")
    if ys:
        plot = Plot("Validation AUROC" + (f": {name}" if name else ""), "epoch", "AUROC", x_range=across)
        plot.guide(across, (0.5, 0.5))
        plot.line(xs, ys)
        plots.append(plot.svg(f"Validation AUROC by epoch, at last {ys[-1]:.3f}"))
    return plots


def _column(rows: Curve, key: str) -> tuple[list[float], list[float]]:
    """Epochs that have a value, and these."""
    found = [(float(at), value) for at, row in enumerate(rows, 1) if (value := number(row.get(key))) is not None]
    return [at for at, _ in found], [value for _, value in found]
