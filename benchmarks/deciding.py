"""How often `--decide` ends on the wrong side of the exhaustive prediction, and after how many patches.

    python benchmarks/deciding.py FOLDER ... [--runs 60] [--risk 0.01] [--slides 40] [--tails 2000]

FOLDER is one that `saccade demo` or benchmarks/real_tissue.py (one of its) made: a cohort and what was trained on it.
Every tissue patch of its unseen slides is read once; then each slide is read on again and again, with seeds of its own,
until it is settled on which side of a threshold the exhaustive prediction lies. Thresholds are P = .5, and hard ones
that are made for each slide: its own log-odds, moved by so much to either side. Prints, for each, the share of runs
that decided for the wrong side (stated: at most the risk) with its upper 95 % limit (Clopper and Pearson), that of the
worst slide, how many stayed undecided, the patches read, and the share of runs whose intervals (stated 95 %, joint over
the classes) held the exhaustive probabilities, though reading stopped; the same for `--tolerance 0.02` on the same
slides, and how often a fixed number of patches, taken at its word, is on the wrong side; and one JSON line.

With `--tails DRAWS` it prints instead how often single draws fall beyond the bound that a look has, at the look's own
level, far in the tail: on average over both sides and the slides, and on the worst side of the worst slide.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import beta
from torch import Tensor

from pipeline.cohort.cohort import CohortSlide
from pipeline.cohort.training_table import read_training_table
from pipeline.model.build import keep_features
from pipeline.model.checkpoint import load_model
from pipeline.model.look import look
from pipeline.model.slide_model import SlideModel
from pipeline.model.values import Sampled, View
from pipeline.train.calibrate import drawn_errors
from stages.prediction.intervals import UNFITTED
from stages.prediction.stopping import Decide

SLACK = 1e-9
"""Rounding in the last digits must not count against intervals that are as narrow."""
MOVED = (0.1, 0.3, 1.0, 3.0)
"""How far hard thresholds lie from a slide's own log-odds."""
FIXED = (8, 32, 128)
TAILS, LOOKS = (8, 16, 32, 64, 128), 8
"""Patches at which bounds are tried, and looks that share the risk: what a slide of some 800 patches has."""


def read_once(model: SlideModel, view: View) -> None:
    """Make the model know what it finds on this slide: it is read whole once, and never again."""
    every = np.flatnonzero(view.tissue)
    features = torch.zeros(view.tissue.size, model.feature_dim, device=model.drawing_device)
    features[every] = model.encode(view, every).to(features)
    with torch.no_grad():
        attention = model.attend(view)
    model.__dict__["attend"] = lambda view, **_: attention
    model.__dict__["encode"] = lambda view, cells: features[cells]


def forget(model: SlideModel) -> None:
    """Look at the next slide with its own eyes."""
    del model.__dict__["attend"], model.__dict__["encode"]


def opened(folder: Path, slides: int) -> tuple[SlideModel, list[CohortSlide]]:
    """A folder's model and its unseen slides."""
    model = keep_features(load_model(folder / "training" / "model.safetensors"))
    table = next(p for p in (folder / "cohort.csv", folder / "cohort" / "cohort.csv") if p.exists())
    return model, [s for s in read_training_table(table).slides if s.split == "test"][:slides]


class Tally:
    """What came of runs with one setting, slide by slide."""

    def __init__(self) -> None:
        self.rows: list[NDArray[np.float64]] = []

    def add(self, found: Sampled, truth: Tensor, wrong: bool) -> None:
        """One run."""
        p = found.prediction
        held = bool(((p.low - SLACK <= truth) & (truth <= p.high + SLACK)).all())
        self.rows[-1] = np.vstack([self.rows[-1], [wrong, found.side == "undecided", held, len(found.cells)]])

    def slide(self) -> None:
        """Another slide from now on."""
        self.rows.append(np.empty((0, 4)))

    def told(self) -> dict[str, float]:
        """The figures."""
        rows = np.concatenate(self.rows)
        runs, wrong = len(rows), int(rows[:, 0].sum())
        worst = max(float(one[:, 0].mean()) for one in self.rows)
        return {
            "runs": runs,
            "wrong": wrong / runs,
            "wrong_high": float(beta.ppf(0.975, wrong + 1, runs - wrong)),
            "wrong_worst_slide": worst,
            "undecided": float(rows[:, 1].mean()),
            "held": float(rows[:, 2].mean()),
            "held_worst_slide": min(float(one[:, 2].mean()) for one in self.rows),
            "read": float(rows[:, 3].mean()),
            "read_median": float(np.median(rows[:, 3])),
        }


