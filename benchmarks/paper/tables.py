"""docs/benchmarks.md from the records in benchmarks/results: every figure there was measured by a command named there.

python benchmarks/paper/tables.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper.colon_images import DOUBTFUL
from benchmarks.paper.config import ColonTask, read_task
from benchmarks.paper.markdown import markdown, ranged, with_interval
from benchmarks.paper.records import auroc, bootstrap, read_records
from benchmarks.paper.sections import cost_curve_section, megapixel_section, signs_section
from benchmarks.places import ROOT

FOCUS = ("mass", "chance", "any_nucleus", "stain")
"""Figures on each positive image: see `COLON_FOCUS`."""
HEADER = """# Benchmarks: the paper's tasks

Written by `benchmarks/paper/tables.py` from the records in `benchmarks/results`; do not edit by hand.
"""


def write_tables(root: Path) -> None:
    """Write docs/benchmarks.md of the repository at ``root``."""
    sections = [make(root) for make in (colon_section, megapixel_section, signs_section, cost_curve_section)]
    (root / "docs/benchmarks.md").write_text("\n".join([HEADER, *(section for section in sections if section)]))


def colon_figures(records: Sequence[dict[str, Any]], task: ColonTask) -> dict[str, dict[str, Any]]:
    """Of every row with at least one whole repeat: error, AUROC, paired differences, attention, costs.

    Predictions of all folds are pooled. Over repeats, figures are averaged. Intervals are 95 % bootstrap percentiles
    over images, and the same images for all rows, so that differences are paired.
    """
    every = ((name, _pooled(records, name, task)) for name in task.rows)
    pooled = {name: found for name, found in every if found is not None}
    images = sorted({image for found in pooled.values() for image in found["images"]})
    if not pooled:
        return {}
    draws = bootstrap(len(images))
    sure = np.array([image not in DOUBTFUL for image in images])
    scores = {name: _scores(found, images) for name, found in pooled.items()}
    costs = next((r for r in reversed(records) if r["what"] == "costs"), None)
    figures: dict[str, dict[str, Any]] = {}
    for name, (y, p) in scores.items():
        wrong = ((p > 0.5) != y).mean(0)
        figures[name] = {
            "repeats": len(p),
            "reads": pooled[name]["reads"],
            "error": with_interval(wrong.mean(), wrong[draws].mean(1)),
            "auroc": with_interval(_mean_auroc(y, p), [_mean_auroc(y[draw], p[:, draw]) for draw in draws]),
            "without_doubtful": {"error": float(wrong[sure].mean()), "auroc": _mean_auroc(y[sure], p[:, sure])},
            "training_loss": pooled[name]["training_loss"],
            "focus": pooled[name]["focus"],
            "made": pooled[name]["made"],
            "costs": None if costs is None else costs["rows"].get(name),
        }
        for other in ("cnn", "mil"):
            if other in scores and name != other:
                theirs = ((scores[other][1] > 0.5) != y).mean(0)
                difference = wrong - theirs
                figures[name][f"minus_{other}"] = with_interval(difference.mean(), difference[draws].mean(1))
    return figures


def colon_section(root: Path) -> str:
    """The colon-cancer section, or nothing where there are no records."""
    records = read_records(root / "benchmarks/results/colon.jsonl")
    task = read_task(root / "configs/paper/colon.yaml", ColonTask)
    figures = colon_figures(records, task)
    if not figures:
        return ""
    text = [COLON_INTRO.format(**_facts(task)), _quality(figures, task)]
    text += [COLON_FOCUS, _focus(figures, task)]
    measured = next((r for r in reversed(records) if r["what"] == "costs"), None)
    if measured is not None:
        text += [COLON_COSTS.format(batch=measured["batch"], rounds=measured["rounds"], **measured["made"])]
        text += [_costs(measured["rows"], figures, task)]
    return "\n".join(text)


def _quality(figures: dict[str, dict[str, Any]], task: ColonTask) -> str:
    against = [key for key in ("minus_cnn", "minus_mil") if any(key in f for f in figures.values())]
    rows = [
        [
            task.rows[name].title,
            str(f["repeats"]),
            ranged(f["error"]),
            ranged(f["auroc"]),
            f"{f['without_doubtful']['error']:.3f}, {f['without_doubtful']['auroc']:.3f}",
            "" if f["training_loss"] is None else f"{f['training_loss']:.3f}",
            *(ranged(f[key], sign=True) if key in f else "" for key in against),
            f["made"],
        ]
        for name, f in figures.items()
    ]
    titles = {"minus_cnn": "error - CNN", "minus_mil": "error - MIL"}
    head = ["model", "repeats", "error", "AUROC", "without img37, img39", "training loss"]
    return markdown([*head, *(titles[key] for key in against), "made"], rows)


def _focus(figures: dict[str, dict[str, Any]], task: ColonTask) -> str:
    rows = []
    for name, f in figures.items():
        if f["focus"]:
            mass, chance, near_any, stain = (f["focus"][key] for key in FOCUS)
            ratios = (f"{value / chance:.2f}" for value in (mass, near_any, stain))
            rows.append([task.rows[name].title, f"{mass:.3f}", f"{chance:.3f}", *ratios])
    head = ["model", "attention mass", "chance", "mass / chance", "any nucleus / chance", "haematoxylin / chance"]
    return markdown(head, rows)


def _costs(rows: dict[str, dict[str, float]], figures: dict[str, dict[str, Any]], task: ColonTask) -> str:
    lines = []
    for name, cost in rows.items():
        row = name.removesuffix("-shared")
        reads = figures.get(row, {}).get("reads") or task.rows[row].samples
        pixels = task.rows[row].kind in ("cnn", "half")
        lines.append(
            [
                task.rows[row].title + ("" if name == row else ", shared convolutions"),
                "all pixels" if pixels else str(reads or "all"),
                *(f"{cost[key]:.2f}" for key in ("ms", "saved_mb", "peak_mb")),
                *(
                    f"{rows[other][key] / cost[key]:.1f}x" if other in rows else ""
                    for other in ("cnn", "mil")
                    for key in ("ms", "saved_mb")
                ),
            ]
        )
    head = ["model", "patches read", "ms", "saved MB", "peak MB"]
    return markdown([*head, "CNN's time / its", "CNN's saved / its", "MIL's time / its", "MIL's saved / its"], lines)


COLON_INTRO = """## Colon cancer

