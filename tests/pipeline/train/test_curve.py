"""The course of a training: which epoch is kept, when it stops, and what a divergence leaves."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from makers import tissue_pixels, write_slide
from torch import Tensor

from pipeline.config import Config, load_config
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model
from pipeline.train import checkpoints
from pipeline.train.curve import Curve, of_validation
from pipeline.train.train import train_cohort
from stages.prediction.readout import ClassReadout

FAST = [
    *("view.attention_mpp=8", "view.patch_px=32", "encoder.dim=8", "encoder.name=small", "attention.kind=learned"),
    *("sampling.samples=8", "training.epochs=6", "training.batch_size=2", "training.warm_up=0"),
    *("training.calibration_slides=0", "training.device=cpu"),
]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four slides to train on, four to validate with."""
    folder = tmp_path_factory.mktemp("cohort")
    rows = [f"s{i}.tif,p{i},{'ab'[i % 2]},{'train' if i < 4 else 'val'}" for i in range(8)]
    for i in range(8):
        write_slide(folder / f"s{i}.tif", tissue_pixels(300 + 8 * i, 320, margin=0.1), levels=2, factor=4)
    (folder / "cohort.csv").write_text("slide,patient,label,split\n" + "\n".join(rows) + "\n")
    (folder / "config.yaml").write_text("cohort: {table: cohort.csv}\n")
    return folder


def config(folder: Path, *more: str) -> Config:
    return load_config(folder / "config.yaml", [*FAST, *more])


def course(*losses: float, **how: Any) -> Curve:
    """Of epochs with these validation losses, of ten slides that differ in them by a hundredth."""
    curve = Curve(**how)
    noise = torch.linspace(-0.005, 0.005, 10)
    for epoch, loss in enumerate(losses):
        val = loss + noise.roll(epoch)
        curve.add(loss=0.5, error=0.1, val=val, auroc=0.5, unseen=None)
    return curve


def test_the_last_epoch_is_kept_unless_an_earlier_one_is_better_by_more_than_noise() -> None:
    assert course(0.7, 0.6, 0.5, keep="best").kept == 3
    assert course(0.7, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5005, keep="best").kept == 7
    overfit = (0.7, 0.6, 0.5, 0.45, 0.45, 0.5, 0.6, 0.7, 0.8)
    assert course(*overfit, keep="best").kept in (5, 6)
    assert course(*overfit, keep="last").kept == 9


def test_one_epoch_by_chance_is_not_kept() -> None:
    """Its neighbours count as well."""
    assert course(0.7, 0.69, 0.2, 0.68, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, keep="best").kept == 10


def test_it_is_over_after_so_many_epochs_without_a_lower_loss() -> None:
    assert not course(0.5, 0.6, 0.7, patience=3).over
    assert course(0.5, 0.6, 0.7, 0.8, patience=3).over
    assert not course(0.5, 0.6, 0.7, 0.8).over


FALLING = [0.7 - 0.05 * i for i in range(12)]
LOW = [0.7, 0.6, 0.5, 0.45, *(0.45 + 0.03 * i for i in range(1, 9))]
"""Falls, and then rises."""


def learnt(fitted: list[float], unseen: list[float], *, validated: bool, error: float = 0.02) -> Curve:
    """A course of losses of fitted slides and of others: ten of val, that differ by a hundredth, or out of bag."""
    curve, noise = Curve("best"), torch.linspace(-0.005, 0.005, 10)
    for epoch, (loss, other) in enumerate(zip(fitted, unseen, strict=True)):
        val = other + noise.roll(epoch) if validated else None
        curve.add(loss=loss, error=error, val=val, auroc=None, unseen=None if validated else other)
    return curve


@pytest.mark.parametrize("validated", [True, False])
def test_it_says_that_the_loss_goes_on_falling_while_that_of_others_rises(validated: bool) -> None:
    found = learnt(FALLING, LOW, validated=validated).overfitting
    what = "validation" if validated else "out of bag"
    assert found is not None
    assert re.fullmatch(
        rf"overfitting: after epoch 5 the training loss fell from 0\.5\d+ to 0\.2\d+, while that of {what} rose from "
        r"0\.4\d+ to 0\.66\d*",
        found,
    ), found
    quiet = [0.5 + 0.001 * (-1) ** i for i in range(12)]
    for fitted, unseen in ((FALLING, FALLING), (LOW, LOW), (FALLING, quiet), (FALLING[:5], LOW[:5])):
        assert learnt(fitted, unseen, validated=validated).overfitting is None
    assert learnt(FALLING, LOW, validated=False, error=0.5).overfitting is None


def test_a_validation_slide_that_cannot_be_read_is_nothing() -> None:
    losses, auroc = of_validation(
        torch.tensor([[2.0, 0.0], [torch.nan] * 2, [0.0, 2.0]]), torch.tensor([0, 0, 1]), ClassReadout(2)
    )
    assert losses.isnan().tolist() == [False, True, False]
    assert auroc == 1.0
    curve = Curve("best")
    assert curve.add(loss=0.5, error=0.1, val=torch.full((2,), torch.nan), auroc=None, unseen=None)


