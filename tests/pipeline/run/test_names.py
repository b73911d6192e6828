"""A slide keeps the name that it has in a folder of results, whatever comes to lie beside it."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from pipeline.cohort.target import find_target
from pipeline.commands import dry_run
from pipeline.run.books import RunSummary
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort


def run(target: Path, out: Path, model: Path) -> RunSummary:
    return run_cohort(find_target(target), out, RunSettings(model=model, samples=4))


def table(out: Path) -> dict[str, str]:
    """Paths of the slides in the table, by name."""
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return {row["slide_id"]: row["path"] for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ("a/x.tif", "b/x.tif", ("x", "b")),  # each alone in its folder
        ("a/y/x.tif", "x.tif", ("x", None)),  # whose name is the other's now
        ("Aa.tif", "aA.tif", ("Aa", None)),  # one name, to some file systems
        ("\u00e9.tif", "e\u0301.tif", ("\u00e9", None)),  # one, to a reader
    ],
)
def test_a_folder_that_grows_costs_no_slide_its_name(
    slides_folder: Path, checkpoint: Path, tmp_path: Path, first: str, second: str, named: tuple[str, str | None]
) -> None:
    """Nor a second prediction, nor a second row; a dry run says so, and a rerun finds both."""
    folder, out = tmp_path / "slides", tmp_path / "out"
    one, other = folder / first, folder / second
    for path, slide in ((one, "plain.tif"), (other, "odd.tif")):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path == one:
            shutil.copy2(slides_folder / slide, path)
            assert run(folder, out, checkpoint).ok == 1
    shutil.copy2(slides_folder / "odd.tif", other)
    (folder / "z.tif").write_text("no slide")
    looked = dry_run(folder, checkpoint, out=out, samples=4, workers=0)
    assert {Path(row["path"]): row["status"] for row in looked.rows}[one] == "done"
    summary = run(folder, out, checkpoint)
    assert (summary.ok, summary.reused, summary.failed) == (2, 1, 1)
    found = table(out)
    assert found[named[0]] == str(one)
    assert sorted(found.values()) == sorted(map(str, (one, other, folder / "z.tif")))
    assert named[1] is None or found[named[1]] == str(other)
    assert (run(folder, out, checkpoint).reused, table(out)) == (2, found)


def test_a_name_that_somebody_gave_is_the_slides(slides_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    """By a column of names; a run over the folder later goes by it."""
    (tmp_path / "slides").mkdir()
    path = Path(shutil.copy2(slides_folder / "plain.tif", tmp_path / "slides" / "x.tif"))
    (tmp_path / "named.csv").write_text(f"slide,slide_id\n{path},case 1\n")
    out = tmp_path / "out"
    run(path, out, checkpoint)
    run(tmp_path / "named.csv", out, checkpoint)
    assert table(out) == {"case 1": str(path)}
    shutil.rmtree(out / "slides" / "x")
    assert run(path.parent, out, checkpoint).reused == 1
    assert table(out) == {"case 1": str(path)}
