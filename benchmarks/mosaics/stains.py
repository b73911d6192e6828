"""Optical densities, and what brings those of one source to those of another: stain, and contrast at two scales.

Neither colour nor contrast may tell the classes. So each source is brought to the same mean and covariance of optical
density, over what its tiles show, by the affine map of least displacement between two normal distributions (Pitié &
Kokaram, "The linear Monge-Kantorovitch linear colour mapping for example-based colour transfer", CVMP 2007), and then
to the same contrast in what is coarser than a nucleus and in what is finer. What forms tell stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Moments = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean (3,) and covariance (3, 3) of optical densities."""

DENSITIES = np.log(256 / (np.arange(256) + 1)).astype(np.float32)
"""Optical density of each grey level."""
COARSE_PX = 8.0
"""Standard deviation of the Gaussian that parts coarse from fine structure: 4 µm at 0.5 µm/px, about a nucleus."""
_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Stain:
    """An affine map of optical densities, row vectors: ``d @ matrix + shift``."""

    matrix: Floats
    shift: Floats

    def of(self, densities: Floats) -> Floats:
        """Densities (..., 3) with that stain."""
        found = densities.reshape(-1, 3) @ self.matrix + self.shift
        return np.asarray(found.reshape(densities.shape), np.float32)

    def __call__(self, pixels: Pixels) -> Pixels:
        """Pixels (..., 3) with that stain."""
        return as_pixels(self.of(DENSITIES[pixels]))


@dataclass(frozen=True, slots=True)
class Match:
    """What brings a source to the common stain and contrast.

    Attributes:
        stain: to the common mean and covariance.
        mean: (3,), the common one, around which contrast is changed.
        fine, coarse: factors of contrast.
    """

    stain: Stain
    mean: Floats
    fine: float
    coarse: float

    def __call__(self, pixels: Pixels) -> Pixels:
        """Pixels (H, W, 3) of a whole image as the common stain and contrast show it."""
        fine, coarse = parted(self.stain.of(DENSITIES[pixels]))
        return as_pixels(self.mean + self.coarse * (coarse - self.mean) + self.fine * fine)


def parted(densities: Floats) -> tuple[Floats, Floats]:
    """Fine and coarse structure (H, W, 3), which add up to the densities."""
    coarse = gaussian_filter(densities, (COARSE_PX, COARSE_PX, 0))
    return densities - coarse, coarse


def as_pixels(densities: Floats) -> Pixels:
    return np.asarray(np.rint(256 * np.exp(-densities) - 1).clip(0, 255), np.uint8)


def moments(densities: Floats, corners: NDArray[np.int64], tile_px: int) -> Moments:
    """Mean (3,) and covariance (3, 3) of a random tile's pixels."""
    height, width = densities.shape[:2]
    steps = np.zeros((height + 1, width + 1))  # a pixel counts once for each tile that shows it
    y, x = corners.T
    for sign, down, right in ((1, 0, 0), (-1, tile_px, 0), (-1, 0, tile_px), (1, tile_px, tile_px)):
        np.add.at(steps, (y + down, x + right), sign)
    weights = steps.cumsum(0).cumsum(1)[:height, :width].reshape(-1)
    flat = densities.reshape(-1, 3).astype(np.float64)
    mean = weights @ flat / weights.sum()
    centred = flat - mean
    return mean, (centred * weights[:, None]).T @ centred / weights.sum()


def pooled(parts: Sequence[Moments]) -> Moments:
    """Of one source's images, each with the same weight."""
    means, covariances = (np.stack(part) for part in zip(*parts, strict=True))
    spread = means - means.mean(0)
    return means.mean(0), covariances.mean(0) + spread.T @ spread / len(means)


def transport(own: Moments, common: Moments) -> Stain:
    """The map of least displacement from one normal distribution to another, with covariances C and R:
    ``C^-1/2 (C^1/2 R C^1/2)^1/2 C^-1/2``."""
    root = np.real(sqrtm(own[1] + _LEAST_VARIANCE * np.eye(3)))
    back = np.linalg.inv(root)
    matrix = back @ np.real(sqrtm(root @ common[1] @ root)) @ back
    return Stain(matrix.astype(np.float32), (common[0] - own[0] @ matrix).astype(np.float32))
