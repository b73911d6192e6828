"""Every kind of label from a table to a run: trained, predicted with intervals, compared with labels, drawn, told."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoders import lite0_file
from makers import tissue_pixels, write_slide

import saccade
from pipeline.config import load_config
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model
from pipeline.train.train import train_cohort

FAST = [
    *("view.attention_mpp=8", "view.patch_px=32", "sampling.samples=8", "training.device=cpu", "training.batch_size=4"),
    *("training.calibration_slides=2",),
]
SMALL = [*FAST, "encoder.name=small", "attention.kind=learned", "encoder.dim=16", "training.learning_rate=0.003"]
FROZEN = [
    *FAST,
    "attention.context=[1,3]",
    "attention.components=8",
    "attention.fine_components=4",
    "training.members=4",
]
TOLD: dict[str, tuple[str, list[str], tuple[str, ...]]] = {
    "multilabel": ("labels: [striped, wide]", ["prob_striped", "prob_wide"], ("auroc",)),
    "ordinal": ("{task: ordinal, label: grade}", ["prob_0", "prob_1", "prob_2"], ("kappa", "mae")),
    "regression": ("{task: regression, label: amount}", ["value"], ("pearson", "mae")),
    "survival": ("{time: time, event: event}", ["risk_score"], ("c_index",)),
    "discrete_survival": (
        "{time: time, event: event, times: [4, 8]}",
        ["risk_score", "survival_4", "survival_8"],
        ("c_index",),
    ),
}
DECIDED = {
    "multilabel": (0.5, "striped"),
    "ordinal": (0.5, "2"),
    "regression": (1.0, None),
    "survival": (0.0, None),
    "discrete_survival": (0.5, "survival_8"),
}
SLIDES = 12
RUN = (0, 9, 10, 11)
"""Of these slides, what is predicted: one that is trained on, and all that are not."""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve patients, whose tissue is striped the more the greater the amount is, and whose event comes the sooner."""
    folder = tmp_path_factory.mktemp("cohort")
    with (folder / "cohort.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide", "patient", "split", "striped", "wide", "grade", "amount", "time", "event"])
        for i in range(SLIDES):
            grade, wide = i % 3, i % 2
            image = tissue_pixels(420 + 80 * wide, 460 + 3 * i, margin=0.1)
            if grade:
                image[100 : 100 + 150 * grade, 100:400:2] //= 3
            write_slide(folder / f"s{i}.tif", image, levels=2, factor=4)
            striped = "" if i == 3 else str(int(grade > 0))
            row = [striped, wide, grade, f"{grade + 0.1 * (i // 3):.2f}", 12 - 4 * grade - 0.1 * i, int(i != 6)]
            writer.writerow([f"s{i}.tif", f"p{i}", "train" if i < 9 else "test", *row])
    header, *rows = (folder / "cohort.csv").read_text().splitlines()
    (folder / "some.csv").write_text("\n".join((header, *(rows[i] for i in RUN))))
    return folder


def trained(cohort: Path, out: Path, kind: str, settings: list[str], epochs: int) -> dict[str, Any]:
    told = TOLD[kind][0].strip("{}")
    path = cohort / f"{out.name}.yaml"
    path.write_text(f"cohort: {{table: cohort.csv, {told}}}\n")
    more = [*settings, f"training.epochs={epochs}", f"reading.features={cohort / 'features'}"]
    return train_cohort(load_config(path, more), out, say=lambda line: None)


@pytest.mark.parametrize("kind", TOLD)
def test_a_task_is_learnt_predicted_and_told(cohort: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "model"
    metrics = trained(cohort, out, kind, SMALL, 3)
    assert (metrics["task"], metrics["test"]["slides"]) == (kind, 3)
    columns, scores = TOLD[kind][1:]
    assert all("value" in metrics["test"][score] for score in scores)
    ran = saccade.run(cohort / "some.csv", out, out=tmp_path / "run", workers=0)
    assert ran.ok == len(RUN), ran.rows
    for row in ran.rows:
        for column in columns:
            assert row[f"{column}_low"] <= row[column] <= row[f"{column}_high"]
        assert any(row[f"{column}_low"] < row[f"{column}_high"] for column in columns)
    assert ran.metrics["slides"] == 3  # those that were trained on do not count
    said = json.loads((tmp_path / "run" / "slides" / "s0" / "prediction.json").read_text())
    sums = said["evidence"]
    total = sums["log_odds" if sums["unit"] == "log-odds" else "statistic"]
    for name, value in total.items():
        parts = sums["constant"][name] + sums["patches"][name] + sums["unread"][name]
        assert parts == pytest.approx(value, abs=1e-6)
    report = (tmp_path / "run" / "report.html").read_text()
    assert all(name.removeprefix("prob_") in report for name in columns[:1])
    with (out / "predictions.csv").open() as file:
        held_out = list(csv.DictReader(file))
    assert {row["slide_id"] for row in held_out if row["part"] == "test"} == {"s9", "s10", "s11"}
    again = saccade.run(cohort / "some.csv", out, out=tmp_path / "run", workers=0)
    assert (again.reused, len(again.rows)) == (len(RUN), len(RUN))


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow) if kind in ("ordinal", "discrete_survival") else kind for kind in TOLD],
)
def test_a_frozen_encoders_members_learn_it_too(cohort: Path, tmp_path: Path, kind: str) -> None:
    lite0_file()
    metrics = trained(cohort, tmp_path / "model", kind, FROZEN, 4)
    assert metrics["out-of-bag"]["slides"] > 0
    with (tmp_path / "model" / "curve.csv").open() as file:
        unseen = [row["out_of_bag_loss"] for row in csv.DictReader(file)]
    assert any(float(loss) > 0 for loss in unseen if loss)  # also where a loss is of those that it is told with
    model = load_model(tmp_path / "model")
    found = saccade.predict(cohort / "s2.tif", model, samples=16)
    values = np.array(list(found.values.values()))
    assert np.isfinite(values).all()
    low, high = np.array(list(found.intervals.values())).T
    assert (low <= values).all()
    assert (values <= high).all()
    at, positive = DECIDED[kind]
    decided = saccade.predict(cohort / "s2.tif", model, decide=at, positive=positive)
    assert decided.decision is not None
    assert decided.decision.side in ("above", "below")  # all of the tissue may be read
    assert "; settled: " in repr(decided)
    assert decided.columns()["decided_at"] == at
    if not found.task.chances:
        with pytest.raises(AttributeError, match="see values"):
            found.probabilities  # noqa: B018


def test_batches_of_survival_are_not_accumulated(cohort: Path, tmp_path: Path) -> None:
    """A risk set is of one batch: the sum over several is another loss than that of one so many times as large."""
    with pytest.raises(UsageError, match=r"training\.accumulate 2: survival compares"):
        trained(cohort, tmp_path / "model", "survival", [*SMALL, "training.accumulate=2"], 1)
    assert not (tmp_path / "model").exists()
