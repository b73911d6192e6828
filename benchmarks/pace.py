"""What an epoch of training costs a slide: on features that are kept, against learning end to end.

    python benchmarks/pace.py COHORT [--slides 16] [--epochs 6]

COHORT is a folder that benchmarks/tissue_mosaics.py made. Trains the default model, whose features were encoded before,
and the one that learns end to end from thumbnail and patches (as all models did before there was a frozen encoder), on
the same slides, one after the other in one process; the latter also with patches that are read a step ahead, which
hides what reading waits for, not what it computes: on cores that are all at work nothing is won. Prints the median CPU
and wall seconds of an epoch for each slide, of the epochs that read patches, and their ratios.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks.places import ROOT
from pipeline.config import load_config
from pipeline.train.train import train_cohort
from stages.disk import new_file

WAYS: dict[str, tuple[str, ...]] = {
    "features kept": (),
    "end to end": ("attention.kind=learned", "encoder.name=small", "view.patch_mpp=0.5"),
    "end to end, read ahead": (
        *("attention.kind=learned", "encoder.name=small", "view.patch_mpp=0.5"),
        "training.read_ahead=1",
    ),
}


def few_slides(cohort: Path, count: int, out: Path) -> Path:
    """A table of the first training slides, both classes in turn."""
    with (cohort / "cohort.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    kinds = sorted({row["label"] for row in rows})
    chosen = [row for kind in kinds for row in [r for r in rows if r["label"] == kind][: count // len(kinds)]]
    with new_file(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "slide": str((cohort / row["slide"]).resolve())} for row in chosen)
    return out


def seconds_of(table: Path, out: Path, *, epochs: int, changes: tuple[str, ...]) -> tuple[float, float]:
    """Median CPU and wall seconds between the ends of the last half of the epochs."""
    config = load_config(
        ROOT / "configs/real-tissue.yaml",
        [
            f"cohort.table={json.dumps(str(table))}",
            f"training.epochs={epochs}",
            *("training.calibration_slides=0", *changes),
        ],
    )
    ends: list[tuple[float, float]] = []

    def say(line: str) -> None:
        if line.startswith("epoch "):
            ends.append((time.process_time(), time.perf_counter()))

    train_cohort(config, out, say=say)
    late = ends[len(ends) // 2 :]
    apart = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(late)]
    return median(cpu for cpu, _ in apart), median(wall for _, wall in apart)


def main() -> None:
    """Measure both ways and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--slides", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=6)
    told = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        table = few_slides(told.cohort, told.slides, Path(folder) / "cohort.csv")
        seconds_of(table, Path(folder) / "before", epochs=told.epochs, changes=())  # encodes what is drawn
        for way, changes in WAYS.items():
            cpu, wall = seconds_of(table, Path(folder) / way, epochs=told.epochs, changes=(*changes, "training.seed=0"))
            found[way] = {"cpu": cpu / told.slides, "wall": wall / told.slides}
            print(
                f"{way}: {1e3 * cpu / told.slides:.1f} ms of CPU, {1e3 * wall / told.slides:.1f} ms a slide and epoch"
            )
    kept, end = found["features kept"], found["end to end"]
    print(
        f"end to end takes {end['cpu'] / kept['cpu']:.1f} times the CPU, {end['wall'] / kept['wall']:.1f} times as long"
    )
    print(f"read ahead it takes {found['end to end, read ahead']['wall'] / end['wall']:.2f} times as long")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
