"""Evidence for a class is orange and against it blue, where it is on the slide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.task.build import TASKS
from stages.geometry import Mpp, Raster
from stages.overlay.evidence_picture import LEAST, coloured, evidence_page, greyed
from stages.overlay.page import lay
from stages.overlay.text import printable
from stages.tissue.thumbnail import Thumbnail


def test_signs_have_colours_and_nothing_stays_grey() -> None:
    rgb = np.full((1, 3, 3), (180, 90, 160), np.uint8)
    picture = greyed(Image.fromarray(rgb))
    lay(picture, coloured(np.array([[2.0, 0.0, -2.0]]), 2.0))
    found = np.asarray(picture)[0].astype(int)
    assert found[0, 0] > found[0, 2] + 100  # orange
    assert np.ptp(found[1]) == 0
    assert found[2, 2] > found[2, 0] + 100  # blue


def test_weak_evidence_is_not_painted_as_strong() -> None:
    """The scale of a slide on which nothing is found does not shrink to its noise."""
    thumbnail = Thumbnail(np.full((64, 64, 3), 200, np.uint8), Raster(0, 0, 16, 16, 64, 64), 8.0)
    cells = Raster(0, 0, 128, 128, 8, 8)
    boxes = np.zeros((0, 4))

    def colour(value: float) -> float:
        said = np.zeros((8, 8))
        said[2, 3] = value
        page = evidence_page(
            thumbnail, said, cells, boxes, name="tumour", interpolated=False, title="t", mpp_level0=Mpp(0.5, 0.5)
        )
        pixels = np.asarray(page.image.crop(page.place)).astype(int)
        side = pixels.shape[0] // 8
        middle = pixels[int(2.5 * side), int(3.5 * side)]
        assert np.ptp(pixels[side // 2, side // 2]) == 0  # elsewhere nothing
        return float(middle[0] - middle[2])

    assert colour(LEAST) > 2 * colour(LEAST / 20) > 0


@pytest.mark.parametrize("name", ["risk_score", "tumour", "W" * 90, "not\ntumour"])
def test_the_legend_says_in_full_what_the_colours_are_in(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest unit too, in as many lines as it takes; only a name may be cut, and nothing leaves the page."""
    thumbnail = Thumbnail(np.full((9, 9, 3), 200, np.uint8), Raster(0, 0, 32, 32, 9, 9), 16.0)
    said: list[tuple[str, float, float]] = []

    def text(self: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, **how: Any) -> None:
        said.append((text, xy[0], how["font"].getlength(text)))

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    for unit in {kind.unit for kind in TASKS.values()}:
        said.clear()
        cells, boxes = Raster(0, 0, 288, 288, 1, 1), np.zeros((0, 4))
        how = {"name": name, "interpolated": False, "title": "t", "mpp_level0": Mpp(0.5, 0.5), "unit": unit}
        page = evidence_page(thumbnail, np.zeros((1, 1)), cells, boxes, **how)  # type: ignore[arg-type]
        whole = " ".join(part for part, _, _ in reversed(said))  # the lower line is drawn first
        assert f"{unit} per cell, for" in whole
        assert printable(name) in whole or "…" in whole
        assert all(left + wide <= page.image.width for _, left, wide in said)
