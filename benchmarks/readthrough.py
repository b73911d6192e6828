"""The read-through cache on a slide that only OpenSlide decodes: what a miss costs, and what a hit saves.

    python benchmarks/readthrough.py                                      the real NDPI, a minute on a core
    python benchmarks/readthrough.py SLIDE --patches 200 --rounds 5       another slide

Reads the same patches of 256 x 256 pixels plainly (`Slide.read_level`), into an empty cache and out of a filled one, in
turn in every round, tile-aligned and anywhere; files are in the page cache. The limit beside a hit is what its chunks
take to be unpacked from memory. Ends with one JSON line of the figures: medians over the rounds, in ms a patch.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.places import data_folder
from stages.geometry import Box
from stages.pyramid.chunk_cache import CachedSlide, CachedTiles, ChunkCache
from stages.pyramid.layout import level_layouts
from stages.slide.files import Slide, open_slide

SIDE = 256


def boxes_of(slide: Slide, count: int, step: int, rng: np.random.Generator) -> list[Box]:
    """Patches at random multiples of ``step``, no two alike, in the order of reading."""
    level = slide.facts.levels[0]
    columns, rows = (level.width - SIDE) // step + 1, (level.height - SIDE) // step + 1
    places = rng.choice(columns * rows, min(count, columns * rows), replace=False)
    return [Box(int(at % columns) * step, int(at // columns) * step, SIDE, SIDE) for at in sorted(places)]


def milliseconds(read: Callable[[Box], object], boxes: list[Box]) -> float:
    """Per box."""
    started = time.perf_counter()
    for box in boxes:
        read(box)
    return (time.perf_counter() - started) / len(boxes) * 1e3


def unpack_milliseconds(slide: Slide, cache: ChunkCache, boxes: list[Box]) -> float:
    """Per box, what its chunks take to be unpacked from memory."""
    tiles = CachedTiles(slide, 0, level_layouts(slide.facts.path, slide.facts)[0].chunk, cache)
    scratch = np.empty((tiles.tile[1], tiles.tile[0], 3), np.uint8)

    def places(box: Box) -> list[tuple[int, int]]:
        rows, columns = tiles.touched(box)
        return [(row, column) for row in range(rows.start, rows.stop) for column in range(columns.start, columns.stop)]

    packed = {at: tiles.stored(*at) for box in boxes for at in places(box)}
    return milliseconds(lambda box: [tiles.decode(packed[at], *at, scratch) for at in places(box)], boxes)


def compare(slide: Slide, boxes: list[Box], rounds: int) -> dict[str, float]:
    """Medians over rounds that read the same boxes in every way."""
    times: dict[str, list[float]] = {"plain": [], "miss": [], "hit": [], "unpack": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            cache = ChunkCache(Path(folder), 10**10)
            read_plain, read_cached = partial(slide.read_level, 0), partial(CachedSlide(slide, cache).read_level, 0)
            times["plain"].append(milliseconds(read_plain, boxes))
            times["miss"].append(milliseconds(read_cached, boxes))
            times["hit"].append(milliseconds(read_cached, boxes))
            times["unpack"].append(unpack_milliseconds(slide, cache, boxes))
            sizes = [path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()]
    plain, miss, hit, unpack = (statistics.median(values) for values in times.values())
    return {
        "plain_ms": plain,
        "miss_ms": miss,
        "hit_ms": hit,
        "unpack_ms": unpack,
        "hit_times_faster": plain / hit,
        "miss_times_slower": miss / plain,
        "reads_until_it_pays": 1 + max(0, miss - plain) / (plain - hit) if hit < plain else math.inf,
        "hit_over_limit": hit / unpack,
        "kb_per_chunk": statistics.mean(sizes) / 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path, nargs="?", default=data_folder() / "slides/test3-DAPI-2-(387).ndpi")
    parser.add_argument("--patches", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    slide = open_slide(options.slide)
    if slide.direct(0):
        parser.error(f"{options.slide} is read directly, so nothing of it is cached: give one in another format")
    rng = np.random.default_rng(0)
    figures = {}
    for name, step in (("aligned", SIDE), ("unaligned", 1)):
        boxes = boxes_of(slide, options.patches, step, rng)
        figures[name] = {key: round(value, 3) for key, value in compare(slide, boxes, options.rounds).items()}
        print(f"{name}, {len(boxes)} patches: {figures[name]}", flush=True)
    print(json.dumps({"slide": options.slide.name, **figures}))


if __name__ == "__main__":
    main()
