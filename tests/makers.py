"""Slides that the tests make for themselves, and what they ask of them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import skimage.data
import tifffile
from numpy.typing import NDArray
from warm import COMMAND, EVERYTHING, LIMIT, run_warm

from stages.geometry import Box, Mpp, Raster, patch_rasters, physical_raster
from stages.pyramid.open import ZarrSlide
from stages.pyramid.plan import Wish
from stages.slide.protocol import Slide
from stages.slide.render import render

ROOT = Path(__file__).parent.parent
AWKWARD = 'Fälle 12\nü, "x".d'
"""A name with spaces, quotes, a newline and more than ASCII in it."""


def write_config(folder: Path, *, dim: int = 64, more: str = "") -> Path:
    """The configuration of a model that learns end to end, for the table ``cohort.csv`` beside it."""
    path = folder / "config.yaml"
    path.write_text(
        f"cohort: {{table: cohort.csv}}\nattention: {{kind: learned}}\nencoder: {{name: small, dim: {dim}}}\n{more}"
    )
    return path


def names(folder: Path) -> set[str]:
    """Of what is in a folder."""
    return {path.name for path in folder.iterdir()}


APERIO = "Aperio Image Library v11.2.1\r\n1024x1024 (256x256) JPEG/RGB Q=30|AppMag = 20|MPP = 0.5"
"""How Aperio's files describe themselves."""


def tissue_pixels(width: int, height: int, *, margin: float = 0.2) -> NDArray[np.uint8]:
    """Real stained tissue mirrored over a rectangle, with a bright margin of the given share on every side."""
    piece = skimage.data.immunohistochemistry()
    block = np.concatenate([np.concatenate([piece, piece[:, ::-1]], 1)] * 2)
    block[512:] = block[511::-1]
    reps = (-(-height // 1024), -(-width // 1024), 1)
    image = np.tile(block, reps)[:height, :width].copy()
    y, x = int(height * margin), int(width * margin)
    inside = np.zeros((height, width), bool)
    inside[y : height - y, x : width - x] = True
    image[~inside] = 244
    return image


def striped_cohort(folder: Path, *, train: int, test: int) -> Path:
    """Slides of as many patients; the tissue of every other one is finely striped, which any one patch can tell."""
    lines = ["slide,patient,label,split,mpp"]
    for i in range(train + test):
        image = tissue_pixels(300 + 8 * i, 320, margin=0.1)
        if i % 2:
            image[60:200, 60:200:2] //= 3
        write_slide(folder / f"s{i}.tif", image, levels=2, factor=4)
        lines.append(f"s{i}.tif,p{i},{'ab'[i % 2]},{'train' if i < train else 'test'},0.5")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    (folder / "config.yaml").write_text("cohort: {table: cohort.csv}\n")
    return folder


def write_slide(
    path: Path,
    image: NDArray[np.uint8],
    *,
    mpp: float | None = 0.5,
    tile: int = 256,
    levels: int = 3,
    factor: int = 2,
    compression: str | None = "jpeg",
    photometric: str = "rgb",
    **options: Any,
) -> Path:
    """Write ``image`` as a tiled pyramidal TIFF whose levels drop what ``factor`` leaves over, as scanners do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in range(levels):
            shrink = factor**level
            h, w = image.shape[0] // shrink, image.shape[1] // shrink
            blocks = image[: h * shrink, : w * shrink].reshape(h, shrink, w, shrink, 3)
            part = blocks.mean((1, 3)).round().astype(np.uint8) if level else image
            density = {} if mpp is None else {"resolution": (1e4 / mpp / shrink,) * 2, "resolutionunit": "CENTIMETER"}
            tiff.write(
                part,
                tile=(tile, tile),
                photometric=photometric,  # of the array: JPEG stores it as YCbCr
                compression=compression,
                compressionargs={"level": 90} if compression == "jpeg" else None,
                subfiletype=int(level > 0),
                metadata=None,
                **density,
                **options,
            )
    return path


CACHE = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import stages.pyramid.layout
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.open import open_pyramid
stages.pyramid.layout.SHARD_SIDE = stages.pyramid.layout.JPEG_SHARD_SIDE = 512
stop_after = int(sys.argv[4])
calls = 0
def progress(done, total, written):
    global calls
    calls += 1
    print(done, flush=True)
    if calls == stop_after:
        os.kill(os.getpid(), signal.SIGKILL)
cache_pyramid(open_pyramid(sys.argv[2]), sys.argv[3], profile=sys.argv[5], progress=progress, writers=1)
"""


def start_caching(slide: Path, out: Path, *, profile: Wish = "auto", stop_after: int = 0) -> subprocess.Popen[str]:
    """Cache in a process of its own, which kills itself after some shards."""
    command = [sys.executable, "-c", CACHE, str(ROOT), str(slide), str(out), str(stop_after), profile]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


MEASURE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from stages.geometry import Box, Mpp, Raster, patch_rasters, physical_raster
from stages.pyramid.open import ZarrSlide
from stages.slide.render import count_reads, render_many
from stages.pyramid.open import open_pyramid

def read_so_far():
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])

