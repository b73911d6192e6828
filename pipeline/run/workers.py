"""One task a slide: in this process, on worker processes, or on any dask scheduler by address."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipeline.cohort.cohort import CohortSlide
from pipeline.errors import UsageError
from pipeline.run.pool import Limit, Trial, each_in_processes, failed
from stages.budget import available_bytes

BUSY = "busy"
"""Status of a slide that another process is at: it is to be tried once more."""
WAITING = "waiting"
"""Status of a slide that the run has not come to yet, or leaves as it is."""
MOST_SUITED, WORKER_BYTES = 8, 3 * 2**29
"""Workers at most where nobody says how many, and memory that one may come to where nobody says how much."""


def suited(slides: int, *, device: str, memory: int | None = None) -> int:
    """How many workers suit so many slides on this machine: as many as there are cores and memory for, 0 for one slide,
    which is worked on in this process, and 1 where a GPU computes; ``memory`` is what each may take, in bytes."""
    if slides < 2:
        return 0
    if device.startswith(("cuda", "mps")):
        return 1
    available = available_bytes()
    room = MOST_SUITED if available is None else max(1, available // (memory or WORKER_BYTES))
    return min(slides, os.cpu_count() or 1, MOST_SUITED, room)


def each(
    task: Callable[..., dict[str, Any]],
    jobs: Sequence[tuple[Any, ...]],
    *,
    workers: int,
    scheduler: str | None,
    limit: float | None = None,
    stop: threading.Event | None = None,
    said: Callable[[str], None] | None = None,
    warn: Callable[[str], None] | None = None,
    wait: float | None = None,
    device: str = "cpu",
    trial: Trial | None = None,
    begun: Callable[[], None] = lambda: None,
) -> Iterator[tuple[CohortSlide, dict[str, Any]]]:
    """Run ``task(*job)`` for every job and yield (job's slide, its row) as each finishes.

    In this process one by one (``workers`` of 0); on processes of this machine (`pipeline.run.pool`), where what
    crashes or takes longer than the ``limit`` takes only its own slide with it; or on a dask scheduler's workers
    (`pipeline.run.scheduler`), for which ``warn``, ``wait`` and ``device`` are: see `Order`. ``begun`` is called once
    they can be begun, which a scheduler, or the ``trial`` that every process is asked before its first, may not allow.

    Raises:
        UsageError: no scheduler answers, it has no worker, or a process cannot do the work.
    """
    stop = stop or threading.Event()
    if scheduler is None:
        yield from _here(task, jobs, workers, limit, stop, said, trial, begun)
        return
    from pipeline.run.scheduler import WAIT_SECONDS, Order, each_on_scheduler  # and all that talks to one

    order = Order(
        task,
        Limit(limit),
        stop,
        warn=warn or (lambda line: None),
        wait=WAIT_SECONDS if wait is None else wait,
        device=device,
        trial=trial,
        begun=begun,
    )
    yield from each_on_scheduler(order, jobs, scheduler)


def _here(
    task: Callable[..., dict[str, Any]],
    jobs: Sequence[tuple[Any, ...]],
    workers: int,
    limit: float | None,
    stop: threading.Event,
    said: Callable[[str], None] | None,
    trial: Trial | None,
    begun: Callable[[], None],
) -> Iterator[tuple[CohortSlide, dict[str, Any]]]:
    """On this machine."""
    if workers == 0:
        if not stop.is_set():
            if trial is not None and (lacks := trial[0](*trial[1])) is not None:
                raise UsageError(lacks)
            begun()
        for job in jobs:
            if stop.is_set():
                return
            yield job[0], task(*job)
        return
    how: dict[str, Any] = {"limit": limit, "stop": stop, "said": said, "trial": trial, "begun": begun}
    for ended in each_in_processes(task, jobs, count=workers, **how):
        slide = ended.job[0]
        yield slide, ended.answer if ended.why is None else failed(slide, ended.why)
