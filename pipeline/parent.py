"""What a process does that this program started: it leaves signals to its parent, and does not outlive it."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress


def heed_parent() -> None:
    """Ignore what is sent to a whole group of processes, which the parent is told, too, and which says when to stop;
    and end when the parent is gone, also from the middle of what would never end."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        with suppress(ValueError, AttributeError):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        pause = threading.Event()
        while os.getppid() == parent:
            pause.wait(2.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
