"""A scene as pixels, strip by strip, and strips as an Aperio-like pyramid of JPEG tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import simplejpeg
import tifffile
from PIL import Image, ImageFilter

from benchmarks.mosaics.scenes import FIELD_CELLS, Appearance, Scene
from benchmarks.mosaics.stains import Floats, Pixels
from benchmarks.mosaics.tiles import TileStock

BLOCK_PX = 256
"""Side of a tile of the file; it is none of the mosaic's, so that seams are not where blocks end."""
GLASS_NOISE = 1.2
"""Standard deviation of glass, in grey levels."""
EDGE_SHARPNESS = 60.0
"""How fast tissue fades into glass, per unit of the scene's field."""
_NOISE_PX = 1024


def compose(stock: TileStock, scene: Scene, appearance: Appearance, rng: np.random.Generator) -> Iterator[Pixels]:
    """Level 0 from top to bottom, in strips of `BLOCK_PX` rows."""
    px, (rows, columns) = stock.tile_px, scene.image.shape
    noise = np.rint(rng.normal(0, GLASS_NOISE, (_NOISE_PX, _NOISE_PX, 3)) + appearance.glass).clip(0, 255)
    glass = noise.astype(np.uint8)
    whole = scene.field.reshape(rows, FIELD_CELLS, columns, FIELD_CELLS).min((1, 3)) > 0

    @cache
    def stained(image: int) -> Pixels:
        found = Image.fromarray(appearance.stain(stock.matched(image)))
        return np.asarray(found.filter(ImageFilter.GaussianBlur(appearance.blur_px)))

    def glass_at(y: int, height: int) -> Pixels:
        shift = (y // BLOCK_PX * 397) % _NOISE_PX
        wide = -(-columns * px // _NOISE_PX)
        return np.tile(np.roll(glass[:height], shift, 1), (1, wide, 1))[:, : columns * px]

    def tile(row: int, column: int) -> Pixels:
        y, x = scene.corner[row, column]
        cut, way = stained(int(scene.image[row, column]))[y : y + px, x : x + px], int(scene.way[row, column])
        return np.rot90(cut[:, ::-1] if way >= 4 else cut, way % 4)

    strip = np.empty((0, columns * px, 3), np.uint8)
    for row in range(rows):
        line = glass_at(row * px, px)
        for column in np.flatnonzero(scene.image[row] >= 0).tolist():
            here = line[:, column * px : (column + 1) * px]
            if whole[row, column]:
                here[:] = tile(row, column)
            else:
                share = edge_share(scene.field, row, column, px)[..., None]
                here[:] = np.rint(share * tile(row, column) + (1 - share) * here)
        strip = np.concatenate([strip, line])
        while len(strip) >= BLOCK_PX:
            yield strip[:BLOCK_PX]
            strip = strip[BLOCK_PX:]
    if len(strip):
        yield strip


def edge_share(field: Floats, row: int, column: int, px: int) -> Floats:
    """Share of tissue (px, px) in the pixels of a tile at the outline: the field between its cells, bilinearly."""
    cell = (np.arange(px) + 0.5) / px * FIELD_CELLS - 0.5
    parts = []
    for place in (row, column):
        at = (cell + place * FIELD_CELLS).clip(0, len(field) - 1)
        low = np.minimum(at.astype(int), len(field) - 2)
        parts.append((low, (at - low).astype(np.float32)))
    (y, dy), (x, dx) = parts
    near = field[y][:, x] * (1 - dx) + field[y][:, x + 1] * dx
    far = field[y + 1][:, x] * (1 - dx) + field[y + 1][:, x + 1] * dx
    between = near * (1 - dy[:, None]) + far * dy[:, None]
    return np.asarray((0.5 + EDGE_SHARPNESS * between).clip(0, 1))


def write_pyramid(
    path: Path, strips: Iterator[Pixels], size: int, levels: Sequence[int], quality: int, mpp: float
) -> None:
    """An Aperio-like TIFF of JPEG tiles from strips of level 0; memory holds its first coarser level."""
    coarse: list[Pixels] = []
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        level = np.empty((0, 0, 3), np.uint8)
        for before, factor in zip((1, 1, *levels), (1, *levels), strict=False):
            if factor == 1:
                found = kept(strips, levels[0], coarse) if levels else strips
            else:
                level = np.concatenate(coarse) if before == 1 else shrunk(level, factor // before)
                found = (level[y : y + BLOCK_PX] for y in range(0, len(level), BLOCK_PX))
            across = size // factor
            tiff.write(
                blocks(found, quality),
                shape=(across, across, 3),
                dtype=np.uint8,
                tile=(BLOCK_PX, BLOCK_PX),
                photometric="rgb",
                compression="jpeg",
                subsampling=(2, 2),
                subfiletype=int(factor > 1),
                description=f"Aperio Image Library v11.2.1\r\n{size}x{size} -> {across}x{across} JPEG/RGB|MPP = {mpp}",
                metadata=None,
                software=False,
            )


def kept(strips: Iterator[Pixels], factor: int, coarse: list[Pixels]) -> Iterator[Pixels]:
    """The strips as they are; what a coarser level shows of each is added to ``coarse``."""
    for strip in strips:
        coarse.append(shrunk(strip, factor))
        yield strip


def blocks(strips: Iterator[Pixels], quality: int) -> Iterator[bytes]:
    """JPEGs of a level's tiles, row by row."""
    for strip in strips:
        missing = -len(strip) % BLOCK_PX, -strip.shape[1] % BLOCK_PX
        filled = np.pad(strip, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        for x in range(0, filled.shape[1], BLOCK_PX):
            block = np.ascontiguousarray(filled[:, x : x + BLOCK_PX])
            yield simplejpeg.encode_jpeg(block, quality, colorsubsampling="420")


def shrunk(pixels: Pixels, factor: int) -> Pixels:
    """Means of blocks of pixels (height, width, 3)."""
    height, width = (side // factor for side in pixels.shape[:2])
    found = np.zeros((height, width, 3), np.uint32)
    for y in range(factor):
        for x in range(factor):
            found += pixels[y : height * factor : factor, x : width * factor : factor]
    return np.asarray((found + factor**2 // 2) // factor**2, np.uint8)