@pytest.fixture
def rising(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation losses that fall for three epochs and rise then."""
    calls = iter([0.6, 0.4, 0.2, 0.9, 1.0, 1.1] * 2)

    def judged(*args: Any, **how: Any) -> tuple[Tensor, float]:
        return next(calls) + torch.tensor([-0.01, 0.0, 0.0, 0.01]), 0.5

    monkeypatch.setattr("pipeline.train.fit.validate", judged)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "curve.csv").open() as file:
        return list(csv.DictReader(file))


class KilledError(Exception):
    pass


def test_the_best_epochs_weights_are_kept_also_by_a_training_that_was_killed_after_it(
    cohort: Path, tmp_path: Path, rising: None
) -> None:
    seen: list[dict[str, Tensor]] = []

    def dies(line: str) -> None:
        if line.startswith("epoch 5/"):
            raise KilledError

    with pytest.raises(KilledError):
        train_cohort(config(cohort), tmp_path / "killed", say=dies)
    path = checkpoints.written(next((tmp_path / "killed").glob("training-*.json")).with_suffix(".ckpt"))[0]
    saved = checkpoints.read(path)
    (state,) = saved["callbacks"].values()
    seen.append(state["weights"])
    lines: list[str] = []
    train_cohort(config(cohort), tmp_path / "killed", say=lines.append)
    rows = rows_of(tmp_path / "killed")
    assert [row["epoch"] for row in rows] == list("123456")
    assert [float(row["val_loss"]) for row in rows[:4]] == pytest.approx([0.6, 0.4, 0.2, 0.9])
    assert any(line.startswith("kept the weights of epoch 3: ") for line in lines)
    kept = load_model(tmp_path / "killed").state_dict()
    assert all(torch.equal(kept[name], value) for name, value in seen[0].items())
    assert any(not torch.equal(kept[n[6:]], v) for n, v in saved["state_dict"].items())
    assert json.loads((tmp_path / "killed" / "training.json").read_text())["kept_epoch"] == 3


def test_patience_ends_a_training_and_its_rerun(cohort: Path, tmp_path: Path, rising: None) -> None:
    """One that was killed after it had stopped does not go on."""

    def dies(line: str) -> None:
        if line.startswith("no lower validation loss"):
            raise KilledError

    patient = config(cohort, "training.patience=1")
    with pytest.raises(KilledError):
        train_cohort(patient, tmp_path, say=dies)
    assert len(rows_of(tmp_path)) == 4
    lines: list[str] = []
    train_cohort(patient, tmp_path, say=lines.append)
    assert not any(line.startswith("epoch") for line in lines)
    assert any(line.startswith("kept the weights of epoch 3: ") for line in lines)


def test_validation_changes_nothing_that_is_fitted(cohort: Path, tmp_path: Path) -> None:
    """The last epoch's weights are the same with other slides to validate with, and with none."""
    lines = (cohort / "cohort.csv").read_text().splitlines()
    (tmp_path / "cohort.csv").write_text("\n".join(line for line in lines if not line.endswith("val")) + "\n")
    last = ("training.keep=last", f"cohort.slides={cohort}", "training.epochs=2")
    train_cohort(config(cohort, *last), tmp_path / "with", say=print)
    train_cohort(config(cohort, *last, f"cohort.table={tmp_path / 'cohort.csv'}"), tmp_path / "without", say=print)
    ours, others = (load_model(tmp_path / name).state_dict() for name in ("with", "without"))
    assert all(torch.equal(ours[name], others[name]) for name in ours)
    assert rows_of(tmp_path / "with")[0]["val_loss"] != ""
    assert rows_of(tmp_path / "without")[0]["val_loss"] == ""


def test_slides_that_choose_the_epoch_are_part_of_what_a_model_is_made_of(cohort: Path, tmp_path: Path) -> None:
    table = tmp_path / "cohort.csv"
    text = (cohort / "cohort.csv").read_text()
    told: list[list[str]] = []
    for rows in (text, text, text.replace("s4.tif,p4,a", "s4.tif,p4,b")):
        table.write_text(rows)
        given = (f"cohort.table={table}", f"cohort.slides={cohort}", "training.epochs=1")
        told.append([])
        train_cohort(config(cohort, *given), tmp_path / "out", say=told[-1].append)
    assert any("is up to date" in line for line in told[1])
    assert any("1 slide with another label (s4)" in line for line in told[2])


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_a_slide_that_blows_up_is_named_and_the_last_good_weights_go_on_with_smaller_steps(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """In epoch 3, with features of no finite size, or with a gradient of none."""
    from pipeline.model.sampler import AttentionSampler

    encode, steps = AttentionSampler.features_of, [0]

    class Blown(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, features: Tensor) -> Tensor:
            return features.clone() if part == "gradient" else features * torch.inf

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient * torch.inf

    def features_of(self: AttentionSampler, views: Any, drawn: Any, augment: Any) -> list[Tensor]:
        found = encode(self, views, drawn, augment)
        steps[0] += self.training
        if steps[0] == 5:  # two steps an epoch
            found[0] = Blown.apply(found[0])
        return found

    monkeypatch.setattr(AttentionSampler, "features_of", features_of)
    words = "loss" if part == "loss" else "gradient"
    with pytest.raises(
        UsageError, match=rf"^training diverged in epoch 3: the {words} is not a number, at s\d"
    ) as told:
        train_cohort(config(cohort), tmp_path, say=print)
    assert "\n" not in str(told.value)
    assert re.search(
        r"the weights of epoch 2 stand in \S+\.ckpt: .*lower training.learning_rate, found 0.001", str(told.value)
    )
    assert ("others of its batch are well" in str(told.value)) == (part == "loss")
    lines: list[str] = []
    train_cohort(config(cohort, "training.learning_rate=0.0001"), tmp_path, say=lines.append)
    assert [line.split(":")[0] for line in lines if line.startswith("epoch")] == [f"epoch {i}/6" for i in range(3, 7)]
    assert all(bool(value.isfinite().all()) for value in load_model(tmp_path).state_dict().values())
