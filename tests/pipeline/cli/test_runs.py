"""`saccade run` as its users meet it: real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

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


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(slides_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    """A real interrupt after the first slide, then the same command: the first slide is not done again."""
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
    ]
    running = subprocess.Popen(
        list(map(str, command)),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # where tests run in the background it is off
    )
    assert running.stderr is not None
    for line in running.stderr:
        if " [1/3] " in line:
            break
    running.send_signal(signal.SIGINT)
    rest = running.stderr.read()
    running.stderr.close()
    assert running.wait() == 130
    assert "the same command goes on" in rest
    again = saccade(*command[3:])
    assert again.returncode == 0, again.stderr
    assert "(0 already done)" not in again.stdout
