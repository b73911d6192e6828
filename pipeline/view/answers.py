"""The answers of the server: pages, tiles and pictures, and what is read when somebody asks for more."""

from __future__ import annotations

import hmac
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from tornado.web import HTTPError

from pipeline.errors import UsageError
from pipeline.view.guarded import Guarded, clear
from pipeline.view.links import Links
from pipeline.view.more import MOST, Box
from pipeline.view.page import in_page, refusal_page
from pipeline.view.viewer import LARGE_PX, SMALL_PX, asset

ASKED_BYTES = 1000
"""Of a request for more, at most."""
TYPES = {".js": "text/javascript", ".css": "text/css"}


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
        told = self.asked_number("of")
        try:
            parts = await self.work(lambda: self.viewer.page_parts(slide, links, told=told))
        except UsageError as exc:
            self.set_status(404)
            self.finish(refusal_page(slide.name, str(exc), links))
            return
        while parts is not None and (part := await self.work(lambda: next(parts, ""))):
            self.write(part)
            await self.flush()  # the picture is asked for while the figure is made
        if not self.gone:
            self.finish()

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
        slide, told, shown = self.slide(number), self.asked_number("of"), self.asked_number("shown")
        state = await self.work(lambda: self.viewer.more_state(slide, told, shown or 0))
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
