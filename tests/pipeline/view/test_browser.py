"""The pages in a real browser: they draw what they should, react, ask nobody else, and complain of nothing."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
from browsing import NEEDED, Watched, showing
from makers import tissue_pixels, write_slide
from PIL import Image
from viewing import change_json, hostile, point_at

from pipeline.output.attention_map import read_evidence_zarr, write_evidence_zarr
from pipeline.refer.label_set import REFER
from pipeline.view.run_folder import open_run
from pipeline.view.static import write_pages
from pipeline.view.viewer import Viewer
from stages.geometry import Mpp

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("bokeh") is None, reason="bokeh is not installed"),
    *NEEDED,
]


@pytest.fixture(params=[1400, 480])
def watched(chromium: Any, request: pytest.FixtureRequest) -> Iterator[Watched]:
    found = Watched(chromium, viewport={"width": request.param, "height": 900})
    yield found
    found.page.close()
    assert found.complaints == []


def test_a_slide_is_drawn_from_its_tiles_down_to_level_0(watched: Watched, viewed: Path) -> None:
    with showing(watched, Viewer(open_run(viewed))) as address:
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
        assert any("/tile/3/" in one for one in watched.asked), "level 0 was asked for"
        assert all(one.startswith((address, "data:")) for one in watched.asked)


def test_overlay_threshold_and_patches_react(watched: Watched, viewed: Path) -> None:
    with showing(watched, Viewer(open_run(viewed))) as address:
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
        watched.until("document.getElementById('picture').naturalWidth > 0")
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
    with showing(watched, Viewer(open_run(viewed))) as address:
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


def test_the_table_is_cut_down_by_class_status_error_doubt_and_call(watched: Watched, run: Path) -> None:
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, told in zip(rows, ("tumour", REFER, "normal", ""), strict=True):
        row["call"] = told
    chances = {"even": ".2", "odd": ".55", "plain": ".93"}
    for row in rows[:3]:
        p = float(chances[row["slide_id"]])
        row |= {"prob_tumour": str(p), "prob_normal": str(1 - p), "predicted": "tumour" if p > 0.5 else "normal"}
        row |= {"prob_tumour_low": str(p - 0.1), "prob_tumour_high": str(p + (0.02 if p == 0.93 else 0.2))}
        row |= {"prob_normal_low": str(1 - p), "prob_normal_high": str(1 - p)}
    with (run / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), restval="")
        writer.writeheader()
        writer.writerows(rows)
    change_json(run / "run.json", lambda told: told["labels"]["even"].update(label="tumour", agrees=False))
    change_json(run / "run.json", lambda told: told["labels"]["odd"].update(label="normal", agrees=False))
    with showing(watched, Viewer(open_run(run))) as address:
        watched.open(address)
        page = watched.page
        rows_left = "[...document.querySelectorAll('#slides tbody tr')].filter(r => !r.hidden)"
        names = f"{rows_left}.map(r => r.cells[1].innerText.split('\\n')[0])"
        for control, value, left in (
            ("class", "tumour", ["odd", "plain"]),
            ("class", "normal", ["even"]),
            ("kind", "failed", ["text"]),
            ("kind", "wrong", ["even", "odd"]),
            ("kind", "referred", ["odd"]),
            ("kind", "called", ["even", "plain"]),
            ("sure", "below 0.6", ["odd"]),
            ("sure", "below 0.9", ["even", "odd"]),
            ("sure", "wider 0.2", ["even", "odd"]),
            ("sure", "wider 0.1", ["even", "odd", "plain"]),
        ):
            page.select_option(f"#{control}", value)
            assert page.evaluate(names) == left, value
            chosen = page.locator(f"#{control} option:checked").inner_text()
            assert chosen.endswith(f"({len(left)})"), "how many there are is said beforehand"
            page.select_option(f"#{control}", "")
        page.click("#errors")
        assert page.evaluate(names)[:2] == ["even", "odd"], "the surest error first"
        page.click("th button >> text=error")
        page.click("th button >> text=error")
        assert page.evaluate(names)[:2] == ["even", "odd"]
        watched.settle()


LESION = (1500, 980, 64)
"""x, y and side, level-0 pixels, and its colour below."""
VIOLET = (120, 30, 160)


def test_a_known_lesion_is_found_at_level_0(watched: Watched, run: Path, tmp_path: Path) -> None:
    """By the wheel of a mouse over it, from the whole slide down to level 0."""
    image = tissue_pixels(2048, 1536)
    x, y, side = LESION
    image[y : y + side, x : x + side] = VIOLET
    point_at(run, "even", write_slide(tmp_path / "even.tif", image))
    with showing(watched, Viewer(open_run(run))) as address:
        watched.open(f"{address}s/0/")
        watched.page.keyboard.press("o")
        watched.page.keyboard.press("b")
        watched.settle()
        box = watched.page.locator("#figure").bounding_box()
        screen = (
            "(() => { const p = m('plot'), k = p.inner_width / (p.x_range.end - p.x_range.start); "
            f"return [({x + side / 2} - p.x_range.start) * k, (p.y_range.end + {y + side / 2}) * k, k]; }})()"
        )
        for _ in range(60):
            u, v, scale = watched.model(screen)
            if scale >= 1:
                break
            watched.page.mouse.move(box["x"] + u, box["y"] + v)
            watched.page.mouse.wheel(0, -120)
            watched.page.wait_for_timeout(30)
        assert scale >= 1, "a slide pixel a screen pixel, or closer"
        watched.settle()
        u, v, scale = watched.model(screen)
        shown, half = watched.shot().astype(int), int(scale * side / 2)
        row, column = round(v), round(u)
        for dx, dy in ((0, 0), (half - 6, 0), (6 - half, 0), (0, half - 6), (0, 6 - half)):
            assert np.abs(shown[row + dy, column + dx] - VIOLET).max() < 25, (dx, dy)
        for dx, dy in ((half + 8, 0), (-half - 8, 0), (0, half + 8), (0, -half - 8)):
            assert np.abs(shown[row + dy, column + dx] - VIOLET).max() > 40, (dx, dy)


def test_more_is_read_where_it_is_asked_for(watched: Watched, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.view.layers.LEAST", 1e-9)  # an untrained model says next to nothing
    evidence, told_from, raster = read_evidence_zarr(run / "slides/even/evidence.zarr")
    classes, mpp = ["normal", "tumour"], Mpp(0.5, 0.5)
    write_evidence_zarr(run / "slides/even/evidence.zarr", 0 * evidence, told_from, raster, classes=classes, mpp=mpp)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with showing(watched, Viewer(open_run(run))) as address:
        page = watched.page
        watched.open(f"{address}s/0/")
        page.wait_for_selector("#more:not([hidden])")
        patches = watched.model("m('samples').data.left.length")
        drawn = "[...m('evidence').data_source.data.image[0]]"
        of_run, legend = watched.model(drawn), "document.getElementById('legend').innerText"
        page.keyboard.press("e")
        assert "with all that was read" not in page.evaluate(legend)
        box = page.locator("#figure").bounding_box()
        assert page.locator("#read").is_disabled()
        page.keyboard.press("r")
        at = [box["x"] + 0.4 * box["width"], box["y"] + 0.4 * box["height"]]
        page.mouse.move(*at)
        page.mouse.down()
        page.mouse.move(at[0] + 0.2 * box["width"], at[1] + 0.2 * box["height"], steps=4)
        page.mouse.up()
        assert "chosen" in page.locator("#asked").inner_text()
        assert watched.model("m('chosen-source').data.left.length") == 1
        page.locator("#most").fill("0")
        page.click("#read")
        assert "Give a number of patches from 1 to 4096." in page.locator("#failed").inner_text()
        page.locator("#most").fill("40")
        page.click("#read")
        page.wait_for_selector("#found table", timeout=60_000)
        told = page.locator("#found").inner_text()
        assert re.search(r"Read here: \d+ patch", told)
        assert "97.5 % confidence" in told
        now = watched.model("m('samples').data.left.length")
        assert now > patches
        changed = watched.model(drawn)
        assert changed != of_run, "the map of evidence is drawn anew"
        assert "with all that was read" in page.evaluate(legend)
        assert watched.model("m('places-source').data.left.length") == 1
        page.keyboard.press("]")  # a patch of those that are read by now
        watched.until("document.getElementById('picture').naturalWidth > 0")
        assert "/more/1/" in page.locator("#picture").get_attribute("src")
        page.keyboard.press("Escape")
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
        page.reload()
        page.wait_for_selector("#found table")
        assert watched.model("m('samples').data.left.length") == now, "it is kept as long as the server runs"
        assert watched.model(drawn) == changed
        page.keyboard.press("0")
        page.keyboard.press("v")
        page.locator("#most").fill("4096")
        page.click("#read")
        watched.until("document.getElementById('found').innerText.includes('Nothing is left to chance.')")
        page.click("#forget")
        watched.until("document.getElementById('found').innerText === ''")
        assert watched.model("m('samples').data.left.length") == patches
        assert watched.model(drawn) == of_run
        assert "with all that was read" not in page.evaluate(legend)
        watched.settle()
        assert all(one.startswith((address, "data:")) for one in watched.asked)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_two_runs_show_one_place_side_by_side(watched: Watched, viewed: Path, second: Path) -> None:
    with showing(watched, Viewer(open_run(viewed), beside=open_run(second))) as address:
        page = watched.page
        watched.open(address)
        assert "Beside it:" in page.locator("header").inner_text()
        page.click("th button >> text=difference")
        assert page.evaluate("document.documentElement.scrollWidth") <= max(page.viewport_size["width"], 1400)
        page.click("td.name a >> text=even")
        page.wait_for_selector("body.slide[data-ready]")
        both = (
            "Bokeh.documents.map(d => ['x_range', 'y_range'].map(r => d.get_model_by_name('plot')[r]))"
            ".map(rs => rs.flatMap(r => [r.start, r.end]))"
        )
        for key in ("+", "1", "0", "]", "+"):
            page.keyboard.press(key)
            first, other = page.evaluate(both)
            assert other == pytest.approx(first), key
        page.keyboard.press("Escape")
        page.keyboard.press("0")
        theirs = page.locator("#figure-beside").bounding_box()
        page.mouse.move(theirs["x"] + theirs["width"] / 2, theirs["y"] + theirs["height"] / 2)
        page.mouse.wheel(0, -240)
        page.wait_for_timeout(100)
        first, other = page.evaluate(both)
        assert other == pytest.approx(first), "either moves both"
        page.keyboard.press("0")
        shown = "Bokeh.documents.map(d => ['attention', 'evidence'].map(n => d.get_model_by_name(n).visible))"
        assert page.evaluate(shown) == [[True, False]] * 2
        page.keyboard.press("e")
        assert page.evaluate(shown) == [[False, True]] * 2
        page.keyboard.press("o")
        page.keyboard.press("b")
        watched.settle()
        pictures = []
        for name in ("#figure", "#figure-beside"):
            with Image.open(io.BytesIO(page.locator(name).screenshot())) as image:
                pictures.append(np.asarray(image.convert("RGB"), float))
        height, width = (min(sides) for sides in zip(*(one.shape[:2] for one in pictures), strict=True))
        inner = (slice(height // 3, 2 * height // 3), slice(width // 3, 2 * width // 3))
        shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]  # halves of a screen may differ by a pixel
        apart = [np.abs(pictures[0][inner] - np.roll(pictures[1], at, (0, 1))[inner]).mean() for at in shifts]
        far = np.abs(pictures[0][inner] - np.roll(pictures[1], (9, 9), (0, 1))[inner]).mean()
        assert min(apart) < far / 2, "one slide, without maps"
        page.keyboard.press("b")
        page.evaluate("Bokeh.documents[1].get_model_by_name('samples').selected.indices = [0]")
        page.wait_for_selector("#patch:not([hidden])")
        assert page.locator("#whose").inner_text() == "Patch of the other run"
        assert "/o/0/patch/0.jpg" in page.locator("#picture").evaluate("one => one.src")
        page.keyboard.press("Escape")
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
        watched.settle()
        assert all(one.startswith((address, "data:")) for one in watched.asked)


def test_a_window_of_another_size_distorts_nothing(watched: Watched, viewed: Path, second: Path) -> None:
    code = (
        "Bokeh.documents.map(d => d.get_model_by_name('plot')).map(p => "
        "[(p.x_range.end - p.x_range.start) / p.inner_width, (p.y_range.end - p.y_range.start) / p.inner_height])"
    )
    with showing(watched, Viewer(open_run(viewed), beside=open_run(second))) as address:
        watched.open(f"{address}s/0/")
        watched.settle()
        first = watched.page.evaluate(code)[0][0]
        for size in ((900, 700), (1200, 500), (500, 800), (1400, 900)):
            watched.page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
            watched.settle()
            for across, down in watched.page.evaluate(code):
                assert across == pytest.approx(down, rel=0.01), size  # halves may differ by a pixel
                assert across == pytest.approx(first, rel=0.01), "nor does it zoom"


@pytest.mark.parametrize("how", [{"color_scheme": "dark"}, {"media": "print"}])
def test_pages_fit_in_the_dark_and_on_paper(watched: Watched, viewed: Path, how: dict[str, Any]) -> None:
    watched.page.emulate_media(**how)
    with showing(watched, Viewer(open_run(viewed))) as address:
        for place in ("", "s/0/"):
            watched.open(f"{address}{place}")
            watched.settle()
            style = "getComputedStyle(document.body)"
            ink, paper = (
                sum(map(int, re.findall(r"\d+", watched.page.evaluate(f"{style}.{name}"))[:3]))
                for name in ("color", "backgroundColor")
            )
            assert (ink > paper) is ("color_scheme" in how)
            assert abs(ink - paper) > 300
            if "media" in how:
                assert not watched.page.locator(".tools, .zoom").first.is_visible(), "what cannot be pressed on paper"


def test_pages_open_from_a_file(watched: Watched, viewed: Path, tmp_path: Path) -> None:
    first = write_pages(Viewer(open_run(viewed)), tmp_path / "pages")
    watched.open(first.as_uri())
    watched.page.click("td.name a")
    watched.page.wait_for_selector("body.slide[data-ready]")
    watched.settle()
    assert watched.shot().std() > 10, "the thumbnail is drawn"
    assert not watched.page.locator("#keys-more").is_visible(), "nothing can be read where no server is"
    assert watched.page.locator("#keys-patches").is_visible()
    assert all(one.startswith((first.parent.as_uri(), "data:")) for one in watched.asked)


def test_hostile_names_run_nothing(watched: Watched, run: Path) -> None:
    found = hostile(run)
    with showing(watched, Viewer(found)) as address:
        watched.page.on("dialog", lambda one: watched.complaints.append("a script of a name ran"))
        watched.open(address)
        assert '<script>alert("x")</script>' in watched.page.locator("h1").inner_text()
        watched.page.click("td.name a")
        watched.page.wait_for_selector("body.slide[data-ready]")
        watched.settle()
        assert '<script>alert("x")</script>' in watched.page.locator(".panel").inner_text()
