"""The one error that means: wrong usage or configuration, nothing was started; and what is said of all others."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.disk import refusal
from stages.install import from_folder
from stages.passing import TOO_MANY_FILES

COMPUTING = ("torch", "torchmetrics", "lightning")
"""What all that computes with a model needs; the rest does without."""
_EXHAUSTED = (*TOO_MANY_FILES, errno.ENOMEM)


class UsageError(Exception):
    """Wrong usage or configuration, nothing started; exit code 2.

    The message is one line that says what was expected, what was found and what to do.
    """


@contextmanager
def computing() -> Iterator[None]:
    """Say what to install where a library is missing that models compute with; also a decorator."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name not in COMPUTING:
            raise
        raise UsageError(f"this computes with {exc.name}; it comes with Saccade: {from_folder()}") from exc


def printable(text: str) -> str:
    """A text with whatever a terminal would obey, or cannot show, written as an escape: names of files may hold it."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def stopped(exc: OSError) -> str:
    """Where the system let the work go no further, why, and what to do; of an error that names a file."""
    path = Path(os.fsdecode(exc.filename2 or exc.filename))
    unread = os.path.isfile(path) and not os.access(path, os.R_OK)
    return f"stopped at {path}: {refusal(exc, path, writing=not unread)}"


def of_file(where: object, exc: Exception) -> str:
    """What an error says of a file, which it names once."""
    return str(exc) if str(where) in str(exc) else f"{where}: {exc}"


def reason_of(exc: Exception) -> str:
    """Why a slide failed, in one line; what was not foreseen is called so, with its type."""
    if isinstance(exc, OSError) and exc.errno and exc.filename:
        return stopped(exc)
    words = " ".join(str(exc).split())
    foreseen = type(exc).__module__.startswith(("stages.", "pipeline.")) or type(exc) is ValueError
    if foreseen and words:
        return words
    return unforeseen("OSError" if isinstance(exc, OSError) else type(exc).__name__, words)


def unforeseen(name: str, words: str) -> str:
    """What is said of an error that nobody foresaw, by its type's name and its words, and what to do about those that
    come from outside."""
    if name == "MemoryError":
        return "there was not enough memory for it: run again with fewer --workers, or where there is more"
    if name == "KeyboardInterrupt":
        return "it was interrupted: run again, which goes on from here"
    if name == "OSError":
        return f"the system answered {words or 'with an error'}: look after its disk or network and run again"
    if not words:
        return f"unexpected {name}, which says no more: run again, and report it where it stays"
    return f"unexpected {name}: {words}"


def is_exhaustion(exc: BaseException) -> bool:
    """Whether the process ran out of memory or of open files: that is no slide's fault."""
    return isinstance(exc, MemoryError) or (isinstance(exc, OSError) and exc.errno in _EXHAUSTED)
