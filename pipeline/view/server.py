"""The server of a run: on loopback, behind a token that nobody can guess, and for reading only.

Slides and patches are asked for by number, so that no address names a file; every answer is drawn anew.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import io
import json
import math
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

from PIL import Image, ImageDraw
from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, RequestHandler

from pipeline.errors import UsageError
from pipeline.view.links import Links
from pipeline.view.more import MOST, Box
from pipeline.view.page import in_page, policy, refusal_page
from pipeline.view.run_folder import SlideRow
from pipeline.view.viewer import LARGE_PX, SMALL_PX, Viewer, asset
from stages.slide.facts import SlideError

LOOPBACK = "127.0.0.1"
THREADS = min(8, 2 * (os.cpu_count() or 1))
"""Tiles that are read at a time."""
ASKED_BYTES = 1000
"""Of a request for more, at most."""
TYPES = {".js": "text/javascript", ".css": "text/css"}

_T = TypeVar("_T")


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
            viewer.more.close()
            pool.shutdown(wait=False, cancel_futures=True)


def application(viewer: Viewer, token: str, port: int, pool: ThreadPoolExecutor) -> Application:
    """All that is answered, each below ``/<token>``."""
    own = {"viewer": viewer, "token": token, "hosts": (f"{LOOPBACK}:{port}", f"localhost:{port}"), "pool": pool}
    start, number = r"/([^/]+)/", r"(\d{1,9})"
    return Application(
        [
            (r"/once-([^/]+)", Once, own),
            (f"{start}", CohortPage, own),
            (f"{start}s/{number}/", SlidePage, own),
            (f"{start}s/{number}/tile/(\\d{{1,2}})/{number}/{number}\\.jpg", Tile, own),
            (f"{start}s/{number}/patch/{number}\\.jpg", Patch, own),
            (f"{start}s/{number}/(overview|thumbnail)\\.jpg", Overview, own),
            (f"{start}s/{number}/more", MorePatches, own),
            (f"{start}s/{number}/more/{number}/{number}\\.jpg", PatchSince, own),
            (f"{start}asset/([a-z.]{{1,20}})", Asset, own),
        ],
        default_handler_class=Nothing,
        default_handler_args=own,
        log_function=lambda handler: None,
        once=[secrets.token_urlsafe(32)],
    )


class Guarded(RequestHandler):
    """An answer to whoever has the token and came by this machine's own name."""

    SUPPORTED_METHODS: tuple[str, ...] = ("GET", "HEAD")

    def initialize(self, viewer: Viewer, token: str, hosts: tuple[str, ...], pool: ThreadPoolExecutor) -> None:
        """Values of `application`."""
        self.viewer, self.pool, self.gone = viewer, pool, False
        self._token, self._hosts = token, hosts

    def set_default_headers(self) -> None:
        """What keeps other pages out, and these pages to themselves."""
        self.clear_header("Server")
        self.set_header("Content-Security-Policy", policy(True))
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("Cross-Origin-Opener-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")

    def prepare(self) -> None:
        """Refuse names of other machines, under which a page from elsewhere might reach this one, and wrong tokens."""
        if self.request.headers.get("Host", "") not in self._hosts:
            raise HTTPError(403, reason="Foreign host")
        self.refuse_wrong_token()

    def refuse_wrong_token(self) -> None:
        """By a comparison whose time tells nothing."""
        given = self.request.path.split("/")[1]
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode()):
            raise HTTPError(403, reason="Wrong token")

    def on_connection_close(self) -> None:
        """Nobody waits for it any more: a tile that was scrolled past."""
        self.gone = True

    async def work(self, make: Callable[[], _T]) -> _T | None:
        """What ``make`` gives, in a thread; None where nobody waits for it by then."""
        found = await asyncio.get_running_loop().run_in_executor(self.pool, lambda: None if self.gone else make())
        return None if self.gone else found

    def slide(self, number: str) -> SlideRow:
        """The slide of a number in an address."""
        found = self.viewer.slide(int(number))
        if found is None:
            raise HTTPError(404)
        return found

    def picture(self, data: bytes, kind: str = "image/jpeg", *, kept: bool = True) -> None:
        """Answer with a picture, which the browser may keep for as long as this server runs."""
        self.set_header("Content-Type", kind)
        if kept:
            self.set_header("Cache-Control", "private, max-age=3600")
        self.finish(data)

    async def show(self, make: Callable[[], bytes | None], *, empty: bytes | None = None) -> None:
        """Answer with the JPEG that ``make`` gives, hatched where its pixels cannot be read; where there is none, with
        the PNG ``empty``, or that there is no such thing."""
        try:
            data = await self.work(make)
        except SlideError:
            self.set_status(500, "Damaged")
            self.picture(hatched(), "image/png", kept=False)
            return
        if self.gone:
            return
        if data is not None:
            self.picture(data)
        elif empty is not None:
            self.picture(empty, "image/png")
        else:
            raise HTTPError(404)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """One line, which says nothing of this machine."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code} {self._reason}\n")


class Nothing(Guarded):
    """What there is not."""

    def get(self, *_: str) -> None:
        """Not found."""
        raise HTTPError(404)

    head = get


class Once(Guarded):
    """The way in for a browser that this program starts: what its command line shows is of no use to anybody later."""

    def refuse_wrong_token(self) -> None:
        """There is no token in this address."""

    def get(self, given: str) -> None:
        """Lead to the page of all slides, a single time."""
        left: list[str] = self.settings["once"]
        if not left or not hmac.compare_digest(given.encode("utf-8", "replace"), left[0].encode()):
            raise HTTPError(403, reason="Wrong token")
        left.clear()
        self.redirect(f"/{self._token}/")


class CohortPage(Guarded):
    """All slides."""

    def get(self, _: str) -> None:
        """The page."""
        self.finish(self.viewer.cohort(Links(served=True)))

    head = get


class SlidePage(Guarded):
    """A slide."""

    async def get(self, _: str, number: str) -> None:
        """The page, or one that says why there is none."""
        slide, links = self.slide(number), Links(served=True, up="../../")
        of = self.get_query_argument("of", "")
        told = int(of) if of.isdecimal() and len(of) < 6 else None
        try:
            page = await self.work(lambda: self.viewer.page(slide, links, told=told))
        except UsageError as exc:
            self.set_status(404)
            page = refusal_page(slide.name, str(exc), links)
        if page is not None:
            self.finish(page)

    head = get


class Tile(Guarded):
    """A tile of a slide."""

    async def get(self, _: str, number: str, zoom: str, column: str, row: str) -> None:
        """The tile; clear where it holds nothing of the slide, hatched where it cannot be read."""
        slide = self.slide(number)
        await self.show(lambda: self.viewer.tile(slide.number, int(zoom), int(column), int(row)), empty=clear())

    head = get


class Patch(Guarded):
    """A patch that was read."""

    async def get(self, _: str, number: str, patch: str) -> None:
        """The patch at level 0."""
        slide = self.slide(number)
        await self.show(lambda: self.viewer.patch(slide, int(patch)))

    head = get


class PatchSince(Guarded):
    """A patch that was read since the run."""

    async def get(self, _: str, number: str, times: str, patch: str) -> None:
        """The patch at level 0."""
        slide = self.slide(number)
        await self.show(lambda: self.viewer.patch_since(slide, int(times), int(patch)))

    head = get


class MorePatches(Guarded):
    """More of a slide: to ask for it is the one thing that changes anything, and this only as long as the server runs.

    Pages from elsewhere cannot send such requests: they do not know the token, and browsers say where requests are
    from.
    """

    SUPPORTED_METHODS = ("GET", "POST", "DELETE")

    def prepare(self) -> None:
        """Refuse what was not asked for by a page of this server."""
        super().prepare()
        if self.request.method == "GET":
            return
        if self.request.headers.get("Origin") not in [f"http://{host}" for host in self._hosts]:
            raise HTTPError(403, reason="Foreign origin")
        if len(self.request.body) > ASKED_BYTES:
            raise HTTPError(413)

    async def get(self, _: str, number: str) -> None:
        """How it stands."""
        slide, of = self.slide(number), self.get_query_argument("of", "")
        told = int(of) if of.isdecimal() and len(of) < 6 else None
        state = await self.work(lambda: self.viewer.more_state(slide, told))
        if state is not None:
            self.answer(state)

    async def post(self, _: str, number: str) -> None:
        """Start to read a place: a JSON object of its ``box``, level-0 x, y, width and height, and of how many of its
        patches are read at ``most``."""
        slide = self.slide(number)
        box, most = _asked(self.request.body)
        try:
            await self.work(lambda: self.viewer.more.begin(slide, box, most))
        except UsageError as exc:
            self.set_status(409)
            self.answer({"error": str(exc)})
            return
        self.set_status(202)
        self.answer({})

    def delete(self, _: str, number: str) -> None:
        """End what goes on, else forget what was read since the run."""
        self.viewer.more.stop(self.slide(number))
        self.answer({})

    def answer(self, told: Mapping[str, Any]) -> None:
        """As JSON."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(in_page(told))


