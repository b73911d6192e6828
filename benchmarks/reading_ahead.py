"""What reading costs a training end to end: steps on slides against steps on patches that are all in memory.

    python benchmarks/reading_ahead.py [--slides 16] [--rounds 5] [--encoder small timm:resnet18] [--slide FILE]

The demo's slides, or so many copies of a FILE's views (an NDPI, say), and the model that learns end to end, with the
demo's 24 patches of 128 pixels a slide, 8 slides a step, its patches turned. In one process and in turns: from memory,
each step reading its own, and read a step ahead; with and without patches kept in memory (reading.patches_gb). A
training whose configuration says nothing of it goes step by step, with patches kept as --kept is by default. Of each
round's fit, the epochs after the first two count; given are the median wall and CPU milliseconds of a step, and the
pace against memory: the median over rounds of the ratio of wall times, 1 where reading costs nothing. Ends with JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config.reading import ReadingConfig
from pipeline.demo.cohort import make_cohort
from pipeline.model.look import look
from pipeline.model.sampler import AttentionSampler
from pipeline.model.spec import ModelSpec
from pipeline.model.values import View
from pipeline.train.fit import fit
from stages.patch_memory import PatchMemory

SPEC = ModelSpec(
    classes=("normal", "tumour"),
    attention_mpp=8.0,
    patch_mpp=0.5,
    patch_px=128,
    attention="learned",
    encoder="small",
    dim=64,
    scheme="systematic",
    samples=24,
)
BATCH = 8


def in_memory(view: View) -> View:
    """A view all of whose patches were read."""
    cells = np.flatnonzero(view.tissue)
    pixels = np.asarray(view.patches(cells))
    place = np.full(view.tissue.size, -1)
    place[cells] = np.arange(len(cells))

    def patches(chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = pixels[place[chosen]]
        return found

    return replace(view, patches=patches)


def milliseconds(views: Sequence[View], encoder: str, *, epochs: int, **how: Any) -> list[tuple[float, ...]]:
    """Wall and CPU milliseconds of a step, of each epoch after the first two."""
    torch.manual_seed(0)
    model = AttentionSampler(replace(SPEC, encoder=encoder))
    ends: list[tuple[float, float]] = []
    steps = len(views) / BATCH

    def told(line: str) -> None:
        if line.startswith("epoch "):
            ends.append((time.perf_counter(), time.process_time()))

    options: dict[str, Any] = {"samples": SPEC.samples, "batch_size": BATCH, "attention_rate": 0.1, "warm_up": 2}
    options |= {"learning_rate": 1e-3, "weight_decay": 1e-4, "entropy_weight": 0.0, "gradient_clip": 1.0}
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            views.__getitem__,
            torch.tensor([i % 2 for i in range(len(views))]),
            checkpoint=Path(folder) / "fit.ckpt",
            epochs=epochs,
            seed=0,
            device="cpu",
            say=told,
            **options | how,
        )
    return [tuple(1e3 * (b - a) / steps for a, b in zip(*two, strict=True)) for two in pairwise(ends[1:])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=16)
    parser.add_argument("--size", type=int, default=2048, help="of the demo's slides")
    parser.add_argument("--slide", type=Path, help="a file in place of the demo's slides")
    parser.add_argument("--mpp", type=float, help="its resolution")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--encoder", nargs="+", default=["small"])
    parser.add_argument("--kept", type=float, default=ReadingConfig().patches_gb, help="GB of patches kept in memory")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if args.slide is None:
            make_cohort(Path(folder) / "demo", slides=max(16, args.slides), size=args.size)
            files = sorted((Path(folder) / "demo/slides").glob("*.tif"))[: args.slides]
        else:
            files = [args.slide] * args.slides
        model = AttentionSampler(SPEC)
        views = [look(file, model, mpp=args.mpp).view for file in files]
        cells = sum(int(view.tissue.sum()) for view in views)
        print(f"{len(views)} slides, {cells} patches of tissue in all, {cells * 3 * SPEC.patch_px**2 / 1e6:.0f} MB")
        held = [in_memory(view) for view in views]

        def kept() -> list[View]:
            memory = PatchMemory(round(args.kept * 1e9))
            return [
                replace(view, patches=partial(memory.read, f"{i}", view.patches, view.tissue))
                for i, view in enumerate(views)
            ]

        ways: dict[str, tuple[Callable[[], Sequence[View]], dict[str, Any]]] = {
            "memory": (lambda: held, {}),
            "step by step": (lambda: views, {}),
            "step by step, patches kept": (kept, {}),
            "ahead": (lambda: views, {"read_ahead": 1}),
            "ahead, patches kept": (kept, {"read_ahead": 1}),
        }
        for encoder in args.encoder:
            told: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
            for _ in range(args.rounds):
                for way, (given, how) in ways.items():
                    times = milliseconds(given(), encoder, epochs=args.epochs, **how)
                    told[way].append((median(wall for wall, _ in times), median(cpu for _, cpu in times)))
            of_memory = [wall for wall, _ in told["memory"]]
            for way, rows in told.items():
                pace = median(m / wall for m, (wall, _) in zip(of_memory, rows, strict=True))
                wall, cpu = (median(part) for part in zip(*rows, strict=True))
                found.setdefault(encoder, {})[way] = {"wall_ms": wall, "cpu_ms": cpu, "pace": pace}
                print(f"{encoder}, {way}: {wall:.1f} ms a step, {cpu:.1f} ms of CPU, pace {pace:.2f}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
