"""An output whose disk fills up, is shut or goes away ends the run in one line, and the same command goes on."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cohort.target import find_target
from pipeline.exits import ending
from pipeline.run.keys import RunSettings
from pipeline.run.outage import OUTAGE, outage_row
from pipeline.run.run import run_cohort
from stages.slide.facts import SlideError


def fill(out: Path) -> None:
    with (out.parent / "filler").open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return


def empty(out: Path) -> None:
    (out.parent / "filler").unlink()


def take_away(out: Path) -> None:
    out.rename(out.with_name("elsewhere"))


def put_another(out: Path) -> None:
    """As an empty mount point is, under a disk that went away."""
    take_away(out)
    out.mkdir()


def bring_back(out: Path) -> None:
    if out.exists():
        assert not list(out.glob("*.csv")), "no books are written in its place"
        shutil.rmtree(out)
    out.with_name("elsewhere").rename(out)


@pytest.mark.parametrize(
    ("befalls", "amends", "words"),
    [
        (fill, empty, "the disk is full: make room on it"),
        (take_away, bring_back, "or another folder is in its place: bring back the disk"),
        (put_another, bring_back, "or another folder is in its place: bring back the disk"),
    ],
    ids=["full", "gone", "another"],
)
def test_an_output_that_can_be_written_no_more_ends_the_run(
    small_disk: Path,
    slides_folder: Path,
    checkpoint: Path,
    befalls: Callable[[Path], None],
    amends: Callable[[Path], None],
    words: str,
) -> None:
    """After its first slide of two, which counts as done in the next run."""
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    found = find_target(slides_folder)
    cohort = replace(found, slides=found.slides[:2])
    out, settings = small_disk / "out", RunSettings(model=checkpoint)
    told: list[str] = []

    def progress(done: int, total: int, line: str | None) -> None:
        told.append(str(line))
        if len(told) == 1:
            befalls(out)

    with pytest.raises(OSError, match=r"space|gone") as caught:
        run_cohort(cohort, out, settings, progress=progress)
    assert len(told) == 1
    said, code = ending(caught.value) or ("", 0)
    assert (code, "\n" in said) == (1, False)
    assert said.startswith(f"stopped at {out}")
    assert words in said
    assert said.endswith("what was finished is kept, and the same command goes on from there")
    amends(out)
    summary = run_cohort(cohort, out, settings)
    assert (summary.ok, summary.failed, summary.reused) == (2, 0, 1)


@pytest.mark.parametrize("what", [".", "slides"])
def test_results_that_are_deleted_meanwhile_end_the_run(
    slides_folder: Path, checkpoint: Path, tmp_path: Path, what: str
) -> None:
    """Else the table would go on telling of what is nowhere."""
    found, out = find_target(slides_folder), tmp_path / "out"
    cohort = replace(found, slides=found.slides[:2])

    def delete(done: int, total: int, line: str | None) -> None:
        for path in [out / what] if what != "." else out.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    with pytest.raises(OSError, match="was emptied"):
        run_cohort(cohort, out, RunSettings(model=checkpoint), progress=delete)
    summary = run_cohort(cohort, out, RunSettings(model=checkpoint))
    assert (summary.ok, summary.reused) == (2, 0)


def test_other_faults_are_the_slides(tmp_path: Path) -> None:
    """A full disk elsewhere, a name that is too long, a slide that cannot be read."""
    (tmp_path / "slides").mkdir()
    elsewhere = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/elsewhere/a")
    long = OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(tmp_path / "a"))
    unread = OSError(errno.EIO, os.strerror(errno.EIO))
    for error in (elsewhere, long, unread, SlideError("damaged"), ValueError("errno")):
        assert outage_row(error, tmp_path) is None
    shut = outage_row(OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "slides" / "a")), tmp_path)
    assert shut is not None
    assert shut["error"][0] == errno.EROFS
    for name, kept in (
        ("slides/a", False),
        ("a.csv", False),
        ("slides/a/b", True),
    ):  # of one slide's folder it is its own
        denied = outage_row(PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / name)), tmp_path)
        assert (denied is None) == kept
    torn = RuntimeError("Can't decrement id ref count (file write failed: errno = 28, error message = 'No space left')")
    found = outage_row(torn, tmp_path)
    assert found is not None
    assert (found["status"], found["error"][0]) == (OUTAGE, errno.ENOSPC)
