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
import yaml
from pydantic import Field

from benchmarks.paper.config import Networks, Row, Section, Training, build
from benchmarks.paper.fitting import fit, predict
from benchmarks.paper.markdown import with_interval
from benchmarks.paper.records import bootstrap, provenance
from benchmarks.paper.scenes import CLASSES, Scene, SceneSource, load_scenes

CONFIG = Path(__file__).resolve().parents[2] / "configs/paper/signs.yaml"


class Signs(Section):
    """The task's configuration."""

    low_scale: float = Field(description="Pixels of the low view along one pixel of the image.")
    networks: Networks
    training: Training
    rows: dict[str, Row]


def evaluate(
    setting: Signs, row: Row, train: list[Scene], test: list[Scene], *, seed: int, device: str
) -> dict[str, Any]:
    """Train a row on Set1 and test it on Set2."""
    started = time.perf_counter()
    model = build(row, setting.networks, seed=seed)
    learn, unseen = (SceneSource(scenes, low_scale=setting.low_scale, device=device) for scenes in (train, test))
    labels, truth = (torch.tensor([scene.label for scene in scenes]) for scenes in (train, test))
    fitting = row.fitting(setting.training)

    def progress(epoch: int, loss: float) -> None:
        elapsed = time.perf_counter() - started
        left = elapsed / epoch * (fitting.epochs - epoch) / 60
        print(f"  epoch {epoch} of {fitting.epochs}: loss {loss:.3f}, about {left:.0f} min left", flush=True)

    loss = fit(model, learn, range(len(train)), labels, fitting, seed=seed, device=device, progress=progress)
    probabilities = predict(model, unseen, range(len(test)), seed=seed, draws=row.draws, device=device)
    wrong = (probabilities.argmax(1) != truth).double().numpy()
    recall = {name: float(1 - wrong[truth == i].mean()) for i, name in enumerate(CLASSES) if (truth == i).any()}
    return {
        "images": {"train": len(train), "test": len(test)},
        "error": with_interval(wrong.mean(), wrong[bootstrap(len(wrong))].mean(1)),
        "recall": recall,
        "training_loss": loss,
        "reads": model.reads,
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
    setting = Signs.model_validate(yaml.safe_load(arguments.config.read_text()))
    rows = arguments.rows or list(setting.rows)
    unknown = set(rows) - set(setting.rows)
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}; the rows are {', '.join(setting.rows)}")
    try:
        train, test = load_scenes(arguments.data, "train"), load_scenes(arguments.data, "test")
    except (ValueError, FileNotFoundError) as exc:
        parser.error(str(exc))
    figures = {}
    for name in rows:
        print(f"{name}: {len(train)} training and {len(test)} test images", flush=True)
        figures[name] = evaluate(setting, setting.rows[name], train, test, seed=arguments.seed, device=arguments.device)
    print(json.dumps({"benchmark": "signs", "rows": figures, "made": provenance()}))


if __name__ == "__main__":
    main()
