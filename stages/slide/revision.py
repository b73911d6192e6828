"""In which state a slide's files were when it was opened: what tells of a change that its fingerprint, which looks at
samples, does not see."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from stages.disk import open_regular, reading
from stages.passing import is_passing, patiently

LISTED = "."
"""Stands among the names for the folder that a slide lies in: which files it lists, not what is in them."""
PIECE = 2**20
"""Bytes that are read at once."""
KEPT = 2**14
"""Slides whose digest a process remembers."""


@dataclass(frozen=True, slots=True)
class Revision:
    """The state of a slide's files.

    Attributes:
        names: of the files beside the one that is opened, from its folder on; a folder is all that is in it, but for
            `LISTED`.
        touched: hash of the size, the times of modification and of any change, and the number of each file and folder:
            where it is the same, nothing was done to any of them.
        written: hash of the size and time of modification of each file, which copies keep that keep times; None where
            the fingerprint looks at every byte, and times say nothing.
        digest: SHA-256 of every byte; None where nobody asked for it.
    """

    names: tuple[str, ...]
    touched: str
    written: str | None
    digest: str | None = None

    @classmethod
    def recorded(cls, told: object) -> Revision | None:
        """What ``asdict`` wrote as JSON; None of anything else."""
        try:
            names, *rest = (told[name] for name in ("names", "touched", "written", "digest"))  # type: ignore[index]
            return cls(tuple(map(str, names)), *rest)
        except (KeyError, TypeError):
            return None


def revision_of(path: Path, companions: Sequence[Path] = (), *, listed: bool = False, seen: bool = False) -> Revision:
    """The state of a slide's files now.

    Args:
        path: the slide's file or folder.
        companions: its other files, or folders that are all of it.
        listed: whether any file of its folder may come to belong to it.
        seen: whether its fingerprint looks at every byte.
    """
    names = (
        *(Path(os.path.relpath(file, path.parent)).as_posix() for file in companions),
        *([LISTED] if listed else []),
    )
    found = patiently(lambda: list(_all_of(path, names)))
    return Revision(names, _touched(found), None if seen else _written(found))


def untouched(path: Path, recorded: Revision) -> bool:
    """Whether a slide's files are in a state that was recorded, or were copied or renamed with their times since; false
    where one is gone or cannot be asked."""
    try:
        found = list(_all_of(path, recorded.names))
    except OSError:
        return False
    return _touched(found) == recorded.touched or _written(found) == recorded.written


def touched(path: Path, names: Sequence[str]) -> str | None:
    """What `Revision.touched` is now, at some microseconds a file; None where a file is gone or cannot be asked."""
    try:
        return _touched(list(_all_of(path, names)))
    except OSError:
        return None


@lru_cache(maxsize=KEPT)
def digest_of(path: Path, names: tuple[str, ...], touched: str) -> str:
    """What `Revision.digest` is now: reads every file from its first byte to its last, once until it is ``touched``.

    Raises:
        UnreadableError: a file cannot be read.
        OSError: it is gone.
    """
    digest = hashlib.sha256()
    for name, file, status in patiently(lambda: list(_all_of(path, names))):
        if stat.S_ISREG(status.st_mode):
            with reading(file), open_regular(file) as opened:
                own = hashlib.sha256()
                while piece := opened.read(PIECE):
                    own.update(piece)
            digest.update(repr((name, own.hexdigest())).encode())
    return digest.hexdigest()


_Found = tuple[str, Path, os.stat_result]
"""A file or folder of a slide: its name, which is none for what is opened; where it is; its state."""


def _all_of(path: Path, names: Sequence[str]) -> Iterator[_Found]:
    for name, place in (("", path), *((name, path.parent / name) for name in names)):
        status = os.stat(place)
        yield name, place, status
        if stat.S_ISDIR(status.st_mode) and name != LISTED:
            yield from _within(place, {(status.st_dev, status.st_ino)})


def _within(folder: Path, above: set[tuple[int, int]], inside: str = "") -> Iterator[_Found]:
    """All that lies in a folder, by name; what links lead to as well, but not round in a circle. What may not be
    entered is nobody's slide."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as exc:
        if is_passing(exc):
            raise
        return
    for entry in entries:
        try:
            status = entry.stat()
        except FileNotFoundError:  # a link that leads nowhere
            status = entry.stat(follow_symlinks=False)
        name = f"{inside}/{entry.name}"
        yield name, Path(entry.path), status
        number = (status.st_dev, status.st_ino)
        if stat.S_ISDIR(status.st_mode) and number not in above:
            yield from _within(Path(entry.path), {*above, number}, name)


def _touched(found: Sequence[_Found]) -> str:
    states = [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, _, s in found]
    return _hashed(states)


def _written(found: Sequence[_Found]) -> str:
    return _hashed([(name, s.st_size, s.st_mtime_ns) for name, _, s in found if stat.S_ISREG(s.st_mode)])


def _hashed(values: object) -> str:
    return hashlib.blake2b(repr(values).encode(), digest_size=16).hexdigest()
