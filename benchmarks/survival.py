"""Survival with a known hazard: the C-index of a model that reads a few patches beside those of models that read all.

    python benchmarks/survival.py [--seeds 0 1 2 3 4] [--train 100] [--test 200] [--set key=value ...]

Tiles of 64 px at 0.5 µm/px are cut from $SACCADE_DATA/crchistophenotypes (`benchmarks.mosaics`), stained as four
laboratories would, and encoded by lite0 once, at the fine and at the coarse scale. Every seed makes a cohort of its
own: patients with a slide each, 16 x 16 cells, over 50 to 70 % of which there is tissue, a patch of it carcinoma, each
cell one of the tiles of the slide's laboratory. The carcinoma's share s is drawn evenly from 0 to 0.5, and a patient's
log hazard is ``1.5 (s - 0.25) / 0.144``: 1.5 of its standard deviations. Events come at that rate, who is lost is lost
at a rate of 0.4, whatever the hazard. Slides to train on and slides that are held out are made of images that share no
source.

Models are fitted as `saccade train` fits them (`pipeline.train.fit`, Cox, defaults but for the scales) on the same
features and slides: the product's, which reads 20 patches of a slide, and those that read all. Prints of each the
C-index on held-out patients, and by how much the product's is above it, with 95 % intervals; the true hazard's beside
them; then over all seeds, whose patients are others, the mean difference with the t interval of the seeds' values.
Each seed adds a line to benchmarks/results/survival.jsonl, and is not measured again with the same settings.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit

from benchmarks.mosaics.scenes import FIELD_CELLS, draw_appearance, draw_sites, draw_tissue, grow_lesion
from benchmarks.mosaics.slides import shrunk
from benchmarks.mosaics.stains import Pixels
from benchmarks.mosaics.tiles import POOLS, TileStock, crchistophenotypes, deal_sources, make_stock
from benchmarks.paper.records import append_record, read_records
from benchmarks.places import ROOT, data_folder
from pipeline.config import Config, load_config
from pipeline.model.build import backbone_of, build_model
from pipeline.model.evidence_model import EvidenceModel
from pipeline.model.exhaustive_model import ExhaustiveModel
from pipeline.model.spec import ModelSpec
from pipeline.model.values import View
from pipeline.statistics.paired import Difference
from pipeline.task.survival import RISK, Survival
from pipeline.train.bagging import draw_bags, settle
from pipeline.train.fit import fit
from pipeline.train.slides import TrainingSlides
from pipeline.train.spec import fit_settings, model_spec
from stages.encoder.backbone import Backbone
from stages.encoder.feature_store import FeatureKey

RESULTS = ROOT / "benchmarks/results/survival.jsonl"
TRUTH = "the true hazard"
MOST = 0.5
"""The carcinoma's share of the tissue is drawn evenly from 0 to this."""
GAIN = 1.5
"""Standard deviation of the log hazard."""
LOST = 0.4
"""Rate at which patients are lost, where the mean patient's event has 1."""
SIDE, SITES, TILE_PX = 16, 4, 64
CUTS = 6
"""Tiles of an image."""
SCALES = ("view.attention_mpp=8", "view.patch_mpp=0.5", f"view.patch_px={TILE_PX}")
TASK = Survival(labels=("time", "event"))


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient with one slide.

    Attributes:
        name: of both.
        cells: which tile of the stock each cell shows, (rows, columns), -1 on glass.
        site: whose stain it has.
        hazard: logarithm of the true hazard.
        time, event: as a table has them.
    """

    name: str
    cells: NDArray[np.int64]
    site: int
    hazard: float
    time: float
    event: bool


class Tiles:
    """Tiles that slides are made of, with what a frozen encoder makes of them in each site's stain; knows the features
    of slides as a `FeatureStore` does.

    Args:
        stock: of images.
        spec: of a model, for its scales.
        seed: of the tiles and stains.
    """

    def __init__(self, stock: TileStock, spec: ModelSpec, *, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.stock = stock
        self.images = np.repeat(np.arange(len(stock.images)), CUTS)
        corners = [stock.corners[image][rng.integers(len(stock.corners[image]))] for image in self.images]
        cut = [stock.tile(int(image), corner) for image, corner in zip(self.images, corners, strict=True)]
        fine = backbone_of(spec.encoder, None, spec.precision)
        coarse, factor = fine.enlarged(spec.coarse_px, spec.enlarge), TILE_PX // spec.coarse_px
        self.known: dict[tuple[int, int], NDArray[np.float32]] = {}
        for site, one in enumerate(draw_sites(SITES, rng)):
            stain = draw_appearance(one, rng).stain
            stained = [stain(tile) for tile in cut]
            self.known[site, TILE_PX] = encoded(fine, np.stack(stained))
            self.known[site, spec.coarse_px] = encoded(coarse, np.stack([shrunk(one, factor) for one in stained]))
        self.slides: dict[str, Patient] = {}
        self.encoded = 0  # since: everything is known

    def features(self, key: FeatureKey, cells: NDArray[np.int64], encode: Any) -> NDArray[np.float32]:
        """Features (N, D) of a slide's cells (N,) at a scale."""
        patient = self.slides[key.content]
        return self.known[patient.site, key.px][patient.cells.ravel()[cells]]

    def cohort(self, *, seed: int, train: int, test: int) -> dict[str, list[Patient]]:
        """Patients to train on and patients that are held out, whose images share no source."""
        dealt = deal_sources(self.stock.images, seed=seed)
        pools = np.array([dealt[image.source] for image in self.stock.images])[self.images]
        labels = np.array([image.label for image in self.stock.images])[self.images]
        found: dict[str, list[Patient]] = {}
        for part, (pool, count) in enumerate(zip(POOLS, (train, test), strict=True)):
            kinds = [np.flatnonzero((pools == pool) & (labels == label)) for label in (0, 1)]
            found[pool] = [draw_patient(f"{seed} {pool} {i}", kinds, [seed, part, i]) for i in range(count)]
            self.slides |= {one.name: one for one in found[pool]}
        return found


