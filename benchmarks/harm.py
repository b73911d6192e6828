"""Small valid slides of every format at hand, and what befalls files: seeded damage of stated kinds.

Each slide is the same picture, 768 x 512 px of stained tissue at 0.5 µm/px in tiles of 128 px.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numcodecs import Blosc
from numpy.typing import NDArray

from benchmarks.places import ROOT
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.open import open_pyramid

sys.path.insert(0, str(ROOT / "tests"))
from dicom_files import write_dicom
from images import write_image
from makers import APERIO, tissue_pixels, write_slide
from scn import write_scn

TILE = 128
TAGS: dict[str, Callable[[Any, np.random.Generator], Any]] = {
    **dict.fromkeys(
        ("ImageWidth", "ImageLength", "TileWidth", "TileLength", "RowsPerStrip"),
        lambda old, rng: max(1, int(rng.choice([old // 2, 2 * old, old - 16, old + 16, old - 1, 2**20]))),
    ),
    "Compression": lambda old, rng: int(rng.choice([1, 5, 7, 8, 33005, 34712])),
    "PhotometricInterpretation": lambda old, rng: int(rng.choice([0, 1, 2, 6])),
    "SamplesPerPixel": lambda old, rng: int(rng.choice([1, 3, 4])),
    "PlanarConfiguration": lambda old, rng: 3 - old,
    "Predictor": lambda old, rng: 3 - old,
    "NewSubfileType": lambda old, rng: 1 - old,
    "XResolution": lambda old, rng: (max(1, old[0] * int(rng.choice([2, 4])) // 2), old[1] * int(rng.choice([1, 2]))),
    "ResolutionUnit": lambda old, rng: int(rng.choice([1, 2, 3])),
}
"""What a tag is changed to."""


def make_slides(folder: Path) -> dict[str, Path]:
    """A slide of each format, by a name for it."""
    image = tissue_pixels(768, 512, margin=0.1)
    made = {
        "jpeg": write_slide(folder / "jpeg.tif", image, tile=TILE),
        "svs": write_slide(folder / "svs.svs", image, tile=TILE, description=APERIO),
        "svs-jp2": write_slide(
            folder / "svs-jp2.svs", image, tile=TILE, compression="aperio_jp2000_rgb", description=APERIO
        ),
        "lzw-2": write_slide(folder / "lzw-2.tif", image, tile=TILE, compression="lzw", predictor=True),
        "ome": _write_ome(folder / "ome.ome.tif", image),
        "planes": _write_planes(folder / "planes.ome.tif", image),
        "scn": write_scn(folder / "scn.scn", image, (100, 60), (2000, 1400)),
        "strips": _write_strips(folder / "strips.tif", image),
        "dicom": write_dicom(folder / "dicom", image, tile=TILE),
        "zarr3": write_image(folder / "zarr3.ome.zarr", image, chunk=TILE),
        "zarr2": write_image(
            folder / "zarr2.ome.zarr", image, version="0.4", chunk=TILE, compressors=Blosc("lz4", 5, Blosc.SHUFFLE)
        ),
        "zarr-raw": write_image(folder / "zarr-raw.ome.zarr", image, version="0.4", chunk=TILE, compressors=None),
        "shards": write_image(folder / "shards.ome.zarr", image, chunk=TILE, shard=512),
    }
    for name in ("lzw", "deflate", "none", "zstd", "jpeg2000", "webp"):
        compression = None if name == "none" else name
        made[name] = write_slide(folder / f"{name}.tif", image, tile=TILE, compression=compression)
    for profile in ("native", "portable"):
        made[profile] = folder / f"{profile}.ome.zarr"
        cache_pyramid(open_pyramid(made["jpeg"]), made[profile], profile=profile)
    return made


def _write_ome(path: Path, image: NDArray[np.uint8]) -> Path:
    options: dict[str, Any] = {"photometric": "rgb", "tile": (TILE, TILE), "compression": "jpeg"}
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(image, subifds=1, metadata=metadata, **options)
        tiff.write(np.ascontiguousarray(image[::2, ::2]), subfiletype=1, metadata=None, **options)
    return path


def _write_planes(path: Path, image: NDArray[np.uint8]) -> Path:
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    options: dict[str, Any] = {"photometric": "minisblack", "tile": (TILE, TILE), "compression": "deflate"}
    tifffile.imwrite(
        path, planes, ome=True, metadata={"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}, **options
    )
    return path


def _write_strips(path: Path, image: NDArray[np.uint8]) -> Path:
    options: dict[str, Any] = {"photometric": "rgb", "compression": "packbits", "rowsperstrip": 64, "metadata": None}
    tifffile.imwrite(path, image, resolution=(20000, 20000), resolutionunit="CENTIMETER", **options)
    return path


def copy_slide(slide: Path, to: Path) -> Path:
    """A copy of a slide, of whatever belongs to it, at a path without its ending; where it begins."""
    if slide.suffix == ".dcm":
        shutil.copytree(slide.parent, to)
        return to / slide.name
    target = to.with_name(to.name + "".join(slide.suffixes))
    return Path(shutil.copytree(slide, target) if slide.is_dir() else shutil.copy(slide, target))


def damage(slide: Path, kind: str, rng: np.random.Generator) -> str:
    """Damage a slide in place and say how, or "" where a kind is none for it."""
    for _ in range(20):
        path = slide
        if slide.is_dir():
            path = _file_in(slide, kind, rng)
        elif slide.suffix == ".dcm":
            path = slide.parent / str(rng.choice(["0.dcm", "0.dcm", "1.dcm"]))
        before = path.read_bytes()
        try:
            told = KINDS[kind](path, rng)
        except (
            OSError,
            ValueError,
            KeyError,
            IndexError,
            AttributeError,
            TypeError,
            tifffile.TiffFileError,
            struct.error,
        ):
            path.write_bytes(before)  # a kind that is none for this format
            continue
        if not path.exists() or path.read_bytes() != before:
            return f"{path.relative_to(slide.parent)}: {told}"
    return ""


def _file_in(folder: Path, kind: str, rng: np.random.Generator) -> Path:
    """A file of a pyramid: of its metadata where those are to be damaged, else a chunk, mostly of its finest level."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    said = {path for path in files if path.name in ("zarr.json", ".zarray", ".zattrs", ".zgroup")}
    chosen = sorted(said) if kind in ("header", "number", "lost header") else [p for p in files if p not in said]
    finest = [path for path in chosen if path.relative_to(folder).parts[0].strip("s") == "0"]
    return (finest if finest and rng.random() < 0.7 else chosen)[int(rng.integers(1 << 30)) % len(finest or chosen)]


