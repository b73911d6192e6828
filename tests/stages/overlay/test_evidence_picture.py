"""Evidence for a class is orange and against it blue, where it is on the slide."""

from __future__ import annotations

import numpy as np
from PIL import Image

from stages.geometry import Mpp, Raster
from stages.overlay.evidence_picture import LEAST, coloured, evidence_page, greyed
from stages.overlay.picture import lay
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
