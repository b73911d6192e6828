"""A dry run says what the run then does, and writes nothing."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from makers import saccade, tissue_pixels, write_slide

from pipeline.cache import CacheSettings, cache_cohort
from pipeline.cohort.target import find_target
from pipeline.dry_run.dry_run import dry_cache_cohort, dry_run_cohort
from pipeline.dry_run.outcome import DryRun
from pipeline.errors import UsageError
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort
from stages import object_store
from stages.budget import OWN_BYTES
from stages.overlay import evidence_picture
from stages.place import Url


def everything(folder: Path) -> dict[str, tuple[int, int, int]]:
    """All that lies in a folder, with sizes, times and numbers."""
    status = {str(path): path.lstat() for path in (folder, *folder.rglob("*"))}
    return {name: (one.st_size, one.st_mtime_ns, one.st_ino) for name, one in status.items()}


def told(found: DryRun) -> dict[str, str]:
    return {row["slide_id"]: f"{row['status']}{': ' if row['why'] else ''}{row['why']}" for row in found.rows}


@pytest.fixture(scope="module")
def slides(slides_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for name in ("done", "gone", "replaced"):
        shutil.copy(slides_folder / "plain.tif", folder / f"{name}.tif")
    (folder / "failed.tif").write_text("no slide")
    return folder


def test_a_dry_run_agrees_with_the_run_that_follows_and_writes_nothing(
    slides: Path, slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Each reason is the true one, and what it says is done is what the run does not do again."""
    out, plain = tmp_path / "out", RunSettings(model=checkpoint, samples=4)
    first = run_cohort(find_target(slides), out, plain)
    assert (first.ok, first.failed) == (3, 1)
    (out / "slides" / "gone" / "samples.h5").unlink()
    write_slide(slides / "replaced.tif", tissue_pixels(900, 800))
    shutil.copy(slides_folder / "odd.tif", slides / "new.tif")
    shutil.copy(slides_folder / "plain.tif", slides / "failed.tif")
    (slides / "none.tif").write_text("")
    before = everything(tmp_path)
    found = dry_run_cohort(find_target(slides), out, plain)
    assert told(found) == {
        "done": "done",
        "failed": "failed earlier: not a whole-slide image, but a text file, "
        "whatever its name: name the slide itself, or take this one out",
        "gone": "stale: something of it is gone or damaged",
        "new": "to do",
        "none": "would fail: not a whole-slide image, but an empty file: copy it again",
        "replaced": "stale: its file has changed",
    }
    again = dry_run_cohort(find_target(slides), out, plain, retry_failed=True)
    assert again.counts == {"done": 1, "failed earlier": 1, "left out": 3, "would fail": 1}
    # of the three that were done with the same settings
    rows = [json.loads(path.read_text())["row"] for path in out.glob("slides/*/prediction.json")]
    assert found.read_bytes == pytest.approx(4 * sum(row["bytes_read"] for row in rows) / len(rows), abs=1)
    assert found.seconds == pytest.approx(4 * sum(row["seconds"] for row in rows) / len(rows))
    assert "as 3 slides took that are done here" in found.lines[-2]
    assert found.lines[-1] == "nothing was written: this was a dry run"
    assert everything(tmp_path) == before

    summary = run_cohort(find_target(slides), out, plain)
    assert (summary.ok, summary.reused, summary.failed) == (5, 1, 1)
    assert dry_run_cohort(find_target(slides), out, plain).counts == {"done": 5, "would fail": 1}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"samples": 6}, "samples was 4 and is 6"),
        ({"seed": 3, "mpp": 0.45}, "mpp was not given and is 0.45, seed was 0 and is 3"),
        ({"tolerance": 0.1}, "tolerance was not given and is 0.1"),
    ],
)
def test_in_what_settings_differ_is_told(
    slides_folder: Path, checkpoint: Path, result: Path, settings: dict[str, Any], why: str
) -> None:
    given = RunSettings(model=checkpoint, **{"samples": 4, **settings})
    found = dry_run_cohort(find_target(slides_folder / "plain.tif"), result, given)
    assert told(found) == {"plain": f"stale: {why}"}
    if "tolerance" in settings:
        assert (found.read_bytes, found.seconds, found.how.split(",")[0]) == (
            None,
            None,
            "how much is read shows while it is read",
        )
    else:
        assert found.read_bytes
        assert found.seconds
        assert "by a look at plain and some patches" in found.how


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": "x"}, "the model is another"),
        ({"version": 0}, "another version of Saccade made it"),
        (None, "the model, a setting or the version is another; its record does not say which"),
    ],
)
def test_another_model_or_version_is_told(
    slides_folder: Path, checkpoint: Path, result: Path, tmp_path: Path, change: dict[str, Any] | None, why: str
) -> None:
    """Also of a result whose record does not say what it was made of, as those of earlier versions."""
    out = tmp_path / "out"
    shutil.copytree(result, out)
    place = out / "slides" / "plain" / "prediction.json"
    record = {**json.loads(place.read_text()), "key": "another"}
    made_of = record.pop("made_of")
    place.write_text(json.dumps(record if change is None else {**record, "made_of": {**made_of, **change}}))
    settings = RunSettings(model=checkpoint, samples=4)
    assert told(dry_run_cohort(find_target(slides_folder / "plain.tif"), out, settings)) == {"plain": f"stale: {why}"}


