"""How often the stated 95 % interval holds what the same model predicts after reading every patch.

    python benchmarks/intervals.py DEMO [--draws 2000]

DEMO is a folder that `saccade demo` made. Every tissue patch of its unseen slides is read and encoded once; then each
slide is drawn again and again by the model's own scheme. Prints, for each budget, the share of the draws whose interval
holds the exhaustive probability (mean over slides, worst and best slide) and the mean width of the interval, and ends
with one JSON line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import dask
import numpy as np
import torch

from pipeline.cohort import read_training_table
from pipeline.looking import look
from pipeline.model import AttentionSampler, View, load_model

BUDGETS = (16, 24, 64, 256)


def covered(model: AttentionSampler, view: View, *, draws: int, seed: int) -> list[tuple[float, float]]:
    """For each budget: (share of intervals that hold the exhaustive probability, their mean width) on one slide."""
    every = np.flatnonzero(view.tissue)
    (pixels,) = dask.compute(view.patches(every), scheduler="threads")
    with torch.no_grad():
        features = torch.zeros(view.tissue.size, model.spec.dim)
        features[torch.from_numpy(every)] = model.encoder(torch.from_numpy(pixels))
        attention = model.attend(view)
    generator = torch.Generator().manual_seed(seed)

    def predict(samples: int) -> tuple[float, float, float]:
        drawn = model.plan(attention, view, generator=generator, samples=samples)
        found = model.judge(attention, drawn, features[drawn.cells[0]])
        return float(found.low[1]), float(found.probabilities[1]), float(found.high[1])

    truth = predict(len(every))[1]
    results = []
    for samples in BUDGETS:
        found = np.array([predict(samples) for _ in range(draws)])
        # rounding in the last digits must not count against intervals that are as narrow
        inside = (found[:, 0] - 1e-9 <= truth) & (truth <= found[:, 2] + 1e-9)
        results.append((float(inside.mean()), float((found[:, 2] - found[:, 0]).mean())))
    return results


def main() -> None:
    """Measure every unseen slide and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder that `saccade demo` made")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the draws are small: threads would wait for each other
    model = load_model(arguments.demo / "training" / "model.safetensors")
    slides = [s for s in read_training_table(arguments.demo / "cohort" / "cohort.csv").slides if s.split == "test"]
    found = np.array(
        [covered(model, look(s.path, model).view, draws=arguments.draws, seed=arguments.seed) for s in slides]
    )  # (slides, budgets, 2)
    figures = []
    for i, samples in enumerate(BUDGETS):
        share, width = found[:, i].T
        print(
            f"{samples:>4} patches: held {share.mean():.1%} (worst slide {share.min():.1%}, best {share.max():.1%}), "
            f"mean width {width.mean():.4f}"
        )
        figures.append({"samples": samples, "held": share.mean(), "worst": share.min(), "width": width.mean()})
    print(json.dumps({"benchmark": "intervals", "slides": len(slides), "draws": arguments.draws, "budgets": figures}))


if __name__ == "__main__":
    main()
