"""Tiles show what OpenSlide shows of the same place, and what is kept of them is bounded."""

from __future__ import annotations

import io
import math
import threading
from pathlib import Path

import numpy as np
import openslide
import pytest
from makers import tissue_pixels, write_slide
from numpy.typing import NDArray
from PIL import Image

from pipeline.view import tiles as tiles_module
from pipeline.view.frame import Frame
from pipeline.view.tiles import Recent, Tiles
from stages.pyramid.open import open_pyramid
from stages.slide.protocol import Slide
from stages.slide.render import render


def decoded(data: bytes | None) -> NDArray[np.uint8]:
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("side", [256, 512])
@pytest.mark.parametrize("name", ["even.tif", "odd.tif", "plain.tif"])
def test_every_tile_of_every_zoom_is_the_slide_s_own_picture(slides_folder: Path, name: str, side: int) -> None:
    """OpenSlide's level-0 region of the same place, averaged over squares; but for JPEG and what levels lost."""
    path = slides_folder / name
    tiles = Tiles(lambda number: open_pyramid(path))
    with openslide.OpenSlide(path) as slide:
        width, height = slide.dimensions
        frame = Frame.of(width, height, None, (side, side))
        assert frame.top >= 2
        for zoom in range(frame.top + 1):
            scale = 2 ** (frame.top - zoom)
            for row in range(math.ceil(height / scale / side)):
                for column in range(math.ceil(width / scale / side)):
                    shown = decoded(tiles.tile(0, frame, zoom, column, row)).astype(float)
                    x, y = column * side * scale, row * side * scale
                    w, h = (min(side, (end - at) // scale) for at, end in ((x, width), (y, height)))
                    region = np.asarray(slide.read_region((x, y), 0, (w * scale, h * scale)).convert("RGB"), float)
                    means = region.reshape(h, scale, w, scale, 3).mean((1, 3))
                    error = np.abs(shown[:h, :w] - means)
                    assert error.mean() < 4, (zoom, column, row)
                    if means.std() < 1:
                        continue  # glass
                    shifted = np.abs(shown[: h - 1, : w - 1] - means[1:, 1:]).mean()
                    assert shifted > error[: h - 1, : w - 1].mean(), "a pixel off would be seen"


def test_where_a_zoom_is_a_level_tiles_are_the_slide_s_own_bytes(slides_folder: Path) -> None:
    slide = open_pyramid(slides_folder / "even.tif")
    tiles, frame = Tiles(lambda number: slide), Frame.of_slide(slide.facts)
    assert (frame.side, frame.top) == (256, 3)
    assert [one.scale_x for one in slide.facts.levels] == [1, 2, 4]
    for zoom, level in ((3, 0), (2, 1), (1, 2)):
        own = slide.tiles(level)
        assert own is not None
        stored, found = own.stored(0, 1), tiles.tile(0, frame, zoom, 1, 0)
        assert found is not None
        assert found.endswith(stored[stored.index(b"\xff\xda") :])
        raster = frame.tile(zoom, 1, 0)
        assert raster is not None
        np.testing.assert_array_equal(decoded(found), render(slide, raster))


def test_what_is_kept_is_bounded_and_the_slide_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles_module, "KEPT_BYTES", 200_000)
    path = write_slide(tmp_path / "a.tif", tissue_pixels(3000, 3000))
    opened = []
    tiles = Tiles(lambda number: opened.append(number) or open_pyramid(path))
    frame = Frame.of(3000, 3000, None)
    most = 0
    for _ in range(2):
        for column in range(6):
            for row in range(6):
                assert tiles.tile(0, frame, frame.top, column, row) is not None
                most = max(most, tiles.held)
    assert most <= 200_000
    assert tiles.held > 50_000
    assert opened == [0]


def test_what_was_used_last_is_kept() -> None:
    made: list[int] = []

    def make(value: int) -> int:
        made.append(value)
        return value

    recent: Recent[int] = Recent(3, lambda value: 1)
    for key in (1, 2, 3, 1, 4, 1, 3, 2):
        assert recent.get(key, lambda: make(key)) == key  # noqa: B023
    assert made == [1, 2, 3, 4, 2]
    assert recent.held == 3


def test_one_value_larger_than_the_bound_is_kept_alone() -> None:
    recent: Recent[bytes] = Recent(10, len)
    recent.get("a", lambda: b"12345")
    recent.get("b", lambda: b"x" * 100)
    assert recent.held == 100
    recent.get("c", lambda: b"1")
    assert recent.held == 1


def test_several_threads_get_the_same_tiles(slides_folder: Path) -> None:
    def opened(number: int) -> Slide:
        return open_pyramid(slides_folder / "even.tif")

    tiles, frame = Tiles(opened), Frame.of(2048, 1536, None)
    places = [(column, row) for column in range(4) for row in range(3)]
    alone = {(c, r): Tiles(opened).tile(0, frame, 2, c, r) for c, r in places}
    found: list[bool] = []

    def ask() -> None:
        found.extend(tiles.tile(0, frame, 2, c, r) == alone[c, r] for c, r in places)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 72
    assert all(found)
