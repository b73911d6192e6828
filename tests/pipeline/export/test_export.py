"""A run is exported slide by slide: what cannot be is said, what is not ours stays."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from makers import ROOT, saccade, tissue_pixels, write_slide

from pipeline.cohort.target import find_target
from pipeline.errors import UsageError
from pipeline.export.export import export_run
from pipeline.export.formats import FORMATS
from pipeline.export.kept import RECORDS
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort
from pipeline.view.run_folder import open_run
from stages.lease import lease

AWKWARD_NAME = "Fälle 12%0Aü, %22x%22.d"
HERE = [name for name, one in FORMATS.items() if all(map(find_spec, one.needs)) and name != "spatialdata"]
"""Formats whose packages are installed; importing SpatialData's warns, which fails tests here: it has its own."""
DONE = {"bounded", "odd", AWKWARD_NAME}


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder, by its path from there, but for the records of what was exported."""
    found = (path for path in folder.rglob("*") if path.is_file() and RECORDS not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def times(folder: Path) -> dict[str, int]:
    """When each file in it was written."""
    return {name: (folder / name).stat().st_mtime_ns for name in files(folder)}


@pytest.fixture(scope="module")
def other(ran: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of some of the same slides with other settings."""
    out = tmp_path_factory.mktemp("other") / "run"
    run_cohort(find_target(ran.parent / "odd.tif"), out, RunSettings(model=checkpoint, seed=5))
    return out


def test_every_format_of_every_slide_that_has_a_result(run: Path) -> None:
    """One file that was no slide is told of, and that the run lacks it is no failure of the export."""
    told: list[tuple[int, int, str]] = []
    done = export_run(run, HERE, progress=lambda *how: told.append(how))
    assert (done.written, done.failed, done.without) == (3, {}, ("text",))
    assert done.out == run / "export"
    assert [line for _, _, line in told if "skipped" in line] == ["text: skipped, the run has no result of it"]
    assert [(count, total) for count, total, _ in told] == [(k, 4) for k in range(1, 5)]
    for name in HERE:
        format, there = FORMATS[name], "\n".join(files(run / "export" / name))
        assert all(there.count(slide) >= len(format.files) - format.labelled for slide in DONE), name
        assert "text." not in there
    assert open_run(run).slides  # it is the same run


@pytest.mark.parametrize("name", [name for name in HERE if name != "dicom"])
def test_a_run_of_an_earlier_version_is_exported(old: Path, name: str) -> None:
    done = export_run(old, [name])
    assert (done.written, done.failed) == (2, {})


def test_dicom_needs_the_slide_for_whose_results_they_are(old: Path) -> None:
    pytest.importorskip("highdicom", reason="needs highdicom, of the extra `dicom`")
    done = export_run(old, ["dicom"])
    assert all("--slides" in why for why in done.failed.values())
    assert len(done.failed) == 2


def test_a_slide_that_cannot_be_written_leaves_the_others_alone(run: Path) -> None:
    (run / "slides" / "odd" / "samples.h5").write_bytes(b"torn")
    (run / "slides" / AWKWARD_NAME / "prediction.json").unlink()
    done = export_run(run, ["qupath", "clam"])
    assert (done.written, set(done.failed)) == (1, {"odd", AWKWARD_NAME})
    assert done.failed["odd"].startswith("samples.h5 of odd is missing or damaged: run the same `saccade run` again")
    assert "is not finished" in done.failed[AWKWARD_NAME]
    assert set(files(run / "export" / "qupath")) == {".saccade", "bounded.geojson"}


def test_a_result_that_is_gone_is_a_failure(run: Path) -> None:
    """The table has it, so that the run did have a result of it."""
    shutil.rmtree(run / "slides" / "odd")
    done = export_run(run, ["qupath"])
    assert (done.written, list(done.failed), done.without) == (2, ["odd"], ("text",))
    assert "slides is gone: run the same `saccade run` again" in done.failed["odd"]


