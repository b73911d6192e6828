"""`saccade run` killed after each of its renames: what lies there is the earlier result, the new one, or not done."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import pytest
from makers import ROOT, tissue_pixels, write_slide

from pipeline.cohort.target import find_target
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort

KILLED = """
import os, shutil, signal, sys
import pipeline.cli.entry

killed_after, out, snapshots, *command = sys.argv[1:]
renames = 0
def counted(rename):
    def wrapped(*args, **options):
        global renames
        rename(*args, **options)
        renames += 1
        shutil.copytree(out, os.path.join(snapshots, str(renames)))
        if renames == int(killed_after):
            os.kill(os.getpid(), signal.SIGKILL)
    return wrapped
os.replace, os.rename = counted(os.replace), counted(os.rename)
sys.argv = ["saccade", *command, "--out", out]
pipeline.cli.entry.main()
"""
"""Runs a command over an earlier result and keeps, after each rename, what lies there: what a process that were killed
then would leave, as one is after so many (0: none is)."""


def artefacts(out: Path) -> dict[str, object]:
    """All artefacts of the slide but its commit mark, as far as they are there."""
    folder = out / "slides" / "s"
    found: dict[str, object] = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("prediction.json", "samples.h5") and ".saccade-" not in str(path)
    }
    if "slide.html" in found:  # tells how long it took, and when it was written
        page = (folder / "slide.html").read_text(encoding="utf-8")
        found["slide.html"] = re.sub(r"<code>(\d{4}-\d\d-\d\dT[\d:+]+|[\d.]+ s)</code>", "", page)
    if (folder / "samples.h5").exists():  # tells where it lies, too
        with h5py.File(folder / "samples.h5") as bag:
            found["samples.h5"] = {name: bag[name][:].tolist() for name in bag}
    return found


def commit(out: Path) -> dict[str, Any] | None:
    """The slide's commit mark."""
    path = out / "slides" / "s" / "prediction.json"
    return json.loads(path.read_text()) if path.exists() else None


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slide") / "s.tif", tissue_pixels(900, 800, margin=0.05))


@pytest.fixture(scope="module")
def earlier(slide: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished result of another seed."""
    out = tmp_path_factory.mktemp("earlier") / "out"
    assert run_cohort(find_target(slide), out, RunSettings(model=checkpoint, seed=1)).ok == 1
    return out


def run_until(killed_after: int, slide: Path, out: Path, checkpoint: Path, snapshots: Path) -> int:
    """The exit code of a process that runs, and is killed after so many renames."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, killed_after, out, snapshots, "run", slide, "--model", checkpoint]
    command += ["--seed", "0"]
    return subprocess.run(list(map(str, command)), capture_output=True, cwd=ROOT, env=env, timeout=300).returncode


@pytest.fixture(scope="module")
def killed(slide: Path, earlier: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What lay in the output folder after one, two, three ... renames, and at the end."""
    folder = tmp_path_factory.mktemp("killed")
    out = Path(shutil.copytree(earlier, folder / "out"))
    assert run_until(0, slide, out, checkpoint, folder / "snapshots") == 0
    return [*sorted((folder / "snapshots").iterdir(), key=lambda out: int(out.name)), out]


def test_a_process_that_is_killed_leaves_what_lay_there(
    slide: Path, earlier: Path, killed: list[Path], checkpoint: Path, tmp_path: Path
) -> None:
    after = next(i for i, out in enumerate(killed) if commit(out) is None) + 3
    out = Path(shutil.copytree(earlier, tmp_path / "out"))
    assert run_until(after, slide, out, checkpoint, tmp_path / "snapshots") == -signal.SIGKILL
    assert artefacts(out) == artefacts(killed[after - 1])
    assert commit(out) is None


def test_a_commit_mark_stands_for_all_artefacts_of_its_result(earlier: Path, killed: list[Path]) -> None:
    results = {}
    for out in (earlier, killed[-1]):
        mark = commit(out)
        assert mark is not None
        results[mark["key"]] = artefacts(out)
    old, new = results.values()
    assert old.keys() == new.keys() >= {"thumbnail.jpg", "samples.h5", "overlay.jpg", "overlay.geojson"}
    assert old != new
    marks = [commit(out) for out in killed]
    for out, mark in zip(killed, marks, strict=True):
        assert mark is None or artefacts(out) == results[mark["key"]], f"after {out.name} renames"
    # each artefact is a rename, and at each of them but the last the slide counts as not done
    assert marks.count(None) >= 5


def test_the_same_command_completes_what_was_killed(
    slide: Path, killed: list[Path], checkpoint: Path, tmp_path: Path
) -> None:
    whole = commit(killed[-1])
    assert whole is not None
    for out in killed[:-1]:
        again = shutil.copytree(out, tmp_path / out.name)
        (row,) = run_cohort(find_target(slide), again, RunSettings(model=checkpoint)).rows
        assert {**row, "seconds": 0} == {**row, **whole["row"], "seconds": 0}
        assert artefacts(again) == artefacts(killed[-1]), f"after {out.name} renames"
        assert (again / "report.html").exists()
