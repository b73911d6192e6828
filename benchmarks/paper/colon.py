"""The paper's colon-cancer task: ten folds of every model, then the table.

    python benchmarks/paper/colon.py [--rows ats10 forest] [--repeats 3] [--minutes 30] train what is missing
    python benchmarks/paper/colon.py costs      time and memory of a training step
    python benchmarks/paper/colon.py table      docs/benchmarks.md again

Reads the set from $SACCADE_DATA (default ../shared/data) and configs/paper/colon.yaml, and adds a line for every fold
to benchmarks/results/colon.jsonl. What is there already, made with the same configuration, is not done again; so the
run can be stopped at any time. All rows once take about two hours on one core. Ends with one JSON line of the figures.
`--config configs/paper/colon-trials.yaml` does the same for the trials, on other folds, from which the recipe comes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor
from torch.nn import functional

from benchmarks import costs
from benchmarks.paper.colon_images import (
    Colon,
    ColonSource,
    assign_folds,
    block_folds,
    colour_quantiles,
    focus,
    haematoxylin_attention,
    load_colon,
    warm_up,
)
from benchmarks.paper.config import Benchmark, Row, build, read_benchmark
from benchmarks.paper.contrast import learn_to_tell_apart
from benchmarks.paper.fitting import fit, predict, train_step
from benchmarks.paper.layers import area_average
from benchmarks.paper.models import AttentionSampling
from benchmarks.paper.records import append_record, read_records
from benchmarks.paper.tables import colon_figures, write_tables
from benchmarks.places import data_folder

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/paper/colon.yaml"
BATCH = 8
"""Images in the training step whose cost is measured."""


class Trainer:
    """Trains one fold of one row at a time, on a set that is turned and shrunk once."""

    def __init__(self, colon: Colon, benchmark: Benchmark) -> None:
        self.colon, self.benchmark = colon, benchmark
        labels = colon.labels.tolist()
        self.folds = {
            "random": assign_folds(labels, benchmark.folds, seed=benchmark.fold_seed),
            "blocks": block_folds(len(labels), benchmark.folds),
        }
        self._sources: dict[str, ColonSource] = {}
        self._colours: NDArray[np.float64] | None = None

    def source(self, kind: str) -> ColonSource:
        """The images as rows of this kind see them."""
        view = {"half": "half", "cnn": "whole", "mil": "whole"}.get(kind, "patches")
        if view not in self._sources:
            images = self.colon.images
            if view == "half":
                images = area_average(images, 2).round().to(torch.uint8)
            self._sources = {  # one at a time: each holds the set eight times over
                view: ColonSource(
                    images,
                    low_factor=self.benchmark.low_factor,
                    whole=view != "patches",
                    stain_jitter=self.benchmark.stain_jitter,
                )
            }
        return self._sources[view]

    def train(self, name: str, repeat: int, fold: int) -> dict[str, Any]:
        """The record of one fold: predictions of its test images, and where attention went on them."""
        row = self.benchmark.rows[name]
        started = time.perf_counter()
        of = self.folds[row.folds]
        train, test = np.flatnonzero(of != fold).tolist(), np.flatnonzero(of == fold).tolist()
        seed = 1000 * repeat + fold
        found = self._forest(train, test, seed) if row.kind == "forest" else self._network(row, train, test, seed)
        return {
            "what": "fold",
            "row": name,
            "repeat": repeat,
            "fold": fold,
            "digest": self.benchmark.digest(name),
            "images": [self.colon.names[i] for i in test],
            "labels": self.colon.labels[test].tolist(),
            "seconds": round(time.perf_counter() - started, 1),
            **found,
        }

    def _forest(self, train: list[int], test: list[int], seed: int) -> dict[str, Any]:
        if self._colours is None:
            self._colours = colour_quantiles(self.colon.images)
        colours, labels = self._colours, self.colon.labels.numpy()
        forest = RandomForestClassifier(500, random_state=seed).fit(colours[train], labels[train])
        return {"probabilities": forest.predict_proba(colours[test])[:, 1].round(5).tolist()}

    def _network(self, row: Row, train: list[int], test: list[int], seed: int) -> dict[str, Any]:
        source = self.source(row.kind)
        model = build(row, self.benchmark.networks, seed=seed)
        if isinstance(model, AttentionSampling):
            warm_up(model, source, train, steps=row.warm_up, sharpness=row.sharpness, seed=seed)
        if row.self_supervised:
            learn_to_tell_apart(
                model.encoder,
                source,
                train,
                patch_px=self.benchmark.networks.patch_px,
                steps=row.self_supervised,
                seed=seed,
            )
        loss = fit(model, source, train, self.colon.labels[train], self.benchmark.fitting(row), seed=seed)
        probabilities = predict(model, source, test, seed=seed, draws=row.draws, augmented=row.augmented)[:, 1]
        found: dict[str, Any] = {
            "probabilities": [round(p, 5) for p in probabilities.tolist()],
            "training_loss": round(loss, 5),
            "reads": model.reads,
        }
        if isinstance(model, AttentionSampling) and model.attention is not None:
            found["focus"] = self._focus(model, row, source, test)
        return found

    @torch.no_grad()
    def _focus(
        self, model: AttentionSampling, row: Row, source: ColonSource, test: list[int]
    ) -> dict[str, list[float]]:
        """Of each positive image, as `tables.FOCUS` names them."""
        batch = source(test, None)
        log_attention, corners = model.log_attention(batch)
        centres = (corners.flatten(0, 1) + model.patch_px / 2).numpy()
        assert batch.low is not None
        stain = haematoxylin_attention(batch.low, stride=model.stride, sharpness=row.sharpness)
        found = {}
        for i, *maps in zip(test, log_attention.flatten(1), stain, strict=True):
            if self.colon.labels[i] == 1:
                seen, by_stain = (
                    focus(of_image.double().exp().numpy(), centres, self.colon.nuclei[i]) for of_image in maps
                )
                values = (seen.mass, seen.chance, seen.any_nucleus, by_stain.mass)
                found[self.colon.names[i]] = [round(value, 4) for value in values]
        return found


def missing(benchmark: Benchmark, results: Path, rows: list[str], repeats: int | None) -> list[tuple[str, int, int]]:
    """(row, repeat, fold) that have no record yet, every row once before any twice."""
    done = {(r["row"], r["repeat"], r["fold"], r["digest"]) for r in read_records(results) if r["what"] == "fold"}
    wanted = {name: benchmark.rows[name].repeats if repeats is None else repeats for name in rows}
    return [
        (name, repeat, fold)
        for repeat in range(max(wanted.values()))
        for name in rows
        if repeat < wanted[name]
        for fold in range(benchmark.folds)
        if (name, repeat, fold, benchmark.digest(name)) not in done
    ]


def run(
    colon: Colon, benchmark: Benchmark, results: Path, rows: list[str], repeats: int | None, minutes: float
) -> None:
    """Train what is missing, until it is done or the time is up."""
    jobs = missing(benchmark, results, rows, repeats)
    trainer, started = Trainer(colon, benchmark), time.perf_counter()
    seconds: dict[str, list[float]] = {}
    for record in read_records(results):
        if record["what"] == "fold" and record["row"] in rows:
            seconds.setdefault(record["row"], []).append(record["seconds"])
    for number, (name, repeat, fold) in enumerate(jobs):
        known = {row: float(np.mean(times[-10:])) for row, times in seconds.items()}
        typical = float(np.mean(list(known.values()))) if known else 0.0
        elapsed = time.perf_counter() - started
        if elapsed + known.get(name, typical) > 60 * minutes:
            print(f"time is up: {len(jobs) - number} folds are left for the next run", flush=True)
            return
        left = sum(known.get(row, typical) for row, _, _ in jobs[number:])
        record = trainer.train(name, repeat, fold)
        append_record(results, record)
        seconds.setdefault(name, []).append(record["seconds"])
        wrong = sum((p > 0.5) != bool(y) for p, y in zip(record["probabilities"], record["labels"], strict=True))
        print(
            f"{number + 1}/{len(jobs)} {name} repeat {repeat} fold {fold}: {wrong} of {len(record['labels'])} wrong, "
            f"{record['seconds']:.0f} s; about {left / 60:.0f} min left",
            flush=True,
        )


def prepared(colon: Colon, benchmark: Benchmark, name: str, *, shared: bool) -> tuple[Any, Callable[[], Tensor], Any]:
    """A row's model, its loss on one batch, and one training step on it."""
    row = benchmark.rows[name]
    images = colon.images[:BATCH]
    if row.kind == "half":
        images = area_average(images, 2).round().to(torch.uint8)
    source = ColonSource(images, low_factor=benchmark.low_factor, whole=True, stain_jitter=0.0)
    batch, labels = source(range(BATCH), None), colon.labels[:BATCH]
    del source
    model, generator = build(row, benchmark.networks, seed=0, shared=shared), torch.Generator().manual_seed(0)
    model.standardise(batch, generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    step = partial(train_step, model, batch, labels, optimizer, benchmark.fitting(row), generator)
    return model, lambda: functional.cross_entropy(model(batch, generator).logits, labels), step


def cost_rows(benchmark: Benchmark) -> dict[str, tuple[str, bool]]:
    """What is measured: name -> (row, whether MIL shares its convolutions)."""
    found = {
        name: (name, False) for name, row in benchmark.rows.items() if row.kind != "forest" and row.folds == "random"
    }
    return found | {
        f"{name}-shared": (name, True) for name, row in benchmark.rows.items() if row.kind == "mil" and row.share == 1
    }


def measure_costs(colon: Colon, config: Path, results: Path, rounds: int) -> None:
    """Time all rows in turn, count what each keeps for the backward pass, and weigh each in a process of its own."""
    benchmark = read_benchmark(config)
    steps, saved = {}, {}
    for name, (row, shared) in cost_rows(benchmark).items():
        model, loss, steps[name] = prepared(colon, benchmark, row, shared=shared)
        saved[name] = costs.saved_bytes(loss, model)
    times = costs.interleaved_ms(steps, rounds=rounds)
    found = {}
    for name in steps:
        peak = costs.in_fresh_process([__file__, "peak", "--rows", name, "--config", config])
        found[name] = {
            "ms": round(times[name] / BATCH, 4),
            "saved_mb": round(saved[name] / BATCH / 1e6, 4),
            "peak_mb": round(peak["peak_bytes"] / BATCH / 1e6, 3),
        }
        print(f"{name:24}", json.dumps(found[name]), flush=True)
    append_record(results, {"what": "costs", "batch": BATCH, "rounds": rounds, "rows": found})


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["run", "costs", "table", "peak"], default="run")
    parser.add_argument("--rows", nargs="+", help="of the configuration; all by default")
    parser.add_argument("--config", type=Path, default=CONFIG, help="results go to benchmarks/results under its name")
    parser.add_argument("--repeats", type=int, help="of each row, in place of the configuration's")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop cleanly after so long")
    parser.add_argument("--rounds", type=int, default=15, help="of the timing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    benchmark = read_benchmark(arguments.config)
    results = ROOT / "benchmarks/results" / f"{arguments.config.stem}.jsonl"
    colon = load_colon(data_folder())
    if arguments.what == "peak":
        (name,) = arguments.rows
        row, shared = cost_rows(benchmark)[name]
        _, _, step = prepared(colon, benchmark, row, shared=shared)
        print(json.dumps({"peak_bytes": costs.peak_bytes(step)}))
        return
    rows = arguments.rows or list(benchmark.rows)
    unknown = set(rows) - set(benchmark.rows)
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}; the rows are {', '.join(benchmark.rows)}")
    if arguments.what == "run":
        run(colon, benchmark, results, rows, arguments.repeats, arguments.minutes)
    elif arguments.what == "costs":
        measure_costs(colon, arguments.config, results, arguments.rounds)
    write_tables(ROOT)
    print(json.dumps({"benchmark": "colon", "rows": colon_figures(read_records(results), benchmark)}))


if __name__ == "__main__":
    main()
