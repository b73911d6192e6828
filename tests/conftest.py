"""Slides that the tests make for themselves, and the real ones where they are at hand."""

from __future__ import annotations

import gc
import importlib.abc
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from makers import AWKWARD, tissue_pixels, write_slide

import stages.pyramid.layout
from benchmarks.places import data_folder

# The same examples in every run, and no time limit on each: machines that test are often busy.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.load_profile("steady")

NO_TORCH = "needs torch, which is not installed"


class _NoTorch(importlib.abc.MetaPathFinder):
    """Skips, and names, each test and each file of tests that reaches for torch where it is not installed.

    `test_house.py` sees to it that nothing reaches for it which could do without.
    """

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname.partition(".")[0] in ("torch", "torchmetrics", "lightning"):
            pytest.skip(NO_TORCH, allow_module_level=True)


def _named(report: Any, path: Path) -> Any:
    """A report whose skip for want of torch is told of its own file, not of this one."""
    if report.skipped and NO_TORCH in report.longrepr[2]:
        report.longrepr = (str(path), None, NO_TORCH)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    return _named((yield), collector.path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    return _named((yield), item.path)


if find_spec("torch"):
    import torch

    # The tests' tensors are small: threads gain nothing, and on a busy machine each waits for the other.
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that are started, too, such as those of xdist
else:
    sys.meta_path.append(_NoTorch())


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What was imported and collected stays: garbage is looked for among what tests make, which is far less."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def features_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Features are kept in a folder of this process and of those that it starts: no test finds what is a user's, or
    another worker's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SACCADE_CACHE", str(tmp_path_factory.mktemp("saccade-cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real slides, or a visible skip."""
    folder = data_folder()
    if not (folder / "slides").is_dir():
        pytest.skip(f"no real slides at {folder}: set SACCADE_DATA")
    return folder


@pytest.fixture(scope="session")
def slides_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small pyramidal slides that no test may change: odd sizes, two tile sizes, two encodings."""
    folder = tmp_path_factory.mktemp("slides")
    write_slide(folder / "even.tif", tissue_pixels(2048, 1536))
    write_slide(folder / "odd.tif", tissue_pixels(1803, 2401), tile=240, factor=4, levels=2)
    write_slide(folder / "plain.tif", tissue_pixels(1301, 1203), compression="deflate")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights: what a run does is the same whatever the model knows."""
    from models import save_untrained

    return save_untrained(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of an awkward name."""
    path = tmp_path / AWKWARD
    path.mkdir()
    return path


@pytest.fixture
def ordinary_user(tmp_path: Path) -> Iterator[Path]:
    """A folder of the tests' own where permissions hold, also where the tests are run by root."""
    if os.name == "nt":
        pytest.skip("it keeps permissions otherwise")
    root = os.geteuid() == 0
    if root:
        for folder in (tmp_path, *tmp_path.parents):  # one more of them where tests run side by side
            mode = folder.stat().st_mode
            if mode & 0o005 != 0o005:
                folder.chmod(mode | 0o055)
        for path in (tmp_path, *tmp_path.rglob("*")):
            os.chown(path, 65534, 65534)
        os.seteuid(65534)
    yield tmp_path
    if root:
        os.seteuid(0)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many shards from a small slide."""
    for side in ("SHARD_SIDE", "JPEG_SHARD_SIDE"):
        monkeypatch.setattr(stages.pyramid.layout, side, 512)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB, where this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture(scope="module")  # while it is there, no test of its thread can run a loop of its own
def chromium() -> Iterator[Any]:
    """A browser; see `browsing.NEEDED` for what it takes."""
    from browsing import started

    with started() as browser:
        yield browser
