"""How far a command is, on stderr: on a terminal totals, time left and a line for each slide that is being worked on;
where nobody watches, lines with the time."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from pipeline.errors import printable

QUIET_SECONDS = 30
"""Between lines about slides that are being worked on, where nobody watches."""


class Progress:
    """Shows how far a command is; safe to be told by several threads.

    Args:
        verb: what is done to slides, as "predicting".
    """

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._bar: Any = None
        self._told = time.monotonic()
        self._lock = threading.Lock()
        self._active: dict[str, tuple[float, str]] = {}

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            console = Console(stderr=True)
            self._bar = Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
            self._task = self._bar.add_task(self._verb, total=None)
            self._live = Live(get_renderable=self._shown, console=console)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._active.clear()
            self._live.stop()

    def within(self, line: str) -> None:
        """How far a slide is that is being worked on, its name and ": " first; where nobody watches, now and then."""
        if self._bar is not None:
            name, _, words = line.rpartition(": ")
            with self._lock:
                since, _ = self._active.get(name, (time.monotonic(), ""))
                self._active[name] = (since, words)
        elif time.monotonic() - self._told >= QUIET_SECONDS:
            self._told = time.monotonic()
            self._say(f"  {line}")

    def __call__(self, done: int, total: int, line: str | None) -> None:
        """``done`` of ``total`` slides are finished; ``line`` tells of the last one, if there is anything to tell."""
        if self._bar is None:
            if line:
                self._say(f"[{done}/{total}] {line}")
            return
        self._bar.update(self._task, completed=done, total=total)
        if line:
            with self._lock:  # a name may be the beginning of another's
                ended = [name for name in self._active if line.startswith(f"{name}: ")]
                self._active.pop(max(ended, key=len, default=""), None)
            self._bar.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

    def _shown(self) -> Any:
        """Totals, and a line for each slide that is being worked on."""
        from rich.console import Group
        from rich.text import Text

        now = time.monotonic()
        with self._lock:
            active = list(self._active.items())
        lines = [f"  {name}: {words}, {_clock(now - since)}" for name, (since, words) in active]
        return Group(self._bar, *(Text(printable(line), no_wrap=True, overflow="ellipsis") for line in lines))

    def _say(self, line: str) -> None:
        from pipeline.output.log import stamped  # not needed for help

        print(stamped(line), file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
