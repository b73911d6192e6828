"""A file or a folder is written whole, by us, or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from makers import ROOT, PowerCut, names

from stages.disk import (
    PREFIX,
    ForeignFolderError,
    SpecialFileError,
    flush_tree,
    is_temporary,
    new_file,
    new_folder,
    open_regular,
    open_to_read,
    put_in_place,
    read_at,
    read_regular,
    resumable_folder,
)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_in_the_middle_keeps_the_old_file_and_leaves_nothing(folder, error):
    path = folder / "a.json"
    path.write_text("old")

    def fail() -> None:
        with new_file(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert names(folder) == {"a.json"}


def test_the_temporary_path_is_a_hidden_neighbour_with_the_same_suffix(folder):
    with new_file(folder / "x.ome.tiff") as temporary:
        assert temporary.parent == folder
        assert temporary.name.startswith(".")
        assert temporary.suffix == ".tiff"
        temporary.write_text("new")
        assert not (folder / "x.ome.tiff").exists()
    assert (folder / "x.ome.tiff").read_text() == "new"
    assert names(folder) == {"x.ome.tiff"}


@pytest.mark.skipif(os.name == "nt", reason="it has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_and_folders_get_the_permissions_that_new_ones_get(tmp_path, umask):
    before = os.umask(umask)
    try:
        with new_folder(tmp_path / "d", ours=lambda _: False) as temporary, new_file(temporary / "a") as inner:
            inner.touch()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((tmp_path / "d/a").stat().st_mode) == 0o666 & ~umask


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_process_leaves_the_old_file(folder):
    path = folder / "a.json"
    path.write_text("old")
    script = (
        "import os, pathlib, signal, sys\n"
        "from stages.disk import new_file\n"
        "with new_file(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script, str(path)], env=environment, check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"


def test_writers_of_one_file_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "a.txt"
    with new_file(path) as first, new_file(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer block ends last
    assert names(tmp_path) == {"a.txt"}


def test_a_directory_appears_whole_and_replaces_only_ours(folder):
    def ours(path: Path) -> bool:
        return (path / "mark").exists()

    def fill(text: str, error: type[Exception] | None = None) -> None:
        with new_folder(folder / "d.zarr", ours=ours) as temporary:
            (temporary / "mark").touch()
            (temporary / "sub").mkdir()
            (temporary / "sub" / "data").write_text(text)
            if error:
                raise error

    fill("one")
    fill("two")
    assert (folder / "d.zarr" / "sub" / "data").read_text() == "two"
    with pytest.raises(RuntimeError):
        fill("half", RuntimeError)
    assert (folder / "d.zarr" / "sub" / "data").read_text() == "two"
    (folder / "theirs.zarr").mkdir()
    (folder / "theirs.zarr" / "precious").touch()
    with (
        pytest.raises(
            ForeignFolderError, match=r"theirs\.zarr is or holds something that saccade did not write and stays"
        ),
        new_folder(folder / "theirs.zarr", ours=ours),
    ):
        pass
    assert names(folder) == {"d.zarr", "theirs.zarr"}
    assert names(folder / "theirs.zarr") == {"precious"}


# ---- power cuts ----


def test_the_disk_holds_a_file_before_it_takes_its_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its content before it is renamed, its name when the block ends."""
    seen: list[tuple[str, set[str]]] = []
    disk = PowerCut(monkeypatch, lambda target: seen.append((target.name, disk.lost(temporary))))
    for content in ("old", "new one"):
        with new_file(folder / "a.txt") as temporary:
            temporary.write_text(content)
        assert disk.lost(folder) == set()
    assert seen == [("a.txt", set())] * 2


def test_the_disk_holds_a_folder_before_it_takes_its_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files at any depth, and all names; the earlier folder is there until then."""
    seen: list[set[str]] = []

    def before_rename(target: Path) -> None:
        if target.name == "d":
            seen.append(disk.lost(temporary))

    disk = PowerCut(monkeypatch, before_rename)
    for content in ("old", "new one"):
        with new_folder(folder / "d", ours=lambda _: True) as temporary:
            (temporary / "deep/er").mkdir(parents=True)
            for name in ("a", "deep/b", "deep/er/c"):
                (temporary / name).write_text(content)
        assert disk.lost(folder) == set()
    assert seen == [set(), set()]


def test_a_whole_tree_is_flushed_by_several_threads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what another process has not finished, which may be gone when its turn comes."""
    disk = PowerCut(monkeypatch)
    for i in range(40):
        (folder / f"{i % 7}/{i}").parent.mkdir(exist_ok=True)
        (folder / f"{i % 7}/{i}").write_text("x" * i)
    assert "39" in disk.lost(folder)
    with new_file(folder / "3/unfinished", durable=False) as temporary:
        temporary.write_text("half")
        flush_tree(folder, threads=4)
        assert disk.lost(folder) == {temporary.name}


