"""The report of a run of many slides in a browser: how soon it is there, and how long it takes to put it in order.

    python benchmarks/report_rows.py [--rows 10000] [--rounds 3]    a minute; needs Playwright and a Chromium

Rows of made-up slides, each with label, probabilities, words and a preview of 5 kB in its folder, written as a run
writes them. *Loaded*: from the request of the page until its script has put the table there and it is painted; then
    python benchmarks/report_rows.py [--rows 10000] [--rounds 3]        a minute; needs Playwright and Chromium
until it is painted. Seconds, the median over rounds (and the slowest), each in a page of its own. Ends with one JSON
line.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from pipeline.output.slide_folder import PREVIEW
from pipeline.report.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ENDS = (("_low", -0.05), ("_high", 0.05))


def preview() -> bytes:
    """A picture of the size and bytes of a slide's preview."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 81, 3), np.uint8)
    held = io.BytesIO()
    Image.fromarray(noise).resize((324, 160), Image.Resampling.BICUBIC).save(held, "JPEG", quality=30)
    return held.getvalue()


def make_report(folder: Path, count: int) -> Path:
    """The report of so many slides."""
    rng, picture, rows = np.random.default_rng(0), preview(), []
    for i, chance in enumerate(rng.uniform(0, 1, count).tolist()):
        name = f"slide-{i:05}-{'abcdefghij'[i % 10]}"
        own = folder / "slides" / name
        own.mkdir(parents=True)
        (own / PREVIEW).write_bytes(picture)
        values = {"prob_normal": 1 - chance, "prob_tumour": chance}
        ends = {f"{key}{end}": min(max(one + by, 0.0), 1.0) for key, one in values.items() for end, by in ENDS}
        told, label = (str(rng.choice(["normal", "tumour"], p=[1 - p, p])) for p in (round(chance), chance))
        rows.append(
            {
                "slide_id": name,
                "path": f"/cohort/slides/{name}.svs",
                "status": "ok",
                "predicted": told,
                "label": label,
                "agrees": told == label,
                "words": {"what": f"{name}: P(tumour) = {chance:.2f}.", "how_sure": "Of 2,000 patches 64 were read."},
                "warnings": ["looks unlike the training's slides"] if i % 50 == 0 else [],
                "patches_read": 64,
                "cells": 2000,
                "fraction_read": 0.03,
                "bytes_read": 2_000_000,
                "seconds": 1.5,
                "out_of_distribution": float(rng.uniform(0, 1)),
                **values,
                **ends,
            }
        )
    write_report(folder / "report.html", rows, {"classes": ["normal", "tumour"], "cohort": "cohort.csv"})
    return folder / "report.html"


def timed(page: Any, act: Callable[[], Any]) -> float:
    """Seconds until what was done is painted."""
    started = time.perf_counter()
    act()
    page.evaluate("new Promise(go => requestAnimationFrame(() => requestAnimationFrame(go)))")
    return time.perf_counter() - started


def in_browser(report: Path, rows: int, rounds: int) -> dict[str, list[float]]:
    """Seconds that each thing took, by round."""
    from playwright.sync_api import sync_playwright

    found: dict[str, list[float]] = {}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for _ in range(rounds):
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.set_default_timeout(120_000)

            def opened(page: Any = page) -> None:
                page.goto(report.as_uri())
                page.locator(".tools #filter").wait_for()

            acts: dict[str, Callable[[], Any]] = {
                "loaded": opened,
                "sorted_by_name": page.get_by_role("button", name="slide", exact=True).click,
                "sorted_by_chance": page.get_by_role("button", name="probability of tumour").click,
                "errors_first": lambda page=page: page.get_by_label("Order").select_option("errors first"),
                "filtered": lambda page=page: page.get_by_label("Filter").fill("-c"),
                "turned": page.get_by_role("button", name="further").click,
            }
            for name, act in acts.items():
                found.setdefault(name, []).append(timed(page, act))
            told = page.locator("#shown").inner_text()
            assert re.sub(",", "", told).split()[0] == str(round(rows / 10)), told
            page.close()
        browser.close()
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = make_report(Path(folder), args.rows)
        told: dict[str, Any] = {"rows": args.rows, "megabytes": round(report.stat().st_size / 1e6, 1)}
        for name, seconds in in_browser(report, args.rows, args.rounds).items():
            told |= {f"{name}_s": round(median(seconds), 3), f"{name}_slowest_s": round(max(seconds), 3)}
            print(f"{name}: {median(seconds):.2f} s, at most {max(seconds):.2f}", flush=True)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
