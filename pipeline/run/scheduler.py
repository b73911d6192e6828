"""One task a slide on the workers of a dask scheduler: those that come late are used, what is lost is done again."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePath
from queue import Empty, SimpleQueue
from typing import Any

from pipeline.cohort.table import CohortSlide
from pipeline.errors import UsageError
from pipeline.run.pool import TRIES, Limit
from pipeline.version import DISTRIBUTION, saccade_version

WAIT_SECONDS = 30.0
"""For a first worker, for the workers' answers, and for another one where none is left."""
CONNECT_SECONDS = 10.0
"""For a scheduler's answer to the first word."""
BACK_SECONDS = 120.0
"""For a scheduler that is gone to be there again."""
LOOK_SECONDS = 1.0
"""Between looks at which workers there are."""
MOST_FORGOTTEN = 10
"""Times that a scheduler may lose one job."""


# Asked as text: a function of ours could not even be received where our packages are not the ones that Python finds.
_WHERE = (
    "{name: getattr(__import__('importlib.util').util.find_spec(name), 'origin', None) "
    "for name in ('saccade', 'pipeline', 'stages')}"
)
_VERSION = "__import__('pipeline.version').version.saccade_version()"


Rows = Iterator[tuple[CohortSlide, dict[str, Any]]]


class _SchedulerGoneError(Exception):
    """It does not answer any more."""


@dataclass
class _Job:
    """What is to be done for a slide, and what became of it so far.

    Attributes:
        arguments: of the task; the slide is the first.
        deaths: workers that died over it.
        forgotten: times that the scheduler lost it.
        future, worker, since: where it is at work, and from when on.
    """

    arguments: tuple[Any, ...]
    deaths: int = 0
    forgotten: int = 0
    future: Any = None
    worker: str = ""
    since: float = 0.0

    @property
    def slide(self) -> CohortSlide:
        slide: CohortSlide = self.arguments[0]
        return slide


def each_on_scheduler(
    task: Callable[..., dict[str, Any]],
    jobs: Sequence[tuple[Any, ...]],
    address: str,
    *,
    limit: float | None,
    stop: threading.Event,
) -> Rows:
    """Run ``task(*job)`` for every job on a scheduler's workers and yield (job's slide, its row) as each finishes.

    A job is handed to one worker that has a thread free. Where that worker dies, the job is tried once more, on
    another; where the job takes longer than the limit, its worker is restarted by its nanny, if it has one. Where the
    scheduler is gone, it is waited for, and what is not done is handed out again.

    Args:
        task: known to the workers by its name.
        jobs: its arguments; the first is the slide.
        address: of the scheduler.
        limit: seconds for each job; None: by what the others took, see `pipeline.run.pool.Limit`.
        stop: once set, no more jobs are begun; those in flight are finished.

    Raises:
        UsageError: no scheduler answers, it has no worker, or one that cannot run our code; also while the jobs run,
            where such a worker joins: nothing else would ever be heard of a job that it gets.
    """
    waiting = deque(_Job(job) for job in jobs)
    allowed = Limit(limit)
    _refuse_no_scheduler(address)
    first = True
    while True:
        with _client(address) as client:
            desk = _Desk(client, task, waiting, allowed, stop)
            try:
                if first:
                    desk.refuse_no_workers(address)
                yield from desk.work()
                return
            except _SchedulerGoneError:
                desk.take_back()
        first = False
        if stop.is_set() or not _comes_back(address):
            break
    while waiting and not stop.is_set():
        why = f"the scheduler {address} is gone, and none answered there for {BACK_SECONDS:g} s: start it and run "
        slide = waiting.popleft().slide
        yield slide, failed(slide, f"{why}again, which goes on from here")


