"""The zarr codec that reads a slide's own JPEG tiles: pyramids can then hold them as they are.

Importing this module registers it with zarr; an entry point does where the project is installed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.registry import register_codec

from stages.pyramid.jpeg_metadata import NAME, STANDARD, jpeg_metadata, read_jpeg_metadata
from stages.slide import jpeg


@dataclass(frozen=True)
class JpegCodec(ArrayBytesCodec):
    """Chunks (..., height, width, 3) uint8, each a JPEG stream; read-only, and a damaged stream is an error.

    Attributes:
        tiles: how the streams are to be read.
    """

    is_fixed_size = False

    tiles: jpeg.JpegTiles

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The codec of an array's metadata.

        Raises:
            ValueError: the metadata asks for more than this codec does.
        """
        return cls(read_jpeg_metadata(data))

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads."""
        return jpeg_metadata(self.tiles)

    @cached_property
    def _prefix(self) -> bytes:
        return jpeg.prefix(self.tiles.tables, self.tiles.colour)

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        shape = chunk_spec.shape
        if len(shape) < 3 or shape[-1] != 3 or any(side > 1 for side in shape[:-3]):
            raise ValueError(f"a chunk of {shape} is no RGB picture: expected (height, width, 3), as transposed")
        data = chunk_data.to_bytes()
        if data:
            pixels = jpeg.decode(data, self._prefix, (shape[-2], shape[-3])).reshape(shape)
        else:  # a slide's blank tile
            pixels = np.full(shape, chunk_spec.fill_value, np.uint8)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(pixels)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        raise TypeError(f"the {NAME} codec only reads: such arrays are made by copying a slide's own tiles")

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Not known before a chunk is there."""
        raise NotImplementedError


for _name in (NAME, STANDARD):
    register_codec(_name, JpegCodec)
