"""Whatever happens while a pyramid is written: it is there whole or not at all, and nothing else is touched."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import zarr
from makers import assert_same_pixels, start_caching, tissue_pixels, write_slide

from stages.budget import BusyError
from stages.pyramid.cache import cache_pyramid, verify_pyramid
from stages.pyramid.export import export_ngff04
from stages.pyramid.layout import level_layouts
from stages.pyramid.open import open_pyramid
from stages.pyramid.plan import Wish
from stages.pyramid.transaction import FullDiskError
from stages.slide.facts import SlideError
from stages.slide.files import open_slide


def test_a_pyramid_that_is_there_is_left_alone(pyramid: Path) -> None:
    """The second call returns at once and touches no file."""
    before = {path: path.stat().st_mtime_ns for path in pyramid.rglob("*")}
    assert cache_pyramid(open_slide(pyramid.with_name("slide.tif")), pyramid) == pyramid
    assert {path: path.stat().st_mtime_ns for path in pyramid.rglob("*")} == before


def test_a_replaced_slide_is_cached_anew(pyramid: Path) -> None:
    """Another content under the same name: the outdated pyramid is exchanged, and nothing is left beside it."""
    path = write_slide(pyramid.with_name("slide.tif"), tissue_pixels(900, 300), levels=2)
    slide = open_slide(path)
    cache_pyramid(slide, pyramid)
    assert open_pyramid(pyramid).facts.fingerprint == slide.facts.fingerprint
    assert_same_pixels(slide, open_pyramid(pyramid))
    assert sorted(entry.name for entry in pyramid.parent.iterdir()) == ["slide.ome.zarr", "slide.tif"]


@pytest.mark.parametrize("what", ["file", "empty folder", "folder", "other zarr", "dangling link"])
def test_what_we_did_not_write_is_never_deleted(pyramid: Path, tmp_path: Path, what: str) -> None:
    """Whatever is in the way and not ours stays, and the error says what to do."""
    out = tmp_path / "in the way"
    if what == "file":
        out.write_text("precious")
    elif what == "dangling link":
        out.symlink_to(tmp_path / "nowhere")
    else:
        out.mkdir()
        if what == "folder":
            (out / "notes.txt").write_text("precious")
        elif what == "other zarr":
            zarr.create_group(out)
    before = [out, *sorted(out.rglob("*"))] if out.is_dir() else out.lstat().st_size
    with pytest.raises(
        SlideError,
        match=r"exists and is not a pyramid of ours, or holds something else: move it away or choose another",
    ):
        cache_pyramid(open_slide(pyramid.with_name("slide.tif")), out)
    assert ([out, *sorted(out.rglob("*"))] if out.is_dir() else out.lstat().st_size) == before


@pytest.mark.parametrize(
    "place", ["labels/0", "notes.txt", "0/notes.txt", "0/c/0/0/0.bak", "2024/notes.txt", ".saccade-notes"]
)
def test_what_a_user_put_into_a_pyramid_is_not_replaced_with_it(
    slides_folder: Path, tmp_path: Path, place: str
) -> None:
    slide = tmp_path / "slide.tif"
    for make in (cache_pyramid, export_ngff04):
        shutil.copy(slides_folder / "odd.tif", slide)
        out = make(open_slide(slide), tmp_path / make.__name__)
        theirs = out / place
        theirs.parent.mkdir(parents=True, exist_ok=True)
        theirs.write_text("years of work")
        shutil.copy(slides_folder / "even.tif", slide)
        with pytest.raises(SlideError, match="holds something else: move it away"):
            make(open_slide(slide), out)
        assert theirs.read_text() == "years of work"


def test_a_killed_run_leaves_no_pyramid_and_is_resumed(slides_folder: Path, tmp_path: Path, small_shards: None) -> None:
    """Killed outright in the middle: nothing under the pyramid's name, and what was finished is not done again."""
    slide = open_slide(slides_folder / "even.tif")
    out = tmp_path / "a.ome.zarr"
    killed = start_caching(slide.facts.path, out, stop_after=4)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    (partial,) = (path for path in tmp_path.iterdir() if path.is_dir())
    layout = level_layouts(partial, slide.facts)[0]
    finished = {path: path.stat().st_mtime_ns for path, _ in layout.shards() if path.exists()}
    assert 4 <= len(finished) < 12
    torn = next(path for path, _ in layout.shards() if path not in finished)
    torn.parent.mkdir(parents=True, exist_ok=True)
    torn.write_bytes(next(iter(finished)).read_bytes()[:-100])  # as a machine that lost power may leave it
    litter = torn.with_name(f".saccade-{'0' * 32}")
    litter.write_bytes(b"half a shard")
    for name in (".saccade-notes", "notes.partial", f".saccade-{'0' * 31}"):
        torn.with_name(name).write_text("the user's")

    cache_pyramid(slide, out)
    assert_same_pixels(slide, open_pyramid(out))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ome.zarr"]
    found = {path.name for path in (out / torn.relative_to(partial)).parent.iterdir() if not path.name.isdigit()}
    assert found == {".saccade-notes", "notes.partial", f".saccade-{'0' * 31}"}
    for path, written in finished.items():
        assert (out / path.relative_to(partial)).stat().st_mtime_ns == written


