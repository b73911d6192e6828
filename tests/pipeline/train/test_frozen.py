"""`saccade train` on a frozen encoder, the default: slides in, a model out that predicts; nothing encoded twice."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from encoders import lite0_file
from makers import tissue_pixels, write_slide

import saccade
from pipeline.config import Config, load_config
from pipeline.model.checkpoint import load_model
from pipeline.model.evidence_model import EvidenceModel
from pipeline.model.look import look
from pipeline.train.train import train_cohort
from stages.encoder.feature_store import feature_store

FAST = [
    *("view.attention_mpp=8", "view.patch_px=32", "sampling.samples=8", "attention.context=[1,3]"),
    *("attention.components=8", "attention.fine_components=4", "training.members=4", "training.epochs=4"),
    *("training.batch_size=4", "training.calibration_slides=0", "training.device=cpu"),
]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight patients in a table without parts, and one with; of the second class the tissue is striped."""
    lite0_file()
    folder = tmp_path_factory.mktemp("cohort")
    for i in range(8):
        image = tissue_pixels(300 + 8 * i, 320, margin=0.1)
        if i % 2:
            image[60:240, 60:240:2] //= 3
        write_slide(folder / f"s{i}.tif", image, levels=2, factor=4)
    for name, part in (("folds", lambda i: ""), ("parts", lambda i: "train" if i < 6 else "test")):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["slide", "patient", "label", "split"][: 3 + (name == "parts")])
            writer.writerows([f"s{i}.tif", f"p{i}", "ab"[i % 2], part(i)][: 3 + (name == "parts")] for i in range(8))
        (folder / f"{name}.yaml").write_text(f"cohort: {{table: {name}.csv}}\n")
    return folder


def config(cohort: Path, name: str, features: Path, *more: str) -> Config:
    return load_config(cohort / f"{name}.yaml", [*FAST, f"reading.features={features}", *more])


def encoded(lines: list[str]) -> list[int]:
    """Patches that each fit had to encode before it began."""
    found = [re.search(r"(\d+) patches encoded, the others were known|all patches were known", line) for line in lines]
    return [int(one[1] or 0) for one in found if one]


def test_folds_encode_every_patch_once_at_most(cohort: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    metrics = train_cohort(
        config(cohort, "folds", tmp_path / "kept", "training.folds=2", "training.epochs=1"), tmp_path, say=lines.append
    )
    assert metrics["cross-validation"]["slides"] == 8
    told = [line for line in lines if ", out of bag: " in line or line.startswith("out-of-bag: ")]
    told = [line for line in told if " slides of " in line]
    assert len(told) == 3  # each model says once how good it is by itself
    model = load_model(tmp_path / "model.safetensors")
    assert isinstance(model, EvidenceModel)
    assert (model.spec.attention, model.spec.encoder, model.heads.members) == ("encoder", "lite0", 4)
    assert len(model.trained_on) == 8
    fits, store = encoded(lines), feature_store(tmp_path / "kept")
    assert fits[0] > 0
    assert fits[-1] == 0  # of the last, on all slides, the folds have seen each
    cells = sum(int(look(path, model).tissue.sum()) for path in cohort.glob("*.tif"))
    assert cells <= store.encoded <= 2 * cells  # of every cell there are two, at a coarse and at the fine scale


def test_a_killed_training_ends_with_the_same_bytes(cohort: Path, tmp_path: Path) -> None:
    """Killed among the epochs with patches; features that were kept meanwhile change nothing. What came of it
    predicts through the door."""

    class KilledError(Exception):
        pass

    def dies(line: str) -> None:
        if line.startswith("epoch 3/"):
            raise KilledError

    given = config(cohort, "parts", tmp_path / "kept")
    with pytest.raises(KilledError):
        train_cohort(given, tmp_path / "killed", say=dies)
    lines: list[str] = []
    train_cohort(given, tmp_path / "killed", say=lines.append)
    assert not any(line.startswith(("first guess", "epoch 1/", "epoch 2/")) for line in lines)
    train_cohort(config(cohort, "parts", tmp_path / "others"), tmp_path / "whole", say=lambda line: None)
    killed, whole = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("killed", "whole"))
    assert killed == whole
    assert not list((tmp_path / "killed").glob("*.ckpt"))
    again: list[str] = []
    train_cohort(given, tmp_path / "killed", say=again.append)
    assert any("up to date" in line for line in again)

    found = saccade.predict(cohort / "s7.tif", tmp_path / "killed" / "model.safetensors")
    assert sum(found.probabilities.values()) == pytest.approx(1)
    with (tmp_path / "whole" / "predictions.csv").open() as file:
        (row,) = [row for row in csv.DictReader(file) if row["slide_id"] == "s7"]
    assert json.loads((tmp_path / "whole" / "metrics.json").read_text())["test"]["slides"] == 2
    assert found.probabilities["b"] == pytest.approx(float(row["prob_b"]), abs=0.02)
