"""Tiles of a slide as a viewer asks for them: ours against OpenSlide's DeepZoomGenerator, in one process, in turns.

    python benchmarks/viewing.py [--gigapixels 1.5] [--tiles 400] [--rounds 5] [--parallel 8]        two minutes

On a mosaic (see mosaic.py) of a scanner's own tiles with levels 4, 16 and 32, tiles as large as the viewer has them at
random places of every zoom, evenly over zooms, the same tiles of both, JPEG of one quality where they are encoded; each
is asked for once, so that nothing comes from what is kept. Both are asked by as many threads at a time as a browser
asks. Told are median and 99th percentile of a tile's latency, its CPU time, and how many times faster ours is, as the
median over rounds; the same of zooms that are a level of the file, and of those in between; and the mean difference of
both pictures at level 0 in grey levels, which is that of encoding theirs. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import openslide
from numpy.typing import NDArray
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image

from benchmarks.mosaic import make_mosaic
from pipeline.view.frame import Frame
from pipeline.view.tiles import QUALITY, Tiles
from stages.pyramid.open import open_pyramid

Place = tuple[int, int, int]
"""Zoom, column and row of a tile."""


def places(frame: Frame, count: int, rng: np.random.Generator) -> list[Place]:
    """Tiles that lie whole inside the slide, evenly over zooms as far as these have so many, none twice."""
    found: list[Place] = []
    for zoom in range(frame.top, -1, -1):
        across, down = (int(side / 2 ** (frame.top - zoom) // frame.side) for side in frame.size)
        wanted = min(across * down, -(-count // (frame.top + 1)))
        at = rng.choice(across * down, wanted, replace=False) if wanted else []
        found += [(zoom, int(i % across), int(i // across)) for i in at]
    rng.shuffle(found)
    return [(int(z), int(c), int(r)) for z, c, r in found]


def timed(step: Callable[[Place], object], at: list[Place], parallel: int) -> tuple[list[float], float]:
    """Milliseconds of each tile, asked for by several threads, and CPU milliseconds of a tile."""

    def one(place: Place) -> float:
        started = time.perf_counter()
        step(place)
        return 1e3 * (time.perf_counter() - started)

    before = time.process_time()
    with ThreadPoolExecutor(parallel) as pool:
        found = list(pool.map(one, at))
    return found, 1e3 * (time.process_time() - before) / len(at)


def measure(path: Path, count: int, rounds: int, parallel: int) -> dict[str, Any]:
    """The figures of one slide."""
    slide = open_pyramid(path)
    level = slide.facts.levels[0]
    frame = Frame.of_slide(slide.facts)
    own = {raster.scale_x for raster in slide.facts.levels}
    handle = openslide.OpenSlide(path)
    theirs = DeepZoomGenerator(handle, tile_size=frame.side, overlap=0)
    first = theirs.level_count - 1 - frame.top  # its level 0 is one pixel
    tiles = Tiles(lambda number: slide)

    def ours(place: Place) -> bytes | None:
        return tiles.tile(0, frame, *place)

    def deep(place: Place) -> bytes:
        zoom, column, row = place
        file = io.BytesIO()
        theirs.get_tile(first + zoom, (column, row)).save(file, "JPEG", quality=QUALITY)
        return file.getvalue()

    shown = next((frame.top, c, r) for z, c, r in places(frame, 40, np.random.default_rng(9)) if z == frame.top)
    apart = float(np.abs(pixels(ours(shown)) - pixels(deep(shown))).mean())
    rows: dict[str, list[dict[str, list[float]]]] = {"ours": [], "deepzoom": []}
    cpu: dict[str, list[float]] = {"ours": [], "deepzoom": []}
    for number in range(rounds):
        at = places(frame, count, np.random.default_rng(number))
        for name, step in (("ours", ours), ("deepzoom", deep)):
            tiles = Tiles(lambda number: slide)  # nothing is kept from the round before
            found, spent = timed(step, at, parallel)
            levels = [2.0 ** (frame.top - zoom) in own for zoom, _, _ in at]
            kinds = {"all": at, "levels": levels, "between": [not one for one in levels]}
            rows[name].append(
                {kind: [ms for ms, so in zip(found, of, strict=True) if so] for kind, of in kinds.items()}
            )
            cpu[name].append(spent)
    told: dict[str, Any] = {"gigapixels": level.width * level.height / 1e9, "parallel": parallel, "side": frame.side}
    told["apart"] = round(apart, 2)
    told["cpu_ms"] = {name: round(median(spent), 2) for name, spent in cpu.items()}
    told["cpu_times_less"] = round(median(a / b for a, b in zip(cpu["deepzoom"], cpu["ours"], strict=True)), 2)
    for kind in kinds:
        told[kind] = {"tiles": len(rows["ours"][0][kind])}
        for key, of in (("median", 50), ("p99", 99)):
            each = {name: [float(np.percentile(one[kind], of)) for one in found] for name, found in rows.items()}
            told[kind] |= {f"{key}_ms": {name: round(median(found), 2) for name, found in each.items()}}
            faster = median(a / b for a, b in zip(each["deepzoom"], each["ours"], strict=True))
            told[kind][f"{key}_times_faster"] = round(faster, 2)
    handle.close()
    return told


def pixels(data: bytes | None) -> NDArray[np.float64]:
    """RGB of a JPEG."""
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"), np.float64)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigapixels", type=float, default=1.5)
    parser.add_argument("--tiles", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parallel", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = make_mosaic(Path(folder) / "mosaic.svs", args.gigapixels)
        found = [measure(path, args.tiles, args.rounds, parallel) for parallel in (1, args.parallel)]
    for told in found:
        print(f"{told['parallel']} at a time, CPU ms a tile: {told['cpu_ms']}, {told['cpu_times_less']} times less")
        for kind in ("all", "levels", "between"):
            print(f"  {kind}: {told[kind]}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
