"""The server of a run: on loopback, behind a token that nobody can guess, and for reading only.

Slides and patches are asked for by number, so that no address names a file; every answer is drawn anew.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tornado.httpserver import HTTPServer
from tornado.web import Application

from pipeline.errors import UsageError
from pipeline.view.answers import (
    Asset,
    CohortPage,
    MorePatches,
    Nothing,
    Once,
    Overview,
    Patch,
    PatchSince,
    SlidePage,
    Tile,
)
from pipeline.view.viewer import Viewer

LOOPBACK = "127.0.0.1"
THREADS = min(8, 2 * (os.cpu_count() or 1))
"""Tiles that are read at a time."""


def listen(port: int | None) -> socket.socket:
    """A socket on loopback; at a free port where none is given.

    Raises:
        UsageError: the port is taken, or not for this user.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name != "nt":  # there it would let two listen at one port
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port or 0))
        listening.listen(128)
    except OSError as exc:
        listening.close()
        taken = exc.errno == errno.EADDRINUSE
        why = "is in use by another program" if taken else f"cannot be used ({exc.strerror})"
        raise UsageError(f"port {port} {why}: give another --port, or leave it out for a free one") from exc
    listening.setblocking(False)
    return listening


async def serve(viewer: Viewer, listening: socket.socket, began: Callable[[str, str], None]) -> None:
    """Answer until the task is cancelled.

    Args:
        viewer: what is shown.
        listening: see `listen`.
        began: told two addresses, once it answers: the one with the token, and one that leads to it a single time, for
            the command lines of browsers, which other users of the machine can read.
    """
    token = secrets.token_urlsafe(32)
    port = listening.getsockname()[1]
    with ThreadPoolExecutor(THREADS, thread_name_prefix="tiles") as pool:
        answers = application(viewer, token, port, pool)
        server = HTTPServer(answers, max_buffer_size=2**20)
        server.add_socket(listening)
        start = f"http://{LOOPBACK}:{port}"
        began(f"{start}/{token}/", f"{start}/once-{answers.settings['once'][0]}")
        try:
            await asyncio.Event().wait()
        finally:
            server.stop()
            await server.close_all_connections()
            viewer.more.close()
            pool.shutdown(wait=False, cancel_futures=True)


def application(viewer: Viewer, token: str, port: int, pool: ThreadPoolExecutor) -> Application:
    """All that is answered, each below ``/<token>``."""
    own = {"viewer": viewer, "token": token, "hosts": (f"{LOOPBACK}:{port}", f"localhost:{port}"), "pool": pool}
    other = own | {"viewer": viewer.beside}
    start, number = r"/([^/]+)/", r"(\d{1,9})"
    beside = f"{start}o/{number}"
    return Application(
        [
            (r"/once-([^/]+)", Once, own),
            (f"{start}", CohortPage, own),
            (f"{start}s/{number}/", SlidePage, own),
            (f"{start}s/{number}/tile/(\\d{{1,2}})/{number}/{number}\\.jpg", Tile, own),
            (f"{start}s/{number}/patch/{number}\\.jpg", Patch, own),
            (f"{start}s/{number}/(overview|thumbnail)\\.jpg", Overview, own),
            *(
                [
                    (f"{beside}/patch/{number}\\.jpg", Patch, other),
                    (f"{beside}/(overview|thumbnail)\\.jpg", Overview, other),
                ]
                if viewer.beside is not None
                else []
            ),
            (f"{start}s/{number}/more", MorePatches, own),
            (f"{start}s/{number}/more/{number}/{number}\\.jpg", PatchSince, own),
            (f"{start}asset/([a-z.]{{1,20}})", Asset, own),
        ],
        default_handler_class=Nothing,
        default_handler_args=own,
        log_function=lambda handler: None,
        once=[secrets.token_urlsafe(32)],
    )
