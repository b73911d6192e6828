"""The slide's own JPEG frames, where its file is a plain tiled DICOM.

In a whole-slide instance whose frames are organised as TILED_FULL, frame ``i`` of an optical path and focal plane is
tile ``i`` of the level, row by row, and each is a JPEG stream of its own. Every level is a file; those of a slide share
a folder and a series. As with TIFF, whoever uses the tiles compares some with OpenSlide first.

Formats: DICOM PS3.5 sections 7.1 (data elements), A.4 (encapsulated pixel data); PS3.3 C.7.6.17.3 (TILED_FULL).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from stages.slide.tiff import TiffTiles

MAX_FILES = 200
"""A slide has some ten: a folder of more is an archive, which is not searched."""

MAX_HEADER = 2**24
"""Bytes before the pixels: it takes a second to read through so many."""

_SYNTAX, _JPEG = 0x00020010, b"1.2.840.10008.1.2.4.50"
_COLOURS = {
    "RGB": tifffile.PHOTOMETRIC.RGB,
    "YBR_FULL": tifffile.PHOTOMETRIC.YCBCR,
    "YBR_FULL_422": tifffile.PHOTOMETRIC.YCBCR,
}
_SERIES, _WIDTH, _HEIGHT = 0x0020000E, 0x00480006, 0x00480007
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_UNDEFINED = 0xFFFFFFFF
_PIXELS = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONGEST = 1024
"""Bytes of the longest value that is of any use here."""


@dataclass(frozen=True, slots=True)
class _Page:
    """A level's frames under the names that `TiffTiles` takes a TIFF's tiles by."""

    imagewidth: int
    imagelength: int
    tilewidth: int
    tilelength: int
    dataoffsets: NDArray[np.int64]
    databytecounts: NDArray[np.int64]
    photometric: int
    compression: int = tifffile.COMPRESSION.JPEG
    jpegtables: bytes | None = None


def find_dicom_tiles(path: Path, sizes: Sequence[tuple[int, int]]) -> list[TiffTiles | None]:
    """The tile grid of each level of ``sizes`` (width, height), or None where no plain file of that size is there.

    A level that two files could be (focus planes, say) has none: guessing would show the wrong one.
    """
    files = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    headers = {file: _read_header(file) for file in (files if len(files) <= MAX_FILES else [path]) if file.is_file()}
    series = _text(headers.get(path, {}), _SERIES)
    grids: list[TiffTiles | None] = []
    for size in sizes:
        same = [
            file
            for file, header in headers.items()
            if _text(header, _SERIES) == series and (_number(header, _WIDTH), _number(header, _HEIGHT)) == size
        ]
        page = _page(same[0], headers[same[0]]) if len(same) == 1 else None
        grids.append(TiffTiles(same[0], page) if page is not None else None)
    return grids


def _read_header(path: Path) -> dict[int, bytes]:
    """The short values of a file by tag, and where its pixel data begins (8 bytes, under that tag).

    Empty where the file is not DICOM with JPEG frames, or not as the standard has it.
    """
    found: dict[int, bytes] = {}
    try:
        with path.open("rb") as file:
            if file.read(132)[128:] != b"DICM":
                return {}
            while (element := _next_element(file))[0] != _PIXELS:
                tag, length = element
                if tag > 0x0002FFFF and found.get(_SYNTAX, b"").strip(b" \0") != _JPEG:
                    return {}
                if length == _UNDEFINED:
                    _skip_sequence(file)
                elif length <= _LONGEST:
                    found[tag] = file.read(length)
                else:
                    file.seek(length, os.SEEK_CUR)
            return found | {_PIXELS: struct.pack("<Q", file.tell())}
    except (OSError, ValueError, struct.error):
        return {}


def _next_element(file: BinaryIO) -> tuple[int, int]:
    """Tag and length of the data element that begins here; the file stands at its value then."""
    if file.tell() > MAX_HEADER:
        raise ValueError("a header without end")
    head = file.read(8)
    group, element, vr, short = struct.unpack("<HH2sH", head)
    tag = group << 16 | element
    if group == 0xFFFE:
        return tag, int.from_bytes(head[4:], "little")
    return tag, int.from_bytes(file.read(4), "little") if vr in _LONG else short


def _skip_sequence(file: BinaryIO, depth: int = 0) -> None:
    """Past a sequence of undefined length."""
    if depth > 16:
        raise ValueError("sequences within sequences without end")
    while (item := _next_element(file))[0] != _SEQUENCE_END:
        tag, length = item
        if tag != _ITEM:
            raise ValueError("not a sequence of items")
        if length != _UNDEFINED:
            file.seek(length, os.SEEK_CUR)
            continue
        while (inner := _next_element(file))[0] != _ITEM_END:
            if inner[1] == _UNDEFINED:
                _skip_sequence(file, depth + 1)
            else:
                file.seek(inner[1], os.SEEK_CUR)


def _page(path: Path, header: dict[int, bytes]) -> _Page | None:
    """The frames of a level; None where they are not simply its tiles."""
    if _PIXELS not in header or _text(header, 0x00209311) != "TILED_FULL":
        return None
    across, down = _number(header, _WIDTH), _number(header, _HEIGHT)
    width, height = _number(header, 0x00280011), _number(header, 0x00280010)
    planes = (_number(header, 0x00480302, 1), _number(header, 0x00480303, 1))
    colour = _COLOURS.get(_text(header, 0x00280004))
    form = (_number(header, 0x00280002), _number(header, 0x00280100))
    if min(across, down, width, height) < 1 or planes != (1, 1) or colour is None or form != (3, 8):
        return None
    count = -(-across // width) * -(-down // height)
    if _text(header, 0x00280008) != str(count) or 8 * count > path.stat().st_size:
        return None
    try:
        offsets, sizes = _frames(path, int.from_bytes(header[_PIXELS], "little"), count)
    except (OSError, ValueError, struct.error):
        return None
    if sizes.min() < 1:
        return None  # no frame is not a blank one
    return _Page(across, down, width, height, offsets, sizes, colour)


def _frames(path: Path, start: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets and sizes of the frames, by the table of offsets that stands before them, or from one to the next."""
    with path.open("rb") as file:
        descriptor = file.fileno()

        def item(at: int) -> int:
            tag, element, length = struct.unpack("<HHI", os.pread(descriptor, 8, at))
            if (tag << 16 | element) != _ITEM:
                raise ValueError("fewer frames than there are tiles")
            return int(length)

        table = os.pread(descriptor, length, start + 8) if (length := item(start)) == 4 * count else b""
        first = start + 8 + length
        if table:
            items = first + np.frombuffer(table, "<u4").astype(np.int64)
        else:
            items = np.empty(count, np.int64)
            at = first
            for i in range(count):
                items[i] = at
                at += 8 + item(at)
        ends = np.append(items[1:], items[-1] + 8 + item(int(items[-1])))
        return items + 8, ends - items - 8


def _text(header: dict[int, bytes], tag: int) -> str:
    return header.get(tag, b"").decode("ascii", "replace").strip(" \0")


def _number(header: dict[int, bytes], tag: int, default: int = 0) -> int:
    return int.from_bytes(header[tag], "little") if tag in header else default
