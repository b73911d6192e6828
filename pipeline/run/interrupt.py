"""Ctrl-C: once, and what is in flight is finished; twice, and it stops at once."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SAID = "interrupted: finishing the slides that are being worked on; Ctrl-C again stops at once"


@contextmanager
def finishing() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C sets, where the second one raises `KeyboardInterrupt` as ever.

    Only the main thread hears of Ctrl-C; in others, and where a program handles it in a way of its own, the event is
    never set.
    """
    event = threading.Event()
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
