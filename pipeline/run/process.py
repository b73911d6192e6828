"""What a worker process runs: jobs that come down a pipe, one at a time, and answers that go up another.

It is an interpreter of its own, started with the path that the parent imports from: a script needs no
``if __name__ == "__main__"``, a folder of our packages' names in the working directory hides nothing, and there is no
port that anybody could listen on. What libraries print goes where the parent's errors go.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any

from pipeline.garbage import alone
from pipeline.parent import heed_parent
from stages.disk import FULL

LENGTH = struct.Struct("<Q")
START = "import sys; sys.path[:] = {path!r}; from pipeline.run.process import main; main({memory!r})"


def packed(task: Callable[..., Any], job: tuple[Any, ...]) -> bytes:
    """A job as it travels: who only hands it on has not to import what it is about."""
    return pickle.dumps((task, job))


def put(stream: IO[bytes], message: Any) -> None:
    """Send a message."""
    send(stream, pickle.dumps(message))


def send(stream: IO[bytes], frame: bytes) -> None:
    """Send a message that is pickled already, such as a job."""
    stream.write(LENGTH.pack(len(frame)) + frame)
    stream.flush()


def take(stream: IO[bytes]) -> Any:
    """The next message.

    Raises:
        EOFError: the other end is gone.
    """
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    frame = stream.read(LENGTH.unpack(head)[0])
    try:
        return pickle.loads(frame)  # of our own child or parent
    except pickle.UnpicklingError as exc:  # cut off
        raise EOFError from exc


_tell: Callable[[str], None] | None = None


def alive(line: str) -> None:
    """Tell whoever gave the job, in this process or in its parent, how far it is: it is not ended while it tells."""
    if _tell is not None:
        _tell(line)


@contextmanager
def telling(listener: Callable[[str], None] | None) -> Iterator[Callable[[str], None] | None]:
    """Have jobs of this process tell a listener, and yield it, so that those of others may, too."""
    global _tell
    before, _tell = _tell, listener
    try:
        yield listener
    finally:
        _tell = before


_memory: int | None = None


def memory_share() -> int | None:
    """Bytes that this process may take by whoever started it; None: nobody said."""
    return _memory


def main(memory: int | None) -> None:
    """Work until nobody gives jobs any more; ``memory`` is for `memory_share`."""
    global _memory, _tell
    _memory = memory
    answers = os.fdopen(os.dup(1), "wb")
    _tell = partial(_say, answers)
    os.dup2(2, 1)  # whatever prints must not disturb the answers
    heed_parent()
    alone()
    jobs = sys.stdin.buffer
    while True:
        try:
            task, job = take(jobs)
            put(answers, ("began", None))  # all that the job needs is imported, which is no part of it
        except (EOFError, OSError):
            return
        try:
            answer = ("done", task(*job))
        except BaseException as exc:  # what it was is told; the next job may do
            full = isinstance(exc, OSError) and exc.errno in FULL
            answer = ("raised", (type(exc).__name__, " ".join(str(exc).split()), full))
        try:
            put(answers, answer)
        except OSError:
            return


def _say(stream: IO[bytes], line: str) -> None:
    put(stream, ("said", line))
