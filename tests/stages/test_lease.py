"""A lease is one process's at a time, and a dead one loses it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from makers import ROOT

from stages.lease import HeldError, holders, lease

HOLD = """
import sys, time
from pathlib import Path
from stages.lease import lease
with lease(Path(sys.argv[1]), shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    time.sleep(1000)
"""


def holding(path: Path, how: str = "alone") -> subprocess.Popen[str]:
    """A process that holds it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD, path, how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "held\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def test_one_at_a_time_and_a_killed_process_loses_it(tmp_path: Path) -> None:
    place = tmp_path / "lease"
    process = holding(place)
    with pytest.raises(HeldError), lease(place):
        pass
    assert holders(tmp_path, "lea") == ["lease"]
    kill(process)
    with lease(place):
        assert place.exists()
    assert not place.exists()


def test_those_that_share_hold_it_together_and_keep_out_the_others(tmp_path: Path) -> None:
    place = tmp_path / "lease"
    process = holding(place, "shared")
    with lease(place, shared=True):
        pass
    assert place.exists(), "the other holds it still"
    with pytest.raises(HeldError), lease(place):
        pass
    kill(process)
    assert holders(tmp_path, "lease") == []
    assert not place.exists(), "what a killed process left is no litter"
