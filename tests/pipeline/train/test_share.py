"""A fit that several processes share learns what one process learns; what ends one of them ends all, and is told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from makers import ROOT
from shared_fits import KINDS, shared

from pipeline.device import check_devices
from pipeline.errors import UsageError
from pipeline.train.share import Share


@pytest.fixture(autouse=True)
def as_before() -> Any:
    """Without these tests' own type of numbers."""
    yield
    torch.set_default_dtype(torch.float32)


def same(kind: str, folder: Path, **how: Any) -> list[str]:
    """In float64, in which what is next to no gradient makes next to no step of AdamW; why slides were left out."""
    alone, curve, lost = shared(kind, folder / "alone.ckpt", how | {"double": True}, 1)
    together, other, also = shared(kind, folder / "together.ckpt", how | {"double": True}, 2)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-8)
    for name in ("loss", "error", "val_loss"):
        assert [row[name] for row in other.rows] == pytest.approx([row[name] for row in curve.rows], abs=1e-10)
    assert (other.kept, also) == (curve.kept, lost)
    return lost


def test_two_processes_learn_what_one_does_where_a_slide_is_left_out(tmp_path: Path) -> None:
    """Draws, patches turned, steps of two batches; batches that part unevenly, and the last one not at all."""
    lost = same("learned", tmp_path, read_ahead=1, stain=0.2, accumulate=2, doing="damaged")
    assert lost == ["in epoch 2: s5.svs: a tile is damaged; what was learnt from it until then stays"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_learn_what_one_does(tmp_path: Path, kind: str, accumulate: int) -> None:
    same(kind, tmp_path, accumulate=accumulate, noise=0.1, dropout=0.2)


@pytest.mark.slow
def test_in_float32_the_loss_is_the_same_to_a_millionth(tmp_path: Path) -> None:
    how = {"learning_rate": 1e-3, "attention_rate": 0.1}
    (_, alone, _), (_, together, _) = (shared("learned", tmp_path / f"{n}.ckpt", how, n) for n in (1, 2))
    assert [row["loss"] for row in together.rows] == pytest.approx([row["loss"] for row in alone.rows], abs=1e-6)


@pytest.mark.slow
def test_as_many_or_fewer_processes_go_on_from_where_others_stopped(tmp_path: Path) -> None:
    def dies(line: str) -> None:
        if line.startswith("epoch 2/"):
            raise KeyboardInterrupt

    whole, *_ = shared("learned", tmp_path / "whole.ckpt", {"double": True}, 1)
    for before, after in ((2, 2), (2, 1), (1, 2)):
        path = tmp_path / f"{before}{after}.ckpt"
        with pytest.raises(KeyboardInterrupt):
            shared("learned", path, {"double": True}, before, say=dies)
        again, *_ = shared("learned", path, {"double": True}, after)
        torch.testing.assert_close(again, whole, rtol=0, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("doing", "error", "words"),
    [("killed", MemoryError, "process 1 of the training ended"), ("full", OSError, "Too many open files: 's.svs'")],
)
def test_what_ends_another_process_ends_the_first_and_is_its_error(
    tmp_path: Path, doing: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=re.escape(words)):
        shared("learned", tmp_path / "fit.ckpt", {"doing": doing}, 2)


@pytest.mark.slow
def test_ctrl_c_ends_all_also_while_another_reads_for_ever(tmp_path: Path) -> None:
    script = f"""
import os, subprocess, sys
sys.path[:0] = [{str(ROOT / "tests")!r}, {str(ROOT)!r}]
from pathlib import Path
from shared_fits import shared
try:
    path = Path({str(tmp_path / "fit.ckpt")!r})
    shared("learned", path, {{"doing": "hangs"}}, 2, say=lambda line: print(line, flush=True))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            break
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert rest.splitlines()[-1] == "interrupted"
    with pytest.raises(ProcessLookupError):  # none of the group is left
        os.killpg(process.pid, 0)


def test_parts_are_all_of_a_batch_in_turn() -> None:
    parts = [Share(rank, 3).of([10, 11, 12, 13]) for rank in range(3)]
    assert parts == [[10, 13], [11], [12]]


def test_more_processes_than_can_be_are_refused_before_anything_is_read() -> None:
    check_devices(2, "cpu", batch_size=2)
    with pytest.raises(UsageError, match=r"training\.devices: 3 processes would part batches of .*batch_size 2"):
        check_devices(3, "cpu", batch_size=2)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="this machine has cpu"):
            check_devices(2, "cuda", batch_size=8)
