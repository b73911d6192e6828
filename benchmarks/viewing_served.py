"""The server of `saccade view` as a browser meets it: how soon a slide is seen, what memory thousands of tiles take.

    python benchmarks/viewing_served.py [--gigapixels 1.5] [--tiles 10000] [--warm-up 1000] [--clicks 7]    five minutes

On a mosaic (see mosaic.py) that an untrained model has predicted. *First picture*: from a click in the table until the
slide's picture is painted, as the browser itself tells (and until all that is in view is there as sharp as the slide
has it), in headless Chromium where Playwright and a Chromium are there, the median over clicks; else from the request
of the page until all that it loads before, and the picture, are here, one after the other. *Memory*: the server's
resident bytes after so many tiles at random places of all zooms, eight at a time, relative to those after the warm-up,
the largest of ten times. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.mosaic import make_mosaic
from pipeline.cohort.target import find_target
from pipeline.model.checkpoint import save_model
from pipeline.model.sampler import AttentionSampler
from pipeline.model.spec import ModelSpec
from pipeline.run.run import run_cohort
from pipeline.run.slide import RunSettings
from pipeline.view.frame import Frame
from stages.pyramid.open import open_pyramid

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PARALLEL = 8
WATCH = """
window.painted = [];
new PerformanceObserver(seen => { for (const one of seen.getEntries()) painted.push(one); })
  .observe({type: "largest-contentful-paint", buffered: true});
"""
"""Note what a page paints, and when: the slide's picture is the largest of it."""
PAINTED = """
performance.timeOrigin + painted.filter(one => one.url.endsWith("/overview.jpg"))[0].renderTime
"""


def make_run(folder: Path, gigapixels: float) -> Path:
    """A run of one mosaic."""
    slide = make_mosaic(folder / "mosaic.svs", gigapixels)
    torch.manual_seed(0)
    spec = ModelSpec(
        classes=("normal", "tumour"),
        attention_mpp=16.0,
        patch_mpp=0.5,
        patch_px=256,
        attention="learned",
        encoder="small",
        dim=16,
        scheme="systematic",
        samples=64,
    )
    save_model(AttentionSampler(spec).eval(), folder / "model.safetensors")
    run_cohort(find_target(slide), folder / "run", RunSettings(model=folder / "model.safetensors"))
    return folder / "run"


@contextmanager
def served(run: Path) -> Iterator[tuple[str, int]]:
    """The address of a server of its own process, and that process."""
    command = [sys.executable, "-m", "pipeline.cli", "view", str(run), "--no-browser"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def get(address: str) -> bytes:
    """What is there."""
    with urllib.request.urlopen(address, timeout=60) as answer:
        data: bytes = answer.read()
    return data


def seen_in_browser(address: str, clicks: int) -> list[tuple[float, float]]:
    """Seconds from each click until the slide's picture is drawn, and until all tiles are there."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for _ in range(clicks):
            page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
            page.add_init_script(WATCH)
            page.goto(address)
            page.wait_for_selector("body[data-ready]")
            clicked = page.evaluate("performance.timeOrigin + performance.now()")  # ms, as the next page counts them
            started = time.perf_counter()
            page.click("td.name a", no_wait_after=True)
            page.wait_for_selector("body.slide[data-ready]")
            page.wait_for_load_state("networkidle")
            whole = time.perf_counter() - started
            found.append((1e-3 * (page.evaluate(PAINTED) - clicked), whole))
            page.context.close()
        browser.close()
    return found


def seen_by_requests(address: str, clicks: int) -> list[float]:
    """Seconds from each request of a page until what it loads, and then the picture, are here."""
    found = []
    for _ in range(clicks):
        started = time.perf_counter()
        page = get(f"{address}s/0/").decode()
        for name in re.findall(r'(?:src|href)="\.\./\.\./(asset/[^"]+)"', page):
            get(f"{address}{name}")
        get(f"{address}s/0/overview.jpg")
        found.append(time.perf_counter() - started)
    return found


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def over_tiles(address: str, pid: int, frame: Frame, count: int, warm_up: int) -> list[int]:
    """Resident bytes after the warm-up, and ten times until so many tiles were given."""
    rng = np.random.default_rng(0)
    places = []
    for zoom in rng.integers(0, frame.top + 1, count).tolist():
        across, down = (max(1, int(side / 2 ** (frame.top - zoom) // frame.side)) for side in frame.size)
        places.append((zoom, int(rng.integers(across)), int(rng.integers(down))))
    ends = [warm_up, *np.linspace(warm_up, count, 11).astype(int)[1:].tolist()]
    seen, begin = [], 0
    with ThreadPoolExecutor(PARALLEL) as pool:
        for end in ends:
            list(pool.map(lambda at: get(f"{address}s/0/tile/{at[0]}/{at[1]}/{at[2]}.jpg"), places[begin:end]))
            begin = end
            seen.append(memory(pid))
    return seen


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigapixels", type=float, default=1.5)
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--warm-up", type=int, default=1000)
    parser.add_argument("--clicks", type=int, default=7)
    args = parser.parse_args()
    told: dict[str, Any] = {"gigapixels": args.gigapixels}
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder), args.gigapixels)
        facts = open_pyramid(Path(folder) / "mosaic.svs").facts
        frame = Frame.of_slide(facts)
        with served(run) as (address, pid):
            told["by_requests_s"] = round(median(seen_by_requests(address, args.clicks)), 3)
            print(f"page, scripts and picture by requests: {told['by_requests_s']} s", flush=True)
            if CHROMIUM is not None and find_spec("playwright") is not None:
                seen = seen_in_browser(address, args.clicks)
                first, whole = zip(*seen, strict=True)
                told |= {"in_browser_s": round(median(first), 3), "slowest_s": round(max(first), 3)}
                told["all_tiles_s"] = round(median(whole), 3)
                print(
                    f"in the browser: first picture {told['in_browser_s']} s, all {told['all_tiles_s']} s", flush=True
                )
            held = over_tiles(address, pid, frame, args.tiles, args.warm_up)
    told["memory_mb"] = [round(one / 1e6) for one in held]
    told["memory_grows"] = round(max(held) / held[0] - 1, 3)
    print(f"memory over {args.tiles} tiles: {told['memory_mb']} MB, {told['memory_grows']:+.1%} at most")
    print(json.dumps(told))


if __name__ == "__main__":
    main()
