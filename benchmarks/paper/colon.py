"""The paper's colon-cancer task: ten folds of every model, then the table.

    python benchmarks/paper/colon.py [--rows ats10 forest] [--repeats 3] [--minutes 30] train what is missing
    python benchmarks/paper/colon.py costs      time and memory of a training step
    python benchmarks/paper/colon.py table      docs/benchmarks.md again

Reads the set from $SACCADE_DATA (default ../shared/data) and configs/paper/colon.yaml, and adds a line for every fold
to benchmarks/results/colon.jsonl. What is there already, made with the same configuration, is not done again; so the
run can be stopped at any time. All rows once take about two hours on one core. Ends with one JSON line of the figures.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import costs
from benchmarks.paper.colon_folds import Trainer, images_of
from benchmarks.paper.colon_images import Colon, ColonViews, load_colon
from benchmarks.paper.config import ColonTask, read_task
from benchmarks.paper.records import append_record, read_records
from benchmarks.paper.tables import colon_figures, write_tables
from benchmarks.paper.views import build_sampler, sampler_loss
from benchmarks.paper.whole import Batch, build_whole, loss_of, take_step
from benchmarks.places import ROOT, data_folder

CONFIG = ROOT / "configs/paper/colon.yaml"
BATCH = 8
"""Images in the training step whose cost is measured."""


def missing(task: ColonTask, results: Path, rows: list[str], repeats: int | None) -> list[tuple[str, int, int]]:
    """(row, repeat, fold) that have no record yet, every row once before any twice."""
    done = {(r["row"], r["repeat"], r["fold"], r["digest"]) for r in read_records(results) if r["what"] == "fold"}
    wanted = {name: task.rows[name].repeats if repeats is None else repeats for name in rows}
    return [
        (name, repeat, fold)
        for repeat in range(max(wanted.values()))
        for name in rows
        if repeat < wanted[name]
        for fold in range(task.folds)
        if (name, repeat, fold, task.digest(name)) not in done
    ]


def run(colon: Colon, task: ColonTask, results: Path, rows: list[str], repeats: int | None, minutes: float) -> None:
    """Train what is missing, until it is done or the time is up."""
    jobs = missing(task, results, rows, repeats)
    trainer, started = Trainer(colon, task), time.perf_counter()
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


def prepared(colon: Colon, task: ColonTask, name: str, *, shared: bool) -> tuple[Any, Callable[[], Tensor], Any]:
    """A row's model, its loss on one batch, and one training step on it."""
    row, labels = task.rows[name], colon.labels[:BATCH]
    training, generator = task.training_of(row), torch.Generator().manual_seed(0)
    images = images_of(colon.images[:BATCH], row.kind)
    model: Any
    if row.kind == "ats":
        views = ColonViews(images, task.sight, stain_jitter=0.0)
        seen = [views(i, None) for i in range(BATCH)]
        model = build_sampler(row, task.sight, task.networks, scale=views.scale, seed=0)
        samples = row.samples or seen[0].tissue.size
        model.standardise(seen, samples=samples, generator=generator)

        def loss() -> Tensor:
            return sampler_loss(model, seen, labels, training, samples=samples, generator=generator)
    else:
        model, batch = build_whole(row, task.networks, seed=0, shared=shared), Batch(images)
        model.standardise(batch, generator)

        def loss() -> Tensor:
            return loss_of(model, batch, labels, generator, training)[1]

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    return model, loss, lambda: take_step(model, loss(), optimizer, training)


def cost_rows(task: ColonTask) -> dict[str, tuple[str, bool]]:
    """What is measured: name -> (row, whether MIL shares its convolutions)."""
    # how a row starts and is seen at prediction changes nothing of its step
    plain = {
        name: row
        for name, row in task.rows.items()
        if row.kind not in ("forest", "frozen") and row.folds == "random" and not row.self_supervised
    }
    whole = {f"{name}-shared": (name, True) for name, row in plain.items() if row.kind == "mil" and row.share == 1}
    return {name: (name, False) for name in plain} | whole


def measure_costs(colon: Colon, config: Path, results: Path, rounds: int) -> None:
    """Time all rows in turn, count what each keeps for the backward pass, and weigh each in a process of its own."""
    task = read_task(config, ColonTask)
    steps, saved = {}, {}
    for name, (row, shared) in cost_rows(task).items():
        model, loss, steps[name] = prepared(colon, task, row, shared=shared)
        saved[name] = costs.saved_bytes(loss, model)
    times = costs.interleaved_ms(steps, rounds=rounds, clock=time.process_time)
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
    task = read_task(arguments.config, ColonTask)
    results = ROOT / "benchmarks/results" / f"{arguments.config.stem}.jsonl"
    colon = load_colon(data_folder())
    if arguments.what == "peak":
        (name,) = arguments.rows
        row, shared = cost_rows(task)[name]
        _, _, step = prepared(colon, task, row, shared=shared)
        print(json.dumps({"peak_bytes": costs.peak_bytes(step)}))
        return
    rows = arguments.rows or list(task.rows)
    unknown = set(rows) - set(task.rows)
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}; the rows are {', '.join(task.rows)}")
    if arguments.what == "run":
        run(colon, task, results, rows, arguments.repeats, arguments.minutes)
    elif arguments.what == "costs":
        measure_costs(colon, arguments.config, results, arguments.rounds)
    write_tables(ROOT)
    print(json.dumps({"benchmark": "colon", "rows": colon_figures(read_records(results), task)}))


if __name__ == "__main__":
    main()
