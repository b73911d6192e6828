"""When not to look for cyclic garbage."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_alone = False


def alone() -> None:
    """Say that this process does a command's or a worker's work and nothing else: what `uncollected` has made is then
    never looked at again, nor is anything as the interpreter ends, which looks at all of it twice."""
    global _alone
    if not _alone:
        _alone = True
        atexit.register(gc.freeze)


@contextmanager
def uncollected(*, once: bool = True) -> Iterator[None]:
    """Leave cyclic garbage alone in a block that makes many objects, nearly all of which stay: else all of them are
    looked at again and again, a third of the time of imports, and of thousands of rows.

    Args:
        once: whether the block is not run again and again; the garbage of one that is has to be found in the end.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if _alone and once:
            gc.freeze()
        if enabled:
            gc.enable()
