"""A training step end to end on the demo's cohort, on the CPU: this checkout against an earlier one, in turns.

    python benchmarks/training_step.py --against CHECKOUT [--slides 32] [--rounds 3] [--epochs 6]

CHECKOUT is a folder with another version of this repository (`git worktree add CHECKOUT 6ee006e`); both run on this
Python. Both train the same kind of model, from the thumbnail and the patches, with the settings that the demo had at
6ee006e: 16 patches of 128 pixels a slide, 4 slides a step. Each in a process of its own. A step is from the end of an
optimizer's step to the end of the next one of the same epoch: attention, draw, reading, encoding, gradients; not what
comes between epochs, as validation, which 6ee006e did not do. The first two epochs, which read thumbnails, do not
count. Given are medians of wall and processor milliseconds, and the median over rounds of the ratio there / here. Ends
with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks.places import ROOT
from pipeline.demo.cohort import make_cohort

OLD = """cohort: {table: TABLE}
view: {attention_mpp: 8, patch_mpp: 0.5, patch_px: 128}
sampling: {samples: 24, train_samples: 16}
training: {epochs: EPOCHS, batch_size: 4, learning_rate: 0.003, calibration_slides: 0, device: cpu}
"""
NEW = OLD + "attention: {kind: learned}\nencoder: {name: small}\n"
CHILD = """
import json, sys, time
from pathlib import Path
from torch.optim.optimizer import register_optimizer_step_post_hook
from pipeline.config import load_config
try:
    from pipeline.train.train import train_cohort
except ImportError:
    from pipeline.training import train_cohort
epochs = [[]]
def say(line):
    if line.startswith("epoch "):
        epochs.append([])
register_optimizer_step_post_hook(lambda *_: epochs[-1].append((time.perf_counter(), time.process_time())))
train_cohort(load_config(Path(sys.argv[1])), Path(sys.argv[2]), say=say)
print(json.dumps(epochs))
"""


def step_ms(checkout: Path, config: Path, out: Path) -> tuple[float, float]:
    """Wall and processor milliseconds of a step."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, config, out],
        env=os.environ | {"PYTHONPATH": str(checkout)},
        cwd=checkout,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    epochs = json.loads(done.stdout.splitlines()[-1])[2:]
    steps = [(before, after) for ends in epochs for before, after in pairwise(ends)]
    wall, cpu = (median((after[i] - before[i]) * 1e3 for before, after in steps) for i in range(2))
    return wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True, metavar="CHECKOUT")
    parser.add_argument("--slides", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {"here": [], "there": []}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        table = make_cohort(place / "cohort", slides=options.slides)
        for name, text in (("here", NEW), ("there", OLD)):
            told = text.replace("TABLE", json.dumps(str(table))).replace("EPOCHS", str(options.epochs))
            (place / f"{name}.yaml").write_text(told)
        for turn in range(options.rounds):
            for name, checkout in (("here", ROOT), ("there", options.against.resolve())):
                took = step_ms(checkout, place / f"{name}.yaml", place / f"{name}-{turn}")
                found[name].append(took)
                print(f"{name}: {took[0]:.1f} ms a step, {took[1]:.1f} ms of processors", file=sys.stderr, flush=True)
    ratios = [
        median(there[i] / here[i] for here, there in zip(found["here"], found["there"], strict=True)) for i in (0, 1)
    ]
    print(f"a step is {ratios[0]:.2f} times as fast as there, and takes {ratios[1]:.2f} times less of processors")
    print(json.dumps({**found, "faster": ratios[0], "less_processor": ratios[1]}))


if __name__ == "__main__":
    main()
