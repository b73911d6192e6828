"""Budgets of memory and disk: what a machine has, what a slide needs at once, what was taken at most.

What a slide needs follows from its own facts and is refused before anything of it is read: the largest tile that is
decoded, which cannot be decoded in parts, and the thumbnail.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stages.amounts import size
from stages.geometry import Raster, choose_level, physical_raster
from stages.slide.facts import SlideError, SlideFacts

SHARE = 0.8
"""Of the machine's memory, or of its container's, that the processes of a run may take together, unless it is said."""
TILE_BYTES = 8
"""Memory for each pixel of a tile while it is decoded: OpenSlide's four, three made of them, and the file's own."""
THUMBNAIL_BYTES = 20
"""Memory for each pixel of a thumbnail while tissue is looked for on it: its own three, masks and densities."""
OWN_BYTES = 600_000_000
"""What a process comes to on slides of any size: libraries, a small encoder, pictures."""
LEAST_SHARE = 1_000_000_000
"""What a process may take wherever nobody says: ordinary slides are never refused for a small machine."""
LEAST_FREE = 1_000_000_000, 0.05
"""Of a disk that is left free: so many bytes, or such a share of it where that is less."""


class MemoryBudgetError(SlideError):
    """This slide needs more memory at once than a process may take."""


class DiskBudgetError(SlideError):
    """What is to be made of this slide may take more of the disk than it may."""


def machine_bytes() -> int | None:
    """Memory of this machine, or of the container that this process is in; None where the system does not say."""
    known = [n for n in (_sysconf("SC_PHYS_PAGES"), _container_bytes()) if n is not None]
    return min(known, default=None)


def available_bytes() -> int | None:
    """Memory that can be taken now; None where the system does not say.

    Linux counts as free what holds nothing at all, which after a day's reading is next to none: its cache can go.
    """
    free = _kilobytes("/proc/meminfo", "MemAvailable")
    known = [n for n in (_sysconf("SC_AVPHYS_PAGES") if free is None else free, _container_bytes()) if n is not None]
    return min(known, default=None)


def share_of_machine(processes: int) -> int | None:
    """Memory that each of so many processes may take where nobody says; None where the system does not say."""
    whole = machine_bytes()
    return None if whole is None else max(LEAST_SHARE, round(SHARE * whole / max(1, processes)))


def peak_bytes() -> int | None:
    """The most memory that this process has held; None where the system does not say.

    On Linux not by `getrusage`, whose figure a process that was started by a larger one takes over from it.
    """
    found = _kilobytes("/proc/self/status", "VmHWM")
    if found is not None:
        return found
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@dataclass(frozen=True, slots=True)
class Need:
    """What is held of a slide at once.

    Attributes:
        tile: (width, height) of the largest tile that is decoded.
        thumbnail: (width, height) of what tissue is looked for on; (0, 0) where it has no say.
    """

    tile: tuple[int, int]
    thumbnail: tuple[int, int] = (0, 0)

    @property
    def nbytes(self) -> int:
        """Of the whole process, about."""
        return OWN_BYTES + TILE_BYTES * math.prod(self.tile) + THUMBNAIL_BYTES * math.prod(self.thumbnail)

    def refuse_over(self, budget: int | None) -> None:
        """Refuse to read a slide that would take more than a budget.

        Raises:
            MemoryBudgetError: it would; the message says what for, and what would do.
        """
        if budget is None or self.nbytes <= budget:
            return
        tiles, picture = TILE_BYTES * math.prod(self.tile), THUMBNAIL_BYTES * math.prod(self.thumbnail)
        cause, remedy = f"its thumbnail of {self.thumbnail[0]} x {self.thumbnail[1]} px", ""
        if tiles > picture:
            cause = f"its tiles of {self.tile[0]} x {self.tile[1]} px, each decoded whole"
            remedy = ", or convert it to a tiled pyramid (256 to 1024 px tiles)" if max(self.tile) > 1024 else ""
        raise MemoryBudgetError(
            f"it needs about {size(self.nbytes)} of memory at once, {size(max(tiles, picture))} of it for {cause}; a "
            f"process may take {size(budget)}: give --memory {math.ceil(self.nbytes / 1e8) / 10:g}GB{remedy}"
        )


def need_of(facts: SlideFacts, *, thumbnail_mpp: float | None = None, mpps: Iterable[float] | None = None) -> Need:
    """What reading a slide takes.

    Args:
        facts: of the slide.
        thumbnail_mpp: µm/px of the thumbnail; None: there is none to speak of.
        mpps: µm/px of what else is read; None: every level.

    Raises:
        SlideError: its resolution is unknown.
        ResolutionError: it is coarser than what is read.
    """
    if mpps is None:
        levels: Iterable[int] = range(len(facts.levels))
    else:
        true = facts.require_mpp()
        scales = [*mpps, *([thumbnail_mpp] if thumbnail_mpp else [])]
        levels = {choose_level(facts.levels, Raster(0, 0, mpp / true.x, mpp / true.y, 1, 1)) for mpp in scales}
    tile = max((facts.tile_sizes[level] for level in levels), key=math.prod)
    if thumbnail_mpp is None:
        return Need(tile)
    raster = physical_raster(facts.bounds, facts.require_mpp(), thumbnail_mpp)
    return Need(tile, (raster.width, raster.height))


@dataclass(frozen=True, slots=True)
class Room:
    """What of a disk may be taken.

    Attributes:
        keep_free: bytes that must stay free on it; below 0, what the user allows is more than there is.
        asked: bytes that the user allows; None: as many as there are.
    """

    keep_free: int
    asked: int | None = None

    def left(self, folder: Path) -> int:
        """Bytes that may still be taken."""
        left = _disk_of(folder)[1] - self.keep_free
        return left if self.asked is None else min(left, self.asked)

    def refuse_over(self, folder: Path, need: int) -> None:
        """Refuse to begin what may take more than is left.

        Raises:
            DiskBudgetError: what it may take, and what would do.
        """
        left = self.left(folder)
        if need > left:
            raise DiskBudgetError(
                f"its pyramid may take up to {size(need)}, and of the disk {size(max(0, left))} may be taken"
                + self._remedy()
            )

    def used_up(self, folder: Path) -> str | None:
        """Why no more may be taken; None where more may."""
        if self.left(folder) >= 0:
            return None
        return f"no more of the disk may be taken{self._remedy()}"

    def _remedy(self) -> str:
        if self.asked is None:
            kept = f" ({size(self.keep_free)} of it stay free)"
            return f"{kept}: make room, choose another --out, or say with --disk how much it may take"
        return f" (--disk {size(self.asked)}): give a larger --disk, or choose another --out"


def room_on(folder: Path, asked: int | None = None) -> Room:
    """What may be taken of a folder's disk from now on: ``asked``, or all but `LEAST_FREE`."""
    total, free = _disk_of(folder)
    if asked is None:
        return Room(int(min(LEAST_FREE[0], LEAST_FREE[1] * total)))
    return Room(free - asked, asked)


