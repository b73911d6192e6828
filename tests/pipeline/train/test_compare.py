"""`saccade train --compare`: plain ways to read a slide beside the model, on the same splits and features."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backbones import tiny
from makers import striped_cohort

from pipeline.cohort.training_table import read_training_table
from pipeline.config import Config, load_config
from pipeline.errors import UsageError
from pipeline.model.build import build_model
from pipeline.task.classes import Classes
from pipeline.train.baselines import Baseline, Reading
from pipeline.train.looks import Looks
from pipeline.train.spec import model_spec
from pipeline.train.train import train_cohort

__all__ = ["tiny"]  # a fixture

FAST = [
    *("view.attention_mpp=8", "view.patch_mpp=0.5", "view.patch_px=32", "attention.components=6", "sampling.samples=8"),
    *("attention.fine_components=6", "training.members=2", "training.epochs=2", "training.device=cpu"),
    *("training.calibration_slides=0", "training.compare=true"),
]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return striped_cohort(tmp_path_factory.mktemp("cohort"), train=5, test=4)


def config(cohort: Path, *more: str) -> Config:
    return load_config(cohort / "config.yaml", [*FAST, f"reading.features={cohort / 'features'}", *more])


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "comparison.csv").open(newline="") as file:
        return {row["way"]: row for row in csv.DictReader(file)}


def test_one_table_and_no_row_is_made_twice(cohort: Path, tmp_path: Path, tiny: Any) -> None:
    lines: list[str] = []
    metrics = train_cohort(config(cohort), tmp_path, say=lines.append)
    rows = table(tmp_path)
    assert list(rows) == [
        *("this model", "all cells, gated MIL", "all cells, mean", "8 at random", "top 8 by attention (biased)"),
        "fixed top 25 by hematoxylin",
    ]
    own, all_cells = rows["this model"], rows["all cells, gated MIL"]
    assert float(own["auroc"]) == pytest.approx(metrics["test"]["auroc"]["value"])  # what is in predictions.csv
    assert own["minus_model"] == ""
    assert all(row["minus_model"] and row["slides"] == "4" for row in rows.values() if row is not own)
    read = {way: float(row["patches_per_slide"]) for way, row in rows.items()}
    assert read["8 at random"] == read["top 8 by attention (biased)"] == 8
    assert read["fixed top 25 by hematoxylin"] == 25
    assert read["all cells, gated MIL"] == read["all cells, mean"] > 40
    assert float(rows["8 at random"]["bytes_per_slide"]) < float(all_cells["bytes_per_slide"])
    assert sum("minus" in line and "AUROC" in line for line in lines) == 1
    assert any(line.startswith("all cells, gated MIL") for line in lines)

    lines.clear()
    train_cohort(config(cohort), tmp_path, say=lines.append)
    assert sum("is up to date" in line for line in lines) == 6
    again = table(tmp_path)
    for way, row in rows.items():
        kept = [name for name in row if name != "seconds_per_slide" or way != "this model"]
        assert [again[way][name] for name in kept] == [row[name] for name in kept]

    lines.clear()  # the model is another: what follows its attention is, too
    train_cohort(config(cohort, "attention.uniform=0.5"), tmp_path, say=lines.append)
    assert [line for line in lines if line.endswith("fitting")] == ["comparison: top 8 by attention (biased): fitting"]


def test_every_fold_has_its_baselines(cohort: Path, tmp_path: Path, tiny: Any) -> None:
    lines: list[str] = []
    more = ("training.folds=2", "model.kind=exhaustive", "model.head=gated", "training.epochs=1")
    train_cohort(config(cohort, *more), tmp_path, say=lines.append)
    rows = table(tmp_path)
    # it is not compared with itself, and has no attention before it has read everything
    assert list(rows) == ["this model", "all cells, mean", "8 at random", "fixed top 25 by hematoxylin"]
    assert {(row["part"], row["slides"]) for row in rows.values()} == {("cross-validation", "9")}
    assert {path.parent.parent.name for path in tmp_path.glob("*/compare/*.json")} == {"fold-0", "fold-1"}


def test_of_survival_the_table_has_c_indices_and_what_each_way_is_apart(
    cohort: Path, tmp_path: Path, tiny: Any
) -> None:
    """Whose first metric, label and values are others, and which has no class that could be lost."""
    rows = read_training_table(cohort / "cohort.csv", label="label").slides
    table_ = "slide,patient,split,mpp,time,event\n" + "".join(
        f"{slide.path},{slide.patient},{slide.split},0.5,{3 + (i * 7) % 5},{int(i % 4 > 0)}\n"
        for i, slide in enumerate(rows)
    )
    (tmp_path / "cohort.csv").write_text(table_)
    (tmp_path / "config.yaml").write_text("cohort: {table: cohort.csv, time: time, event: event}\n")
    lines: list[str] = []
    metrics = train_cohort(
        config(tmp_path, f"reading.features={cohort / 'features'}"), tmp_path / "m", say=lines.append
    )
    found = table(tmp_path / "m")
    assert len(found) == 6
    assert float(found["this model"]["c_index"]) == pytest.approx(metrics["test"]["c_index"]["value"])
    others = [row for way, row in found.items() if way != "this model"]
    own = float(found["this model"]["c_index"])
    assert all(float(row["minus_model"]) == pytest.approx(float(row["c_index"]) - own, abs=1e-6) for row in others)
    assert all(0 < float(row["minus_model_p"]) <= 1 for row in others)
    assert sum("C-index" in line and "minus this model" in line for line in lines) == 1


def test_what_a_baseline_reads(cohort: Path, tiny: Any) -> None:
    told = config(cohort)
    slides = read_training_table(told.cohort.table, label="label").slides
    model = build_model(model_spec(told, Classes(("a", "b")))).eval()
    looks = Looks(model, None, lambda line: None)

    def read(rule: Any, cells: int | None = 8, turn: int = 0, seed: int = 0) -> list[int]:
        view = Reading(Baseline("", "mean", rule, cells), model, looks, seed).view(slides[0], turn)
        return [int(cell) for cell in np.flatnonzero(view.tissue)]

    tissue = np.flatnonzero(looks(slides[0]).tissue)
    assert read("all", None) == tissue.tolist()
    for rule in ("random", "attention", "stain"):
        assert len(read(rule)) == 8
        assert set(read(rule)) <= set(tissue.tolist())
        assert read(rule) == read(rule)
        assert read(rule, 10_000) == tissue.tolist()
        # attention costs what the model saw to make it; the others cost none of that
        costs = Reading(Baseline("", "mean", rule, 8), model, looks, 0).look(slides[0])  # type: ignore[arg-type]
        assert (costs.surveyor is not None) == (rule == "attention")
    assert read("random", turn=1) != read("random", turn=2)
    assert read("random", seed=1) != read("random", seed=2)
    assert read("stain", turn=1) == read("stain", turn=2)
    shown = model.attend(looks(slides[0]).view).shown
    assert shown is not None
    assert float(shown[read("attention")].min()) >= float(shown.sort(descending=True).values[7])


def test_it_needs_a_frozen_encoder(cohort: Path) -> None:
    with pytest.raises(UsageError, match=r"training\.compare needs a frozen encoder"):
        config(cohort, "attention.kind=uniform", "encoder.name=small")
