"""Processes that need not import what they need: each is forked off one that has.

As a script it takes what to begin with, then a job a line, JSON, and answers each with the exit code.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

LIMIT = 300
"""Seconds that a command may take."""
EVERYTHING = "import_everything()"
COMMAND = "import runpy; runpy.run_module('pipeline.cli', run_name='__main__', alter_sys=True)"


def run_warm(
    begun: str, code: str, arguments: list[str], *, cwd: Path | None = None, limit: int = LIMIT
) -> subprocess.CompletedProcess[str]:
    """As `python -c code`, with these arguments and today's environment, in a process that has ``begun``: what it
    writes and its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        job = {"code": code, "arguments": arguments, "cwd": str(cwd or Path.cwd()), "environment": dict(os.environ)}
        job |= {"out": str(out), "err": str(err), "limit": limit}
        parent = _parent(begun)
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(f"{json.dumps(job)}\n")
        parent.stdin.flush()
        exited = int(parent.stdout.readline())
        return subprocess.CompletedProcess(arguments, exited, out.read_text("utf-8"), err.read_text("utf-8"))


@cache
def _parent(begun: str) -> subprocess.Popen[str]:
    """One for all that begin so; it ends as its input does."""
    # as the command itself sets it, before torch is imported
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONIOENCODING": "utf-8"}
    parent = subprocess.Popen(
        [sys.executable, __file__, begun], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    atexit.register(parent.communicate)
    return parent


def import_everything() -> None:
    for name in ("stages", "pipeline", "saccade"):
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith("__main__"):
                with suppress(ImportError):  # as the command may meet it, too
                    importlib.import_module(module.name)


def _become(job: dict[str, Any]) -> None:
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["environment"])
    written = os.O_WRONLY | os.O_CREAT
    for path, how, descriptor in ((os.devnull, os.O_RDONLY, 0), (job["out"], written, 1), (job["err"], written, 2)):
        os.dup2(os.open(path, how), descriptor)
    signal.alarm(job["limit"])
    sys.argv[1:] = job["arguments"]
    sys.path[0] = job["cwd"]
    exec(job["code"], {"__name__": "__main__"})


def main() -> None:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    exec(sys.argv[1], globals())
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(json.loads(line))
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
