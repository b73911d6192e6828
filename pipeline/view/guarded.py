"""What every answer of the server has in common: who gets one, and in which form."""

from __future__ import annotations

import asyncio
import hmac
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

from PIL import Image, ImageDraw
from tornado.web import HTTPError, RequestHandler

from pipeline.view.page import policy
from pipeline.view.run_folder import SlideRow
from pipeline.view.viewer import Viewer
from stages.slide.facts import SlideError

_T = TypeVar("_T")


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

    def asked_number(self, name: str) -> int | None:
        """A whole number in the query of an address; None where there is none."""
        said = self.get_query_argument(name, "")
        return int(said) if said.isdecimal() and len(said) < 6 else None

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
