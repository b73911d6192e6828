"""The pixels of a made-up slide, all of them from real stained tissue, and the pyramidal TIFF that holds them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import skimage.data
import tifffile
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import ndtri
from skimage.color import hed_from_rgb, rgb_from_hed

from pipeline.layout import COARSE, MPP, Blob, Field, SlidePlan

LESION_SCALE, DECOY_SCALE = 2.0, 0.5
"""Magnification of the source's structures inside a lesion and inside a decoy."""
LESION_CUTOFF, DECOY_CUTOFF = 3.6, 5.8
"""Level-0 pixels: slower variation is removed. Chosen so that 8 um means of both textures spread equally."""

_TILE = 256
_BLOCK = 256  # pixels painted at a time
_OVERSAMPLE = 2  # texture pixels per slide pixel, so that nearest-neighbour lookups leave no visible steps
_BACKGROUND = np.array([243, 242, 240], np.int16)

_SPLINE = np.array(  # (4, COARSE) weights of the samples around each pixel between the second and the third
    [
        ((1 - t) ** 3 / 6, 2 / 3 - t**2 + t**3 / 2, 2 / 3 - (1 - t) ** 2 + (1 - t) ** 3 / 2, t**3 / 6)
        for t in (np.arange(COARSE) + 0.5) / COARSE
    ],
    np.float32,
).T


def render(plan: SlidePlan) -> NDArray[np.uint8]:
    """Paint level 0 of a slide, (height, width, 3) uint8, block by block."""
    rng = np.random.default_rng((*plan.seed, 1))
    shape = plan.depth.shape
    ordinary = [_Layer.random(rng, _restained(rng), shape, bend=100) for _ in range(2)]
    mix, rough, dense = (_smooth_noise(rng, shape, sigma) for sigma in (4.0, 1.0, 2.0))
    suspects = []
    for blob in plan.suspects:
        is_lesion = blob in plan.lesions
        structure = _texture(LESION_SCALE, LESION_CUTOFF) if is_lesion else _texture(DECOY_SCALE, DECOY_CUTOFF)
        texels = _tinted(rng, structure)
        suspects.append((blob, _Layer.random(rng, texels, shape, bend=20)))
    grain = rng.integers(-2, 3, (_BLOCK, _BLOCK, 1), np.int16)
    image = np.empty((plan.height, plan.width, 3), np.uint8)
    for top in range(0, plan.height, _BLOCK):
        for left in range(0, plan.width, _BLOCK):
            view = image[top : top + _BLOCK, left : left + _BLOCK]
            block = _Block(top, left, *view.shape[:2])
            bright = _BACKGROUND + grain[: block.height, : block.width]
            if block.window(plan.depth).max() < -64:
                view[:] = bright
                continue
            ragged = 12 * block.upsample(rough)
            depth = block.upsample(plan.depth) + ragged
            tissue = _blend(ordinary[0], ordinary[1], _ramp(block.upsample(mix) * 200, 12), block)
            for blob, layer in suspects:
                alpha = _ramp(blob.depth(block.x, block.y) + ragged, 8) if block.meets(blob) else np.zeros(1)
                if alpha.any():
                    shaded = layer.sample(block) * (1 - 0.05 * block.upsample(dense)[..., None])
                    tissue += alpha[..., None] * (shaded - tissue)
            view[:] = np.clip(bright + _ramp(depth, 8)[..., None] * (tissue - bright), 0, 255)
    return image


@dataclass(frozen=True, slots=True)
class _Block:
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
class _Layer:
    """One way of laying a mirrored, turned, shifted and bent texture over a slide."""

    texels: NDArray[np.uint32]  # (rows, cols) RGB in the three low bytes: one word is gathered faster than three bytes
    turn: Field  # (2, 2) rotation, perhaps with a flip; rows (y, x), columns (y, x)
    shift: Field  # (2,) texture pixels
    bend: Field  # (2, coarse rows, coarse cols) slide pixels

    @staticmethod
    def random(rng: np.random.Generator, texels: NDArray[np.uint32], shape: tuple[int, int], *, bend: float) -> _Layer:
        """Draw a layer for coarse fields of ``shape``, bent by about ``bend`` slide pixels."""
        angle, flip = rng.uniform(0, 2 * np.pi), rng.choice([-1, 1])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [flip * np.sin(angle), flip * np.cos(angle)]], np.float32)
        shift = rng.uniform(0, 2 * max(texels.shape), 2).astype(np.float32)
        return _Layer(texels, turn, shift, np.stack([bend * _smooth_noise(rng, shape, 8.0) for _ in range(2)]))

    def sample(self, block: _Block) -> Field:
        """What the pixels of a block show, (height, width, 3) in 0-255; beyond its edges the texture is mirrored."""
        index = []
        for axis, size in enumerate(self.texels.shape):
            straight = self.turn[axis, 0] * block.y + self.turn[axis, 1] * block.x
            at = (straight + block.upsample(self.bend[axis])) * _OVERSAMPLE + self.shift[axis]
            at -= 2 * size * np.floor(at / (2 * size))  # several times faster than %
            index.append(np.minimum(at, 2 * size - 1 - at).astype(np.int32).clip(0, None))
        words = self.texels.ravel().take(index[0] * self.texels.shape[1] + index[1])
        return np.asarray(words.view(np.uint8).reshape(*words.shape, 4)[..., :3], np.float32)


