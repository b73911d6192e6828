"""What a run does about slides that fail, or failed before: `--retry-failed`, `--fail-fast`, and the log of it."""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.entry import main
from pipeline.cohort.target import find_target
from pipeline.errors import UsageError
from pipeline.output.failures import FOLDER
from pipeline.output.failures import NOTHING_FAILED as NOTHING
from pipeline.run.books import RunSummary
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort


def run(target: Path, out: Path, model: Path, **how: Any) -> tuple[RunSummary, list[str]]:
    """The summary, and the lines that were told."""
    lines: list[str] = []
    settings = RunSettings(model=model, samples=4, seed=how.pop("seed", 0))
    told = run_cohort(
        find_target(target), out, settings, progress=lambda done, total, line: lines.append(line or ""), **how
    )
    return told, [line for line in lines if line]


def statuses(out: Path) -> dict[str, str]:
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return {row["slide_id"]: row["status"] for row in csv.DictReader(file)}


@pytest.fixture
def slides(slides_folder: Path, tmp_path: Path) -> Path:
    """A slide, and before it by name one that is none."""
    folder = tmp_path / "slides"
    folder.mkdir()
    shutil.copy(slides_folder / "plain.tif", folder / "good.tif")
    (folder / "bad.tif").write_text("no slide")
    return folder


