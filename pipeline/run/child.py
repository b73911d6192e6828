"""A process that does jobs for this one, one at a time: what crashes or never ends takes it along, and nothing else."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.errors import unforeseen
from pipeline.run.process import START, send, take

TRIES = 2
"""Times that a job is tried whose process dies: what happened once may have been another's doing."""
START_SECONDS = 900.0
"""A process may take so long until it has imported what a job needs: on a busy machine, or from a slow disk, that takes
longer than many a job, and says nothing of it."""
BURIAL_SECONDS = 5.0
"""For a killed process to be gone: one that reads from a dead mount is not."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended.

    Attributes:
        answer: what its task returned; None where it did not.
        why: in words, where it did not: a crash with its signal, the time limit, an error.
        died: whether its process died, so that another try may do.
        seconds: that it took, since its process had imported what it needs.
    """

    answer: Any = None
    why: str | None = None
    died: bool = False
    seconds: float = 0.0


def twice(why: str) -> str:
    """What is told of a job whose process died each time, and what to do about it."""
    remedy = (
        "give it more memory, or run with fewer --workers"
        if "SIGKILL" in why
        else "copy or export its file anew; `saccade info` tells whether it can be read"
    )
    return f"{why}, twice: {remedy}"


class Child:
    """The process; it is started for the first job, and anew for the one after a death."""

    def __init__(
        self, said: Callable[[str], None] = lambda line: None, *, cores: int = 1, memory: int | None = None
    ) -> None:
        """Args:
        said: told how far jobs are, by the thread that gave them.
        cores: that are its own, where OMP_NUM_THREADS says nothing else.
        memory: bytes that it may take where its jobs say nothing else; None: any.
        """
        self._said, self._cores, self._memory = said, cores, memory
        self._killed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def do(self, job: bytes, *, limit: float) -> Outcome:
        """Do a job, as `pipeline.run.process.packed`, for so many seconds at most since its process began it or last
        told how far it is."""
        started, began = time.monotonic(), False
        try:
            process = self._ready()
            assert process.stdin is not None
            send(process.stdin, job)
            while True:
                kind, answer = self._answers.get(timeout=limit if began else START_SECONDS)
                if kind == "began":
                    started, began = time.monotonic(), True
                elif kind == "said":
                    self._said(answer)
                else:
                    break
        except queue.Empty:
            self.close()
            if not began:
                return Outcome(
                    why=f"no process to work on it was ready within {_seconds(START_SECONDS)}: try again later"
                )
            over = f"it took longer than {_seconds(limit)}, the limit for one slide, and was ended"
            return Outcome(why=f"{over}: give it longer with --limit")
        except OSError:  # it died before the job reached it
            kind, answer = "died", None
        if kind == "done":
            return Outcome(answer, seconds=time.monotonic() - started)
        if kind == "raised":
            name, words, _ = answer
            return Outcome(why=unforeseen(name, words))
        return Outcome(why=f"its process died ({_death(self.close())})", died=True)

    def kill(self) -> None:
        """End it for good, in the middle of its job; by another thread, and the one that waits for the job hears of
        it."""
        self._killed = True  # also where that thread is just starting it
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> int:
        """End it, and return its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.kill()
        code = -signal.SIGKILL
        with suppress(subprocess.TimeoutExpired):  # the system ends it when its disk answers; nobody waits for that
            code = process.wait(BURIAL_SECONDS)
        self._listener.join(BURIAL_SECONDS)
        with suppress(OSError):  # what was not sent is of no use any more
            assert process.stdin is not None
            process.stdin.close()
        return code

    def _ready(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            environment = dict(os.environ)
            # only torch would take all of them
            environment.setdefault("OMP_NUM_THREADS", str(max(1, self._cores)))
            environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
            command = [sys.executable, "-c", START.format(path=sys.path, memory=self._memory)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, close_fds=True
            )
            self._answers = queue.SimpleQueue()
            self._listener = threading.Thread(target=_listen, args=(self._process, self._answers), daemon=True)
            self._listener.start()
            if self._killed:
                self._process.kill()
        return self._process


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