def encoded(backbone: Backbone, tiles: Pixels) -> NDArray[np.float32]:
    """Features (n, D) of tiles (n, P, P, 3)."""
    parts = torch.from_numpy(tiles).split(64)
    return np.concatenate([backbone(part).numpy() for part in parts])


def draw_patient(name: str, kinds: Sequence[NDArray[np.int64]], seed: Sequence[int]) -> Patient:
    """A slide of tiles of other tissue and of carcinoma, and what becomes of the patient."""
    rng = np.random.default_rng(seed)
    field = draw_tissue(SIDE, rng) > 0
    tissue = field.reshape(SIDE, FIELD_CELLS, SIDE, FIELD_CELLS).mean((1, 3)) >= 0.5
    lesion = grow_lesion(tissue, max(1, round(rng.uniform(0, MOST) * tissue.sum())), rng)
    cells = np.full(tissue.shape, -1, np.int64)
    for where, kind in zip((tissue & ~lesion, lesion), kinds, strict=True):
        cells[where] = rng.choice(kind, where.sum())
    hazard = GAIN * (float(lesion.sum() / tissue.sum()) - MOST / 2) / (MOST / 12**0.5)
    event, end = rng.exponential(np.exp(-hazard)), rng.exponential(1 / LOST)
    return Patient(name, cells, int(rng.integers(SITES)), hazard, float(min(event, end)), bool(event <= end))


def view_of(patient: Patient, spec: ModelSpec) -> View:
    """A slide all of whose features are known, and none of whose pixels are."""
    rows, columns = patient.cells.shape

    def key(px: int) -> Callable[[str, int], FeatureKey]:
        return lambda encoder, dim: FeatureKey(patient.name, encoder, dim, spec.patch_mpp * TILE_PX / px, px, ())

    def unread(cells: NDArray[np.int64]) -> Any:
        raise AssertionError("all features are known")

    rgb = np.full((rows * spec.cell_px, columns * spec.cell_px, 3), 200, np.uint8)
    coarse_key = key(spec.coarse_px) if spec.coarse_px else None
    return View(rgb, patient.cells >= 0, unread, coarse=unread, key=key(TILE_PX), coarse_key=coarse_key)


def fitted(config: Config, tiles: Tiles, patients: Sequence[Patient], *, seed: int) -> EvidenceModel | ExhaustiveModel:
    """A model as `saccade train` fits it, whose members are weighed by the patients that they did not see."""
    spec = model_spec(config, TASK)
    torch.manual_seed(seed)
    model = build_model(spec, store=tiles)
    assert isinstance(model, EvidenceModel | ExhaustiveModel)
    targets = torch.tensor([[one.time, one.event] for one in patients], dtype=torch.float64)
    names = [one.name for one in patients]
    bags = draw_bags(names, [str(one.event) for one in patients], spec.members, seed=seed)

    def view(index: int) -> View:
        return view_of(patients[index], spec)

    with tempfile.TemporaryDirectory() as folder:
        settings = {**fit_settings(config, spec), "seed": seed}
        beside = {"checkpoint": Path(folder) / "fit.ckpt", "device": "cpu", "say": lambda line: None}
        fit(model, view, targets, samples=spec.samples, bags=bags, **beside, **settings)
    model.eval()
    settle(model, TrainingSlides(len(names), view), targets, names, bags, samples=spec.samples, seed=seed)
    return model


