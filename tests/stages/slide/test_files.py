"""Whole-slide files as slides: what they read as, in every process, and what comes of those that cannot be read."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from makers import APERIO, empty_tile, spoil, tissue_pixels, write_rgba, write_slide
from numpy.typing import NDArray

from stages.geometry import Box, Raster
from stages.slide.facts import SlideError
from stages.slide.files import OpenSlideSlide, open_slide


def whole(raster: Raster) -> Box:
    return Box(0, 0, raster.width, raster.height)


def test_what_is_no_slide_is_refused(tmp_path: Path) -> None:
    """A missing file, a text file, an empty file and a folder each get a clear line."""
    (tmp_path / "text.svs").write_text("hello")
    (tmp_path / "empty.svs").touch()
    with pytest.raises(SlideError, match="no such file"):
        open_slide(tmp_path / "missing.svs")
    for name in ("text.svs", "empty.svs", "."):
        with pytest.raises(SlideError, match="not a whole-slide image"):
            open_slide(tmp_path / name)


def test_transparent_parts_read_as_background(tmp_path: Path) -> None:
    """What was never scanned is background, not black; half of it, half."""
    rgba = np.dstack([tissue_pixels(512, 512, margin=0), np.full((512, 512), 255, np.uint8)])
    rgba[:100, :, 3] = 0
    rgba[100:200] = (10, 20, 30, 128)
    slide = open_slide(write_rgba(tmp_path / "a.tif", rgba))
    assert not slide.direct(0)
    pixels = slide.read_level(0, whole(slide.facts.levels[0]))
    assert (pixels[:100] == 255).all()
    # 8-bit premultiplied alpha is exact to one grey level each way
    np.testing.assert_allclose(pixels[100:200].mean((0, 1)), np.array([10, 20, 30]) / 2 + 127.5, atol=2)
    np.testing.assert_array_equal(pixels[200:], rgba[200:, :, :3])


def test_a_tile_that_aperio_leaves_out_shows_the_finer_level(tmp_path: Path) -> None:
    """Aperio's missing tiles are blank at level 0 only; above it the finer level shows through, as in OpenSlide."""
    path = write_slide(tmp_path / "a.svs", tissue_pixels(1024, 1024, margin=0), description=APERIO)
    empty_tile(path, 0, 5)
    empty_tile(path, 1, 3)
    slide = open_slide(path)
    assert slide.facts.vendor == "aperio"
    assert slide.direct(0)
    assert not slide.direct(1)
    blank = slide.read_level(0, Box(256, 256, 256, 256))
    shown = slide.read_level(1, Box(256, 256, 256, 256))
    assert (blank == 255).all()
    assert shown.std() > 10


def test_reads_do_not_depend_on_how_they_are_cut(tmp_path: Path) -> None:
    """Off whole downsamples OpenSlide interpolates; a pixel is the same whatever region it is read in."""
    rgba = np.dstack([tissue_pixels(1201, 903, margin=0), np.full((903, 1201), 255, np.uint8)])
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for level, image in enumerate((rgba, np.ascontiguousarray(rgba[::3, ::3][:, :399]))):
            tiff.write(
                image,
                subfiletype=level,
                tile=(128, 128),
                photometric="rgb",
                extrasamples=["unassalpha"],
                compression="deflate",
                metadata=None,
            )
    slide = open_slide(path)
    assert not slide.direct(1)
    with openslide.OpenSlide(path) as handle:
        assert not handle.level_downsamples[1].is_integer()
    level = slide.read_level(1, whole(slide.facts.levels[1]))
    rng = np.random.default_rng(1)
    for _ in range(20):
        x, y = rng.integers(0, 380), rng.integers(0, 280)
        box = Box(int(x), int(y), int(rng.integers(1, 399 - x + 1)), int(rng.integers(1, 301 - y + 1)))
        part = level[box.y : box.y + box.height, box.x : box.x + box.width]
        np.testing.assert_array_equal(slide.read_level(1, box), part)


def test_a_slide_pickles_small_and_without_its_handle(slides_folder: Path) -> None:
    """What travels to a worker is the path and the facts, and it reads the same there."""
    slide = open_slide(slides_folder / "even.tif")
    pixels = slide.read_level(0, Box(700, 500, 64, 64))
    shipped = pickle.dumps(slide)
    assert len(shipped) < 3000
    np.testing.assert_array_equal(pickle.loads(shipped).read_level(0, Box(700, 500, 64, 64)), pixels)