`python benchmarks/paper/colon.py` on CRCHistoPhenotypes (Sirinukunwattana et al. 2016): 100 H&E images of 500 x 500
pixels, positive when they show an epithelial nucleus. {folds} folds, the same for all rows, which see the same
augmentation (eight positions, stain strengths jittered by {stain_jitter:g}).

ATS, uniform and exhaustive rows are the product's own model (`AttentionSampler`, its built-in encoder and attention) in
its own training (`pipeline.train.fit`). It sees an image as it sees a slide all of which is tissue: a low view of
{low_px} x {low_px} pixels as the thumbnail, and {cells} x {cells} cells, each with its own patch of {patch_px} px. The
paper has 100 x 100 pixels and patches of 27 px that may overlap. The others read everything, which the product never
does: they have convolutions of their own (channels {widths}; MIL's patches have {mil_px} px) and their own training,
whose last quarter of weights is averaged. Images 37 and 39 are labelled negative but show glands.

Rows on frozen lite0 are the product's model on a frozen encoder (`EvidenceModel`), one of ImageNet that learns nothing
here: it sees {frozen_cells} x {frozen_cells} cells of {frozen_px} px at half the resolution, all of them, and the drawn
patches in full, with {members} members and no augmentation. `Coarse scale alone` is exact and draws no patch, `all
patches` reads every one; before that, 32 patches of up to 64 training images tell in which directions features vary.
The product takes each slide's own mean and spread out of its features. A gland may fill one of these images, and what
is everywhere goes with the mean: these rows compare images with all others, but for the one that says so, and some
members see each cell as the mean of the whole image, as wide as context goes here. That, the rate and the number of
epochs were chosen by out-of-bag AUROC (`configs/paper/colon.yaml`), never by the folds that are reported; the images
are the same hundred, since there are no others.

Intervals are 95 % bootstrap intervals over images; differences of error are paired. One hundred images resolve little:
an error of 0.10 has an interval of 0.05 to 0.16. Neighbouring images look as if cut from the same slides: the rows of
blocks keep neighbours together. With a self-supervised start the encoder first learns, without labels, to tell patches
of the training images apart (600 steps, `benchmarks/paper/contrast.py`); predictions from augmented views are means
over 16 of them, those of other rows of ATS-10 over ten draws. Training loss is the mean cross-entropy of the last
epoch, on augmented images: a row whose loss stands well above the others' had not learned all that it can. `Made` is
the day of the last fold; how the rows that read everything are computed has not changed since, to the bit.
"""
COLON_FOCUS = """
Where attention goes, on positive images in test folds: the share of it on patches centred within 14 px of an epithelial
nucleus, against the share of the area (chance). `any nucleus` is what spreading it evenly over everything within 14 px
of a nucleus of any kind would reach, `haematoxylin` what the attention by stain alone reaches that warm-up starts from.
Means over images, then their ratio.
"""
COLON_COSTS = """
Cost of a training step (`python benchmarks/paper/colon.py costs`), for each image, on batches of {batch}; for ATS rows
that of the product's model. Milliseconds are processor time of forward and backward pass, clipping and optimiser on one
thread, the median of {rounds} rounds in which all rows take turns; then what autograd keeps for the backward pass; and
resident memory at its peak over what the process held before, in a process for each row with the same allocator
settings. Low views come with the images, as they do in a pyramid, and are not counted; nor is augmentation. `shared
convolutions` computes once what overlapping patches share: the same MIL, possible only where the whole image fits.
Measured {time}, commit {commit}, torch {torch}, {device}.
"""


def _facts(task: ColonTask) -> dict[str, Any]:
    frozen = next(row.frozen for row in task.rows.values() if row.frozen is not None)
    return {
        "folds": task.folds,
        "widths": ", ".join(map(str, task.networks.widths)),
        "mil_px": task.networks.patch_px,
        "low_px": task.sight.low_px,
        "cells": -(-task.sight.low_px // task.sight.cell_px),
        "patch_px": task.sight.patch_px,
        "stain_jitter": task.stain_jitter,
        "members": frozen.members,
        "frozen_cells": frozen.cells,
        "frozen_px": frozen.patch_px,
    }


def _pooled(records: Sequence[dict[str, Any]], name: str, task: ColonTask) -> dict[str, Any] | None:
    """A row's records of the current configuration, of repeats whose folds are all there; None where there are none."""
    digest = task.digest(name)
    repeats: dict[int, dict[int, dict[str, Any]]] = {}
    for record in records:
        if record["what"] == "fold" and record["row"] == name and record["digest"] == digest:
            repeats.setdefault(record["repeat"], {})[record["fold"]] = record
    whole = [list(folds.values()) for folds in repeats.values() if len(folds) == task.folds]
    if not whole:
        return None
    every = [record for folds in whole for record in folds]
    seen = np.array([values for record in every for values in record.get("focus", {}).values()])
    losses = [record["training_loss"] for record in every if "training_loss" in record]
    return {
        "repeats": whole,
        "images": [image for record in whole[0] for image in record["images"]],
        "reads": every[0].get("reads"),
        "made": max(record["made"]["time"] for record in every)[:10],
        "training_loss": float(np.mean(losses)) if losses else None,
        "focus": dict(zip(FOCUS, seen.mean(0).tolist(), strict=True)) if len(seen) else None,
    }


def _scores(pooled: dict[str, Any], images: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels (n,) and probabilities (repeats, n), in the order of ``images``."""
    labels: dict[str, int] = {}
    rows = []
    for folds in pooled["repeats"]:
        found: dict[str, float] = {}
        for record in folds:
            labels.update(zip(record["images"], record["labels"], strict=True))
            found.update(zip(record["images"], record["probabilities"], strict=True))
        rows.append([found[image] for image in images])
    return np.array([labels[image] for image in images]), np.array(rows)


def _mean_auroc(y: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    return float(np.mean([auroc(y, scores) for scores in p]))


if __name__ == "__main__":
    write_tables(ROOT)