class _Desk:
    """Where jobs are handed out and come back."""

    def __init__(
        self,
        client: Any,
        task: Callable[..., dict[str, Any]],
        waiting: deque[_Job],
        limit: Limit,
        stop: threading.Event,
    ) -> None:
        self._client, self._task, self._waiting, self._limit, self._stop = client, task, waiting, limit, stop
        self._at_work: dict[str, _Job] = {}
        self._finished: SimpleQueue[Any] = SimpleQueue()
        self._threads: dict[str, int] = {}
        self._asked: set[str] = set()
        self._stuck: Counter[str] = Counter()  # threads that took too long and cannot be ended
        self._restarted: set[str] = set()
        self._of_use = time.monotonic()

    def refuse_no_workers(self, address: str) -> None:
        """Wait for a first worker.

        Raises:
            UsageError: none has joined.
        """
        until = time.monotonic() + WAIT_SECONDS
        while not self._look():
            if time.monotonic() > until:
                raise UsageError(
                    f"no worker has joined the scheduler {address} within {WAIT_SECONDS:g} s: "
                    f"start one with `dask worker {address}`"
                )
            time.sleep(min(LOOK_SECONDS, WAIT_SECONDS) / 4)

    def work(self) -> Rows:
        """Do all jobs that wait; raises `_SchedulerGoneError` and, of a worker that is a stranger, `UsageError`."""
        looked = -LOOK_SECONDS
        while self._at_work or (self._waiting and not self._stop.is_set()):
            if time.monotonic() - looked >= LOOK_SECONDS:
                self._look()
                looked = time.monotonic()
                yield from self._bury()
                yield from self._end_late()
            self._hand_out()
            if self._at_work:
                self._of_use = time.monotonic()
            elif time.monotonic() - self._of_use >= WAIT_SECONDS:
                while self._waiting:
                    slide = self._waiting.popleft().slide
                    yield slide, failed(slide, "no worker is left: start some and run again, which goes on from here")
                return
            try:
                future = self._finished.get(timeout=LOOK_SECONDS / 4)
            except Empty:
                continue
            job = self._at_work.pop(future.key, None)
            if job is not None:  # else it was given up
                yield from self._ended(job, future)

    def take_back(self) -> None:
        """What is at work waits again."""
        for job in self._at_work.values():
            self._waiting.append(job)
        self._at_work.clear()

    def _look(self) -> dict[str, int]:
        """See which workers there are, and ask those that are new; refuses them as `refuse_strangers` does."""
        try:
            self._threads = dict(self._client.nthreads())
            if new := sorted(self._threads.keys() - self._asked):
                ask_all(self._client, new)
        except UsageError:
            raise
        except Exception as exc:  # whatever it is, nothing can be said to it
            raise _SchedulerGoneError from exc
        self._asked |= self._threads.keys()
        return self._threads

    def _hand_out(self) -> None:
        busy = self._stuck + Counter(job.worker for job in self._at_work.values())
        for worker, threads in self._threads.items():
            for _ in range(threads - busy[worker]):
                if not self._waiting or self._stop.is_set():
                    return
                job = self._waiting.popleft()
                self._at_work[f"{id(job)}"] = job  # wherever it fails, it is not lost
                try:
                    # a worker of its own: so it is known whose death was whose, and who is late
                    future = self._client.submit(self._task, *job.arguments, pure=False, workers=[worker])
                    future.add_done_callback(self._finished.put)
                except Exception as exc:
                    raise _SchedulerGoneError from exc
                del self._at_work[f"{id(job)}"]
                job.future, job.worker, job.since = future, worker, time.monotonic()
                self._at_work[future.key] = job

    def _ended(self, job: _Job, future: Any) -> Rows:
        """Its row; none where it is tried again."""
        slide = job.slide
        try:
            if future.status == "finished":
                row = future.result(timeout=CONNECT_SECONDS)
                self._limit.told(time.monotonic() - job.since)
                yield slide, row
                return
            exc = None if future.cancelled() else future.exception(timeout=CONNECT_SECONDS)
        except Exception:  # who had the answer is gone
            exc = None
        if exc is not None and type(exc).__name__ not in ("KilledWorker", "CancelledError", "FutureCancelledError"):
            told = " ".join(str(exc).split())
            yield slide, failed(slide, f"its worker could not do it ({type(exc).__name__}: {told}); see its log")
            return
        job.forgotten += 1
        if job.forgotten > MOST_FORGOTTEN:
            yield slide, failed(slide, "the scheduler forgot it, again and again: see its log")
        else:
            self._waiting.appendleft(job)

    def _bury(self) -> Rows:
        """Take back the jobs of workers that are gone."""
        for key, job in list(self._at_work.items()):
            if job.worker in self._threads:
                continue
            del self._at_work[key]
            with suppress(Exception):
                job.future.cancel()
            job.deaths += job.worker not in self._restarted
            if job.deaths >= TRIES:
                why = "its worker died, and so did another that tried it: see their logs, or try it alone on this "
                yield job.slide, failed(job.slide, f"{why}machine with --workers 1")
            else:
                self._waiting.appendleft(job)

    def _end_late(self) -> Rows:
        limit = self._limit.seconds
        for key, job in list(self._at_work.items()):
            if time.monotonic() - job.since <= limit:
                continue
            del self._at_work[key]
            with suppress(Exception):
                job.future.cancel()
            self._stuck[job.worker] += 1
            self._restarted.add(job.worker)
            with suppress(Exception):  # of one without a nanny, the thread is lost, and the others work on
                self._client.restart_workers([job.worker], timeout=CONNECT_SECONDS)
            yield (
                job.slide,
                failed(job.slide, f"it took longer than {limit:g} s, the limit for one slide, and was ended"),
            )


