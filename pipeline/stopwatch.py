"""What each stage of a slide takes, by the clock and of processors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Spent = dict[str, dict[str, float]]
"""Of each stage its ``seconds`` and ``cpu_seconds``: of this process, all threads together."""

_spent: ContextVar[Spent | None] = ContextVar("spent", default=None)
_within: ContextVar[list[float] | None] = ContextVar("within", default=None)
"""Seconds by the clock and of processors of the stages within the one that goes on."""


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
    """A stage, or another part of it; what a stage within it takes is that one's, and nothing is kept where nobody
    measures."""
    outer, within = _within.get(), [0.0, 0.0]
    token = _within.set(within)
    seconds, processors = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        took = time.perf_counter() - seconds, time.process_time() - processors
        _within.reset(token)
        if outer is not None:
            outer[:] = [before + more for before, more in zip(outer, took, strict=True)]
        if (found := _spent.get()) is not None:
            one = found.setdefault(name, {"seconds": 0.0, "cpu_seconds": 0.0})
            one["seconds"] += took[0] - within[0]
            one["cpu_seconds"] += took[1] - within[1]
