"""How far a command is, as a terminal shows it and as a file gets it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

from makers import ROOT

TOLD = r"""
import time
from pipeline.progress import Progress
with Progress("predicting") as progress:
    progress.within("a: at work")
    progress.within("a: b\x1b]0;title\x07: at work")
    time.sleep(0.4)
    progress(1, 2, "a: b\x1b]0;title\x07: done")
    time.sleep(0.4)
    print("HERE", flush=True)
    time.sleep(0.4)
    progress(2, 2, "a: done")
"""


def test_a_terminal_shows_totals_and_a_line_for_each_slide_that_is_worked_on() -> None:
    """With how long it takes, until that slide is done, and names give the terminal no orders."""
    controller, terminal = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80"}
    running = subprocess.Popen([sys.executable, "-c", TOLD], stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(controller, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(controller)
    assert running.wait() == 0
    text = shown.decode()
    assert "\x1b]0;" not in text
    both, _, rest = text.partition("HERE")
    frames = re.findall(r"predicting .*?/2.*?(?=predicting|$)", both, re.DOTALL)
    assert any("a: at work, 0:00" in frame and "title\\x07: at work" in frame for frame in frames)
    assert "a: b\\x1b]0;title\\x07: done" in both
    assert "1/2" in rest
    assert "a: at work" in rest
    assert "title\\x07: at work" not in rest
