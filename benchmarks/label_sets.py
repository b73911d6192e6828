"""How often 90 % sets of classes hold the label of slides of unseen patients, whatever number of patches is drawn.

    python benchmarks/label_sets.py COHORT [--patients 12] [--seeds 0 1] [--out DIR] [--set key=value ...]

COHORT is a folder that benchmarks/tissue_mosaics.py made. Trains configs/real-tissue.yaml on so few of its patients,
as many of each class, that the model errs; the others' slides are drawn again and again at 8, 32 and 256 patches. Then
the held-out patients are split in halves at random, again and again: sets are calibrated on one half, and judged on the
other. Prints, for each budget, the share of slides whose set holds the label: overall, by class and by site, with one
threshold and with one for each class; the shares referred (and of them without any class), called wrongly of all, and
wrong of the called; beside it the same where sets are calibrated on what the whole slides say, without the noise of a
draw. Then the same of reading on until every interval is within 0.02, with the widest thresholds; the abstention curve
at 32 patches, and one JSON line.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.places import ROOT
from pipeline.cohort.cohort import CohortSlide
from pipeline.cohort.training_table import read_training_table
from pipeline.config import load_config
from pipeline.model.build import keep_features
from pipeline.model.checkpoint import load_model
from pipeline.model.look import look
from pipeline.refer.scores import slide_scores
from pipeline.train.train import train_cohort
from stages.disk import new_file
from stages.prediction.conformal import Conformal, conformalize, scores_of

CONFIG = ROOT / "configs/real-tissue.yaml"
BUDGETS = (8, 32, 256)
EVERY = 2**20
"""Patches of which no slide has as many: all of it is read."""
DRAWS, TOLERANCE = 20, 0.02
ERRORS = (0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4)


def write_table(cohort: Path, out: Path, *, patients: int, seed: int) -> Path:
    """The cohort's table with absolute paths, so many patients to train on, drawn class by class; the others test."""
    with (cohort / "cohort.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rng = np.random.default_rng(seed)
    label_of = {row["patient"]: row["label"] for row in rows}
    chosen: set[str] = set()
    for label in sorted(set(label_of.values())):
        own = sorted(patient for patient, its in label_of.items() if its == label)
        chosen |= set(rng.permutation(own)[: patients // len(set(label_of.values()))].tolist())
    out.mkdir(parents=True, exist_ok=True)
    table = out / "cohort.csv"
    with new_file(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            split = "train" if row["patient"] in chosen else "test"
            writer.writerow({**row, "split": split, "slide": os.path.abspath(cohort / row["slide"])})
    return table


def drawn(
    cohort: Path, out: Path, *, patients: int, seed: int, changes: Sequence[str]
) -> tuple[Conformal, NDArray[np.float64], list[CohortSlide]]:
    """The scores of the held-out slides, and those of reading on (S, 2, C), of a model that is trained first."""
    table = write_table(cohort, out, patients=patients, seed=seed)
    config = load_config(CONFIG, [f"cohort.table={json.dumps(str(table))}", f"training.seed={seed}", *changes])
    train_cohort(config, out / "training", say=lambda line: None)
    model = keep_features(load_model(out / "training" / "model.safetensors"))
    slides = [slide for slide in read_training_table(table).slides if slide.split == "test"]
    read_on = []
    scores: dict[int, list[Any]] = {n: [] for n in (*BUDGETS, EVERY)}
    for slide in slides:
        seen = look(slide.path, model, mpp=slide.mpp)
        generator = seen.generator(seed, model.drawing_device)
        options: dict[str, Any] = {"generator": generator, "draws": DRAWS, "patches": DRAWS * BUDGETS[-1]}
        for n, one in slide_scores(model, seen.view, tuple(scores), **options).items():
            scores[n].append(one)
        p = [model.sample(seen.view, generator=generator, tolerance=TOLERANCE).prediction.values for _ in "ab"]
        read_on.append(scores_of(torch.stack(p).numpy()))
    labels = [model.spec.classes.index(str(slide.label)) for slide in slides]
    return conformalize(scores, labels, [slide.patient for slide in slides]), np.stack(read_on), slides


def half(found: Conformal, chosen: NDArray[np.bool_]) -> Conformal:
    """Of some slides."""
    scores = tuple(one[chosen] for one in found.scores)
    return Conformal(found.budgets, scores, found.labels[chosen], found.patients[chosen])


def judge(
    found: Conformal,
    sites: NDArray[np.str_],
    scores: NDArray[np.float64],
    *,
    splits: int,
    seed: int,
    error: float,
    by_class: bool,
    of: Sequence[int],
) -> dict[str, float]:
    """Means over random halves: sets calibrated at budgets ``of`` and judged on ``scores`` (S, D, C)."""
    rng = np.random.default_rng(seed)
    labels = found.labels
    people, owner = np.unique(found.patients, return_inverse=True)
    totals: dict[str, list[float]] = {}
    for _ in range(splits):
        fit = (rng.permutation(len(people)) < len(people) // 2)[owner]
        limits = half(found, fit).thresholds(error, budgets=of, by_class=by_class)
        chosen = scores[~fit] <= limits
        y, place = labels[~fit], sites[~fit]
        held = np.take_along_axis(chosen, y[:, None, None].repeat(chosen.shape[1], 1), 2)[..., 0]
        called = chosen.sum(2) == 1
        told = {"coverage": held.mean(), "referred": 1 - called.mean(), "none": (chosen.sum(2) == 0).mean()}
        told["wrong"] = (called & ~held).mean()
        told |= {f"class {c}": held[y == c].mean() for c in np.unique(y)}
        told |= {str(name): held[place == name].mean() for name in np.unique(place)}
        for name, value in told.items():
            totals.setdefault(name, []).append(float(value))
    mean = {name: float(np.mean(values)) for name, values in totals.items()}
    called_share = 1 - mean["referred"]
    return {**mean, "error_of_called": mean["wrong"] / called_share if called_share else float("nan")}


def main() -> None:
    """Measure every seed and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--patients", type=int, default=12, help="to train on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--error", type=float, default=0.1)
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "label-sets")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    told = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for seed in told.seeds:
        out = told.out / f"{told.cohort.name}-{told.patients}-{seed}"
        found, read_on, slides = drawn(told.cohort, out, patients=told.patients, seed=seed, changes=told.changes)
        sites = np.array([str(slide.site) for slide in slides])
        whole = found.scores[-1][:, 0, 1]
        above = (whole[found.labels == 1][:, None] < whole[found.labels == 0][None]).mean()
        print(f"{out.name}: {len(slides)} held-out slides, AUROC of the whole slides {above:.3f}", flush=True)
        options: dict[str, Any] = {"splits": told.splits, "seed": seed}
        for n in BUDGETS:
            drawn_at = found.scores[found.budgets.index(n)]
            for kind, by_class, of in (("sets", False, n), ("by class", True, n), ("without noise", False, EVERY)):
                one = judge(found, sites, drawn_at, error=told.error, by_class=by_class, of=(of,), **options)
                rows.append({"seed": seed, "samples": n, "kind": kind, "stated_error": told.error, **one})
                figures = ", ".join(f"{name} {value:.1%}" for name, value in one.items())
                print(f"  {n:>3} patches, {kind:>13}: {figures}", flush=True)
        one = judge(found, sites, read_on, error=told.error, by_class=False, of=(32, 256, EVERY), **options)
        rows.append({"seed": seed, "samples": None, "kind": "reading on", "stated_error": told.error, **one})
        print(f"  within {TOLERANCE}: " + ", ".join(f"{name} {value:.1%}" for name, value in one.items()), flush=True)
        for error in ERRORS:
            at = found.scores[found.budgets.index(32)]
            one = judge(found, sites, at, error=error, by_class=False, of=(32,), **options)
            rows.append({"seed": seed, "samples": 32, "kind": "abstention", "stated_error": error, **one})
            print(
                f"  stated error {error:.2f}: referred {one['referred']:.1%} (no class {one['none']:.1%}), wrong "
                f"{one['wrong']:.1%} of all, {one['error_of_called']:.1%} of the called",
                flush=True,
            )
    for n in BUDGETS:
        mean = np.mean([row["coverage"] for row in rows if row["samples"] == n and row["kind"] == "sets"])
        print(f"{n:>3} patches: {1 - told.error:.0%} sets hold the label of {mean:.1%}")
    print(json.dumps({"benchmark": "label_sets", "cohort": told.cohort.name, "patients": told.patients, "rows": rows}))


if __name__ == "__main__":
    main()
