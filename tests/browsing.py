"""Pages in a real browser, with all that they ask for and complain of."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from viewing import served

from pipeline.view.viewer import Viewer

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDED = [
    pytest.mark.skipif(find_spec("playwright") is None, reason="playwright is not installed"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
    pytest.mark.filterwarnings("default"),
]
"""Marks of tests that need one."""


@contextmanager
def started() -> Iterator[Any]:
    """Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A page, with all that it asked for and complained of.

    Args:
        chromium: see `started`.
        how: of the page: its viewport, colours.
    """

    def __init__(self, chromium: Any, **how: Any) -> None:
        self.page: Any = chromium.new_page(**how)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda one: self.asked.append(one.url))
        self.page.on(
            "console", lambda one: self.complaints.append(one.text) if one.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda one: self.complaints.append(str(one)))
        self.page.on("requestfailed", self.failed)

    def said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def failed(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # a tile of a page that was left
            self.complaints.append(f"{request.failure}: {request.url}")

    def open(self, address: str) -> None:
        self.page.goto(address)
        self.page.wait_for_selector("body[data-ready]")

    def model(self, code: str) -> Any:
        """What JavaScript says of Bokeh's models, which ``m`` finds by their names."""
        found = "n => Bokeh.documents[0].get_model_by_name(n)"
        return self.page.evaluate(f"() => {{ const m = {found}; return {code}; }}")

    def until(self, code: str) -> None:
        """Wait for what JavaScript says; pages let nobody evaluate text, so that Playwright's own waiting fails."""
        for _ in range(600):
            if self.page.evaluate(code):
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"never: {code}")

    def settle(self) -> None:
        self.page.wait_for_load_state("networkidle")
        self.page.wait_for_timeout(400)

    def shot(self) -> NDArray[np.uint8]:
        with Image.open(io.BytesIO(self.page.locator("#figure").screenshot())) as image:
            return np.asarray(image.convert("RGB"))


@contextmanager
def showing(watched: Watched, viewer: Viewer) -> Iterator[str]:
    """The address of a server, which the page has left before it ends."""
    with served(viewer) as address:
        yield address
        watched.page.goto("about:blank")
