"""A model that reads every tile, and one distilled from it that reads a few: how near they are, by patches read.

    python benchmarks/distilling.py COHORT [COHORT ...] [--seeds 0 1 2] [--out DIR] [--set key=value ...]

COHORT is a folder that benchmarks/tissue_mosaics.py made. Writes the slides' features, by the frozen encoder at 1 um/px
on every tissue cell, as bags in CLAM's layout (those of every other seed in TRIDENT's), trains gated attention MIL on
the bags of the train slides, distils it by `saccade distil`, and compares both on the test slides; and the other way
round. Features are kept, so that no patch is encoded twice. Prints a line for each budget of each; then a table of
means over all of them with the worst, and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import h5py
import numpy as np
import yaml

from benchmarks.places import ROOT
from benchmarks.real_tissue import CONFIG, DIRECTIONS, write_table
from pipeline.cohort.cohort import CohortSlide
from pipeline.cohort.training_table import read_training_table
from pipeline.config import load_config, load_distil_config
from pipeline.distil.distil import distil_cohort
from pipeline.distil.fidelity import in_words
from pipeline.model.build import build_model, keep_features
from pipeline.model.evidence_model import EvidenceModel
from pipeline.model.look import look
from pipeline.output.bags import write_samples_h5
from pipeline.task.classes import Classes
from pipeline.train.spec import model_spec
from stages.disk import new_file
from stages.prediction.attribution import Attribution

CLASSES = ("a", "b")
"""Of a model that only encodes."""


def write_bags(slides: Sequence[CohortSlide], folder: Path) -> None:
    """Bags of all tissue cells in the layouts of CLAM (h5_files and patches) and TRIDENT; those that are there stay."""
    model = keep_features(build_model(model_spec(load_config(CONFIG), Classes(CLASSES))))
    assert isinstance(model, EvidenceModel)
    for name in ("clam", "patches", "trident"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for slide in slides:
        name = f"{slide.slide_id}.h5"
        if (folder / "trident" / name).exists():
            continue
        seen = look(slide.path, model, mpp=slide.mpp)
        cells = np.flatnonzero(seen.tissue)
        boxes, features = seen.reader.boxes_level0(cells), model.encode(seen.view, cells).numpy()
        coords, side = boxes[:, :2].astype(np.int64), round(boxes[0, 2])
        with new_file(folder / "clam" / name) as temporary, h5py.File(temporary, "w") as file:
            file["features"], file["coords"] = features, coords
        with new_file(folder / "patches" / name) as temporary, h5py.File(temporary, "w") as file:
            file["coords"] = coords
            scale = side / model.spec.patch_px
            told = {"patch_size": model.spec.patch_px, "patch_level": 1, "downsample": (scale, scale)}
            file["coords"].attrs.update({**told, "name": slide.slide_id})
        even = np.full(len(cells), 1 / len(cells))
        # bags of a teacher: nothing was predicted that patches could have a say in
        none, nothing = np.zeros(len(CLASSES)), np.zeros((len(cells), len(CLASSES)))
        silent = Attribution(none, none, none, nothing, nothing, none, nothing, np.zeros(len(cells), np.uint8))
        write_samples_h5(
            folder / "trident" / name,
            slide_id=slide.slide_id,
            facts=seen.slide.facts,
            patch_px=model.spec.patch_px,
            patch_mpp=model.spec.patch_mpp,
            boxes_level0=boxes,
            cells=cells,
            features=features,
            attention=even,
            weights=np.ones(len(cells)),
            attribution=silent,
            classes=CLASSES,
        )


def measure(cohort: Path, out: Path, *, seed: int, swapped: bool, bags: Path, changes: list[str]) -> dict[str, Any]:
    """Train a teacher, distil it, and compare."""
    table = write_table(cohort, out, swapped=swapped)
    clam = seed % 2 == 0
    told: dict[str, Any] = {
        "cohort": {"table": str(table)},
        "bags": {"folder": str(bags / ("clam" if clam else "trident"))},
        "student": {"seed": seed},
    }
    if clam:
        told["bags"]["patches"] = str(bags / "patches")
    config = out / "config.yaml"
    with new_file(config) as temporary:
        temporary.write_text(yaml.safe_dump(told))
    metrics = distil_cohort(load_distil_config(config, changes), out / "distilled", say=lambda line: None)
    return {
        "cohort": cohort.name,
        "direction": DIRECTIONS[swapped],
        "seed": seed,
        "slides": metrics["teacher_metrics"]["slides"],
        "fidelity": metrics["fidelity"],
    }


def in_table(found: Sequence[dict[str, Any]]) -> list[str]:
    """Means over trainings by budget, with the worst."""
    lines = ["| patches | share read | AUROC difference, mean | worst | mean abs dp | decisions agree | coverage |"]
    lines.append("|---|---|---|---|---|---|---|")
    for place in range(min(len(one["fidelity"]) for one in found)):
        rows = [one["fidelity"][place] for one in found]
        gaps = [row["difference"] for row in rows]
        lines.append(
            f"| {mean(row['samples'] for row in rows):.0f} | {mean(row['share_read'] for row in rows):.1%} | "
            f"{mean(gaps):+.4f} | {min(gaps):+.4f} | {mean(row['mean_abs_dp'] for row in rows):.3f} | "
            f"{mean(row['agreement'] for row in rows):.1%} | {mean(row['coverage'] for row in rows):.1%} |"
        )
    return lines


def main() -> None:
    """Measure every seed in both directions and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohorts", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--directions", nargs="+", choices=DIRECTIONS, default=DIRECTIONS)
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "distilling")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    told = parser.parse_args()
    found = []
    for cohort in told.cohorts:
        bags = Path(os.path.abspath(told.out)) / f"{cohort.name}-bags"
        write_bags(read_training_table(cohort / "cohort.csv").slides, bags)
        for direction in told.directions:
            for seed in told.seeds:
                out = Path(os.path.abspath(told.out)) / f"{cohort.name}-{direction}-{seed}"
                swapped = direction == "swapped"
                one = measure(cohort, out, seed=seed, swapped=swapped, bags=bags, changes=told.changes)
                found.append(one)
                for row in one["fidelity"]:
                    print(f"{cohort.name} {direction:8} seed {seed}: {in_words(row)}", flush=True)
        print("\n".join([f"\n{cohort.name}", *in_table([one for one in found if one["cohort"] == cohort.name]), ""]))
    print(json.dumps({"set": told.changes, "rows": found}))


if __name__ == "__main__":
    main()
