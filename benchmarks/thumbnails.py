"""Thumbnails of slides that have no pyramid: the slide's own tiles decoded smaller, against OpenSlide's strips.

    python benchmarks/thumbnails.py [--gigapixels 1.5] [--downsample 32] [--rounds 5] [--strips 8]       five minutes

On a flat mosaic (see mosaic.py), in turns:
- ours: `stages.slide.render.render` of the whole slide, as every command makes its thumbnail, on two threads; opening
  the file and comparing its tiles with OpenSlide is within the time;
- OpenSlide: strips of whole rows of tiles, so that none is decoded twice, averaged by area; on one thread, and on two
  with a handle each. `--strips` of them, spread over the slide, are scaled up: the whole would take minutes;
- the limit: the same tiles decoded 8 times smaller on two threads from memory, and nothing else.
The error is that of those strips against exact means of the fully decoded tiles, in grey levels. Peak memory is that of
a fresh process for each size, beyond what it holds after opening the slide. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import openslide
import simplejpeg
from numpy.typing import NDArray

from benchmarks.costs import in_fresh_process, peak_bytes
from benchmarks.mosaic import make_mosaic
from stages.geometry import Box, Raster
from stages.slide import jpeg
from stages.slide.files import open_slide
from stages.slide.reduced import THREADS
from stages.slide.render import render

SIZES = (0.1, 1.5, 6.0)
"""Gigapixels of the slides that memory is measured on."""
LIMIT_TILES = 4000


def whole(path: Path, downsample: int) -> Raster:
    """The raster of the thumbnail."""
    level = open_slide(path).facts.levels[0]
    return Raster(0, 0, downsample, downsample, level.width // downsample, level.height // downsample)


def some_strips(path: Path, raster: Raster, count: int) -> list[Box]:
    """Strips of whole rows of tiles and of thumbnail pixels, spread over level 0 and in its pixels."""
    factor, (_, tile) = int(raster.scale_x), open_slide(path).facts.tile_sizes[0]
    height = math.lcm(tile, factor)
    total = raster.height * factor // height
    chosen = np.unique(np.linspace(0, total - 1, count).astype(int))
    return [Box(0, int(i) * height, raster.width * factor, height) for i in chosen]


def average(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """RGB (h, w, 3) of an image of ``factor`` times the size, by area."""
    height, width = (side // factor for side in pixels.shape[:2])
    means = pixels[..., :3].reshape(height, factor, width, factor, 3).mean((1, 3), dtype=np.float32)
    return np.rint(means).astype(np.uint8)


def openslide_strips(path: Path, strips: list[Box], factor: int, threads: int) -> None:
    """Read and average strips by OpenSlide."""

    def work(part: list[Box]) -> None:
        with openslide.OpenSlide(path) as handle:
            for box in part:
                average(np.asarray(handle.read_region((box.x, box.y), 0, (box.width, box.height))), factor)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [strips[i::threads] for i in range(threads)]))


def decoding_alone(path: Path, count: int) -> tuple[Callable[[], None], float]:
    """The decoding of ``count`` tiles held in memory, 8 times smaller and on `THREADS` threads; their share of all."""
    tiles = open_slide(path).tiles(0)
    assert tiles is not None
    assert tiles.jpeg is not None
    before, filled = jpeg.prefix(tiles.jpeg.tables, tiles.jpeg.colour), np.argwhere(tiles.byte_counts)
    width, height = (side // tiles.scales[0] for side in tiles.tile)
    chosen = filled[np.linspace(0, len(filled) - 1, count).astype(int)]
    streams = [before + tiles.stored(int(row), int(column))[2:] for row, column in chosen]

    def decode(part: list[bytes]) -> None:
        for stream in part:
            simplejpeg.decode_jpeg(stream, "RGB", fastdct=False, min_width=width, min_height=height)

    def work() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(decode, [streams[i::THREADS] for i in range(THREADS)]))

    return work, count / len(filled)


def seconds(act: Callable[[], object], share: float = 1.0) -> float:
    """What an act takes that does ``share`` of the work, scaled up to all of it."""
    started = time.perf_counter()
    act()
    return (time.perf_counter() - started) / share


def error(path: Path, raster: Raster, strips: list[Box]) -> tuple[float, float]:
    """(mean, maximum) of the thumbnail's absolute difference from exact means, over some strips."""
    slide, factor, thumbnail = open_slide(path), int(raster.scale_x), render(open_slide(path), raster)
    off = []
    for box in strips:
        exact = average(slide.read_level(0, box), factor).astype(float)
        off.append(np.abs(exact - thumbnail[box.y // factor : (box.y + box.height) // factor]))
    return float(np.mean(off)), float(np.max(off))


def measure(path: Path, downsample: int, rounds: int, count: int) -> dict[str, Any]:
    """The figures of one slide, from interleaved rounds."""
    raster = whole(path, downsample)
    strips = some_strips(path, raster, count)
    sampled = sum(box.height for box in strips) / (raster.height * downsample)
    limit, share = decoding_alone(path, LIMIT_TILES)
    times: dict[str, list[float]] = {"ours": [], "openslide": [], "openslide_2_threads": [], "limit": []}
    for i in range(rounds):
        times["ours"].append(seconds(lambda: render(open_slide(path), raster)))
        for name, threads in (("openslide", 1), ("openslide_2_threads", 2)):
            times[name].append(seconds(lambda: openslide_strips(path, strips, downsample, threads), sampled))  # noqa: B023
        times["limit"].append(seconds(limit, share))
        told = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in times.items())
        print(f"round {i + 1} of {rounds}: {told}", flush=True)

    def ratio(name: str) -> float:
        return median(other / own for own, other in zip(times["ours"], times[name], strict=True))

    mean, most = error(path, raster, strips)
    return {
        "gigapixels": round(raster.width * raster.height * downsample**2 / 1e9, 3),
        "downsample": downsample,
        "seconds": {name: round(median(values), 3) for name, values in times.items()},
        "times_openslide": round(ratio("openslide"), 1),
        "times_openslide_2_threads": round(ratio("openslide_2_threads"), 1),
        "share_of_limit": round(ratio("limit"), 2),
        "error_mean": round(mean, 3),
        "error_max": most,
    }


def peak_memory(path: Path, downsample: int) -> float:
    """MB that making the thumbnail adds to a process that has opened the slide and read a part of it."""
    return float(in_fresh_process([__file__, "--child", path, "--downsample", downsample])["mb"])


def child(path: Path, downsample: int) -> None:
    """Print the peak memory, see `peak_memory`."""
    slide, raster = open_slide(path), whole(path, downsample)
    render(slide, Raster(0, 0, 1, 1, 256, 256))
    print(json.dumps({"mb": peak_bytes(lambda: render(slide, raster), steps=1) / 2**20}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigapixels", type=float, default=1.5)
    parser.add_argument("--downsample", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--strips", type=int, default=8, help="that OpenSlide reads, of all of the slide's")
    parser.add_argument("--sizes", type=float, nargs="*", default=SIZES, help="gigapixels that memory is measured on")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.downsample)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = make_mosaic(Path(folder) / "flat.svs", args.gigapixels, flat=True)
        figures = measure(path, args.downsample, args.rounds, args.strips)
        memory = {}
        for size in args.sizes:
            make_mosaic(path, size, flat=True)
            memory[size] = round(peak_memory(path, args.downsample), 1)
            print(f"{size} Gpx: {memory[size]} MB more than before", flush=True)
    print(json.dumps(figures | {"peak_mb": memory}))


if __name__ == "__main__":
    main()
