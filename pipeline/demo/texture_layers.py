"""Layers of texture and coarse fields, evaluated block by block at the pixels of a made-up slide."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.demo.scene import COARSE, Blob, Field
from pipeline.demo.textures import OVERSAMPLE, colours

_SPLINE = np.array(  # (4, COARSE) weights of the samples around each pixel between the second and the third
    [
        ((1 - t) ** 3 / 6, 2 / 3 - t**2 + t**3 / 2, 2 / 3 - (1 - t) ** 2 + (1 - t) ** 3 / 2, t**3 / 6)
        for t in (np.arange(COARSE) + 0.5) / COARSE
    ],
    np.float32,
).T


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle of level 0 that is painted in one go."""

    top: int
    left: int
    height: int
    width: int

    @property
    def x(self) -> Field:
        """Level-0 x of the pixel centres, (1, width)."""
        return np.arange(self.left, self.left + self.width, dtype=np.float32)[None, :] + 0.5

    @property
    def y(self) -> Field:
        """Level-0 y of the pixel centres, (height, 1)."""
        return np.arange(self.top, self.top + self.height, dtype=np.float32)[:, None] + 0.5

    def meets(self, blob: Blob) -> bool:
        """Whether any pixel may belong to the blob."""
        near_x = abs(blob.x - self.left - self.width / 2) < blob.reach + self.width / 2 + 8
        return near_x and abs(blob.y - self.top - self.height / 2) < blob.reach + self.height / 2 + 8

    def window(self, field: Field) -> Field:
        """The coarse samples that bear on this block."""
        row, col = self.top // COARSE, self.left // COARSE
        return field[row : row - (-self.height // COARSE) + 3, col : col - (-self.width // COARSE) + 3]

    def upsample(self, field: Field) -> Field:
        """Cubic B-spline interpolation of a coarse field at every pixel.

        Written out because BLAS would start threads in every worker for these tiny products, and they fight.
        """
        rows, cols = -(-self.height // COARSE), -(-self.width // COARSE)
        part = self.window(field)
        wide = sum(part[:, k : k + cols, None] * _SPLINE[k] for k in range(4)).reshape(rows + 3, -1)
        full = sum(wide[k : k + rows, None, :] * _SPLINE[k][:, None] for k in range(4)).reshape(rows * COARSE, -1)
        return np.asarray(full[: self.height, : self.width])


@dataclass(frozen=True, slots=True)
class Layer:
    """One way of laying a mirrored, turned, shifted and bent texture over a slide."""

    texels: NDArray[np.uint32]  # (rows, cols) RGB in the three low bytes: one word is gathered faster than three bytes
    turn: Field  # (2, 2) rotation, perhaps with a flip; rows (y, x), columns (y, x)
    shift: Field  # (2,) texture pixels
    bend: Field  # (2, coarse rows, coarse cols) slide pixels

    @staticmethod
    def random(rng: np.random.Generator, texels: NDArray[np.uint32], shape: tuple[int, int], *, bend: float) -> Layer:
        """Draw a layer for coarse fields of ``shape``, bent by about ``bend`` slide pixels."""
        angle, flip = rng.uniform(0, 2 * np.pi), rng.choice([-1, 1])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [flip * np.sin(angle), flip * np.cos(angle)]], np.float32)
        shift = rng.uniform(0, 2 * max(texels.shape), 2).astype(np.float32)
        return Layer(texels, turn, shift, np.stack([bend * smooth_noise(rng, shape, 8.0) for _ in range(2)]))

    def sample(self, block: Block) -> Field:
        """What the pixels of a block show, (height, width, 3) in 0-255; beyond its edges the texture is mirrored."""
        index = []
        for axis, size in enumerate(self.texels.shape):
            straight = self.turn[axis, 0] * block.y + self.turn[axis, 1] * block.x
            at = (straight + block.upsample(self.bend[axis])) * OVERSAMPLE + self.shift[axis]
            at -= 2 * size * np.floor(at / (2 * size))  # several times faster than %
            index.append(np.minimum(at, 2 * size - 1 - at).astype(np.int32).clip(0, None))
        words = self.texels.ravel().take(index[0] * self.texels.shape[1] + index[1])
        return np.asarray(colours(words), np.float32)


def ramp(distance: Field, width: float) -> Field:
    """0 outside, 1 inside, linear over ``width`` pixels around the edge."""
    return np.asarray(np.clip(distance / width + 0.5, 0, 1), np.float32)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Field:
    """Gaussian noise smoothed over ``sigma`` samples, mean about 0 and standard deviation about 1."""
    pad = int(4 * sigma) + 1
    noise = ndimage.gaussian_filter(rng.standard_normal((shape[0] + 2 * pad, shape[1] + 2 * pad)), sigma)
    return np.asarray(noise[pad:-pad, pad:-pad] * (2 * math.sqrt(math.pi) * sigma), np.float32)
