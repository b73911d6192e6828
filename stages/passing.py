"""Faults of a disk or a network that may pass: what is tried again, for how long, and what is not."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

WAITS = (0.1, 0.4, 1.6)
"""Seconds before each further try; servers that fail over, and locks that others hold, take about so long."""

PASSING = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "EREMOTEIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "EBUSY", "EINTR", "ENOLINK", "ECOMM", "EPROTO"),
        *("ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "ENOTCONN", "EPIPE", "ENOBUFS", "ESHUTDOWN"),
        *("ENETDOWN", "ENETUNREACH", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH"),
    )
    if hasattr(errno, name)
)
"""Errors by which a disk or a network says that it could not, not that there is nothing to be had."""

TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
"""Errors by which a system says that this process, or all of them, may open no more."""

_T = TypeVar("_T")


class UnreadableError(Exception):
    """A file is there and cannot be read: not what is in it is at fault. The message says why and what to do.

    It is neither an `OSError` nor a `ValueError`, so that whoever takes those for damage does not take this for it.

    Attributes:
        passing: whether another try may do.
    """

    def __init__(self, why: str, *, passing: bool) -> None:
        super().__init__(why)
        self.passing = passing

    def __reduce__(self) -> tuple[Callable[[str, bool], UnreadableError], tuple[str, bool]]:
        return _unreadable, (str(self), self.passing)


def _unreadable(why: str, passing: bool) -> UnreadableError:
    return UnreadableError(why, passing=passing)


def is_passing(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, may pass."""
    while error is not None:
        if isinstance(error, UnreadableError):
            return error.passing
        if isinstance(error, OSError) and error.errno in PASSING:
            return True
        error = error.__cause__
    return False


def again(work: Callable[[], _T]) -> _T:
    """What ``work`` returns; all of it is done once more where what failed in it may pass, as inside libraries that
    read for themselves."""
    try:
        return work()
    except Exception as exc:
        if not is_passing(exc):
            raise
    time.sleep(WAITS[-1])
    return work()


def patiently(work: Callable[[], _T]) -> _T:
    """What ``work`` returns, which is tried again where the disk or the network could not.

    Raises:
        OSError: what does not pass, at once; what may, where it did not within all of `WAITS`.
    """
    for seconds in WAITS:
        try:
            return work()
        except OSError as exc:
            if exc.errno not in PASSING:
                raise
            time.sleep(seconds)
    return work()
