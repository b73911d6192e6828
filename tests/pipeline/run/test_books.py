"""The table of a run is there while it works, is true whenever it ends, and keeps what earlier runs put into it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from makers import ROOT, saccade

from pipeline.cohort.target import find_target
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model
from pipeline.model.header import model_digest
from pipeline.output.folder import prepare_output
from pipeline.run import books
from pipeline.run.keys import RunSettings, run_digest
from pipeline.run.run import run_cohort
from pipeline.run.slide import process_slide
from pipeline.view.run_folder import open_run
from stages.disk import PREFIX, new_file
from stages.lease import lease


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return {row["slide_id"]: row for row in csv.DictReader(file)}


def run(target: Path, out: Path, model: Path, **settings: Any) -> books.RunSummary:
    return run_cohort(find_target(target), out, RunSettings(model=model, **settings))


def test_runs_of_other_slides_add_to_the_table(slides_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    """With other settings they stand apart: results that were made otherwise are not in one table."""
    out = tmp_path / "out"
    run(slides_folder / "plain.tif", out, checkpoint)
    first = table(out)["plain"]
    summary = run(slides_folder / "even.tif", out, checkpoint)
    assert (summary.total, summary.kept, summary.others) == (1, 1, 0)
    assert list(table(out)) == ["even", "plain"]
    assert table(out)["plain"] == first
    assert "plain" in (out / "report.html").read_text()
    summary = run(slides_folder / "odd.tif", out, checkpoint, seed=7)
    assert (summary.kept, summary.others) == (0, 2)
    assert list(table(out)) == ["odd"]
    assert (out / "slides" / "plain" / "prediction.json").exists()


def test_patient_and_label_are_in_the_table_as_far_as_this_run_knows_them(
    slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Of a slide that fails as well; a table that comes later adds them, and a run without one has no such columns."""
    out, last = tmp_path / "out", tmp_path / "cohort.csv"
    (tmp_path / "text.svs").write_text("not a slide")
    run(slides_folder / "odd.tif", out, checkpoint)
    (without,) = table(out).values()
    assert not {"patient", "label"} & without.keys()
    one, other = load_model(checkpoint).spec.classes[:2]
    rows = [(slides_folder / "odd.tif", "p1", other), (slides_folder / "even.tif", "p2", ""), ("text.svs", "p2", one)]
    last.write_text("\n".join(["slide,patient,label", *(",".join(map(str, row)) for row in rows)]))
    summary = run(last, out, checkpoint)
    found = table(out)
    assert summary.reused == 1
    assert {name: (row["patient"], row["label"]) for name, row in found.items()} == {
        "odd": ("p1", other),
        "even": ("p2", ""),
        "text": ("p2", one),
    }
    assert list(found["odd"])[: len(without)] == list(without), "columns are appended"
    assert {key: found["odd"][key] for key in without} == without
    assert [(row["patient"], row.get("label")) for row in summary.rows] == [("p1", other), ("p2", None), ("p2", one)]
    assert "<h2>Slides</h2>" in (out / "report.html").read_text(encoding="utf-8")
    shown = {slide.name: (slide.patient, slide.label) for slide in open_run(out).slides}
    assert shown == {"odd": ("p1", other), "even": ("p2", None), "text": ("p2", None)}
    run(slides_folder / "plain.tif", out, checkpoint)
    assert not {"patient", "label"} & table(out)["odd"].keys(), "this run's table tells neither"


