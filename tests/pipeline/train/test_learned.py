"""A training says whether its model has learned; the checkpoint, and every run with it, say so again."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoders import lite0_file
from makers import tissue_pixels, write_slide

from pipeline.commands import read_cohort
from pipeline.config import load_config
from pipeline.model.checkpoint import load_model
from pipeline.model.quality import Quality
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort
from pipeline.statistics.metrics import evaluate
from pipeline.task.survival import Survival
from pipeline.train.train import train_cohort
from pipeline.train.verdict import Losses, closing, judge_quality

SLIDES = 24
FAST = [
    *("view.patch_px=32", "view.patch_mpp=1", "attention.enlarge=1", "attention.components=8"),
    *("attention.fine_components=4", "sampling.samples=8", "training.members=8", "training.epochs=6"),
    *("training.device=cpu", "training.calibration_slides=0"),
]


def truth(i: int) -> str:
    return "ab"[i % 2]


def by_lot(i: int) -> str:
    """Of either look as many of each class."""
    return "ab"[i // 2 % 2]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides half of which have a corner of another tissue; tables with their labels, and with others."""
    lite0_file()
    folder = tmp_path_factory.mktemp("cohort")
    for i in range(SLIDES):
        image = tissue_pixels(400 + 4 * i, 400, margin=0.1)
        if i % 2:
            image[80:240, 80:240:2] //= 3
        write_slide(folder / f"s{i}.tif", image, levels=2, factor=4)
    for name, label in (("truth", truth), ("lot", by_lot)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["slide", "patient", "label", "split"])
            writer.writerows([f"s{i}.tif", f"p{i}", label(i), "train" if i < 20 else "test"] for i in range(SLIDES))
        (folder / f"{name}.yaml").write_text(f"cohort: {{table: {name}.csv}}\nreading: {{features: features}}\n")
    return folder


def trained(cohort: Path, name: str) -> tuple[Path, dict[str, Any], list[str]]:
    lines: list[str] = []
    metrics = train_cohort(load_config(cohort / f"{name}.yaml", FAST), cohort / f"out-{name}", say=lines.append)
    return cohort / f"out-{name}", metrics, lines


