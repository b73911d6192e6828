"""Classes may be called as anything in our documents is; one called ``low`` ended training with a KeyError."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from makers import tissue_pixels, write_config, write_slide

from pipeline.cohort.target import find_target
from pipeline.config import load_config
from pipeline.errors import UsageError
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort
from pipeline.train.train import train_cohort

CLASSES = ("low", "high", "value", "slides", "label", "excluded", "predicted", "auroc")
FAST = [
    *("view.attention_mpp=8", "view.patch_px=32", "encoder.dim=4", "sampling.samples=4"),
    *("training.epochs=1", "training.warm_up=0", "training.device=cpu", "training.calibration_slides=0"),
]


def make(folder: Path, classes: tuple[str, ...]) -> None:
    """A slide of each class and part."""
    rows = ["slide,label,split,site"]
    for i, name in enumerate((*classes, *classes)):
        write_slide(folder / f"s{i:02}.tif", tissue_pixels(240 + 4 * i, 250, margin=0.1), levels=2, factor=4)
        rows.append(f"s{i:02}.tif,{name},{'train' if i < len(classes) else 'test'},{name}")
    (folder / "cohort.csv").write_text("\n".join(rows))
    write_config(folder)


@pytest.mark.slow
def test_classes_and_sites_may_have_the_names_of_our_fields(tmp_path: Path) -> None:
    make(tmp_path, CLASSES)
    told: list[str] = []
    metrics = train_cohort(load_config(tmp_path / "config.yaml", FAST), tmp_path / "out", say=told.append)
    assert metrics["test"]["slides_per_class"] == dict.fromkeys(sorted(CLASSES), 1)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == metrics
    with (tmp_path / "out" / "predictions.csv").open() as file:
        for row in csv.DictReader(file):
            assert sum(float(row[f"prob_{name}"]) for name in CLASSES) == pytest.approx(1, abs=1e-4)
    summary = run_cohort(
        find_target(tmp_path / "cohort.csv"), tmp_path / "run", RunSettings(model=tmp_path / "out", device="cpu")
    )
    assert summary.ok == 2 * len(CLASSES)
    assert summary.metrics["slides_per_class"] == dict.fromkeys(sorted(CLASSES), 1)
    assert summary.not_counted == {"trained on": len(CLASSES)}


def test_classes_whose_columns_would_be_one_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    make(tmp_path, ("x", "x_low"))
    with pytest.raises(UsageError, match="would give two columns 'prob_x_low'; rename a class"):
        train_cohort(load_config(tmp_path / "config.yaml", FAST), tmp_path / "out", say=print)
    assert not (tmp_path / "out").exists()