for path, rasters in json.load(sys.stdin):
    slide, rasters = open_pyramid(path), [Raster(*raster) for raster in rasters]
    render_many(slide, rasters[:1])  # opens the handle, checks the tiles, loads the codecs
    counted = count_reads(slide, rasters).bytes
    before = read_so_far()
    render_many(slide, rasters)
    print(json.dumps([counted, read_so_far() - before]))
"""


def measured_reads(requests: list[tuple[Path, list[Raster]]]) -> Iterator[tuple[int, int]]:
    """(bytes counted, bytes that the process really read) for each list of rasters together, in a fresh process."""
    rows = [
        (str(path), [(r.x, r.y, r.scale_x, r.scale_y, r.width, r.height) for r in rasters])
        for path, rasters in requests
    ]
    command = [sys.executable, "-c", MEASURE, str(ROOT)]
    done = subprocess.run(command, input=json.dumps(rows), capture_output=True, text=True, check=True)
    yield from (tuple(json.loads(line)) for line in done.stdout.splitlines())


def change_tags(path: Path, page: int = 0, **values: Any) -> Path:
    """Overwrite TIFF tags of one page."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for name, value in values.items():
            tiff.pages[page].aspage().tags[name].overwrite(value)
    return path


def empty_tile(path: Path, page: int, index: int) -> None:
    """Make one tile zero bytes long, as writers do with tiles that were never scanned."""
    with tifffile.TiffFile(path) as tiff:
        counts = list(tiff.pages[page].aspage().databytecounts)
    counts[index] = 0
    change_tags(path, page, TileByteCounts=counts)


def spoil(path: Path, page: int, index: int) -> None:
    """Overwrite one tile's data with noise."""
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[page].aspage()
        offset, size = at.dataoffsets[index], at.databytecounts[index]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(np.random.default_rng(0).bytes(size))


def saccade(*args: object, cwd: Path | None = None, fresh: bool = False) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own.

    Args:
        fresh: whether that process is to import everything by itself; else it is forked off one that has.
    """
    arguments = list(map(str, args))
    if hasattr(os, "fork") and not fresh:
        return run_warm(EVERYTHING, COMMAND, arguments, cwd=cwd)
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=LIMIT)


Pixels = NDArray[np.float64]


def pixels(slide: openslide.OpenSlide, left: int, top: int, width: int, height: int, *, level: int = 0) -> Pixels:
    """Colours 0-255 of a rectangle of a level, (height, width, 3), its corner in level-0 pixels."""
    region = slide.read_region((left, top), level, (width, height))
    return np.asarray(region.convert("RGB"), np.float64)


def thumbnail(image: Pixels, factor: int) -> Pixels:
    """Means of ``factor`` x ``factor`` pixels; what is left at the far edges is dropped."""
    height, width = (n // factor for n in image.shape[:2])
    return image[: height * factor, : width * factor].reshape(height, factor, width, factor, 3).mean((1, 3))


class PowerCut:
    """What a power cut would leave of what this process writes: contents and names that were flushed, nothing else.

    Every call is made all the same.

    Args:
        monkeypatch: undoes the listening.
        before_rename: called with the target before anything is renamed.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, before_rename: Callable[[Path], None] = lambda target: None
    ) -> None:
        self._contents: dict[int, tuple[int, int]] = {}
        self._names: dict[int, dict[str, int]] = {}
        fsync, rename, replace = os.fsync, os.rename, os.replace

        def flushing(descriptor: int) -> None:
            fsync(descriptor)
            found = os.fstat(descriptor)
            if stat.S_ISDIR(found.st_mode):
                self._names[found.st_ino] = {entry.name: entry.inode() for entry in os.scandir(descriptor)}
            else:
                self._contents[found.st_ino] = (found.st_size, found.st_mtime_ns)

        def renaming(really: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
            def listened(source: Any, target: Any) -> None:
                before_rename(Path(target))
                really(source, target)

            return listened

        monkeypatch.setattr(os, "fsync", flushing)
        monkeypatch.setattr(os, "rename", renaming(rename))
        monkeypatch.setattr(os, "replace", renaming(replace))

    def names(self, folder: Path) -> set[str]:
        """What a folder would list."""
        return set(self._names.get(folder.stat().st_ino, {}))

    def lost(self, path: Path) -> set[str]:
        """Of a file, and of all that a folder holds: names of what would be torn, or not be there."""
        found = path.stat()
        if not path.is_dir():
            return set() if self._contents.get(found.st_ino) == (found.st_size, found.st_mtime_ns) else {path.name}
        listed = self._names.get(found.st_ino, {})
        gone = {entry.name for entry in path.iterdir() if listed.get(entry.name) != entry.stat().st_ino}
        return gone.union(*(self.lost(entry) for entry in path.iterdir()))


def write_rgba(path: Path, image: NDArray[np.uint8]) -> Path:
    """A tiled TIFF with transparency: its tiles are not plain, so OpenSlide reads it."""
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            image,
            tile=(256, 256),
            photometric="rgb",
            extrasamples=["unassalpha"],
            compression="deflate",
            metadata=None,
            resolution=(20000, 20000),
            resolutionunit="CENTIMETER",
        )
    return path


