"""What a dask worker runs: each job in a process beside it, so that what crashes or never ends costs no worker."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

from pipeline.run.child import TRIES, Child

REST_SECONDS = 60.0
"""A process that nobody gave a job for so long is ended: its memory, and its GPU, are others' then."""

_resting: dict[Child, threading.Timer] = {}
_lock = threading.Lock()


def packed(task: Callable[..., Any], job: tuple[Any, ...]) -> bytes:
    """A job as it travels: neither the scheduler nor the worker has to import what it is about."""
    return pickle.dumps((task, job))


def do(job: bytes, limit: float, *, topic: str, name: str) -> tuple[Any, str | None, float]:
    """Do a job in a process of its own and return its answer, else why there is none, and the seconds that it took.

    Args:
        job: as `packed`.
        limit: seconds that it may take.
        topic: of the scheduler's events, where it is told that the job has begun.
        name: of the job, for that.
    """
    from distributed import get_worker

    worker = get_worker()
    worker.log_event(topic, name)
    child = _woken() or Child(share=worker.state.nthreads)
    try:
        for _ in range(TRIES):
            ended = child.do(_unpacked, (job,), limit=limit)
            if not ended.died:
                break
    finally:
        _rest(child)
    return ended.answer, f"{ended.why}, twice" if ended.died else ended.why, ended.seconds


def _unpacked(job: bytes) -> Any:
    task, arguments = pickle.loads(job)  # of our own run
    return task(*arguments)


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
