"""`saccade run` as its users meet it: real processes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from makers import saccade


def test_run_reads_on_until_it_is_sure_enough(slides_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    slide = slides_folder / "plain.tif"
    done = saccade("run", slide, "--model", checkpoint, "--out", tmp_path / "out", "--tolerance", 1e-5)
    assert done.returncode == 0, done.stderr
    commit = json.loads((tmp_path / "out" / "slides" / "plain" / "prediction.json").read_text())
    row = commit["row"]
    assert row["patches_read"] > 16  # the model's own budget leaves more open
    for name in ("normal", "tumour"):
        assert row[f"prob_{name}"] - row[f"prob_{name}_low"] <= 1e-5
        assert row[f"prob_{name}_high"] - row[f"prob_{name}"] <= 1e-5


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_who_ends_a_run_keeps_what_is_done_and_hears_how_to_go_on(
    slides_folder: Path, checkpoint: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """A real signal after the first slide, to all processes as batch systems send it, then the same command: what was
    being worked on was finished, and is not done again."""
    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "run",
        slides_folder,
        "--model",
        checkpoint,
        "--out",
        tmp_path / "out",
        "--workers",
        "1",
    ]
    running = subprocess.Popen(
        list(map(str, command)),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # where tests run in the background it is off
    )
    assert running.stderr is not None
    for line in running.stderr:
        if " [1/3] " in line:
            break
    os.killpg(running.pid, number)
    rest = running.stderr.read()
    running.stderr.close()
    assert running.wait() == code
    assert "the same command goes on" in rest
    last = (tmp_path / "out" / "run.log").read_text().splitlines()[-1]
    assert f"ended: interrupted{'' if code == 130 else f' by {number.name}'}; the same command goes on" in last
    with (tmp_path / "out" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        assert {row["status"] for row in csv.DictReader(file)} <= {"ok", "waiting"}
    again = saccade(*command[3:-1], 0)
    assert again.returncode == 0, again.stderr
    assert "(0 already done)" not in again.stdout
