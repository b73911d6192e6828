"""Megapixel MNIST: every model on the same images, at matched numbers of patches, then the table.

    python benchmarks/paper/megapixel.py                                      the reduced setting, 25 minutes on a core
    python benchmarks/paper/megapixel.py configs/paper/megapixel.yaml --device cuda         the paper's size, for a GPU
    python benchmarks/paper/megapixel.py --split val                          tune on images of held-out training digits

Makes its images from MNIST in $SACCADE_DATA/mnist (default ../shared/data) and adds a line for every trained model to
benchmarks/results/megapixel.jsonl. What is there already, made with the same configuration, is not done again, so a run
can be stopped at any time. Ends with one JSON line of the figures.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.paper.config import MegapixelTask, Sight, read_task
from benchmarks.paper.mnist import BOX, DIGITS, SparseImages, Split, load_digits, make_images
from benchmarks.paper.records import append_record, read_records
from benchmarks.paper.sections import megapixel_figures
from benchmarks.paper.tables import write_tables
from benchmarks.paper.views import build_sampler, corners_of, predict_sampler, train_sampler, view_of
from benchmarks.paper.whole import Batch, Source, build_whole, fit_whole, predict_whole
from benchmarks.places import ROOT, data_folder
from pipeline.model.sampler import AttentionSampler
from pipeline.model.values import View

RESULTS = ROOT / "benchmarks/results/megapixel.jsonl"
SMALL = ROOT / "configs/paper/megapixel-small.yaml"


class MegapixelViews:
    """Images by number as the product sees them: black ink on white, patches made when they are read."""

    def __init__(self, images: SparseImages, sight: Sight) -> None:
        self.images, self.sight = images, sight
        self.scale = images.side / sight.low_px
        parts = [images[part].low(sight.low_px) for part in torch.arange(len(images)).split(100)]
        self.low = torch.cat([(255 - part).round().to(torch.uint8) for part in parts]).cpu().numpy()

    def __call__(self, index: int, generator: torch.Generator | None) -> View:
        """An image by number; they are never augmented."""
        image = self.images[index : index + 1]

        def read(corners: NDArray[np.int64]) -> NDArray[np.uint8]:
            patches = image.patches(torch.from_numpy(corners)[None].to(image.corners.device), self.sight.patch_px)
            return np.repeat(255 - patches[0].cpu().numpy(), 3, axis=-1)

        return view_of(np.repeat(self.low[index], 3, axis=-1), read, self.sight, (self.scale,) * 2)


def whole(images: SparseImages) -> Source:
    """Batches of all pixels, for the rows that read everything."""
    return lambda items, _: Batch(images[torch.tensor(list(items), device=images.labels.device)].dense())


@torch.no_grad()
def focus(model: AttentionSampler, views: MegapixelViews) -> tuple[float, float]:
    """Mean share of attention on patches centred within 14 pixels of a digit's centre, and the share of such cells."""
    masses, chances = [], []
    for index, digits in enumerate(views.images.corners[:, :DIGITS].cpu().numpy() + BOX / 2):
        view = views(index, None)
        cells = np.stack(np.divmod(np.arange(view.tissue.size), view.tissue.shape[1]), -1)
        centres = corners_of(cells, views.sight, (views.scale,) * 2) + views.sight.patch_px / 2
        near = (np.abs(centres[:, None] - digits) <= BOX / 2).all(-1).any(-1)
        attention = model.attend(view).log_attention.exp().cpu().numpy()
        masses.append(float(attention[near].sum()))
        chances.append(float(near.mean()))
    return float(np.mean(masses)), float(np.mean(chances))