def _put(path: Path, at: int, new: bytes) -> str:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(new)
    return f"{len(new)} bytes at {at}"


def _spot(path: Path, rng: np.random.Generator, length: int, step: int = 1) -> tuple[int, int]:
    """A place in a file, and how many bytes there are from it on, at most so many."""
    size = path.stat().st_size
    at = int(rng.integers(max(1, size - length + 1))) // step * step
    return at, min(length, size - at)


def _bit(path: Path, rng: np.random.Generator) -> str:
    at, _ = _spot(path, rng, 1)
    return _put(path, at, bytes([path.read_bytes()[at] ^ 1 << int(rng.integers(8))]))


def _byte(path: Path, rng: np.random.Generator) -> str:
    at, _ = _spot(path, rng, 1)
    return _put(path, at, rng.bytes(1))


def _zeros(path: Path, rng: np.random.Generator) -> str:
    at, length = _spot(path, rng, 64)
    return _put(path, at, bytes(length))


def _sector(path: Path, rng: np.random.Generator) -> str:
    at, length = _spot(path, rng, 512, 512)
    return _put(path, at, bytes(length))


def _noise(path: Path, rng: np.random.Generator) -> str:
    at, length = _spot(path, rng, 4096, 4096)
    return _put(path, at, rng.bytes(length))


