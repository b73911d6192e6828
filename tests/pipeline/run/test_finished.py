"""What a rerun takes for done: by what its files are, whatever was done to them since."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from makers import tissue_pixels, write_slide

import pipeline.run.run
import pipeline.run.slide
import saccade
import stages.slide.companions
from pipeline.cohort.target import find_target
from pipeline.commands import dry_run
from pipeline.run.keys import RunSettings
from pipeline.run.run import RunSummary, run_cohort


@pytest.fixture(scope="module", autouse=True)
def few_samples() -> Iterator[None]:
    """Fingerprints see little of small slides, as they do of large ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages.slide.companions, "_SAMPLE", 256)
        yield


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slide") / "s.tif", tissue_pixels(1200, 1000, margin=0.05))


@pytest.fixture(scope="module")
def done(slide: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its result, and one whose slide was read to its last byte."""
    folder = tmp_path_factory.mktemp("done")
    for name in ("plain", "verified"):
        assert run(slide, folder / name, checkpoint, verify=name == "verified").ok == 1
    return folder


def run(target: Path, out: Path, model: Path, **settings: Any) -> RunSummary:
    return run_cohort(find_target(target), out, RunSettings(model=model, **settings))


def copied(path: Path) -> None:
    """In place of a file a copy of it."""
    shutil.copy2(path, path.with_name("copy"))
    os.replace(path.with_name("copy"), path)


def changed(path: Path) -> None:
    """Where no sample looks."""
    content = bytearray(path.read_bytes())
    at = len(content) // 2 + 1000
    content[at : at + 2000] = bytes(2000)
    path.write_bytes(content)


def changed_and_dated(path: Path) -> None:
    before = path.stat()
    changed(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("act", "recorded", "verify", "stands"),
    [
        (lambda path: None, "plain", False, True),
        (lambda path: None, "plain", True, False),  # nothing is there to compare with
        (lambda path: None, "verified", True, True),
        (copied, "plain", False, True),
        (os.utime, "plain", False, False),
        (os.utime, "verified", False, True),
        (changed, "plain", False, False),
        (changed, "verified", False, False),
        (changed_and_dated, "plain", False, True),  # as is stated
        (changed_and_dated, "verified", True, False),
    ],
)
def test_a_result_stands_where_its_bytes_do(
    slide: Path,
    done: Path,
    checkpoint: Path,
    tmp_path: Path,
    act: Callable[[Path], None],
    recorded: str,
    verify: bool,
    stands: bool,
) -> None:
    """... as far as is known; and then it is known the next time without opening the slide."""
    path, out = Path(shutil.copy2(slide, tmp_path)), shutil.copytree(done / recorded, tmp_path / "out")
    act(path)
    summary = run(path, out, checkpoint, verify=verify)
    assert (summary.ok + summary.failed, summary.reused) == (1, int(stands)), summary.rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.run.slide, "open_pyramid", None)
        assert run(path, out, checkpoint).reused == summary.ok
    if stands and recorded == "verified":
        assert json.loads((out / "slides/s/prediction.json").read_text())["revision"]["digest"]


def test_finished_slides_start_no_workers_and_change_no_file(
    slide: Path, done: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = Path(shutil.copy2(slide, tmp_path)), shutil.copytree(done / "plain", tmp_path / "out")
    assert run(path, out, checkpoint).reused == 1
    before = {file: file.stat().st_mtime_ns for file in (out / "slides").rglob("*")}
    monkeypatch.setattr(pipeline.run.run, "each", None)
    summary = run_cohort(find_target(path), out, RunSettings(model=checkpoint), workers=2)
    assert summary.reused == 1
    assert {file: file.stat().st_mtime_ns for file in (out / "slides").rglob("*")} == before


@pytest.mark.parametrize("spoilt", ["{}", '{"names": 3}', '{"names": [], "touched": 1, "written": [], "digest": {}}'])
def test_a_damaged_record_of_the_files_is_made_good(
    slide: Path, done: Path, checkpoint: Path, tmp_path: Path, spoilt: str
) -> None:
    out = shutil.copytree(done / "plain", tmp_path / "out")
    mark = out / "slides/s/prediction.json"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "revision": json.loads(spoilt), "read_as": 1}))
    assert run(slide, out, checkpoint).reused == 0
    assert run(slide, out, checkpoint).reused == 1


def test_what_is_kept_of_a_slide_is_not_taken_for_that_of_another_state(
    slide: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """A changed slide into a new folder, whose features were kept before it changed."""
    from pipeline.model.checkpoint import load_model
    from pipeline.model.look import look

    path, model = Path(shutil.copy2(slide, tmp_path)), load_model(checkpoint)

    def key() -> object:
        view = look(path, model).view
        assert view.key is not None
        return view.key("encoder", 8)

    before = key()
    copied(path)
    assert key() == before
    changed(path)
    assert key() != before


def test_who_asks_by_the_door_to_verify_is_heard(slide: Path, done: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Also a dry run, which writes nothing."""
    out = shutil.copytree(done / "plain", tmp_path / "out")
    (row,) = dry_run(slide, checkpoint, out=out, workers=0, verify=True).rows
    assert (row["status"], row["why"]) == (
        "stale",
        "no digest tells whether its file, which was written since, has changed",
    )
    assert saccade.run(slide, checkpoint, out=out, workers=0, verify=True).reused == 0
    assert saccade.run(slide, checkpoint, out=out, workers=0, verify=True).reused == 1
