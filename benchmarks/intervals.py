"""How often the stated 95 % interval holds what the same model predicts after reading every patch.

    python benchmarks/intervals.py DEMO [--draws 2000]
    python benchmarks/intervals.py [--draws 200]       2, 3, 5 and 9 classes, in a minute

DEMO is a folder that `saccade demo`, benchmarks/paper/colon_slides.py or benchmarks/real_tissue.py (one of its) made.
Every tissue patch of its unseen slides is read once; then each slide is drawn again and again by the model's own
scheme. Prints, for each budget, the share of draws whose interval holds the exhaustive probability (mean over the
slides that have more cells, over the half of them whose intervals are narrower at the smallest budget and over the
other half, the worst and the best slide) and the mean width of the interval; the same without the calibration that
training leaves in the checkpoint, and for reading on until every interval is within TOLERANCE (a tenth of the draws),
with the patches that it took; and one JSON line.

Without DEMO it is slides that are made up, of patches of a few kinds in shares of their own, and models of random
weights: calibrated on some, measured on others. Of more than two classes it prints how often all intervals of a draw
hold together, which is what is stated, how often that of the class on top does, how often a single one does, and the
mean width, of all and of the class on top; beside them the same for intervals that are stated of each class alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.cohort.training_table import read_training_table
from pipeline.model.build import keep_features
from pipeline.model.checkpoint import load_model
from pipeline.model.look import look
from pipeline.model.reading import image
from pipeline.model.sampler import AttentionSampler
from pipeline.model.slide_model import SlideModel
from pipeline.model.spec import ModelSpec
from pipeline.model.values import View
from pipeline.train.calibrate import drawn_errors
from stages.attention import ThumbnailAttention
from stages.prediction.intervals import UNFITTED, Evidence, fit_calibration, joined

BUDGETS = (8, 16, 24, 64, 256)
SLACK = 1e-9
"""Rounding in the last digits must not count against intervals that are as narrow."""

CLASSES = (2, 3, 5, 9)
FEW = (8, 16, 64)

Drawn = tuple[Evidence, Tensor]
Rule = Callable[[Evidence, int], Tensor]


def judged(evidence: Evidence, errors: Tensor, half: Tensor) -> tuple[float, float]:
    """Share of the draws whose intervals all hold the truth, and their mean width in probability."""
    found = held_by(evidence, errors, half)
    return found["joint"], found["width"]


def reading_on(
    model: SlideModel, view: View, *, draws: int, tolerance: float, generator: torch.Generator
) -> tuple[float, float, float]:
    """(share of draws whose intervals hold the exhaustive probabilities, mean width, mean share of the cells read)."""
    every = np.flatnonzero(view.tissue)
    cached = view  # on a frozen encoder features are kept, and no patch is read again
    if view.coarse is None:
        (pixels,) = dask.compute(view.patches(every), scheduler="threads")
        place = {int(cell): i for i, cell in enumerate(every)}
        cached = replace(view, patches=lambda cells: pixels[[place[int(cell)] for cell in cells]])
    truth = model.sample(cached, generator=generator, samples=len(every)).prediction.values
    held, width, read = 0, 0.0, 0
    for _ in range(draws):
        sampled = model.sample(cached, generator=generator, tolerance=tolerance)
        low, high = sampled.prediction.low, sampled.prediction.high
        held += bool(((low - SLACK <= truth) & (truth <= high + SLACK)).all())
        width += float((high - low).mean())
        read += len(sampled.cells)
    return held / draws, width / draws, read / draws / len(every)


def made_up(seed: int, *, kinds: int = 6, side: int = 20) -> View:
    """A slide as an array: patches of a few colours, in shares that differ from slide to slide."""
    rng = np.random.default_rng(seed)
    colours = np.random.default_rng(0).integers(20, 200, (kinds, 3))
    kind = rng.choice(kinds, side**2, p=rng.dirichlet(np.full(kinds, 0.5)))
    noise = rng.integers(0, 256, (side**2, 32, 32, 3)) // 5
    patches = (noise + colours[kind][:, None, None]).astype(np.uint8)
    rgb = rng.integers(0, 256, (4 * side, 4 * side, 3), np.uint8)
    return View(rgb, np.ones((side, side), bool), lambda cells: patches[cells])


@torch.no_grad()
def untrained(classes: int, *, generator: torch.Generator) -> AttentionSampler:
    """A model whose attention and classes differ from cell to cell, though nothing taught it."""
    torch.manual_seed(classes)
    spec = ModelSpec(
        classes=tuple(f"class {i}" for i in range(classes)),
        attention_mpp=8.0,
        patch_mpp=1.0,
        patch_px=32,
        attention="learned",
        encoder="small",
        dim=16,
        scheme="systematic",
        samples=16,
    )
    model = AttentionSampler(spec).eval()
    model.standardise([made_up(seed) for seed in range(900, 908)], samples=64, generator=generator)
    attention = model.attention
    assert isinstance(attention, ThumbnailAttention)
    torch.nn.init.normal_(attention.logit.weight)
    attention.logit.weight *= 1.0 / float(attention(image(made_up(900).rgb, model.device)).std())
    torch.nn.init.normal_(model.head.weight, std=0.4)
    return model


def held_by(evidence: Evidence, errors: Tensor, half: Tensor) -> dict[str, float]:
    """How often all intervals of a draw hold, that of the class on top, a single one; and how wide they are."""
    low, high = (torch.sigmoid(evidence.statistics + sign * half) for sign in (-1, 1))
    holds, top = errors.abs() <= half + SLACK, evidence.statistics.argmax(1, keepdim=True)
    return {
        "joint": float(holds.all(1).double().mean()),
        "top": float(holds.gather(1, top).double().mean()),
        "single": float(holds.double().mean()),
        "width": float((high - low).mean()),
        "width_top": float((high - low).gather(1, top).mean()),
    }


def each_alone(parts: dict[int, list[Drawn]]) -> dict[int, list[Drawn]]:
    """The draws of every class as those of a slide of their own: what is fitted to them is stated of each alone."""

    def of(evidence: Evidence, c: int) -> Evidence:
        values = {f.name: getattr(evidence, f.name) for f in fields(Evidence)}
        return Evidence(**{name: v[:, c : c + 1] if v.shape[1] > 1 else v for name, v in values.items()})

    return {n: [(of(e, c), x[:, c : c + 1]) for e, x in found for c in range(x.shape[1])] for n, found in parts.items()}


def measure_classes(classes: int, *, draws: int, tolerance: float) -> list[dict[str, float | str]]:
    """Calibrate a model on 12 made-up slides and judge it on 24 others."""
    generator = torch.Generator().manual_seed(0)
    model = untrained(classes, generator=generator)
    parts: dict[str, dict[int, list[Drawn]]] = {}
    for name, seeds, count in (("fit", range(12), 100), ("judge", range(100, 124), draws)):
        slides = [drawn_errors(model, made_up(s), FEW, draws=count, generator=generator) for s in seeds]
        parts[name] = {n: [one[n] for one in slides] for n in FEW}
    rules = {
        "jointly": fit_calibration(parts["fit"]),
        "each alone": fit_calibration(each_alone(parts["fit"])),
        "draw alone": UNFITTED,
    }
    model.calibration = rules["jointly"]
    rows: list[dict[str, float | str]] = []
    for n in FEW:
        evidence, errors = joined([e for e, _ in parts["judge"][n]]), torch.cat([x for _, x in parts["judge"][n]])
        for name, rule in rules.items():
            assert rule is not None
            if name == "each alone":
                alone = [rule.half_width(e, n) for e, _ in each_alone({n: [(evidence, errors)]})[n]]
                half = torch.cat(alone, 1)
            else:
                half = rule.half_width(evidence, n)
            rows.append({"classes": classes, "setting": f"{n} patches, {name}", **held_by(evidence, errors, half)})
    options: dict[str, Any] = {"draws": max(1, draws // 20), "tolerance": tolerance, "generator": generator}
    joint, width, read = np.mean([reading_on(model, made_up(s), **options) for s in range(100, 124)], 0)
    rows.append({"classes": classes, "setting": f"within {tolerance:g}", "joint": joint, "width": width, "read": read})
    for row in rows:
        figures = ", ".join(f"{k} {v:.3f}" for k, v in row.items() if isinstance(v, float))
        print(f"{classes} classes, {row['setting']:>22}: {figures}", flush=True)
    return rows


def main() -> None:
    """Measure every unseen slide and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, nargs="?", help="folder that `saccade demo` made; default: made-up slides")
    parser.add_argument("--draws", type=int, help="of each slide; default: 2000 of the demo's, 200 of made-up ones")
    parser.add_argument("--tolerance", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the draws are small: threads would wait for each other
    if arguments.demo is None:
        options = {"draws": arguments.draws or 200, "tolerance": max(arguments.tolerance, 0.1)}
        found_rows = [row for c in CLASSES for row in measure_classes(c, **options)]
        print(json.dumps({"benchmark": "intervals", "made up": found_rows}))
        return
    arguments.draws = arguments.draws or 2000
    model = keep_features(load_model(arguments.demo / "training" / "model.safetensors"))
    here = [path for path in (arguments.demo / "cohort" / "cohort.csv", arguments.demo / "cohort.csv") if path.exists()]
    slides = [s for s in read_training_table(here[0]).slides if s.split == "test"]
    rules = {"calibrated": model.calibration or UNFITTED, "draw alone": UNFITTED}
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

    for name, by_slide in found.items():
        table = np.array(by_slide)  # (slides, budgets, 2)
        for i, n in enumerate(BUDGETS):
            if not np.isnan(table[:, i]).all():
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
