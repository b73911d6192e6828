"""The zarr codec that reads a slide's own JPEG tiles: pyramids can then hold them as they are.

Its name and configuration are those of the codec of this name in imagecodecs, so that whoever has that one can read the
same arrays. Importing this module registers it with zarr; an entry point does where the project is installed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.common import parse_named_configuration
from zarr.registry import register_codec

from stages.slide import jpeg

NAME = "imagecodecs_jpeg"

_SPACES: dict[jpeg.Colour, str] = {"rgb": "RGB", "ycbcr": "YCBCR"}
_ENCODER_KEYS = {"level", "subsampling", "optimize", "smoothing", "lossless", "predictor"}


@dataclass(frozen=True)
class JpegCodec(ArrayBytesCodec):
    """Chunks (height, width, 3) uint8, each a JPEG stream; read-only, and a damaged stream is an error.

    Attributes:
        tables: the abbreviated stream of tables that the chunks share, or None where each has its own.
        colour: of their components.
    """

    is_fixed_size = False

    tables: bytes | None
    colour: jpeg.Colour

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The codec of an array's metadata.

        Raises:
            ValueError: the metadata asks for more than this codec does.
        """
        _, found = parse_named_configuration(data, NAME, require_configuration=False)
        stated: dict[str, Any] = {key: value for key, value in (found or {}).items() if value is not None}
        for key in _ENCODER_KEYS:  # of no matter to the decoder
            stated.pop(key, None)
        spaces = {space: colour for colour, space in _SPACES.items()}
        colour = spaces.get(str(stated.pop("colorspace_jpeg", None)).upper())
        data_space = str(stated.pop("colorspace_data", "RGB")).upper()
        plain = stated.pop("bitspersample", 8) == 8 and stated.pop("fancyupsampling", True) is True
        try:
            tables = base64.b64decode(stated.pop("tables"), validate=True) if "tables" in stated else None
        except (TypeError, binascii.Error) as exc:
            raise ValueError(f"the {NAME} codec's tables are not base64") from exc
        if colour is None or data_space != "RGB" or not plain or stated:
            raise ValueError(
                f"this {NAME} codec reads 8-bit RGB from streams that are stated to be RGB or YCBCR, found {found}: "
                "use the codec of this name in imagecodecs"
            )
        return cls(tables, colour)

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads; without the keys that would be null."""
        spaces = {"colorspace_data": "RGB", "colorspace_jpeg": _SPACES[self.colour]}
        tables = {} if self.tables is None else {"tables": base64.b64encode(self.tables).decode("ascii")}
        return {"name": NAME, "configuration": {**spaces, **tables}}

    @cached_property
    def _prefix(self) -> bytes:
        return jpeg.prefix(self.tables, self.colour)

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        height, width, _ = shape = chunk_spec.shape
        data = chunk_data.to_bytes()
        if data:
            pixels = jpeg.decode(data, self._prefix, (width, height))
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


register_codec(NAME, JpegCodec)
