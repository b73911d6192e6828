"""How an array's metadata says that its chunks are JPEG tiles: the configuration of a codec, as plain values.

Name and configuration are those of the codec of this name in imagecodecs, so that whoever has that one can read the
same arrays; `stages.pyramid.codec` is ours for zarr. What is proposed as a standard under the name `jpeg` is read, too:
https://github.com/zarr-developers/zarr-extensions/pull/66
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from stages.slide.jpeg import Colour, JpegTiles

NAME = "imagecodecs_jpeg"
STANDARD = "jpeg"
"""The name that is proposed; nothing is written under it before it is settled."""

_SPACES: dict[Colour, str] = {"rgb": "RGB", "ycbcr": "YCBCR"}
_ENCODER_KEYS = {"level", "subsampling", "optimize", "smoothing", "lossless", "predictor"}


def jpeg_metadata(tiles: JpegTiles) -> dict[str, Any]:
    """What `read_jpeg_metadata` reads; without the keys that would be null."""
    spaces = {"colorspace_data": "RGB", "colorspace_jpeg": _SPACES[tiles.colour]}
    tables = {} if tiles.tables is None else {"tables": base64.b64encode(tiles.tables).decode("ascii")}
    return {"name": NAME, "configuration": {**spaces, **tables}}


def read_jpeg_metadata(data: dict[str, Any]) -> JpegTiles:
    """How chunks are to be read, from an array's metadata.

    Args:
        data: the codec's name and, where it has one, its configuration.

    Raises:
        ValueError: it is another codec, or asks for other pixels than are decoded here.
    """
    name, found = data.get("name"), data.get("configuration")
    if name not in (NAME, STANDARD):
        raise ValueError(f"expected the codec {NAME} or {STANDARD}, found {name!r}")
    if not isinstance(found, dict | None):
        raise ValueError(f"the {name} codec's configuration is {found!r}, expected names and values")
    if name == STANDARD:
        return _read_standard(found or {})
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
    return JpegTiles(tables, colour)


def _read_standard(found: dict[str, Any]) -> JpegTiles:
    """The same of the proposed standard, whose streams are whole and say what their colours are."""
    colour = found.get("encoded_color_space")
    if colour not in _SPACES or found.keys() - {"quality", "chroma_subsampling", "encoded_color_space"}:
        raise ValueError(
            f"this {STANDARD} codec reads 8-bit RGB from streams whose encoded_color_space is stated to be rgb or "
            f"ycbcr, found {found}"
        )
    return JpegTiles(None, colour)
