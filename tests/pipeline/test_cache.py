"""`saccade cache` on real files: what it says, what it leaves, and with what exit code."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from makers import saccade, tissue_pixels, write_slide

import stages.slide.companions
from pipeline.cache import CacheSettings, Ngff, cache_cohort, verify_cohort
from pipeline.cohort.target import find_target
from pipeline.dry_run.dry_run import dry_cache_cohort
from stages.place import Place, Url
from stages.pyramid.record import read_record


def cache(slides: Path, out: Path, *more: object) -> subprocess.CompletedProcess[str]:
    """By one process, which is what most need."""
    return saccade("cache", slides, "--out", out, "--workers", 0, *more)


@pytest.fixture
def slides(slides_folder: Path, tmp_path: Path) -> Path:
    """Two slides: one of JPEG tiles, one not."""
    folder = tmp_path / "my\nslides ü"
    folder.mkdir()
    for name in ("odd.tif", "plain.tif"):
        shutil.copy(slides_folder / name, folder)
    return folder


def test_profiles_and_verification(slides: Path, tmp_path: Path) -> None:
    """Each slide in the profile that suits it, whatever its folder is called; whole until it is damaged."""
    out = tmp_path / "out\nö ü"
    done = saccade("cache", slides, "--out", out, "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("B/s)") == 2
    profiles = {path.name: read_record(path).profile for path in out.glob("*.zarr")}
    assert profiles == {"odd.ome.zarr": "native", "plain.ome.zarr": "portable"}
    verified = cache(slides, out, "--verify")
    assert verified.returncode == 0, verified.stderr
    assert verified.stderr.count("every chunk is as it was written") == 2

    for name in profiles:
        shard = out / name / "0/c/0/0/0"
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    damaged = cache(slides, out, "--verify")
    assert damaged.returncode == 1
    assert damaged.stderr.count("is damaged: level 0, tile (") == 2
    assert damaged.stderr.count("delete it and run `saccade cache` again") == 2


def test_verification_knows_a_missing_and_an_outdated_pyramid(slides: Path, tmp_path: Path) -> None:
    """A slide replaced under its cache is seen, and the next run makes the pyramid anew."""
    out = tmp_path / "out"
    missing = cache(slides, out, "--verify")
    assert missing.returncode == 1
    assert missing.stderr.count("there is no pyramid") == 2
    assert not out.exists()
    assert cache(slides, out).returncode == 0
    write_slide(slides / "odd.tif", tissue_pixels(500, 400), levels=1)
    outdated = cache(slides, out, "--verify")
    assert outdated.returncode == 1
    assert "was made of other content than" in outdated.stderr
    assert cache(slides, out).returncode == 0
    assert cache(slides, out, "--verify").returncode == 0


@pytest.mark.slow
def test_portable_everything_and_export(slides: Path, tmp_path: Path) -> None:
    """The options reach the files; contradictions are refused before anything is written."""
    out = tmp_path / "out"
    for wrong, words in (
        (["--ngff", "0.4", "--profile", "native"], "leave --profile native out"),
        (["--ngff", "0.4", "--verify"], "leave one of them out"),
    ):
        done = cache(slides, out, *wrong)
        assert (done.returncode, out.exists()) == (2, False)
        assert words in done.stderr
    assert cache(slides, out, "--profile", "portable", "--all").returncode == 0
    assert {(read_record(path).profile, read_record(path).kept) for path in out.glob("*.zarr")} == {("portable", "all")}
    assert cache(slides, tmp_path / "old", "--ngff", "0.4").returncode == 0
    names = sorted(path.name for path in (tmp_path / "old").glob("*.zarr"))
    assert names == ["odd.ngff04.ome.zarr", "plain.ngff04.ome.zarr"]


def test_a_full_disk_ends_the_run_with_one_line(slides: Path, small_disk: Path) -> None:
    """What there was room for is whole, and the slides after are not tried in vain."""
    for number in range(3):
        shutil.copy(slides / "plain.tif", slides / f"z{number}.tif")
    # as much as that is allowed, but not there
    done = cache(slides, small_disk, "--disk", "1GB")
    assert done.returncode == 1
    assert done.stderr.count("the disk is full") == 1
    assert "plain: failed: " in done.stderr
    assert "3 other slides not tried" in done.stderr
    assert cache(slides / "odd.tif", small_disk, "--verify").returncode == 0


def test_a_pyramid_that_may_not_fit_is_not_begun(slides: Path, small_disk: Path) -> None:
    """One true line for it, by its pixels; the other one fits."""
    done = cache(slides, small_disk)
    assert done.returncode == 1
    assert "plain: failed: its pyramid may take up to 8.45 MB, and of the disk" in done.stderr
    assert "how much it may take" in done.stderr
    assert [path.name for path in small_disk.glob("*.zarr")] == ["odd.ome.zarr"]


def test_a_read_only_disk_is_refused_at_once(slides: Path, small_disk: Path) -> None:
    """One line, and nothing started."""
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    done = cache(slides, small_disk)
    assert done.returncode == 2
    assert "its file system is read-only: have it mounted for writing; or choose another folder" in done.stderr


def test_what_failed_is_tried_again_and_last_or_alone(slides: Path, slides_folder: Path, tmp_path: Path) -> None:
    """And the log tells of it."""
    out, lines = tmp_path / "out", Lines()
    (slides / "bad.tif").write_text("no slide")
    assert list(cache_cohort(find_target(slides), out, progress=lines).errors) == ["bad"]
    assert lines.names() == ["bad", "odd", "plain"]
    shutil.copy(slides_folder / "plain.tif", slides / "bad.tif")
    summary = cache_cohort(find_target(slides), out, retry_failed=True, progress=lines)
    assert (summary.total, summary.failed, lines.names()) == (1, 0, ["bad"])
    assert cache_cohort(find_target(slides), out, retry_failed=True, progress=lines).total == 0
    assert lines.told == ["none of these slides failed here when it was last tried: there is nothing to try again"]
    log = (out / "cache.log").read_text().splitlines()
    assert [line.partition("] ")[2].partition(": ")[0] for line in log] == [
        *("started", "[1/3] bad", "[2/3] odd", "[3/3] plain", "ended"),
        *("started", "[1/1] bad", "ended", "started", "[0/0] none of these slides failed here when it was last tried"),
        "ended",
    ]


def test_the_first_failure_ends_the_work_where_that_is_asked_for(slides: Path, tmp_path: Path) -> None:
    out, lines = tmp_path / "out", Lines()
    (slides / "bad.tif").write_text("no slide")
    errors = cache_cohort(find_target(slides), out, fail_fast=True, progress=lines).errors
    assert (list(errors), errors["odd"]) == (["bad", "odd", "plain"], "not tried: bad failed (--fail-fast)")
    why = "not a whole-slide image, but a text file, whatever its name: name the slide itself, or take this one out"
    assert lines.told[-1] == f"stopped at the first failure, bad: {why} (--fail-fast: 2 slides not tried)"
    assert not list(out.glob("*.zarr"))


class Lines:
    """What is told of slides that are finished, since it was last asked for."""

    def __init__(self) -> None:
        self._told: list[str] = []

    def __call__(self, done: int, total: int, line: str | None) -> None:
        self._told.append(line or "")

    def within(self, line: str) -> None:
        pass

    @property
    def told(self) -> list[str]:
        told, self._told = self._told, []
        return told

    def names(self) -> list[str]:
        return [line.partition(":")[0] for line in self.told]


@pytest.mark.parametrize(("ngff", "store"), [("0.5", False), ("0.4", False), ("0.5", True)])
def test_a_second_slide_of_a_name_does_not_take_the_first_one_s_place(tmp_path: Path, ngff: Ngff, store: bool) -> None:
    """One that is replaced at its place does, and one that was moved with its content is the first."""
    out: Place = Url(f"memory://{tmp_path.name}") if store else tmp_path / "out"
    settings = CacheSettings(ngff=ngff)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first = write_slide(tmp_path / "a" / "x.tif", tissue_pixels(600, 500), levels=2)
    second = write_slide(tmp_path / "b" / "x.tif", tissue_pixels(500, 400), levels=1)
    assert cache_cohort(find_target(first), out, settings).failed == 0
    why = (
        f"{settings.place(out, find_target(first).slides[0])} was made of another slide, which lies or lay elsewhere: "
    )
    errors = [cache_cohort(find_target(second), out, settings).errors["x"]]
    errors += [row["why"] for row in dry_cache_cohort(find_target(second), out, settings).rows]
    if ngff == "0.5":
        assert verify_cohort(find_target(first), out).failed == 0
        errors += verify_cohort(find_target(second), out).errors.values()
    assert all(error.startswith(why) for error in errors), errors
    moved = first.rename(tmp_path / "x.tif")
    assert dry_cache_cohort(find_target(moved), out, settings).counts == {"done": 1}
    second.rename(first)
    assert cache_cohort(find_target(first), out, settings).failed == 0


def test_a_pyramid_stands_where_the_bytes_of_its_slide_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for its time of writing, as caching has read it all; what hides behind its old time is found on request."""
    monkeypatch.setattr(stages.slide.companions, "_SAMPLE", 64)  # as of a large slide, samples see little
    slide = write_slide(tmp_path / "s.tif", tissue_pixels(600, 500), compression=None, levels=2)
    record = tmp_path / "out" / "s.ome.zarr" / "zarr.json"

    def made() -> int:
        assert cache_cohort(find_target(slide), tmp_path / "out").failed == 0
        return record.stat().st_mtime_ns

    def change() -> None:
        content = bytearray(slide.read_bytes())
        content[len(content) // 2 + 1000] ^= 1
        slide.write_bytes(content)

    first = made()
    os.utime(slide, (1, 1))
    assert made() == first
    change()
    assert made() != first
    assert verify_cohort(find_target(slide), tmp_path / "out").failed == 0
    before = slide.stat()
    change()
    os.utime(slide, ns=(before.st_atime_ns, before.st_mtime_ns))
    (error,) = verify_cohort(find_target(slide), tmp_path / "out").errors.values()
    assert "was made of other content than" in error