def test_what_need_not_be_durable_is_not_flushed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pyramid's thousands of shards are flushed together, what training read is never."""
    disk = PowerCut(monkeypatch)
    with new_file(folder / "a", durable=False) as temporary:
        temporary.write_text("x")
    assert disk.lost(folder) == {"a"}


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_file_that_the_disk_does_not_take_leaves_the_old_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """Some disks find out that they are full, or broken, only when they are asked to hold it."""
    path = folder / "a"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=os.strerror(error)), new_file(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "old"
    assert names(folder) == {"a"}


def test_file_systems_that_flush_no_folders_are_written_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some network file systems."""
    fsync = os.fsync

    def only_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    with new_folder(folder / "d", ours=lambda _: False) as temporary, new_file(temporary / "a") as inner:
        inner.write_text("x")
    assert (folder / "d/a").read_text() == "x"


# ---- what Windows lacks, by taking it away ----


class _HeldError(PermissionError):
    winerror = 32
    """ERROR_SHARING_VIOLATION"""


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opens no folders, flushes only what was opened for writing, reads at no place, and a scanner holds new files."""
    opening, fsync = os.open, os.fsync
    writable: dict[int, bool] = {}
    tries: dict[tuple[str, str], int] = {}

    def opened(path: Path, flags: int, *args: int) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        descriptor = opening(path, flags, *args)
        writable[descriptor] = bool(flags & (os.O_RDWR | os.O_WRONLY))
        return descriptor

    def flushed(descriptor: int) -> None:
        if not writable[descriptor]:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        fsync(descriptor)

    def held(how: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def rename(source: Path, target: Path) -> None:
            key = (str(source), str(target))
            tries[key] = tries.get(key, 0) + 1
            if tries[key] < 3:
                raise _HeldError(errno.EACCES, "it is being used by another process")
            how(source, target)

        return rename

    monkeypatch.delattr(os, "pread")
    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "rename", held(os.rename))
    monkeypatch.setattr(os, "replace", held(os.replace))
    monkeypatch.setattr(shutil, "_use_fd_functions", False)  # it removes folders without opening them
    monkeypatch.setattr("stages.disk.HELD_SECONDS", (0.0,) * 3)


@pytest.mark.usefixtures("windows")
def test_files_and_folders_are_written_as_windows_lets_them(folder: Path) -> None:
    for content in ("old", "new one"):
        with new_folder(folder / "d", ours=lambda _: True) as temporary, new_file(temporary / "a") as inner:
            inner.write_text(content)
    assert (folder / "d/a").read_text() == "new one"
    assert names(folder) == {"d"}


@pytest.mark.usefixtures("windows")
def test_who_never_lets_go_is_told_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.disk.HELD_SECONDS", (0.0,))
    with pytest.raises(_HeldError), new_file(folder / "a") as temporary:
        temporary.touch()
    assert names(folder) == set()


@pytest.mark.parametrize("lacks", [False, True])
def test_threads_read_one_file_at_places_of_their_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, lacks: bool
) -> None:
    """Also past its end."""
    content = np.random.default_rng(0).bytes(2**16)
    (folder / "a").write_bytes(content)
    if lacks:
        monkeypatch.delattr(os, "pread")
    descriptor = open_to_read(folder / "a")
    places = [(37 * i % 2**16, 1 + 61 * i % 900) for i in range(2000)]
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda place: read_at(descriptor, place[1], place[0]), places))
    finally:
        os.close(descriptor)
    assert found == [content[offset : offset + size] for offset, size in places]


# ---- nothing of the user's ----


