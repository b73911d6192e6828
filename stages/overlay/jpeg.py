"""Pictures as JPEG files that stay small: as good as their share of bytes allows."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

BYTES_PER_PIXEL = 1 / 7
"""At most, so that all that is written of a slide of 20 x 20 mm stays below 2 MB."""
ALWAYS = 100_000
"""Bytes that any picture may have."""
SIZES = {90: 1.0, 85: 0.84, 80: 0.73, 75: 0.65, 70: 0.59, 60: 0.5, 50: 0.43, 40: 0.37, 30: 0.3, 20: 0.23, 10: 0.15}
"""Qualities that are tried, the best first, and about how large each makes a file against the first."""


def write_jpeg(path: Path, picture: Image.Image) -> None:
    """Write a picture (RGB) to ``path`` as JPEG at the best quality that `BYTES_PER_PIXEL` allows, whatever the path's
    ending."""
    path.write_bytes(encode(picture))


def encode(picture: Image.Image) -> bytes:
    """The file of `write_jpeg`."""
    most = max(ALWAYS, picture.width * picture.height * BYTES_PER_PIXEL)
    first = 0
    for quality, size in SIZES.items():
        if first * size > most:
            continue  # would be too large again
        file = io.BytesIO()
        picture.save(file, format="JPEG", quality=quality, optimize=True)
        first = first or file.tell()
        if file.tell() <= most:
            break
    return file.getvalue()
