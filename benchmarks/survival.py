"""Survival with a known hazard: the C-index of a model that reads a few patches beside those of models that read all.

    python benchmarks/survival.py [--seeds 0 1 2 3 4] [--out data/survival] [--set key=value ...]   four minutes a seed

Every seed makes a cohort of its own: slides of 12 x 12 real tiles of 64 px at 0.5 µm/px (`benchmarks.mosaics`, from
$SACCADE_DATA/crchistophenotypes), over 50 to 70 % of which there is tissue, a patch of it carcinoma. The carcinoma's
share s is drawn evenly from 0 to 0.5, and a patient's log hazard is ``1.5 (s - 0.25) / 0.144``: 1.5 of its standard
deviations. Events come at that rate, who is lost is lost at a rate of 0.4, whatever the hazard. Slides to train on and
slides that are held out are made of images that share no source.

`saccade train --compare` then fits the model (Cox, 20 patches of a slide) and plain ways to read everything, on the
same features and slides; one more training fits the product's own head to all cells. Prints of each way the C-index
on held-out patients, and by how much the model's is above it, with 95 % intervals; the true hazard's beside them; then
over all seeds, whose patients are others, the mean difference with the t interval of the seeds' values. Each seed adds
a line to benchmarks/results/survival.jsonl, and is not measured again with the same settings.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.special import stdtrit

from benchmarks.mosaics.plan import Recipe, appearance_of, generators
from benchmarks.mosaics.scenes import Appearance, Scene, draw_scene
from benchmarks.mosaics.slides import BLOCK_PX, GLASS_NOISE, edge_share, write_pyramid
from benchmarks.mosaics.stains import Pixels
from benchmarks.mosaics.tiles import LabelledImage, TileStock, crchistophenotypes, make_stock
from benchmarks.paper.records import append_record, read_records
from benchmarks.places import ROOT, data_folder
from pipeline.cohort.table import Cohort
from pipeline.config import load_config
from pipeline.output.documents import read_json
from pipeline.run.run import run_cohort
from pipeline.run.slide import RunSettings
from pipeline.statistics.paired import Difference
from pipeline.task.survival import RISK, Survival
from pipeline.train.spec import configured_cohort
from pipeline.train.train import train_cohort
from stages.disk import new_file

RESULTS = ROOT / "benchmarks/results/survival.jsonl"
MODEL, TRUTH = "this model", "the true hazard"
MOST = 0.5
"""The carcinoma's share of the tissue is drawn evenly from 0 to this."""
GAIN = 1.5
"""Standard deviation of the log hazard."""
LOST = 0.4
"""Rate at which patients are lost, where the mean patient's event has 1."""
SCALES = ("view.attention_mpp=8", "view.patch_mpp=0.5", "view.patch_px=64")
TASK = Survival(labels=("time", "event"))


def log_hazard(share: float) -> float:
    """Of a patient, by the carcinoma's share of the tissue: uniform shares have a standard deviation of `GAIN`."""
    return GAIN * (share - MOST / 2) / (MOST / 12**0.5)


def make_cohort(out: Path, images: list[LabelledImage], *, seed: int, train: int, test: int, side: int = 12) -> Path:
    """Slides, and a table of them with times, events and, for judging only, each patient's true log hazard; what is
    there already is not made again."""
    table = out / "cohort.csv"
    if table.exists():
        return table
    recipe = Recipe(side=side, tile_px=64, train=train, test=test, pools_seed=seed, seed=seed)
    stock = make_stock(images, tile_px=recipe.tile_px, seed=seed)
    (out / "slides").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(train + test):
        split = "train" if number < train else "test"
        path = out / "slides" / f"s{number:03d}.svs"
        share = make_slide(path, stock, recipe, number, split)
        hazard = log_hazard(share)
        random = np.random.default_rng([seed, 4, number])
        event, end = random.exponential(np.exp(-hazard)), random.exponential(1 / LOST)
        told = (f"{min(event, end):.6g}", int(event <= end), f"{hazard:.6g}")
        rows.append((path.relative_to(out).as_posix(), f"p{number}", split, *told))
    with new_file(table) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("slide", "patient", "split", "time", "event", "true_log_hazard"), *rows])
    return table