def risks_of(
    model: EvidenceModel | ExhaustiveModel, patients: Sequence[Patient], *, samples: int | None = None, seed: int = 0
) -> list[float]:
    """Risks of patients; by default from as many patches as the model reads."""
    generator = torch.Generator().manual_seed(seed)
    views = (view_of(one, model.spec) for one in patients)
    return [float(model.sample(view, generator=generator, samples=samples).prediction.values[0]) for view in views]


def measure(tiles: Tiles, config: Callable[..., Config], *, seed: int, train: int, test: int) -> dict[str, Any]:
    """Fit every way on a cohort, and judge all on its held-out patients."""
    cohort = tiles.cohort(seed=seed, train=train, test=test)
    unseen, learnt_from = cohort["test"], cohort["train"]
    model = fitted(config(), tiles, learnt_from, seed=seed)
    n, every = model.spec.samples, SIDE * SIDE
    ways = {
        f"the model, {n} patches": risks_of(model, unseen, seed=seed),
        "the same model, all patches": risks_of(model, unseen, samples=every, seed=seed),
    }
    for name, head in (("its head on all patches", "evidence"), ("gated MIL", "gated"), ("mean", "mean")):
        whole = fitted(config("model.kind=exhaustive", f"model.head={head}"), tiles, learnt_from, seed=seed)
        ways[f"exhaustive: {name}"] = risks_of(whole, unseen)
    ways[TRUTH] = [one.hazard for one in unseen]
    return {"seed": seed, "samples": n, "events": sum(one.event for one in unseen), "ways": judged(ways, unseen)}


def judged(ways: Mapping[str, Sequence[float]], patients: Sequence[Patient]) -> dict[str, Any]:
    """Of each way its C-index, and the first one's less it."""
    names = [one.name for one in patients]
    label = [{"label_time": one.time, "label_event": int(one.event)} for one in patients]
    rows = {way: [{**told, RISK: risk} for told, risk in zip(label, risks, strict=True)] for way, risks in ways.items()}
    first = next(iter(rows.values()))
    found = {}
    for way, own in rows.items():
        apart: Difference | None = None if own is first else TASK.difference(first, own, names)
        found[way] = {
            "c_index": TASK.evaluate(own, names)["c_index"],
            "model_minus": None if apart is None else apart._asdict(),
        }
    return found


def lines_of(record: Mapping[str, Any]) -> list[str]:
    """What was found of a seed."""
    lines = []
    for way, one in record["ways"].items():
        score, apart = one["c_index"], one["model_minus"]
        line = f"seed {record['seed']}, {way:36} C-index {score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
        if apart is not None:
            line += f", the model's less it {apart['value']:+.3f}"
            line += "" if apart["low"] is None else f" [{apart['low']:+.3f}, {apart['high']:+.3f}]"
        lines.append(line)
    return lines


def summary(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Means over seeds, whose patients are others."""
    lines = []
    for way in records[0]["ways"]:
        each = [record["ways"][way] for record in records]
        line = f"{len(records)} seeds, {way:36} C-index {np.mean([one['c_index']['value'] for one in each]):.3f}"
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
    parser.add_argument("--train", type=int, default=100, help="patients to train on")
    parser.add_argument("--test", type=int, default=200, help="patients that are held out")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--results", type=Path, default=RESULTS)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "config.yaml"
        table.write_text("cohort: {table: cohort.csv, time: time, event: event}\n")

        def config(*more: str) -> Config:
            return load_config(table, [*SCALES, *told.changes, *more])

        setting = {"set": told.changes, "train": told.train, "test": told.test}
        tiles: Tiles | None = None
        found = []
        for seed in told.seeds:
            known = [r for r in read_records(told.results) if r["seed"] == seed and r.items() >= setting.items()]
            if not known:
                tiles = tiles or Tiles(stock_of(), model_spec(config(), TASK))
                record = measure(tiles, config, seed=seed, train=told.train, test=told.test) | setting
                append_record(told.results, record)
                known = [record]
            found.append(known[-1])
            print("\n".join(lines_of(known[-1])), flush=True)
    print("\n".join(summary(found)))
    print(json.dumps({"benchmark": "survival", **setting, "seeds": told.seeds}))


def stock_of() -> TileStock:
    """Images that tiles are cut from."""
    return make_stock(crchistophenotypes(data_folder()), tile_px=TILE_PX, seed=0)


if __name__ == "__main__":
    main()
