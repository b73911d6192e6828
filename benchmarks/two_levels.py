"""Lesions that the thumbnail cannot show: one level of attention against two, at equal bytes read.

    python benchmarks/two_levels.py [--out data/hidden] [--seeds 0]

Makes a cohort of kind "hidden" (`pipeline.demo.cohort`), trains configs/two-level.yaml on it as it is and with
`attention.inner_mpp` switched off, and predicts the unseen slides. The one-level model reads more patches, such that it
reads at least as many bytes. Prints AUROC, patches, bytes and time of both, and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.cohort.table import Cohort, read_training_table
from pipeline.config import load_config
from pipeline.demo.cohort import make_cohort
from pipeline.run.run import run_cohort
from pipeline.run.slide import RunSettings
from pipeline.train.train import train_cohort

CONFIG = Path(__file__).resolve().parent.parent / "configs/two-level.yaml"
ROWS: dict[str, tuple[str, ...]] = {
    "two levels": (),
    "one level": ("attention.inner_mpp=null", "sampling.samples=96", "sampling.train_samples=64"),
}


def measure(table: Path, out: Path, *, seed: int, changes: tuple[str, ...]) -> dict[str, Any]:
    """Train and predict the unseen slides; resumes where it was."""
    config = load_config(
        CONFIG, [f"cohort.table={json.dumps(str(table.resolve()))}", f"training.seed={seed}", *changes]
    )
    started = time.perf_counter()
    train_cohort(config, out / "training", say=lambda line: print(f"    {line}", flush=True))
    trained = time.perf_counter()
    unseen = Cohort(table, tuple(s for s in read_training_table(table).slides if s.split == "test"))
    summary = run_cohort(unseen, out / "run", RunSettings(model=out / "training" / "model.safetensors", seed=seed))
    return {
        "auroc": summary.metrics["auroc"],
        "patches": sum(row["patches_read"] for row in summary.rows) / summary.ok,
        "bytes": sum(row["bytes_read"] for row in summary.rows),
        "slide_bytes": sum(s.path.stat().st_size for s in unseen.slides),
        "training_seconds": trained - started,
        "prediction_seconds": time.perf_counter() - trained,
    }


def main() -> None:
    """Measure both for every seed and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to keep slides and models; default: a temporary folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the cohort, the weights and the draws")
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in arguments.seeds:
            folder = (arguments.out or Path(scratch)) / f"seed-{seed}"
            table = make_cohort(folder / "cohort", seed=seed, kind="hidden")
            for name, changes in ROWS.items():
                one = measure(table, folder / name.replace(" ", "-"), seed=seed, changes=changes)
                auroc = one["auroc"]
                print(
                    f"seed {seed}, {name}: AUROC {auroc['value']:.3f} [{auroc['low']:.3f}, {auroc['high']:.3f}], "
                    f"{one['patches']:.0f} patches a slide, {one['bytes'] / 1e6:.1f} MB "
                    f"({one['bytes'] / one['slide_bytes']:.1%} of the slides)",
                    flush=True,
                )
                found.append({"seed": seed, "row": name, **one})
    print(json.dumps({"benchmark": "two_levels", "runs": found}))


if __name__ == "__main__":
    main()
