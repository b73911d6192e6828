"""Memory that this process holds and does not need: what was freed, where the C library is glibc, and large images."""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.disk import unnamed_file

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Of glibc's malloc.h."""
KEPT = 2**26
"""Bytes that stay this process's where steps take and free the same again and again."""
SLACK = 2**25
"""Bytes that freed memory may come to before it is handed back."""
LARGE_IMAGE = 2**24
"""Bytes from which an image lies in a file: some 20 x 20 mm at 8 µm/px."""
LARGEST = 2**25
"""Of one piece, in bytes: glibc allows no more."""

_least = [-SLACK]
"""The least that this process held since it last handed back what was freed, then included."""


def large_image(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An image of such a shape, uint8, to be filled: from `LARGE_IMAGE` bytes on in a temporary file, where there is
    room for it, so that the system can take the memory for others, and `put_aside` leaves it."""
    nbytes = math.prod(shape)
    memory = unnamed_file(nbytes) if nbytes >= LARGE_IMAGE else None
    return np.empty(shape, np.uint8) if memory is None else np.frombuffer(memory, np.uint8).reshape(shape)


def give_back(*images: NDArray[np.uint8]) -> None:
    """Hand what was freed back to the system, in a few milliseconds, and `put_aside` images.

    After a thumbnail of 24 million pixels was looked at, some 100 MB lie between what is still in use. Where this
    process holds less than `SLACK` more than it did since the last time, what was freed stays: steps of small slides
    take about as much each, and the system would clear it again for each.
    """
    for image in images:
        put_aside(image)
    trim, held = _of_glibc("malloc_trim"), _held()
    if trim is not None and not 0 < held < _least[0] + SLACK:
        trim(ctypes.c_size_t(0))
        _least[0] = held = _held()
    _least[0] = min(_least[0], held)


def _held() -> int:
    """Bytes of memory that this process holds; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


def put_aside(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same image, of which, where it is a `large_image`, nothing is in memory until it is looked at again."""
    memory = _memory_of(image)
    if memory is not None:
        memory.madvise(mmap.MADV_DONTNEED)
    return image


def _memory_of(image: NDArray[np.uint8]) -> mmap.mmap | None:
    """The file of a `large_image`, or of a part of one."""
    owner: object = image
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    return owner if isinstance(owner, mmap.mmap) else None


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
