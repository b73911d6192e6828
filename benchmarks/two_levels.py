"""Lesions that the thumbnail cannot show: one level of attention against two, at equal bytes read.

    python benchmarks/two_levels.py [--out data/hidden] [--seeds 0]
    python benchmarks/two_levels.py --intervals                        how often intervals hold, in ten seconds

Makes a cohort of kind "hidden" (`pipeline.demo.cohort`), trains configs/two-level.yaml on it as it is and with
`attention.inner_mpp` switched off, and predicts the unseen slides. The one-level model reads more patches, such that it
reads at least as many bytes. Prints AUROC, patches, bytes and time of both, and one JSON line.

With --intervals no slide is made: patches whose log-odds are a region's own and a patch's own, of which the region has
0, half or 95 % of the variance, are drawn from 2, 4 or 8 of 48 regions. Prints how often the 95 % interval of a draw
that knows no cohort holds what all patches give, and how wide it is; beside it the same where every patch counts as if
it were of a region of its own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch

from pipeline.cohort.cohort import Cohort
from pipeline.cohort.training_table import read_training_table
from pipeline.config import load_config
from pipeline.demo.cohort import make_cohort
from pipeline.model.regions import nested_draw, places
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort
from pipeline.train.train import train_cohort
from stages.prediction.intervals import UNFITTED, Evidence, Stages, weigh
from stages.sampling.draw import draw_judged

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


def draw_regions(
    seed: int, *, likeness: float, opened: int, each: int, draws: int
) -> tuple[Evidence, Evidence, torch.Tensor]:
    """Draws of one made-up slide of two classes: what they tell with and without knowing the regions, and by how much
    their log-odds fell from all patches'."""
    rows, columns, side = 6, 8, 8
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    outer_log, inner_log = normal(rows * columns).log_softmax(0), normal(rows * columns, side**2).log_softmax(1)
    odds = likeness**0.5 * normal(rows * columns, 1) + (1 - likeness) ** 0.5 * normal(rows * columns, side**2)
    where = places((rows * side, columns * side), side)
    outer = draw_judged(outer_log.expand(draws, -1), opened, generator=generator)
    inside = inner_log[outer.cells.flatten()]
    inner = draw_judged(inside, each, generator=generator)
    placed = nested_draw(outer_log, inside, where, outer=outer, inner=inner, repeats=False)
    drawn = placed.draw
    assert drawn.contrasts is not None
    of_cell = torch.empty(where.numel(), dtype=torch.float64)
    of_cell[where.flatten()] = odds.flatten()
    patch = torch.stack([torch.zeros_like(drawn.weights), of_cell[placed.cells]], 2)
    attention = placed.log_attention.exp().gather(1, drawn.cells)
    shares = drawn.weights * attention
    logits = (shares.unsqueeze(2) * patch).sum(1)
    contrasts = drawn.contrasts * attention.unsqueeze(1)
    stages = Stages(outer.cells, shares.unflatten(1, (opened, each)), drawn.between)
    error = logits[:, 1] - (outer_log.exp() * (inner_log.exp() * odds).sum(1)).sum()
    told = (weigh(logits, patch, contrasts, cells=placed.cells, stages=s) for s in (stages, None))
    return *told, error


def measure_intervals(*, slides: int = 20, draws: int = 200) -> list[dict[str, float]]:
    """How often intervals hold, over made-up slides, and how wide they are in log-odds."""
    found = []
    for likeness, opened, each in product((0.0, 0.5, 0.95), (2, 4, 8), (2, 6, 16)):
        held, half = torch.zeros(2), torch.zeros(2)
        for seed in range(slides):
            *told, error = draw_regions(seed, likeness=likeness, opened=opened, each=each, draws=draws)
            for i, evidence in enumerate(told):
                reach = UNFITTED.half_width(evidence, opened * each)[:, 1]
                held[i] += (error.abs() <= reach).float().mean() / slides
                half[i] += reach.mean() / slides
        one = {
            "likeness": likeness,
            "regions": opened,
            "patches": opened * each,
            "held": float(held[0]),
            "half_width": float(half[0]),
            "held_by_patches": float(held[1]),
            "half_width_by_patches": float(half[1]),
        }
        print(
            f"{likeness:>4.0%} of the variance between regions, {opened} regions of {each:>2} patches: "
            f"held {one['held']:.1%} (+- {one['half_width']:.2f}); "
            f"counting patches {one['held_by_patches']:.1%} (+- {one['half_width_by_patches']:.2f})",
            flush=True,
        )
        found.append(one)
    return found


def main() -> None:
    """Measure both for every seed and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to keep slides and models; default: a temporary folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the cohort, the weights and the draws")
    parser.add_argument("--intervals", action="store_true", help="only how often intervals hold, on made-up draws")
    arguments = parser.parse_args()
    if arguments.intervals:
        print(json.dumps({"benchmark": "two_levels", "intervals": measure_intervals()}))
        return
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
