"""The report in a real browser: rows are sorted, found and turned over, names are text, and nothing is asked for."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from browsing import NEEDED, Watched
from PIL import Image

from pipeline.report.report import write_report
from pipeline.report.slide_sheet import WORDS, write_slide_sheet
from pipeline.report.slides import PAGE

pytestmark = [pytest.mark.slow, *NEEDED]
HOSTILE = "</script><script>document.title = 'taken'</script>\"'\n<img src=x onerror=\"document.title = 'taken'\">"


class Opened(Watched):
    """A report in a page."""

    def __init__(self, chromium: Any, report: Path, **how: Any) -> None:
        super().__init__(chromium, **how)
        self.page.goto(report.as_uri())

    def names(self) -> list[str]:
        """Of the rows that stand in the table."""
        return [str(one) for one in self.page.locator("#slides tbody td.name strong").all_inner_texts()]

    def choose(self, label: str, value: str) -> None:
        self.page.get_by_label(label).select_option(value)


def written(folder: Path, count: int) -> Path:
    """The report of a run whose slides' probabilities rise, every fifth of them wrong, the last with a hostile name."""
    held = io.BytesIO()
    Image.new("RGB", (324, 160), "teal").save(held, "JPEG")
    rows = []
    for i in range(count):
        name = f"s{i}" if i < count - 1 else HOSTILE.replace("/", "_")
        (folder / "slides" / name).mkdir(parents=True)
        (folder / "slides" / name / "preview.jpg").write_bytes(held.getvalue())
        chance = (i + 0.5) / count
        told = "tumour" if chance > 0.5 else "normal"
        values = {"prob_tumour": chance, "prob_normal": 1 - chance}
        ends = {f"{key}{end}": value for key, value in values.items() for end in ("_low", "_high")}
        label = "normal" if (told == "tumour") == (i % 5 == 0) else "tumour"
        rows.append(
            {
                "slide_id": name,
                "path": HOSTILE,
                "status": "ok",
                "predicted": told,
                "label": label,
                "agrees": told == label,
                "words": {"what": HOSTILE},
                "warnings": [HOSTILE],
                "patches_read": 9,
                "cells": 99,
                "fraction_read": 0.1,
                "bytes_read": 9,
                "seconds": 1.0,
                **values,
                **ends,
            }
        )
    run = {"classes": ["normal", "tumour"], "command": [HOSTILE], "cohort": HOSTILE, "settings": {"seed": 0}}
    write_report(folder / "report.html", rows, run)
    return folder / "report.html"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("many"), 2 * PAGE + 50)


def test_rows_are_sorted_found_and_turned_over(chromium: Any, many: Path) -> None:
    opened = Opened(chromium, many)
    every = 2 * PAGE + 50
    assert opened.names() == [f"s{i}" for i in range(PAGE)]
    assert opened.page.locator("#shown").inner_text() == f"{every} of {every} shown"
    opened.page.get_by_role("button", name="further").click()
    assert opened.names()[0] == f"s{PAGE}"
    opened.page.get_by_role("button", name="probability of tumour").click()
    opened.page.get_by_role("button", name="probability of tumour").click()  # downwards
    assert opened.names()[1:3] == [f"s{every - 2}", f"s{every - 3}"]
    opened.choose("Order", "errors first")
    surest = [i for i in range(every) if i % 5 == 0]
    surest.sort(key=lambda i: -abs((i + 0.5) / every - 0.5))
    assert {opened.names()[0], opened.names()[1]} == {f"s{i}" for i in surest[:2]}
    opened.choose("Order", "least certain first")
    assert set(opened.names()[:2]) == {f"s{every // 2 - 1}", f"s{every // 2}"}
    opened.choose("Show", "wrong")
    assert opened.page.locator("#shown").inner_text() == f"{every // 5} of {every} shown"
    opened.choose("Show", "")
    opened.page.get_by_label("Filter").fill("S12 normal")
    assert sorted(opened.names()) == sorted(f"s{i}" for i in (12, *range(120, 126)))
    opened.page.get_by_label("Filter").fill("")
    opened.choose("slides at a time", "500")
    assert len(opened.names()) == every
    assert opened.page.title().startswith("Saccade: ")  # nobody took it
    assert opened.complaints == []
    assert [one for one in opened.asked if not one.startswith("data:")] == [many.as_uri()]
    opened.page.close()


@pytest.mark.parametrize("width", [1400, 480])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_wide_and_narrow_screens(chromium: Any, many: Path, width: int, scheme: str) -> None:
    opened = Opened(chromium, many, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    ink, page = opened.page.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    light = [sum(map(int, one[4:-1].split(","))) for one in (ink, page)]
    assert (light[0] > light[1]) == (scheme == "dark")
    assert opened.page.evaluate("document.querySelector('td img').naturalWidth") == 324
    opened.page.close()


def test_without_scripts_the_first_rows_stand_there(chromium: Any, many: Path) -> None:
    opened = Opened(chromium, many, java_script_enabled=False)
    assert len(opened.names()) == PAGE
    assert "150 more show where scripts may run" in opened.page.inner_text("body")
    opened.page.close()


def test_on_paper_there_are_no_tools(chromium: Any, many: Path) -> None:
    opened = Opened(chromium, many)
    opened.page.emulate_media(media="print")
    assert not opened.page.get_by_label("Filter").is_visible()
    assert not opened.page.get_by_role("button", name="further").is_visible()
    assert opened.page.pdf(prefer_css_page_size=True)[:4] == b"%PDF"
    opened.page.close()


def test_a_slides_sheet_prints_on_two_pages_and_fits_narrow_screens(chromium: Any, tmp_path: Path) -> None:
    """With the pictures and as many words as one has."""
    pictures = []
    for name, size in (("overlay.jpg", (1012, 640)), ("gallery.jpg", (1000, 460)), ("evidence.jpg", (680, 640))):
        held = io.BytesIO()
        Image.new("RGB", size, "teal").save(held, "JPEG")
        pictures.append((name, "what it shows", held.getvalue()))
    values = {f"prob_{name}{end}": 0.5 for name in ("normal", "tumour") for end in ("", "_low", "_high")}
    told = {
        "row": {"predicted": "tumour", **values, "patches_read": 9, "cells": 99, "fraction_read": 0.1, "warnings": []},
        "words": dict.fromkeys(WORDS, "as is told of a slide " * 10),
        "made_of": {"model": "a" * 64, "samples": 24, "scheme": "systematic", "seed": 0},
        "mpp": [0.5, 0.5],
        "path": "/cohort/s.svs",
        "fingerprint": "f" * 64,
        "key": "k" * 64,
    }
    write_slide_sheet(tmp_path / "slide.html", told, pictures)
    opened = Opened(chromium, tmp_path / "slide.html", viewport={"width": 480, "height": 900})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 480
    paper = opened.page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", paper)) == 2
    assert opened.complaints == []
    opened.page.close()
