"""What a dask worker runs: each job in a process beside it, so that what crashes or never ends costs no worker."""

from __future__ import annotations

import threading
from typing import Any

from pipeline.run.child import TRIES, Child

REST_SECONDS = 60.0
"""A process that nobody gave a job for so long is ended: its memory, and its GPU, are others' then."""

_resting: dict[Child, threading.Timer] = {}
_lock = threading.Lock()


def do(job: bytes, limit: float, *, topic: str, name: str) -> tuple[Any, str | None, float]:
    """Do a job in a process of its own and return its answer, else why there is none, and the seconds that it took.

    Args:
        job: as `pipeline.run.process.packed`.
        limit: seconds that it may take.
        topic: of the scheduler's events, where it is told that the job has begun.
        name: of the job, for that.
    """
    from dask.system import CPU_COUNT
    from distributed import get_worker

    worker = get_worker()
    worker.log_event(topic, name)
    child = _woken() or Child(cores=CPU_COUNT // worker.state.nthreads)
    try:
        for _ in range(TRIES):
            outcome = child.do(job, limit=limit)
            if not outcome.died:
                break
    finally:
        _rest(child)
    return outcome.answer, f"{outcome.why}, twice" if outcome.died else outcome.why, outcome.seconds


def _woken() -> Child | None:
    with _lock:
        if not _resting:
            return None
        child, timer = _resting.popitem()
    timer.cancel()
    return child


def _rest(child: Child) -> None:
    timer = threading.Timer(REST_SECONDS, _dismiss, (child,))
    timer.daemon = True
    with _lock:
        _resting[child] = timer
    timer.start()


def _dismiss(child: Child) -> None:
    with _lock:
        if _resting.pop(child, None) is None:
            return  # it was given a job meanwhile
    child.close()
