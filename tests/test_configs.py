"""The files in configs/: each says what it is for, loads, and does what it says, on few slides and for one epoch."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from backbones import tiny as tiny
from bags import write_cohort
from makers import ROOT, tissue_pixels, write_slide

from benchmarks.mosaics.plan import Recipe
from benchmarks.mosaics.tiles import crchistophenotypes
from benchmarks.paper import colon_slides, megapixel
from benchmarks.paper.colon import run
from benchmarks.paper.colon_images import Colon, load_colon
from benchmarks.paper.config import ColonTask, MegapixelTask, Task, read_task
from benchmarks.paper.records import read_records
from benchmarks.real_tissue import measure
from benchmarks.tissue_mosaics import make_cohort
from pipeline.config import load_config, load_distil_config
from pipeline.errors import UsageError
from pipeline.train.train import train_cohort

CONFIGS = ROOT / "configs"
SHORT = ("training.epochs=1", "training.members=2", "training.calibration_slides=0", "training.warm_up=0")
PAPER: dict[str, type[Task]] = {"colon": ColonTask, "megapixel": MegapixelTask, "megapixel-small": MegapixelTask}


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_a_configuration_says_its_purpose_command_time_and_what_to_expect(path: Path) -> None:
    if path.parent.name == "clusters":
        return  # for other programs: see test_clusters.py
    text = path.read_text(encoding="utf-8")
    header = text[: re.search(r"^(?!#)", text, re.MULTILINE).start()]  # type: ignore[union-attr]
    commands = re.findall(r"(?:python (benchmarks/\S+\.py)|saccade (demo|train|distil)\b)", header)
    assert commands
    assert all((ROOT / script).exists() for script, _ in commands if script)
    assert all(path.name == name for name in re.findall(r"saccade \w+ configs/(\S+)", header))
    assert re.search(r"\b(seconds|minutes?|hours?)\b|Not run yet", header), "how long it takes"
    assert re.search(r"\bExpect\b|\bpublished\b", header), "what comes of it"
    assert all((ROOT / page).exists() for page in re.findall(r"docs/\S+\.md", header))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_a_configuration_loads(path: Path) -> None:
    (load_distil_config if path.name == "distil.yaml" else load_config)(path)


@pytest.mark.parametrize("path", sorted((CONFIGS / "paper").glob("*.yaml")), ids=lambda path: path.name)
def test_a_configuration_of_the_paper_loads(path: Path) -> None:
    if "rows" in yaml.safe_load(path.read_text()):
        assert read_task(path, PAPER.get(path.stem, Task)).rows
    else:
        load_config(path)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve slides of 0.3 mm along a side, that all columns of a table may be told of."""
    folder = tmp_path_factory.mktemp("few")
    made = [(folder / f"s{i:02}.tif", tissue_pixels(640 + 8 * i, 600, margin=0.05)) for i in range(12)]
    return [write_slide(path, image, levels=2, factor=4) for path, image in made]


