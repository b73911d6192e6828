"""Training a model of patients: their slides together, from the folds to the metrics."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backbones import tiny
from makers import spoil, tissue_pixels, write_slide

from pipeline.config import Config, load_config
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model
from pipeline.model.look import Look
from pipeline.model.patient_look import patient_look
from pipeline.model.values import View
from pipeline.train.train import train_cohort
from stages.slide.facts import SlideError

__all__ = ["tiny"]  # a fixture

FAST = [
    *("view.attention_mpp=8", "view.patch_mpp=0.5", "view.patch_px=32", "sampling.samples=8"),
    *("training.epochs=3", "training.batch_size=4", "training.device=cpu", "training.calibration_slides=2"),
]
FROZEN = ["attention.components=6", "attention.fine_components=4", "training.members=4", "attention.coarse_mpp=2"]
LEARNED = ["attention.kind=learned", "encoder.name=small", "encoder.dim=8", "training.warm_up=1"]
PATIENTS = {"p0": 2, "p1": 1, "p2": 3, "p3": 2, "p4": 1, "p5": 2, "p6": 2, "p7": 2}
"""How many slides each has."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight patients; of those of class b one slide is finely striped, which tells nothing of the others."""
    folder = tmp_path_factory.mktemp("cohort")
    lines = ["slide,patient,label,split,mpp"]
    for i, (patient, count) in enumerate(PATIENTS.items()):
        for j in range(count):
            image = tissue_pixels(300 + 8 * i, 320 + 8 * j, margin=0.1)
            if i % 2 and j == 0:
                image[60:200, 60:200:2] //= 3
            write_slide(folder / f"{patient}{'abc'[j]}.tif", image, tile=128, levels=2, factor=4)
            lines.append(f"{patient}{'abc'[j]}.tif,{patient},{'ab'[i % 2]},{'train' if i < 6 else 'test'},0.5")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    (folder / "config.yaml").write_text("cohort: {table: cohort.csv, unit: patient}\n")
    return folder


def config(folder: Path, *more: str) -> Config:
    return load_config(folder / "config.yaml", [*FAST, f"reading.features={folder / 'features'}", *more])