def _hole(path: Path, rng: np.random.Generator) -> str:
    """As of a copy that skipped a part."""
    size = path.stat().st_size
    at, length = _spot(path, rng, min(2**17, size // 4 + 1), 4096)
    return _put(path, at, bytes(length))


def _misplaced(path: Path, rng: np.random.Generator) -> str:
    """A block of another place of the same file."""
    (at, length), (there, _) = _spot(path, rng, 4096, 4096), _spot(path, rng, 4096, 4096)
    return _put(path, at, path.read_bytes()[there : there + length])


def _cut(path: Path, rng: np.random.Generator) -> str:
    size = path.stat().st_size
    left = int(rng.choice([0, 12, size - 1, size // 2, int(size * rng.random()), int(size * 0.95)]))
    os.truncate(path, left)
    return f"cut to {left} of {size}"


def _tail(path: Path, rng: np.random.Generator) -> str:
    with path.open("ab") as file:
        more = rng.bytes(int(rng.integers(1, 5000)))
        file.write(more)
    return f"{len(more)} bytes more"


def _header(path: Path, rng: np.random.Generator) -> str:
    """A byte or two of what says how the file is to be read."""
    spans = [(0, min(path.stat().st_size, 1500))]
    if path.suffix in (".tif", ".svs", ".scn"):
        with tifffile.TiffFile(path) as tiff:
            pages = [page.aspage() for page in tiff.pages]
            spans = [(0, 16), *((page.offset, page.offset + 20 * len(page.tags) + 16) for page in pages)]
    told = []
    for _ in range(int(rng.integers(1, 3))):
        start, stop = spans[int(rng.integers(len(spans)))]
        told.append(_put(path, int(rng.integers(start, min(stop, path.stat().st_size))), rng.bytes(1)))
    return ", ".join(told)


def _tag(path: Path, rng: np.random.Generator) -> str:
    """A TIFF's tag of another value; an element of a DICOM likewise."""
    if path.suffix == ".dcm":
        import pydicom

        said = pydicom.dcmread(path)
        name = str(rng.choice(["Rows", "Columns", "NumberOfFrames", "TotalPixelMatrixRows", "TotalPixelMatrixColumns"]))
        value = max(1, int(rng.choice([2, 0.5])) * int(said[name].value) + int(rng.integers(-1, 2)))
        setattr(said, name, value)
        said.save_as(path)
        return f"{name} = {value}"
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[int(rng.integers(len(tiff.pages)))].aspage()
        name = str(rng.choice([name for name in TAGS if name in page.tags]))
        value = TAGS[name](page.tags[name].value, rng)
        page.tags[name].overwrite(value)
    return f"page {page.index}: {name} = {value}"


def _changed(path: Path, rng: np.random.Generator, name: str, new: Callable[[list[int], int, int], int]) -> str:
    """A TIFF's list of tiles with one entry changed, by a list of either and two places in it."""
    if path.suffix == ".dcm":
        data = path.read_bytes()
        at = data.index(bytes.fromhex("e07f1000")) + 12
        items = []
        while data[at : at + 4] == bytes.fromhex("feff00e0"):
            items.append(at)
            at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        (i, j), sizes = rng.integers(1, len(items), 2), [int.from_bytes(data[n + 4 : n + 8], "little") for n in items]
        value = max(0, new(sizes, int(i), int(j)))
        return f"frame {i}: {_put(path, items[i] + 4, value.to_bytes(4, 'little'))}"
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[int(rng.integers(len(tiff.pages)))].aspage()
        tag = next(page.tags[f"{kind}{name}"] for kind in ("Tile", "Strip") if f"{kind}{name}" in page.tags)
        values = list(tag.value)
        i, j = (int(n) for n in rng.integers(len(values), size=2))
        values[i] = new(values, i, j)
        tag.overwrite(values)
    return f"page {page.index}: {tag.name}[{i}] = {values[i]}"


def _offset(path: Path, rng: np.random.Generator) -> str:
    size, share = path.stat().st_size, rng.random()
    wild = [0, 8, size, 2**31, int(size * share)]
    return _changed(path, rng, "Offsets", lambda old, i, j: [*wild, old[i] + 1, old[i] - 7][j % 7])


def _count(path: Path, rng: np.random.Generator) -> str:
    return _changed(
        path, rng, "ByteCounts", lambda old, i, j: [0, 1, old[i] // 2, old[i] - 1, 2 * old[i], 2**31 - 1][j % 6]
    )


def _swapped(path: Path, rng: np.random.Generator) -> str:
    """Two tiles, each in the other's place; or one of them in both."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[int(rng.integers(len(tiff.pages)))].aspage()
        middle = len(page.dataoffsets) // 2
        i, j = int(rng.integers(middle)), int(rng.integers(middle, len(page.dataoffsets)))
        both = rng.random() < 0.5
        for name in ("Offsets", "ByteCounts"):
            tag = next(page.tags[f"{kind}{name}"] for kind in ("Tile", "Strip") if f"{kind}{name}" in page.tags)
            values = list(tag.value)
            values[i], values[j] = (values[j], values[i]) if both else (values[j], values[j])
            tag.overwrite(values)
    return f"page {page.index}: tiles {i} and {j} {'swapped' if both else 'are both the latter'}"


def _number(path: Path, rng: np.random.Generator) -> str:
    """A number in the metadata of a pyramid, twice or half as much, one more or 0."""
    said = json.loads(path.read_text())
    places: list[tuple[Any, Any]] = []

    def look(here: Any) -> None:
        for key, value in here.items() if isinstance(here, dict) else enumerate(here):
            if isinstance(value, int | float) and not isinstance(value, bool):
                places.append((here, key))
            elif isinstance(value, dict | list):
                look(value)

    look(said)
    where, key = places[int(rng.integers(len(places)))]
    old = where[key]
    where[key] = [0, 2 * old, old // 2 if isinstance(old, int) else old / 2, old + 1][int(rng.integers(4))]
    path.write_text(json.dumps(said))
    return f"{key}: {old} -> {where[key]}"


def _lost(path: Path, rng: np.random.Generator) -> str:
    path.unlink()
    return "removed"


def _mixed(path: Path, rng: np.random.Generator) -> str:
    """Two chunks of a level, each in the other's place."""
    level = next(parent for parent in path.parents if any((parent / n).exists() for n in ("zarr.json", ".zarray")))
    chunks = [
        p for p in sorted(level.rglob("*")) if p.is_file() and p.name not in ("zarr.json", ".zarray") and p != path
    ]
    other = chunks[int(rng.integers(len(chunks)))]
    data = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(data)
    return f"swapped with {other.relative_to(level)}"


ANY = {
    "bit": _bit,
    "byte": _byte,
    "zeros": _zeros,
    "sector": _sector,
    "noise": _noise,
    "hole": _hole,
    "misplaced": _misplaced,
    "cut": _cut,
    "tail": _tail,
    "header": _header,
}
OF_FILES = {"tag": _tag, "offset": _offset, "count": _count, "swapped": _swapped}
OF_FOLDERS = {"number": _number, "lost": _lost, "lost header": _lost, "mixed": _mixed}
KINDS: dict[str, Callable[[Path, np.random.Generator], str]] = {**ANY, **OF_FILES, **OF_FOLDERS}
"""What befalls a file: it takes its path, and says what it did."""


def kinds_of(slide: Path) -> tuple[str, ...]:
    """The kinds of damage that a slide's format can have."""
    return (*ANY, *(OF_FOLDERS if slide.is_dir() else OF_FILES))
