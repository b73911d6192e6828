"""What a training that was killed goes on from: the last whole one of two checkpoints, to the same bytes."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from makers import names, striped_cohort

from pipeline.config import Config, load_config
from pipeline.errors import UsageError
from pipeline.train import checkpoints
from pipeline.train.train import train_cohort
from stages.disk import PREFIX
from stages.lease import lease

FAST = [
    *("attention.kind=learned", "encoder.name=small", "encoder.dim=4", "view.attention_mpp=8", "view.patch_px=32"),
    *("sampling.samples=4", "training.batch_size=4", "training.epochs=3", "training.device=cpu"),
    "training.calibration_slides=1",
]


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return striped_cohort(tmp_path_factory.mktemp("cohort"), train=4, test=0)


def config(cohort: Path, *more: str) -> Config:
    return load_config(cohort / "config.yaml", [*FAST, *more])


def killed_at(beginning: str) -> Callable[[str], None]:
    """Hears what is said, and ends the training at a line."""

    def say(line: str) -> None:
        if line.startswith(beginning):
            raise KilledError

    return say


@pytest.fixture(scope="module")
def whole(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a training writes that nothing befell."""
    out = tmp_path_factory.mktemp("whole")
    train_cohort(config(cohort), out, say=lambda line: None)
    return results(out)


@pytest.fixture(scope="module")
def another(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training with another seed."""
    out = tmp_path_factory.mktemp("another")
    train_cohort(config(cohort, "training.seed=1"), out, say=lambda line: None)
    return out


def results(out: Path) -> dict[str, bytes]:
    """What lies there, but for times, and the log, which tells of every run."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "train.log"]
    found = {str(path.relative_to(out)): path.read_bytes() for path in files}
    return {
        name: re.sub(rb'"seconds": .*', b"", data) if name.endswith("training.json") else data
        for name, data in found.items()
    }


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 64
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.fixture(scope="module")
def interrupted(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was killed at the end of its last epoch."""
    out = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(KilledError):
        train_cohort(config(cohort), out, say=killed_at("epoch 3/"))
    return out


@pytest.mark.parametrize("harm", [flip, cut, empty])
@pytest.mark.parametrize("both", [False, True])
def test_a_damaged_checkpoint_costs_its_epoch(
    cohort: Path,
    whole: dict[str, bytes],
    interrupted: Path,
    tmp_path: Path,
    harm: Callable[[Path], None],
    both: bool,
) -> None:
    """Or all of them, where the other one is damaged, too; and is told in one line."""
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    (begun,) = tmp_path.glob("training-*.json")
    last, other = checkpoints.written(begun.with_suffix(".ckpt"))
    harm(last)
    if both:
        harm(other)
    said: list[str] = []
    train_cohort(config(cohort), tmp_path, say=said.append)
    (warning,) = (line for line in said if line.startswith("warning: the checkpoint"))
    assert str(last) in warning
    assert ("begins anew" if both else f"after epoch 1, from {other}") in warning
    assert [line[:7] for line in said if line.startswith("epoch")] == [f"epoch {i}" for i in range(1 if both else 2, 4)]
    assert results(tmp_path) == whole


@pytest.mark.parametrize("where", ["curve.csv", "curve.png", "-even.ckpt"])
def test_a_disk_that_is_full_loses_no_training(
    cohort: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A curve that cannot be written is told once; a checkpoint ends it, and the same training goes on from the other
    once there is room."""
    replace, said = os.replace, list[str]()

    def full(source: Path, target: Path) -> None:
        if str(target).endswith(where):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        if where.endswith(".ckpt"):
            with pytest.raises(OSError, match="No space left"):
                train_cohort(config(cohort), tmp_path, say=said.append)
        else:
            train_cohort(config(cohort), tmp_path, say=said.append)
            assert [line for line in said if "is full" in line] == [
                f"warning: {tmp_path / where} is not written: the disk is full: make room on it; training goes on"
            ]
            assert {where, *results(tmp_path)} == set(whole)
            return
    said.clear()
    train_cohort(config(cohort), tmp_path, say=said.append)
    assert [line[:7] for line in said if line.startswith("epoch")] == ["epoch 2", "epoch 3"]
    assert results(tmp_path) == whole


@pytest.mark.parametrize("rename", [3, 5, 6, 7, 8, 9, 10, 11])
def test_another_training_killed_anywhere_at_its_end_leaves_each_model_with_what_tells_of_it(
    cohort: Path,
    whole: dict[str, bytes],
    another: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rename: int,
) -> None:
    """What stood there before lies in its folder, whole and once, and the rerun ends as if nothing had been."""
    shutil.copytree(another, tmp_path, dirs_exist_ok=True)
    earlier = results(tmp_path)
    left, replace = [-1], os.replace

    def say(line: str) -> None:
        if line.startswith("epoch 3/"):
            left[0] = rename

    def counted(source: Path, target: Path) -> None:
        replace(source, target)
        left[0] -= 1
        if left[0] == 0:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted)
        with contextlib.suppress(KilledError):
            train_cohort(config(cohort), tmp_path, say=say)
    train_cohort(config(cohort), tmp_path, say=lambda line: None)
    (folder,) = tmp_path.glob("earlier-*")
    kept = {f"{folder.name}/{name}": data for name, data in earlier.items() if name != ".saccade"}
    assert results(tmp_path) == whole | kept


def test_a_damaged_model_is_fitted_again(cohort: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    train_cohort(config(cohort), tmp_path, say=lambda line: None)
    cut(tmp_path / "model.safetensors")
    said: list[str] = []
    train_cohort(config(cohort), tmp_path, say=said.append)
    assert any("is fitted again: cannot load the checkpoint" in line for line in said)
    assert {name: data for name, data in results(tmp_path).items() if "earlier" not in name} == whole


def test_a_second_training_into_a_folder_is_refused_while_the_first_is_at_work(cohort: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with lease(tmp_path / f"{PREFIX}training"), pytest.raises(UsageError, match="another training works into"):
        train_cohort(config(cohort), tmp_path, say=said.append)
    assert said == []


def test_what_a_killed_training_left_unfinished_goes(cohort: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    """Its lease, too."""
    (tmp_path / f"{PREFIX}{'0' * 32}.ckpt").write_bytes(b"half")
    (tmp_path / f"{PREFIX}training").touch()
    train_cohort(config(cohort), tmp_path, say=lambda line: None)
    assert names(tmp_path) == {*whole, "train.log"}


def test_a_full_disk_ends_a_training_that_goes_on_with_room(
    cohort: Path, whole: dict[str, bytes], small_disk: Path, tmp_path: Path
) -> None:
    filler = small_disk / "filler"

    def say(line: str) -> None:
        if line.startswith("epoch 2/"):
            filler.write_bytes(bytes(10**6 - sum(path.stat().st_size for path in small_disk.rglob("*")) - 10_000))

    with pytest.raises(OSError, match="space") as told:
        train_cohort(config(cohort), small_disk / "out", say=say)
    assert str(told.value.filename).endswith(".ckpt")
    filler.unlink()
    said: list[str] = []
    train_cohort(config(cohort), small_disk / "out", say=said.append)
    assert [line[:7] for line in said if line.startswith("epoch")] == ["epoch 2", "epoch 3"]
    assert results(small_disk / "out") == whole


def test_a_checkpoint_reads_as_it_was_written(tmp_path: Path) -> None:
    torch.save({"weights": torch.arange(5)}, tmp_path / "a.ckpt")
    assert checkpoints.read(tmp_path / "a.ckpt")["weights"].tolist() == [0, 1, 2, 3, 4]
