"""The other processes of a fit that several share: each is an interpreter of its own that is given what to do down a
pipe, and ends with the first one, which tells why where one of them ends early."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from pipeline.parent import heed_parent
from pipeline.train.share import ALONE, Share
from stages.disk import temporary_folder
from stages.heap import keep_freed

START = "import sys; sys.path[:] = {path!r}; from pipeline.train.processes import main; main()"
READY = b"ready\n"
END_SECONDS = 10.0
"""For one to end by itself, once the others are done or gone."""


@contextmanager
def sharing(size: int, act: Callable[..., None], *given: Any) -> Iterator[Share]:
    """Yield the first's share of what ``size`` processes do; in the others ``act(*given, share)`` has theirs.

    Raises:
        Exception: whatever one of the others ended by; MemoryError where it was killed.
    """
    if size == 1:
        yield ALONE
        return
    with temporary_folder() as folder:
        store = folder / "store"
        others = [_started(rank, size, store, act, given) for rank in range(1, size)]
        try:
            yield Share(0, size, store, partial(_await, others))
        except RuntimeError as exc:  # as torch says that another is gone
            why = _reason(others, END_SECONDS)
            if why is None:
                raise
            raise why from exc
        else:
            deadline = time.monotonic() + END_SECONDS
            for process in others:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            for process in others:
                process.kill()
            for process in others:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(END_SECONDS)
                if process.stdout is not None:
                    process.stdout.close()


def _started(
    rank: int, size: int, store: Path, act: Callable[..., None], given: Sequence[Any]
) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    process = subprocess.Popen(
        [sys.executable, "-c", START.format(path=sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        close_fds=True,
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:  # why it is gone is told where it is waited for
        process.stdin.write(pickle.dumps((act, given, (rank, size, store))))
    return process


def _await(others: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until all are ready."""
    for process in others:
        assert process.stdout is not None
        if process.stdout.readline() != READY:
            raise RuntimeError("a process of the training is gone")


def _reason(others: Sequence[subprocess.Popen[bytes]], seconds: float) -> BaseException | None:
    """What the first of them that failed ended by; None where none did within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for rank, process in enumerate(others, 1):
            code = process.poll()
            if code:
                assert process.stdout is not None
                told = process.stdout.read().removeprefix(READY)
                return _ended(rank, code, told)
        time.sleep(0.05)
    return None


def _ended(rank: int, code: int, told: bytes) -> BaseException:
    if told:
        found: BaseException = pickle.loads(told)  # of our own child
        return found
    name = signal.Signals(-code).name if -code in {one.value for one in signal.Signals} else f"exit code {code}"
    words = f"process {rank} of the training ended ({name})"
    return MemoryError(words) if name == "SIGKILL" else RuntimeError(words)


def main() -> None:
    """Do what is told by the one that started this process."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not disturb the answers
    heed_parent()
    keep_freed()
    try:
        act, given, (rank, size, store) = pickle.load(sys.stdin.buffer)
        act(*given, Share(rank, size, store, partial(_tell, answers, READY)))
    except BaseException as exc:
        exc.add_note("".join(traceback.format_exception(exc)))
        with suppress(OSError):
            _tell(answers, _portable(exc))
        os._exit(1)  # threads that still read have no one to read for
    os._exit(0)


def _tell(answers: IO[bytes], told: bytes) -> None:
    answers.write(told)
    answers.flush()


def _portable(exc: BaseException) -> bytes:
    """An error as it travels; in words, where it does not."""
    with suppress(Exception):
        told = pickle.dumps(exc)
        pickle.loads(told)
        return told
    return pickle.dumps(RuntimeError(" ".join(f"{type(exc).__name__}: {exc}".split())))