def test_the_table_is_true_whenever_a_run_is_killed(slides_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Outright, after its first slide: what is done is in the table, and what is not is said to wait."""
    out = tmp_path / "out"
    script = f"""
import os, signal, sys
sys.path[:0] = [{str(ROOT)!r}]
from pathlib import Path
from pipeline.cohort.target import find_target
from pipeline.run import books
from pipeline.run.run import run_cohort
from pipeline.run.keys import RunSettings
books.OFTEN = books.SHARE = 1e-9
books.SHARE = 1e9
def end(done, total, line):
    os.kill(os.getpid(), signal.SIGKILL)
run_cohort(find_target(Path(sys.argv[1])), Path(sys.argv[2]), RunSettings(model=Path(sys.argv[3])), progress=end)
"""
    command = [sys.executable, "-c", script, slides_folder, out, checkpoint]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [row["status"] for row in table(out).values()] == ["ok", "waiting", "waiting"]
    assert "the run goes on, or was cut short" in (out / "report.html").read_text()
    assert json.loads((out / "run.json").read_text())["ended"] is None
    summary = run(slides_folder, out, checkpoint)
    assert json.loads((out / "run.json").read_text())["ended"] is not None
    assert (summary.ok, summary.failed) == (3, 0)
    assert [row["status"] for row in table(out).values()] == ["ok"] * 3
    assert not [name for name in os.listdir(out) if name.startswith(PREFIX)], "what the killed one left is gone"


def test_another_run_with_other_settings_is_refused_while_one_works(
    slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(slides_folder / "plain.tif", out, checkpoint)
    with (
        lease(out / f"{PREFIX}run-{'0' * 16}", shared=True),
        pytest.raises(UsageError, match=r"another run works into .*: wait for its end, or choose another --out"),
    ):
        run(slides_folder / "plain.tif", out, checkpoint)
    assert run(slides_folder / "plain.tif", out, checkpoint).reused == 1


@pytest.mark.slow
def test_two_runs_of_one_kind_share_the_work(slides_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Each slide is predicted by one of them, and both tables have all."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pipeline.cli", "run", slides_folder, "--model", checkpoint, "--out", out]
    both = [
        subprocess.Popen([*map(str, command), "--workers", "0"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    lines = [process.communicate(timeout=200)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], lines
    told = [line for text in lines for line in text.splitlines() if "/3] " in line]
    assert sum("(done earlier)" in line for line in told) == 3
    assert len(told) == 6
    assert {row["status"] for row in table(out).values()} == {"ok"}


def test_a_run_that_goes_on_keeps_what_another_did_here_meanwhile(
    slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """In the table at any time, as it may be killed."""
    out, settings, model = tmp_path / "out", RunSettings(model=checkpoint), load_model(checkpoint)
    prepare_output(out)
    digest = run_digest(settings, model, model_digest(checkpoint))
    one = books.Books(out, find_target(slides_folder / "even.tif"), model, settings, digest, ())
    one.write()
    assert run(slides_folder / "plain.tif", out, checkpoint).kept == 0
    one.write()
    assert {name: row["status"] for name, row in table(out).items()} == {"even": "waiting", "plain": "ok"}


def test_a_slide_that_another_process_writes_is_told_to_be_busy(
    slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(slides_folder / "plain.tif", out, checkpoint)
    (slide,) = find_target(slides_folder / "plain.tif").slides
    settings = RunSettings(model=checkpoint)
    name = hashlib.sha256(slide.slide_id.encode()).hexdigest()[:16]
    with lease(out / "slides" / f"{PREFIX}slide-{name}"):
        assert process_slide(slide, out, settings, model_digest(checkpoint), wait=False)["status"] == "busy"


def test_the_command_names_a_pipe_and_does_not_wait_for_it(
    slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "stuck.tif")
    slides = [tmp_path / "stuck.tif", *slides_folder.iterdir()]
    (tmp_path / "cohort.csv").write_text("\n".join(["slide", *map(str, slides)]))
    done = saccade("run", tmp_path / "cohort.csv", "--model", checkpoint, "--out", tmp_path / "out", "--workers", 0)
    assert done.returncode == 1, done.stderr
    found = table(tmp_path / "out")
    assert {name for name, row in found.items() if row["status"] == "ok"} == {"even", "odd", "plain"}
    assert found["stuck"]["error"] == "it is a named pipe, not a file: give a file"


def test_what_tells_runs_apart(checkpoint: Path) -> None:
    model = load_model(checkpoint)
    plain = RunSettings(model=checkpoint)
    digest = run_digest(plain, model, "a")
    others = [
        run_digest(plain, model, "b"),
        run_digest(RunSettings(model=checkpoint, samples=32), model, "a"),
        run_digest(RunSettings(model=checkpoint, seed=1), model, "a"),
        run_digest(RunSettings(model=checkpoint, tolerance=0.1), model, "a"),
        run_digest(RunSettings(model=checkpoint, decide=0.5), model, "a"),
        run_digest(RunSettings(model=checkpoint, mpp=0.25), model, "a"),
    ]
    assert len({digest, *others}) == 7
    assert run_digest(RunSettings(model=Path("elsewhere"), device="cuda"), model, "a") == digest


@pytest.fixture(scope="module")
def done(slides_folder: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run over one slide."""
    out = tmp_path_factory.mktemp("done") / "out"
    assert run(slides_folder / "plain.tif", out, checkpoint).ok == 1
    return out


@pytest.mark.parametrize(
    ("name", "left", "reused"),
    [
        ("overlay.jpg", 0, True),
        ("evidence.jpg", None, True),
        ("gallery.jpg", None, False),
        ("samples.h5", 10, False),
        ("evidence.zarr/0/c/0/0/0", 0, False),
        ("attention.zarr", None, False),
    ],
)
def test_what_is_gone_or_cut_short_of_a_slide_is_made_again(
    slides_folder: Path, checkpoint: Path, done: Path, tmp_path: Path, name: str, left: int | None, reused: bool
) -> None:
    """Pictures are drawn from the rest, all else takes the slide; until then the row of its data warns."""
    out = shutil.copytree(done, tmp_path / "out")
    lost = out / "slides" / "plain" / name
    if left is not None:
        lost.write_bytes(lost.read_bytes()[:left])
    else:
        shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    model = load_model(checkpoint)
    run_of = json.loads((out / "slides" / "plain" / "prediction.json").read_text())["run"]
    (row,), others = books.earlier_rows(out, {}, (), run_of, model, ())
    assert ([one.startswith(books.STALE) for one in row["warnings"]], others) == ([True] * (not reused), 0)
    assert run(slides_folder / "plain.tif", out, checkpoint).reused == reused
    whole, made = done / "slides" / "plain" / name, out / "slides" / "plain" / name
    assert made.is_dir() or made.stat().st_size == whole.stat().st_size
    assert run(slides_folder / "plain.tif", out, checkpoint).reused == 1


@pytest.mark.parametrize("change", [{"prob_normal_low": "x"}, {"predicted": "other"}, {"warnings": None}])
def test_a_record_that_makes_no_sense_is_written_again_and_ends_nothing(
    slides_folder: Path, checkpoint: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    """Of the slide itself, and of one that an earlier run left."""
    out = tmp_path / "out"
    run(slides_folder / "plain.tif", out, checkpoint)
    record = out / "slides" / "plain" / "prediction.json"
    told = json.loads(record.read_text())
    record.write_text(json.dumps({**told, "row": {**told["row"], **change}}))
    assert (run(slides_folder / "even.tif", out, checkpoint).kept, list(table(out))) == (0, ["even"])
    assert run(slides_folder / "plain.tif", out, checkpoint).reused == 0
    assert list(table(out)) == ["plain", "even"]


def test_a_gallery_that_is_damaged_leaves_its_place_empty(
    slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(slides_folder / "plain.tif", out, checkpoint)
    (out / "slides" / "plain" / "gallery.jpg").write_bytes(b"")
    assert run(slides_folder / "even.tif", out, checkpoint).kept == 1
    assert (out / "report.html").exists()


def test_a_tolerance_that_was_not_reached_is_told(slides_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    summary = run(slides_folder / "plain.tif", tmp_path / "out", checkpoint, tolerance=1e-6, samples=20)
    (row,) = summary.rows
    assert "the tolerance of 1e-06 was not reached: after 20 patches" in " ".join(row["warnings"])


def test_what_a_killed_run_left_unfinished_goes_unless_another_works_there(
    slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(slides_folder / "plain.tif", out, checkpoint)
    with new_file(out / "report.html") as left:
        left.touch()
    held = out / "slides" / f"{PREFIX}slide-{'0' * 16}"
    for path in (left, held):
        path.touch()
    with lease(out / f"{PREFIX}training"):
        run(slides_folder / "plain.tif", out, checkpoint)
        assert left.exists()
    run(slides_folder / "plain.tif", out, checkpoint)
    assert not left.exists()
    assert not held.exists()


@pytest.mark.parametrize("left", [b"no slide", 5000, None])
def test_a_slide_that_fails_since_it_is_another_has_no_result_of_the_former(
    slides_folder: Path, checkpoint: Path, tmp_path: Path, left: bytes | int | None
) -> None:
    """Whatever it is now; one whose file is away keeps its result, and what is not ours stays in any case."""
    path, out = Path(shutil.copy2(slides_folder / "plain.tif", tmp_path / "s.tif")), tmp_path / "out"
    run(path, out, checkpoint)
    folder = out / "slides" / "s"
    for note in (folder / "notes.txt", folder / "attention.zarr" / "notes.txt"):
        note.write_text("a user's")
    before = sorted(folder.rglob("*"))
    content = path.read_bytes()
    path.unlink()
    if left is not None:
        path.write_bytes(left if isinstance(left, bytes) else content[:left])
    table = tmp_path / "cohort.csv"
    table.write_text(f"slide\n{path}\n")
    assert run(table, out, checkpoint).failed == 1
    kept = [folder / "attention.zarr", folder / "attention.zarr" / "notes.txt", folder / "notes.txt"]
    assert sorted(folder.rglob("*")) == (before if left is None else kept)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_run_json_tells_what_each_stage_of_a_slide_took(
    slides_folder: Path, checkpoint: Path, tmp_path: Path, workers: int
) -> None:
    """Of slides that this run worked on, in their order; a rerun has none."""
    cohort, settings = find_target(slides_folder), RunSettings(model=checkpoint)
    first = run_cohort(cohort, tmp_path / "out", settings, workers=workers)
    told = json.loads((tmp_path / "out" / "run.json").read_text())["stages"]
    assert told.keys() == {"even", "odd", "plain"}
    for row in first.rows:
        stages = told[row["slide_id"]]
        assert [*stages] == [
            *("open", "look", "attend", "read and encode", "thumbnail"),
            *("attribute", "write", "draw pictures"),
        ]
        assert all(one["seconds"] > 0 and one["cpu_seconds"] >= 0 for one in stages.values())
        assert stages["look"]["cpu_seconds"] > 0
        inside = ("open", "look", "attend", "read and encode", "attribute")  # of what a row's seconds tell
        assert sum(stages[name]["seconds"] for name in inside) <= row["seconds"] + 0.001 * len(inside)
    assert run_cohort(cohort, tmp_path / "out", settings, workers=workers).reused == 3
    assert json.loads((tmp_path / "out" / "run.json").read_text())["stages"] == {}
