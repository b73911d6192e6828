"""The command as its users meet it: real processes, exit codes, one line of error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from makers import saccade

from pipeline.version import saccade_version


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["info", "missing.svs"], "no such file"),
        (["run", ".", "--out", "out", "--model", "missing.safetensors"], "no slides in"),
        (["run", "missing", "--out", "out", "--model", "missing.safetensors"], "no such file or folder"),
        (["train", "missing.yaml", "--out", "out"], "missing.yaml"),
        (["train", "bad.yaml", "--out", "out"], "did you mean 'view.patch_px'?"),
        (["train", "good.yaml", "--out", "out", "--set", "view.patch_pz=3"], "did you mean 'view.patch_px'?"),
        (["cache", "empty", "--out", "out"], "no slides in"),
    ],
)
def test_wrong_usage_is_one_line_with_the_remedy_and_exit_code_2(tmp_path: Path, args: list[str], words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.yaml").write_text("cohort: {table: cohort.csv}\nview: {patch_pixels: 256}\n")
    (tmp_path / "good.yaml").write_text("cohort: {table: cohort.csv}\n")
    done = saccade(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("saccade: error: ")
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    assert "Traceback" in saccade("info", tmp_path / "missing.svs", "--debug").stderr
    assert "Traceback" in saccade("--debug", "info", tmp_path / "missing.svs").stderr


def test_an_unknown_option_exits_2() -> None:
    done = saccade("run", "--modle", "x")
    assert done.returncode == 2
    assert "--modle" in done.stderr


def test_the_version_is_told_without_a_command() -> None:
    done = saccade("--version")
    assert (done.returncode, done.stdout) == (0, f"saccade {saccade_version()}\n")


def test_no_arguments_show_the_help() -> None:
    assert "Commands" in saccade().stdout + saccade().stderr


@pytest.mark.parametrize(("told", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_without_spinning_unless_the_user_says_otherwise(told: str | None, found: str) -> None:
    """Torch's threads spin by default, which starves them on a machine that others use, too."""
    code = "import os, sys; sys.argv = ['saccade', '--version']\nfrom pipeline.cli import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\nassert 'torch' not in sys.modules\n"
    code += "print(os.environ['OMP_WAIT_POLICY'])"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": told} if told else {}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == found
