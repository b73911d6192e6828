"""An image gives the same strip by strip as it does whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.tissue_pictures import FILLS, compressed, slide, sparse
from stages.geometry import Raster
from stages.tissue import strips as module
from stages.tissue.mask import find_tissue
from stages.tissue.strips import by_strips, masked, places, strips
from stages.tissue.thumbnail import Thumbnail

STAINED = slide("H&E")
PICTURES: dict[str, Callable[[], NDArray[np.uint8]]] = {
    "stained": lambda: STAINED.rgb,
    "turned scan": lambda: compressed(sparse(STAINED, 0.3, "rotated", FILLS["white"]), quality=80).rgb,
    "boxes": lambda: sparse(STAINED, 0.3, "boxes", FILLS["black"]).rgb,
    "dark": lambda: 255 - STAINED.rgb,
}


@pytest.mark.parametrize("halo", [0, 2])
@pytest.mark.parametrize("unit", [1, 3])
def test_strips_are_all_rows_once(monkeypatch: pytest.MonkeyPatch, halo: int, unit: int) -> None:
    monkeypatch.setattr(module, "PIXELS", 40)
    image = np.arange(23 * 10).reshape(23, 10)
    found = list(strips(image.shape, halo=halo, unit=unit))
    assert len(found) > 1
    np.testing.assert_array_equal(np.concatenate([image[strip.around][strip.own] for strip in found]), image)
    assert all(strip.rows.start % unit == 0 for strip in found)


def test_a_filter_with_its_halo_does_not_see_the_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.random.default_rng(0).random((64, 30)) < 0.1
    monkeypatch.setattr(module, "PIXELS", 90)
    found = by_strips(lambda rows: ndimage.binary_dilation(mask[rows], iterations=2), mask.shape, halo=2)
    np.testing.assert_array_equal(found, ndimage.binary_dilation(mask, iterations=2))


@pytest.mark.parametrize("step", [1, 3, 7])
def test_every_so_many_th_is_counted_across_strips(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    rng = np.random.default_rng(0)
    values, mask = rng.integers(0, 1000, (40, 11)), rng.random((40, 11)) < 0.3
    monkeypatch.setattr(module, "PIXELS", 33)
    np.testing.assert_array_equal(values[places(step, mask)], values[mask][::step])
    np.testing.assert_array_equal(masked(lambda rows: values[rows], mask, np.int64), values[mask])


@pytest.mark.parametrize("name", PICTURES)
def test_tissue_does_not_depend_on_the_strips(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Not a pixel of it, and no digit of what is told of it."""
    rgb = PICTURES[name]()
    thumbnail = Thumbnail(rgb, Raster(0, 0, 16, 16, rgb.shape[1], rgb.shape[0]), 8.0)
    monkeypatch.setattr(module, "PIXELS", rgb.size)
    whole = find_tissue(thumbnail)
    monkeypatch.setattr(module, "PIXELS", 9 * rgb.shape[1])
    found = find_tissue(thumbnail)
    np.testing.assert_array_equal(found.mask, whole.mask)
    np.testing.assert_array_equal(found.fill, whole.fill)
    assert (found.faint, found.left) == (whole.faint, whole.left)
