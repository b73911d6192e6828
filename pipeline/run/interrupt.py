"""What ends a batch early: Ctrl-C, once, and what is in flight is finished, twice, and it stops at once; a failure."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stages.amounts import counted

SAID = "interrupted: finishing the slides that are being worked on; Ctrl-C again stops at once"


class Stop(threading.Event):
    """Set once no more slides are to be begun.

    Attributes:
        failure: name and error of the slide that it was set for; None where it was set for none.
    """

    failure: tuple[str, str] | None = None

    def at(self, slide_id: str, error: str) -> None:
        """Begin no more because a slide failed, unless that is so already."""
        if not self.is_set():
            self.failure = slide_id, error
            self.set()

    def fast(self, left: int) -> str:
        """What is told of an end at the first failure, with so many slides not tried."""
        failure = ": ".join(self.failure or ())
        return f"stopped at the first failure, {failure} (--fail-fast: {counted(left, 'slide')} not tried)"


@contextmanager
def finishing() -> Iterator[Stop]:
    """Yield an event that the first Ctrl-C sets, where the second one raises `KeyboardInterrupt` as ever.

    Only the main thread hears of Ctrl-C; in others, and where a program handles it in a way of its own, the event is
    never set.
    """
    event = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield event
        return

    def first(number: int, frame: Any) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)
        print(SAID, file=sys.stderr, flush=True)

    signal.signal(signal.SIGINT, first)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
