"""The contract of slides, on every implementation of the protocol."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from images import write_image
from makers import tissue_pixels, write_rgba

from stages.geometry import Box
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.chunk_cache import CachedSlide, ChunkCache
from stages.pyramid.open import open_pyramid
from stages.slide.files import open_slide
from stages.slide.protocol import Slide


@pytest.fixture(
    scope="module",
    params=[
        *("its tiles", "OpenSlide", "tifffile", "turned"),
        *("native pyramid", "portable pyramid", "chunks on disk", "foreign"),
    ],
)
def any_slide(request: pytest.FixtureRequest, slides_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Slide:
    """Every implementation of the protocol."""
    folder = tmp_path_factory.mktemp("any")
    slide: Slide = open_slide(slides_folder / "odd.tif")
    if request.param == "OpenSlide":
        image = tissue_pixels(1803, 2401)
        slide = open_slide(write_rgba(folder / "a.tif", np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])))
        assert not slide.direct(0)
    elif request.param in ("tifffile", "turned"):
        planes = np.ascontiguousarray(tissue_pixels(1920, 2400).transpose(2, 0, 1))
        turned = [(274, "H", 1, 6 if request.param == "turned" else 1, True)]
        options = {"photometric": "minisblack", "tile": (240, 240), "metadata": None, "extratags": turned}
        tifffile.imwrite(folder / "a.tif", planes, **options)
        slide = open_slide(folder / "a.tif")
        assert slide.direct(0) == (request.param == "tifffile")
    elif request.param == "chunks on disk":
        slide = CachedSlide(slide, ChunkCache(folder / "chunks", 10**8))
    elif request.param == "foreign":
        slide = open_pyramid(write_image(folder / "a.zarr", tissue_pixels(1803, 2401)))
    elif request.param != "its tiles":
        profile = request.param.split()[0]
        slide = open_pyramid(cache_pyramid(slide, folder / "a.zarr", profile=profile, everything=True))
    return slide


def test_boxes_read_together_are_those_read_alone(any_slide: Slide) -> None:
    """Tiles, parts of tiles, boxes over many, the same box twice, corners, none; by threads, and after a pickle."""
    level = any_slide.facts.levels[0]
    tile = any_slide.facts.tile_sizes[0][0]
    boxes = [Box(tile, 2 * tile, tile, tile)] * 2 + [Box(300, 500, 256, 256), Box(0, 0, 700, 300)]
    boxes += [Box(x, y, 1, 1) for x in (0, level.width - 1) for y in (0, level.height - 1)]
    alone = [any_slide.read_level(0, box) for box in boxes]
    shipped: Slide = pickle.loads(pickle.dumps(any_slide))
    with ThreadPoolExecutor(4) as pool:
        tries = list(pool.map(lambda _: shipped.read_boxes(0, boxes), range(4)))
    for together in tries:
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one, other)
    assert any_slide.read_boxes(0, []) == []
    assert any_slide.tile_bytes(0).shape == (-(-level.height // tile), -(-level.width // tile))


def test_where_a_system_cannot_read_at_a_place_the_pixels_are_the_same(
    any_slide: Slide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By threads, as ever: Windows has no `os.pread`."""
    boxes = [Box(x, y, 250, 250) for x in range(0, 1500, 240) for y in range(0, 1600, 480)]
    expected = any_slide.read_boxes(0, boxes)
    monkeypatch.delattr(os, "pread")
    shipped: Slide = pickle.loads(pickle.dumps(any_slide))
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: shipped.read_boxes(0, boxes), range(4)):
            np.testing.assert_array_equal(found, expected)


def test_boxes_are_read_into_the_memory_that_is_given(any_slide: Slide) -> None:
    """Contiguous memory or not: only the boxes' own pixels are touched, and what was given is what comes back."""
    boxes = [Box(240, 480, 240, 240), Box(240, 480, 240, 240), Box(300, 500, 256, 256), Box(0, 0, 700, 300)]
    memory = np.full((4, 800, 800, 3), 7, np.uint8)
    for out in (
        [m[50:][: box.height, 60:][:, : box.width] for m, box in zip(memory, boxes, strict=True)],
        [np.empty((box.height, box.width, 3), np.uint8) for box in boxes],
    ):
        found = any_slide.read_boxes(0, boxes, out=out)
        for target, pixels, box in zip(out, found, boxes, strict=True):
            assert pixels is target
            np.testing.assert_array_equal(pixels, any_slide.read_level(0, box))
    for m, box in zip(memory, boxes, strict=True):
        m[50 : 50 + box.height, 60 : 60 + box.width] = 7
    assert (memory == 7).all()
