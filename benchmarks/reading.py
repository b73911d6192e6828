"""Reading patches through the pipeline's own path, against OpenSlide and against the physical limit.

    python benchmarks/reading.py [--folder DIR] [--patches 256] [--rounds 7] [--sizes 0.1 1.5 6]       about 5 minutes

On mosaics of the real slide's tiles (`mosaic.py`; made in DIR unless they are there, 1.6 GB in all) and on the slide
itself, files in the page cache. Patches are what `PatchReader` gives on two dask threads, of cells drawn at random, in
the sampler's order: each a whole tile ("aligned"), 256 x 256 px anywhere ("unaligned"), or 256 x 256 px anywhere of 2
or 1.7 times the level's µm/px ("halved", "scaled"). OpenSlide reads the same regions in the same order with
`read_region`, its cache emptied before every round, on one thread and on two with a handle each; then Pillow resizes
them with BOX, where that is needed (at 1.7 it is quicker than an average by area, which it is not).
The limit is what it takes to decode the tiles that are touched, each once for a block of patches, from memory into
memory that is there already, on two threads. Contestants take turns in every round; figures are medians of rounds.

With --peers, only level 0 of the middle mosaic, of a slide of JPEG 2000 (as Aperio stores it, at some 35 dB: pixels of
the real slide, again and again) and of an NDPI, and beside OpenSlide cuCIM and fastslide where they are installed
(`pip install cucim-cu12 fastslide`): CPU time on one thread, which other work on the machine changes little, then wall
and CPU time on two. Each reads as it is quickest, as does `openslide, RGB`, whose pixels Pillow makes RGB of where
`openslide` has them cut out by numpy. `whole tiles` and `parts` decode what is touched from memory into memory, each
tile once for a block: all of it, or, where `stages/slide/jpeg_parts.py` has its library, only what is asked for.

Then opening at three sizes: OpenSlide's handle, `open_slide` (of which that handle is a part), its virtual pyramid,
and the first read, which also compares tiles with OpenSlide. Then memory: by how much opening and reading raise a fresh
process's resident peak over what it holds with everything imported. Ends with one JSON line of the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import pickle
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import dask
import imagecodecs
import numpy as np
import openslide
import tifffile
import torch
import zarr
from numpy.typing import NDArray
from PIL import Image

from benchmarks import costs
from benchmarks.mosaic import SLIDE, make_mosaic, read_piece, repeat
from benchmarks.places import data_folder
from pipeline.model.reading import read_together
from stages.geometry import Box, Raster
from stages.patches import PatchReader
from stages.pyramid.cache import cache_pyramid, open_pyramid
from stages.pyramid.store import SlideStore
from stages.sampling.walk import hilbert_position
from stages.slide.files import Slide, open_slide
from stages.slide.jpeg_parts import Parts, Stream, is_installed
from stages.slide.tiles import box_arrays

SIDE = 256
MPP = 0.25
NDPI = "slides/test3-DAPI-2-(387).ndpi"
CACHE = 32 * 2**20
"""Bytes of OpenSlide's own cache, by default."""
CASES = {"aligned": 1.0, "unaligned": 1.0, "halved": 2.0, "scaled": 1.7}
"""Level pixels along one of the patches'."""
CACHES = {"mosaic": ("native",), "small mosaic": ("native", "portable"), "real slide": ("native", "portable")}
"""Portable pyramids are ten times their slides, so that of the large mosaic is left out."""


