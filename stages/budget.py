"""Budgets of memory and disk: what a machine has, what a slide needs at once, what was taken at most.

What a slide needs follows from its own facts and is refused before anything of it is read: the largest tile that is
decoded, which cannot be decoded in parts, and the thumbnail.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stages.amounts import size
from stages.disk import PREFIX, new_file
from stages.geometry import Raster, choose_level, physical_raster
from stages.lease import lease
from stages.slide.facts import SlideError, SlideFacts

SHARE = 0.8
"""Of the machine's memory, or of its container's, that the processes of a run may take together, unless it is said."""
TILE_BYTES = 8
"""Memory for each pixel of a tile while it is decoded: OpenSlide's four, three made of them, and the file's own."""
THUMBNAIL_BYTES = 20
"""Memory for each pixel of a thumbnail while tissue is looked for on it: its own three, masks and densities."""
KEPT_BYTES = 4
"""Memory for each pixel of a thumbnail that was looked at, while others are: its own three, and masks."""
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
        others: pixels of the thumbnails of other slides that are held meanwhile.
    """

    tile: tuple[int, int]
    thumbnail: tuple[int, int] = (0, 0)
    others: int = 0

    @property
    def nbytes(self) -> int:
        """Of the whole process, about."""
        looked_at = THUMBNAIL_BYTES * math.prod(self.thumbnail) + KEPT_BYTES * self.others
        return OWN_BYTES + TILE_BYTES * math.prod(self.tile) + looked_at

    def refuse_over(self, budget: int | None) -> None:
        """Refuse to read a slide that would take more than a budget.

        Raises:
            MemoryBudgetError: it would; the message says what for, and what would do.
        """
        if budget is None or self.nbytes <= budget:
            return
        tiles, picture = TILE_BYTES * math.prod(self.tile), THUMBNAIL_BYTES * math.prod(self.thumbnail)
        cause, remedy = f"its thumbnail of {self.thumbnail[0]} x {self.thumbnail[1]} px", ""
        if self.others:
            picture += KEPT_BYTES * self.others
            cause = f"the thumbnails of its slides, {(math.prod(self.thumbnail) + self.others) / 1e6:.3g} megapixels"
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


def together(needs: Sequence[Need]) -> Need:
    """What reading slides takes, one or more, that are looked at one after the other and then held together."""
    largest = max(needs, key=lambda need: math.prod(need.thumbnail)).thumbnail
    pixels = sum(math.prod(need.thumbnail) + need.others for need in needs)
    tile = max((need.tile for need in needs), key=math.prod)
    return Need(tile, largest, pixels - math.prod(largest))


class BusyError(SlideError):
    """Another process is at it, or may still give back what it has reserved: to be tried once more."""


@dataclass(frozen=True, slots=True)
class Room:
    """What of a disk pyramids may take together.

    Attributes:
        keep_free: bytes that must stay free on it.
        asked: bytes that the user allows; None: as many as there are.
        book: a file in which all processes of a command write what their pyramids take; None: there is but one.
    """

    keep_free: int
    asked: int | None = None
    book: Path | None = None

    @contextmanager
    def reserve(self, folder: Path, need: int, *, took: Callable[[], int]) -> Iterator[None]:
        """Take up to ``need`` for as long as the block lasts; from its end on what it ``took`` counts.

        Raises:
            BusyError: there may be room, once it is known what others took in truth.
            DiskBudgetError: there is none; says what it may take, and what would do.
        """
        if self.asked is None or self.book is None:
            self.refuse_over(folder, need)
            yield
            return
        own = os.urandom(8).hex()
        with self._written() as book:
            taken = sum(size for size, _ in book.values())
            settled = sum(size for size, open_ in book.values() if not open_)
            if taken + need > self.asked and settled + need <= self.asked and taken > settled:
                raise BusyError("others may still take what is left of --disk")
            self.refuse_over(folder, need, taken=settled)
            book[own] = need, True
        try:
            yield
        finally:
            with self._written() as book:
                book[own] = took(), False

    def refuse_over(self, folder: Path, need: int, *, taken: int = 0) -> None:
        """Refuse to begin what may take more than is left, where so much is ``taken`` of what was asked.

        Raises:
            DiskBudgetError: what it may take, and what would do.
        """
        if self.asked is not None:  # who allows more than there is finds the disk full
            if taken + need > self.asked:
                told = (
                    f"{size(taken)} of --disk {size(self.asked)} are taken"
                    if taken
                    else f"--disk is {size(self.asked)}"
                )
                raise DiskBudgetError(
                    f"its pyramid may take up to {size(need)}, and {told}: give a larger --disk, or choose another "
                    "--out"
                )
            return
        left = self._free(folder)
        if need > left:
            raise DiskBudgetError(
                f"its pyramid may take up to {size(need)}, and of the disk {size(max(0, left))} may be taken "
                f"({size(self.keep_free)} of it stay free): make room, choose another --out, or say with --disk how "
                "much it may take"
            )

    def used_up(self, folder: Path) -> str | None:
        """Why no more may be taken; None where more may."""
        if self.asked is not None or self._free(folder) >= 0:
            return None
        return (
            f"{size(self.keep_free)} of the disk stay free: make room, choose another --out, or say with --disk how "
            "much it may take"
        )

    def _free(self, folder: Path) -> int:
        return _disk_of(folder)[1] - self.keep_free

    @contextmanager
    def _written(self) -> Iterator[dict[str, tuple[int, bool]]]:
        """What is taken, by whom: bytes, and whether they are reserved; written again at the block's end."""
        assert self.book is not None
        with lease(self.book.with_name(f"{self.book.name}.lease"), wait=True):
            book = {}
            with suppress(FileNotFoundError):
                for line in self.book.read_text().splitlines():
                    who, taken, state = line.split()
                    book[who] = int(taken), state == "reserved"
            yield book
            lines = (f"{who} {taken} {'reserved' if open_ else 'taken'}" for who, (taken, open_) in book.items())
            with new_file(self.book) as temporary:
                temporary.write_text("\n".join(lines))


def room_on(folder: Path, asked: int | None = None) -> Room:
    """What may be taken of a folder's disk from now on: ``asked``, where there is as much, or all but `LEAST_FREE`."""
    total, _ = _disk_of(folder)
    if asked is None:
        return Room(int(min(LEAST_FREE[0], LEAST_FREE[1] * total)))
    return Room(0, asked, folder / f"{PREFIX}{os.urandom(16).hex()}")


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