def page_of(path: Path, page: int = 0) -> tifffile.TiffPage:
    with tifffile.TiffFile(path) as tiff:
        return tiff.pages[page].aspage()


def change_bytes(path: Path, at: int, data: bytes) -> Path:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
    return path


def small_slide(path: Path) -> Path:
    return write_slide(path, tissue_pixels(1024, 768, margin=0))


def assert_same_pixels(slide: Slide, pyramid: Slide) -> None:
    """Every level whole, then boxes of it."""
    rng = np.random.default_rng(0)
    for i, level in enumerate(slide.facts.levels):
        whole = slide.read_level(i, Box(0, 0, level.width, level.height))
        np.testing.assert_array_equal(pyramid.read_level(i, Box(0, 0, level.width, level.height)), whole)
        for _ in range(3):
            x, y = int(rng.integers(0, level.width)), int(rng.integers(0, level.height))
            box = Box(x, y, int(rng.integers(1, level.width - x + 1)), int(rng.integers(1, level.height - y + 1)))
            part = pyramid.read_level(i, box)
            np.testing.assert_array_equal(part, whole[y : y + box.height, x : x + box.width])
            assert part.flags.c_contiguous


def assert_same_renders(slide: Slide, pyramid: Slide, mpp: Mpp) -> None:
    """Thumbnails and patches at level scales, between them and off both, to the last bit."""
    finest = max(mpp.x, mpp.y)
    bounds = slide.facts.bounds
    rng = np.random.default_rng(1)
    for factor in (1.003, 1.7, 2, 3.3, 4.02, 11):
        if factor > 3:
            thumbnail = physical_raster(bounds, mpp, finest * factor)
            np.testing.assert_array_equal(render(pyramid, thumbnail), render(slide, thumbnail))
        centres = rng.uniform((bounds.x, bounds.y), (bounds.x + bounds.width, bounds.y + bounds.height), (3, 2))
        for patch in patch_rasters(centres, mpp, 96, finest * factor):
            np.testing.assert_array_equal(render(pyramid, patch), render(slide, patch))


Cached = Callable[[str, Wish], tuple[Slide, ZarrSlide]]
"""A made slide and its whole pyramid, by name and profile."""

MADE: list[tuple[str, Wish]] = [
    ("even.tif", "native"),
    ("even.tif", "portable"),
    ("odd.tif", "native"),
    ("odd.tif", "portable"),
    ("plain.tif", "portable"),
]
"""... and which there are."""


TIME_LIMIT = 120


MEMORY_MB = 64
"""What a process may take beyond what it takes for a small intact slide."""


ATTEMPT = """
import json, sys, warnings
from stages.geometry import Box
from stages.slide.facts import SlideError
from stages.slide.files import open_slide

def attempt(act):
    try:
        act()
        return "ok"
    except SlideError as exc:
        return f"SlideError: {exc}"

warnings.simplefilter("error")
told = []
path = json.loads(sys.argv[1])

def opening():
    global slide
    slide = open_slide(path)

told.append(attempt(opening))
if told[0] == "ok":
    for i, level in enumerate(slide.facts.levels):
        width, height = min(256, level.width), min(256, level.height)
        for x, y in ((0, 0), (level.width - width, level.height - height)):
            told.append(attempt(lambda: slide.read_level(i, Box(x, y, width, height))))
        told.append(attempt(lambda: slide.tile_bytes(i).sum()))
# getrusage would tell of what the parent held at its most
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([told, int(peak.split()[1]) / 1024]))
"""


def attempt(path: Path) -> tuple[list[str], float]:
    """What comes of opening and reading a file, "ok" or the error, and the process's peak memory in MB."""
    arguments = [json.dumps(str(path))]
    if hasattr(os, "fork"):
        done = run_warm("import stages.slide.files", ATTEMPT, arguments, cwd=ROOT, limit=TIME_LIMIT)
    else:
        command = [sys.executable, "-c", ATTEMPT, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    told, memory = json.loads(done.stdout)
    return told, memory
