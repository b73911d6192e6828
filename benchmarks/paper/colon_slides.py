"""The colon-cancer images as slides, and the pipeline's own model trained on them.

    python benchmarks/paper/colon_slides.py OUT
    python benchmarks/intervals.py OUT         how often its intervals hold
    python benchmarks/sampling.py --demo OUT   the error of every way to draw from it

Writes the images of $SACCADE_DATA/crchistophenotypes (default ../shared/data), but for two that show only glass, as
small tiled TIFFs of 0.55 um/px, with a cohort table that deals them into training, validation and unseen as 64 : 16 :
20, and trains configs/paper/colon-slides.yaml. OUT then has the folders of a demo: cohort/ and training/. Ends with one
JSON line.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import tifffile

from benchmarks.paper.colon_images import Colon, assign_folds, load_colon
from benchmarks.places import data_folder
from pipeline.cohort.cohort import Cohort
from pipeline.cohort.training_table import read_training_table
from pipeline.config import load_config
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort
from pipeline.train.train import train_cohort

CONFIG = Path(__file__).resolve().parents[2] / "configs/paper/colon-slides.yaml"
MPP = 0.55
"""µm per pixel: of the images (Sirinukunwattana et al. 2016)."""
CLASSES = ("normal", "epithelial")
GLASS = ("img73", "img76")
"""Hardly anything is on them, and the pipeline says that they have no tissue."""
PARTS = 25
SPLITS = {"test": range(5), "val": range(5, 9), "train": range(9, PARTS)}
"""Of the parts into which the images of each class are dealt evenly."""


def write_cohort(colon: Colon, folder: Path) -> Path:
    """The images as slides in ``folder``, and their table."""
    folder.mkdir(parents=True, exist_ok=True)
    part = assign_folds(colon.labels.tolist(), PARTS, seed=0)
    rows = []
    for name, image, label, place in zip(colon.names, colon.images, colon.labels.tolist(), part, strict=True):
        if name in GLASS:
            continue
        path = folder / f"{name}.tif"
        if not path.exists():
            tifffile.imwrite(
                path,
                image.numpy(),
                tile=(256, 256),
                photometric="rgb",
                compression="deflate",
                resolution=(1e4 / MPP, 1e4 / MPP),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
        split = next(split for split, places in SPLITS.items() if place in places)
        rows.append({"slide": path.name, "label": CLASSES[label], "split": split})
    table = folder / "cohort.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["slide", "label", "split"])
        writer.writeheader()
        writer.writerows(rows)
    return table


def main() -> None:
    """Write, train, predict the unseen ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    table = write_cohort(load_colon(data_folder()), out / "cohort")
    config = load_config(CONFIG, [f"cohort.table={json.dumps(str(table.resolve()))}"])
    train_cohort(config, out / "training", say=lambda line: print(line, flush=True))
    unseen = Cohort(table, tuple(s for s in read_training_table(table).slides if s.split == "test"))
    summary = run_cohort(unseen, out / "run", RunSettings(model=out / "training/model.safetensors"))
    patches = sum(row["patches_read"] for row in summary.rows) / summary.ok
    print(json.dumps({"benchmark": "colon_slides", "metrics": summary.metrics, "patches": patches}))


if __name__ == "__main__":
    main()
