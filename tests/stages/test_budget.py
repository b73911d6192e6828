"""What is more than a machine has is refused before it is begun, and what was taken is told."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stages import budget
from stages.budget import (
    OWN_BYTES,
    BusyError,
    DiskBudgetError,
    MemoryBudgetError,
    Need,
    Peaks,
    available_bytes,
    machine_bytes,
    need_of,
    own_peak,
    peak_bytes,
    room_on,
    share_of_machine,
    together,
)
from stages.slide.facts import SlideFacts
from stages.slide.files import open_slide


@pytest.fixture(scope="module")
def facts(slides_folder: Path) -> SlideFacts:
    """Of a slide of 2048 x 1536 px at 0.5 µm/px with tiles of 256 px, and two coarser levels."""
    return open_slide(slides_folder / "even.tif").facts


def test_a_slide_needs_its_thumbnail_and_the_largest_tile_that_is_decoded(facts: SlideFacts) -> None:
    fine, middle, coarse = facts.tile_sizes
    uneven = replace(facts, tile_sizes=((8192, 8192), middle, coarse))
    assert need_of(facts, thumbnail_mpp=8.0, mpps=[0.5]) == Need(fine, (128, 96))
    assert need_of(uneven, thumbnail_mpp=8.0, mpps=[0.5]).tile == (8192, 8192)
    assert need_of(uneven, thumbnail_mpp=8.0, mpps=[1.0]).tile == middle
    assert need_of(uneven) == Need((8192, 8192))


def test_what_is_over_a_budget_is_refused_with_what_would_do() -> None:
    """And what would do is not refused."""
    need = Need((8192, 8192), (1000, 1000))
    with pytest.raises(MemoryBudgetError) as caught:
        need.refuse_over(need.nbytes - 1)
    assert str(caught.value) == (
        "it needs about 1.16 GB of memory at once, 537 MB of it for its tiles of 8192 x 8192 px, each decoded whole; a "
        "process may take 1.16 GB: give --memory 1.2GB, or convert it to a tiled pyramid (256 to 1024 px tiles)"
    )
    need.refuse_over(1_200_000_000)
    need.refuse_over(None)
    of_a_patient = together([Need((256, 256), (2000, 3000)), Need((512, 512), (5000, 4000)), Need((256, 256))])
    assert of_a_patient == Need((512, 512), (5000, 4000), others=6_000_000)
    assert of_a_patient.nbytes - Need((512, 512), (5000, 4000)).nbytes == 4 * 6_000_000
    assert together([need]) == need
    with pytest.raises(MemoryBudgetError, match=r"424 MB of it for the thumbnails of its slides, 26 megapixels; "):
        of_a_patient.refuse_over(10**9)
    with pytest.raises(MemoryBudgetError, match=r"for its thumbnail of 9000 x 9000 px; .*: give --memory 2.3GB$"):
        Need((256, 256), (9000, 9000)).refuse_over(10**9)


def test_an_ordinary_slide_fits_wherever_nobody_says(facts: SlideFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "machine_bytes", lambda: 10**9)
    need_of(facts, thumbnail_mpp=8.0, mpps=[0.5]).refuse_over(share_of_machine(64))
    monkeypatch.setattr(budget, "machine_bytes", lambda: None)
    assert share_of_machine(2) is None


def test_room_on_a_disk_is_all_but_a_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [10_000]
    usage = type("usage", (), {"total": 100_000, "free": property(lambda self: free[0])})
    monkeypatch.setattr(budget.shutil, "disk_usage", lambda folder: usage())
    rest = room_on(tmp_path)
    rest.refuse_over(tmp_path, 5_000)
    free[0] -= 4_001
    with pytest.raises(
        DiskBudgetError, match=r"up to 1 kB, and of the disk 999 B may be taken \(5 kB of it stay free\)"
    ):
        rest.refuse_over(tmp_path, 1_000)
    rest.refuse_over(tmp_path, 999)
    assert rest.used_up(tmp_path) is None
    free[0] -= 1_000
    assert "5 kB of the disk stay free: make room" in str(rest.used_up(tmp_path))


def test_what_was_asked_of_a_disk_is_what_pyramids_took_whoever_else_writes_there(tmp_path: Path) -> None:
    """Reserved by one process, it may still be given back: another is to try again; what was taken is gone for good."""
    room = room_on(tmp_path, 4_000)
    again = pickle.loads(pickle.dumps(room))  # a worker's
    with room.reserve(tmp_path, 3_000, took=lambda: 1_200):
        with pytest.raises(BusyError), again.reserve(tmp_path, 2_000, took=lambda: 0):
            pass
        with again.reserve(tmp_path, 1_000, took=lambda: 1_000):
            pass
        refused = "up to 5 kB, and 1 kB of --disk 4 kB are taken: give a larger --disk"
        with pytest.raises(DiskBudgetError, match=refused), again.reserve(tmp_path, 5_000, took=lambda: 0):
            pass
    (tmp_path / "other").write_bytes(bytes(100_000))  # another program's
    with again.reserve(tmp_path, 1_800, took=lambda: 1_800):
        pass
    with pytest.raises(DiskBudgetError, match="and 4 kB of --disk 4 kB are taken"):
        room.refuse_over(tmp_path, 1, taken=4_000)
    assert room.book is not None
    assert {path.name for path in tmp_path.iterdir()} == {"other", room.book.name}


def test_memory_that_a_cache_holds_counts_as_available() -> None:
    """On Linux: all that the kernel would give, which is more than what holds nothing."""
    whole, available = machine_bytes(), available_bytes()
    assert whole is not None
    assert available is not None
    assert 0 < available <= whole


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process starts from its own memory")
def test_a_process_does_not_count_the_memory_of_the_one_that_started_it() -> None:
    held = np.ones(300_000_000, np.uint8)
    code = "from stages.budget import peak_bytes; print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    del held
    own = peak_bytes()
    assert own is not None
    assert 0 < int(done.stdout) < 200_000_000 < own


def test_peaks_are_of_processes() -> None:
    peaks = Peaks()
    for told in ({"a": 5}, {"b": 7}, {"a": 6}, {"b": 1}, None, {}):
        peaks.add(told)
    assert peaks.to_json() == {"largest_process_bytes": 7, "together_bytes": 13, "processes": 2}
    ((name, peak),) = own_peak().items()
    assert own_peak() == {name: peak}
    assert peak < 20 * OWN_BYTES