def test_what_an_earlier_export_left_of_a_slide_without_result_is_said(run: Path) -> None:
    """Its file was spoilt since, and the run has taken its result back."""
    assert export_run(run, ["clam", "trident", "qupath"]).written == 3
    shutil.rmtree(run / "slides" / "odd")
    table = run / "predictions.csv"
    table.write_text(re.sub(r"(?m)^(odd,.*,)ok,", r"\1failed,", table.read_text()))
    told: list[str] = []
    done = export_run(run, ["clam", "trident", "torchmil"], progress=lambda done, total, line: told.append(line))
    assert done.without == ("odd", "text")
    said = "skipped, the run has no result of it"
    assert [line for line in told if "skipped" in line] == [
        f"odd: {said}; what an earlier export wrote of it is still in clam, trident",
        f"text: {said}",
    ]


@pytest.mark.parametrize("name", HERE)
def test_a_full_disk_ends_it_in_a_line(run: Path, name: str, small_disk: Path) -> None:
    """Whichever library met it; nothing unfinished stays."""
    free = os.statvfs(small_disk)
    (small_disk / "other").write_bytes(bytes((free.f_bavail - 2) * free.f_frsize))
    with pytest.raises(OSError, match=r"space") as caught:
        export_run(run, [name], out=small_disk / "x")
    assert caught.value.errno == errno.ENOSPC
    assert str(caught.value.filename).startswith(str(small_disk / "x" / name))
    assert not list(small_disk.rglob(".saccade-*"))


def test_a_map_that_is_no_number_somewhere_fails_and_leaves_what_was_there(run: Path) -> None:
    from pipeline.output.attention_map import read_attention_zarr, write_attention_zarr
    from stages.geometry import Mpp

    export_run(run, ["qupath"])
    before = files(run / "export")
    path = run / "slides" / "odd" / "attention.zarr"
    attention, raster = read_attention_zarr(path)
    spoilt = attention.copy()
    spoilt[0, 0] = float("nan")
    write_attention_zarr(path, spoilt, raster, mpp=Mpp(0.5, 0.5))
    done = export_run(run, ["qupath"], only=["odd"])
    assert list(done.failed) == ["odd"]
    assert "not a number" in done.failed["odd"]
    assert files(run / "export") == before