def train(name: str, slides: list[Path], out: Path, columns: dict[str, list[Any]], *changes: str) -> dict[str, Any]:
    """The metrics of a shortened training by a configuration, on a table with these columns."""
    with (out / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide", *columns])
        writer.writerows(zip(slides, *columns.values(), strict=True))
    table = f"cohort.table={json.dumps(str(out / 'table.csv'))}"
    config = load_config(CONFIGS / f"{name}.yaml", [table, *SHORT, "sampling.samples=4", *changes])
    return train_cohort(config, out / "model", say=lambda line: None)


PATIENTS = [f"p{i}" for i in range(12)]
LABELS = ["normal", "tumour"] * 6
SPLIT = ["train"] * 8 + ["test"] * 4


@pytest.mark.usefixtures("tiny")
def test_multi_site_judges_every_site_by_a_model_that_has_not_seen_it(slides: list[Path], tmp_path: Path) -> None:
    sites = [f"site {i // 3}" for i in range(12)]
    metrics = train("multi-site", slides, tmp_path, {"patient": PATIENTS, "label": LABELS, "site": sites})
    assert sorted(metrics["cross-validation"]["sites"]) == sorted(set(sites))
    with (tmp_path / "model" / "splits.csv").open() as file:
        fold_of = {row["slide_id"]: row["fold"] for row in csv.DictReader(file)}
    assert {(sites[i], fold_of[f"s{i:02}"]) for i in range(12)} == {(site, site[-1]) for site in sites}


@pytest.mark.usefixtures("tiny")
def test_survival_tells_a_risk_and_the_chance_after_one_two_and_five_years(slides: list[Path], tmp_path: Path) -> None:
    columns = {"patient": PATIENTS, "time": [0.5 + i / 2 for i in range(12)], "event": [1, 0] * 6}
    metrics = train("survival", slides, tmp_path, columns)
    assert metrics["cross-validation"]["c_index"]["value"] is not None
    with (tmp_path / "model" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    rows = [row for row in rows if row["part"] == "cross-validation"]
    assert len(rows) == 12
    for row in rows:
        one, two, five = (float(row[f"survival_{years}"]) for years in (1, 2, 5))
        assert 1 >= one >= two >= five >= 0
        assert row["risk_score"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo", "real-tissue", "camelyon16", "frozen-encoder", "default"])
def test_a_configuration_of_classes_trains(name: str, slides: list[Path], tmp_path: Path) -> None:
    """The last but one with the encoder that is here, in place of one that few may pass on."""
    columns = {"label": LABELS, "split": SPLIT}
    metrics = train(name, slides, tmp_path, columns, *["encoder.name=lite0"] * (name == "frozen-encoder"))
    assert metrics["test"]["slides"] == 4
    assert not metrics["excluded"]


def test_a_frozen_encoder_whose_weights_are_not_here_is_one_line(slides: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^encoder: [^\n]*owkin/phikon[^\n]*$"):
        train("frozen-encoder", slides, tmp_path, {"label": LABELS, "split": SPLIT})


@pytest.mark.slow
def test_from_bags_trains_and_compares_every_head_without_a_slide(tmp_path: Path) -> None:
    write_cohort(tmp_path, slides=8)
    cohort, bags = (json.dumps(str(tmp_path / name)) for name in ("cohort.csv", "bags"))
    config = load_config(
        CONFIGS / "from-bags.yaml", [f"cohort.table={cohort}", f"cohort.bags={bags}", *SHORT, "training.folds=2"]
    )
    metrics = train_cohort(config, tmp_path / "model", say=lambda line: None)
    assert metrics["cross-validation"]["slides"] == 8
    with (tmp_path / "model" / "comparison.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 1 + 3 + 1  # itself, the other heads, some at random


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two-level", "camelyon16-two-level"])
def test_a_configuration_of_two_levels_trains(name: str, slides: list[Path], tmp_path: Path) -> None:
    metrics = train(name, slides, tmp_path, {"label": LABELS, "split": SPLIT}, "attention.region_samples=2")
    assert metrics["test"]["slides"] == 4


@pytest.mark.slow
@pytest.mark.realdata
def test_real_tissue_trains_on_mosaics_of_it(shared_data: Path, tmp_path: Path) -> None:
    recipe = Recipe(lesion=0.2, train=8, test=4, side=8, sites=1)
    make_cohort(tmp_path / "cohort", crchistophenotypes(shared_data)[::4], recipe)
    found = measure(tmp_path / "cohort", tmp_path / "out", seed=0, swapped=False, changes=list(SHORT))
    assert 0 <= found["auroc"]["value"] <= 1


@pytest.mark.slow
@pytest.mark.realdata
def test_colon_slides_trains(shared_data: Path, tmp_path: Path) -> None:
    table = colon_slides.write_cohort(load_colon(shared_data), tmp_path)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    few = [row for part in ("train", "val", "test") for row in [r for r in rows if r["split"] == part][:4]]
    columns = {name: [row[name] for row in few] for name in ("label", "split")}
    metrics = train("paper/colon-slides", [tmp_path / row["slide"] for row in few], tmp_path, columns)
    assert metrics["test"]["slides"] == 4


@pytest.mark.slow
@pytest.mark.realdata
def test_colon_trains_a_row_of_each_kind(shared_data: Path, tmp_path: Path) -> None:
    """On ten of the images, in two folds."""
    colon = load_colon(shared_data)
    few = [*(colon.labels == 0).nonzero().flatten().tolist()[:5], *(colon.labels == 1).nonzero().flatten().tolist()[:5]]
    parts = (tuple(colon.names[i] for i in few), colon.images[few], colon.labels[few])
    ten = Colon(*parts, tuple(colon.nuclei[i] for i in few))
    told = read_task(CONFIGS / "paper/colon.yaml", ColonTask).model_dump()
    kinds = {row["kind"]: name for name, row in reversed(told["rows"].items())}
    for row in told["rows"].values():
        row["training"] = {**row["training"], "epochs": 1}
        row["self_supervised"] = min(row["self_supervised"], 2)
    task = ColonTask.model_validate({**told, "folds": 2})
    run(ten, task, tmp_path / "records.jsonl", sorted(kinds.values()), 1, float("inf"))
    records = read_records(tmp_path / "records.jsonl")
    assert {(record["row"], record["fold"]) for record in records} == {(n, f) for n in kinds.values() for f in (0, 1)}


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("name", ["megapixel", "megapixel-small"])
def test_megapixel_trains(name: str, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = read_task(CONFIGS / f"paper/{name}.yaml", MegapixelTask).model_dump(mode="json")
    told |= {
        "images": {"train": 8, "val": 4, "test": 4},
        "training": {**told["training"], "epochs": 1, "batch_size": 4},
    }
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(told))
    monkeypatch.setenv("SACCADE_DATA", str(shared_data))
    results = tmp_path / "results.jsonl"
    monkeypatch.setattr(
        "sys.argv", ["megapixel", str(tmp_path / "short.yaml"), "--rows", "ats10", "--results", str(results)]
    )
    megapixel.main()
    assert len(read_records(results)[0]["correct"]) == 4