def _blend(first: _Layer, second: _Layer, alpha: Field, block: _Block) -> Field:
    """``(1 - alpha) first + alpha second``, looking up only what shows."""
    if alpha.max() <= 0:
        return first.sample(block)
    if alpha.min() >= 1:
        return second.sample(block)
    under = first.sample(block)
    return under + alpha[..., None] * (second.sample(block) - under)


@lru_cache(maxsize=1)
def _source() -> Field:
    """Optical density (rows, cols, 3) of the real image, oversampled."""
    image = skimage.data.immunohistochemistry().astype(np.float32)
    zoomed = ndimage.zoom(image, (_OVERSAMPLE, _OVERSAMPLE, 1), order=3, mode="reflect", grid_mode=True)
    return np.asarray(-np.log(np.clip(zoomed, 4, 240) / 240), np.float32)


@lru_cache(maxsize=2)
def _texture(scale: float, cutoff: float) -> NDArray[np.uint8]:
    """The real image's nuclei at ``scale`` times their size, oversampled, without anything a thumbnail could see.

    Slow variation is taken out, local contrast made even and the values spread evenly over 0-255, so that textures
    of different scales share mean, spread and histogram.
    """
    factor = scale * _OVERSAMPLE
    image = skimage.data.immunohistochemistry().astype(np.float64)
    stain = (-np.log((image + 1) / 256) @ hed_from_rgb)[..., 0]
    smooth = ndimage.gaussian_filter(stain, max(1.0, 0.5 / factor), mode="reflect")
    zoomed = ndimage.zoom(smooth, factor, order=3, mode="reflect", grid_mode=True)
    sigma = cutoff * _OVERSAMPLE
    detail = zoomed
    for _ in range(2):  # twice: once leaves too gentle a slope
        detail = detail - ndimage.gaussian_filter(detail, sigma, mode="reflect")
    detail /= np.sqrt(ndimage.gaussian_filter(detail**2, 4 * sigma, mode="reflect")) + 1e-6
    rank = np.empty(detail.size)
    rank[np.argsort(detail, axis=None)] = np.arange(detail.size) / detail.size
    return np.asarray(rank.reshape(detail.shape) * 256, np.uint8)


def _restained(rng: np.random.Generator) -> NDArray[np.uint32]:
    """The source image as texels, with its three stains a little stronger or weaker."""
    gains = np.diag(np.exp(rng.normal(0, 0.07, 3)))
    return _packed(_source() @ (hed_from_rgb @ gains @ rgb_from_hed).astype(np.float32))


def _tinted(rng: np.random.Generator, texture: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """A structure as texels of dense blue."""
    strength, brown = np.exp(rng.normal(0, 0.05, 2))
    contrast = 0.4 * np.exp(rng.normal(0, 0.1))
    amount = strength * np.clip(0.85 + contrast * ndtri((np.arange(256) + 0.5) / 256), 0.05, None)
    return _packed(amount[:, None] * (rgb_from_hed[0] + 0.2 * brown * rgb_from_hed[2]))[texture]


def _packed(od: NDArray[np.floating]) -> NDArray[np.uint32]:
    """Optical density (..., 3) -> one little-endian word 0BGR per pixel."""
    rgb = np.clip(240 * np.exp(-od), 0, 255).astype(np.uint32)
    return np.asarray(rgb[..., 0] | rgb[..., 1] << 8 | rgb[..., 2] << 16, np.uint32)


def _ramp(distance: Field, width: float) -> Field:
    """0 outside, 1 inside, linear over ``width`` pixels around the edge."""
    return np.asarray(np.clip(distance / width + 0.5, 0, 1), np.float32)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Field:
    """Gaussian noise smoothed over ``sigma`` samples, mean about 0 and standard deviation about 1."""
    pad = int(4 * sigma) + 1
    noise = ndimage.gaussian_filter(rng.standard_normal((shape[0] + 2 * pad, shape[1] + 2 * pad)), sigma)
    return np.asarray(noise[pad:-pad, pad:-pad] * (2 * math.sqrt(math.pi) * sigma), np.float32)


def write_slide(path: Path, image: NDArray[np.uint8], *, mpp: float = MPP, quality: int = 85) -> None:
    """Write (height, width, 3) as a tiled JPEG pyramid that OpenSlide opens, each level the 4 x 4 mean of the last."""
    with tifffile.TiffWriter(path) as tif:
        scale = 1
        while True:
            pixels_per_cm = 1e4 / (mpp * scale)
            tif.write(
                image,
                tile=(_TILE, _TILE),
                photometric="rgb",  # of the array; the file holds YCbCr
                compression="jpeg",
                compressionargs={"level": quality},
                resolution=(pixels_per_cm, pixels_per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=int(scale > 1),
                metadata=None,
                software=False,
            )
            if max(image.shape[:2]) <= 2 * _TILE:
                return
            image, scale = _quarter(image), scale * 4


def _quarter(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of every 4 x 4 pixels; the edge is repeated where the size is no multiple of 4."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % 4), (0, -width % 4), (0, 0)), mode="edge")
    rows = padded.reshape(padded.shape[0] // 4, 4, padded.shape[1], 3).sum(axis=1, dtype=np.uint16)
    total = rows.reshape(rows.shape[0], -1, 4, 3).sum(axis=2, dtype=np.uint16)
    return np.asarray((total + 8) // 16, np.uint8)
