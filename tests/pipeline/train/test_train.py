"""`saccade train` from the inside: learning, resuming, splits, and what it refuses."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from makers import tissue_pixels, write_config, write_slide

from pipeline.config import Config, load_config
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model
from pipeline.model.sampler import AttentionSampler
from pipeline.train.train import train_cohort
from stages.patches import PatchReader
from stages.prediction.intervals import Calibration

FAST = [
    *("view.attention_mpp=8", "view.patch_px=32", "encoder.dim=16", "sampling.samples=16"),
    *("training.epochs=3", "training.batch_size=4", "training.device=cpu"),
]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve patients; the tissue of the positives is finely striped, which any one patch can tell."""
    folder = tmp_path_factory.mktemp("cohort")
    with (folder / "cohort.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide", "patient", "label", "split"])
        for i in range(12):
            image = tissue_pixels(500 + 7 * i, 460 + 3 * i, margin=0.1)
            if i % 2:
                image[100:400, 100:400:2] //= 3
            write_slide(folder / f"s{i}.tif", image, levels=2, factor=4)
            writer.writerow([f"s{i}.tif", f"p{i}", "ab"[i % 2], "train" if i < 8 else "test"])
    write_config(folder)
    return folder


def config(cohort: Path, *more: str) -> Config:
    return load_config(cohort / "config.yaml", [*FAST, *more])


