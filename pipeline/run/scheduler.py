"""One task a slide on the workers of a dask scheduler: those that come late are used, what is lost is done again."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pipeline.cohort.cohort import CohortSlide
from pipeline.errors import UsageError
from pipeline.run.address import BACK_SECONDS, come_back, connected, find_scheduler
from pipeline.run.crew import Crew, SchedulerGoneError
from pipeline.run.pool import Limit, failed
from pipeline.run.process import packed

WAIT_SECONDS = 30.0
"""For a first worker, and for another one where none is left, where nobody says how long."""
LOOK_SECONDS = 1.0
"""Between looks at which workers there are."""
MOVE_SECONDS = 5.0
"""A job that its worker has not taken up for so long goes to another, if one has nothing to do."""
SAY_SECONDS = 300.0
"""So often it is told that nothing goes on."""
ANSWER_SECONDS = 10.0
"""For a row that is ready."""
MOST_LOST = 3
"""Times that a job is lost with the worker that has taken it up: what takes too much memory would end all of them."""
MOST_FORGOTTEN = 10
"""Times that a scheduler may lose one job."""

Rows = Iterator[tuple[CohortSlide, dict[str, Any]]]


@dataclass
class _Job:
    """What is to be done for a slide, and what became of it so far.

    Attributes:
        arguments: of the task; the slide is the first.
        lost: workers that were lost after they had taken it up.
        forgotten: times that the scheduler lost it.
        future, worker, since, taken: where it was handed to and when, and whether that has taken it up.
    """

    arguments: tuple[Any, ...]
    lost: int = 0
    forgotten: int = 0
    future: Any = None
    worker: str = ""
    since: float = 0.0
    taken: bool = False

    @property
    def slide(self) -> CohortSlide:
        slide: CohortSlide = self.arguments[0]
        return slide


@dataclass(frozen=True)
class Order:
    """What is to be done, and how.

    Attributes:
        task: run for each job; the workers know it by its name.
        limit: of each job.
        stop: once set, no more jobs are begun.
        warn: told, in a line, what goes otherwise than one would think.
        wait: seconds for a worker, where there is none.
        device: "cpu" takes no GPU, "cuda" and its like only workers that have a GPU to give; else it is taken where
            there is one.
        trial: run by each worker before it gets a job: a function known by its name, with its arguments, that says
            what keeps the worker from doing its work.
        begun: called once the first worker can.
    """

    task: Callable[..., dict[str, Any]]
    limit: Limit
    stop: threading.Event
    warn: Callable[[str], None] = lambda line: None
    wait: float = WAIT_SECONDS
    device: str = "cpu"
    trial: tuple[Callable[..., str | None], tuple[Any, ...]] | None = None
    begun: Callable[[], None] = lambda: None


def each_on_scheduler(order: Order, jobs: Sequence[tuple[Any, ...]], scheduler: str) -> Rows:
    """Run the order's task for every job on a scheduler's workers and yield (job's slide, its row) as each finishes.

    A job is handed to one worker that has a thread free, and a GPU where it needs one, which does it in a process of
    its own. Where that worker is lost, the job is tried on another. Where the scheduler is gone, it is waited for, and
    what is not done is handed out again.

    Args:
        order: what to do.
        jobs: its arguments; the first is the slide.
        scheduler: its address, or the file that tells it.

    Raises:
        UsageError: no scheduler answers, it has no worker, or one that cannot do the work. Such workers that come
            while the jobs run are told of, and left out.
    """
    if not jobs:
        return
    waiting = deque(_Job(job) for job in jobs)
    address: str | None = find_scheduler(scheduler, wait=order.wait, stop=order.stop)
    first = True
    while address is not None and not order.stop.is_set():
        desk = None
        try:
            with connected(address) as client:
                desk = _Desk(client, order, waiting)
                if first:
                    desk.open()
                    first = False
                    if not order.stop.is_set():
                        order.begun()
                yield from desk.work()
                return
        except SchedulerGoneError:
            pass
        except UsageError:  # it was there, and is gone before it was met
            if first or desk is not None:
                raise
        if desk is not None:
            desk.take_back()
        order.warn(f"the scheduler {address} is gone: what is not done is handed out again when one answers there")
        address = come_back(scheduler, stop=order.stop)
    while waiting and not order.stop.is_set():
        why = f"the scheduler {scheduler} is gone, and none answered there for {BACK_SECONDS:g} s: start it and run "
        slide = waiting.popleft().slide
        yield slide, failed(slide, f"{why}again, which goes on from here")


@dataclass
class _Desk:
    """Where jobs are handed out and come back."""

    client: Any
    order: Order
    waiting: deque[_Job]
    at_work: dict[str, _Job] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._crew = Crew(self.client, device=self.order.device, trial=self.order.trial, warn=self.order.warn)
        self._of_use = self._told = time.monotonic()

    def open(self) -> None:
        """Wait until the workers that are there have been asked, and one at least can be used.

        Raises:
            UsageError: none has joined, or one that cannot do the work.
        """
        self._crew.open(self.order.wait, stop=self.order.stop)

    def work(self) -> Rows:
        """Do all jobs that wait; raises `SchedulerGoneError`."""
        looked = -LOOK_SECONDS
        self._of_use = self._told = time.monotonic()
        while self.at_work or (self.waiting and not self.order.stop.is_set()):
            if time.monotonic() - looked >= LOOK_SECONDS:
                self._crew.look()
                yield from self._bury()
                self._move()
                looked = time.monotonic()
            self._hand_out()
            if self.at_work or self._crew.on_trial or self._crew.usable:
                self._of_use = time.monotonic()
                self._say_where_nothing_goes_on()
            elif time.monotonic() - self._of_use >= self.order.wait:
                why = f"no worker is left{self._crew.why()}: start some and run again, which goes on from here"
                while self.waiting:
                    slide = self.waiting.popleft().slide
                    yield slide, failed(slide, why)
                return
            for future in self._crew.finished(LOOK_SECONDS / 4):
                job = self.at_work.pop(future.key, None)
                if job is not None:  # else it was given up
                    yield from self._ended(job, future)

    def take_back(self) -> None:
        """What is at work waits again."""
        self.waiting.extend(self.at_work.values())
        self.at_work.clear()

    def _hand_out(self) -> None:
        for worker in self._crew.free([job.worker for job in self.at_work.values()]):
            if not self.waiting or self.order.stop.is_set():
                return
            self._give(self.waiting[0], worker)
            self.waiting.popleft()

    def _give(self, job: _Job, worker: str) -> None:
        future = self._crew.submit(worker, packed(self.order.task, job.arguments), self.order.limit.seconds)
        job.future, job.worker, job.since, job.taken = future, worker, time.monotonic(), False
        self.at_work[future.key] = job

    def _ended(self, job: _Job, future: Any) -> Rows:
        """Its row; none where it is tried again."""
        slide = job.slide
        try:
            if future.status == "finished":
                row, why, seconds = future.result(timeout=ANSWER_SECONDS)
                if why is None:
                    self.order.limit.told(seconds)
                yield slide, row if why is None else failed(slide, why)
                return
            exc = None if future.cancelled() else future.exception(timeout=ANSWER_SECONDS)
        except Exception:  # who had the answer is gone
            exc = None
        if type(exc).__name__ == "KilledWorker":
            yield slide, failed(slide, _LOST)
            return
        if exc is not None and type(exc).__name__ not in ("CancelledError", "FutureCancelledError"):
            told = " ".join(str(exc).split())
            yield slide, failed(slide, f"its worker could not do it ({type(exc).__name__}: {told}); see its log")
            return
        job.forgotten += 1
        if job.forgotten > MOST_FORGOTTEN:
            yield slide, failed(slide, "the scheduler forgot it, again and again: see its log")
        else:
            self.waiting.appendleft(job)

    def _bury(self) -> Rows:
        """Take back the jobs of workers that are gone."""
        for key, job in self._at_work():
            if job.worker in self._crew.there:
                continue
            self._give_up(key, job)
            job.lost += job.taken
            if job.lost >= MOST_LOST:
                yield job.slide, failed(job.slide, _LOST)
            else:
                self.waiting.appendleft(job)

    def _move(self) -> None:
        """Give what waits at a worker to one that has nothing to do."""
        late = [(k, job) for k, job in self._at_work() if not job.taken and time.monotonic() - job.since > MOVE_SECONDS]
        if not late or self.waiting or self.order.stop.is_set():
            return
        for (key, job), worker in zip(late, self._crew.idle(), strict=False):
            self._give_up(key, job)
            self.waiting.append(job)  # it is not lost where it cannot be handed on
            self._give(job, worker)
            self.waiting.pop()

    def _at_work(self) -> list[tuple[str, _Job]]:
        for key, job in self.at_work.items():
            job.taken = job.taken or key in self._crew.taken
        return list(self.at_work.items())

    def _give_up(self, key: str, job: _Job) -> None:
        del self.at_work[key]
        with suppress(Exception):
            job.future.cancel()

    def _say_where_nothing_goes_on(self) -> None:
        now = time.monotonic()
        if any(job.taken for job in self.at_work.values()):
            self._told = now
        elif now - self._told >= SAY_SECONDS:
            self._told = now
            self.order.warn(
                f"no worker has taken up a slide for {SAY_SECONDS / 60:g} minutes: they are busy with other work, or "
                "paused, as dask does where memory is short; the scheduler's dashboard tells"
            )


_LOST = (
    f"{MOST_LOST} workers were lost while they were at it: killed for their memory, at the end of their time, or with "
    "their machine; see their logs, or try it alone on this machine with --workers 1"
)
