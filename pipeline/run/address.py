"""Where a dask scheduler is: at an address, or at the one that a scheduler file tells."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from stages.disk import read_regular, refusal

CONNECT_SECONDS = 10.0
"""For a scheduler's answer to the first word."""
BACK_SECONDS = 120.0
"""For a scheduler that is gone to be there again."""
PAUSE_SECONDS = 0.25
"""Between looks whether it is."""


def is_file(scheduler: str) -> bool:
    """Whether it is not an address, but a file with one, as ``dask scheduler --scheduler-file`` writes it."""
    return "://" not in scheduler and (scheduler.endswith(".json") or os.path.exists(scheduler))


def address_of(scheduler: str) -> str:
    """The address, which a file may tell, as it is now.

    Raises:
        FileNotFoundError: nobody has written the file.
        UsageError: it is another file, or what was given is neither a file nor an address.
    """
    if is_file(scheduler):
        try:
            return str(json.loads(read_regular(Path(scheduler)))["address"])
        except FileNotFoundError:
            raise
        except OSError as exc:
            raise UsageError(f"--scheduler {scheduler}: {refusal(exc, Path(scheduler), writing=False)}") from exc
        except (ValueError, KeyError, TypeError) as exc:
            raise UsageError(
                f"{scheduler} is no scheduler file: give the one of `dask scheduler --scheduler-file FILE`, or an "
                "address such as tcp://HOST:8786"
            ) from exc
    host, colon, port = scheduler.rpartition(":")
    if not colon or not port.isdigit() or not host.rpartition("/")[2]:
        raise UsageError(
            f"{scheduler!r} is no address of a scheduler: expected one such as tcp://HOST:8786, or the file of "
            "`dask scheduler --scheduler-file FILE`"
        )
    return scheduler


def find_scheduler(scheduler: str, *, wait: float, stop: threading.Event) -> str:
    """The address of a scheduler that answers; a file is waited for.

    Raises:
        UsageError: in one line what is wrong with it; asked before there is a client, which would go on trying.
    """
    until = time.monotonic() + wait
    while True:
        try:
            address = address_of(scheduler)
            break
        except FileNotFoundError as exc:
            if time.monotonic() > until or stop.is_set():
                raise UsageError(
                    f"no scheduler has written {scheduler} within {wait:g} s: start one with "
                    f"`dask scheduler --scheduler-file {scheduler}`"
                ) from exc
        stop.wait(PAUSE_SECONDS)
    _refuse_no_scheduler(address, scheduler)
    return address


def _refuse_no_scheduler(address: str, given: str) -> None:
    told = address if given == address else f"{address}, which {given} names"
    try:
        what = _identity(address, CONNECT_SECONDS)
    except (MemoryError, EOFError) as exc:  # lengths that are none
        raise UsageError(f"what answers at {told} is no dask scheduler: correct the address") from exc
    except Exception as exc:
        reason = " ".join(str(exc).split()) or type(exc).__name__
        raise UsageError(f"no dask scheduler answers at {told}: {reason}") from exc
    if what != "Scheduler":
        raise UsageError(f"what answers at {told} is no dask scheduler, but a {what.lower()}: correct the address")


def come_back(scheduler: str, *, stop: threading.Event) -> str | None:
    """The address of a scheduler that is there again, which its file may tell anew; None: it is not, in time."""
    until = time.monotonic() + BACK_SECONDS
    while time.monotonic() < until and not stop.is_set():
        with suppress(Exception):
            address = address_of(scheduler)
            if _identity(address, min(CONNECT_SECONDS, BACK_SECONDS)) == "Scheduler":
                return address
        stop.wait(PAUSE_SECONDS)
    return None


def _identity(address: str, seconds: float) -> str:
    """What a dask process says that it is; asked in a thread of its own, as a notebook's has a loop already."""
    from distributed.core import rpc
    from distributed.security import Security

    async def ask() -> str:
        security = Security().get_connection_args("client")
        async with rpc(address, timeout=seconds, connection_args=security) as there:
            return str((await asyncio.wait_for(there.identity(), seconds))["type"])

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, ask()).result()


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """A dask client, which says nothing of what it meets.

    Raises:
        UsageError: no scheduler answers.
    """
    from distributed import Client

    logs = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    levels = [log.level for log in logs]
    for log in logs:  # what it tells of lost connections is told here, in words
        log.setLevel(logging.CRITICAL + 1)
    try:
        try:
            # not the default: one that fails to connect would stay it, and all that dask computes later would wait
            client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except Exception as exc:
            raise UsageError(f"no dask scheduler answers at {address}: {exc}") from exc
        try:
            yield client
        finally:
            with suppress(Exception):  # it may have nobody to say goodbye to
                client.close(timeout=2.0)
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
