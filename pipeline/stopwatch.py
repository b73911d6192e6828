"""What each stage of a slide takes, by the clock and of processors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Spent = dict[str, dict[str, float]]
"""Of each stage its ``seconds`` and ``cpu_seconds``: of this process, all threads together."""

_spent: ContextVar[Spent | None] = ContextVar("spent", default=None)


@contextmanager
def measuring() -> Iterator[Spent]:
    """Yield what the stages within take, each once it has ended."""
    found: Spent = {}
    token = _spent.set(found)
    try:
        yield found
    finally:
        _spent.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """A stage, or another part of it; nothing is kept where nobody measures."""
    seconds, processors = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        if (found := _spent.get()) is not None:
            one = found.setdefault(name, {"seconds": 0.0, "cpu_seconds": 0.0})
            one["seconds"] += time.perf_counter() - seconds
            one["cpu_seconds"] += time.process_time() - processors
