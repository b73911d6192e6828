"""One task a slide: in this process, on worker processes, or on any dask scheduler by address."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from queue import Empty, SimpleQueue
from typing import Any

from pipeline.cohort.table import CohortSlide
from pipeline.errors import UsageError
from pipeline.run.pool import each_in_processes
from pipeline.version import DISTRIBUTION, saccade_version

WAIT_SECONDS = 30.0
"""For a first worker, for the workers' answers, and for another one where none is left."""
CONNECT_SECONDS = 10.0
"""For a scheduler's answer to the first word."""
LOOK_SECONDS = 1.0
"""Between looks at which workers there are, while all are at work."""
MOST_SUITED, WORKER_BYTES = 8, 3 * 2**29
"""Workers at most where nobody says how many, and memory that one may come to."""


def suited(slides: int, *, device: str) -> int:
    """How many workers suit so many slides on this machine: as many as there are cores and memory for, 0 for one slide,
    which is worked on in this process, and 1 where a GPU computes."""
    if slides < 2:
        return 0
    if device.startswith(("cuda", "mps")):
        return 1
    memory = _available_bytes()
    room = MOST_SUITED if memory is None else max(1, memory // WORKER_BYTES)
    return min(slides, os.cpu_count() or 1, MOST_SUITED, room)


def _available_bytes() -> int | None:
    """Memory that is free to take; None where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


# Asked as text: a function of ours could not even be received where our packages are not the ones that Python finds.
_WHERE = (
    "{name: getattr(__import__('importlib.util').util.find_spec(name), 'origin', None) "
    "for name in ('saccade', 'pipeline', 'stages')}"
)
_VERSION = "__import__('pipeline.version').version.saccade_version()"


def each(
    task: Callable[..., dict[str, Any]],
    jobs: Sequence[tuple[Any, ...]],
    *,
    workers: int,
    scheduler: str | None,
    limit: float | None = None,
    stop: threading.Event | None = None,
    said: Callable[[str], None] | None = None,
) -> Iterator[tuple[CohortSlide, dict[str, Any]]]:
    """Run ``task(*job)`` for every job and yield (job's slide, its row) as each finishes.

    In this process one by one (``workers`` of 0); on processes of this machine (`pipeline.run.pool`), where what
    crashes or takes longer than the ``limit`` takes only its own slide with it; or on a dask scheduler's workers.
    There, no more jobs are handed out than there are threads to work on them, and where no worker is left for
    `WAIT_SECONDS`, the slides that are not done fail.

    Raises:
        UsageError: no scheduler answers, it has no worker, or one that cannot run our code; also while the jobs run,
            where such a worker joins: nothing else would ever be heard of a job that it gets.
    """
    stop = stop or threading.Event()
    if scheduler is None:
        yield from _here(task, jobs, workers, limit, stop, said)
        return
    with _client(scheduler) as client:
        watch = _Watch(client)
        watch.look()
        waiting = iter(jobs)
        slides: dict[str, CohortSlide] = {}
        finished: SimpleQueue[Any] = SimpleQueue()

        def hand_out() -> None:
            job = None if stop.is_set() else next(waiting, None)
            if job is not None:
                future = client.submit(task, *job, pure=False)
                slides[future.key] = job[0]
                future.add_done_callback(finished.put)

        for _ in range(max(1, sum(client.nthreads().values()))):
            hand_out()
        while slides:
            try:
                future = finished.get(timeout=LOOK_SECONDS)
            except Empty:
                watch.look()
                if watch.alone() < WAIT_SECONDS:
                    continue
                break
            slide = slides.pop(future.key)
            yield slide, _row(slide, future)
            future.release()
            hand_out()
        for slide in [] if stop.is_set() else [*slides.values(), *(job[0] for job in waiting)]:
            yield slide, _failed(slide, "no worker is left: start some and run again, which goes on from here")


def _here(
    task: Callable[..., dict[str, Any]],
    jobs: Sequence[tuple[Any, ...]],
    workers: int,
    limit: float | None,
    stop: threading.Event,
    said: Callable[[str], None] | None,
) -> Iterator[tuple[CohortSlide, dict[str, Any]]]:
    """On this machine."""
    if workers == 0:
        for job in jobs:
            if stop.is_set():
                return
            yield job[0], task(*job)
        return
    for ended in each_in_processes(task, jobs, count=workers, limit=limit, stop=stop, said=said):
        slide = ended.job[0]
        yield slide, ended.answer if ended.why is None else _failed(slide, ended.why)


class _Watch:
    """Which workers there are, and whether they can run our code.

    Args:
        client: of their scheduler.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._known: set[str] = set()
        self._seen = time.monotonic()

    def look(self) -> None:
        """See which there are, and ask those that are new; refuses them as `refuse_strangers` does."""
        try:
            present = set(self._client.nthreads())
        except OSError:  # the scheduler is gone, for now
            present = set()
        if present:
            self._seen = time.monotonic()
        if new := sorted(present - self._known):
            ask_all(self._client, new)
        self._known |= present

    def alone(self) -> float:
        """Seconds since there was one."""
        return time.monotonic() - self._seen


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


@contextmanager
def _client(scheduler: str) -> Iterator[Any]:
    from distributed import Client

    try:
        # not the default: one that fails to connect would stay it, and all that dask computes later would wait
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as exc:  # TypeError: an encrypted one, without our certificates
        raise UsageError(f"no dask scheduler answers at {scheduler}: {exc}") from exc
    with client:
        try:
            client.wait_for_workers(1, timeout=WAIT_SECONDS)
        except TimeoutError as exc:
            raise UsageError(
                f"no worker has joined the scheduler {scheduler} within {WAIT_SECONDS:g} s: "
                f"start one with `dask worker {scheduler}`"
            ) from exc
        yield client


def _row(slide: CohortSlide, future: Any) -> dict[str, Any]:
    """The row of a slide whose task has ended, one way or the other."""
    if future.status == "finished":
        row: dict[str, Any] = future.result()
        return row
    if future.cancelled():
        return _failed(slide, "the scheduler forgot it: see its log, and run again, which goes on from here")
    exc = future.exception()
    if type(exc).__name__ == "KilledWorker":
        return _failed(
            slide, "its worker died (KilledWorker), and so did others that tried it; try it alone with --workers 1"
        )
    told = " ".join(str(exc).split())
    return _failed(slide, f"its worker could not do it ({type(exc).__name__}: {told}); see the worker's log")


def _failed(slide: CohortSlide, error: str) -> dict[str, Any]:
    """The row of a slide whose task ended without one."""
    return {"slide_id": slide.slide_id, "path": str(slide.path), "status": "failed", "error": error}
