"""The log of a command in its output folder: a line for each thing that happened, with the time, added at the end."""

from __future__ import annotations

import errno
import os
import platform
import re
import shlex
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from pipeline.errors import printable
from pipeline.output.run_record import versions
from stages.disk import refusal

_OURS = re.compile(rb"\d{4}-\d\d-\d\dT\S+ \[\d+\] ")


def stamped(line: str) -> str:
    """A line behind the time, as local clocks show it, with how far that is from UTC."""
    return f"{datetime.now().astimezone().isoformat(timespec='seconds')} {printable(line)}"


class Log:
    """Lines added to a file.

    A log is about the work and must not end it: what cannot be written is told once, and the work goes on. Several
    processes may add to one file; each line has its process's number.

    Attributes:
        last: what its last line will say, unless an error comes before.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file, self._told, self._torn = path, -1, False, False
        self.last = "all is done"
        # without O_NONBLOCK a pipe would be waited for until somebody reads it
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            self._file = os.open(path, flags, 0o666)
            regular = stat.S_ISREG(os.fstat(self._file).st_mode)
            start = os.read(self._file, 64) if regular else b""
        except OSError as exc:
            self._refused(refusal(exc, path, writing=True))
            return
        if not regular or (start and not _OURS.match(start)):
            self.close()
            self._refused("what is there is no log of ours, and stays as it is")

    def __call__(self, line: str) -> None:
        """Add a line."""
        if self._file < 0:
            return
        time, _, words = stamped(line).partition(" ")
        data = f"{chr(10) if self._torn else ''}{time} [{os.getpid()}] {words}\n".encode()
        try:
            written = os.write(self._file, data)
        except OSError as exc:
            self._refused(refusal(exc, self._path, writing=True))
            return
        self._torn = written < len(data)
        if self._torn:
            self._refused(refusal(OSError(errno.ENOSPC, ""), self._path, writing=True))

    def close(self) -> None:
        """Add nothing more."""
        with suppress(OSError):
            if self._file >= 0:
                os.close(self._file)
        self._file = -1

    def _refused(self, why: str) -> None:
        if not self._told:
            self._told = True
            print(printable(f"warning: {self._path} is not written: {why}"), file=sys.stderr, flush=True)


@contextmanager
def logging_to(path: Path, command: Sequence[str]) -> Iterator[Log]:
    """A log of what a command does in the block: when and how it began, with which versions, and how it ended."""
    log = Log(path)
    told = ", ".join(f"{name} {found}" for name, found in versions().items() if found is not None)
    log(f"started: {shlex.join(command)} (on {platform.node()}; {told})")
    try:
        yield log
    except KeyboardInterrupt as exc:
        log(f"ended: interrupted{f' by {exc}' if exc.args else ''}; the same command goes on from here")
        raise
    except BaseException as exc:
        log(f"ended: {type(exc).__name__}: {' '.join(str(exc).split())}")
        raise
    else:
        log(f"ended: {log.last}")
    finally:
        log.close()
