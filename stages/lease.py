"""Who writes: a lease on a place that one process holds at a time, and that a dead one loses by itself.

It is the system's lock on a file (flock), which ends with the process whatever ends it, also a kill or a power cut; the
file goes when the lease is given back, and one that a killed process left behind holds nobody up. Where a system or a
file system knows no such locks there are no leases, and all goes on as if each were alone.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_UNKNOWN = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class HeldError(Exception):
    """Another process holds the lease."""


@contextmanager
def lease(path: Path, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold a lease for as long as the block lasts.

    Args:
        path: of its file, in a folder that is there; nothing is in it.
        shared: many may hold it at once, if all of them share.
        wait: until it is free; else see below.

    Raises:
        HeldError: another process holds it.
    """
    if fcntl is None:
        yield
        return
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    handle = _locked(path, how)
    try:
        yield
    finally:
        if handle is not None:
            with suppress(OSError):
                if not shared or _alone(handle):
                    path.unlink()
            os.close(handle)


def _locked(path: Path, how: int) -> int | None:
    """An open file with the lock; None where there are no locks."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, how)
            # who held it before may have taken the file away in between: then this is a lock on nothing
            if os.fstat(handle).st_ino == os.stat(path).st_ino:
                return handle
        except BlockingIOError:
            os.close(handle)
            raise HeldError(path) from None
        except FileNotFoundError:
            pass
        except OSError as exc:
            os.close(handle)
            if exc.errno in _UNKNOWN:
                return None
            raise
        os.close(handle)


def _alone(handle: int) -> bool:
    """Whether nobody shares the lease."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def holders(folder: Path, prefix: str) -> list[str]:
    """Names of the lease files in a folder that begin so and that somebody holds; what a killed process left is
    removed."""
    found = []
    for path in sorted(folder.glob(f"{prefix}*")):
        try:
            with lease(path):
                pass  # nobody's: it goes with the block
        except HeldError:
            found.append(path.name)
    return found
