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
from pathlib import Path
from typing import Any

import torch

from benchmarks.paper.config import build
from benchmarks.paper.fitting import fit, predict
from benchmarks.paper.layers import Batch
from benchmarks.paper.megapixel_setting import Megapixel, Source, make_splits, read_setting
from benchmarks.paper.mnist import BOX, DIGITS, SparseImages, Split
from benchmarks.paper.models import AttentionSampling
from benchmarks.paper.records import append_record, read_records
from benchmarks.paper.sections import megapixel_figures
from benchmarks.paper.tables import write_tables
from benchmarks.places import data_folder

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results/megapixel.jsonl"
SMALL = ROOT / "configs/paper/megapixel-small.yaml"


@torch.no_grad()
def focus(model: AttentionSampling, batch: Batch, images: SparseImages) -> tuple[float, float]:
    """Mean share of attention on patches centred within 14 pixels of a digit's centre, and the share of such cells."""
    log_attention, corners = model.log_attention(batch)
    centres = corners.flatten(0, 1) + model.patch_px / 2
    digits = images.corners[:, :DIGITS] + BOX / 2
    near = ((centres[None, :, None] - digits[:, None]).abs() <= BOX / 2).all(-1).any(-1)  # (B, K)
    mass = (log_attention.flatten(1).exp() * near).sum(1)
    return float(mass.mean()), float(near.float().mean())


def train(
    setting: Megapixel, name: str, repeat: int, images: dict[Split, SparseImages], split: Split, device: str
) -> dict[str, Any]:
    """Train a row and predict the split: its record."""
    row, started = setting.rows[name], time.perf_counter()
    dense = row.kind == "cnn" or (row.kind == "mil" and row.share == 1)
    sources = {key: Source(value, setting.view, dense=dense) for key, value in images.items()}
    model = build(row, setting.networks, seed=repeat)
    learn, test = images["train"], images[split]
    seen = range(len(learn))

    def progress(epoch: int, loss: float) -> None:
        print(f"  {name} epoch {epoch}: loss {loss:.3f}, {time.perf_counter() - started:.0f} s", flush=True)

    fitting = setting.fitting(row)
    loss = fit(model, sources["train"], seen, learn.labels, fitting, seed=repeat, device=device, progress=progress)
    seconds = time.perf_counter() - started
    probabilities = predict(model, sources[split], range(len(test)), seed=repeat, batch_size=50, device=device)
    found: dict[str, Any] = {}
    if isinstance(model, AttentionSampling) and model.attention is not None:
        some = test[:100]
        mass, chance = focus(model, Batch(some, some.low(setting.view)), some)
        found["focus"] = {"mass": round(mass, 4), "chance": round(chance, 4)}
    return {
        "what": "model",
        "row": name,
        "repeat": repeat,
        "split": split,
        "digest": setting.digest(name, split),
        "side": setting.side,
        "epochs": fitting.epochs,
        "correct": (probabilities.argmax(1) == test.labels.cpu()).int().tolist(),
        "training_loss": round(loss, 4),
        "reads": model.reads,
        "seconds": round(seconds, 1),
        "ms_per_sample": round(1000 * seconds / fitting.epochs / len(learn), 3),
        **found,
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
    setting = read_setting(arguments.config)
    if arguments.noise:
        setting = setting.model_copy(update={"noise": arguments.noise})
    rows = arguments.rows or list(setting.rows)
    unknown = set(rows) - set(setting.rows)
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}; the rows are {', '.join(setting.rows)}")
    done = {(r["row"], r["repeat"], r["digest"]) for r in read_records(arguments.results)}
    most = {name: arguments.repeats or setting.rows[name].repeats for name in rows}
    jobs = [
        (name, repeat)
        for repeat in range(max(most.values()))
        for name in rows
        if repeat < most[name] and (name, repeat, setting.digest(name, arguments.split)) not in done
    ]
    started = time.perf_counter()
    if jobs:
        data = data_folder()
        images = make_splits(setting, data, ("train", arguments.split), arguments.device)
    for number, (name, repeat) in enumerate(jobs):
        if time.perf_counter() - started > 60 * arguments.minutes:
            print(f"time is up: {len(jobs) - number} models are left for the next run", flush=True)
            break
        record = train(setting, name, repeat, images, arguments.split, arguments.device)
        append_record(arguments.results, {"setting": arguments.config.stem, **record})
        accuracy = sum(record["correct"]) / len(record["correct"])
        elapsed = time.perf_counter() - started
        left = elapsed / (number + 1) * (len(jobs) - number - 1)
        print(f"{name}, repeat {repeat}: accuracy {accuracy:.3f}; about {left / 60:.0f} min left", flush=True)
    if arguments.results == RESULTS and arguments.split == "test":
        write_tables(ROOT)
    figures = megapixel_figures(read_records(arguments.results), setting, arguments.split)
    print(json.dumps({"benchmark": "megapixel", "setting": arguments.config.stem, "rows": figures}))


if __name__ == "__main__":
    main()
