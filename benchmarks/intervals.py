"""How often the stated 95 % interval holds what the same model predicts after reading every patch.

    python benchmarks/intervals.py DEMO [--draws 2000]

DEMO is a folder that `saccade demo` or benchmarks/paper/colon_slides.py made. Every tissue patch of its unseen slides
is read once; then each slide is drawn again and again by the model's own scheme. Prints, for each budget, the share of
draws whose interval holds the exhaustive probability (mean over the slides that have more cells, over the half of them
whose intervals are narrower at the smallest budget and over the other half, the worst and the best slide) and the mean
width of the interval; the same without the calibration that training leaves in the checkpoint, and for reading on until
every interval is within TOLERANCE (a tenth of the draws), with the patches that it took; and one JSON line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.cohort.table import read_training_table
from pipeline.model.checkpoint import load_model
from pipeline.model.look import look
from pipeline.model.sampler import AttentionSampler
from pipeline.model.values import View
from pipeline.train.calibrate import drawn_errors
from stages.prediction.intervals import Calibration, Evidence

BUDGETS = (8, 16, 24, 64, 256)
SLACK = 1e-9
"""Rounding in the last digits must not count against intervals that are as narrow."""

Rule = Callable[[Evidence, int], Tensor]


def judged(evidence: Evidence, errors: Tensor, half: Tensor) -> tuple[float, float]:
    """Share of the draws whose interval holds the truth, and mean width in probability, of the second class."""
    low, high = (torch.sigmoid(evidence.log_odds + sign * half)[:, 1] for sign in (-1, 1))
    return float((errors[:, 1].abs() <= half[:, 1] + SLACK).double().mean()), float((high - low).mean())


def reading_on(
    model: AttentionSampler, view: View, *, draws: int, tolerance: float, generator: torch.Generator
) -> tuple[float, float, float]:
    """(share of intervals that hold the exhaustive probability, mean width, mean share of the cells that was read)."""
    every = np.flatnonzero(view.tissue)
    (pixels,) = dask.compute(view.patches(every), scheduler="threads")
    place = {int(cell): i for i, cell in enumerate(every)}
    cached = View(view.rgb, view.tissue, lambda cells: pixels[[place[int(cell)] for cell in cells]], view.regions)
    truth = float(model.sample(cached, generator=generator, samples=len(every)).prediction.probabilities[1])
    held, width, read = 0, 0.0, 0
    for _ in range(draws):
        sampled = model.sample(cached, generator=generator, tolerance=tolerance)
        low, high = float(sampled.prediction.low[1]), float(sampled.prediction.high[1])
        held += low - SLACK <= truth <= high + SLACK
        width += high - low
        read += len(sampled.cells)
    return held / draws, width / draws, read / draws / len(every)


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
    rules = {"calibrated": model.calibration or Calibration(), "draw alone": Calibration()}
    found: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in rules}
    stopped = []
    for slide in slides:
        view = look(slide.path, model).view
        generator = torch.Generator().manual_seed(arguments.seed)
        drawn = drawn_errors(model, view, BUDGETS, draws=arguments.draws, generator=generator)
        for name, rule in rules.items():
            # a slide of fewer cells than the budget is read whole: nothing to judge
            rows = {n: judged(e, x, rule.half_width(e, n)) for n, (e, x) in drawn.items()}
            found[name].append([rows.get(n, (np.nan, np.nan)) for n in BUDGETS])
        options = {"draws": max(1, arguments.draws // 10), "tolerance": arguments.tolerance}
        stopped.append(reading_on(model, view, generator=generator, **options))
    figures = []
    unsure = np.argsort([rows[0][1] for rows in found["calibrated"]])[len(slides) // 2 :]

    def tell(setting: str, share: NDArray[np.float64], width: NDArray[np.float64], more: str = "") -> None:
        one = {
            "setting": setting,
            "slides": len(share) - np.isnan(share).sum(),
            "held": np.nanmean(share),
            "held_sure_half": np.nanmean(np.delete(share, unsure)),
            "held_unsure_half": np.nanmean(share[unsure]),
            "worst": np.nanmin(share),
            "best": np.nanmax(share),
            "width": np.nanmean(width),
        }
        figures.append({k: v if isinstance(v, str) else float(v) for k, v in one.items()})
        print(
            f"{setting:>26}: held {one['held']:.1%} (sure half {one['held_sure_half']:.1%}, unsure half "
            f"{one['held_unsure_half']:.1%}; worst slide {one['worst']:.1%}, best {one['best']:.1%}), "
            f"mean width {one['width']:.4f}{more}",
            flush=True,
        )

    for name, rows in found.items():
        table = np.array(rows)  # (slides, budgets, 2)
        for i, n in enumerate(BUDGETS):
            tell(f"{n} patches, {name}", table[:, i, 0], table[:, i, 1])
    share, width, read = np.array(stopped).T
    tell(
        f"within {arguments.tolerance:g}",
        share,
        width,
        f", read {read.mean():.1%} of the cells (most {read.max():.1%})",
    )
    print(json.dumps({"benchmark": "intervals", "slides": len(slides), "draws": arguments.draws, "settings": figures}))


if __name__ == "__main__":
    main()
