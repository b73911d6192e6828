"""What the system refuses is said as what it is, and where: the right that is missing, the full disk, the folder."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.cohort.table import read_table
from pipeline.config import load_config
from pipeline.errors import UsageError
from pipeline.output.documents import write_json
from pipeline.output.folder import prepare_output
from stages.disk import refusal
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError


@pytest.fixture
def private() -> Iterator[Path]:
    """A folder of somebody who is not root, as whom the test then runs; rights are taken from its files by `chmod`."""
    if os.name == "nt":
        pytest.skip("it has no such rights")
    folder = Path(tempfile.mkdtemp())
    root = os.geteuid() == 0
    if find_spec("torch"):
        import pipeline.model.checkpoint  # noqa: F401  # while what it imports may be read
    if root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o700)
        shutil.rmtree(folder)


def table(path: Path) -> None:
    read_table(path)


def model(path: Path) -> None:
    pytest.importorskip("torch")
    from pipeline.model.checkpoint import load_model

    load_model(path)


@pytest.mark.parametrize("read", [table, model, load_config])
@pytest.mark.parametrize("right", ["read", "enter"])
def test_what_may_not_be_read_says_which_right_is_missing_where(
    private: Path, read: Callable[[Path], None], right: str
) -> None:
    path = private / "deep" / "file.x"
    path.parent.mkdir()
    path.write_text("slide,label\n")
    missing = path if right == "read" else path.parent
    missing.chmod(0)
    with pytest.raises(UsageError, match=rf"cannot read the .*file\.x: no permission to {right} {missing}: .*chmod"):
        read(path)


@pytest.mark.parametrize("read", [table, load_config])
def test_a_folder_in_place_of_a_file_is_told(tmp_path: Path, read: Callable[[Path], None]) -> None:
    with pytest.raises(UsageError, match=r"cannot read the .*: it is a folder: give a file"):
        read(tmp_path)


@pytest.mark.parametrize("below", ["", "new", "new/deeper"])
def test_an_output_folder_that_may_not_be_written_names_the_folder_that_is_shut(private: Path, below: str) -> None:
    private.chmod(0o500)
    words = rf"^cannot write to {private / below}: no permission to write to {private}: .*; or choose another folder$"
    with pytest.raises(UsageError, match=words):
        prepare_output(private / below)


def test_a_pyramid_that_may_not_be_written_names_the_folder_that_is_shut(slides_folder: Path, private: Path) -> None:
    if os.geteuid() != os.getuid():
        slide = private / "odd.tif"
        os.seteuid(0)
        shutil.copy(slides_folder / "odd.tif", slide)
        slide.chmod(0o644)
        os.seteuid(65534)
    else:
        slide = slides_folder / "odd.tif"
    private.chmod(0o500)
    with pytest.raises(SlideError, match=rf"cannot write .*: no permission to write to {private}: "):
        cache_pyramid(open_pyramid(slide), private / "a.ome.zarr")


def test_a_full_disk_is_told_where_it_is_met(small_disk: Path) -> None:
    """The system's error has no name of a file in it, for it is met in one that is open."""
    path = small_disk / "a.json"
    with pytest.raises(OSError, match=r"space") as caught:
        write_json(path, "x" * 2_000_000)
    assert caught.value.filename == str(path)
    assert refusal(caught.value, path, writing=True) == "the disk is full: make room on it"
    assert not list(small_disk.iterdir())


def test_a_full_disk_is_no_fault_of_torchs(small_disk: Path) -> None:
    torch = pytest.importorskip("torch")
    from pipeline.train.watch import OnDisk

    path = small_disk / "a.ckpt"
    with pytest.raises(OSError, match=r"space") as caught:
        OnDisk().save_checkpoint({"weights": torch.zeros(500_000)}, path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert not list(small_disk.iterdir())


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EMFILE, r"too many files are open: raise the limit \(ulimit -n\)"),
        (errno.ENAMETOOLONG, "the name is longer than the file system allows: choose a shorter one"),
        (errno.ENOENT, "there is no such file or folder, nor .*gone: correct the path"),
        (errno.EIO, "the disk or the network answered .*, several times: try again later"),
    ],
)
def test_other_refusals_are_told_as_what_they_are(tmp_path: Path, code: int, words: str) -> None:
    path = tmp_path / "gone" / "a"
    assert re.fullmatch(words, refusal(OSError(code, os.strerror(code)), path, writing=False))