def test_what_we_wrote_is_written_again_and_nothing_else_is_replaced(run: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs" / "clam" / "h5_files"
    theirs.mkdir(parents=True)
    (theirs / "odd.h5").write_text("somebody's own")
    with pytest.raises(UsageError, match=r"already has a 'h5_files/odd.h5' that saccade did not write"):
        export_run(run, ["clam"], out=tmp_path / "theirs")
    assert files(tmp_path / "theirs") == {"clam/h5_files/odd.h5": b"somebody's own"}
    export_run(run, ["clam"], out=tmp_path / "ours", only=["odd"])
    (tmp_path / "ours" / "clam" / "h5_files" / "mine.h5").write_text("kept")
    (tmp_path / "ours" / "clam" / "h5_files" / "odd.h5").write_text("spoilt")
    done = export_run(run, ["clam"], out=tmp_path / "ours")
    assert (done.written, done.kept) == (3, 0)
    assert (tmp_path / "ours" / "clam" / "h5_files" / "mine.h5").read_text() == "kept"
    assert (tmp_path / "ours" / "clam" / "h5_files" / "odd.h5").read_bytes().startswith(b"\x89HDF")


@pytest.mark.parametrize("name", HERE)
def test_what_is_whole_and_current_is_kept(run: Path, name: str) -> None:
    """Nothing of it is touched, but for the table of all; what was spoilt or is of another result is written again."""
    assert export_run(run, [name]).kept == 0
    folder = run / "export" / name
    before, table = times(folder), FORMATS[name].table
    done = export_run(run, [name])
    assert (done.written, done.kept, done.failed, done.without) == (0, 3, {}, ("text",))
    assert "0 slides written as" in done.line
    assert "3 kept" in done.line
    same = times(folder)
    assert {file for file in before | same if before.get(file) != same.get(file)} <= {".saccade", table}
    spoilt = next(
        path for path in sorted(folder.rglob("*")) if path.is_file() and "odd" in str(path.relative_to(folder))
    )
    spoilt.write_bytes(b"")
    commit = run / "slides" / "bounded" / "prediction.json"
    commit.write_text(json.dumps(json.loads(commit.read_text()) | {"written": "2026-01-01T00:00:00+00:00"}))
    told: list[str] = []
    again = export_run(run, [name], progress=lambda done, total, line: told.append(line))
    assert (again.written, again.kept) == (2, 1)
    assert f"{AWKWARD_NAME}: kept" in told
    assert spoilt.stat().st_size > 0


def test_an_export_that_was_killed_goes_on(run: Path, tmp_path: Path) -> None:
    """Outright, after its second slide: those are kept, with their rows, and nothing unfinished stays."""
    code = """
import os, sys
from pathlib import Path
from pipeline.export.export import export_run
def told(done, total, line):
    if done == 2:
        os.kill(os.getpid(), 9)
export_run(Path(sys.argv[1]), ["clam", "trident"], out=Path(sys.argv[2]), progress=told)
"""
    done = subprocess.run([sys.executable, "-c", code, run, tmp_path / "to"], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert not (tmp_path / "to" / "clam" / "slides.csv").exists()
    [patches] = (tmp_path / "to" / "trident").glob("*/patches")
    for folder in (tmp_path / "to" / "clam" / "h5_files", patches):
        (folder / f".saccade-{'0' * 32}.h5").write_text("half of one")
    again = export_run(run, ["clam", "trident"], out=tmp_path / "to")
    assert (again.written, again.kept) == (1, 2)
    assert not list((tmp_path / "to").rglob(".saccade-*"))
    export_run(run, ["clam", "trident"], out=tmp_path / "whole")
    for name in ("clam/slides.csv", "trident/slides.csv"):
        assert (tmp_path / "to" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_another_run_is_not_mixed_into_an_export(run: Path, other: Path, tmp_path: Path) -> None:
    """Of other settings, whether it has the same slides or others; nothing is written of it."""
    to = tmp_path / "to"
    for only in (["odd"], ["bounded"]):
        shutil.rmtree(to, ignore_errors=True)
        export_run(run, ["qupath", "clam"], out=to, only=only)
        before = times(to)
        with pytest.raises(
            UsageError, match=rf"clam has '{only[0]}' of the run .*, which another model or other settings"
        ):
            export_run(other, ["clam"], out=to)
        assert times(to) == before
    assert export_run(other, ["clam"], out=tmp_path / "else").written == 1


def test_runs_of_one_model_and_the_same_settings_may_lie_together(run: Path, checkpoint: Path, tmp_path: Path) -> None:
    """But not two slides of one name; a run that was moved is the same."""
    slide, to = tmp_path / "more" / "even.tif", tmp_path / "to"
    slide.parent.mkdir()
    write_slide(slide, tissue_pixels(600, 700))
    settings = RunSettings(model=checkpoint, count_seen=True)
    run_cohort(find_target(slide), tmp_path / "second", settings)
    assert export_run(run, ["qupath"], out=to).written == 3
    assert export_run(tmp_path / "second", ["qupath"], out=to).written == 1
    moved = run.rename(tmp_path / "moved")
    assert export_run(moved, ["qupath"], out=to).kept == 3
    slide = write_slide(slide.with_name("odd.tif"), tissue_pixels(640, 700))
    run_cohort(find_target(slide), tmp_path / "third", settings)
    with pytest.raises(UsageError, match=r"'odd' of the run .*, which is another slide of that name: the two would"):
        export_run(tmp_path / "third", ["qupath"], out=to)


def test_a_run_that_was_made_anew_replaces_its_own_export(run: Path, other: Path) -> None:
    """With other settings; what it has no slide of any more would lie among the new ones, and is told of."""
    export_run(run, ["qupath"], only=["odd"])
    shutil.rmtree(run / "slides")
    for name in ("slides", "predictions.csv", "run.json"):
        (shutil.copytree if name == "slides" else shutil.copy)(other / name, run / name)
    assert export_run(run, ["qupath"]).written == 1
    record = run / "export" / "qupath" / RECORDS / "odd.json"
    told = json.loads(record.read_text())
    (record.parent / "gone.json").write_text(json.dumps(told | {"run": "of before"}))
    with pytest.raises(UsageError, match=r"has 'gone' of the run .*give another --out, or remove .*qupath"):
        export_run(run, ["qupath"])


def test_another_export_is_not_joined(run: Path) -> None:
    export_run(run, ["qupath"])
    with (
        lease(run / "export" / "qupath" / ".saccade-export"),
        pytest.raises(UsageError, match="another export works into"),
    ):
        export_run(run, ["qupath"])


def test_trident_s_folder_that_somebody_made_stays(run: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "out" / "trident" / "20x_64px_0px_overlap"
    theirs.mkdir(parents=True)
    done = export_run(run, ["trident"], out=tmp_path / "out")
    assert set(done.failed) == DONE
    assert all("that saccade did not write" in why for why in done.failed.values())
    assert not list(theirs.iterdir())


def test_only_some_slides_and_none_that_is_not_there(run: Path) -> None:
    assert export_run(run, ["qupath"], only=["odd", "odd"]).written == 1
    assert set(files(run / "export" / "qupath")) == {".saccade", "odd.geojson"}
    with pytest.raises(UsageError, match="the run has no slide 'even'"):
        export_run(run, ["qupath"], only=["even"])
    with pytest.raises(UsageError, match="there is no format 'csv': give one or more of qupath, "):
        export_run(run, ["csv"])
    with pytest.raises(UsageError, match="no format was given"):
        export_run(run, [])


def test_maps_need_no_slides(run: Path, tmp_path: Path) -> None:
    """Moved away, they are found by --slides; without them everything that is no picture is exported all the same."""
    commit = run / "slides" / "odd" / "prediction.json"
    told = json.loads(commit.read_text())
    moved = shutil.copy(told["path"], tmp_path / "odd.tif")
    commit.write_text(json.dumps(told | {"path": str(tmp_path / "gone" / "odd.tif")}))
    with_it = export_run(run, ["qupath"], out=tmp_path / "a", only=["odd"], slides=[Path(moved).parent])
    without = export_run(run, ["qupath"], out=tmp_path / "b", only=["odd"])
    assert (with_it.written, without.written) == (1, 1)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    with pytest.raises(UsageError, match="--slides: there is no folder"):
        export_run(run, ["qupath"], slides=[tmp_path / "nowhere"])


def test_the_command_says_what_there_is_and_what_it_did(run: Path) -> None:
    listed = saccade("export")
    assert listed.returncode == 0
    assert all(f"{name}\n  {one.holds}\n  {one.opened_by}" in listed.stdout for name, one in FORMATS.items())
    assert not (run / "export").exists()
    done = saccade("export", run, "--format", "qupath,torchmil")
    assert done.returncode == 0, done.stderr
    assert "3 slides written as qupath, torchmil, 1 without a result in this run" in done.stdout
    (run / "slides" / "odd" / "samples.h5").unlink()
    failed = saccade("export", run, "--format", "qupath", "--only", "odd")
    assert failed.returncode == 1
    assert "odd: FAILED: samples.h5 of odd is missing or damaged" in failed.stderr
    assert saccade("export", run, "--format", "cls").returncode == 2
    nothing = saccade("export", "--format", "qupath")
    assert nothing.returncode == 2
    assert "RUN is missing: name the folder that `saccade run --out` wrote" in nothing.stderr
