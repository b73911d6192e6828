"""How often the stated 95 % interval holds what the same model predicts after reading every patch.

    python benchmarks/intervals.py DEMO [--draws 2000]

DEMO is a folder that `saccade demo` made. Every tissue patch of its unseen slides is read once; then each slide is
drawn again and again by the model's own scheme. Prints, for each budget, the share of draws whose interval holds the
exhaustive probability (mean over slides, worst and best slide) and the mean width of the interval; the same for reading
on until every interval is within TOLERANCE (a tenth of the draws), with the patches that it took; and one JSON line.
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


def covered(
    model: AttentionSampler, view: View, *, draws: int, tolerance: float, seed: int
) -> list[tuple[float, float, float]]:
    """On one slide, for each budget and then for the tolerance: (share of intervals that hold the exhaustive
    probability, their mean width, mean share of the cells that was read)."""
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

    def summary(found: list[tuple[float, float, float]], read: float) -> tuple[float, float, float]:
        low, _, high = np.array(found).T
        # rounding in the last digits must not count against intervals that are as narrow
        inside = (low - 1e-9 <= truth) & (truth <= high + 1e-9)
        return float(inside.mean()), float((high - low).mean()), read

    results = []
    for samples in BUDGETS:
        found = [predict(samples) for _ in range(draws)]
        results.append(summary(found, min(1.0, samples / len(every))))
    place = {int(cell): i for i, cell in enumerate(every)}
    cached = View(view.rgb, view.tissue, lambda cells: pixels[[place[int(cell)] for cell in cells]])
    sampled = [model.sample(cached, generator=generator, tolerance=tolerance) for _ in range(max(1, draws // 10))]
    found = [tuple(float(v[1]) for v in (p.low, p.probabilities, p.high)) for p in (s.prediction for s in sampled)]
    results.append(summary(found, float(np.mean([len(s.cells) for s in sampled])) / len(every)))
    return results


def main() -> None:
    """Measure every unseen slide and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder that `saccade demo` made")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--tolerance", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the draws are small: threads would wait for each other
    model = load_model(arguments.demo / "training" / "model.safetensors")
    slides = [s for s in read_training_table(arguments.demo / "cohort" / "cohort.csv").slides if s.split == "test"]
    options = {"draws": arguments.draws, "tolerance": arguments.tolerance, "seed": arguments.seed}
    found = np.array([covered(model, look(s.path, model).view, **options) for s in slides])  # (slides, settings, 3)
    figures = []
    names = [*(f"{n} patches" for n in BUDGETS), f"within {arguments.tolerance:g}"]
    for i, name in enumerate(names):
        share, width, read = found[:, i].T
        print(
            f"{name:>12}: held {share.mean():.1%} (worst slide {share.min():.1%}, best {share.max():.1%}), "
            f"mean width {width.mean():.4f}, read {read.mean():.1%} of the cells (most {read.max():.1%})"
        )
        means = {"held": share.mean(), "width": width.mean(), "read": read.mean()}
        figures.append({"setting": name, "worst": share.min(), **means})
    print(json.dumps({"benchmark": "intervals", "slides": len(slides), "draws": arguments.draws, "settings": figures}))


if __name__ == "__main__":
    main()
