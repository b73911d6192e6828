"""Real dask schedulers and workers, each a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from distributed import Client
from makers import ROOT

LIMIT = 1_500_000_000
"""Of a worker's memory, where nothing else is said."""
LOOPBACK = ("--host", "127.0.0.1", "--no-dashboard")


@contextmanager
def dask(*command: str, cwd: Path, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """A dask command in a folder that is first on its path, as `python -m` and notebooks have it."""
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": paths, **(environment or {})}
    with (cwd / "log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "dask", *command], cwd=cwd, env=environment, stderr=log)
    try:
        yield
    finally:
        process.terminate()  # a nanny ends its worker
        try:
            process.wait(timeout=2)  # it would wait for its job
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def scheduler_in(cwd: Path, port: int = 0, *options: str) -> Iterator[str]:
    """A scheduler's address, which its scheduler.json tells, too."""
    file = cwd / "scheduler.json"
    file.unlink(missing_ok=True)
    where = (*LOOPBACK, "--port", str(port), "--dashboard-address", "127.0.0.1:0", *options)
    with dask("scheduler", *where, "--scheduler-file", str(file), cwd=cwd):
        for _ in range(600):
            if file.exists() and file.read_text().endswith("}"):
                yield str(json.loads(file.read_text())["address"])
                return
            time.sleep(0.1)
        raise TimeoutError((cwd / "log").read_text())


@contextmanager
def worker(scheduler: str, cwd: Path, *options: str, nanny: bool = False) -> Iterator[None]:
    """A worker that joins a scheduler; gone from it afterwards."""
    more = (*LOOPBACK, "--nthreads", "1", "--memory-limit", str(LIMIT), "--nanny" if nanny else "--no-nanny", *options)
    with Client(scheduler, set_as_default=False) as client:
        others = set(client.nthreads())
        with dask("worker", scheduler, *more, cwd=cwd):
            while not set(client.nthreads()) - others:
                time.sleep(0.05)
            yield
        while set(client.nthreads()) - others:
            time.sleep(0.05)