def test_it_learns_and_says_so(cohort: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    long = config(cohort, "training.epochs=20", "training.learning_rate=0.003")
    metrics = train_cohort(long, tmp_path, say=lines.append)
    assert metrics["test"]["slides"] == 4
    assert metrics["test"]["auroc"]["value"] == 1.0
    assert json.loads((tmp_path / "metrics.json").read_text())["test"]["auroc"]["value"] == 1.0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(told in page for told in ("Saccade training", "test: 4 slides", "<h4>ROC</h4>", "<h4>Calibration</h4>"))
    assert sum("epoch" in line and "s left" in line for line in lines) == 20
    logged = [line.partition("] ")[2] for line in (tmp_path / "train.log").read_text(encoding="utf-8").splitlines()]
    assert logged[1:-1] == lines
    assert (logged[0].split(":")[0], logged[-1]) == ("started", "ended: all is done")
    model = load_model(tmp_path / "model.safetensors")
    assert model.spec.classes == ("a", "b")
    assert model.appearance is not None
    assert model.appearance.counts == {"brightfield": 8}  # those that it was fitted to
    with (tmp_path / "predictions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "test"]
    assert all(0 < float(row["out_of_distribution"]) < 1 for row in rows)


def test_of_a_cohort_that_fits_no_patch_is_read_twice_and_the_same_is_learnt(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the configuration's own default, and however far ahead is read."""
    read: Counter[tuple[str, int]] = Counter()
    lazily, fitted = PatchReader.lazily, False

    def counted(self: PatchReader, cells: Any) -> Any:
        if not fitted:
            read.update((self.slide.facts.path, cell) for cell in np.asarray(cells).tolist())
        return lazily(self, cells)

    def say(line: str) -> None:
        nonlocal fitted
        fitted = fitted or line.startswith("fitted on")

    def learnt(*more: str) -> tuple[int, dict[str, torch.Tensor]]:
        nonlocal fitted
        fitted = False
        read.clear()
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        train_cohort(config(cohort, *more), out, say=say)
        return max(read.values()), load_model(out / "model.safetensors").state_dict()

    monkeypatch.setattr(PatchReader, "lazily", counted)
    for ahead in ("training.read_ahead=0", "training.read_ahead=1"):
        (again, without), (once, kept) = learnt(ahead, "reading.patches_gb=0"), learnt(ahead)
        assert (again > 1, once) == (True, 1)
        for name, values in without.items():
            torch.testing.assert_close(kept[name], values, rtol=0, atol=0)


def test_every_parameter_learns_from_slide_labels(cohort: Path) -> None:
    """One step's gradient reaches attention, encoder and head alike."""
    from pipeline.model.look import look
    from pipeline.task.classes import Classes
    from pipeline.train.spec import model_spec

    torch.manual_seed(0)
    model = AttentionSampler(model_spec(config(cohort), Classes(("a", "b"))))
    torch.nn.init.normal_(list(model.attention.parameters())[-2], std=0.1)  # starts at zero, which passes nothing on
    views = [look(cohort / f"s{i}.tif", model).view for i in (0, 1)]
    logits, entropies, _ = model(views, samples=8, generator=torch.Generator().manual_seed(0))
    assert logits.shape == (2, 1, 2)
    (torch.nn.functional.cross_entropy(logits[:, 0], torch.tensor([0, 1])) - 0.01 * entropies.mean()).backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_training_from_a_checkpoint_equals_training_in_one_go(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the second epoch, then started again: the same weights as without the kill."""

    class KilledError(Exception):
        pass

    def dies(line: str) -> None:
        if line.startswith("epoch 2/"):
            raise KilledError

    with pytest.raises(KilledError):
        train_cohort(config(cohort), tmp_path / "killed", say=dies)
    lines: list[str] = []
    train_cohort(config(cohort), tmp_path / "killed", say=lines.append)
    assert not any(line.startswith("epoch 1/") for line in lines)
    train_cohort(config(cohort), tmp_path / "whole", say=lambda line: None)
    killed, whole = (load_model(tmp_path / name / "model.safetensors").state_dict() for name in ("killed", "whole"))
    for name, value in whole.items():
        torch.testing.assert_close(killed[name], value, rtol=0, atol=1e-6)
    assert not list((tmp_path / "killed").glob("*.ckpt"))


def test_what_is_killed_while_intervals_are_calibrated_is_not_trained_again(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    def dies(line: str) -> None:
        if line.startswith("calibrating"):
            raise KilledError

    with pytest.raises(KilledError):
        train_cohort(config(cohort), tmp_path, say=dies)
    lines: list[str] = []
    train_cohort(config(cohort), tmp_path, say=lines.append)
    assert not any(line.startswith("epoch") for line in lines)
    assert any(line.startswith("calibrating") for line in lines)
    assert load_model(tmp_path / "model.safetensors").calibration is not None
    assert not list(tmp_path.glob("*.ckpt"))


def test_other_calibration_settings_calibrate_again_and_train_nothing(cohort: Path, tmp_path: Path) -> None:
    """Once for the last model: folds share its rule; the same settings do nothing at all."""
    short = ("training.epochs=1", "training.folds=2")
    told: list[list[str]] = []

    def rules(*more: str) -> list[Calibration | None]:
        told.append([])
        train_cohort(config(cohort, *short, *more), tmp_path, say=told[-1].append)
        return [load_model(tmp_path / name).calibration for name in (".", "fold-0", "fold-1")]

    def done(beginning: str) -> int:
        return sum(line.startswith(beginning) for line in told[-1])

    first = rules("training.calibration_slides=2")
    assert first[0] is not None
    assert first == 3 * first[:1]
    written = [(tmp_path / name / "model.safetensors").stat().st_mtime_ns for name in (".", "fold-0", "fold-1")]
    assert rules("training.calibration_slides=2") == first
    assert written == [(tmp_path / x / "model.safetensors").stat().st_mtime_ns for x in (".", "fold-0", "fold-1")]
    assert (done("epoch"), done("calibrating")) == (0, 0)
    for change in ("training.calibration_slides=3", "training.calibration_patches=100"):
        changed = rules(change)
        assert changed == 3 * changed[:1]
        assert changed != first
        assert (done("epoch"), done("calibrating") > 0) == (0, True)
    assert "calibrating intervals: read 1/1 slides, 55 patches" in told[-1]
    assert rules("training.calibration_slides=0") == 3 * [None]
    assert done("epoch") == 0


def test_an_interrupted_epoch_ends_as_an_interrupt(cohort: Path, tmp_path: Path) -> None:
    """Lightning would end the process with 1, as for slides that were left out (findings/lightning-ctrl-c.sh)."""

    def say(line: str) -> None:
        if line.startswith("epoch 1/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_cohort(config(cohort), tmp_path, say=say)


def test_a_rerun_trains_nothing_and_a_change_trains_again(cohort: Path, tmp_path: Path) -> None:
    """What counts as a change: test_keys."""
    short = ("training.epochs=1", "training.calibration_slides=0")
    train_cohort(config(cohort, *short), tmp_path, say=lambda line: None)
    before = (tmp_path / "model.safetensors").read_bytes(), (tmp_path / "model.safetensors").stat().st_mtime_ns
    lines: list[str] = []
    train_cohort(config(cohort, *short), tmp_path, say=lines.append)
    assert any("up to date" in line for line in lines)
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before[1]
    train_cohort(config(cohort, *short, "training.seed=1"), tmp_path, say=lambda line: None)
    assert (tmp_path / "model.safetensors").read_bytes() != before[0]


def test_held_out_slides_that_look_unlike_those_trained_on_are_named(cohort: Path, tmp_path: Path) -> None:
    """Else a shift of scanner or stain between the parts would pass for a bad model."""
    write_slide(tmp_path / "s99.tif", np.ascontiguousarray(tissue_pixels(560, 480, margin=0.1)[..., ::-1]), levels=2)
    table = tmp_path / "cohort.csv"
    rows = (cohort / "cohort.csv").read_text().splitlines()
    table.write_text("\n".join([rows[0], *(f"{cohort}/{row}" for row in rows[1:]), "s99.tif,p99,a,test"]) + "\n")
    said: list[str] = []
    short = (f"cohort.table={table}", "training.epochs=1", "training.calibration_slides=0")
    train_cohort(config(cohort, *short), tmp_path / "out", say=said.append)
    assert "warning: test: 1 slide unlike those trained on: s99" in said


def test_a_cohort_too_small_to_tell_what_is_unlike_it_says_so(cohort: Path, tmp_path: Path) -> None:
    """And its model has no score to give, where a wrong one would look as good as any."""
    header, *lines = (cohort / "cohort.csv").read_text().splitlines()
    table = tmp_path / "cohort.csv"
    table.write_text("\n".join([header, *lines[:3], *lines[8:10]]) + "\n")
    said: list[str] = []
    short = (f"cohort.table={table}", f"cohort.slides={cohort}", "training.epochs=1", "training.calibration_slides=0")
    train_cohort(config(cohort, *short), tmp_path / "out", say=said.append)
    assert any("too few to tell later whether another slide looks like them: 3 slides" in line for line in said)
    with (tmp_path / "out" / "predictions.csv").open() as file:
        found = [row["out_of_distribution"] for row in csv.DictReader(file) if row["part"] == "test"]
    assert found == ["", ""]


def test_a_read_cache_changes_nothing_but_what_is_read(tmp_path: Path) -> None:
    """The same weights; what was read of slow slides lies in the folder; and the model is none the staler for it."""
    rows = ["slide,patient,label,split"]
    for i in range(4):
        write_slide(tmp_path / f"s{i}.tif", tissue_pixels(400 + i, 420), compression="packbits", levels=2, factor=4)
        rows.append(f"s{i}.tif,p{i},{'ab'[i % 2]},train")
    (tmp_path / "cohort.csv").write_text("\n".join(rows))
    write_config(tmp_path)
    short = ("training.epochs=1", "training.calibration_slides=0")
    train_cohort(config(tmp_path, *short), tmp_path / "plain", say=lambda line: None)
    cached = config(tmp_path, *short, f"reading.cache={tmp_path / 'cache'}")
    train_cohort(cached, tmp_path / "cached", say=lambda line: None)
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) >= 4 * 4
    plain, with_cache = (load_model(tmp_path / name / "model.safetensors") for name in ("plain", "cached"))
    for name, value in plain.state_dict().items():
        assert torch.equal(value, with_cache.state_dict()[name]), name
    lines: list[str] = []
    train_cohort(cached, tmp_path / "plain", say=lines.append)
    assert any("up to date" in line for line in lines)


def test_other_slides_to_calibrate_on_calibrate_again(cohort: Path, tmp_path: Path) -> None:
    """Intervals come from val slides first; where these choose no epoch, the model stays."""
    lines = (cohort / "cohort.csv").read_text().splitlines()
    overrides = [f"cohort.slides={cohort}", "training.epochs=1", "training.calibration_slides=1", "training.keep=last"]
    told: list[list[str]] = [[], [], []]
    for run, val in enumerate((8, 8, 9)):
        table = tmp_path / "cohort.csv"
        moved = [line.replace("test", "val") if line.startswith(f"s{val}.") else line for line in lines]
        table.write_text("\n".join(moved) + "\n")
        train_cohort(config(cohort, f"cohort.table={table}", *overrides), tmp_path / "out", say=told[run].append)
    assert [any("up to date" in line for line in said) for said in told] == [False, True, True]
    assert [any(line.startswith("calibrating") for line in said) for said in told] == [True, False, True]


def test_cross_validation_tests_every_slide_once(cohort: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    short = ("training.folds=2", "training.epochs=1", "training.calibration_slides=0")
    metrics = train_cohort(config(cohort, *short), tmp_path, say=lines.append)
    assert metrics["cross-validation"]["slides"] == 12
    with (tmp_path / "predictions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "cross-validation"]
    assert sorted(row["slide_id"] for row in rows) == sorted(f"s{i}" for i in range(12))
    assert {path.name for path in tmp_path.glob("fold-*")} == {"fold-0", "fold-1"}
    # what a fold is judged on it has not learnt from; the model that is kept has learnt from all
    assert [line.split(" slides")[0] for line in lines if "fitted on" in line] == ["fitted on 6"] * 2 + ["fitted on 12"]
    assert (tmp_path / "model.safetensors").exists()


def test_a_bad_slide_is_left_out_and_named(cohort: Path, tmp_path: Path) -> None:
    table = tmp_path / "cohort.csv"
    bad = write_slide(tmp_path / "blank.tif", np.full((400, 400, 3), 244, np.uint8))
    lines = (cohort / "cohort.csv").read_text().splitlines()
    table.write_text("\n".join([*lines, f"{bad},p99,a,train"]) + "\n")
    told: list[str] = []
    overrides = [f"cohort.table={table}", f"cohort.slides={cohort}", "training.epochs=1"]
    metrics = train_cohort(config(cohort, *overrides), tmp_path / "out", say=told.append)
    assert list(metrics["excluded"]) == ["blank"]
    assert any("left out: blank: no tissue" in line for line in told)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("cohort.label=diagnosis", "no label column 'diagnosis', found slide, patient, label"),
        ("cohort.table=missing.csv", "missing.csv"),
    ],
)
def test_a_bad_cohort_starts_nothing(cohort: Path, tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        train_cohort(config(cohort, override), tmp_path / "out", say=lambda line: None)
    assert not (tmp_path / "out").exists()


def test_an_encoder_that_cannot_be_made_starts_nothing(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # as where it is not installed
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"junk" * 100)
    for override, words in [
        ("encoder.name=timm:resnet18", r"^encoder: 'timm:resnet18' needs timm.*pip install -e '\.\[timm\]'$"),
        (f"encoder.weights={junk}", r"^encoder: .*junk\.safetensors cannot be read as weights"),
    ]:
        with pytest.raises(UsageError, match=words):
            train_cohort(config(cohort, override), tmp_path / "out", say=lambda line: None)
    assert not (tmp_path / "out").exists()


def test_one_class_is_refused(cohort: Path, tmp_path: Path) -> None:
    table = tmp_path / "one.csv"
    table.write_text(f"slide,label\n{cohort / 's0.tif'},a\n{cohort / 's2.tif'},a\n")
    with pytest.raises(UsageError, match="two classes or more"):
        train_cohort(config(cohort, f"cohort.table={table}"), tmp_path / "out", say=lambda line: None)


def test_folds_by_site_are_judged_site_by_site_for_the_chosen_class(cohort: Path, tmp_path: Path) -> None:
    table = tmp_path / "cohort.csv"
    rows = [(f"s{i}.tif", f"p{i}", "ab"[i % 2], "NESW"[i // 3]) for i in range(12)]
    table.write_text("slide,Case ID,label,Hospital\n" + "".join(",".join(row) + "\n" for row in rows))
    lines: list[str] = []
    short = ("training.folds=2", "training.folds_by=site", "training.epochs=1", "training.calibration_slides=0")
    given = (f"cohort.table={table}", f"cohort.slides={cohort}", "cohort.positive=a")
    metrics = train_cohort(config(cohort, *short, *given), tmp_path / "out", say=lines.append)
    with (tmp_path / "out" / "splits.csv").open() as file:
        fold_of = {row["slide_id"]: row["fold"] for row in csv.DictReader(file)}
    assert all(len({fold_of[f"s{i}"] for i in range(first, first + 3)}) == 1 for first in range(0, 12, 3))
    assert metrics["classes"] == ["b", "a"]
    assert metrics["cross-validation"]["positive"] == "a"
    assert set(metrics["cross-validation"]["sites"]) == set("NESW")
    assert any("patient from 'Case ID', site from 'Hospital'" in line for line in lines)
    assert sum(line.startswith("cross-validation, site ") for line in lines) == 4


def test_one_slide_under_two_names_in_two_parts_is_refused(cohort: Path, tmp_path: Path) -> None:
    shutil.copy(cohort / "s0.tif", tmp_path / "copy.tif")
    table = tmp_path / "cohort.csv"
    table.write_text((cohort / "cohort.csv").read_text() + f"{tmp_path / 'copy.tif'},p99,a,test\n")
    overrides = (f"cohort.table={table}", f"cohort.slides={cohort}")
    with pytest.raises(UsageError, match=r"'s0' .* and 'copy' .* are one slide by content, but in both train and test"):
        train_cohort(config(cohort, *overrides), tmp_path / "out", say=lambda line: None)
    assert not list((tmp_path / "out").glob("**/*.safetensors"))


def test_a_part_without_a_class_starts_nothing(cohort: Path, tmp_path: Path) -> None:
    table = tmp_path / "cohort.csv"
    table.write_text(
        "slide,label,split\n" + "".join(f"s{i}.tif,{'ab'[i % 2]},{('train', 'test')[i % 2]}\n" for i in range(12))
    )
    given = (f"cohort.table={table}", f"cohort.slides={cohort}")
    with pytest.raises(UsageError, match="train has no slide labelled 'b' among its 6"):
        train_cohort(config(cohort, *given), tmp_path / "out", say=lambda line: None)
    with pytest.raises(UsageError, match="class 'a' has 6 patients of its own, too few for 7 folds"):
        train_cohort(config(cohort, *given, "training.folds=7"), tmp_path / "out", say=lambda line: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_processes_train_the_model_that_one_does(cohort: Path, tmp_path: Path) -> None:
    """From slides on disk, one of which is damaged; with as many processes or others it is the same training."""
    shutil.copytree(cohort, tmp_path / "cohort")
    (tmp_path / "cohort/s3.tif").write_bytes(b"no slide")
    losses = {}
    for devices in (1, 2):
        out = tmp_path / f"{devices}"
        metrics = train_cohort(config(tmp_path / "cohort", f"training.devices={devices}"), out, say=print)
        assert list(metrics["excluded"]) == ["s3"]
        with (out / "curve.csv").open() as file:
            losses[devices] = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[2] == pytest.approx(losses[1], abs=2e-6)  # of six digits each
    lines: list[str] = []
    train_cohort(config(tmp_path / "cohort"), tmp_path / "2", say=lines.append)
    assert any("is up to date" in line for line in lines)
