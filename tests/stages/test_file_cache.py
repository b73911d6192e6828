"""A folder of files that may go: it keeps its bounds, shows nothing that is damaged, and touches nothing of others."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from stages.file_cache import FileCache

GB = 10**9


def file_cache(folder: Path, limit: int = GB) -> FileCache:
    return FileCache(folder, limit, inner="inner-1", names=r"[a-z]+/\d+", title="cache of things")


@pytest.fixture
def cache(tmp_path: Path) -> FileCache:
    return file_cache(tmp_path / "cache")


def test_what_was_written_is_read(cache: FileCache) -> None:
    assert cache.write("a/1", b"first")
    assert cache.write("a/2", b"second")
    assert cache.write("b/1", b"third")
    assert (cache.read("a/1"), cache.read("b/1"), cache.read("b/2")) == (b"first", b"third", None)
    assert cache.sizes("a") == {"a/1": 9, "a/2": 10}
    assert cache.bytes == 28
    cache.remove(["a/1", "a/3"])
    assert cache.sizes("a") == {"a/2": 10}
    assert cache.sizes("c") == {}


def test_a_damaged_file_is_told_of_and_goes(cache: FileCache, caplog: pytest.LogCaptureFixture) -> None:
    cache.write("a/1", b"first")
    path = cache.folder / "inner-1/a/1"
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.read("a/1") is None
    assert not path.exists()
    (record,) = caplog.records
    told = f"the cache of things holds a damaged file, {path} (its checksum does not fit): it is made anew"
    assert record.getMessage() == told


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    """A file that is read again and again outlives those that were written after it."""
    cache = file_cache(tmp_path, 100_000)
    for i in range(60):
        cache.write(f"a/{i}", bytes(5000))
        time.sleep(0.002)  # file systems tell times apart by ticks of the kernel's clock, up to 4 ms
        assert cache.read("a/0") == bytes(5000)
        time.sleep(0.008)
    kept = [i for i in range(60) if cache.read(f"a/{i}") is not None]
    assert kept[0] == 0
    assert kept[1:] == list(range(61 - len(kept), 60)), "of the others, the last ones written"
    assert 10 < len(kept) < 20


def test_only_its_own_files_are_ever_deleted(tmp_path: Path) -> None:
    """A user may name a folder that holds other things, and put things beside the cache's own."""
    theirs = [tmp_path / name for name in ("thesis.txt", "inner-1/thesis.txt", "inner-1/a/thesis.txt", "inner-1/a/b/1")]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(10**6))
    cache = file_cache(tmp_path, 20_000)
    for i in range(20):
        cache.write(f"a/{i}", bytes(5000))
    assert [path.stat().st_size for path in theirs] == [10**6] * len(theirs)
    assert 0 < cache.bytes <= 20_000


def test_litter_of_killed_processes_is_removed_when_it_is_old(cache: FileCache) -> None:
    cache.write("a/1", b"kept")
    path = cache.folder / "inner-1/a/1"
    old, new = (path.with_name(f".saccade-{digit * 32}") for digit in "01")
    theirs = path.with_name(".nfs0123")
    for half in (old, new, theirs):
        half.write_bytes(b"half")
    for half in (old, theirs):
        os.utime(half, (time.time() - 4000,) * 2)
    file_cache(cache.folder).write("a/2", b"kept")
    assert not old.exists()
    assert new.exists(), "it may be another process's, at work"
    assert theirs.exists(), "nobody said that it is litter"
