"""Worker processes of this machine: a job that crashes or never ends takes its process with it, and nothing else."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.run.process import START, put, take

SURE_SECONDS = 600.0
"""A job may take so long at least, whatever the others took."""
TIMES_TYPICAL = 20.0
"""... and so many times what is typical of those that are done."""
FIRST_SECONDS = 3600.0
"""... and so long while fewer than `KNOWN` are done."""
START_SECONDS = 900.0
"""A process may take so long until it has imported what a job needs: on a busy machine, or from a slow disk, that takes
longer than many a job, and says nothing of it."""
KNOWN = 3
TRIES = 2
"""Times that a job is tried whose process dies: what happened once may have been another's doing."""


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
) -> Iterator[Ended]:
    """Run ``task(*job)`` for every job on ``count`` processes and yield how each ended, as it does.

    A process lives for as many jobs as it survives. Where it dies, its job is tried once more, in a new one; where a
    job takes longer than the limit, its process is killed and the job is not tried again.

    Args:
        task: known to the workers by its name.
        jobs: its arguments, which pickle.
        count: processes.
        limit: seconds for each job, since its process last told how far it is; None: by what the others took, see
            `Limit`.
        stop: once set, no more jobs are begun; those in flight are finished.
        said: told how far jobs are, by threads.
    """
    waiting: queue.SimpleQueue[tuple[tuple[Any, ...], int]] = queue.SimpleQueue()
    total = 0
    for job in jobs:
        waiting.put((job, 1))
        total += 1
    finished: queue.SimpleQueue[Ended | None] = queue.SimpleQueue()
    allowed, over = Limit(limit), threading.Event()
    enough = (over,) if stop is None else (over, stop)
    hands = [
        _Hand(task, waiting, finished, allowed, enough, said or (lambda line: None), share=count)
        for _ in range(min(count, total))
    ]
    try:
        for hand in hands:
            hand.start()
        idle = 0
        while idle < len(hands):
            ended = finished.get()
            if ended is None:
                idle += 1
            else:
                yield ended
    finally:  # also where nobody wants the rest
        over.set()
        for hand in hands:
            hand.end()


class _Hand(threading.Thread):
    """One process and who gives it jobs."""

    def __init__(
        self,
        task: Callable[..., Any],
        waiting: queue.SimpleQueue[tuple[tuple[Any, ...], int]],
        finished: queue.SimpleQueue[Ended | None],
        limit: Limit,
        enough: Sequence[threading.Event],
        said: Callable[[str], None],
        *,
        share: int,
    ) -> None:
        super().__init__(daemon=True)
        self._task, self._waiting, self._finished = task, waiting, finished
        self._limit, self._enough, self._said = limit, enough, said
        self._share = share
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(self) -> None:
        try:
            while not self._stopped():
                try:
                    job, tries = self._waiting.get_nowait()
                except queue.Empty:
                    break
                ended = self._try(job, last=tries == TRIES)
                if ended is None:
                    self._waiting.put((job, tries + 1))
                else:
                    self._finished.put(ended)
        finally:
            if self._process is not None:
                self._buried()
            self._finished.put(None)

    def _stopped(self) -> bool:
        return any(event.is_set() for event in self._enough)

    def end(self) -> None:
        """End the process, whatever it is doing; by another thread."""
        process = self._process
        if process is not None:
            process.kill()  # and the thread hears of it
        self.join()

    def _try(self, job: tuple[Any, ...], *, last: bool) -> Ended | None:
        """How it ended; None: its process died, and it is worth another try."""
        limit, started, waits = self._limit.seconds, time.monotonic(), START_SECONDS
        try:
            process = self._ready()
            assert process.stdin is not None
            put(process.stdin, (self._task, job))
            while True:
                kind, answer = self._answers.get(timeout=waits)
                if kind == "began":
                    started, waits = time.monotonic(), limit
                elif kind == "said":
                    self._said(answer)
                else:
                    break
        except queue.Empty:
            self._buried()
            if waits != limit:
                return Ended(job, why=f"no process to work on it was ready within {_seconds(waits)}: try again later")
            return Ended(job, why=f"it took longer than {_seconds(limit)}, the limit for one slide, and was ended")
        except OSError:  # it died before the job reached it
            kind, answer = "died", None
        if kind == "done":
            self._limit.told(time.monotonic() - started)
            return Ended(job, answer)
        if kind == "raised":
            name, words, _ = answer
            return Ended(job, why=f"unexpected {name}: {words}")
        code = self._buried()
        if self._stopped():
            return Ended(job, why="the run was stopped")
        return Ended(job, why=f"its process died ({_death(code)}), twice") if last else None

    def _ready(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            environment = dict(os.environ)
            cores = str(max(1, (os.cpu_count() or 1) // self._share))
            environment.setdefault("OMP_NUM_THREADS", cores)  # only torch would take all of them
            environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
            command = [sys.executable, "-c", START.format(path=sys.path)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, close_fds=True
            )
            self._answers = queue.SimpleQueue()
            self._listener = threading.Thread(target=_listen, args=(self._process, self._answers), daemon=True)
            self._listener.start()
        return self._process

    def _buried(self) -> int:
        process, self._process = self._process, None
        assert process is not None
        process.kill()
        code = process.wait()
        self._listener.join()
        with suppress(OSError):  # what was not sent is of no use any more
            assert process.stdin is not None
            process.stdin.close()
        return code


def _listen(process: subprocess.Popen[bytes], answers: queue.SimpleQueue[Any]) -> None:
    assert process.stdout is not None
    with process.stdout:
        try:
            while True:
                answers.put(take(process.stdout))
        except (EOFError, OSError):
            answers.put(("died", None))


def _death(code: int) -> str:
    """What an exit code says."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in {one.value for one in signal.Signals} else f"signal {-code}"
    crash = {
        "SIGSEGV": "a crash in the file's decoder",
        "SIGABRT": "a crash in a library",
        "SIGBUS": "a crash, or the file was cut short while it was read",
    }
    killed = {"SIGKILL": "killed, as the system does where memory is short"}
    said = crash.get(name) or killed.get(name)
    return f"{name}: {said}" if said else name


def _seconds(value: float) -> str:
    return f"{value:g} s" if value < 120 else f"{value / 60:.3g} minutes"