def drawn(slide: Slide, case: str, count: int) -> tuple[PatchReader, NDArray[np.int64]]:
    """A reader of a case's patches and ``count`` cells, no two alike, in the order in which the sampler draws them."""
    level, mpp, (tile, _) = slide.facts.levels[0], slide.facts.require_mpp().x, slide.facts.tile_sizes[0]
    (side, offset), factor = (tile, 0) if case == "aligned" else (SIDE, 101), CASES[case]
    pitch = math.ceil(side * factor)
    cells = Raster(offset, offset, pitch, pitch, (level.width - offset) // pitch, (level.height - offset) // pitch)
    every = cells.width * cells.height
    chosen = np.random.default_rng(0).choice(every, min(count, every), replace=False)
    order = np.argsort(hilbert_position(cells.height, cells.width, chosen))
    return PatchReader(slide, cells, side, mpp * factor), chosen[order]


def by_pipeline(reader: PatchReader, cells: NDArray[np.int64], *, threads: int = 2) -> NDArray[np.uint8]:
    """As the model reads them."""
    with dask.config.set(num_workers=threads):
        (pixels,) = read_together([(reader.patches, torch.from_numpy(cells))], torch.device("cpu"))
    return pixels.numpy()


def by_openslide(
    handles: Sequence[openslide.OpenSlide], reader: PatchReader, cells: NDArray[np.int64], *, convert: bool = False
) -> NDArray[np.uint8]:
    """One thread for each handle, on a share of the patches each; RGB is made by numpy, or by Pillow's convert."""
    rasters = reader.rasters(cells)

    def read(handle: openslide.OpenSlide, part: Sequence[Raster]) -> list[NDArray[np.uint8]]:
        handle.set_cache(openslide.OpenSlideCache(CACHE))
        pixels = []
        for raster in part:
            extent = raster.scale_x * raster.width
            region = handle.read_region((int(raster.x), int(raster.y)), 0, (math.ceil(extent - 1e-6),) * 2)
            if raster.scale_x > 1.01:
                box = (0, 0, extent, extent)
                region = region.convert("RGB").resize((raster.width, raster.height), Image.Resampling.BOX, box)
            pixels.append(np.asarray(region.convert("RGB")) if convert else np.asarray(region)[..., :3])
        return pixels

    shares = [list(part) for part in np.array_split(np.array(rasters, object), len(handles))]
    with ThreadPoolExecutor(len(handles)) as pool:
        return np.stack([pixels for part in pool.map(read, handles, shares) for pixels in part])


def by_cucim(slide: Any, threads: int, reader: PatchReader, cells: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Of a `cucim.CuImage`; it keeps no tiles unless it is told to."""

    def read(raster: Raster) -> NDArray[np.uint8]:
        corner, size = (int(raster.x), int(raster.y)), (raster.width, raster.height)
        return np.asarray(slide.read_region(corner, size, 0))[..., :3]

    return _in_threads(read, threads, reader.rasters(cells))


def by_fastslide(slide: Any, threads: int, reader: PatchReader, cells: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Of a `fastslide.FastSlide`; by default it keeps no tiles."""

    def read(raster: Raster) -> NDArray[np.uint8]:
        corner, size = (int(raster.x), int(raster.y)), (raster.width, raster.height)
        return np.asarray(slide.read_region(corner, 0, size).numpy())[..., :3]

    return _in_threads(read, threads, reader.rasters(cells))


def _in_threads(
    read: Callable[[Raster], NDArray[np.uint8]], threads: int, rasters: Sequence[Raster]
) -> NDArray[np.uint8]:
    if threads == 1:
        return np.stack([read(raster) for raster in rasters])
    with ThreadPoolExecutor(threads) as pool:
        return np.stack(list(pool.map(read, rasters)))


def peers(path: Path, case: str, *, count: int, rounds: int) -> dict[str, Any]:
    """Milliseconds a patch, and how many times as long as we other readers take for patches of level 0."""
    slide = open_slide(path)
    reader, cells = drawn(slide, case, count)
    own, direct = by_pipeline(reader, cells), slide.tiles(0) is not None

    def by_us(threads: int) -> NDArray[np.uint8]:
        # where OpenSlide decodes for us, too, a handle that holds no tiles yet; opening it counts
        fresh = reader if direct else replace(reader, slide=pickle.loads(pickle.dumps(slide)))
        return by_pipeline(fresh, cells, threads=threads)

    found: dict[str, Any] = {"patches": len(cells), "compiled": is_installed()}
    for threads in (1, 2):
        handles = [openslide.OpenSlide(path) for _ in range(threads)]
        steps: dict[str, Callable[[], NDArray[np.uint8]]] = {
            "slide": partial(by_us, threads),
            "openslide": partial(by_openslide, handles, reader, cells),
            "openslide, RGB": partial(by_openslide, handles, reader, cells, convert=True),
        }
        if direct:
            with contextlib.suppress(ImportError):
                from cucim import CuImage

                steps["cucim"] = partial(by_cucim, CuImage(str(path)), threads, reader, cells)
            with contextlib.suppress(ImportError):
                import fastslide

                its = fastslide.FastSlide.from_file_path(str(path))
                steps["fastslide"] = partial(by_fastslide, its, threads, reader, cells)
        for name, step in steps.items():
            off = int(np.abs(step().astype(int) - own).max())
            assert off <= 2 * (name == "fastslide"), (name, off)  # it decodes by the quicker cosine transform
        limits: dict[str, Callable[[], object]] = {}
        if direct:
            limits = {
                "whole tiles": decoding(reader, cells, threads=threads),
            }
            if is_installed():
                limits["parts"] = decoding(reader, cells, threads=threads, parts=True)
        wall, cpu = time.perf_counter, time.process_time
        times = costs.interleaved({**steps, **limits}, wall, cpu, rounds=rounds)
        for place, clock in enumerate(("wall", "cpu")):
            if (threads, clock) == (1, "wall"):
                continue
            ms = {name: found_ms[place] / len(cells) for name, found_ms in times.items()}
            found[f"{threads} thread{'s' * (threads > 1)}, {clock}"] = {
                "ms": {name: round(value, 3) for name, value in ms.items()},
                "over": {name: round(value / ms["slide"], 2) for name, value in ms.items() if name != "slide"},
            }
    return found


def decoding(
    reader: PatchReader, cells: NDArray[np.int64], *, threads: int = 2, parts: bool = False
) -> Callable[[], None]:
    """The limit: decode what the patches touch, each tile once for a block, or of each what they ask for."""
    grid = reader.slide.tiles(0)
    assert grid is not None
    rasters = reader.rasters(cells)
    blocks: list[tuple[list[Stream], list[list[int]], list[Box]]] = []
    for block in reader.blocks(cells):
        touched: dict[tuple[int, int], list[int]] = {}
        boxes: list[Box] = []
        for raster in (rasters[i] for i in block):
            left, top, right, bottom = raster.extent_level0
            whole = Box(int(left), int(top), math.ceil(right - 1e-6) - int(left), math.ceil(bottom - 1e-6) - int(top))
            boxes.append(whole.intersect(Box(0, 0, *grid.size)))
            rows, columns = grid.touched(boxes[-1])
            for at in product(range(rows.start, rows.stop), range(columns.start, columns.stop)):
                touched.setdefault(at, []).append(len(boxes) - 1)
        blocks.append(
            ([(at, grid.stored(*at)) for at in sorted(touched)], [touched[at] for at in sorted(touched)], boxes)
        )
    memory = {id(block): box_arrays(block[2]) for block in blocks}

    def decode(block: tuple[list[Stream], list[list[int]], list[Box]]) -> None:
        streams, touching, boxes = block
        if parts:
            assert all(Parts(grid.prefix, grid.tile, boxes, memory[id(block)]).decode(streams, touching))
            return
        into = np.empty((grid.tile[1], grid.tile[0], 3), np.uint8)
        for at, stream in streams:
            grid.decode(stream, *at, into)

    def run() -> None:
        if threads == 1:
            for block in blocks:
                decode(block)
            return
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(decode, blocks))

    return run


def read_case(path: Path, pyramids: dict[str, Path], case: str, *, count: int, rounds: int) -> dict[str, Any]:
    """Milliseconds a patch of each contestant, and the ratios that count."""
    slide = open_slide(path)
    reader, cells = drawn(slide, case, count)
    handles = [openslide.OpenSlide(path) for _ in range(2)]
    steps: dict[str, Callable[[], object]] = {
        "openslide": partial(by_openslide, handles[:1], reader, cells),
        "openslide, two threads": partial(by_openslide, handles, reader, cells),
        "slide": partial(by_pipeline, reader, cells),
        "decode only": decoding(reader, cells),
    }
    expected = by_pipeline(reader, cells)
    for profile, folder in pyramids.items():
        of_pyramid, _ = drawn(open_pyramid(folder), case, count)
        steps[profile] = partial(by_pipeline, of_pyramid, cells)
        assert np.array_equal(by_pipeline(of_pyramid, cells), expected), (case, profile)
    difference = np.abs(by_openslide(handles, reader, cells).astype(int) - expected)
    assert case == "scaled" or difference.max() <= (case == "halved"), case  # Pillow rounds along each axis
    times = {name: ms / len(cells) for name, ms in costs.interleaved_ms(steps, rounds=rounds).items()}
    cost = reader.count(cells)
    found: dict[str, Any] = {
        "patches": len(cells),
        "tiles": cost.tiles,
        "kB": round(cost.bytes / 1e3, 1),
        "decoded_mb_s": round(cost.bytes / 1e3 / (times["decode only"] * len(cells)), 1),
        "ms": {name: round(ms, 4) for name, ms in times.items()},
        "over_openslide": round(times["openslide"] / times["slide"], 2),
        "over_openslide_two_threads": round(times["openslide, two threads"] / times["slide"], 2),
        "of_limit": round(times["decode only"] / times["slide"], 3),
    }
    for profile in pyramids:
        found[f"{profile}_over_slide"] = round(times["slide"] / times[profile], 3)
        found[f"{profile}_over_openslide"] = round(times["openslide"] / times[profile], 2)
    return found


def open_times(paths: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Milliseconds to open each: OpenSlide's handle alone, the slide, its virtual pyramid; and its first read."""

    def first_read(path: Path) -> None:
        slide = open_slide(path)
        slide.read_level(0, Box(0, 0, 16, 16))

    steps: dict[str, Callable[[], object]] = {}
    for size, path in paths.items():
        steps[f"openslide {size}"] = lambda path=path: openslide.OpenSlide(path).close()
        steps[f"slide {size}"] = partial(open_slide, path)
        steps[f"virtual {size}"] = lambda path=path: zarr.open_group(SlideStore(open_slide(path)), mode="r")["0"]
        steps[f"first read {size}"] = partial(first_read, path)
    return {name: round(ms, 2) for name, ms in costs.interleaved_ms(steps, rounds=rounds).items()}


def peak(path: Path, count: int) -> float:
    """MB by which opening a slide and reading unaligned patches of it raises this process's resident peak."""

    def step() -> None:
        reader, cells = drawn(open_pyramid(path), "unaligned", count)
        by_pipeline(reader, cells)

    return round(costs.peak_bytes(step, steps=1) / 1e6, 1)


def make_jpeg2000(path: Path, side: int = 2**14) -> Path:
    """A slide as Aperio stores it, of tiles of 256 x 256 pixels of the real one, with loss."""
    if path.exists():
        return path
    pixels = read_piece(data_folder() / SLIDE).pixels
    tiles = [
        [
            imagecodecs.jpeg2k_encode(
                np.ascontiguousarray(pixels[y : y + SIDE, x : x + SIDE]), level=38, codecformat="j2k", reversible=False
            )
            for x in range(0, 8 * SIDE, SIDE)
        ]
        for y in range(0, 8 * SIDE, SIDE)
    ]
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(
            repeat(tiles, side // SIDE),
            shape=(side, side, 3),
            dtype=np.uint8,
            tile=(SIDE, SIDE),
            photometric="rgb",
            compression="aperio_jp2000_rgb",
            description=f"Aperio Image Library v11.2.1\r\n{side}x{side} -> {side}x{side} J2K/KDU Q=30|MPP = {MPP}",
            metadata=None,
            software=False,
        )
    return path


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where mosaics and pyramids are kept; default: a temporary one")
    parser.add_argument("--patches", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sizes", type=float, nargs=3, default=(0.1, 1.5, 6.0), help="of the mosaics, in gigapixels")
    parser.add_argument("--peers", action="store_true", help="only level 0, beside other readers")
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(json.dumps({"rise_mb": peak(arguments.peak, arguments.patches)}))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        mosaics = {f"{size:g}": folder / f"mosaic-{size:g}.svs" for size in arguments.sizes}
        for size, path in mosaics.items():
            if not path.exists() and (not arguments.peers or path == list(mosaics.values())[1]):
                make_mosaic(path, float(size), mpp=MPP)
        small, large, _ = mosaics.values()
        if arguments.peers:
            others = {"JPEG 2000": make_jpeg2000(folder / "jpeg2000.svs"), "NDPI": data_folder() / NDPI}
            rows = [("JPEG", large, case) for case in ("aligned", "unaligned")]
            for name, path, case in [*rows, *((name, path, "unaligned") for name, path in others.items())]:
                count = arguments.patches if name != "JPEG 2000" else arguments.patches // 4
                beside = peers(path, case, count=count, rounds=arguments.rounds)
                print(f"{name}, {case}:", json.dumps(beside), flush=True)
            return
        slides = {"mosaic": large, "small mosaic": small, "real slide": data_folder() / "slides/CMU-1-Small-Region.svs"}
        reading: dict[str, Any] = {}
        for name, path in slides.items():
            pyramids = {
                profile: cache_pyramid(
                    open_slide(path), folder / f"{path.stem}-{profile}.zarr", profile=profile, everything=True
                )
                for profile in CACHES[name]
            }
            for case in CASES:
                found = read_case(path, pyramids, case, count=arguments.patches, rounds=arguments.rounds)
                reading[f"{name}, {case}"] = found
                print(f"{name}, {case}:", json.dumps(found), flush=True)
        opening = open_times(mosaics, 3 * arguments.rounds)
        print("opening, ms:", json.dumps(opening), flush=True)
        memory: dict[str, float] = {
            size: costs.in_fresh_process([__file__, "--peak", path, "--patches", arguments.patches])["rise_mb"]
            for size, path in mosaics.items()
        }
    memory["largest_over_smallest"] = round(max(memory.values()) / min(memory.values()), 3)
    print("memory, MB:", json.dumps(memory), flush=True)
    print(json.dumps({"benchmark": "reading", "reading": reading, "opening_ms": opening, "memory_mb": memory}))


if __name__ == "__main__":
    main()
