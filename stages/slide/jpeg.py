"""Decode one JPEG tile as its slide means it: exactly, or with an error.

Tiles in a TIFF are abbreviated streams, whose tables the file keeps once, and their colours are what the TIFF says, not
what a decoder would guess. libjpeg answers damage with a warning and made-up pixels; here a warning is an error.

Formats: ITU-T T.81 (JPEG), TIFF Technical Note 2 (JPEG in TIFF), Adobe Technical Note 5116 (the APP14 marker).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

Colour = Literal["rgb", "ycbcr"]
"""What the three components of a stream are."""

_START = b"\xff\xd8"
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
_TRANSFORMS: dict[Colour, bytes] = {"rgb": b"\x00", "ycbcr": b"\x01"}
_BARE = {0x00, 0x01, *range(0xD0, 0xDA)}
"""Markers that no segment follows, or that end the headers: none comes before a frame's."""
_FRAMES = {marker for marker in range(0xC0, 0xD0) if marker not in (0xC4, 0xC8, 0xCC)}

_SCAN = b"\xff\xda"

_HOLE = bytes(128)
"""What a lost sector or an unfinished copy leaves. libjpeg takes it for coefficients and often finds its way back."""


class JpegError(ValueError):
    """This stream is damaged; the message says how."""


@dataclass(frozen=True, slots=True)
class JpegTiles:
    """How the JPEG tiles of a level are to be read.

    Attributes:
        tables: the abbreviated stream of tables that they share, or None where each has its own.
        colour: of their components.
    """

    tables: bytes | None
    colour: Colour


def prefix(tables: bytes | None, colour: Colour) -> bytes:
    """What stands before every tile's own segments: the colours and the tables that its file keeps once.

    Args:
        tables: the file's abbreviated stream of tables, if it has one (TIFF's JPEGTables).
        colour: of the streams, as the file states it; overrides what a stream says itself.
    """
    shared = b""
    if tables:
        end = tables.rfind(b"\xff\xd9")
        shared = tables[: end if end > 0 else len(tables)]
        shared = _body(shared, _segments_end(shared))
    return _START + _ADOBE + _TRANSFORMS[colour] + shared


def decode(
    stream: bytes,
    before: bytes,
    size: tuple[int, int],
    *,
    scale: int = 1,
    into: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """RGB (height, width, 3) of a tile, as libjpeg decodes it by default (accurate DCT, smooth upsampling of colour).

    Args:
        stream: the tile as its file holds it.
        before: `prefix` of its file.
        size: (width, height) that the file states; anything else in the stream is damage.
        scale: 1, or one of `scales`: each pixel then stands for a square of so many, about their mean.
        into: contiguous memory for the pixels, which is then what is returned.

    Raises:
        JpegError: the stream is not a JPEG of this size, or the decoder warns of it.
    """
    head, whole = _head(stream), complete(stream, before)
    if head.size != size:
        found = frame_size(stream)
        raise JpegError(f"it holds {found[0]} x {found[1]} pixels, not the file's {size[0]} x {size[1]}")
    if _HOLE in stream and _is_hole(whole):
        raise JpegError(f"{len(_HOLE)} bytes or more of it are zero: a part of it was lost")
    width, height = (-(-side // scale) for side in size)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            whole,
            "RGB",
            fastdct=False,
            fastupsample=False,
            min_width=width,
            min_height=height,
            buffer=into,
            strict=True,
        )
    except ValueError as exc:
        raise JpegError(str(exc)) from exc
    if pixels.shape != (height, width, 3):
        raise JpegError(f"it decodes to {pixels.shape}, expected {height} x {width} x 3")
    return pixels if into is None else into


def complete(stream: bytes, before: bytes) -> bytes:
    """A tile's stream with its file's tables and colours in front, in the place of what it says of colours itself.

    Args:
        stream, before: see `decode`.

    Raises:
        JpegError: it is none.
    """
    return before + _body(stream, _head(stream).end)


def scales(size: tuple[int, int]) -> tuple[int, ...]:
    """Factors by which a tile of this (width, height) can be decoded smaller, straight from its coefficients.

    Those that divide it, largest first: elsewhere its last pixels would stand for less than a square.
    """
    return tuple(scale for scale in (8, 4, 2) if not size[0] % scale and not size[1] % scale)


def frame_size(stream: bytes) -> tuple[int, int]:
    """(width, height) that a stream's frame header states, read before anything is decoded or allocated.

    Raises:
        JpegError: it has none.
    """
    size = _head(stream).size
    if size is None:
        raise JpegError("it is not a JPEG stream")
    return size


class _Head(NamedTuple):
    """What a stream says before its first scan.

    Attributes:
        size: (width, height) of its frame; None where there is none.
        end: where the application segments at its beginning end.
    """

    size: tuple[int, int] | None
    end: int


def _head(stream: bytes) -> _Head:
    """The tiles of a file begin alike: what one of them says is known of the next."""
    head = _read_head(stream[: stream.find(_SCAN) + len(_SCAN)])
    # what looks like the scan's marker may be inside a segment
    return _read_head.__wrapped__(stream) if head.size is None else head


@lru_cache(maxsize=64)
def _read_head(stream: bytes) -> _Head:
    return _Head(_frame_size(stream), _segments_end(stream))


def _frame_size(stream: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker in _FRAMES:
            return int.from_bytes(stream[at + 7 : at + 9], "big"), int.from_bytes(stream[at + 5 : at + 7], "big")
        if marker in _BARE:
            break
        at += 1 if marker == 0xFF else 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None


def _segments_end(stream: bytes) -> int:
    at = 2
    while stream[at : at + 1] == b"\xff" and len(stream) > at + 4 and 0xE0 <= stream[at + 1] <= 0xEF:
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return at


def _body(stream: bytes, end: int) -> bytes:
    """A stream without its start and without the application segments (JFIF, Adobe) from which colours are guessed."""
    if stream[:2] != _START:
        raise JpegError("it is not a JPEG stream")
    return stream[end:]


def _is_hole(stream: bytes) -> bool:
    """Whether the zeros among a stream's coefficients cannot be an encoder's: they would be blocks of 63 times -1.

    Not so where the code of zeros ends a block, as tables made for a blank tile have it, nor in a progressive stream.
    """
    firsts: dict[int, int] = {}  # of each AC table: what its code of zeros stands for, a run and a size
    at = 2
    while at + 4 <= len(stream):
        marker, end = stream[at + 1], at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if marker in _FRAMES and marker > 0xC1:
            return False
        if marker == 0xC4:
            table = at + 4
            while table + 17 < end:
                if stream[table] >> 4:
                    firsts[stream[table] & 15] = stream[table + 17]
                table += 17 + sum(stream[table + 1 : table + 17])
        if marker == 0xDA:
            used = stream[at + 6 : at + 5 + 2 * stream[at + 4] : 2]
            scan = stream[end : stream.find(b"\xff\xd9", end)]
            return _HOLE in scan and any(firsts.get(selector & 15, 0) & 15 for selector in used)
        at = end
    return False
