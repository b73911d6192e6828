"""Caching a whole slide, against OpenSlide -> zarr and against the physical limits.

    python benchmarks/caching.py [--folder DIR] [--gigapixels 1.5] [--rounds 3] [--sizes 0.1 1.5 6]     about 10 minutes

On a mosaic of the real slide's tiles (`mosaic.py`) and on the slide itself, files in the page cache, in turns, on the
same two cores; every contestant waits until the disk holds what it wrote, and opens the slide within its time:
- native and portable: `stages.pyramid.cache.cache_pyramid` as `saccade cache` calls it, whole, portable with --all;
  "tissue" is the portable default, which looks for tissue first (on the mosaic nearly all is);
- OpenSlide -> zarr: squares of 2048 px by `read_region` into an array of zarr-python's with its default zstd, chunks of
  256 px in shards of 2048, on two threads with a handle each. `--squares` of level 0, spread over it, are scaled up to
  the pixels of all levels: the whole would take minutes;
- the limits: copying the slide's file, for native; decoding and zstd alone, of tiles in memory, on two threads, for
  portable.
Then memory: by how much caching raises a fresh process's resident peak over what it holds with everything imported, and
that peak itself, at three sizes. Ends with one JSON line of the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import openslide
import zarr

from benchmarks import costs
from benchmarks.mosaic import make_mosaic
from benchmarks.places import data_folder
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.chunks import zstd_chunk
from stages.pyramid.plan import own_jpeg
from stages.slide.files import open_slide

THREADS = 2
SQUARE = 2048
LIMIT_TILES = 2000
PROFILES: dict[str, dict[str, Any]] = {
    "native": {"profile": "native"},
    "portable": {"profile": "portable", "everything": True},
    "tissue": {"profile": "portable"},
}


def sync(folder: Path) -> None:
    """Have the disk hold a folder's files."""
    for here, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(here, name), "rb") as file:
                os.fsync(file.fileno())


def by_us(path: Path, out: Path, **options: Any) -> None:
    """As the command does it."""
    cache_pyramid(open_slide(path), out, writers=THREADS, **options)


def by_openslide(path: Path, out: Path, squares: int) -> float:
    """Copy some squares of level 0; returns their share of the pixels of all levels."""
    with openslide.OpenSlide(path) as slide:
        width, height = slide.dimensions
        pixels = sum(w * h for w, h in slide.level_dimensions)
    array: Any = zarr.create_array(
        out,
        shape=(3, height, width),
        chunks=(3, 256, 256),
        shards=(3, SQUARE, SQUARE),
        dtype=np.uint8,
        dimension_names=("c", "y", "x"),
    )
    places = [(x, y) for y in range(0, height, SQUARE) for x in range(0, width, SQUARE)]
    chosen = [places[i] for i in np.unique(np.linspace(0, len(places) - 1, squares).astype(int))]

    def work(part: list[tuple[int, int]]) -> int:
        done = 0
        with openslide.OpenSlide(path) as slide:
            for x, y in part:
                size = (min(SQUARE, width - x), min(SQUARE, height - y))
                rgb = np.asarray(slide.read_region((x, y), 0, size))[..., :3]
                array[:, y : y + size[1], x : x + size[0]] = np.moveaxis(rgb, -1, 0)
                done += size[0] * size[1]
        return done

    with ThreadPoolExecutor(THREADS) as pool:
        done = sum(pool.map(work, [chosen[i::THREADS] for i in range(THREADS)]))
    sync(out)
    return done / pixels


def copy_file(path: Path, out: Path) -> None:
    """The slide's file, byte for byte."""
    out.mkdir()
    shutil.copyfile(path, out / "copy")
    sync(out)


def decode_and_pack(path: Path, count: int) -> tuple[Callable[[], object], float]:
    """Decoding and compressing ``count`` tiles of level 0 held in memory; and their share of all levels' pixels."""
    slide = open_slide(path)
    found = own_jpeg(slide, 0)
    assert found is not None
    tiles, _ = found
    places = np.argwhere(tiles.byte_counts)
    chosen = places[np.unique(np.linspace(0, len(places) - 1, count).astype(int))]
    stored = [(tiles.stored(int(r), int(c)), int(r), int(c)) for r, c in chosen]

    def work(part: list[tuple[bytes, int, int]]) -> None:
        into = np.empty((tiles.tile[1], tiles.tile[0], 3), np.uint8)
        for data, row, column in part:
            zstd_chunk(tiles.decode(data, row, column, into))

    def run() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, [stored[i::THREADS] for i in range(THREADS)]))

    pixels = sum(level.width * level.height for level in slide.facts.levels)
    return run, len(stored) * tiles.tile[0] * tiles.tile[1] / pixels