def _disk_of(folder: Path) -> tuple[int, int]:
    """All and free bytes of the disk that a folder is on, or will be."""
    found = shutil.disk_usage(next(there for there in (folder, *folder.absolute().parents) if there.is_dir()))
    return found.total, found.free


class Peaks:
    """The most memory that each process of a run has held."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}

    def add(self, told: Mapping[str, int] | None) -> None:
        """Hear of processes, by name."""
        for process, peak in (told or {}).items():
            self._of[process] = max(peak, self._of.get(process, 0))

    def to_json(self) -> dict[str, int]:
        """The largest process's, the sum of all, which they need not have held at the same time, and how many."""
        peaks = self._of.values()
        return {"largest_process_bytes": max(peaks, default=0), "together_bytes": sum(peaks), "processes": len(peaks)}


def own_peak() -> dict[str, int]:
    """This process's peak by its name; empty where it is not known."""
    peak = peak_bytes()
    return {} if peak is None else {f"{os.uname().nodename if hasattr(os, 'uname') else ''}:{os.getpid()}": peak}


def _sysconf(pages: str) -> int | None:
    try:
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _kilobytes(path: str, key: str) -> int | None:
    """A number of kB from one of the kernel's tables, in bytes."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)


def _container_bytes() -> int | None:
    """The limit of this process's control group, where there is one."""
    limits = []
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limits.append(int((Path("/sys/fs/cgroup") / name).read_text()))
        except (OSError, ValueError):  # none, or "max"
            continue
    return min(limits, default=None)