def _read(slide: OpenSlideSlide) -> tuple[int, NDArray[np.uint8]]:
    return os.getpid(), slide.read_level(0, Box(300, 200, 64, 64))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_every_process_opens_its_own_handle(tmp_path: Path, method: str) -> None:
    """A slide that was opened and read here reads the same in a process that it is sent to."""
    rgba = np.dstack([tissue_pixels(512, 512), np.full((512, 512), 255, np.uint8)])
    slide = open_slide(write_rgba(tmp_path / "a.tif", rgba))
    here = _read(slide)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        there = pool.submit(_read, slide).result(timeout=60)
    assert there[0] != here[0]
    np.testing.assert_array_equal(there[1], here[1])


def test_a_read_error_does_not_stick(tmp_path: Path) -> None:
    """OpenSlide's handles answer nothing after an error; ours is opened again, and the rest of the slide reads."""
    rgba = np.dstack([tissue_pixels(768, 768, margin=0), np.full((768, 768), 255, np.uint8)])
    path = write_rgba(tmp_path / "a.tif", rgba)
    spoil(path, 0, 4)
    slide = open_slide(path)
    for _ in range(2):
        with pytest.raises(SlideError, match=r"cannot read level 0 at \(256, 256\).*copy or scan it again"):
            slide.read_level(0, Box(256, 256, 100, 100))
        np.testing.assert_array_equal(slide.read_level(0, Box(0, 0, 256, 256)), rgba[:256, :256, :3])


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_a_slide_that_vanishes_is_a_slide_error(tmp_path: Path, compression: str) -> None:
    """A share that goes away in the middle of a run fails this slide, with a clear line."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(300, 300), compression=compression)
    shipped = pickle.dumps(open_slide(path))
    path.unlink()
    with pytest.raises(SlideError):
        pickle.loads(shipped).read_level(0, Box(0, 0, 64, 64))


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "message"),
    [("broken.svs", "not a whole-slide image"), ("unopenable.tiff", "Unsupported TIFF compression")],
)
def test_broken_slides_are_refused_when_opened(shared_data: Path, name: str, message: str) -> None:
    """Files that nothing can be made of say so at once."""
    with pytest.raises(SlideError, match=message):
        open_slide(shared_data / "slides/broken" / name)


@pytest.mark.realdata
def test_a_slide_that_opens_but_cannot_be_read(shared_data: Path) -> None:
    """A damaged slide whose header is whole opens, and every read of it is a clear error."""
    slide = open_slide(shared_data / "slides/broken/unreadable.svs")
    for _ in range(2):
        with pytest.raises(SlideError, match="the file is damaged"):
            slide.read_level(0, Box(0, 0, 16, 16))


def test_all_slides_of_a_process_share_what_openslide_keeps_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two hundred that training keeps open would hold 32 MB each."""
    given: list[object] = []
    set_cache = openslide.OpenSlide.set_cache

    def spied(self: openslide.OpenSlide, cache: openslide.OpenSlideCache) -> None:
        given.append(cache)
        set_cache(self, cache)

    monkeypatch.setattr(openslide.OpenSlide, "set_cache", spied)
    for i in range(3):
        slide = open_slide(write_slide(tmp_path / f"{i}.tif", tissue_pixels(256, 256)))
        assert isinstance(slide, OpenSlideSlide)
        slide._open()
    assert len(given) >= 3
    assert len({id(cache) for cache in given}) == 1


FEW_FILES = """
import os, resource, sys
from stages.geometry import Box
from stages.slide.files import open_slide

opened = open_slide(sys.argv[1])
opened.read_boxes(0, [Box(0, 0, 64, 64)])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
for free in range(6):
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    for _ in range(free):
        os.close(held.pop())
    said = "read"
    try:
        open_slide(sys.argv[1]).read_boxes(0, [Box(100, 100, 64, 64)])
    except Exception as exc:
        said = str(exc)
    for file in held:
        os.close(file)
    print(said)
"""


@pytest.mark.skipif(os.name == "nt", reason="it has no such limit")
@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_a_slide_is_not_called_damaged_where_too_many_files_are_open(tmp_path: Path, compression: str) -> None:
    """However many more may be opened: what cannot be read for that says so, and how to mend it."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(512, 512), compression=compression)
    done = subprocess.run([sys.executable, "-c", FEW_FILES, str(path)], capture_output=True, text=True, check=True)
    *refused, last = done.stdout.splitlines()
    assert "too many" in refused[0].lower()
    assert all(line == "read" or line.endswith("raise the limit (ulimit -n)") for line in refused)
    assert last == "read"
