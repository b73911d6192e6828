"""What a dask worker runs: each job in a process beside it, so that what crashes or never ends costs no worker."""

from __future__ import annotations

import threading
from typing import Any

from pipeline.run.child import TRIES, Child, twice
from stages.budget import LEAST_SHARE, share_of_machine

REST_SECONDS = 60.0
"""A process that nobody gave a job for so long is ended: its memory, and its GPU, are others' then."""

_resting: dict[Child, threading.Timer] = {}
_lock = threading.Lock()


def do(job: bytes, limit: float, *, topic: str, name: str) -> tuple[Any, str | None, float]:
    """Do a job in a process of its own and return its answer, else why there is none, and the seconds that it took.

    Args:
        job: as `pipeline.run.process.packed`.
        limit: seconds that it may take.
        topic: of the scheduler's events, where it is told that a worker's thread has taken the job up.
        name: of the job, for that.
    """
    from dask.system import CPU_COUNT
    from distributed import get_worker

    worker = get_worker()
    worker.log_event(topic, name)
    threads = worker.state.nthreads
    child = _woken() or Child(cores=CPU_COUNT // threads, memory=_share(worker.memory_manager.memory_limit, threads))
    try:
        for _ in range(TRIES):
            outcome = child.do(job, limit=limit)
            if not outcome.died:
                break
    finally:
        _rest(child)
    return outcome.answer, twice(str(outcome.why)) if outcome.died else outcome.why, outcome.seconds


def _share(limit: int | None, threads: int) -> int | None:
    """Bytes that a job may take where nobody says: an equal part of what its worker may, and of the machine's."""
    known = [share_of_machine(threads), None if not limit else max(LEAST_SHARE, limit // threads)]
    return min((share for share in known if share is not None), default=None)


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