def test_nothing_beside_is_touched_whatever_it_is_called(folder: Path) -> None:
    """Not when it is written, nor when writing fails, though names begin as ours do."""
    mine = {".saccade", ".saccade-notes", f".saccade-{'0' * 32}", f".saccade-{'a' * 32}.json", "a.json.partial"}
    for name in mine:
        (folder / name).write_text("years of work")
    for fails in (False, True):
        with suppress(RuntimeError), new_file(folder / "a.json") as temporary:
            temporary.write_text("x")
            if fails:
                raise RuntimeError
        with suppress(RuntimeError), new_folder(folder / "d", ours=lambda _: True) as temporary:
            (temporary / "b").write_text("x")
            if fails:
                raise RuntimeError
    assert names(folder) == {*mine, "a.json", "d"}
    assert {(folder / name).read_text() for name in mine} == {"years of work"}


def test_a_folder_that_another_program_made_meanwhile_stays(folder: Path) -> None:
    """It was not there when writing began; hours may pass until it ends."""

    def write() -> None:
        with new_folder(folder / "d", ours=lambda path: (path / "mark").exists()) as temporary:
            (temporary / "mark").touch()
            (folder / "d").mkdir()
            (folder / "d/thesis.txt").write_text("years of work")

    with pytest.raises(
        ForeignFolderError, match="d is or holds something that saccade did not write and stays as it is"
    ):
        write()
    assert names(folder) == {"d"}
    assert (folder / "d/thesis.txt").read_text() == "years of work"


def test_a_folder_that_cannot_take_its_place_leaves_the_earlier_one(folder: Path) -> None:
    """As when another process took it away."""
    (folder / "d").mkdir()
    (folder / "d/earlier").touch()
    with pytest.raises(FileNotFoundError):
        put_in_place(folder / "gone", folder / "d", ours=lambda _: True)
    assert names(folder) == {"d"}
    assert names(folder / "d") == {"earlier"}


def test_a_link_is_replaced_and_what_it_leads_to_stays(folder: Path) -> None:
    """A user who keeps results on another disk finds the earlier ones there."""
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere/earlier").touch()
    (folder / "d").symlink_to(folder / "elsewhere")
    with new_folder(folder / "d", ours=lambda _: True) as temporary:
        (temporary / "new").touch()
    assert names(folder) == {"d", "elsewhere"}
    assert names(folder / "d") == {"new"}
    assert names(folder / "elsewhere") == {"earlier"}


def test_what_is_unfinished_is_known_by_its_name(folder: Path) -> None:
    """So that litter of a killed process is told from all else; a folder to go on with is named after its place."""
    for name in ("a", "a.ome.tif", "x.y\nz"):
        with new_file(folder / name) as temporary:
            temporary.touch()
            assert is_temporary(temporary.name)
    for name in ("a", ".saccade", ".saccade-notes", f"x.saccade-{'0' * 32}", f".saccade-{'0' * 31}", f".{'0' * 32}"):
        assert not is_temporary(name)
    partial = resumable_folder(folder / "a.zarr", "key")
    assert partial == resumable_folder(folder / "a.zarr", "key") != resumable_folder(folder / "a.zarr", "other")
    assert partial.parent == folder
    assert partial.name.startswith(PREFIX)
    assert "a.zarr" in partial.name


def test_nobody_else_renames_flushes_or_reads_at_places() -> None:
    """Two ways to write a file are two chances to do it wrong, and each of these calls some system lacks."""
    sources = [path for floor in ("stages", "pipeline") for path in (ROOT / floor).rglob("*.py")]
    pattern = re.compile(
        r"\bos\.(pread|replace|rename|renames|fsync|fdatasync)\b|\bshutil\.(move|copy)"
        r"|\b(import|from) (tempfile|uuid)\b"
    )
    found = {path.relative_to(ROOT).as_posix() for path in sources if pattern.search(path.read_text(encoding="utf-8"))}
    assert found == {"stages/disk.py"}


@pytest.mark.parametrize("read", [open_regular, read_regular])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, read: Callable[[Path], object]) -> None:
    place = tmp_path / "x"
    os.mkfifo(place)
    with pytest.raises(SpecialFileError, match="it is a named pipe, not a file"):
        read(place)
    with pytest.raises(SpecialFileError, match="it is a device, not a file"):
        read(Path("/dev/zero"))
