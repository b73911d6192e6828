"""Which share of damage inside JPEG tiles is noticed: by the slide's own tiles as we decode them, and by OpenSlide.

    python benchmarks/damage.py [--count 200] [--seed 0]      a minute

Three slides: `scanner`, the real SVS's own compressed tiles (RGB, quality 30; see mosaic.py); `converted`, the same
pixels as most converters store them (256 px, YCbCr 4:2:0, quality 90); `dense`, a stained tissue without blank parts
(scikit-image's immunohistochemistry) stored likewise, where Huffman decoding most often finds its way back unnoticed.
Again and again a copy of one with one of its tiles damaged at one seeded place, the kinds in turn:
- bit: one bit flipped;
- byte: one byte replaced;
- zeros: 16 bytes zeroed;
- noise: 16 bytes replaced by random ones;
- sector: 512 bytes zeroed, as of a disk that lost a sector;
- foreign: 64 bytes replaced by those of another tile.
The tile, and a quarter of it alone at a seeded place ("a part"), are then read by `Slide.read_level`, and the tile by
OpenSlide: an error is "reported"; pixels that are the intact tile's are "right"; other pixels without an error are
"silent". `refused_by_syntax` is what share of our silent ones a complete
check of the stream finds (libjxl's lossless transcoder, which must understand every bit): the rest are faultless JPEG
streams of another picture, which only a checksum can tell, and a TIFF has none. `silent_error` is how far off these
tiles are, the median of their mean absolute differences in grey levels. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import imagecodecs
import numpy as np
import openslide
import skimage.data
import tifffile
from numpy.typing import NDArray

from benchmarks.mosaic import SLIDE, make_mosaic, read_piece
from benchmarks.places import data_folder
from stages.geometry import Box
from stages.slide import jpeg
from stages.slide.files import SlideError, open_slide
from stages.slide.tiff import TiffTiles

SIZE = 2160 * 2880 / 1e9
"""Gigapixels of a slide that has each of the scanner's whole tiles."""
KINDS = ("bit", "byte", "zeros", "noise", "sector", "foreign")

Read = Callable[[Path, Box], NDArray[np.uint8]]


def damage(stream: bytes, kind: str, other: bytes, rng: np.random.Generator) -> bytes:
    """The stream with one place damaged; ``other`` is what foreign bytes come from. At least one byte differs."""
    length = {"bit": 1, "byte": 1, "zeros": 16, "noise": 16, "sector": 512, "foreign": 64}[kind]
    while True:
        at = int(rng.integers(max(1, len(stream) - length)))
        old = stream[at : at + length]
        if kind == "bit":
            new = bytes([old[0] ^ 1 << int(rng.integers(8))])
        elif kind in ("byte", "noise"):
            new = rng.bytes(len(old))
        elif kind == "foreign":
            start = int(rng.integers(max(1, len(other) - length)))
            new = other[start : start + len(old)].ljust(len(old), b"\0")
        else:
            new = bytes(len(old))
        if new != old:
            return stream[:at] + new + stream[at + len(old) :]


def read_ours(path: Path, box: Box) -> NDArray[np.uint8]:
    """As the pipeline reads it, the slide freshly opened."""
    return open_slide(path).read_level(0, box)


def read_openslide(path: Path, box: Box) -> NDArray[np.uint8]:
    """As OpenSlide reads it, the slide freshly opened."""
    with openslide.OpenSlide(path) as handle:
        return np.asarray(handle.read_region((box.x, box.y), 0, (box.width, box.height)))[..., :3]


def outcome(read: Read, path: Path, box: Box, intact: NDArray[np.uint8]) -> tuple[str, float]:
    """("reported", "right" or "silent", mean absolute difference)."""
    try:
        off = np.abs(read(path, box).astype(float) - intact).mean()
    except (SlideError, openslide.OpenSlideError):
        return "reported", 0.0
    return ("silent", float(off)) if off else ("right", 0.0)


def transcodes(stream: bytes) -> bool:
    """Whether the stream is a faultless JPEG file, to the last bit."""
    try:
        imagecodecs.jpegxl_encode_jpeg(stream)
    except imagecodecs.JpegxlError:
        return False
    return True


def run(path: Path, count: int, seed: int) -> dict[str, Any]:
    """Damage and read tiles of copies of the slide, which stand beside it."""
    rng, slide, copy = np.random.default_rng(seed), open_slide(path), path.with_name("damaged.svs")
    tiles = slide.tiles(0)
    assert isinstance(tiles, TiffTiles)
    assert tiles.jpeg is not None
    before, shape = jpeg.prefix(tiles.jpeg.tables, tiles.jpeg.colour), tiles.byte_counts.shape
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        offsets = np.array(tiff.pages[0].aspage().dataoffsets).reshape(shape)
    found = {name: Counter[str]() for name in ("ours", "a part", "openslide", *KINDS)}
    silent, refused = [], 0
    for i in range(count):
        (row, column), (y, x) = ((int(rng.integers(shape[0])), int(rng.integers(shape[1]))) for _ in range(2))
        kind, intact = KINDS[i % len(KINDS)], tiles.stored(row, column)
        harmed = damage(intact, kind, tiles.stored(y, x), rng)
        at = int(offsets[row, column])
        copy.write_bytes(whole[:at] + harmed + whole[at + len(intact) :])
        box = tiles.box(row, column)
        expected = jpeg.decode(intact, before, tiles.tile)[: box.height, : box.width]
        own, off = outcome(read_ours, copy, box, expected)
        left, top = (int(rng.integers(side // 2)) for side in (box.width, box.height))
        part = Box(left, top, box.width // 2, box.height // 2)
        of_part, _ = outcome(read_ours, copy, part.moved(box.x, box.y), expected[part.slices])
        theirs, _ = outcome(read_openslide, copy, box, expected)
        found["ours"][own] += 1
        found["a part"][of_part] += 1
        found["openslide"][theirs] += 1
        found[kind][own] += 1
        if own == "silent":
            silent.append(off)
            refused += not transcodes(before + harmed[2:])
    return {
        "count": count,
        **{name: {word: round(n / sum(seen.values()), 3) for word, n in seen.items()} for name, seen in found.items()},
        "refused_by_syntax": round(refused / max(1, len(silent)), 3),
        "silent_error": round(median(silent), 2) if silent else 0.0,
    }


def convert(path: Path, pixels: NDArray[np.uint8]) -> Path:
    """Write pixels as most converters do."""
    options = {"compression": "jpeg", "compressionargs": {"level": 90}, "subsampling": (2, 2)}
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", metadata=None, **options)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="corruptions of each slide")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        slides = {
            "scanner": make_mosaic(Path(folder) / "scanner.svs", SIZE, flat=True),
            "converted": convert(Path(folder) / "converted.tif", read_piece(data_folder() / SLIDE).pixels),
            "dense": convert(Path(folder) / "dense.tif", np.tile(skimage.data.immunohistochemistry(), (4, 4, 1))),
        }
        for slide, path in slides.items():
            figures[slide] = run(path, args.count, args.seed)
            for name in ("ours", "a part", "openslide", *KINDS):
                told = ", ".join(f"{word} {share:.0%}" for word, share in sorted(figures[slide][name].items()))
                print(f"{slide}, {name + ('' if name not in KINDS else ' (ours)')}: {told}", flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