def test_a_separable_cohort_is_learned_and_a_rerun_says_the_same(cohort: Path) -> None:
    out, metrics, lines = trained(cohort, "truth")
    assert metrics["learned"] == "yes", metrics["reason"]
    assert metrics["out-of-bag"]["patients"] > 16
    assert metrics["out-of-bag"]["auroc"]["low"] > 0.5
    assert not any("WARNING" in line for line in lines)
    with (out / "predictions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "out-of-bag"]
    assert len(rows) == metrics["out-of-bag"]["slides"]
    assert json.loads((out / "training.json").read_text())["spread_of_members"] > 0
    written = {name: (out / name).read_bytes() for name in ("predictions.csv", "metrics.json", "model.safetensors")}
    _, again, lines = trained(cohort, "truth")
    assert any("is up to date" in line for line in lines)
    assert again == metrics
    assert written == {name: (out / name).read_bytes() for name in written}


def test_labels_by_lot_are_not_learned_which_every_run_says_again(cohort: Path, tmp_path: Path) -> None:
    out, metrics, lines = trained(cohort, "lot")
    assert metrics["learned"] == "no", metrics["reason"]
    assert any(line.startswith("WARNING: this model has not learned to tell its classes apart: ") for line in lines)
    assert any(line.startswith("to try next: ") for line in lines)
    quality = load_model(out).quality
    assert quality is not None
    assert quality.warning is not None
    target = read_cohort(cohort / "s0.tif")
    summary = run_cohort(target, tmp_path, RunSettings(out, device="cpu"))
    assert summary.quality == quality
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["quality"] == json.loads((tmp_path / "slides/s0/prediction.json").read_text())["quality"]
    assert run["warning"] == quality.warning
    page = (tmp_path / "report.html").read_text()
    assert "Warning: this model has not learned to tell its classes apart" in page
    assert page.index("Warning: this model") < page.index("slides predicted")


def part(
    auroc: float | None, low: float | None, high: float | None, patients: int = 30, by_chance: float = 0.7
) -> dict[str, Any]:
    score = {"value": auroc, "low": low, "high": high}
    counts = {"a": patients // 2, "b": patients - patients // 2}
    told = {"slides_per_class": counts, "right_per_class": counts, "balanced_accuracy": score}
    return {"slides": patients, "patients": patients, "auroc": score, "auroc_by_chance": by_chance, **told}


FITTED, GUESSING = Losses(0.3, 0.05, 0.69), Losses(0.68, 0.05, 0.69)
LUCKY = part(1.0, 0.501, 1.0, 6, 1.05)
GOOD, CHANCE, FEW = part(0.9, 0.8, 0.95), part(0.52, 0.4, 0.64), part(0.7, 0.3, 0.95, 6)


@pytest.mark.parametrize(
    ("metrics", "losses", "learned", "of"),
    [
        ({"val": GOOD}, FITTED, "yes", "val"),
        ({"val": CHANCE, "out-of-bag": GOOD}, FITTED, "no", "val"),
        ({"cross-validation": CHANCE, "out-of-bag": GOOD}, FITTED, "no", "cross-validation"),
        ({"val": GOOD, "test": part(0.52, 0.4, 0.64, 60)}, FITTED, "no", "test"),
        ({"val": part(0.9, 0.8, 0.95, 60), "test": CHANCE}, FITTED, "yes", "val"),
        ({"val": GOOD, "test": CHANCE}, FITTED, "no", "test"),
        ({"val": FEW, "test": part(0.7, 0.3, 0.95, 8)}, FITTED, "unclear", "test"),
        ({"val": GOOD, "test": part(0.7, 0.3, 0.95, 60)}, FITTED, "yes", "val"),
        ({"test": GOOD, "out-of-bag": part(0.52, 0.4, 0.64, 300)}, FITTED, "yes", "test"),
        ({"val": FEW}, FITTED, "unclear", "val"),
        ({"val": FEW, "out-of-bag": GOOD}, FITTED, "yes", "out-of-bag"),
        ({"val": FEW, "out-of-bag": CHANCE}, FITTED, "no", "out-of-bag"),
        ({"test": LUCKY}, FITTED, "unclear", "test"),
        ({"test": LUCKY, "out-of-bag": GOOD}, FITTED, "yes", "out-of-bag"),
        ({"test": LUCKY, "out-of-bag": CHANCE}, FITTED, "no", "out-of-bag"),
        ({"test": part(0.2, 0.1, 0.4)}, FITTED, "no", "test"),
        ({"val": part(1.0, None, None, 1)}, FITTED, "unclear", "val"),
        ({"val": FEW}, GUESSING, "no", "val"),
        ({"val": GOOD}, GUESSING, "unclear", "val"),
        ({}, GUESSING, "no", None),
        ({}, FITTED, "unclear", None),
        ({"val": part(None, None, None)}, None, "unclear", None),
    ],
)
def test_the_verdict(metrics: dict[str, Any], losses: Losses | None, learned: str, of: str | None) -> None:
    found = judge_quality(metrics, losses)
    assert (found.learned, found.part) == (learned, of)
    assert (found.warning is None) == (learned == "yes")
    assert Quality.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_six_patients_are_too_few_however_well_they_are_ranked() -> None:
    """Chance alone hits on the perfect order of three and three once in 20 times, of four and four once in 70."""
    for each, learned in ((3, "unclear"), (4, "yes")):
        labels, patients = ["a"] * each + ["b"] * each, [str(i) for i in range(2 * each)]
        sure = np.array([[0.9, 0.1]] * each + [[0.1, 0.9]] * each)
        assert judge_quality({"test": evaluate(labels, sure, patients, ["a", "b"])}, FITTED).learned == learned
        wrong = judge_quality({"test": evaluate(labels, 1 - sure, patients, ["a", "b"])}, FITTED)
        assert wrong.learned == "no"
        assert ("below chance" in wrong.reason) == (learned == "yes"), wrong.reason


def test_below_chance_is_laid_to_other_slides_only_where_others_were_judged() -> None:
    """Where patients are judged by the others, among whom their class is rarer, lot comes out below chance."""
    told = {name: judge_quality({name: part(0.1, 0.02, 0.37)}, FITTED).reason for name in ("test", "out-of-bag")}
    assert "is not what it was fitted to" in told["test"]
    assert told["out-of-bag"].endswith("was fitted to others, among whom its class is rarer")
    scored = {"slides": 60, "patients": 60, "c_index": {"value": 0.2, "low": 0.1, "high": 0.4}}
    risk = judge_quality({"out-of-bag": scored}, FITTED, Survival(labels=("time", "event")))
    assert "is below chance, 0.5" in risk.reason
    assert "class" not in risk.reason


@pytest.mark.parametrize(
    ("losses", "stuck"),
    [
        (Losses(0.69, 0.001, 0.693), True),
        (Losses(0.60, 0.06, 0.693), True),
        (Losses(0.60, 0.02, 0.693), False),
        (Losses(0.80, 0.02, 0.693), True),
    ],
)
def test_a_loss_at_the_base_rate_is_told_within_noise(losses: Losses, stuck: bool) -> None:
    assert losses.at_base_rate is stuck


def test_digits_do_not_contradict_the_verdict() -> None:
    """An interval from just above chance, or to just below what is of use, is not rounded onto it."""
    found = Quality("yes", "", "val", 40, 40, 0.704, 0.5004, 0.79995)
    assert found.found.startswith("AUROC 0.70 [0.5004, 0.79995] on 40 patients")


def test_a_perfect_ranking_does_not_hide_what_is_missed() -> None:
    """AUROC of 1 with a quarter of the positives on the wrong side of one half."""
    labels = ["no"] * 20 + ["yes"] * 20
    p = np.concatenate([np.linspace(0.01, 0.2, 20), np.linspace(0.3, 0.99, 20)])
    metrics = evaluate(labels, np.stack([1 - p, p], 1), [str(i) for i in range(40)], ["no", "yes"])
    missed = int((p[20:] <= 0.5).sum())
    words = judge_quality({"test": metrics}, None).in_words()
    assert "AUROC 1.00" in words
    assert f"right for 20 of 20 no, {20 - missed} of 20 yes (balanced accuracy" in words
    assert "calls with a stated error" in words
    sure = np.array([[0.9, 0.1]] * 20 + [[0.1, 0.9]] * 20)
    metrics = evaluate(labels, sure, [str(i) for i in range(40)], ["no", "yes"])
    assert "calls with" not in judge_quality({"test": metrics}, None).in_words()


@pytest.mark.parametrize(("metrics", "says"), [({"val": CHANCE}, "has not learned"), ({"val": FEW}, "cannot be told")])
def test_the_last_words_claim_what_was_seen_only(metrics: dict[str, Any], says: str) -> None:
    words = closing(
        judge_quality(metrics, FITTED),
        classes=("a", "b"),
        slides=30,
        patients=30,
        encoder="lite0",
        patch_mpp=0.5,
        model="model.safetensors",
    )
    warned = [line for line in words if line.startswith("WARNING: ")]
    assert len(warned) == 1
    assert says in warned[0]
    assert "an encoder of pathology in place of lite0" in words[-1]
    assert np.all([len(line) < 400 for line in words])