def ask_all(client: Any, workers: Sequence[str]) -> None:
    """Ask workers, and their scheduler, which packages they would import and of which version.

    Raises:
        UsageError: one does not answer, lacks our packages, finds others of their names first, or has another version.
    """
    for name, found in _answers(client, _WHERE, workers).items():
        refuse_strangers(name, found)
    ours = saccade_version()
    for name, version in _answers(client, _VERSION, workers).items():
        if version != ours:
            raise UsageError(
                f"{name} has saccade {version} and this is {ours}: "
                f"install the same {DISTRIBUTION} on all machines and restart it"
            )


def refuse_strangers(name: str, found: Mapping[str, str | None]) -> None:
    """Refuse a process that would import something else than our packages, side by side as they are installed.

    Args:
        name: of the process, in words.
        found: the file that each package would be imported from, or None.

    Raises:
        UsageError: so it is.
    """
    if found["saccade"] is None:
        raise UsageError(
            f"{name} cannot import saccade: install {DISTRIBUTION} {saccade_version()} there and restart it"
        )
    home = PurePath(found["saccade"]).parent.parent
    for package in ("pipeline", "stages"):
        origin = found[package]
        if origin is None:
            raise UsageError(f"{name} has no {home / package}: install {DISTRIBUTION} again there and restart it")
        if PurePath(origin).parent.parent != home:
            raise UsageError(
                f"{name} would import {origin} in place of saccade's own {home / package}: "
                "rename that, or start it in another folder"
            )


def _answers(client: Any, question: str, workers: Sequence[str]) -> dict[str, Any]:
    """What each worker and the scheduler say to a Python expression, by what they are."""
    options = {"workers": list(workers), "on_error": "return", "callback_timeout": WAIT_SECONDS}
    try:
        told = client.sync(client.run, eval, question, **options)
        answers = {f"the worker {address}": answer for address, answer in told.items()}
        scheduler = client.sync(client.run_on_scheduler, eval, question, callback_timeout=WAIT_SECONDS)
    except TimeoutError as exc:
        raise UsageError(
            f"the workers at {client.scheduler.address} do not answer within {WAIT_SECONDS:g} s: restart them"
        ) from exc
    answers[f"the scheduler {client.scheduler.address}"] = scheduler
    for name, answer in answers.items():
        if isinstance(answer, BaseException):
            raise UsageError(f"{name} cannot run saccade: {type(answer).__name__}: {answer}; restart it")
    return answers


def _refuse_no_scheduler(address: str) -> None:
    """Say in one line what is wrong with an address; asked before there is a client, which would go on trying."""
    try:
        what = _identity(address, CONNECT_SECONDS)
    except (MemoryError, EOFError) as exc:  # lengths that are none
        raise UsageError(f"what answers at {address} is no dask scheduler: correct the address") from exc
    except Exception as exc:
        reason = " ".join(str(exc).split()) or type(exc).__name__
        raise UsageError(f"no dask scheduler answers at {address}: {reason}") from exc
    if what != "Scheduler":
        raise UsageError(f"what answers at {address} is no dask scheduler, but a {what.lower()}: correct the address")


def _comes_back(address: str) -> bool:
    """Whether a scheduler is there again in time."""
    until = time.monotonic() + BACK_SECONDS
    while time.monotonic() < until:
        with suppress(Exception):
            if _identity(address, min(CONNECT_SECONDS, BACK_SECONDS)) == "Scheduler":
                return True
        time.sleep(LOOK_SECONDS / 4)
    return False


def _identity(address: str, seconds: float) -> str:
    """What a dask process says that it is; asked in a thread of its own, as a notebook's has a loop already."""
    from distributed.core import rpc
    from distributed.security import Security

    async def ask() -> str:
        security = Security().get_connection_args("client")
        async with rpc(address, timeout=seconds, connection_args=security) as there:
            return str((await asyncio.wait_for(there.identity(), seconds))["type"])

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, ask()).result()


@contextmanager
def _client(address: str) -> Iterator[Any]:
    from distributed import Client

    logs = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    levels = [log.level for log in logs]
    for log in logs:  # what it tells of lost connections is told here, in words
        log.setLevel(logging.CRITICAL + 1)
    try:
        try:
            # not the default: one that fails to connect would stay it, and all that dask computes later would wait
            client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except Exception as exc:
            raise UsageError(f"no dask scheduler answers at {address}: {exc}") from exc
        try:
            yield client
        finally:
            with suppress(Exception):  # it may have nobody to say goodbye to
                client.close(timeout=2.0)
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def failed(slide: CohortSlide, error: str) -> dict[str, Any]:
    """The row of a slide whose task ended without one."""
    return {"slide_id": slide.slide_id, "path": str(slide.path), "status": "failed", "error": error}
