"""Slides of earlier runs stay in the table, also another of the same name; a row says where its file has changed."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest

from pipeline.cohort.target import find_target
from pipeline.run import earlier
from pipeline.run.books import RunSummary
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort

Row = tuple[str, str, str]


def run(target: Path, out: Path, model: Path) -> RunSummary:
    return run_cohort(find_target(target), out, RunSettings(model=model, samples=4))


def rows(out: Path) -> list[Row]:
    """(path, status, error or warnings) of each slide of the table that lies beside it."""
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        found = sorted((r["path"], r["status"], r["error"] or r.get("warnings", "")) for r in csv.DictReader(file))
    return [row for row in found if Path(row[0]).is_relative_to(out.parent)]


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders for slides of one name."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    return tmp_path / "a" / "x.tif", tmp_path / "b" / "x.tif"


def test_a_second_slide_of_a_name_is_refused_and_costs_the_first_no_row(
    two: tuple[Path, Path], slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Whether it can be opened or not; also once other slides are run, and its own row goes when it was mended."""
    first, second, out = *two, tmp_path / "out"
    shutil.copy(slides_folder / "plain.tif", first)
    second.write_text("no slide")
    run(first, out, checkpoint)
    good = (str(first), "ok", "")
    no_slide = (
        str(second),
        "failed",
        "not a whole-slide image, but a text file, whatever its name: name the slide itself, or take this one out",
    )
    for target in (second, slides_folder / "odd.tif"):
        run(target, out, checkpoint)
        assert rows(out) == [good, no_slide]
    shutil.copy(slides_folder / "even.tif", second)
    run(second, out, checkpoint)
    refused = f"{out / 'slides' / 'x'} already holds another slide of this name ({first}): use another --out or rename "
    assert rows(out) == [good, (str(second), "failed", f"{refused}the slide")]
    second.unlink()
    run(first, out, checkpoint)
    assert rows(out) == [good]


def test_a_second_slide_of_a_name_that_is_predicted_costs_a_first_that_failed_no_row(
    two: tuple[Path, Path], slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    first, second, out = *two, tmp_path / "out"
    first.write_text("no slide")
    shutil.copy(slides_folder / "plain.tif", second)
    run(first, out, checkpoint)
    failed = rows(out)
    for target in (second, first):
        run(target, out, checkpoint)
        assert rows(out) == [*failed, (str(second), "ok", "")]


def test_a_slide_that_was_moved_or_goes_by_another_name_has_one_row(
    two: tuple[Path, Path], slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """With its folder, which leaves no trace on the file; under its new path, also in the table of other slides."""
    first, second, out = *two, tmp_path / "out"
    shutil.copy(slides_folder / "plain.tif", first)
    run(first, out, checkpoint)
    second.parent.rmdir()
    first.parent.rename(second.parent)
    assert run(second, out, checkpoint).reused == 1
    assert rows(out) == [(str(second), "ok", "")]
    assert run(slides_folder / "odd.tif", out, checkpoint).stale == 0
    assert rows(out) == [(str(second), "ok", "")]
    (tmp_path / "named.csv").write_text(f"slide,slide_id\n{second},other\n")
    assert run(tmp_path / "named.csv", out, checkpoint).reused == 0
    assert rows(out) == [(str(second), "ok", "")]


def test_rows_of_slides_that_are_not_as_they_were_say_so(
    two: tuple[Path, Path], slides_folder: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without opening them; a copy with its times is as it was, and a disk that does not answer holds nobody up."""
    first, second, out = two[0], two[1].with_name("y.tif"), tmp_path / "out"
    for path in (first, second):
        shutil.copy2(slides_folder / "plain.tif", path)
        run(path, out, checkpoint)
    other = slides_folder / "odd.tif"
    first.unlink()
    shutil.copy2(slides_folder / "plain.tif", first)
    assert run(other, out, checkpoint).stale == 0
    os.utime(first)
    second.unlink()
    assert run(other, out, checkpoint).stale == 2
    told = [row[2].removeprefix(f"{earlier.STALE} file ") for row in rows(out)]
    assert told == ["may have changed since: run it again", "is no longer there, or its disk is not"]
    assert json.loads((out / "run.json").read_text())["earlier_stale"] == 2
    monkeypatch.setattr(earlier, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(earlier, "gone", lambda path: earlier.threading.Event().wait(60))
    assert run(other, out, checkpoint).stale == 2
    assert rows(out)[0][2].endswith("was not looked at: its disk answers too slowly")
