"""What worker processes of tests do; light, as each of them imports it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from pipeline.run.process import memory_share


def work(slide: Any) -> dict[str, Any]:
    """What a slide's name asks for, after what stands before it: a file that tells the worker from its second try."""
    folder, name = os.path.split(slide.slide_id)
    if name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "hang":
        time.sleep(1000)
    if name == "raise":
        raise RuntimeError("of its\nown")
    if name == "end worker once" and not os.path.exists(f"{folder}/ended"):
        Path(folder, "ended").touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1000)
    while name == "wait" and not os.path.exists(f"{folder}/go"):
        time.sleep(0.05)
    who = {"pid": os.getpid(), "worker": os.getppid(), "may": memory_share()}
    return {"slide_id": slide.slide_id, "status": "ok", **who}


def die_on_cut(slide: Any) -> dict[str, Any]:
    """End the process at the slide of that name, as a decoder's crash does."""
    if slide.slide_id == "cut":
        os._exit(11)
    return {"slide_id": slide.slide_id, "status": "ok"}


def pause_above(fraction: float, dask_worker: Any = None) -> None:
    """Have a dask worker take no more work while it holds more than this of its memory."""
    dask_worker.memory_manager.memory_pause_fraction = fraction


def lacks(why: str) -> str | None:
    """What keeps a worker from its work."""
    return why or None
