"""What a training step costs against the image's side: full CNN, gated MIL on all patches, attention sampling.

    python benchmarks/paper/cost_curve.py [--sides 500 1000 2000 4000 8000 16000] [--limit 8] about a quarter of an hour

Images are those of megapixel MNIST (configs/paper/megapixel.yaml, with its networks), whose pixels are made on demand:
attention sampling is given the low view and serves itself patches, so it never holds an image. It has two rows, one
with a low view of fixed size, as the paper's 180 x 180, one with a low view at a fixed factor, which grows with the
image. The others get all pixels, one byte each. Making pixels and low views is not counted, for any row.

Peak memory is measured in a process for each point, time in one process where all points take turns; both are of one
training step, divided by its images. By default a step has one image, so that every row gets as far as memory allows. A
row stops where a step needs more memory than the limit, or would by its area and the point before. Adds a line to
benchmarks/results/cost_curve.jsonl and ends with one JSON line of the figures.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import costs
from benchmarks.paper.config import MegapixelTask, Row, read_task
from benchmarks.paper.megapixel import MegapixelViews
from benchmarks.paper.mnist import load_digits, make_images
from benchmarks.paper.records import append_record
from benchmarks.paper.tables import write_tables
from benchmarks.paper.views import build_sampler, sampler_loss
from benchmarks.paper.whole import Batch, build_whole, loss_of, take_step
from benchmarks.places import ROOT, data_folder

RESULTS = ROOT / "benchmarks/results/cost_curve.jsonl"
CONFIG = ROOT / "configs/paper/megapixel.yaml"
SIDES = (500, 1000, 2000, 4000, 8000, 16_000)
ROWS = {
    "cnn": Row(title="full CNN", kind="cnn"),
    "mil": Row(title="gated MIL, all patches", kind="mil"),
    "ats-fixed": Row(title="ATS-10, low view of fixed size", kind="ats", samples=10),
    "ats-factor": Row(title="ATS-10, low view at a fixed factor", kind="ats", samples=10),
}


def view_px(name: str, side: int, task: MegapixelTask) -> int:
    """Pixels along the low view's side."""
    return task.sight.low_px if name == "ats-fixed" else round(side * task.sight.low_px / task.side)


def prepare(name: str, side: int, batch_size: int, task: MegapixelTask) -> Callable[[], object]:
    """One training step of a row on images of a side."""
    digits = load_digits(data_folder() / "mnist", "train")
    images = make_images(digits, "train", batch_size, side=side, noise=task.noise, strokes=task.strokes)
    row, generator = ROWS[name], torch.Generator().manual_seed(0)
    training = task.training_of(row)
    model: Any
    if row.kind == "ats":
        views = MegapixelViews(images, task.sight.model_copy(update={"low_px": view_px(name, side, task)}))
        seen = [views(i, None) for i in range(batch_size)]
        model = build_sampler(row, views.sight, task.networks, scale=views.scale, seed=0)

        def loss() -> Tensor:
            return sampler_loss(model, seen, images.labels, training, samples=10, generator=generator)
    else:
        batch = Batch(images.dense())
        # MIL as published encodes every patch by itself
        model = build_whole(row, task.networks, seed=0, shared=False)

        def loss() -> Tensor:
            return loss_of(model, batch, images.labels, generator, training)[1]

    optimizer = torch.optim.AdamW(model.parameters())
    return lambda: take_step(model, loss(), optimizer, training)


def weigh(sides: list[int], batch_size: int, limit: float) -> dict[tuple[str, int], float]:
    """Peak bytes of each point that stays below the limit, each in a process of its own."""
    found: dict[tuple[str, int], float] = {}
    for name in ROWS:
        for before, side in zip([None, *sides], sides, strict=False):
            if before is not None:
                expected = found[name, before] * (side / before) ** 2
                # attention sampling need not grow with the area, so that its rows are tried in any case
                if expected > limit and not name.startswith("ats"):
                    print(
                        f"{name} stops at {before}: at {side} it would need about {expected / 1e9:.0f} GB", flush=True
                    )
                    break
            told = costs.in_fresh_process([__file__, "--peak", name, side, "--batch", batch_size])
            found[name, side] = told["peak_bytes"]
            print(f"{name} {side}: {told['peak_bytes'] / batch_size / 1e6:.1f} MB a sample", flush=True)
            if found[name, side] > limit:
                print(f"{name} stops at {side}: a step needs {found[name, side] / 1e9:.1f} GB", flush=True)
                break
    return found


def main() -> None:
    """Measure every point and print the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=list(SIDES))
    parser.add_argument("--limit", type=float, default=8.0, help="GB that a step may need")
    parser.add_argument("--batch", type=int, default=1, help="images in a step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--peak", nargs=2, metavar=("ROW", "SIDE"), help="weigh one point in this process")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = read_task(CONFIG, MegapixelTask)
    if arguments.peak:
        step = prepare(arguments.peak[0], int(arguments.peak[1]), arguments.batch, task)
        print(json.dumps({"peak_bytes": costs.peak_bytes(step, steps=2)}))
        return
    sides = sorted(arguments.sides)
    peaks = weigh(sides, arguments.batch, arguments.limit * 1e9)
    steps = {f"{name} {side}": prepare(name, side, arguments.batch, task) for name, side in peaks}
    times = costs.interleaved_ms(steps, rounds=arguments.rounds, clock=time.process_time)
    points = [
        {
            "row": name,
            "side": side,
            "view": view_px(name, side, task) if name.startswith("ats") else None,
            "ms": round(times[f"{name} {side}"] / arguments.batch, 2),
            "peak_mb": round(peak / arguments.batch / 1e6, 2),
        }
        for (name, side), peak in peaks.items()
    ]
    for point in points:
        print(f"{point['row']:12}{point['side']:>7}{point['ms']:>12.1f} ms{point['peak_mb']:>10.1f} MB", flush=True)
    record = {"batch": arguments.batch, "limit_gb": arguments.limit, "rounds": arguments.rounds, "points": points}
    append_record(arguments.results, {"what": "curve", **record})
    if arguments.results == RESULTS:
        write_tables(ROOT)
    print(json.dumps({"benchmark": "cost_curve", **record}))


if __name__ == "__main__":
    main()
