"""Attention under the pixels of a raster, in multiples of uniform."""

from __future__ import annotations

import numpy as np

from stages.geometry import Raster
from stages.overlay.attention_map import attention_image, on_raster, times_uniform


def test_attention_image_shows_the_cell_under_each_pixel_centre() -> None:
    """Against the definition, pixel by pixel, where cells and pixels have no edges in common."""
    rng = np.random.default_rng(0)
    raster, cells = Raster(30.5, -7.25, 3.3, 2.9, 23, 19), Raster(41.0, 2.0, 11.7, 13.1, 5, 4)
    attention = rng.uniform(size=cells.shape)
    image = attention_image(raster, attention, cells)
    for flat in range(raster.width * raster.height):
        u, v = cells.from_level0(raster.centres_level0([flat])[0])
        inside = 0 <= u < cells.width and 0 <= v < cells.height
        assert image.ravel()[flat] == (attention[int(v), int(u)] if inside else 0)


def test_times_uniform_counts_only_cells_with_attention() -> None:
    assert np.allclose(times_uniform(np.array([[0.0, 0.25], [0.75, 0.0]])), [[0, 0.5], [1.5, 0]])


def test_pixels_larger_than_cells_have_the_mean_over_them() -> None:
    values = np.arange(24.0).reshape(4, 6)
    cells = Raster(0, 0, 10, 10, 6, 4)
    np.testing.assert_allclose(
        on_raster(values, cells, Raster(0, 0, 20, 20, 3, 2)), values.reshape(2, 2, 3, 2).mean((1, 3))
    )