def compare(path: Path, folder: Path, *, rounds: int, squares: int) -> dict[str, Any]:
    """Seconds for the whole slide and ratios, medians of interleaved rounds."""
    limit, share = decode_and_pack(path, LIMIT_TILES)
    out = folder / "out"
    steps: dict[str, Callable[[], float | None]] = {
        **{name: lambda options=options: by_us(path, out, **options) for name, options in PROFILES.items()},
        "openslide": lambda: by_openslide(path, out, squares),
        "copying": lambda: copy_file(path, out),
        "decoding and zstd": lambda: (limit(), share)[1],
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    sizes: dict[str, float] = {}
    for number in range(rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            part = step()
            times[name].append((time.perf_counter() - started) / (part or 1.0))
            if name in PROFILES:
                sizes[name] = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e6
            shutil.rmtree(out, ignore_errors=True)
            os.sync()  # what one contestant left to the disk does not slow the next
        told = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in times.items())
        print(f"{path.name}, round {number + 1} of {rounds}: {told}", flush=True)

    def ratio(slow: str, fast: str) -> float:
        return round(median(a / b for a, b in zip(times[slow], times[fast], strict=True)), 2)

    levels = open_slide(path).facts.levels
    return {
        "gigapixels": round(sum(level.width * level.height for level in levels) / 1e9, 3),
        "seconds": {name: round(median(values), 3) for name, values in times.items()},
        "mb": {"slide": round(path.stat().st_size / 1e6, 1), **{name: round(size, 1) for name, size in sizes.items()}},
        "times_openslide": {name: ratio("openslide", name) for name in PROFILES},
        "share_of_limit": {
            "native, of copying": ratio("copying", "native"),
            "portable, of decoding and zstd": ratio("decoding and zstd", "portable"),
        },
    }


def peak(path: Path, out: Path, profile: str) -> dict[str, float]:
    """MB by which caching raises the resident peak, and that peak."""
    rise = costs.peak_bytes(lambda: by_us(path, out, **PROFILES[profile]), steps=1)
    return {"rise_mb": round(rise / 1e6, 1), "peak_mb": round(costs._high_water() / 1e6, 1)}


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the mosaics and what is written go; default: temporary")
    parser.add_argument("--gigapixels", type=float, default=1.5, help="of the mosaic that speed is measured on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--squares", type=int, default=12, help="that OpenSlide reads, of all of the slide's")
    parser.add_argument("--sizes", type=float, nargs="*", default=(0.1, 1.5, 6.0), help="for memory, in gigapixels")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # libraries start as many threads as they like, on the same cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    if arguments.peak:
        path, out, profile = arguments.peak
        print(json.dumps(peak(Path(path), Path(out), profile)))
        return
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        mosaic = make_mosaic(folder / "mosaic.svs", arguments.gigapixels)
        speed: dict[str, Any] = {}
        for path in (mosaic, data_folder() / "slides/CMU-1-Small-Region.svs"):
            speed[path.name] = compare(path, folder, rounds=arguments.rounds, squares=arguments.squares)
            print(path.name, json.dumps(speed[path.name]), flush=True)
        memory: dict[str, Any] = {}
        for size in arguments.sizes:
            make_mosaic(mosaic, size)
            memory[f"{size:g}"] = {}
            for profile in PROFILES:
                out = folder / "out"
                found = costs.in_fresh_process([__file__, "--peak", mosaic, out, profile])
                memory[f"{size:g}"][profile] = found
                shutil.rmtree(out)
                print(f"{size:g} Gpx, {profile}:", json.dumps(found), flush=True)
    print(json.dumps({"benchmark": "caching", "speed": speed, "memory": memory}))


if __name__ == "__main__":
    main()
