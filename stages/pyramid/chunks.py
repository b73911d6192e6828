"""Chunks as a pyramid's shards hold them: compressed pixels or a slide's own JPEG tile, and a checksum of either."""

from __future__ import annotations

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from stages.pyramid.layout import ZSTD_LEVEL
from stages.pyramid.shards import crc32c

_ZSTD = Zstd(level=ZSTD_LEVEL)


def zstd_chunk(pixels: NDArray[np.uint8]) -> bytes:
    """A chunk of pixels (height, width, 3) as an array without JPEG tiles holds it."""
    data: bytes = _ZSTD.encode(np.ascontiguousarray(pixels))
    return data + crc32c(data)


def jpeg_chunk(stream: bytes) -> bytes:
    """A JPEG tile as an array of such tiles holds it."""
    return stream + crc32c(stream)