def test_only_what_failed_is_tried_again_where_that_is_asked_for(
    slides: Path, slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """What is new or stale stays as it is and is said to wait; the table has all, as it is."""
    out = tmp_path / "out"
    assert run(slides, out, checkpoint)[0].failed == 1
    shutil.copy(slides_folder / "plain.tif", slides / "new.tif")
    summary, lines = run(slides, out, checkpoint, retry_failed=True)
    assert (summary.ok, summary.reused, summary.failed, summary.waiting) == (1, 1, 1, 1)
    assert statuses(out) == {"bad": "failed", "good": "ok", "new": "waiting"}
    named = tmp_path / "named.csv"
    named.write_text(f"slide,slide_id\n{slides / 'bad.tif'},by another name\n{slides / 'none.tif'},none\n")
    assert run(named, out, checkpoint, retry_failed=True)[0].failed == 1
    assert statuses(out) == {"by another name": "failed", "good": "ok", "none": "waiting"}
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        why = {row["slide_id"]: row["error"] for row in csv.DictReader(file)}["none"]
    assert why.startswith("not tried: row 3: no slide ")
    assert [line.partition(":")[0] for line in lines] == ["good", "bad"]
    shutil.copy(slides_folder / "plain.tif", slides / "bad.tif")
    summary, lines = run(slides, out, checkpoint, retry_failed=True)
    assert (summary.ok, summary.reused, summary.failed, summary.waiting) == (2, 1, 0, 1)
    assert not (out / FOLDER).exists()
    summary, lines = run(slides, out, checkpoint, retry_failed=True)
    assert lines[0] == NOTHING
    assert (summary.reused, summary.waiting) == (2, 1)
    assert (run(slides, out, checkpoint)[0].ok, statuses(out)["new"]) == (3, "ok")


def test_a_rerun_tries_what_failed_again_and_does_it_last(
    slides: Path, slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """However it failed: why it did may be gone."""
    out = tmp_path / "out"
    _, lines = run(slides, out, checkpoint)
    assert [line.partition(":")[0] for line in lines] == ["bad", "good"]
    shutil.copy(slides_folder / "plain.tif", slides / "bad.tif")
    summary, lines = run(slides, out, checkpoint)
    assert [line.partition(":")[0] for line in lines] == ["good", "bad"]
    assert (summary.ok, summary.reused) == (2, 1)
    assert list(statuses(out)) == ["bad", "good"]


def test_the_first_failure_ends_the_run_where_that_is_asked_for(slides: Path, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary, lines = run(slides, out, checkpoint, fail_fast=True, command=["saccade", "run"])
    assert (summary.ok, summary.failed, summary.waiting) == (0, 1, 1)
    why = "not a whole-slide image, but a text file, whatever its name: name the slide itself, or take this one out"
    assert lines == [
        f"bad: failed: {why}",
        f"stopped at the first failure, bad: {why} (--fail-fast: 1 slide not tried)",
    ]
    assert statuses(out) == {"bad": "failed", "good": "waiting"}
    assert (out / "report.html").exists()
    log = (out / "run.log").read_text().splitlines()
    assert [line.partition("] ")[2].partition(":")[0] for line in (log[0], log[-1])] == ["started", "ended"]
    assert log[1].endswith(f"] [1/2] {lines[0]}")
    assert log[-1].endswith("0 of 2 slides predicted (0 already done), 1 failed, 1 not tried")


@pytest.mark.slow
def test_the_first_failure_ends_the_work_of_processes_after_what_is_in_flight(
    slides: Path, slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    for number in range(4):
        shutil.copy(slides_folder / "plain.tif", slides / f"more{number}.tif")
    summary, _ = run(slides, tmp_path / "out", checkpoint, fail_fast=True, workers=2)
    assert summary.failed == 1
    assert 1 <= summary.waiting <= 4
    assert summary.ok + summary.waiting == 5


def test_what_failed_stays_a_failure_in_the_table_of_runs_of_other_slides(
    slides: Path, slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Also one that was predicted before its file was replaced: the prediction is of another file."""
    out = tmp_path / "out"
    run(slides / "good.tif", out, checkpoint)
    (slides / "good.tif").write_text("no slide any more")
    assert run(slides, out, checkpoint)[0].failed == 2
    summary, _ = run(slides_folder / "odd.tif", out, checkpoint)
    assert (summary.total, summary.failed, summary.kept) == (1, 0, 2)
    assert statuses(out) == {"odd": "ok", "bad": "failed", "good": "failed"}
    summary, _ = run(slides_folder / "odd.tif", out, checkpoint, seed=1)
    assert (summary.kept, summary.others) == (0, 2)
    assert statuses(out) == {"odd": "ok"}


def test_the_command_has_it_all(
    slides: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options reach the work, and what came of it is told in words and by the exit code."""

    def saccade(*options: str) -> tuple[object, list[str]]:
        given = ["--model", str(checkpoint), "--out", str(tmp_path / "out"), "--samples", "4", "--workers", "0"]
        monkeypatch.setattr(sys, "argv", ["saccade", "run", str(slides), *given, *options])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().out.splitlines()

    code, lines = saccade("--dry-run", "--memory", "600MB")
    assert (code, lines[-2], (tmp_path / "out").exists()) == (0, "2 slides: 2 would fail", False)
    code, lines = saccade("--fail-fast")
    assert (code, lines[0]) == (1, "0 of 2 slides predicted (0 already done), 1 failed, 1 not tried")
    code, lines = saccade("--retry-failed")
    assert (code, lines[0]) == (1, "0 of 2 slides predicted (0 already done), 1 failed, 1 not tried")
    (slides / "bad.tif").unlink()
    code, lines = saccade("--verify")
    assert (code, lines[0]) == (0, "1 of 1 slide predicted (0 already done), 0 failed")
    code, lines = saccade("--verify")
    assert (code, lines[0]) == (0, "1 of 1 slide predicted (1 already done), 0 failed")


def test_a_run_that_is_refused_before_its_first_slide_changes_no_book(
    slides: Path, slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """As one whose dask scheduler does not answer: the table, the record and the report are those of the run before."""
    out = tmp_path / "out"
    run(slides, out, checkpoint)
    before = {name: (out / name).read_bytes() for name in ("predictions.csv", "run.json", "report.html")}
    shutil.copy(slides_folder / "plain.tif", slides / "new.tif")
    with pytest.raises(UsageError):
        run(slides, out, checkpoint, scheduler="tcp://127.0.0.1:1", wait=0)
    assert {name: (out / name).read_bytes() for name in before} == before


def test_why_a_slide_failed_is_not_forgotten_where_a_later_run_does_not_come_to_it(
    slides: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Nor where it lies elsewhere by now."""
    out = tmp_path / "out"
    run(slides, out, checkpoint)
    (slides / "good.tif").write_text("no slide any more")
    moved = slides.rename(tmp_path / "moved")
    (moved / "a.tif").write_text("no slide, either")
    assert run(moved, out, checkpoint, fail_fast=True)[0].failed == 1
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        (row,) = (row for row in csv.DictReader(file) if row["slide_id"] == "bad")
    assert row["status"] == "waiting"
    assert row["error"].startswith("failed when it was last tried: not a whole-slide image")
    assert row["error"].endswith(f"(as {slides / 'bad.tif'})")


def test_what_failed_and_was_moved_since_is_tried_again_and_what_is_not_given_is_named(
    slides: Path, slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (slides / "worse.tif").write_text("no slide")
    assert run(slides, out, checkpoint)[0].failed == 2
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copy(slides_folder / "plain.tif", moved / "bad.tif")
    (slides / "bad.tif").unlink()
    summary, lines = run(moved, out, checkpoint, retry_failed=True)
    assert (summary.ok, summary.failed, summary.waiting) == (1, 0, 0)
    left = f"failed here, and not among these slides: worse ({slides / 'worse.tif'}); give what is to be tried"
    assert lines[0] == left
    assert statuses(out) == {"bad": "ok", "good": "ok", "worse": "failed"}
    assert run(moved, out, checkpoint, retry_failed=True)[1][:2] == [NOTHING, left]
