"""The textures of a made-up slide, all of them from real stained tissue but for the dots of a hidden spot."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import skimage.data
from numpy.typing import NDArray
from scipy import ndimage
from scipy.fft import dctn, idctn
from scipy.special import ndtri
from skimage.color import hed_from_rgb, rgb_from_hed

from pipeline.demo.scene import Field

OVERSAMPLE = 2
"""Texture pixels per slide pixel, so that nearest-neighbour lookups leave no visible steps."""
STEPS = (np.arange(256) + 0.5) / 256
"""What the values of an even texture, `structure` or `dots`, stand for: in 0-1, each as frequent as any other."""


@lru_cache(maxsize=1)
def _source() -> Field:
    """Optical density (rows, cols, 3) of the real image, oversampled."""
    image = skimage.data.immunohistochemistry().astype(np.float32)
    zoomed = ndimage.zoom(image, (OVERSAMPLE, OVERSAMPLE, 1), order=3, mode="reflect", grid_mode=True)
    return np.asarray(-np.log(np.clip(zoomed, 4, 240) / 240), np.float32)


@lru_cache(maxsize=4)
def structure(scale: float, cutoff: float) -> NDArray[np.uint8]:
    """The real image's nuclei at ``scale`` times their size, oversampled, without anything a thumbnail could see.

    Slow variation is taken out, local contrast made even and the values spread evenly over 0-255, so that textures
    of different scales share mean, spread and histogram.
    """
    factor = scale * OVERSAMPLE
    image = skimage.data.immunohistochemistry().astype(np.float64)
    stain = (-np.log((image + 1) / 256) @ hed_from_rgb)[..., 0]
    smooth = ndimage.gaussian_filter(stain, max(1.0, 0.5 / factor), mode="reflect")
    zoomed = ndimage.zoom(smooth, factor, order=3, mode="reflect", grid_mode=True)
    sigma = cutoff * OVERSAMPLE
    detail = zoomed
    for _ in range(2):  # twice: once leaves too gentle a slope
        detail = detail - ndimage.gaussian_filter(detail, sigma, mode="reflect")
    detail /= np.sqrt(ndimage.gaussian_filter(detail**2, 4 * sigma, mode="reflect")) + 1e-6
    return _even(detail)


@lru_cache(maxsize=1)
def dots(spacing: float) -> NDArray[np.uint8]:
    """Round dots on a triangular lattice, ``spacing`` slide pixels apart, oversampled: highest in their middles.

    One period of the lattice, drawn and not from tissue. The mirror images beyond its edges go on with it.
    """
    cols, rows = (round(spacing * OVERSAMPLE * stretch) for stretch in (1, math.sqrt(3)))
    y = (np.arange(rows)[:, None] + 0.5) * 2 * np.pi / rows
    x = (np.arange(cols)[None, :] + 0.5) * 2 * np.pi / cols
    return _even(np.cos(2 * y) + 2 * np.cos(y) * np.cos(x))


def _even(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Ranks spread evenly over 0-255."""
    rank = np.empty(values.size)
    rank[np.argsort(values, axis=None)] = np.arange(values.size) / values.size
    return np.asarray(rank.reshape(values.shape) * 256, np.uint8)


def restained(rng: np.random.Generator) -> NDArray[np.uint32]:
    """The source image as texels, with its three stains a little stronger or weaker."""
    gains = np.diag(np.exp(rng.normal(0, 0.07, 3)))
    return _packed(_source() @ (hed_from_rgb @ gains @ rgb_from_hed).astype(np.float32))


def tinted(rng: np.random.Generator, texture: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """A `structure` as texels of dense blue."""
    strength, brown = np.exp(rng.normal(0, 0.05, 2))
    contrast = 0.4 * np.exp(rng.normal(0, 0.1))
    amount = strength * np.clip(0.85 + contrast * ndtri(STEPS), 0.05, None)
    return _packed(amount[:, None] * (rgb_from_hed[0] + 0.2 * brown * rgb_from_hed[2]))[texture]


def without_detail(texels: NDArray[np.uint32], sigma: float) -> NDArray[np.uint32]:
    """Colour texels without what varies faster than over ``sigma`` slide pixels; slower variation is kept.

    ``g (2 - g)`` of each frequency passes, where a Gaussian would let ``g`` pass: twice as steep, and flat at first.
    """
    frequencies = (np.arange(n, dtype=np.float32) / (2 * n) * OVERSAMPLE for n in texels.shape)  # per slide pixel
    y, x = np.ix_(*frequencies)
    g = np.exp(-2 * (np.pi * sigma) ** 2 * (y**2 + x**2))[..., None]
    # the cosine transform goes on beyond the edges as the layers do: mirrored
    spectrum = dctn(colours(texels).astype(np.float32), axes=(0, 1))
    return _words(np.clip(np.rint(idctn(spectrum * g * (2 - g), axes=(0, 1))), 0, 255))


def light(amount: NDArray[np.floating]) -> NDArray[np.floating]:
    """What these amounts (...) of the blue stain let pass, (..., 3) in 0-1."""
    return np.asarray(np.exp(-amount[..., None] * rgb_from_hed[0]))


def shades(passed: NDArray[np.floating]) -> NDArray[np.uint32]:
    """Light (..., 3) in 0-1 -> texels."""
    return _words(np.rint(255 * np.clip(passed, 0, 1)))


def colours(texels: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Texels -> (..., 3) in 0-255."""
    return texels.view(np.uint8).reshape(*texels.shape, 4)[..., :3]


def _packed(od: NDArray[np.floating]) -> NDArray[np.uint32]:
    """Optical density (..., 3) -> texels."""
    return _words(np.clip(240 * np.exp(-od), 0, 255))


def _words(rgb: NDArray[np.floating]) -> NDArray[np.uint32]:
    """Colours (..., 3) in 0-255 -> texels, one little-endian word 0BGR per pixel."""
    whole = rgb.astype(np.uint32)
    return np.asarray(whole[..., 0] | whole[..., 1] << 8 | whole[..., 2] << 16, np.uint32)