def make_slide(path: Path, stock: TileStock, recipe: Recipe, number: int, pool: str) -> float:
    """Write a slide; gives the carcinoma's share of its tissue."""
    shape, _, glass = generators(recipe, number)
    wanted = float(np.random.default_rng([recipe.seed, 5, number]).uniform(0, MOST))
    scene = draw_scene(stock, pool, side=recipe.side, lesion=wanted, rng=shape)
    appearance = appearance_of(recipe, number, number % recipe.sites)
    size = recipe.side * recipe.tile_px
    pixels = composed(stock, scene, appearance, glass)
    strips = (pixels[y : y + BLOCK_PX] for y in range(0, size, BLOCK_PX))
    with new_file(path) as beside:
        write_pyramid(beside, strips, size, recipe.levels, appearance.quality, recipe.mpp)
    return float((scene.tissue * scene.lesion).sum() / scene.tissue.sum())


def composed(stock: TileStock, scene: Scene, appearance: Appearance, rng: np.random.Generator) -> Pixels:
    """Level 0, as `benchmarks.mosaics.slides.compose` has it; of small slides it is faster to stain tile by tile."""
    px, (rows, columns) = stock.tile_px, scene.image.shape
    found = appearance.glass + rng.normal(0, GLASS_NOISE, (rows * px, columns * px, 3))
    for row, column in np.argwhere(scene.image >= 0):
        cut = appearance.stain(stock.tile(int(scene.image[row, column]), scene.corner[row, column]))
        way, here = int(scene.way[row, column]), np.s_[row * px : (row + 1) * px, column * px : (column + 1) * px]
        share = edge_share(scene.field, row, column, px)[..., None]
        found[here] += share * (np.rot90(cut[:, ::-1] if way >= 4 else cut, way % 4) - found[here])
    picture = Image.fromarray(np.rint(found).clip(0, 255).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(appearance.blur_px)))


def measure(table: Path, out: Path, *, seed: int, changes: list[str]) -> dict[str, Any]:
    """Train every way on a cohort, and judge all on its held-out patients; goes on where it was."""
    config = out / "config.yaml"
    config.write_text(f"cohort: {{table: {json.dumps(str(table.resolve()))}, time: time, event: event}}\n")
    kept = (f"reading.features={json.dumps(str((out / 'features').resolve()))}", f"training.seed={seed}")
    told = load_config(config, [*SCALES, *kept, "training.compare=true", *changes])
    train_cohort(told, out / "sampled", say=lambda line: print(f"    {line}", flush=True))
    every = load_config(config, [*SCALES, *kept, *changes, "model.kind=exhaustive"])
    train_cohort(every, out / "exhaustive", say=lambda line: print(f"    {line}", flush=True))
    unseen = Cohort(table, tuple(s for s in configured_cohort(told.cohort).slides if s.split == "test"))
    model = out / "sampled" / "model.safetensors"
    whole = run_cohort(unseen, out / "whole", RunSettings(model=model, seed=seed, samples=4096))
    with table.open(newline="", encoding="utf-8") as file:
        truth = {Path(row["slide"]).stem: row for row in csv.DictReader(file)}
    samples = told.sampling.samples
    ways = {
        f"{MODEL}, {samples} patches": predicted(out / "sampled" / "predictions.csv"),
        "the same model, all patches": {row["slide_id"]: float(row[RISK]) for row in whole.rows},
        "its head, fitted to all patches": predicted(out / "exhaustive" / "predictions.csv"),
        "gated MIL, all patches": compared(out / "sampled", "gated-all"),
        "mean, all patches": compared(out / "sampled", "mean-all"),
        f"gated MIL, {samples} at random": compared(out / "sampled", "gated-random"),
        TRUTH: {name: float(row["true_log_hazard"]) for name, row in truth.items() if row["split"] == "test"},
    }
    return {"seed": seed, "set": changes, "samples": samples, "ways": judged(ways, truth)}


