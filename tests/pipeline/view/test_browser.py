"""The pages in a real browser: they draw what they should, react, ask nobody else, and complain of nothing."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
from numpy.typing import NDArray
from PIL import Image
from viewing import hostile, served

from pipeline.view.run_folder import open_run
from pipeline.view.static import write_pages
from pipeline.view.viewer import Viewer

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("bokeh") is None, reason="bokeh is not installed"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="playwright is not installed"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
    pytest.mark.filterwarnings("default"),
]


class Watched:
    """A page, with all that it asked for and complained of."""

    def __init__(self, page: Any) -> None:
        self.page, self.asked, self.complaints = page, [], []
        page.on("request", lambda one: self.asked.append(one.url))
        page.on("console", lambda one: self.complaints.append(one.text) if one.type in ("error", "warning") else None)
        page.on("pageerror", lambda one: self.complaints.append(str(one)))
        page.on("requestfailed", self.failed)

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

    def settle(self) -> None:
        self.page.wait_for_load_state("networkidle")
        self.page.wait_for_timeout(400)

    def shot(self) -> NDArray[np.uint8]:
        with Image.open(io.BytesIO(self.page.locator("#figure").screenshot())) as image:
            return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[1400, 480])
def watched(chromium: Any, request: pytest.FixtureRequest) -> Iterator[Watched]:
    page = chromium.new_page(viewport={"width": request.param, "height": 900})
    found = Watched(page)
    yield found
    page.close()
    assert found.complaints == []


def test_a_slide_is_drawn_from_its_tiles_down_to_level_0(watched: Watched, viewed: Path) -> None:
    with served(Viewer(open_run(viewed))) as address:
        watched.open(address)
        watched.page.click("td.name a")
        watched.page.wait_for_selector("body.slide[data-ready]")
        watched.page.keyboard.press("o")  # the slide alone
        watched.page.keyboard.press("b")
        watched.page.keyboard.press("1")
        watched.settle()
        ends = "m('plot').x_range.start, m('plot').x_range.end, m('plot').y_range.start, m('plot').y_range.end"
        left, right, lower, upper = watched.model(f"[{ends}]")
        width, height = watched.model("[m('plot').inner_width, m('plot').inner_height]")
        assert (right - left, upper - lower) == pytest.approx((width, height), rel=1e-3), "a slide pixel a screen pixel"
        shown = watched.shot()
        with openslide.OpenSlide(viewed.parent / "even.tif") as slide:
            x, y = round(left), round(-upper)
            size = (shown.shape[1], shown.shape[0])
            theirs = np.asarray(slide.read_region((x, y), 0, size).convert("RGB"), float)
        inside = (slice(200, -60), slice(90, -60))  # of buttons, scale and the border
        assert theirs[inside].std() > 20
        error = np.abs(shown[inside] - theirs[inside]).mean()
        assert error < 0.5 * np.abs(shown[inside] - np.roll(theirs, 9, (0, 1))[inside]).mean()
        assert error < 12
        assert any("/tile/2/" in one for one in watched.asked), "level 0 was asked for"
        assert all(one.startswith((address, "data:")) for one in watched.asked)


def test_overlay_threshold_and_patches_react(watched: Watched, viewed: Path) -> None:
    with served(Viewer(open_run(viewed))) as address:
        watched.open(f"{address}s/0/")
        watched.settle()
        page, with_map = watched.page, watched.shot()
        assert watched.model("m('attention').visible")
        page.keyboard.press("o")
        watched.settle()
        assert not watched.model("m('attention').visible")
        changed = (np.abs(with_map.astype(int) - watched.shot()) > 2).any(-1)
        assert changed.sum() > 500, "without it the picture is another"
        page.keyboard.press("o")
        opaque = "m('attention-colours').palette.filter(c => !c.endsWith('00')).length"
        before = watched.model(opaque)
        page.locator("#threshold").fill("200")
        assert watched.model(opaque) == before - 199
        page.locator("#opacity").fill("0")
        assert watched.model(opaque) == 0
        page.keyboard.press("e")
        assert watched.model("[m('attention').visible, m('evidence').visible]") == [False, True]
        assert not page.locator("#patch").is_visible()
        page.keyboard.press("]")
        page.wait_for_selector("#patch:not([hidden])")
        assert watched.model("m('samples').selected.indices") == [0]
        page.wait_for_function("document.getElementById('picture').naturalWidth > 0")
        assert "log-odds" in page.locator("#facts").inner_text()
        page.keyboard.press("Escape")
        assert not page.locator("#patch").is_visible()
        # a click on a box opens its patch
        page.keyboard.press("]")
        page.keyboard.press("Escape")
        box = page.locator("#figure").bounding_box()
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_selector("#patch:not([hidden])")
        page.keyboard.press("Escape")
        page.keyboard.press("n")
        page.wait_for_url(f"{address}s/1/")
        page.wait_for_selector("body[data-ready]")
        page.keyboard.press("p")
        page.wait_for_url(f"{address}s/0/")
        page.wait_for_selector("body[data-ready]")
        watched.settle()
        assert all(one.startswith((address, "data:")) for one in watched.asked)


def test_the_table_sorts_cuts_down_and_keeps_its_order(watched: Watched, viewed: Path) -> None:
    with served(Viewer(open_run(viewed))) as address:
        watched.open(address)
        page = watched.page
        rows = "[...document.querySelectorAll('#slides tbody tr')].filter(r => !r.hidden)"
        names = f"{rows}.map(r => r.cells[1].innerText.split('\\n')[0])"
        page.click("th button >> text=slide")
        page.click("th button >> text=slide")
        assert page.evaluate(names) == ["text", "plain", "odd", "even"]
        page.select_option("#kind", "ok")
        assert page.evaluate(names) == ["plain", "odd", "even"]
        page.fill("#find", "EVEN")
        assert page.evaluate(names) == ["even"]
        page.fill("#find", "")
        page.click("td.name a >> text=odd")
        page.wait_for_selector("body.slide[data-ready]")
        assert page.locator("#place").inner_text() == "2 of 3"
        page.click("#next")
        page.wait_for_url(f"{address}s/0/")
        page.wait_for_selector("body[data-ready]")
        watched.settle()


def test_pages_open_from_a_file(watched: Watched, viewed: Path, tmp_path: Path) -> None:
    first = write_pages(Viewer(open_run(viewed)), tmp_path / "pages")
    watched.open(first.as_uri())
    watched.page.click("td.name a")
    watched.page.wait_for_selector("body.slide[data-ready]")
    watched.settle()
    assert watched.shot().std() > 10, "the thumbnail is drawn"
    assert all(one.startswith((first.parent.as_uri(), "data:")) for one in watched.asked)


def test_hostile_names_run_nothing(watched: Watched, run: Path) -> None:
    found = hostile(run)
    with served(Viewer(found)) as address:
        watched.page.on("dialog", lambda one: watched.complaints.append("a script of a name ran"))
        watched.open(address)
        assert '<script>alert("x")</script>' in watched.page.locator("h1").inner_text()
        watched.page.click("td.name a")
        watched.page.wait_for_selector("body.slide[data-ready]")
        watched.settle()
        assert '<script>alert("x")</script>' in watched.page.locator(".panel").inner_text()
