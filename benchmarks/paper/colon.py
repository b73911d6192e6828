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
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from benchmarks import costs
from benchmarks.paper.colon_images import (
    Colon,
    ColonViews,
    WholeImages,
    assign_folds,
    block_folds,
    colour_quantiles,
    focus,
    load_colon,
)
from benchmarks.paper.config import ColonTask, Row, read_task
from benchmarks.paper.contrast import learn_to_tell_apart
from benchmarks.paper.layers import area_average
from benchmarks.paper.records import append_record, read_records
from benchmarks.paper.tables import colon_figures, write_tables
from benchmarks.paper.views import EncoderOnInk, build_sampler, predict_sampler, sampler_loss, train_sampler
from benchmarks.paper.whole import Batch, build_whole, fit_whole, loss_of, predict_whole, take_step
from benchmarks.places import ROOT, data_folder
from pipeline.model.reading import image
from pipeline.model.sampler import AttentionSampler
from pipeline.train.warm_up import WARM_UP_TEMPERATURE
from stages.attention import HematoxylinAttention

CONFIG = ROOT / "configs/paper/colon.yaml"
BATCH = 8
"""Images in the training step whose cost is measured."""


class Trainer:
    """Trains one fold of one row at a time, on a set that is turned and shrunk once."""

    def __init__(self, colon: Colon, task: ColonTask) -> None:
        self.colon, self.task = colon, task
        labels = colon.labels.tolist()
        self.folds = {
            "random": assign_folds(labels, task.folds, seed=task.fold_seed),
            "blocks": block_folds(len(labels), task.folds),
        }
        self._seen: dict[str, Any] = {}

    def views(self) -> ColonViews:
        """The images as the product's model sees them."""
        return self._once(
            "views", lambda: ColonViews(self.colon.images, self.task.sight, stain_jitter=self.task.stain_jitter)
        )

    def whole(self, kind: str) -> WholeImages:
        """The images as rows of a kind that reads everything see them."""
        return self._once(
            kind, lambda: WholeImages(images_of(self.colon.images, kind), stain_jitter=self.task.stain_jitter)
        )

    def _once(self, key: str, make: Callable[[], Any]) -> Any:
        if key not in self._seen:
            self._seen = {key: make()}  # one at a time: each holds the set, some eight times over
        return self._seen[key]

    def train(self, name: str, repeat: int, fold: int) -> dict[str, Any]:
        """The record of one fold: predictions of its test images, and where attention went on them."""
        row = self.task.rows[name]
        started = time.perf_counter()
        of = self.folds[row.folds]
        train, test = np.flatnonzero(of != fold).tolist(), np.flatnonzero(of == fold).tolist()
        kinds = {"forest": self._forest, "ats": self._sampler}
        found = kinds.get(row.kind, self._whole)(row, train, test, 1000 * repeat + fold)
        return {
            "what": "fold",
            "row": name,
            "repeat": repeat,
            "fold": fold,
            "digest": self.task.digest(name),
            "images": [self.colon.names[i] for i in test],
            "labels": self.colon.labels[test].tolist(),
            "seconds": round(time.perf_counter() - started, 1),
            **found,
        }

    def _forest(self, row: Row, train: list[int], test: list[int], seed: int) -> dict[str, Any]:
        colours = self._once("colours", lambda: colour_quantiles(self.colon.images))
        forest = RandomForestClassifier(500, random_state=seed).fit(colours[train], self.colon.labels.numpy()[train])
        return {"probabilities": forest.predict_proba(colours[test])[:, 1].round(5).tolist()}

    def _whole(self, row: Row, train: list[int], test: list[int], seed: int) -> dict[str, Any]:
        source = self.whole(row.kind)
        model = build_whole(row, self.task.networks, seed=seed)
        if row.self_supervised:
            learn_to_tell_apart(
                model.encoder,
                self.colon.images,
                train,
                patch_px=self.task.networks.patch_px,
                steps=row.self_supervised,
                seed=seed,
            )
        training = self.task.training_of(row)
        loss = fit_whole(model, source, train, self.colon.labels[train], training, seed=seed, say=quiet)
        found = predict_whole(model, source, test, seed=seed, draws=row.draws, augmented=row.augmented)
        return {
            "probabilities": [round(p, 5) for p in found[:, 1].tolist()],
            "training_loss": round(loss, 5),
            "reads": model.reads,
        }

    def _sampler(self, row: Row, train: list[int], test: list[int], seed: int) -> dict[str, Any]:
        views = self.views()
        model, loss, samples = self.fitted(row, train, seed)
        found = predict_sampler(
            model, views, test, samples=samples, seed=seed, draws=row.draws, augmented=row.augmented
        )
        record: dict[str, Any] = {
            "probabilities": [round(p, 5) for p in found[:, 1].tolist()],
            "training_loss": loss,
            "reads": samples,
        }
        if row.attention == "learned":
            positive = [i for i in test if self.colon.labels[i] == 1]
            record["focus"] = {self.colon.names[i]: self._focus(model, views, i) for i in positive}
        return record

    def fitted(self, row: Row, train: list[int], seed: int) -> tuple[AttentionSampler, float, int]:
        """The product's model trained on some images, its training loss, and how many patches it reads of an image."""
        views = self.views()
        model = build_sampler(row, self.task.sight, self.task.networks, scale=views.scale, seed=seed)
        samples = row.samples or views(0, None).tissue.size
        if row.self_supervised:
            learn_to_tell_apart(
                EncoderOnInk(model.encoder),
                self.colon.images,
                train,
                patch_px=self.task.sight.patch_px,
                steps=row.self_supervised,
                seed=seed,
            )
        training, labels = self.task.training_of(row), self.colon.labels[train].tolist()
        return (
            model,
            train_sampler(model, views, train, labels, training, samples=samples, seed=seed, say=quiet),
            samples,
        )

    @torch.no_grad()
    def _focus(self, model: AttentionSampler, views: ColonViews, index: int) -> list[float]:
        """Of a positive image, as `tables.FOCUS` names them."""
        view = views(index, None)
        stain = HematoxylinAttention(cell_px=self.task.sight.cell_px, temperature=WARM_UP_TEMPERATURE)
        maps = (model.attend(view).log_attention, stain(image(view.rgb, model.device)).flatten().log_softmax(0))
        seen, by_stain = (
            focus(of_image.double().exp().numpy(), views.centres(), self.colon.nuclei[index]) for of_image in maps
        )
        return [round(value, 4) for value in (seen.mass, seen.chance, seen.any_nucleus, by_stain.mass)]


def images_of(images: Tensor, kind: str) -> Tensor:
    """The images that rows of a kind read: at half resolution for ``half``."""
    return area_average(images, 2).round().to(torch.uint8) if kind == "half" else images


def quiet(line: str) -> None:
    """The folds' own lines are enough."""


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
        if row.kind != "forest" and row.folds == "random" and not row.self_supervised
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
