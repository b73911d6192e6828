"""A whole-slide file of any size, made of one scanner's own tiles.

    python benchmarks/mosaic.py OUT.svs --gigapixels 1.5 [--levels 4 16 32] [--flat] [--mpp 0.25]      a few seconds

Level 0 repeats the compressed tiles of $SACCADE_DATA/slides/CMU-1-Small-Region.svs (default ../shared/data) as they
are: 240 x 240 px, RGB, tables shared through the JPEGTables tag. Coarser levels are exact means of its pixels,
compressed as the scanner did, once for each tile that differs. So every byte that a benchmark reads is a scanner's, and
only the picture repeats. The file is an Aperio BigTIFF; memory does not depend on its size.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from benchmarks.places import data_folder

SLIDE = "slides/CMU-1-Small-Region.svs"
QUALITY = 30
"""Of the scanner: it gives exactly the tables that the slide holds, which is checked."""
LEVELS = (4, 16, 32)
_TABLES = (0xDB, 0xC4)
_SCAN = 0xDA


@dataclass(frozen=True)
class Piece:
    """The scanner's tiles that lie whole inside its slide.

    Attributes:
        pixels: (height, width, 3), RGB.
        tiles: their compressed streams, row by row.
        side: of a tile, in pixels.
        tables: the abbreviated stream of tables that they share.
    """

    pixels: NDArray[np.uint8]
    tiles: list[list[bytes]]
    side: int
    tables: bytes


def make_mosaic(
    path: Path, gigapixels: float, *, levels: Sequence[int] = LEVELS, flat: bool = False, mpp: float = 0.5
) -> Path:
    """Write a square slide of at least so many gigapixels; what stands at ``path`` is replaced.

    Args:
        levels: whole downsamples of the levels after the first; each divides the sides of the slide.
        flat: level 0 only, whatever ``levels`` says.
        mpp: µm per level-0 pixel that the file claims.
    """
    factors = () if flat else tuple(levels)
    piece = read_piece(data_folder() / SLIDE)
    unit = math.lcm(piece.side, *factors)
    side = math.ceil(math.sqrt(gigapixels * 1e9) / unit) * unit
    beside = path.with_name(path.name + ".part")
    with tifffile.TiffWriter(beside, bigtiff=True) as tiff:
        for factor in (1, *factors):
            period = piece.tiles if factor == 1 else reduced_tiles(piece, factor)
            size, count = side // factor, math.ceil(side // factor / piece.side)
            tiff.write(
                repeat(period, count),
                shape=(size, size, 3),
                dtype=np.uint8,
                tile=(piece.side, piece.side),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"outcolorspace": "rgb"},
                subsampling=(1, 1),
                jpegtables=piece.tables,
                subfiletype=int(factor > 1),
                description=f"Aperio Image Library v11.2.1\r\n{side}x{side} -> {size}x{size} JPEG/RGB|MPP = {mpp}",
                metadata=None,
                software=False,
            )
    os.replace(beside, path)
    return path


def read_piece(path: Path) -> Piece:
    """The whole tiles of a slide's first level."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0].aspage()
        side, across = page.tilewidth, -(-page.imagewidth // page.tilewidth)
        columns, rows = page.imagewidth // side, page.imagelength // side
        pixels = page.asarray()[: rows * side, : columns * side]
        segments = [
            [(page.dataoffsets[i], page.databytecounts[i]) for i in range(row * across, row * across + columns)]
            for row in range(rows)
        ]
    with path.open("rb") as file:

        def stored(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        tiles = [[stored(*segment) for segment in row] for row in segments]
    return Piece(pixels, tiles, side, page.jpegtables)


def reduced_tiles(piece: Piece, factor: int) -> list[list[bytes]]:
    """One period of a coarser level of the piece repeated without end: area means, compressed as the scanner did."""
    height, width = (math.lcm(side, factor) for side in piece.pixels.shape[:2])
    repeated = np.tile(piece.pixels, (height // piece.pixels.shape[0], width // piece.pixels.shape[1], 1))
    mean = repeated.reshape(height // factor, factor, width // factor, factor, 3).mean((1, 3)).round().astype(np.uint8)
    rows, columns = (math.lcm(side, piece.side) // side for side in mean.shape[:2])
    level = np.tile(mean, (rows, columns, 1))
    return [
        [
            compress(level[y : y + piece.side, x : x + piece.side], piece.tables)
            for x in range(0, level.shape[1], piece.side)
        ]
        for y in range(0, level.shape[0], piece.side)
    ]


def compress(pixels: NDArray[np.uint8], tables: bytes) -> bytes:
    """A tile as the scanner stores it: an abbreviated stream, without the tables and the colour marker."""
    stream = imagecodecs.jpeg8_encode(
        np.ascontiguousarray(pixels), level=QUALITY, colorspace="RGB", outcolorspace="RGB", subsampling="444"
    )
    own, body, at = b"", b"", 2
    while stream[at + 1] != _SCAN:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if stream[at + 1] in _TABLES:
            own += stream[at:end]
        elif not 0xE0 <= stream[at + 1] <= 0xEF:
            body += stream[at:end]
        at = end
    if tables != b"\xff\xd8" + own + b"\xff\xd9":
        raise RuntimeError(f"quality {QUALITY} does not give the tables of the scanner's own tiles")
    return b"\xff\xd8" + body + stream[at:]


def repeat(period: list[list[bytes]], count: int) -> Iterator[bytes]:
    """The tiles of a grid of ``count x count``, row by row."""
    for row in range(count):
        line = period[row % len(period)]
        yield from (line[column % len(line)] for column in range(count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--gigapixels", type=float, default=1.5)
    parser.add_argument("--levels", type=int, nargs="*", default=LEVELS, help="downsamples of the coarser levels")
    parser.add_argument("--flat", action="store_true", help="no coarser levels")
    parser.add_argument("--mpp", type=float, default=0.5, help="µm per level-0 pixel that the file claims")
    args = parser.parse_args()
    path = make_mosaic(args.out, args.gigapixels, levels=args.levels, flat=args.flat, mpp=args.mpp)
    print(f"{path}: {path.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
