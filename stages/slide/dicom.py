"""The slide's own JPEG frames, where its file is a plain tiled DICOM.

In a whole-slide instance whose frames are organised as TILED_FULL, frame ``i`` of an optical path and focal plane is
tile ``i`` of the level, row by row, and each is a JPEG stream of its own. Every level is a file; those of a slide share
a folder and a series. As with TIFF, whoever uses the tiles compares some with OpenSlide first.

Format: DICOM PS3.3 C.7.6.17.3 (TILED_FULL); PS3.5 A.4 (encapsulated pixel data and where its frames begin).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import parse_basic_offsets
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import JPEGBaseline8Bit

from stages.disk import open_regular, read_at, reading
from stages.passing import UnreadableError
from stages.slide.dicom_header import MAX_HEADER, MAX_READS, Bounded, quiet, series_files
from stages.slide.tiff import TiffTiles

_COLOURS = {
    "RGB": tifffile.PHOTOMETRIC.RGB,
    "YBR_FULL": tifffile.PHOTOMETRIC.YCBCR,
    "YBR_FULL_422": tifffile.PHOTOMETRIC.YCBCR,
}
_TAGS = [
    Tag(keyword)
    for keyword in (
        *("SeriesInstanceUID", "DimensionOrganizationType", "TotalPixelMatrixColumns", "TotalPixelMatrixRows"),
        *("Columns", "Rows", "NumberOfFrames", "NumberOfOpticalPaths", "TotalPixelMatrixFocalPlanes"),
        *("PhotometricInterpretation", "SamplesPerPixel", "BitsAllocated"),
    )
]
_TABLES = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
_PIXELS = bytes.fromhex("e07f1000 4f420000 ffffffff")
"""How encapsulated pixel data begin: the tag, the type OB, no length."""
_ITEM = bytes.fromhex("feff00e0")


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


@dataclass(frozen=True, slots=True)
class _Header:
    """What a file says of its level.

    Attributes:
        series: of the slide.
        size, tile: (width, height) of the level and of a frame, in pixels.
        frames: of the file.
        colour: of the frames, as TIFF names it; None where they are not simply the level's tiles.
        rest: where in the file the elements begin that were not read.
    """

    series: str
    size: tuple[int, int]
    tile: tuple[int, int]
    frames: int
    colour: int | None
    rest: int


def find_dicom_tiles(path: Path, sizes: Sequence[tuple[int, int]]) -> list[TiffTiles | None]:
    """The tile grid of each level of ``sizes`` (width, height), or None where no plain file of that size is there.

    A level that two files could be (focus planes, say) has none: guessing would show the wrong one.
    """
    read = {file: _read_header(file) for file in series_files(path)}
    headers = {file: header for file, header in read.items() if header is not None}
    if path not in headers:
        return [None] * len(sizes)
    grids: list[TiffTiles | None] = []
    for size in sizes:
        same = [f for f, header in headers.items() if (header.series, header.size) == (headers[path].series, size)]
        page = _page(same[0], headers[same[0]]) if len(same) == 1 else None
        grids.append(TiffTiles(same[0], page) if page is not None else None)
    return grids


def _at_frame_groups(tag: BaseTag, vr: str | None, length: int) -> bool:
    """Whether a header's elements come that are as many as the slide has frames; all of `_TAGS` stand before them."""
    return int(tag) >= 0x5200_0000


def _at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    return int(tag) >= 0x7FE0_0008


def _read_header(path: Path) -> _Header | None:
    """What a file says of its level; None where it is not DICOM with JPEG frames, or not as the standard has it."""
    try:
        with reading(path), open_regular(path) as file, quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # oddities in what another file than the slide may be
            bounded = cast(BinaryIO, Bounded(file, size=MAX_HEADER, reads=MAX_READS))
            found = read_partial(bounded, _at_frame_groups, specific_tags=[*_TAGS])
            if found.file_meta.TransferSyntaxUID != JPEGBaseline8Bit:
                return None
            return _parsed(found, file.tell())
    except UnreadableError:
        raise
    except Exception:  # pydicom's own types, and whatever damage makes of values: OpenSlide reads it instead
        return None


def _parsed(found: Dataset, rest: int) -> _Header:
    size = (int(found.TotalPixelMatrixColumns), int(found.TotalPixelMatrixRows))
    tile = (int(found.Columns), int(found.Rows))
    planes = (found.get("NumberOfOpticalPaths", 1), found.get("TotalPixelMatrixFocalPlanes", 1))
    plain = found.get("DimensionOrganizationType") == "TILED_FULL" and planes == (1, 1)
    form = (found.SamplesPerPixel, found.BitsAllocated)
    colour = _COLOURS.get(found.PhotometricInterpretation) if plain and form == (3, 8) else None
    series = str(found.get("SeriesInstanceUID", ""))
    return _Header(series, size, tile, int(found.NumberOfFrames), colour, rest)


def _page(path: Path, header: _Header) -> _Page | None:
    """The frames of a level; None where they are not simply its tiles."""
    if header.colour is None or min(*header.size, *header.tile) < 1:
        return None
    count = -(-header.size[0] // header.tile[0]) * -(-header.size[1] // header.tile[1])
    if header.frames != count or 8 * count > path.stat().st_size:
        return None
    try:
        offsets, sizes = _frames(path, header.rest, count)
    except UnreadableError:
        raise
    except Exception:  # as in `_read_header`
        return None
    if sizes.min() < 1:
        return None  # no frame is not a blank one
    return _Page(*header.size, *header.tile, offsets, sizes, header.colour)


def _frames(path: Path, rest: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets and sizes of the frames, by a table that says where they begin, or from one to the next.

    Raises:
        ValueError, struct.error: there are not so many, or a table is cut.
    """
    with reading(path), open_regular(path) as file:
        file.seek(rest)
        with quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bounded = cast(BinaryIO, Bounded(file, size=MAX_HEADER, reads=MAX_READS))
            found = read_dataset(bounded, False, True, stop_when=_at_pixels, specific_tags=[Tag(x) for x in _TABLES])
            extended = [np.frombuffer(found.get(name) or b"", "<u8").astype(np.int64) for name in _TABLES]
        if file.read(len(_PIXELS)) != _PIXELS:
            raise ValueError("no encapsulated pixels")
        basic = parse_basic_offsets(Bounded(file, size=8 + 4 * count, reads=3))
        descriptor, first = file.fileno(), file.tell()

        def item(at: int) -> int:
            """Bytes of the item that begins there."""
            head = read_at(descriptor, 8, at)
            if head[:4] != _ITEM:
                raise ValueError("fewer frames than there are tiles")
            return int.from_bytes(head[4:], "little")

        if len(extended[0]) == len(extended[1]) == count:
            return first + extended[0] + 8, extended[1] + extended[1] % 2  # as items hold them: of an even length
        if len(basic) == count:
            items = first + np.array(basic, np.int64)
        else:  # not by pydicom, which takes twice as long and does not stop after so many
            items, at = np.empty(count, np.int64), first
            for i in range(count):
                items[i] = at
                at += 8 + item(at)
        ends = np.append(items[1:], items[-1] + 8 + item(int(items[-1])))
        return items + 8, ends - items - 8
