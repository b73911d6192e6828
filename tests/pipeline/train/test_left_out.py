"""Slides that fail while a model is trained: left out, named, counted; the others go on as if nothing had been."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from makers import spoil, tissue_pixels, write_config, write_slide

from pipeline.config import Config, load_config
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model
from pipeline.train.train import train_cohort
from stages.slide import facts, files

FAST = [
    *("view.attention_mpp=8", "view.patch_px=32", "encoder.dim=8", "sampling.samples=16"),
    *("training.epochs=3", "training.batch_size=2", "training.warm_up=1", "training.device=cpu"),
]
TABLE = "slide,patient,label,split\n" + "".join(
    f"s{i}.tif,p{i},{'ab'[i % 2]},{'train' if i < 6 else 'test'}\n" for i in range(8)
)


def config(folder: Path, *more: str) -> Config:
    """No patches are kept in memory: what can no longer be read is then met by the next epoch."""
    return load_config(folder / "config.yaml", [*FAST, "training.calibration_slides=0", "reading.patches_gb=0", *more])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six slides to train on, two to test on, and nothing wrong with them."""
    folder = tmp_path_factory.mktemp("cohort")
    for i in range(8):
        write_slide(folder / f"s{i}.tif", tissue_pixels(300 + 8 * i, 320, margin=0.1), tile=128, levels=2, factor=4)
    (folder / "cohort.csv").write_text(TABLE)
    write_config(folder)
    return folder


@pytest.fixture
def cohort(whole: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return shutil.copytree(whole, tmp_path / "cohort")


def damage(path: Path) -> None:
    """Spoil every tile of level 0: the thumbnail, of level 1, stays whole."""
    for index in range(9):
        spoil(path, 0, index)


@pytest.fixture
def unsampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage that nothing tells, as that of a disk: fingerprints of large files take samples, and no time is set."""
    for module in (facts, files):
        monkeypatch.setattr(module, "fingerprint_of", lambda path, *_: path.stem)


def trained(folder: Path, *more: str) -> tuple[dict[str, Any], list[str]]:
    lines: list[str] = []
    return train_cohort(config(folder, *more), folder / "out", say=lines.append), lines


def test_damaged_slides_are_left_out_named_and_counted_and_tried_again_once_they_are_whole(
    whole: Path, cohort: Path, unsampled: None
) -> None:
    damage(cohort / "s2.tif")
    damage(cohort / "s7.tif")
    metrics, lines = trained(cohort)
    assert list(metrics["excluded"]) == ["s2", "s7"]
    assert metrics["excluded"]["s2"].startswith("in the warm-up: ")
    assert metrics["excluded"]["s7"].startswith("when predicted: ")
    assert all("s2.tif" in why or "s7.tif" in why for why in metrics["excluded"].values())
    assert metrics["slides"] == {"in_table": 8, "excluded": 2}
    assert metrics["test"]["slides"] == 1
    assert any(line.startswith("left out: s2: in the warm-up: ") for line in lines)
    assert any(line.startswith("fitted on 5 slides") for line in lines)
    assert json.loads((cohort / "out" / "metrics.json").read_text()) == metrics
    model = (cohort / "out" / "model.safetensors").read_bytes()

    again, lines = trained(cohort)
    assert again == metrics
    assert any("is up to date" in line for line in lines)

    shutil.copy(whole / "s2.tif", cohort / "s2.tif")
    repaired, lines = trained(cohort)
    assert list(repaired["excluded"]) == ["s7"]
    assert any("1 of the slides that were left out can be read now (s2)" in line for line in lines)
    (aside,) = (cohort / "out").glob("earlier-*")
    assert (aside / "model.safetensors").read_bytes() == model
    assert load_model(aside).spec.classes == ("a", "b")
    assert json.loads((aside / "metrics.json").read_text()) == metrics


def test_a_slide_that_was_left_out_in_training_does_not_change_what_the_others_are_taken_in(
    cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a warm-up and calibration only its own steps are missing: the orders of the others are the same."""
    import pipeline.train.slides as slides

    orders: list[list[int]] = []
    attempt = slides.TrainingSlides.attempt

    def listening(self: Any, indices: Any, act: Any) -> Any:
        found = attempt(self, indices, act)
        if self.phase.startswith("epoch"):
            orders.append(found[0] if found else [])
        return found

    monkeypatch.setattr(slides.TrainingSlides, "attempt", listening)
    trained(cohort, "training.warm_up=0")
    before = list(orders)
    orders.clear()
    shutil.rmtree(cohort / "out")
    damage(cohort / "s2.tif")
    trained(cohort, "training.warm_up=0")
    assert len(before) == 9
    assert orders == [[i for i in batch if i != 2] for batch in before]


def gone(path: Path) -> None:
    path.unlink()


def no_slide(path: Path) -> None:
    path.write_text("not a slide")


def blank(path: Path) -> None:
    write_slide(path, np.full((400, 400, 3), 244, np.uint8))


WORDS = {gone: "row 4: no slide", no_slide: "not a whole-slide image", blank: "no tissue", damage: "in the warm-up: "}


def epochs_of(lines: list[str]) -> list[int]:
    return [int(line[6]) for line in lines if line.startswith("epoch ")]


@pytest.mark.parametrize("harm", WORDS)
def test_whatever_is_wrong_with_a_slide_the_others_make_a_model(cohort: Path, harm: Callable[[Path], None]) -> None:
    harm(cohort / "s2.tif")
    metrics, lines = trained(cohort)
    assert epochs_of(lines) == [1, 2, 3]
    assert WORDS[harm] in metrics["excluded"]["s2"]
    again, lines = trained(cohort)
    assert any("is up to date" in line for line in lines)
    assert again == metrics


@pytest.mark.parametrize("harm", WORDS)
def test_an_interrupted_training_goes_on_without_a_slide_that_is_lost_meanwhile(
    cohort: Path, unsampled: None, harm: Callable[[Path], None]
) -> None:
    class KilledError(Exception):
        pass

    def dies(line: str) -> None:
        if line.startswith("epoch 2/"):
            raise KilledError

    with pytest.raises(KilledError):
        train_cohort(config(cohort), cohort / "out", say=dies)
    harm(cohort / "s2.tif")
    metrics, lines = trained(cohort)
    assert epochs_of(lines) == [2, 3]
    why = metrics["excluded"]["s2"]
    if harm is damage:
        assert why.startswith("in epoch 2: ")
        assert why.endswith("; what was learnt from it until then stays")
    else:
        assert WORDS[harm] in why
    again, lines = trained(cohort)
    assert any("is up to date" in line for line in lines)
    assert again == metrics
    assert not list((cohort / "out").glob("training-*"))


def test_what_an_interrupted_training_left_out_stays_out(cohort: Path, unsampled: None) -> None:
    """Killed after the epoch that met the damage, it ends as if it had not been killed."""

    class KilledError(Exception):
        pass

    def damages(line: str) -> None:
        if line.startswith("epoch 1/"):
            damage(cohort / "s2.tif")

    def dies(line: str) -> None:
        damages(line)
        if line.startswith("epoch 3/"):
            raise KilledError

    shutil.copy(cohort / "s2.tif", cohort / "s2.bak")
    whole = train_cohort(config(cohort), cohort / "whole", say=damages)
    shutil.copy(cohort / "s2.bak", cohort / "s2.tif")
    with pytest.raises(KilledError):
        train_cohort(config(cohort), cohort / "killed", say=dies)
    shutil.copy(cohort / "s2.bak", cohort / "s2.tif")
    killed = train_cohort(config(cohort), cohort / "killed", say=lambda line: None)
    assert whole["excluded"]["s2"].startswith("in epoch 2: ")
    assert killed == whole
    states = [load_model(cohort / out).state_dict() for out in ("whole", "killed")]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=0, atol=1e-6)


