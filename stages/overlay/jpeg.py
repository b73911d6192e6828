"""Pictures as JPEG files that stay small: as good as their share of bytes allows."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

BYTES_PER_PIXEL = 1 / 8
"""At most, so that all that is written of a slide of 20 x 20 mm stays below 2 MB."""
ALWAYS = 200_000
"""Bytes that any picture may have."""
SIZES = {90: 1.0, 85: 0.84, 80: 0.73, 75: 0.65, 70: 0.59, 60: 0.5, 50: 0.43, 40: 0.37, 30: 0.3, 20: 0.23, 10: 0.15}
"""Qualities that are tried, the best first, and about how large each makes a file against the first."""
WORST = min(SIZES)
LARGE = 2**23
"""Pixels from which a picture is coded as it comes, by the standard's own tables. Better ones are known when all of its
coefficients are, three bytes a pixel, and in three times the time..."""
PLAIN = 1.1
"""... for a file that is smaller by about so much; so the larger one is allowed it, at the same quality."""


def write_jpeg(path: Path, picture: Image.Image | NDArray[np.uint8], most: int | None = None) -> None:
    """Write a picture, RGB or (H, W, 3), to ``path`` as JPEG at the best quality that ``most`` bytes allow, whatever
    the path's ending, or else at the worst; None: as many as `BYTES_PER_PIXEL` gives."""
    path.write_bytes(encode(picture, most))


def encode(picture: Image.Image | NDArray[np.uint8], most: int | None = None, best: int = 90) -> bytes:
    """The file of `write_jpeg`, at no better a quality than ``best``."""
    pixels = np.ascontiguousarray(picture)  # of an array no copy; pillow would make one of four bytes a pixel
    count = pixels.shape[0] * pixels.shape[1]
    large, first = count >= LARGE, 0.0
    limit = most or max(ALWAYS, round(count * BYTES_PER_PIXEL * (PLAIN if large else 1.0)))
    for quality, size in SIZES.items():
        if quality > best or (first * size > limit and quality > WORST):
            continue  # which would be too large again
        # what fits at once needs no tables of its own, which take as long again
        tables = bool(first) and not large
        file = bytes(imagecodecs.jpeg8_encode(pixels, level=quality, subsampling="420", optimize=tables))
        first = first or len(file) / size
        if len(file) <= limit:
            break
    return file
