"""Speed limits in the Swedish traffic signs set, by attention sampling.

    python benchmarks/paper/signs.py DATA [--config configs/paper/signs.yaml] [--device cuda]

DATA holds the set's folders Set1 (for training) and Set2 (for testing), each with its images and annotations.txt; see
benchmarks/paper/signs.py for where it is from. Prints progress and ends with one JSON line: error on Set2 with a 95 %
bootstrap interval over its images, recall of each class, patches read.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.paper.config import Row, Task, read_task
from benchmarks.paper.markdown import with_interval
from benchmarks.paper.records import bootstrap, provenance
from benchmarks.paper.scenes import CLASSES, Scene, SceneViews, load_scenes, read_pixels
from benchmarks.paper.views import build_sampler, predict_sampler, train_sampler
from benchmarks.places import ROOT

CONFIG = ROOT / "configs/paper/signs.yaml"


def evaluate(task: Task, row: Row, train: list[Scene], test: list[Scene], *, seed: int, device: str) -> dict[str, Any]:
    """Train a row on Set1 and test it on Set2."""
    started = time.perf_counter()
    learn, unseen = (SceneViews(scenes, task.sight) for scenes in (train, test))
    labels, truth = ([scene.label for scene in scenes] for scenes in (train, test))
    scale = max(read_pixels(train[0].path).shape) / task.sight.low_px
    model = build_sampler(row, task.sight, task.networks, scale=scale, seed=seed)
    assert row.samples is not None
    how: Any = {"samples": row.samples, "seed": seed, "device": device}

    def say(line: str) -> None:
        print(f"  {line}", flush=True)

    loss = train_sampler(model, learn, range(len(train)), labels, task.training_of(row), say=say, turn=False, **how)
    probabilities = predict_sampler(model, unseen, range(len(test)), draws=row.draws, **how)
    right = torch.tensor(truth)
    wrong = (probabilities.argmax(1) != right).double().numpy()
    recall = {name: float(1 - wrong[right == i].mean()) for i, name in enumerate(CLASSES) if (right == i).any()}
    return {
        "images": {"train": len(train), "test": len(test)},
        "error": with_interval(wrong.mean(), wrong[bootstrap(len(wrong))].mean(1)),
        "recall": recall,
        "training_loss": loss,
        "reads": row.samples,
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    """Train and test the rows and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds Set1 and Set2")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--rows", nargs="+", help="of the configuration; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    task = read_task(arguments.config, Task)
    rows = arguments.rows or list(task.rows)
    unknown = set(rows) - set(task.rows)
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}; the rows are {', '.join(task.rows)}")
    try:
        train, test = load_scenes(arguments.data, "train"), load_scenes(arguments.data, "test")
    except (ValueError, FileNotFoundError) as exc:
        parser.error(str(exc))
    figures = {}
    for name in rows:
        print(f"{name}: {len(train)} training and {len(test)} test images", flush=True)
        figures[name] = evaluate(task, task.rows[name], train, test, seed=arguments.seed, device=arguments.device)
    print(json.dumps({"benchmark": "signs", "rows": figures, "made": provenance()}))


if __name__ == "__main__":
    main()
