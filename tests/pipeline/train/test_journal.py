"""What is told on disk of a training: the curve's table and picture, TensorBoard's events, and a disk that is full."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import pipeline.train.curve
import pipeline.train.journal
from pipeline.errors import UsageError
from pipeline.train.curve import Curve
from pipeline.train.journal import Journal, require_tensorboard


def course(epochs: int, **how: Any) -> Curve:
    curve = Curve(**how)
    curve.base = 0.69
    for epoch in range(epochs):
        val = torch.full((4,), 0.7 - 0.01 * epoch)
        curve.add(loss=0.7 - 0.02 * epoch, error=0.05, val=val, auroc=0.5 + 0.01 * epoch, unseen=None)
    return curve


def test_a_finished_course_is_a_table_and_the_same_small_picture_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Journal(tmp_path / f"{name}.csv", say=pytest.fail).end(course(12))
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 13
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert max(picture.size) <= 800


@pytest.mark.parametrize("rows", [[], [{"loss": float("nan"), "error": float("nan"), "val": None, "auroc": None}]])
def test_a_course_of_nothing_is_drawn_too(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    """As where every slide was left out."""
    curve = Curve()
    for row in rows:
        curve.add(unseen=None, **row)
    Journal(tmp_path / "curve.csv", say=pytest.fail).end(curve)
    assert (tmp_path / "curve.png").exists()


def test_a_picture_is_drawn_now_and_then_while_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "curve.csv", say=pytest.fail)
    journal.epoch(course(2))
    assert not (tmp_path / "curve.png").exists()
    monkeypatch.setattr(pipeline.train.journal, "PICTURE_SECONDS", -1)
    journal.epoch(course(3))
    assert (tmp_path / "curve.png").exists()


def test_a_full_disk_is_told_once_and_what_was_missed_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    told: list[str] = []
    path = tmp_path / "curve.csv"
    journal = Journal(path, say=told.append)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.train.curve, "write_table", full)
        journal.epoch(course(1))
        journal.epoch(course(2))
    assert told == [f"warning: {path} is not written: the disk is full: make room on it; training goes on"]
    journal.epoch(course(3))
    assert len(path.read_text().splitlines()) == 4
    assert len(told) == 1


def test_without_tensorboard_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(UsageError, match="pip install tensorboard"):
        require_tensorboard()


def test_events_hold_each_epoch_once_though_it_was_interrupted(tmp_path: Path) -> None:
    """What an interrupted training told is told again by the one that goes on, and hidden before."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for epochs in (range(1, 4), range(3, 6)):
        journal = Journal(None, events=tmp_path / "events", say=pytest.fail)
        for count in epochs:
            journal.epoch(course(count))
        journal.end(course(count))
    found = accumulators.EventAccumulator(str(tmp_path / "events"))
    found.Reload()
    assert [(one.step, round(one.value, 6)) for one in found.Scalars("loss")] == [
        (row["epoch"], round(row["loss"], 6)) for row in course(5).rows
    ]
    assert set(found.Tags()["scalars"]) == {"loss", "error", "val_loss", "val_auroc"}
