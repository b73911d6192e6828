"""What a training reaches on real tissue: over seeds, and both directions of the split.

    python benchmarks/real_tissue.py COHORT [--seeds 0 1 2 3] [--out DIR] [--set key=value ...]

COHORT is a folder that benchmarks/tissue_mosaics.py made. Trains configs/real-tissue.yaml on its train slides and runs
its test slides, and the other way round, with every seed; features are kept, so that no patch is encoded twice. Prints
a line each: AUROC on unseen slides with its 95 % interval by patient, that of the out-of-bag slides, attention inside
lesions over their share of the tissue, share of the tissue and of the slides' bytes that predictions take to read, and
seconds of the training; then mean and spread over all of them, and one JSON line.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import numpy as np

from benchmarks.places import ROOT
from pipeline.cohort.cohort import Cohort, CohortSlide
from pipeline.cohort.training_table import read_training_table
from pipeline.config import load_config
from pipeline.model.checkpoint import load_model
from pipeline.model.look import look
from pipeline.model.slide_model import SlideModel
from pipeline.output.attention_map import read_attention_zarr
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort
from pipeline.train.train import train_cohort
from stages.disk import new_file

CONFIG = ROOT / "configs/real-tissue.yaml"
DIRECTIONS = ("given", "swapped")


def write_table(cohort: Path, out: Path, *, swapped: bool) -> Path:
    """The cohort's table with absolute paths and, where ``swapped``, the roles of train and test exchanged."""
    roles = {"train": "test", "test": "train"} if swapped else {"train": "train", "test": "test"}
    with (cohort / "cohort.csv").open(newline="", encoding="utf-8") as file:
        rows = [{**row, "split": roles[row["split"]]} for row in csv.DictReader(file)]
    table = out / "cohort.csv"
    out.mkdir(parents=True, exist_ok=True)
    with new_file(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "slide": os.path.abspath(cohort / row["slide"])})
    return table


def lesion_attention(slide: CohortSlide, model: SlideModel, result: Path, truth: Path) -> float | None:
    """Attention inside the lesion over its share of the tissue's cells; None on a slide without one."""
    told = np.load(truth)
    lesion, tile = told["lesion"], int(told["tile_px"])
    seen = look(slide.path, model, mpp=slide.mpp)
    centres = np.asarray(seen.cells.centres_level0(np.arange(seen.tissue.size)))
    columns, rows = (np.clip(centres / tile, 0, np.array(lesion.shape)[::-1] - 1).astype(int)).T
    inside = lesion[rows, columns].astype(bool) & seen.tissue.ravel()
    if not inside.any():
        return None
    attention, _ = read_attention_zarr(result / "attention.zarr")
    return float(attention.ravel()[inside].sum() / (inside.sum() / seen.tissue.sum()))


def measure(cohort: Path, out: Path, *, seed: int, swapped: bool, changes: list[str]) -> dict[str, Any]:
    """Train, and predict the unseen slides; goes on where it was."""
    table = write_table(cohort, out, swapped=swapped)
    config = load_config(CONFIG, [f"cohort.table={json.dumps(str(table))}", f"training.seed={seed}", *changes])
    started = time.perf_counter()
    metrics = train_cohort(config, out / "training", say=lambda line: None)
    seconds = time.perf_counter() - started
    path = out / "training" / "model.safetensors"
    unseen = Cohort(table, tuple(s for s in read_training_table(table).slides if s.split == "test"))
    summary = run_cohort(unseen, out / "run", RunSettings(model=path, seed=seed))
    assert summary.metrics is not None
    model = load_model(path)
    focus = [
        lesion_attention(
            slide, model, out / "run" / "slides" / slide.slide_id, cohort / "truth" / f"{slide.path.stem}.npz"
        )
        for slide in unseen.slides
    ]
    size = sum(slide.path.stat().st_size for slide in unseen.slides)
    return {
        "seed": seed,
        "direction": DIRECTIONS[swapped],
        "auroc": summary.metrics["auroc"],
        "out_of_bag": metrics.get("out-of-bag", {}).get("auroc"),
        "attention_in_lesions": mean(one for one in focus if one is not None),
        "fraction_read": mean(row["fraction_read"] for row in summary.rows),
        "bytes_read": sum(row["bytes_read"] for row in summary.rows) / size,
        "training_seconds": seconds,
    }


def in_words(found: dict[str, Any]) -> str:
    """A line of figures."""
    auroc, bag = found["auroc"], found["out_of_bag"]
    return (
        f"{found['direction']:8} seed {found['seed']}: AUROC {auroc['value']:.3f} [{auroc['low']:.3f}, "
        f"{auroc['high']:.3f}], out of bag {'-' if bag is None else format(bag['value'], '.3f')}, attention in lesions "
        f"{found['attention_in_lesions']:.1f}x, {found['fraction_read']:.1%} of the tissue, {found['bytes_read']:.1%} "
        f"of the bytes, trained in {found['training_seconds']:.0f} s"
    )


def main() -> None:
    """Measure every seed in both directions and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--directions", nargs="+", choices=DIRECTIONS, default=DIRECTIONS)
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "real-tissue")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    told = parser.parse_args()
    found = []
    for direction in told.directions:
        for seed in told.seeds:
            out = told.out / f"{told.cohort.name}-{direction}-{seed}"
            one = measure(told.cohort, out, seed=seed, swapped=direction == "swapped", changes=told.changes)
            found.append(one)
            print(in_words(one), flush=True)
    values = [one["auroc"]["value"] for one in found]
    focus = [one["attention_in_lesions"] for one in found]
    print(
        f"AUROC {mean(values):.3f}, spread {pstdev(values):.3f}; attention in lesions {mean(focus):.1f}x, spread "
        f"{pstdev(focus):.1f}; {mean(one['bytes_read'] for one in found):.1%} of the bytes"
    )
    print(json.dumps({"cohort": told.cohort.name, "set": told.changes, "rows": found}))


if __name__ == "__main__":
    main()
