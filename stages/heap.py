"""Memory that was freed and is still this process's: whether the C library gives it back, where that is glibc."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Of glibc's malloc.h."""
KEPT = 2**26
"""Bytes that stay this process's where steps take and free the same again and again."""
LARGEST = 2**25
"""Of one piece, in bytes: glibc allows no more."""


def give_back() -> None:
    """Hand what was freed back to the system, in a few milliseconds.

    After a thumbnail of 24 million pixels was looked at, some 100 MB lie between what is still in use.
    """
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(ctypes.c_size_t(0))


def keep_freed() -> None:
    """From now on let freed memory stay this process's, up to `KEPT`, for what takes as much again at once.

    The system hands out memory page by page and clears each: of a training step of small networks that is a quarter.
    Threads that begin after this share what is kept; each would else keep its own.
    """
    tell = _of_glibc("mallopt")
    if tell is not None:
        tell(M_ARENA_MAX, 1)
        tell(M_MMAP_THRESHOLD, LARGEST)
        tell(M_TRIM_THRESHOLD, KEPT)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """One of its functions; None where the C library is another, as musl, or the system is."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