@pytest.fixture(scope="module")
def result(slides_folder: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one slide."""
    out = tmp_path_factory.mktemp("result") / "out"
    assert run_cohort(find_target(slides_folder / "plain.tif"), out, RunSettings(model=checkpoint, samples=4)).ok == 1
    return out


def test_what_a_run_would_refuse_is_refused(slides_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "out", RunSettings(model=checkpoint)
    dry_run_cohort(find_target(slides_folder / "plain.tif"), out, settings)
    assert not out.exists()
    out.mkdir()
    (out / "run.json").write_text("{}")
    with pytest.raises(UsageError, match=r"already has a 'run.json' that saccade did not write"):
        dry_run_cohort(find_target(slides_folder / "plain.tif"), out, settings)
    with pytest.raises(UsageError, match=r"memory://out, but .*: name a folder on one, and copy it to the store once"):
        dry_run_cohort(find_target(slides_folder / "plain.tif"), Path("memory://out"), settings)


def test_what_a_budget_refuses_is_foretold(slides_folder: Path, checkpoint: Path, result: Path, tmp_path: Path) -> None:
    """Of memory and of disk, in the words of the command; what is done already needs nothing."""
    cohort, settings = find_target(slides_folder / "plain.tif"), RunSettings(model=checkpoint, memory=OWN_BYTES)
    (row,) = dry_run_cohort(cohort, tmp_path / "out", settings).rows
    assert row["status"] == "would fail"
    assert row["why"] == run_cohort(cohort, tmp_path / "out", settings).rows[0]["error"]
    assert row["why"].endswith("a process may take 600 MB: give --memory 0.7GB")
    assert told(dry_run_cohort(cohort, result, replace(settings, samples=4))) == {"plain": "done"}
    (row,) = dry_cache_cohort(cohort, tmp_path / "pyramids", CacheSettings(disk=1000)).rows
    error = cache_cohort(cohort, tmp_path / "pyramids", CacheSettings(disk=1000)).errors["plain"]
    assert row["status"] == "would fail"
    assert row["why"].split(",")[0] == error.split(",")[0]
    assert error.startswith("its pyramid may take up to")


def test_pictures_that_would_be_drawn_otherwise_are_told(
    slides_folder: Path, checkpoint: Path, result: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_picture, "FOR", (0, 150, 0))
    before = everything(result)
    found = dry_run_cohort(find_target(slides_folder / "plain.tif"), result, RunSettings(model=checkpoint, samples=4))
    assert told(found) == {"plain": "done: its pictures are drawn anew"}
    assert everything(result) == before


@pytest.mark.parametrize("settings", [CacheSettings(), CacheSettings("portable"), CacheSettings(ngff="0.4")])
def test_the_size_of_pyramids_is_foretold(slides_folder: Path, tmp_path: Path, settings: CacheSettings) -> None:
    """Within a fifth from a few chunks of small slides; then all is done, and another wish is told to be one."""
    out, cohort = tmp_path / "out", find_target(slides_folder)
    found = dry_cache_cohort(cohort, out, settings)
    assert not out.exists()
    assert found.counts == {"to do": 3}
    assert cache_cohort(cohort, out, settings).failed == 0
    chunks = [path for path in out.rglob("*") if path.is_file() and path.name.isdecimal()]
    assert found.disk_bytes == pytest.approx(sum(path.stat().st_size for path in chunks), rel=0.2)
    assert found.read_bytes == pytest.approx(sum(s.path.stat().st_size for s in cohort.slides), rel=0.3)
    before = everything(out)
    assert dry_cache_cohort(cohort, out, settings).counts == {"done": 3}
    if settings == CacheSettings():
        wish = told(dry_cache_cohort(cohort, out, CacheSettings("portable")))
        assert wish == dict.fromkeys(("even", "odd"), "stale: it is native, and portable is wanted") | {"plain": "done"}
    assert everything(out) == before


def test_pyramids_for_a_store_of_objects_are_foretold_as_those_for_a_folder(
    slides_folder: Path, tmp_path: Path
) -> None:
    """Nothing is put there; what it would refuse, as what is no pyramid of ours, is."""
    slides, out = shutil.copytree(slides_folder, tmp_path / "slides"), Url("memory://dry-run")
    cohort = find_target(slides)
    found = dry_cache_cohort(cohort, out)
    assert object_store.listed(str(out)) == {}
    expected = dry_cache_cohort(cohort, tmp_path / "out")
    assert (found.rows, found.disk_bytes) == (expected.rows, expected.disk_bytes)
    assert cache_cohort(cohort, out).failed == 0
    assert dry_cache_cohort(cohort, out).counts == {"done": 3}
    object_store.put(f"{out}/odd.ome.zarr/mine", b"")
    for name in ("odd", "plain"):
        write_slide(slides / f"{name}.tif", tissue_pixels(900, 800))
    assert told(dry_cache_cohort(cohort, out)) == {
        "even": "done",
        "plain": "stale: its slide has changed",
        "odd": f"would fail: {out}/odd.ome.zarr holds something that is no pyramid of ours: take it away or choose "
        "another --out",
    }
    for given, why in (("--disk", "is of a disk"), ("--retry-failed", "which only folders keep")):
        how = CacheSettings(disk=1 if given == "--disk" else None)
        with pytest.raises(UsageError, match=f"{given}.*{why}.*leave it out"):
            dry_cache_cohort(cohort, out, how, retry_failed=given == "--retry-failed")


def test_the_command_says_it_for_each_slide_and_ends_well(slides_folder: Path, tmp_path: Path) -> None:
    slides, out = tmp_path / "slides", tmp_path / "out"
    slides.mkdir()
    shutil.copy(slides_folder / "plain.tif", slides / "a\x1b[31m.tif")
    (slides / "bad.tif").write_text("")
    done = saccade("cache", slides, "--out", out, "--dry-run")
    assert done.returncode == 0, done.stderr
    first, second, counts, cost, last = done.stdout.splitlines()
    assert (first, counts) == ("a%1B[31m: to do", "2 slides: 1 to do, 1 would fail")
    assert second.startswith("bad: would fail: ")
    assert cost.startswith("for 1 slide read: about ")
    assert last == "nothing was written: this was a dry run"
    assert os.listdir(tmp_path) == ["slides"]
    refused = saccade("cache", slides, "--out", out, "--dry-run", "--verify")
    assert (refused.returncode, "leave --dry-run out" in refused.stderr) == (2, True)
