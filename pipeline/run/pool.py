"""Worker processes of this machine: a job that crashes or never ends takes its process with it, and nothing else."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.cohort.cohort import CohortSlide
from pipeline.errors import UsageError
from pipeline.run.child import TRIES, Child, twice
from pipeline.run.process import packed

SURE_SECONDS = 600.0
"""A job may take so long at least, whatever the others took."""
TIMES_TYPICAL = 20.0
"""... and so many times what is typical of those that are done."""
FIRST_SECONDS = 3600.0
"""... and so long while fewer than `KNOWN` are done."""
KNOWN = 3
Trial = tuple[Callable[..., str | None], tuple[Any, ...]]
"""A function and its arguments that says what keeps a process from working, and what to do; None: nothing."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended.

    Attributes:
        job: which.
        answer: what its task returned; None where it did not.
        why: in words, where it did not: a crash with its signal, the time limit, an error.
    """

    job: tuple[Any, ...]
    answer: Any = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class _Tried:
    """A process has been tried: what it lacks, None: nothing."""

    lacks: str | None


class Limit:
    """How long a job may take: as it was given, or by what those took that are done."""

    def __init__(self, seconds: float | None) -> None:
        self._given = seconds
        self._taken: list[float] = []

    def told(self, seconds: float) -> None:
        """A job took so long."""
        self._taken.append(seconds)

    @property
    def seconds(self) -> float:
        """As it is now."""
        if self._given is not None:
            return self._given
        if len(self._taken) < KNOWN:
            return FIRST_SECONDS
        return max(SURE_SECONDS, TIMES_TYPICAL * sorted(self._taken)[len(self._taken) // 2])


def each_in_processes(
    task: Callable[..., Any],
    jobs: Iterable[tuple[Any, ...]],
    *,
    count: int,
    limit: float | None = None,
    stop: threading.Event | None = None,
    said: Callable[[str], None] | None = None,
    trial: Trial | None = None,
    begun: Callable[[], None] = lambda: None,
) -> Iterator[Ended]:
    """Run ``task(*job)`` for every job on ``count`` processes and yield how each ended, as it does.

    A process lives for as many jobs as it survives. Where it dies, its job is tried once more, in a new one; where a
    job takes longer than the limit, its process is killed and the job is not tried again.

    Args:
        task: known to the workers by its name.
        jobs: its arguments, which pickle.
        count: processes.
        limit: seconds for each job, since its process began it or last told how far it is; None: by what the others
            took, see `Limit`.
        stop: once set, no more jobs are begun; those in flight are finished.
        said: told how far jobs are, by threads.
        trial: asked of each process before its first job.
        begun: called once a process can work.

    Raises:
        UsageError: the first that was asked cannot.
    """
    waiting: queue.SimpleQueue[tuple[tuple[Any, ...], int]] = queue.SimpleQueue()
    total = 0
    for job in jobs:
        waiting.put((job, 1))
        total += 1
    finished: queue.SimpleQueue[Ended | _Tried | None] = queue.SimpleQueue()
    allowed, over = Limit(limit), threading.Event()
    cores = (os.cpu_count() or 1) // count
    enough = (over,) if stop is None else (over, stop)
    hands = [
        _Hand(task, waiting, finished, allowed, enough, Child(said or (lambda line: None), cores=cores), trial)
        for _ in range(min(count, total))
    ]
    try:
        for hand in hands:
            hand.start()
        idle, sure = 0, False
        while idle < len(hands):
            ended = finished.get()
            if isinstance(ended, _Tried):
                if ended.lacks is not None and not sure:
                    raise UsageError(ended.lacks)
                if not sure:
                    begun()
                sure = True
            elif ended is None:
                idle += 1
            else:
                yield ended
    finally:  # also where nobody wants the rest
        over.set()
        for hand in hands:
            hand.end()


class _Hand(threading.Thread):
    """Who gives jobs to one process."""

    def __init__(
        self,
        task: Callable[..., Any],
        waiting: queue.SimpleQueue[tuple[tuple[Any, ...], int]],
        finished: queue.SimpleQueue[Ended | _Tried | None],
        limit: Limit,
        enough: Sequence[threading.Event],
        child: Child,
        trial: Trial | None,
    ) -> None:
        super().__init__(daemon=True)
        self._task, self._waiting, self._finished = task, waiting, finished
        self._limit, self._enough, self._child, self._trial = limit, enough, child, trial

    def run(self) -> None:
        try:
            self._finished.put(_Tried(self._lacks()))
            while not self._stopped():
                try:
                    job, tries = self._waiting.get_nowait()
                except queue.Empty:
                    break
                outcome = self._child.do(packed(self._task, job), limit=self._limit.seconds)
                why = outcome.why
                if why is None:
                    self._limit.told(outcome.seconds)
                elif outcome.died and self._stopped():
                    why = "the run was stopped"
                elif outcome.died and tries < TRIES:
                    self._waiting.put((job, tries + 1))
                    continue
                elif outcome.died:
                    why = twice(why)
                self._finished.put(Ended(job, outcome.answer, why))
        finally:
            self._child.close()
            self._finished.put(None)

    def _lacks(self) -> str | None:
        """What the process says that keeps it from working; what dies when it is asked is told of with its jobs."""
        if self._trial is None or self._stopped():
            return None
        lacks: str | None = self._child.do(packed(*self._trial), limit=self._limit.seconds).answer
        return lacks

    def _stopped(self) -> bool:
        return any(event.is_set() for event in self._enough)

    def end(self) -> None:
        """End the process, whatever it is doing; by another thread."""
        self._child.kill()
        self.join()


def failed(slide: CohortSlide, error: str) -> dict[str, Any]:
    """The row of a slide whose task ended without one."""
    return {"slide_id": slide.slide_id, "path": str(slide.path), "status": "failed", "error": error}
