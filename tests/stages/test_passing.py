"""Faults that pass cost a moment and no slide; those that stay are told as what they are; by failing real calls."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
from makers import small_slide

from stages import disk, passing
from stages.geometry import Box
from stages.passing import is_passing
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError
from stages.slide.files import open_slide

BOX = Box(0, 0, 300, 300)
Failing = Callable[[int, int], None]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "WAITS", (0.0, 0.0, 0.0))


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    """Has every ``every``-th read of ours fail with an error; 1 has all of them fail."""
    calls, pread, once = [0], os.pread, disk._PatientFile._read_once

    def start(code: int, every: int) -> None:
        def fail() -> None:
            calls[0] += 1
            if calls[0] % every == 0:
                raise OSError(code, os.strerror(code))

        def failing_pread(*args: Any) -> bytes:
            fail()
            return pread(*args)

        def failing_once(*args: Any) -> Any:
            fail()
            return once(*args)

        monkeypatch.setattr(os, "pread", failing_pread)
        monkeypatch.setattr(disk._PatientFile, "_read_once", failing_once)

    return start


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ECONNRESET])
@pytest.mark.parametrize("kind", ["file", "pyramid"])
def test_one_fault_in_a_few_reads_changes_no_pixel(tmp_path: Path, failing: Failing, code: int, kind: str) -> None:
    path = small_slide(tmp_path / "a.tif")
    if kind == "pyramid":
        cache_pyramid(open_slide(path), tmp_path / "a.ome.zarr", profile="native")
        path = tmp_path / "a.ome.zarr"
    before = open_pyramid(path)
    failing(code, 3)
    after = open_pyramid(path)
    assert after.facts == before.facts
    assert np.array_equal(after.read_level(0, BOX), before.read_level(0, BOX))


def test_a_fault_that_stays_is_the_disks_and_not_the_files(tmp_path: Path, failing: Failing) -> None:
    path = small_slide(tmp_path / "a.tif")
    slide = open_slide(path)
    slide.read_level(0, BOX)
    failing(errno.EIO, 1)
    for attempt in (lambda: open_slide(path), lambda: slide.read_level(0, BOX)):
        with pytest.raises(SlideError, match=r"^the disk or the network answered 'Input/output error'") as caught:
            attempt()
        assert is_passing(caught.value)
        assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.EISDIR])
def test_what_does_not_pass_is_tried_once(code: int) -> None:
    tries = []

    def work() -> None:
        tries.append(1)
        raise OSError(code, os.strerror(code))

    with pytest.raises(OSError, match=os.strerror(code)):
        passing.patiently(work)
    assert len(tries) == 1


@pytest.mark.parametrize("own", [True, False], ids=["own tiles", "openslide"])
def test_a_slide_that_is_cut_while_it_is_read_is_called_so(
    tmp_path: Path, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_slide(tmp_path / "a.tif")
    slide = open_slide(path)
    if not own:
        monkeypatch.setattr(type(slide), "tiles", lambda self, level: None)
    slide.read_level(0, BOX)
    size = path.stat().st_size
    os.truncate(path, size // 3)
    level = slide.facts.levels[0]
    with pytest.raises(SlideError, match=rf"^it was cut from {size} to {size // 3} bytes while it was read") as caught:
        slide.read_level(0, Box(0, 0, level.width, level.height))
    assert not is_passing(caught.value)


def test_a_fault_inside_openslide_passes_with_another_handle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_slide(tmp_path / "a.tif")
    slide = open_slide(path)
    monkeypatch.setattr(type(slide), "tiles", lambda self, level: None)
    whole, read, tries = slide.read_level(0, BOX), openslide.OpenSlide.read_region, []

    def once_failing(*args: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise openslide.OpenSlideError("TIFFRead: Input/output error")
        return read(*args)

    monkeypatch.setattr(openslide.OpenSlide, "read_region", once_failing)
    assert np.array_equal(slide.read_level(0, BOX), whole)


def test_the_folder_of_an_mrxs_that_may_not_be_read_is_named(ordinary_user: Path) -> None:
    path, beside = ordinary_user / "a.mrxs", ordinary_user / "a"
    path.write_bytes(b"\xff\xd8\xff\xe0 a picture")
    beside.mkdir()
    (beside / "Data0000.dat").write_bytes(b"data")
    (beside / "Data0000.dat").chmod(0)
    with pytest.raises(SlideError, match=r"^no permission to read \S+Data0000\.dat: have its owner"):
        open_slide(path)


def test_all_of_a_slide_is_done_again_once_where_a_library_met_the_fault() -> None:
    tries: list[int] = []

    def work() -> int:
        tries.append(1)
        try:
            raise OSError(errno.EIO, "inside a library")
        except OSError as exc:
            if len(tries) == 1:
                raise ValueError("cannot be read") from exc
        return len(tries)

    assert passing.again(work) == 2
    with pytest.raises(ValueError, match="damaged"):
        passing.again(lambda: (_ for _ in ()).throw(ValueError("damaged")))
