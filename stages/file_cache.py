"""A folder of files that may go at any time, bounded in size, for any number of threads and processes at once.

Each file is a checksum, then what was written. Files are written beside their place and renamed, so that several
processes can share a folder with no lock between them. What a file holds is never executed, and never shown where its
checksum does not fit. No file is needed: where the folder cannot be written, work goes on without it.

diskcache would be the library for this; it was left because it unpickles what it finds, because its SQLite index is
written on every hit, and because SQLite does not work on the network file systems that hold slides.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import google_crc32c

from stages.disk import is_temporary, new_file

KEPT = 0.9
"""Share of the limit that the most recently used files may fill when others are evicted."""
UNSEEN = 1 / 32
"""Share of the limit that a process writes before it looks at the folder again: one process stays below the limit, and
each further one may exceed it by this."""
LITTER_SECONDS = 3600
"""Half-written files older than this were left by a process that was killed."""

_CHECKSUM_BYTES = 4
_log = logging.getLogger(__name__)


class FileCache:
    """Bytes by name in a folder of its own inside ``folder``, of which the least recently used go at the limit.

    Args:
        folder: where; made when the first file is written. What else is in it is never touched.
        limit: bytes that the files may fill.
        inner: name of the cache's own folder in it, with the version of what lies there.
        names: pattern of the names in use, paths with ``/``; files of other names are never read nor evicted.
        title: what users call it.
    """

    def __init__(self, folder: Path, limit: int, *, inner: str, names: str, title: str) -> None:
        self.folder, self.limit = folder, limit
        self._root, self._names, self._title = folder / inner, re.compile(names), title
        self._lock = threading.Lock()
        self._room = 0  # bytes that may be written before looking at the folder again
        self._writable = True

    def read(self, name: str) -> bytes | None:
        """What was written under a name, and marks it as used; None where there is nothing, or where it is damaged."""
        path = self._root / name
        try:
            data = path.read_bytes()
        except OSError:
            return None
        payload = data[_CHECKSUM_BYTES:]
        if data[:_CHECKSUM_BYTES] != _checksum(name, payload):
            self.drop(name, "its checksum does not fit")
            return None
        self.touch([name])
        return payload

    def write(self, name: str, payload: bytes, *, durable: bool = False) -> bool:
        """Keep bytes under a name; where that fails, say so once and keep nothing from then on.

        Args:
            name, payload: what to keep.
            durable: whether the disk holds it from then on; otherwise the checksum tells what a power cut tore.

        Returns:
            whether it is kept.
        """
        if not self._writable:
            return False
        data = _checksum(name, payload) + payload
        path = self._root / name
        try:
            with self._lock:
                if len(data) > self._room:
                    self._make_room(len(data))
                self._room -= len(data)
            path.parent.mkdir(parents=True, exist_ok=True)
            with new_file(path, durable=durable) as beside:
                beside.write_bytes(data)
        except OSError as exc:
            self._writable = False
            _log.warning(
                "the %s %s cannot be written (%s): work goes on without; free some space, correct its permissions or "
                "name another folder",
                self._title,
                self.folder,
                exc.strerror or exc,
            )
            return False
        return True

    def drop(self, name: str, why: str) -> None:
        """Say that a file is damaged, and remove it: what it held is made anew."""
        _log.warning("the %s holds a damaged file, %s (%s): it is made anew", self._title, self._root / name, why)
        self.remove([name])

    def touch(self, names: Iterable[str]) -> None:
        """Mark files as used now."""
        for name in names:
            with contextlib.suppress(OSError):  # evicted just now, or not ours to mark
                os.utime(self._root / name)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, as far as the system allows: on Windows none that is being read."""
        for name in names:
            with contextlib.suppress(OSError):
                (self._root / name).unlink(missing_ok=True)

    def sizes(self, inside: str) -> dict[str, int]:
        """Name and bytes of each file that lies directly in a folder of the cache, in no order."""
        found = {}
        with contextlib.suppress(OSError), os.scandir(self._root / inside) as entries:
            for entry in entries:
                name = f"{inside}/{entry.name}"
                if self._names.fullmatch(name):
                    with contextlib.suppress(FileNotFoundError):  # another process was faster
                        found[name] = entry.stat().st_size
        return found

    @property
    def bytes(self) -> int:
        """What the files fill now."""
        return sum(size for _, size, _ in self._files())

    def _make_room(self, size: int) -> None:
        """Look at the folder, and evict the least recently used files if ``size`` bytes or a share more do not fit."""
        files = list(self._files())
        total = sum(size for _, size, _ in files)
        room = max(size, int(self.limit * UNSEEN))
        if total + room > self.limit:
            for _, evicted, name in sorted(files):
                if total <= min(self.limit * KEPT, self.limit - room):
                    break
                self.remove([name])
                total -= evicted
        self._room = room

    def _files(self) -> Iterator[tuple[int, int, str]]:
        """(time of last use in ns, bytes, name) of each file; removes litter."""
        now = time.time_ns()
        for folder, _, names in os.walk(self._root):
            for name in names:
                path = Path(folder, name)
                try:
                    status = path.stat()
                except FileNotFoundError:  # another process was faster
                    continue
                if self._names.fullmatch(known := path.relative_to(self._root).as_posix()):
                    yield status.st_mtime_ns, status.st_size, known
                elif is_temporary(name) and now - status.st_mtime_ns > LITTER_SECONDS * 10**9:
                    self.remove([known])


def _checksum(name: str, payload: bytes) -> bytes:
    """CRC-32C of a name and of its bytes: a file in the wrong place is as wrong as a torn one."""
    checksum: int = google_crc32c.extend(google_crc32c.value(name.encode()), payload)
    return checksum.to_bytes(_CHECKSUM_BYTES, "big")