def trained(folder: Path, out: Path, *more: str) -> tuple[dict[str, Any], list[str]]:
    lines: list[str] = []
    return train_cohort(config(folder, *more), out, say=lines.append), lines


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_rows_metrics_and_out_of_bag_are_by_patient_whatever_the_tables_order(
    whole: Path, tmp_path: Path, tiny: object
) -> None:
    metrics, lines = trained(whole, tmp_path / "one", *FROZEN)
    rows = rows_of(tmp_path / "one")
    assert [(row["patient"], row["slides"]) for row in rows if row["part"] == "test"] == [("p6", "2"), ("p7", "2")]
    bagged = {row["patient"] for row in rows if row["part"] == "out-of-bag"}
    assert bagged <= {f"p{i}" for i in range(6)}
    assert len(bagged) == sum(row["part"] == "out-of-bag" for row in rows)
    assert metrics["unit"] == metrics["test"]["unit"] == "patient"
    assert metrics["test"]["slides"] == 4
    assert metrics["test"]["patients"] == 2
    assert metrics["slides"] == {"in_table": sum(PATIENTS.values()), "excluded": 0}
    assert any(line.startswith("test: 4 slides of 2 patients") for line in lines)
    model = load_model(tmp_path / "one" / "model.safetensors")
    assert model.spec.unit == "patient"
    assert len(model.trained_on) == sum(list(PATIENTS.values())[:6])
    # the same, with the table's rows the other way round
    turned = shutil.copytree(whole, tmp_path / "turned")
    first, *others = (turned / "cohort.csv").read_text().splitlines()
    (turned / "cohort.csv").write_text("\n".join([first, *others[::-1]]) + "\n")
    trained(turned, tmp_path / "other", *FROZEN)
    again = load_model(tmp_path / "other" / "model.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert sorted(rows_of(tmp_path / "other"), key=str) == sorted(rows, key=str)
    # and nothing is fitted again
    _, lines = trained(whole, tmp_path / "one", *FROZEN)
    assert any("is up to date" in line for line in lines)
    # but where a slide goes to another patient
    text = (turned / "cohort.csv").read_text().replace("p2c.tif,p2", "p2c.tif,p0")
    (turned / "cohort.csv").write_text(text)
    _, lines = trained(turned, tmp_path / "one", *FROZEN)
    assert any("1 slide of another patient (p2c)" in line for line in lines)


@pytest.mark.parametrize(
    "kind",
    [pytest.param("frozen", marks=pytest.mark.slow), "learned", pytest.param("exhaustive", marks=pytest.mark.slow)],
)
def test_a_slide_that_cannot_be_read_is_left_out_and_its_patient_goes_on(
    kind: str, whole: Path, tmp_path: Path, tiny: object
) -> None:
    cohort = shutil.copytree(whole, tmp_path / "cohort")
    for name in ("p2b", "p7a", "p4a"):
        for index in range(9):
            spoil(cohort / f"{name}.tif", 0, index)
    (cohort / "p0b.tif").unlink()
    how = {"frozen": FROZEN, "learned": LEARNED, "exhaustive": ["model.kind=exhaustive", *FROZEN[2:3]]}[kind]
    metrics, lines = trained(cohort, tmp_path / "out", *how)
    assert set(metrics["excluded"]) == {"p0b", "p2b", "p4a", "p7a"}, "p4 has no other"
    assert metrics["excluded"]["p7a"].startswith("when predicted: ")
    assert all(name in why for name, why in metrics["excluded"].items() if name != "p4a")
    assert metrics["test"]["slides"] == 3
    told = {row["patient"]: row["slides"] for row in rows_of(tmp_path / "out") if row["part"] == "test"}
    assert told == {"p6": "2", "p7": "1"}
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert {"p2b", "p4a"} <= set(record["left_out"]) | set(record["calibration"]["left_out"])
    assert sum(line.startswith("left out: p2b") for line in lines) == 1
    _, lines = trained(cohort, tmp_path / "out", *how)
    assert any("is up to date" in line for line in lines)


@pytest.mark.slow
def test_folds_are_of_patients_and_their_models_predict_together(whole: Path, tmp_path: Path, tiny: object) -> None:
    table = (whole / "cohort.csv").read_text()
    cohort = shutil.copytree(whole, tmp_path / "cohort")
    (cohort / "cohort.csv").write_text(table.replace(",split", "").replace(",train", "").replace(",test", ""))
    more = ("training.folds=2", "training.ensemble=true", "training.epochs=1")
    metrics, _ = trained(cohort, tmp_path / "out", *FROZEN, *more)
    assert metrics["cross-validation"]["patients"] == len(PATIENTS)
    assert metrics["cross-validation"]["slides"] == sum(PATIENTS.values())
    with (tmp_path / "out" / "splits.csv").open() as file:
        assert [row["slide_id"] for row in csv.DictReader(file)] == list(PATIENTS)
    ensemble = load_model(tmp_path / "out" / "ensemble.json")
    assert ensemble.spec.unit == "patient"
    assert ensemble.calibration is not None


def test_a_patient_has_one_label(whole: Path, tmp_path: Path) -> None:
    for name in ("cohort.csv", "config.yaml"):
        shutil.copy(whole / name, tmp_path)
    for path in whole.glob("*.tif"):
        (tmp_path / path.name).symlink_to(path)
    text = (tmp_path / "cohort.csv").read_text().replace("p2b.tif,p2,a", "p2b.tif,p2,b")
    (tmp_path / "cohort.csv").write_text(text)
    with pytest.raises(UsageError) as raised:
        trained(tmp_path, tmp_path / "out", *LEARNED)
    assert "patient 'p2' has two labels, 'a' ('p2a') and 'b' ('p2b')" in str(raised.value)
    assert "cohort.unit: slide" in str(raised.value)


@pytest.mark.parametrize(
    "more",
    [
        [*LEARNED, "attention.inner_mpp=4"],
        ["sampling.block=2"],
        ["training.compare=true"],
        [*LEARNED, "training.read_ahead=1"],
    ],
)
def test_what_a_model_of_patients_does_without_is_said(more: list[str], whole: Path) -> None:
    with pytest.raises(UsageError, match="unit: patient does without"):
        config(whole, *more)


@pytest.mark.slow
def test_numbers_are_of_patients_too(whole: Path, tmp_path: Path, tiny: object) -> None:
    cohort = shutil.copytree(whole, tmp_path / "cohort")
    first, *others = (cohort / "cohort.csv").read_text().splitlines()
    told = {patient: 10 * i + 0.5 for i, patient in enumerate(PATIENTS)}
    rows = [line.split(",") for line in others]
    lines = [",".join([slide, patient, f"{told[patient]}", split, mpp]) for slide, patient, _, split, mpp in rows]
    (cohort / "cohort.csv").write_text("\n".join([first, *lines]) + "\n")
    metrics, _ = trained(cohort, tmp_path / "out", *FROZEN)
    assert metrics["task"] == "regression"
    assert np.isfinite(metrics["test"]["mae"]["value"])
    assert [row["label"] for row in rows_of(tmp_path / "out") if row["part"] == "test"] == ["60.5", "70.5"]


def test_a_fit_that_goes_on_does_without_the_slides_that_it_had_left_out(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: object
) -> None:
    """Two slides cannot be read in the second epoch, of the training and of val, and later can: killed after it or not,
    the third draws from the others of their patients."""

    class KilledError(Exception):
        pass

    cohort = shutil.copytree(whole, tmp_path / "cohort")
    text = (cohort / "cohort.csv").read_text()
    (cohort / "cohort.csv").write_text(text.replace("p7,b,test", "p7,b,val").replace("p6,a,test", "p6,a,val"))
    failing: list[str] = []

    def shown(found: Look) -> View:
        def read(block: np.ndarray) -> np.ndarray:
            if found.slide.facts.path.stem in failing:
                raise SlideError("a tile is damaged")
            return block

        def patches(cells: np.ndarray) -> Any:
            pixels = found.reader.patches(cells)
            return pixels.map_blocks(read, dtype=np.uint8, meta=np.empty((0, 0, 0, 0), np.uint8))

        return replace(found.view, patches=patches)

    looked = partial(patient_look, shown=shown)
    monkeypatch.setattr("pipeline.train.looks.patient_look", looked)

    def trained_with(out: Path, *, killed: bool) -> tuple[dict[str, Any], dict[str, torch.Tensor], str]:
        def say(line: str) -> None:
            if line.startswith("epoch "):
                failing[:] = ["p2b", "p7a"] if line.startswith("epoch 1/") else []
            if killed and line.startswith("epoch 3/"):  # what resuming takes of the second is written by then
                raise KilledError

        how = config(cohort, *LEARNED)
        if killed:
            with pytest.raises(KilledError):
                train_cohort(how, out, say=say)
            failing.clear()
        metrics = train_cohort(how, out, say=(lambda line: None) if killed else say)
        model = load_model(out / "model.safetensors").state_dict()
        return metrics, model, (out / "curve.csv").read_text()

    metrics, model, curve = trained_with(tmp_path / "whole", killed=False)
    assert set(metrics["excluded"]) == {"p2b", "p7a"}
    again, gone_on, same_curve = trained_with(tmp_path / "killed", killed=True)
    assert again["excluded"] == metrics["excluded"]
    assert same_curve == curve
    for name, value in model.items():
        assert torch.equal(value, gone_on[name]), name


def test_patients_learn_from_their_own_patches_whichever_of_them_are_kept(whole: Path, tmp_path: Path) -> None:
    """Of patients with one slide some are kept, of the others none: read together, each gets its own."""
    weights = []
    for number, kept in enumerate(("0", "0.0002", "0.1")):
        trained(whole, tmp_path / str(number), *LEARNED, f"reading.patches_gb={kept}")
        weights.append(load_model(tmp_path / str(number) / "model.safetensors").state_dict())
    for one in weights[1:]:
        for name, values in weights[0].items():
            torch.testing.assert_close(one[name], values, rtol=0, atol=0)
