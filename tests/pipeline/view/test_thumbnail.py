"""The run's thumbnail stands for tiles that a slide without coarse levels would be read whole for, in their place."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from makers import tissue_pixels, write_slide
from numpy.typing import NDArray
from PIL import Image
from viewing import point_at

from pipeline.output.slide_folder import read_commit
from pipeline.view import viewer as viewer_module
from pipeline.view.run_folder import open_run
from pipeline.view.thumbnail import overview, part, thumbnail_place
from pipeline.view.viewer import Viewer
from stages.geometry import Raster
from stages.pyramid.open import open_pyramid
from stages.slide.render import render


def decoded(data: bytes | None) -> NDArray[np.float64]:
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"), float)


@pytest.mark.parametrize("name", ["even", "odd"])
@pytest.mark.parametrize(
    ("x", "y", "scale"), [(0, 0, 16), (0, 0, 32), (320, 160, 20), (-320, -160, 16), (1280, 960, 16)]
)
def test_a_part_is_what_the_slide_shows_there(viewed: Path, name: str, x: int, y: int, scale: int) -> None:
    folder = viewed / "slides" / name
    commit = read_commit(folder)
    assert commit is not None
    place = thumbnail_place(folder, commit["pictures"])
    assert place is not None
    raster = Raster(x, y, scale, scale, 96, 96)
    slide = open_pyramid(viewed.parent / f"{name}.tif")
    ours = decoded(part(folder, place, raster, slide.facts.background))
    theirs = render(slide, raster).astype(float)
    error = np.abs(ours - theirs).mean()
    assert error < 8
    for down, right in ((2, 0), (0, 2), (-2, 0), (0, -2)):
        assert error < np.abs(ours - np.roll(theirs, (down, right), (0, 1))).mean(), "two pixels off would be seen"


def test_it_takes_the_place_of_tiles_only_where_reading_is_dear(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_slide(tmp_path / "even.tif", np.tile(tissue_pixels(1250, 1250), (4, 4, 1)), levels=1)
    point_at(run, "even", tmp_path / "even.tif")
    viewer = Viewer(open_run(run))
    monkeypatch.setattr(viewer_module, "MOST_PIXELS", 2**40)
    slow = [viewer.tile(0, zoom, 0, 0) for zoom in range(6)]
    monkeypatch.undo()
    quick = [viewer.tile(0, zoom, 0, 0) for zoom in range(6)]
    assert [one == other for one, other in zip(slow, quick, strict=True)] == [False, False, True, True, True, True]
    commit = read_commit(run / "slides" / "even")
    assert commit is not None
    place = thumbnail_place(run / "slides" / "even", commit["pictures"])
    assert place is not None
    assert place.scale_x == 16
    assert quick[1] == part(run / "slides" / "even", place, Raster(0, 0, 16, 16, 256, 256), (255, 255, 255))
    (run / "slides" / "even" / "thumbnail.jpg").unlink()
    assert viewer.tile(0, 0, 0, 0) == slow[0], "without it the slide is read"


def test_a_thumbnail_that_is_none_is_none(run: Path) -> None:
    folder = run / "slides" / "even"
    (folder / "thumbnail.jpg").write_bytes(b"no picture")
    assert overview(folder, 100) is None
    assert part(folder, Raster(0, 0, 16, 16, 100, 100), Raster(0, 0, 16, 16, 100, 100), (0, 0, 0)) is None
    assert thumbnail_place(folder, {"thumbnail": [1, 2]}) is None
    assert thumbnail_place(folder, {}) is None
