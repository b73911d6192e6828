"""Memory that was freed and is still this process's: the C library keeps it for later, and large images leave much."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Hand what was freed back to the system, where the C library is glibc, in a few milliseconds; elsewhere nothing.

    After a thumbnail of 24 million pixels was looked at, it keeps some 100 MB between what is still in use.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(ctypes.c_size_t(0))