@torch.no_grad()
def measure(folder: Path, *, runs: int, risk: float, slides: int, tolerance: float) -> dict[str, Any]:
    """All settings on the unseen slides of one folder."""
    model, unseen = opened(folder, slides)
    tallies: dict[str, Tally] = {}

    def tally(name: str) -> Tally:
        return tallies.setdefault(name, Tally())

    cells = []
    for slide in unseen:
        view = look(slide.path, model).view
        read_once(model, view)
        cells.append(int(view.tissue.sum()))

        def once(seed: int, **how: Any) -> Sampled:
            generator = torch.Generator(model.drawing_device).manual_seed(
                zlib.crc32(f"{slide.slide_id} {seed}".encode())  # noqa: B023
            )
            return model.sample(view, generator=generator, **how)  # noqa: B023

        exact = once(0, samples=cells[-1]).prediction
        truth, own = exact.values, float(exact.logits[1] - exact.logits[0])
        settings: dict[str, tuple[Sequence[float], int]] = {"decide at .5": ((0.5,), runs)}
        for moved in MOVED:
            at = [float(torch.sigmoid(torch.tensor(own + sign * moved, dtype=torch.float64))) for sign in (-1, 1)]
            settings[f"decide {moved:g} away"] = ([p for p in at if 0 < p < 1], max(1, runs // 4))
        for name, (thresholds, count) in settings.items():
            tally(name).slide()
            for threshold in thresholds:
                decide, right = Decide(threshold, risk, 1), "above" if float(truth[1]) >= threshold else "below"
                for seed in range(count):
                    found = once(seed, decide=decide)
                    tally(name).add(found, truth, found.side not in (right, "undecided"))
        within, side = f"within {tolerance:g}", bool(truth[1] >= 0.5)
        tally(within).slide()
        for seed in range(max(1, runs // 2)):
            found = once(seed, tolerance=tolerance)
            tally(within).add(found, truth, bool(found.prediction.values[1] >= 0.5) != side)
        for n in FIXED:
            tally(f"fixed {n}").slide()
            for seed in range(max(1, runs // 4)):
                found = once(seed, samples=n)
                tally(f"fixed {n}").add(found, truth, bool(found.prediction.values[1] >= 0.5) != side)
        forget(model)
    told = {name: one.told() for name, one in tallies.items()}
    print(f"{folder.name}: {len(unseen)} slides of {min(cells)} to {max(cells)} patches, draws of {model.spec.samples}")
    for name, one in told.items():
        print(
            f"{name:>18}: wrong {one['wrong']:.2%} (below {one['wrong_high']:.2%}; worst slide "
            f"{one['wrong_worst_slide']:.1%}) of {one['runs']} runs, undecided {one['undecided']:.1%}, intervals held "
            f"{one['held']:.1%} (worst {one['held_worst_slide']:.1%}), read {one['read']:.1f} (median "
            f"{one['read_median']:.0f})",
            flush=True,
        )
    ratio = told["decide at .5"]["read"] / told[within]["read"]
    print(f"{'':>18}  decided after {ratio:.2f} of the patches that the tolerance takes", flush=True)
    return {"folder": folder.name, "slides": len(unseen), "ratio": ratio, "settings": told}


@torch.no_grad()
def measure_tails(folder: Path, *, draws: int, risk: float, slides: int) -> dict[str, Any]:
    """How often draws fall beyond a look's bound, at each number of patches."""
    model, unseen = opened(folder, slides)
    calibration, level = model.calibration or UNFITTED, risk / LOOKS
    beyond: dict[int, list[tuple[float, float]]] = {n: [] for n in TAILS}
    for slide in unseen:
        generator = torch.Generator(model.drawing_device).manual_seed(zlib.crc32(slide.slide_id.encode()))
        found = drawn_errors(model, look(slide.path, model).view, TAILS, draws=draws, generator=generator)
        for n, (evidence, errors) in found.items():
            half = calibration.half_width(evidence, n, confidence=1 - 2 * level)[:, 1]
            beyond[n].append(tuple(float((s * errors[:, 1] > half).double().mean()) for s in (-1, 1)))  # type: ignore
    told = {n: (float(np.mean(found)), float(np.max(found))) for n, found in beyond.items() if found}
    print(f"{folder.name}: {len(unseen)} slides, {draws} draws of each; a look's level, to each side: {level:.5f}")
    for n, (mean, worst) in told.items():
        print(f"{n:>6} patches: beyond the bound {mean:.5f} (worst slide and side {worst:.4f})", flush=True)
    return {"folder": folder.name, "level": level, "beyond": told}


def main() -> None:
    """Measure every folder and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="a cohort and what was trained on it")
    parser.add_argument("--runs", type=int, default=60, help="of each slide at P = .5; fewer at the others")
    parser.add_argument("--risk", type=float, default=0.01)
    parser.add_argument("--slides", type=int, default=40, help="unseen slides of each folder, at most")
    parser.add_argument("--tolerance", type=float, default=0.02)
    parser.add_argument("--tails", type=int, metavar="DRAWS", help="of each slide: look at the bounds alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the draws are small: threads would wait for each other
    if arguments.tails:
        tails = {"draws": arguments.tails, "risk": arguments.risk, "slides": arguments.slides}
        print(json.dumps({"benchmark": "deciding", "tails": [measure_tails(f, **tails) for f in arguments.folders]}))
        return
    options = {name: getattr(arguments, name) for name in ("runs", "risk", "slides", "tolerance")}
    found = [measure(folder, **options) for folder in arguments.folders]
    print(json.dumps({"benchmark": "deciding", **options, "folders": found}))


if __name__ == "__main__":
    main()
