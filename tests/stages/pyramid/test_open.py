"""A pyramid is opened and read as a slide, lightly; whatever was spoilt in it is noticed."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from makers import APERIO, ROOT, Cached, assert_same_pixels, measured_reads, tissue_pixels, write_slide

from stages.geometry import Box, Mpp, Raster, patch_rasters
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.open import open_pyramid
from stages.pyramid.plan import Wish
from stages.slide.facts import SlideError
from stages.slide.files import open_slide
from stages.slide.render import count_reads


def test_tile_bytes_are_those_of_the_chunks(cached: Cached) -> None:
    """Costs are exact: all chunks and the shards' indices make up the files."""
    _, pyramid = cached("odd.tif", "portable")
    for i, layout in enumerate(pyramid.layouts):
        files = [path.stat().st_size for path, _ in layout.shards()]
        index = 16 * layout.chunks_per_shard[0] * layout.chunks_per_shard[1] + 4
        assert pyramid.direct(i)
        counts = pyramid.tile_bytes(i)
        assert counts.shape == (-(-layout.size[0] // 240), -(-layout.size[1] // 240))
        assert counts.min() > 0
        assert counts.sum() == sum(files) - index * len(files)
    patch = Raster(30, 30, 1, 1, 400, 100)
    assert count_reads(pyramid, [patch]).bytes == pyramid.tile_bytes(0)[0, :2].sum()


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count a process's reads")
@pytest.mark.parametrize("profile", ["native", "portable"])
def test_counted_bytes_are_the_bytes_really_read(cached: Cached, profile: Wish) -> None:
    """Reading patches costs their chunks, and of each shard that they touch its index and a reader's buffer."""
    _, pyramid = cached("odd.tif", profile)
    centres = np.random.default_rng(2).uniform((300, 300), (1500, 2100), (20, 2))
    patches = patch_rasters(centres, Mpp(0.5, 0.5), 256, 0.5)
    ((counted, read),) = measured_reads([(pyramid.facts.path, patches)])
    touched = count_reads(pyramid, patches).tiles
    assert counted <= read <= counted + touched * (16 * 17**2 + 4 + 2 * 8192)


def test_a_pyramid_pickles_small_and_reads_in_another_process(pyramid: Path) -> None:
    """What travels is the path and the facts."""
    slide = open_pyramid(pyramid)
    pixels = slide.read_level(0, Box(200, 100, 64, 64))
    assert len(pickle.dumps(slide)) < 6000
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(slide.read_level, 0, Box(200, 100, 64, 64)).result(timeout=60)
    np.testing.assert_array_equal(there, pixels)


def test_a_missing_or_truncated_shard_is_noticed_when_opened(pyramid: Path) -> None:
    """Zarr would read a missing shard as blank; here it is damage, and the remedy works."""
    slide = open_slide(pyramid.with_name("slide.tif"))
    shard = pyramid / "0/c/0/0/0"
    for spoil in (lambda: os.truncate(shard, shard.stat().st_size - 1), shard.unlink):
        spoil()
        with pytest.raises(SlideError, match=r"damaged: 0/c/0/0/0 has \d+ bytes, expected \d+; delete it and run"):
            open_pyramid(pyramid)
        cache_pyramid(slide, pyramid)
        assert_same_pixels(slide, open_pyramid(pyramid))


def test_flipped_bits_are_noticed_when_read(pyramid: Path) -> None:
    """Chunks carry a checksum: damaged pixels are an error, never data."""
    shard = pyramid / "0/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 0xFF
    shard.write_bytes(data)
    slide = open_pyramid(pyramid)
    with pytest.raises(SlideError, match=r"cannot read the pyramid's level 0 .*delete it and run `saccade cache`"):
        slide.read_level(0, Box(0, 0, 600, 500))


def test_what_is_no_slide_is_refused(tmp_path: Path) -> None:
    """A folder, another zarr, a zipped one and a missing path each get a clear line; a slide file opens as one."""
    zarr.create_group(tmp_path / "other.zarr")
    (tmp_path / "zipped.ozx").touch()
    for name, why in (
        (".", r"not a finished pyramid of ours nor an OME-Zarr image.*`saccade cache`"),
        ("other.zarr", "holds no OME-Zarr image"),
        ("zipped.ozx", "unpack it"),
    ):
        with pytest.raises(SlideError, match=why):
            open_pyramid(tmp_path / name)
    with pytest.raises(SlideError, match="no such file"):
        open_pyramid(tmp_path / "missing.ome.zarr")
    path = write_slide(tmp_path / "a.tif", tissue_pixels(300, 300), levels=1)
    assert open_pyramid(path, mpp=0.25).facts == open_slide(path, mpp=0.25).facts


@pytest.mark.parametrize("bad", ["gone", "empty", "short", "cut", "shifted", "zeroed", "longer", "other index"])
def test_a_shard_that_is_not_whole_is_noticed(pyramid: Path, bad: str) -> None:
    """However a shard was spoilt, behind the back of who has the pyramid open: an error that names it, no pixels."""
    slide = open_pyramid(pyramid)
    shard = pyramid / "0/c/0/0/0"
    data = shard.read_bytes()
    shard.unlink()
    if bad != "gone":
        flipped = bytes([data[-20] ^ 1])
        contents = {
            "empty": b"",
            "short": data[:50],
            "cut": data[:-1],
            "shifted": data[1:],
            "zeroed": bytes(len(data)),
            "longer": data + b"x",
            "other index": data[:-20] + flipped + data[-19:],
        }
        shard.write_bytes(contents[bad])
    with pytest.raises(SlideError, match=r"cannot read the pyramid's level 0 .*c/0/0/0.*delete it and run"):
        slide.read_level(0, Box(0, 0, 10, 10))
    with pytest.raises(SlideError, match=r"cannot read the pyramid's level 0.*c/0/0/0.*delete it and run"):
        slide.tile_bytes(0)


LOADED = """
import json, sys
exec(sys.argv[1])
print(json.dumps(sorted(sys.modules)))
"""

READING = """
from stages.geometry import Box
from stages.pyramid.open import open_pyramid
slide = open_pyramid({!r})
assert slide.direct(0)
slide.read_level(0, Box(100, 100, 50, 50))
slide.tile_bytes(0)
"""


def loaded(code: str) -> set[str]:
    """The modules that a fresh process has after this."""
    done = subprocess.run([sys.executable, "-c", LOADED, code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("what", ["slide", "native pyramid", "portable pyramid"])
def test_reading_loads_nothing_that_writes(cached: Cached, tmp_path: Path, what: str) -> None:
    """Beyond the libraries that open a file and decode a tile, our own files and little of Python's.

    That is 290 modules for a slide and 228 for a pyramid; it was 764 when every reader came in through the writer.
    """
    needed = "import google_crc32c, numpy, numpy.typing, simplejpeg"
    if what == "slide":
        path = write_slide(tmp_path / "a.svs", tissue_pixels(600, 500), description=APERIO)
        needed += ", openslide, tifffile"
    else:
        path = cached("odd.tif", "native" if what == "native pyramid" else "portable")[1].facts.path
    found = loaded(READING.format(str(path)))
    heavy = {"zarr", "numcodecs", "torch", "scipy", "skimage", "matplotlib", "dask", "pydicom", "asyncio"}
    writing = {f"stages.pyramid.{name}" for name in ("cache", "chunks", "copying", "plan", "transaction", "export")}
    assert not found & (heavy | writing)
    assert len({name for name in found if name.startswith("stages")}) <= 31
    assert len(found - loaded(needed)) <= 83  # Python's own differ from version to version
