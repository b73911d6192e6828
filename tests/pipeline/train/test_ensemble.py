"""A nested cross-validation from end to end: what is reported chose nothing; its models predict together later."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from makers import tissue_pixels, write_config, write_slide

from pipeline import commands
from pipeline.config import load_config
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model
from pipeline.model.header import ENSEMBLE
from pipeline.train.train import train_cohort
from stages.pyramid.open import open_pyramid

NESTED = [
    *("view.attention_mpp=8", "view.patch_px=32", "encoder.dim=8", "sampling.samples=8", "training.warm_up=0"),
    *("training.epochs=1", "training.batch_size=4", "training.device=cpu", "training.calibration_slides=2"),
    *("training.folds=2", "training.inner_val=0.3", "training.ensemble=true"),
]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight patients of two classes, and a slide of a ninth that stands apart."""
    folder = tmp_path_factory.mktemp("cohort")
    rows = ["slide,patient,label"]
    for i in range(9):
        write_slide(folder / f"s{i}.tif", tissue_pixels(420 + 7 * i, 400 + 3 * i, margin=0.1), levels=2, factor=4)
        rows += [f"s{i}.tif,p{i},{'ab'[i % 2]}"] if i < 8 else []
    (folder / "cohort.csv").write_text("\n".join(rows))
    write_config(folder)
    return folder


@pytest.fixture(scope="module")
def trained(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The training's folder, and what was said."""
    out, said = tmp_path_factory.mktemp("trained"), list[str]()
    train_cohort(load_config(cohort / "config.yaml", NESTED), out, say=said.append)
    return out, said


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["slide_id"]: row for row in csv.DictReader(file)}


def roles(fold: Path, role: str) -> set[str]:
    told = json.loads((fold / "training.json").read_text())["made_of"]["slides"]
    return {name for name, slide in told.items() if slide["role"] == role}


def test_what_is_reported_has_chosen_nothing(trained: tuple[Path, list[str]]) -> None:
    """Each slide is predicted once, by the model to which it was neither to train on nor val."""
    out, said = trained
    rows = table(out / "predictions.csv")
    assert len(rows) == 8
    assert {row["part"] for row in rows.values()} == {"cross-validation"}
    for fold in (out / "fold-0", out / "fold-1"):
        tested = {name for name, row in rows.items() if row["fold"] == fold.name}
        assert len(tested) == 4
        assert not tested & (roles(fold, "train") | roles(fold, "val"))
        assert len(roles(fold, "val")) == 2
    assert json.loads((out / "metrics.json").read_text()).keys() >= {"cross-validation"}
    assert not any(line.startswith("val:") for line in said)


def test_a_checkpoint_knows_by_whom_its_epoch_was_chosen(cohort: Path, trained: tuple[Path, list[str]]) -> None:
    for fold in (trained[0] / "fold-0", trained[0]):
        model = load_model(fold / "model.safetensors")
        for seen, role in ((model.trained_on, "train"), (model.validated_on, "val")):
            assert seen == {open_pyramid(cohort / f"{name}.tif").facts.fingerprint for name in roles(fold, role)}


def test_the_ensemble_says_of_the_training_s_own_slides_what_cross_validation_said(
    cohort: Path, trained: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """Each is predicted by the one model that was made without it; so that all of them count."""
    summary = commands.run(cohort / "cohort.csv", trained[0], out=tmp_path, ensemble=True, device="cpu", workers=0)
    assert (summary.metrics["slides"], summary.not_counted) == (8, {})
    own, said = table(trained[0] / "predictions.csv"), table(tmp_path / "predictions.csv")
    for name, row in said.items():
        assert "models of the ensemble that were made with this slide" in row["warnings"]
        for column in ("prob_a", "prob_b_low", "prob_b_high"):
            assert float(row[column]) == pytest.approx(float(own[name][column]), abs=1e-5)
    single = commands.run(cohort / "cohort.csv", trained[0], out=tmp_path / "single", device="cpu", workers=0)
    assert single.not_counted == {"trained on": 6, "validated on": 2}
    assert single.metrics == {}


def test_another_slide_is_predicted_by_all_with_intervals_of_their_own_calibration(
    cohort: Path, trained: tuple[Path, list[str]], tmp_path: Path
) -> None:
    summary = commands.run(cohort / "s8.tif", trained[0], out=tmp_path, ensemble=True, device="cpu", workers=0)
    (row,) = summary.rows
    assert row["seen"] is None
    assert not any("ensemble" in warning for warning in row["warnings"])
    assert row["patches_read"] <= 8, "one draw for all"
    ensemble = load_model(trained[0] / ENSEMBLE)
    assert ensemble.calibration is not None
    with pytest.raises(UsageError, match="calls are calibrated of single models"):
        commands.run(cohort / "s8.tif", trained[0], out=tmp_path, ensemble=True, refer=0.1, workers=0)


def test_a_rerun_puts_nothing_together_anew(cohort: Path, trained: tuple[Path, list[str]]) -> None:
    out, _ = trained
    before, said = (out / ENSEMBLE).read_bytes(), list[str]()
    train_cohort(load_config(cohort / "config.yaml", NESTED), out, say=said.append)
    assert (out / ENSEMBLE).read_bytes() == before
    assert not any(line.startswith("calibrating") for line in said)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (["training.folds=null", "training.inner_val=0"], "the slides are split; leave it out, or set training.folds"),
        (["attention.inner_mpp=4"], r"look twice \(attention.inner_mpp\) are not averaged; leave it out"),
    ],
)
def test_what_could_not_be_put_together_is_refused_before_a_slide_is_read(
    cohort: Path, tmp_path: Path, told: list[str], words: str
) -> None:
    table = tmp_path / "cohort.csv"
    rows = (cohort / "cohort.csv").read_text().splitlines()
    split = [f"{cohort}/{row},{('train', 'test')[i > 4]}" for i, row in enumerate(rows[1:])]
    table.write_text("\n".join([f"{rows[0]},split", *split]))
    config = load_config(cohort / "config.yaml", [*NESTED, f"cohort.table={table}", *told])
    with pytest.raises(UsageError, match=words):
        train_cohort(config, tmp_path / "out", say=pytest.fail)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_repeats_are_reported_by_their_mean(cohort: Path, tmp_path: Path) -> None:
    told: list[Any] = [*NESTED, "training.repeats=2", "training.ensemble=false"]
    said: list[str] = []
    metrics = train_cohort(load_config(cohort / "config.yaml", told), tmp_path, say=said.append)
    found = metrics["cross-validation"]
    assert (found["slides"], found["patients"]) == (8, 8)
    aurocs = found["repeats"]["auroc"]
    assert found["auroc"]["value"] == pytest.approx(sum(aurocs) / 2)
    assert any("; mean of 2 repeats" in line for line in said)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        assert [row["repeat"] for row in csv.DictReader(file)] == ["0"] * 8 + ["1"] * 8
