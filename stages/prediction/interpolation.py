"""What patches would say that were not read, by how their cells look on the thumbnail: for the eye, not for a sum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from stages.heap import put_aside

NEIGHBOURS = 5
"""Read cells that a cell which was not is told from."""
REACH = 0.5
"""What the slide's whole width counts as, in standard deviations of colour: neighbours are alike."""
STRIP = 2**18
"""Thumbnail pixels that are looked at together, some 10 MB while they are."""
DENSITY = np.log(256 / (np.arange(256, dtype=np.float32) + 1))
"""Optical density of each grey level."""


def cell_looks(rgb: NDArray[np.uint8], shape: tuple[int, int], cell_px: int) -> NDArray[np.float64]:
    """How each cell looks, (rows * columns, 8): mean and spread of its optical density in three colours, standardised
    over the cells, and its place.

    Args:
        rgb: thumbnail (H, W, 3), cells from its upper left corner on; cells beyond its edge are white.
        shape: rows and columns of cells.
        cell_px: thumbnail pixels along a cell.
    """
    rows, columns = shape
    some = max(1, STRIP // (columns * cell_px**2))
    strips = [
        _looks(put_aside(rgb)[at * cell_px :], (min(some, rows - at), columns), cell_px) for at in range(0, rows, some)
    ]
    looks = np.concatenate(strips).reshape(rows * columns, -1)
    looks = (looks - looks.mean(0)) / np.maximum(looks.std(0), 1e-6)
    place = np.stack(np.divmod(np.arange(rows * columns), columns), -1) / max(rows, columns)
    return np.concatenate([looks, place / REACH], 1).astype(np.float64)


def _looks(rgb: NDArray[np.uint8], shape: tuple[int, int], cell_px: int) -> NDArray[np.float32]:
    """Mean and spread of the density of the first cells of an image, (rows, columns, 6).

    Sums go from pixel to pixel of all cells at once: along the three colours of a pixel they take ten times as long.
    """
    rows, columns = shape
    framed = np.full((rows * cell_px, columns * cell_px, 3), 255, np.uint8)
    inside = rgb[: framed.shape[0], : framed.shape[1]]
    framed[: inside.shape[0], : inside.shape[1]] = inside
    by_pixel = framed.reshape(rows, cell_px, columns, cell_px, 3).transpose(1, 3, 4, 0, 2)
    density = DENSITY.take(by_pixel.reshape(cell_px**2, -1))
    mean = density.sum(0) / np.float32(cell_px**2)
    density -= mean
    density *= density
    spread = np.sqrt(density.sum(0) / np.float32(cell_px**2))
    return np.ascontiguousarray(np.stack([mean, spread]).reshape(6, rows, columns).transpose(1, 2, 0))


def interpolate(
    looks: NDArray[np.float64], read: NDArray[np.int64], said: NDArray[np.float64], wanted: NDArray[np.int64]
) -> NDArray[np.float64]:
    """What the patches of ``wanted`` cells (W,) would say, (W, C): the mean of the read cells that look most like them,
    by the inverse square of their distance.

    Args:
        looks: (K, d), of all cells.
        read: (N,), cells that were read, at least one.
        said: (N, C), by their patches.
        wanted: the cells.
    """
    if not len(wanted):
        return np.zeros((0, said.shape[1]))
    distance, near = cKDTree(looks[read]).query(looks[wanted], k=list(range(1, min(NEIGHBOURS, len(read)) + 1)))
    weight = 1 / (np.asarray(distance) ** 2 + 1e-6)
    weight /= weight.sum(1, keepdims=True)
    found: NDArray[np.float64] = np.einsum("wk,wkc->wc", weight, said[near])
    return found
