"""The sections of docs/benchmarks.md on megapixel MNIST and on the cost curve, from their records."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks.paper.config import MegapixelTask, Row, read_task
from benchmarks.paper.markdown import markdown, ranged, with_interval
from benchmarks.paper.mnist import Noise, Split
from benchmarks.paper.records import bootstrap, read_records

BASIS = "ats10"
"""The row that the others are compared with."""


def megapixel_figures(
    records: Sequence[dict[str, Any]], task: MegapixelTask, split: Split = "test"
) -> dict[str, dict[str, Any]]:
    """Of every row with a record of the current configuration: accuracy, difference to ATS-10, attention, costs.

    Figures are means over repeats. Intervals are 95 % bootstrap percentiles over test images, the same images for all
    rows, so that differences are paired.
    """
    of_row = {
        name: [r for r in records if r["row"] == name and r["digest"] == task.digest_on(name, split)]
        for name in task.rows
    }
    of_row = {name: found for name, found in of_row.items() if found}
    correct = {name: np.array([r["correct"] for r in found]).mean(0) for name, found in of_row.items()}
    figures: dict[str, dict[str, Any]] = {}
    for name, found in of_row.items():
        draws = bootstrap(len(correct[name]))
        figures[name] = {
            "repeats": len(found),
            "reads": found[0]["reads"],
            "accuracy": with_interval(correct[name].mean(), correct[name][draws].mean(1)),
            "training_loss": float(np.mean([r["training_loss"] for r in found])),
            "epochs": found[0]["epochs"],
            "ms_per_sample": float(np.mean([r["ms_per_sample"] for r in found])),
            "made": max(r["made"]["time"] for r in found)[:10],
        }
        if BASIS in correct and name != BASIS:
            difference = correct[name] - correct[BASIS]
            figures[name]["minus_basis"] = with_interval(difference.mean(), difference[draws].mean(1))
        if "focus" in found[0]:
            figures[name]["focus"] = {
                key: float(np.mean([r["focus"][key] for r in found])) for key in ("mass", "chance")
            }
    return figures


def megapixel_section(root: Path) -> str:
    """The section on megapixel MNIST, a table for each setting that has records, or nothing."""
    records = read_records(root / "benchmarks/results/megapixel.jsonl")
    text = []
    for name, noise in product(("megapixel", "megapixel-small"), get_args(Noise)):
        task = read_task(root / f"configs/paper/{name}.yaml", MegapixelTask)
        task = task.model_copy(update={"noise": noise})
        figures = megapixel_figures(records, task)
        if not figures:
            continue
        text.append(SETTING.format(**task.model_dump(), name=name))
        text.append(markdown(MEGAPIXEL_HEAD, [_megapixel_row(task.rows[name], f) for name, f in figures.items()]))
    return "\n".join([MEGAPIXEL_INTRO, *text]) if text else ""


def _megapixel_row(row: Row, figures: dict[str, Any]) -> list[str]:
    focus = figures.get("focus")
    return [
        row.title,
        str(figures["repeats"]),
        "all pixels" if figures["reads"] is None else str(figures["reads"]),
        ranged(figures["accuracy"]),
        ranged(figures["minus_basis"], sign=True) if "minus_basis" in figures else "",
        f"{focus['mass']:.2f} / {focus['chance']:.3f}" if focus else "",
        str(figures["epochs"]),
        f"{figures['training_loss']:.2f}",
        f"{figures['ms_per_sample']:.1f}",
        figures["made"],
    ]


def signs_section(root: Path) -> str:
    """What there is to say of the traffic signs until somebody runs them."""
    return SIGNS


def cost_curve_section(root: Path) -> str:
    """The section on the cost curve, from its latest record, or nothing."""
    records = read_records(root / "benchmarks/results/cost_curve.jsonl")
    if not records:
        return ""
    record = records[-1]
    points = {(p["row"], p["side"]): p for p in record["points"]}
    rows, sides = (list(dict.fromkeys(p[key] for p in record["points"])) for key in ("row", "side"))
    head = ["side, px", *(f"{CURVE_TITLES[row]}, {unit}" for unit in ("ms", "MB") for row in rows)]
    lines = [
        [str(side)]
        + [
            f"{points[row, side][key]:.1f}" if (row, side) in points else "-"
            for key in ("ms", "peak_mb")
            for row in rows
        ]
        for side in sorted(sides)
    ]
    return "\n".join([CURVE_INTRO.format(**record, **record["made"]), markdown(head, lines)])


MEGAPIXEL_HEAD = (
    *("model", "repeats", "patches encoded", "accuracy", "minus ATS-10", "attention on digits / chance"),
    *("epochs", "training loss", "ms a sample", "made"),
)
MEGAPIXEL_INTRO = """## Megapixel MNIST

Five digits and many noise strokes in a large black image; which class has three of the digits? Images are made by
`benchmarks/paper/mnist.py` from MNIST, test images from its test digits. All rows have the same convolutions and see
the same images. ATS and uniform rows are the product's own model around them (`AttentionSampler`, its attention) in its
own training; images are shown to it as black on white, and patches are larger than its cells, so that they overlap. The
header of the configuration says how settings were chosen. Figures are means over repeats, intervals 95 % bootstrap
intervals over test images (not over repeats), differences paired. Every row but the CNN and MIL on all patches encodes
ten patches of an image, in training and in testing. `Attention on digits` is the share of attention on patches centred
within 14 px of a digit's centre, against the share of such cells.
"""
SETTING = """### {side} x {side} pixels, {strokes} strokes {noise} the digits

`python benchmarks/paper/megapixel.py configs/paper/{name}.yaml --noise {noise}`: {images[train]} training and
{images[test]} test images, a low view of {sight[low_px]} x {sight[low_px]} pixels, patches of {sight[patch_px]} px.
Milliseconds a sample are those of training while the machine did other work too: they only tell what the run took.
"""
SIGNS = """## Traffic signs

`python benchmarks/paper/signs.py DATA` trains ATS-5 and ATS-10, as for megapixel MNIST, on speed limits of the Swedish
traffic signs set (Larsson & Felsberg 2011) with `configs/paper/signs.yaml`. The set is not at hand here, so there are
no figures; the loader and the command are tested on scenes that the tests draw.
"""
CURVE_TITLES = {
    "cnn": "CNN",
    "mil": "MIL",
    "ats-fixed": "ATS-10, fixed low view",
    "ats-factor": "ATS-10, low view at fixed factor",
}
CURVE_INTRO = """## Cost against image side

`python benchmarks/paper/cost_curve.py`: time and peak memory of a training step for each image, with {batch} image(s)
of megapixel MNIST in a step and the networks of `configs/paper/megapixel.yaml`. A fixed low view has 180 x 180 pixels
whatever the image; one at a fixed factor grows with it. Attention sampling is served patches on demand and never holds
an image. Making pixels and low views is counted for no row. Time is processor time, the median of {rounds} rounds in
which all points take turns; memory is the peak over what the process held before, in a process for each point. Rows end
where a step would need more than {limit_gb:g} GB. Measured {time}, commit {commit}, torch {torch}, {device}, {threads}
thread.
"""