def _asked(body: bytes) -> tuple[Box, int]:
    """The box and how many of its patches; anything else is no request of ours."""
    try:
        told = json.loads(body)
        box, most = told["box"], told["most"]
        if type(box) is not list or type(most) is not int or not 1 <= most <= MOST:
            raise ValueError
        x, y, width, height = map(float, box)
        if not all(map(math.isfinite, (x, y, width, height))) or min(width, height) <= 0:
            raise ValueError
    except (ValueError, TypeError, KeyError, LookupError, RecursionError) as exc:
        raise HTTPError(400) from exc
    return (x, y, width, height), most


class Overview(Guarded):
    """The thumbnail of a slide."""

    async def get(self, _: str, number: str, name: str) -> None:
        """The picture, small or large."""
        slide, most = self.slide(number), SMALL_PX if name == "thumbnail" else LARGE_PX
        await self.show(lambda: self.viewer.overview(slide, most))

    head = get


class Asset(Guarded):
    """A script or style."""

    def get(self, _: str, name: str) -> None:
        """The text."""
        text = asset(name)
        if text is None:
            raise HTTPError(404)
        self.set_header("Content-Type", f"{TYPES[os.path.splitext(name)[1]]}; charset=utf-8")
        self.set_header("Cache-Control", "private, max-age=3600")
        self.finish(text)

    head = get


@lru_cache(maxsize=1)
def clear() -> bytes:
    """A picture of nothing."""
    return _png(Image.new("RGBA", (1, 1)))


@lru_cache(maxsize=1)
def hatched() -> bytes:
    """A picture that is no tissue."""
    image = Image.new("RGB", (64, 64), (235, 235, 235))
    pen = ImageDraw.Draw(image)
    for at in range(-64, 64, 16):
        pen.line([(at, 64), (at + 64, 0)], fill=(190, 60, 50), width=3)
    return _png(image)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