def test_a_fold_learns_that_a_slide_was_left_out_by_an_earlier_one(cohort: Path) -> None:
    """And a rerun, which loads the earlier one, learns the same."""
    damage(cohort / "s2.tif")
    folds = ("training.folds=2", "training.epochs=1")
    metrics, lines = trained(cohort, *folds)
    assert list(metrics["excluded"]) == ["s2"]
    assert sum("left out: s2" in line for line in lines) == 1
    assert metrics["cross-validation"]["slides"] == 7
    again, lines = trained(cohort, *folds)
    assert again == metrics
    assert sum("is up to date" in line for line in lines) == 3


@pytest.mark.parametrize("harm", [no_slide, damage])
def test_a_class_of_which_no_slide_is_left_is_named(cohort: Path, harm: Callable[[Path], None]) -> None:
    for i in (1, 3, 5):
        harm(cohort / f"s{i}.tif")
    with pytest.raises(UsageError, match=r"no slide labelled 'b' left to train on, all 3 are left out: .*; s1: "):
        trained(cohort)
    assert not (cohort / "out" / "model.safetensors").exists()


def test_a_slide_that_cannot_be_read_whole_for_the_intervals_is_left_out(cohort: Path) -> None:
    """Training read other patches of it; its intervals come from the others."""

    def say(line: str) -> None:
        if line.startswith("epoch 3/"):
            damage(cohort / "s0.tif")

    metrics = train_cohort(config(cohort, "training.calibration_slides=6"), cohort / "out", say=say)
    assert list(metrics["excluded"]) == ["s0"]
    assert metrics["excluded"]["s0"].startswith("when read to calibrate intervals: ")
    assert load_model(cohort / "out").calibration is not None


def test_running_out_of_memory_is_no_slides_fault(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pipeline.train.looks as looks

    def exhausted(*args: Any, **kwargs: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(looks, "look", exhausted)
    with pytest.raises(MemoryError):
        trained(cohort)


def test_a_training_that_diverges_blames_no_slide(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = ("training.learning_rate=1", "training.attention_rate=1000")
    monkeypatch.setattr("pipeline.train.steps.DIVERGED", 10.0)
    with pytest.raises(UsageError, match=r"diverged in epoch \d: .*lower training.learning_rate, found 1"):
        trained(cohort, *rates)
