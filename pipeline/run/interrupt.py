"""What ends a batch early: Ctrl-C, once, and what is in flight is finished, twice, and it stops at once; SIGTERM and
SIGHUP, and what is in flight has some seconds; a failure."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from stages.amounts import counted

SAID = "interrupted: finishing the slides that are being worked on; Ctrl-C again stops at once"
GRACE_SECONDS = 20.0
"""For what is in flight, once the process is told to end: batch systems kill it after 30 s."""
ENDING: tuple[signal.Signals, ...] = (
    (signal.SIGTERM, signal.SIGHUP) if hasattr(signal, "pthread_kill") else ()  # Windows has no such
)
"""What batch systems, containers, services and closed terminals send."""

_by: signal.Signals = signal.SIGINT


def exit_code() -> int:
    """Of a process that was interrupted, as shells have it: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + _by


@contextmanager
def interruptible() -> Iterator[None]:
    """Have SIGTERM and SIGHUP raise `KeyboardInterrupt`, as Ctrl-C does, instead of ending the process without a word;
    where somebody handles or ignores them, as nohup does, they stay as they are."""
    global _by
    _by = signal.SIGINT
    mine = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in mine:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: Any) -> None:
    _heard(number)
    raise KeyboardInterrupt(_by.name)


def _heard(number: int) -> None:
    global _by
    _by = signal.Signals(number)
    if _by != signal.SIGINT and _by.name == "SIGHUP":  # what is written to a terminal that is gone is an error
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (1, 2):
            if os.isatty(stream):
                os.dup2(nowhere, stream)
        os.close(nowhere)


class Stop(threading.Event):
    """Set once no more slides are to be begun.

    Attributes:
        failure: name and error of the slide that it was set for; None where it was set for none.
        by: name of the signal that it was set for, where that was not Ctrl-C.
    """

    failure: tuple[str, str] | None = None
    by: str | None = None

    def at(self, slide_id: str, error: str) -> None:
        """Begin no more because a slide failed, unless that is so already."""
        if not self.is_set():
            self.failure = slide_id, error
            self.set()

    def interrupt(self) -> KeyboardInterrupt:
        """What to raise in the end, where it was set for no failure."""
        return KeyboardInterrupt(*([] if self.by is None else [self.by]))

    def fast(self, left: int) -> str:
        """What is told of an end at the first failure, with so many slides not tried."""
        failure = ": ".join(self.failure or ())
        return f"stopped at the first failure, {failure} (--fail-fast: {counted(left, 'slide')} not tried)"


@contextmanager
def finishing(told: Callable[[str], None] = lambda line: None) -> Iterator[Stop]:
    """Yield an event that the first Ctrl-C sets, where the second one raises `KeyboardInterrupt` as ever; SIGTERM and
    SIGHUP set it, too, and raise that after `GRACE_SECONDS`.

    Only the main thread hears of them; in others, and where a program handles them in a way of its own, the event is
    never set.

    Args:
        told: of each, in a line, beside the terminal.
    """
    event = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    usual = {signal.SIGINT: (signal.default_int_handler,)} | dict.fromkeys(ENDING, (signal.SIG_DFL, _interrupt))
    before = {number: now for number, those in usual.items() if (now := signal.getsignal(number)) in those}
    over: list[threading.Timer] = []

    def say(line: str) -> None:
        told(line)
        with suppress(OSError):
            print(line, file=sys.stderr, flush=True)

    def first(number: int, frame: Any) -> None:
        _heard(number)
        event.set()
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        say(SAID)

    def end(number: int, frame: Any) -> None:
        if over:
            if over[0].finished.is_set():
                raise KeyboardInterrupt(_by.name)
            return  # a closed terminal may send it twice
        _heard(number)
        event.by = _by.name
        event.set()
        over.append(threading.Timer(GRACE_SECONDS, signal.pthread_kill, (threading.main_thread().ident, number)))
        over[0].daemon = True
        over[0].start()
        say(
            f"{_by.name}: finishing, for {GRACE_SECONDS:g} s at most, the slides that are being worked on; what is "
            "finished is kept, and the same command goes on from there"
        )

    for number in before:
        signal.signal(number, first if number == signal.SIGINT else end)
    try:
        yield event
    finally:
        for timer in over:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