@pytest.mark.parametrize("profile", ["native", "portable"])
def test_two_runs_at_once_make_one_good_pyramid(
    slides_folder: Path, tmp_path: Path, small_shards: None, profile: Wish
) -> None:
    """Both succeed, whoever is first; the result is whole and nothing is left beside it."""
    slide, out = open_slide(slides_folder / "even.tif"), tmp_path / "a.ome.zarr"
    runs = [start_caching(slide.facts.path, out, profile=profile) for _ in range(2)]
    for run in runs:
        _, errors = run.communicate(timeout=120)
        assert run.returncode == 0, errors
    assert verify_pyramid(out) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ome.zarr"]


def test_a_pyramid_has_one_writer_and_who_comes_second_is_told_so(
    slides_folder: Path, tmp_path: Path, small_shards: None
) -> None:
    slide, out = open_slide(slides_folder / "even.tif"), tmp_path / "a.ome.zarr"
    busy: list[str] = []

    def other_run_begins(done: int, total: int, written: int) -> None:
        with pytest.raises(BusyError, match="another process is making") as refused:
            cache_pyramid(slide, out, wait=False)
        busy.append(str(refused.value))

    cache_pyramid(slide, out, progress=other_run_begins, writers=1)
    assert busy
    assert cache_pyramid(slide, out, wait=False) == out
    assert_same_pixels(slide, open_pyramid(out))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ome.zarr"]


def test_a_slide_that_changes_meanwhile_is_not_cached(tmp_path: Path, small_shards: None) -> None:
    """Half of one slide and half of another would be a pyramid of neither."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(1500, 1100))
    other = write_slide(tmp_path / "b.tif", tissue_pixels(1500, 1100, margin=0.3))
    out = tmp_path / "a.ome.zarr"

    def replace_it(done: int, total: int, written: int) -> None:
        if other.exists():
            os.replace(other, path)

    with pytest.raises(SlideError, match="changed while it was being copied"):
        cache_pyramid(open_slide(path), out, progress=replace_it, writers=1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tif"]


def test_an_unwritable_place_is_one_clear_error(slides_folder: Path, tmp_path: Path) -> None:
    """A target below what is a file."""
    slide = open_slide(slides_folder / "plain.tif")
    (tmp_path / "file").touch()
    with pytest.raises(SlideError, match=r"cannot write .*file is a file, not a folder; then run"):
        cache_pyramid(slide, tmp_path / "file/a.ome.zarr")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_place_is_one_clear_error(slides_folder: Path, tmp_path: Path) -> None:
    """A folder without permission to write."""
    tmp_path.chmod(0o500)
    with pytest.raises(SlideError, match=r"cannot write .*: no permission to write to "):
        cache_pyramid(open_slide(slides_folder / "plain.tif"), tmp_path / "a.ome.zarr")


def test_a_write_that_the_system_refuses_is_one_clear_error_and_resumed(
    slides_folder: Path, tmp_path: Path, small_shards: None
) -> None:
    """A file larger than the process may write ends the run with a clear line; allowed again, it goes on."""
    slide, out = open_slide(slides_folder / "even.tif"), tmp_path / "a.ome.zarr"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))  # the largest file that this process may write
    try:
        with pytest.raises(SlideError, match=r"cannot write .*larger than .*ulimit.*it goes on where it stopped"):
            cache_pyramid(slide, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not out.exists()
    cache_pyramid(slide, out)
    assert_same_pixels(slide, open_pyramid(out))


@pytest.mark.parametrize("profile", ["native", "portable"])
def test_a_full_disk_is_one_clear_error_and_resumed(
    slides_folder: Path, small_disk: Path, small_shards: None, profile: Wish
) -> None:
    """The pyramid that is there stays good, nothing half-written has a name, and with room again it goes on."""
    first = cache_pyramid(open_slide(slides_folder / "odd.tif"), small_disk / "first.ome.zarr", profile="native")
    filler = small_disk / "filler"
    slide = open_slide(write_slide(small_disk.with_name("b.tif"), tissue_pixels(700, 900), compression="jpeg"))
    out = small_disk / "a.ome.zarr"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 60_000))
    with pytest.raises(FullDiskError, match=r"cannot write .*the disk is full: make room on it; .* where it stopped"):
        cache_pyramid(slide, out, profile=profile)
    assert not out.exists()
    assert verify_pyramid(first) == []
    assert not list(small_disk.rglob("*.ome.zarr/**/.saccade-*"))
    filler.unlink()
    shutil.rmtree(first)
    cache_pyramid(slide, out, profile=profile)
    assert verify_pyramid(out) == []
    assert [entry.name for entry in small_disk.iterdir()] == ["a.ome.zarr"]


@pytest.mark.parametrize("profile", ["native", "portable"])
def test_a_pyramid_on_a_read_only_disk_is_read_and_found_current(
    slides_folder: Path, small_disk: Path, profile: Wish
) -> None:
    """A cache that is given out read-only: everything that reads works, what would write says so."""
    slide = open_slide(slides_folder / "odd.tif")
    if profile == "portable":
        slide = open_slide(write_slide(small_disk.with_name("b.tif"), tissue_pixels(400, 300), compression="deflate"))
    out = cache_pyramid(slide, small_disk / "a.ome.zarr", profile=profile)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert cache_pyramid(slide, out, profile=profile) == out
    assert_same_pixels(slide, open_pyramid(out))
    assert verify_pyramid(out) == []
    with pytest.raises(SlideError, match=r"cannot write .*: its file system is read-only: have it mounted"):
        cache_pyramid(slide, small_disk / "b.ome.zarr")
