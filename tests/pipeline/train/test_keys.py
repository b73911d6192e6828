"""What makes a trained model stale: each thing that it depends on, alone, against one baseline; and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from makers import tissue_pixels, write_slide

from pipeline.config import Config, load_config
from pipeline.train.train import train_cohort

BASELINE = [
    *("view.attention_mpp=8", "view.patch_px=32", "encoder.dim=16", "sampling.samples=8"),
    *("training.epochs=1", "training.warm_up=1", "training.calibration_slides=0", "training.device=cpu"),
]
TABLE = "slide,patient,label,split,mpp\n" + "".join(f"s{i}.tif,p{i},{'ab'[i % 2]},train,0.5\n" for i in range(4))


def config(folder: Path, *more: str) -> Config:
    return load_config(folder / "config.yaml", [*BASELINE, *more])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort, and under ``out`` the model that was trained on it."""
    folder = tmp_path_factory.mktemp("cohort")
    for i in range(4):
        write_slide(folder / f"s{i}.tif", tissue_pixels(300 + 8 * i, 320, margin=0.1), levels=2, factor=4)
    (folder / "cohort.csv").write_text(TABLE)
    (folder / "config.yaml").write_text("cohort: {table: cohort.csv}\n")
    train_cohort(config(folder), folder / "out", say=lambda line: None)
    return folder


def trains_again(folder: Path, *changes: str) -> bool:
    """Whether training would begin; it is stopped as soon as it says so, so that the baseline stays."""

    class SaidError(Exception):
        pass

    def say(line: str) -> None:
        if line.startswith(("warmed up", "epoch")):
            raise SaidError
        lines.append(line)

    lines: list[str] = []
    try:
        train_cohort(config(folder, *changes), folder / "out", say=say)
    except SaidError:
        return True
    assert any("up to date" in line for line in lines)
    return False


@pytest.mark.parametrize(
    "change",
    [
        *("view.attention_mpp=4", "view.patch_mpp=1", "view.patch_px=64"),
        *("attention.kind=uniform", "attention.inner_mpp=2", "encoder.dim=8"),
        *("sampling.samples=12", "sampling.train_samples=4", "sampling.scheme=iid"),
        *("sampling.control_variate=true", "sampling.snap=true"),
        *("training.epochs=2", "training.batch_size=2", "training.learning_rate=0.002", "training.seed=1"),
        *("training.attention_rate=0.2", "training.warm_up=2", "training.weight_decay=0.01"),
        *("training.entropy_weight=0.1", "training.gradient_clip=0.5", "training.calibration_slides=1"),
    ],
)
def test_each_setting_alone_trains_again(trained: Path, change: str) -> None:
    assert trains_again(trained, change)


def relabelled(folder: Path) -> None:
    (folder / "cohort.csv").write_text(TABLE.replace("s0.tif,p0,a", "s0.tif,p0,b"))


def rescaled(folder: Path) -> None:
    (folder / "cohort.csv").write_text(TABLE.replace("s0.tif,p0,a,train,0.5", "s0.tif,p0,a,train,0.49"))


def fewer(folder: Path) -> None:
    (folder / "cohort.csv").write_text(TABLE.replace("s0.tif,p0,a,train,0.5\n", ""))


def rewritten(folder: Path) -> None:
    write_slide(folder / "s0.tif", tissue_pixels(340, 320, margin=0.1), levels=2, factor=4)


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """The cohort moved: its paths are in the key, so that it is trained here anew."""
    folder = shutil.copytree(trained, tmp_path / "cohort")
    train_cohort(config(folder), folder / "out", say=lambda line: None)
    return folder


@pytest.mark.parametrize("change", [relabelled, rescaled, fewer, rewritten])
def test_each_change_of_the_cohort_alone_trains_again(copied: Path, change: Callable[[Path], None]) -> None:
    change(copied)
    assert trains_again(copied)


def test_what_does_not_matter_trains_nothing(trained: Path) -> None:
    """Where it computes, what is kept of what was read, and the order of the table's rows."""
    assert not trains_again(trained)
    assert not trains_again(trained, "training.device=auto")
    assert not trains_again(trained, "reading.cache_gb=1")
    head, *rows = TABLE.splitlines()
    (trained / "cohort.csv").write_text("\n".join([head, *reversed(rows)]) + "\n")
    assert not trains_again(trained)