def predicted(path: Path) -> dict[str, float]:
    """Risks of the held-out slides, by name, in predictions.csv."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["slide_id"]: float(row[RISK]) for row in csv.DictReader(file) if row["part"] == "test"}


def compared(training: Path, way: str) -> dict[str, float]:
    """Risks of the held-out slides, by name, as a way said of a comparison."""
    (path,) = training.glob(f"**/compare/{way}.json")
    return {row["slide_id"]: row[RISK] for row in (read_json(path) or {})["rows"]}


def judged(ways: Mapping[str, Mapping[str, float]], truth: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Of each way its C-index, and the first one's less it, on the slides that all tell."""
    names = sorted(set.intersection(*(set(risks) for risks in ways.values())))
    patients = [truth[name]["patient"] for name in names]
    label = {name: TASK.label_row((truth[name]["time"], truth[name]["event"])) for name in names}
    rows = {way: [{**label[name], RISK: risks[name]} for name in names] for way, risks in ways.items()}
    first = next(iter(rows.values()))
    found = {}
    for way, own in rows.items():
        apart: Difference | None = None if own is first else TASK.difference(first, own, patients)
        found[way] = {
            "patients": len(names),
            "c_index": TASK.evaluate(own, patients)["c_index"],
            "model_minus": None if apart is None else apart._asdict(),
        }
    return found


def summary(records: list[dict[str, Any]]) -> list[str]:
    """Means over seeds, whose patients are others, as lines."""
    lines = []
    for way in records[0]["ways"]:
        each = [record["ways"][way] for record in records]
        line = f"{way:34} C-index {np.mean([one['c_index']['value'] for one in each]):.3f}"
        if each[0]["model_minus"] is not None:
            line += f", the model's less it {mean_in_words(np.array([one['model_minus']['value'] for one in each]))}"
        lines.append(line)
    return lines


def mean_in_words(values: NDArray[np.float64]) -> str:
    """A mean with its 95 % t interval, where there are two values."""
    if len(values) < 2:
        return f"{values.mean():+.3f}"
    half = stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():+.3f} [{values.mean() - half:+.3f}, {values.mean() + half:+.3f}]"


def main() -> None:
    """Measure every seed and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "survival")
    parser.add_argument("--train", type=int, default=100, help="patients to train on")
    parser.add_argument("--test", type=int, default=100, help="patients that are held out")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--results", type=Path, default=RESULTS)
    told = parser.parse_args()
    images = crchistophenotypes(data_folder())
    setting = {"set": told.changes, "train": told.train, "test": told.test}
    found = []
    for seed in told.seeds:
        known = [r for r in read_records(told.results) if r["seed"] == seed and r.items() >= setting.items()]
        if not known:
            folder = told.out / f"{told.train}-{told.test}-seed-{seed}"
            table = make_cohort(folder / "cohort", images, seed=seed, train=told.train, test=told.test)
            known = [measure(table, folder, seed=seed, changes=told.changes) | setting]
            append_record(told.results, known[0])
        found.append(known[-1])
        for way, one in known[-1]["ways"].items():
            score, apart = one["c_index"], one["model_minus"]
            line = f"seed {seed}, {way}: C-index {score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
            if apart is not None:
                line += f", the model's less it {apart['value']:+.3f} [{apart['low']:+.3f}, {apart['high']:+.3f}]"
            print(line, flush=True)
    print("\n".join(summary(found)))
    print(json.dumps({"benchmark": "survival", **setting, "seeds": told.seeds}))


if __name__ == "__main__":
    main()