def train(
    task: MegapixelTask, name: str, repeat: int, images: dict[Split, SparseImages], split: Split, device: str
) -> dict[str, Any]:
    """Train a row and predict the split: its record."""
    row, started = task.rows[name], time.perf_counter()
    training, learn, test = task.training_of(row), images["train"], images[split]
    items, unseen = range(len(learn)), range(len(test))

    def say(line: str) -> None:
        print(f"  {name} {line}, {time.perf_counter() - started:.0f} s", flush=True)

    found: dict[str, Any] = {}
    if row.kind == "ats":
        assert row.samples is not None
        views = MegapixelViews(learn, task.sight)
        sampler = build_sampler(row, task.sight, task.networks, scale=views.scale, seed=repeat)
        how: Any = {"samples": row.samples, "seed": repeat, "device": device}
        loss = train_sampler(sampler, views, items, learn.labels.tolist(), training, say=say, turn=False, **how)
        seconds = time.perf_counter() - started
        probabilities = predict_sampler(sampler, MegapixelViews(test, task.sight), unseen, draws=row.draws, **how)
        if row.attention == "learned":
            mass, chance = focus(sampler, MegapixelViews(test[:100], task.sight))
            found["focus"] = {"mass": round(mass, 4), "chance": round(chance, 4)}
        reads: int | None = row.samples
    else:
        model = build_whole(row, task.networks, seed=repeat)
        loss = fit_whole(model, whole(learn), items, learn.labels.cpu(), training, seed=repeat, device=device, say=say)
        seconds = time.perf_counter() - started
        probabilities = predict_whole(model, whole(test), unseen, seed=repeat, batch_size=50, device=device)
        reads = model.reads
    return {
        "what": "model",
        "row": name,
        "repeat": repeat,
        "split": split,
        "digest": task.digest_on(name, split),
        "side": task.side,
        "epochs": training.epochs,
        "correct": (probabilities.argmax(1) == test.labels.cpu()).int().tolist(),
        "training_loss": round(loss, 4),
        "reads": reads,
        "seconds": round(seconds, 1),
        "ms_per_sample": round(1000 * seconds / training.epochs / len(learn), 3),
        **found,
    }


def make_splits(task: MegapixelTask, splits: Sequence[Split], device: str) -> dict[Split, SparseImages]:
    """The images of each split, on the device."""
    return {
        split: make_images(
            load_digits(data_folder() / "mnist", split),
            split,
            task.images[split],
            side=task.side,
            noise=task.noise,
            strokes=task.strokes,
            seed=task.seed,
        ).to(device)
        for split in splits
    }


def main() -> None:
    """Train what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?", default=SMALL)
    parser.add_argument("--rows", nargs="+", help="of the configuration; all by default")
    parser.add_argument("--repeats", type=int, help="of each row, in place of the configuration's")
    parser.add_argument("--noise", choices=["over", "under"], help="the digits, in place of the configuration's")
    parser.add_argument("--split", choices=["val", "test"], default="test")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no row after so long")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = read_task(arguments.config, MegapixelTask)
    if arguments.noise:
        task = task.model_copy(update={"noise": arguments.noise})
    rows = arguments.rows or list(task.rows)
    unknown = set(rows) - set(task.rows)
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}; the rows are {', '.join(task.rows)}")
    done = {(r["row"], r["repeat"], r["digest"]) for r in read_records(arguments.results)}
    most = {name: arguments.repeats or task.rows[name].repeats for name in rows}
    jobs = [
        (name, repeat)
        for repeat in range(max(most.values()))
        for name in rows
        if repeat < most[name] and (name, repeat, task.digest_on(name, arguments.split)) not in done
    ]
    started = time.perf_counter()
    if jobs:
        images = make_splits(task, ("train", arguments.split), arguments.device)
    for number, (name, repeat) in enumerate(jobs):
        if time.perf_counter() - started > 60 * arguments.minutes:
            print(f"time is up: {len(jobs) - number} models are left for the next run", flush=True)
            break
        record = train(task, name, repeat, images, arguments.split, arguments.device)
        append_record(arguments.results, {"setting": arguments.config.stem, **record})
        accuracy = sum(record["correct"]) / len(record["correct"])
        elapsed = time.perf_counter() - started
        left = elapsed / (number + 1) * (len(jobs) - number - 1)
        print(f"{name}, repeat {repeat}: accuracy {accuracy:.3f}; about {left / 60:.0f} min left", flush=True)
    if arguments.results == RESULTS and arguments.split == "test":
        write_tables(ROOT)
    figures = megapixel_figures(read_records(arguments.results), task, arguments.split)
    print(json.dumps({"benchmark": "megapixel", "setting": arguments.config.stem, "rows": figures}))


if __name__ == "__main__":
    main()
