"""Hostile headers: a clear error for the slide; never a hang, a crash or an unbounded allocation.

What could hang or allocate is tried in a process of its own, with a time limit and a count of the memory it took.
"""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from makers import (
    MEMORY_MB,
    ROOT,
    TIME_LIMIT,
    attempt,
    change_bytes,
    change_tags,
    page_of,
    small_slide,
    tissue_pixels,
    write_slide,
)

from stages.geometry import Box
from stages.slide.facts import SlideError
from stages.slide.files import open_slide

SPOIL = """
import json, logging, sys
from pathlib import Path
import numpy as np
from stages.geometry import Box
from stages.slide.facts import SlideError
from stages.slide.files import open_slide

logging.disable()  # tifffile tells of every oddity
path, spans = json.load(sys.stdin)
path, rng = Path(path), np.random.default_rng(0)
whole, outcomes = path.read_bytes(), {"read": 0, "refused": 0}
for _ in range(150):
    data = bytearray(whole)
    for _ in range(int(rng.integers(1, 4))):
        start, stop = spans[int(rng.integers(len(spans)))]
        data[int(rng.integers(start, stop))] = int(rng.integers(256))
    path.write_bytes(data)
    try:
        slide = open_slide(path)
        for i, level in enumerate(slide.facts.levels):
            slide.tile_bytes(i)
            width, height = min(100, level.width), min(100, level.height)
            for x, y in ((0, 0), (level.width - width, level.height - height)):
                assert slide.read_level(i, Box(x, y, width, height)).shape == (height, width, 3)
        outcomes["read"] += 1
    except SlideError:
        outcomes["refused"] += 1
print(json.dumps(outcomes))
"""


@pytest.fixture(scope="module")
def usual_memory(tmp_path_factory: pytest.TempPathFactory) -> float:
    told, memory = attempt(write_slide(tmp_path_factory.mktemp("usual") / "a.tif", tissue_pixels(600, 500)))
    assert set(told) == {"ok"}
    return memory


def cut(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def with_counts(path: Path, change: Callable[[list[int]], None]) -> None:
    counts = list(page_of(path).databytecounts)
    change(counts)
    change_tags(path, TileByteCounts=counts)


def huge_count(path: Path) -> None:
    with_counts(path, lambda counts: counts.__setitem__(0, 2**31 - 1))


def overlapping_counts(path: Path) -> None:
    with_counts(path, lambda counts: counts.__setitem__(0, counts[0] + counts[1] + 1000))


def short_count(path: Path) -> None:
    with_counts(path, lambda counts: counts.__setitem__(0, counts[0] // 2))


def wild_offset(path: Path) -> None:
    offsets = list(page_of(path).dataoffsets)
    change_tags(path, TileOffsets=[2**63 + 5, *offsets[1:]])


def next_page_at(path: Path) -> list[int]:
    """Where the file (a BigTIFF) keeps the offset of each page's successor."""
    with tifffile.TiffFile(path) as tiff:
        pages = [tiff.pages[i].aspage() for i in range(len(tiff.pages))]
        return [page.offset + 8 + 20 * len(page.tags) for page in pages]


def loop_to_itself(path: Path) -> None:
    change_bytes(path, next_page_at(path)[-1], struct.pack("<Q", page_of(path, 2).offset))


def loop_to_first(path: Path) -> None:
    change_bytes(path, next_page_at(path)[-1], struct.pack("<Q", page_of(path).offset))


def into_nowhere(path: Path) -> None:
    change_bytes(path, next_page_at(path)[0], struct.pack("<Q", 2**62))


def endless_chain(path: Path) -> None:
    """A chain of 20 000 pages without pixels."""
    last, first = next_page_at(path)[-1], -(-path.stat().st_size // 8) * 8

    def page(following: int) -> bytes:
        tags = [struct.pack("<HHQQ", tag, 4, 1, 16) for tag in (256, 257)]
        return struct.pack("<Q", len(tags)) + b"".join(tags) + struct.pack("<Q", following)

    size = len(page(0))
    change_bytes(path, first, b"".join(page(first + i * size) for i in range(1, 20_000)) + page(0))
    change_bytes(path, last, struct.pack("<Q", first))


def absurd_width(path: Path) -> None:
    change_tags(path, ImageWidth=2**31 - 1)


def many_tiny_tiles(path: Path) -> None:
    change_tags(path, ImageWidth=2**20, ImageLength=2**20, TileWidth=16, TileLength=16)


def giant_tile(path: Path) -> None:
    change_tags(path, ImageWidth=2**14, ImageLength=2**14, TileWidth=2**14, TileLength=2**14)


def bomb(path: Path) -> None:
    """Tiles whose streams claim 65500 x 65500 pixels, 13 GB each when decoded."""
    page = page_of(path)
    data = path.read_bytes()
    for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        at = data.index(b"\xff\xc0", offset, offset + size) + 5
        change_bytes(path, at, struct.pack(">HH", 65500, 65500))


def hidden_bomb(path: Path) -> None:
    """The same behind a marker without a length, which a careless parser would read on from."""
    page = page_of(path)
    for offset in page.dataoffsets:
        change_bytes(path, offset + 2, b"\xff\xd0\x00\x10")
    bomb(path)


def own_child(path: Path) -> None:
    """A page whose SubIFDs tag names the page itself."""
    page = page_of(path)
    tag = page.tags["NewSubfileType"]
    change_bytes(path, tag.offset, struct.pack("<HHQQ", 330, 16, 1, page.offset))


def header_gone(path: Path) -> None:
    change_bytes(path, 0, bytes(16))


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut in the header": (lambda path: os.truncate(path, 12), "not a whole-slide image"),
    "cut in half": (lambda path: cut(path, 0.5), "not a whole-slide image"),
    "a byte short": (
        lambda path: os.truncate(path, path.stat().st_size - 1),
        r"cut off: it ends after \d+ bytes, before 1 of 1 tiles of its picture of 256 x 192 px: copy it again",
    ),
    "header gone": (header_gone, "not a whole-slide image"),
    "huge byte count": (huge_count, r"tile \(0, 0\) claims 2147483647 bytes"),
    "short byte count": (short_count, r"tile \(0, 0\) does not decode: Premature end"),
    "overlapping byte counts": (overlapping_counts, ""),
    "wild offset": (wild_offset, r"level 0 at \(0, 0\)"),
    "page loop to itself": (loop_to_itself, "not a whole-slide image"),
    "page loop to the first": (loop_to_first, "not a whole-slide image"),
    "page chain into nowhere": (into_nowhere, "not a whole-slide image"),
    "page that is its own child": (own_child, ""),
    "endless page chain": (endless_chain, ""),
    "absurd width": (absurd_width, "cannot be opened"),
    "twice as high": (
        lambda path: change_tags(path, ImageLength=1536),
        "level 0 lists 12 tiles less than its sizes make: the file is damaged: copy it again",
    ),
    "samples of absurd bits": (
        lambda path: change_tags(path, BitsPerSample=(8, 8, 17160)),
        "17160",
    ),
    "tiny tiles without number": (many_tiny_tiles, "cannot be opened"),
    "one giant tile": (giant_tile, "tiles of 16384 x 16384 pixels.*convert it"),
    "bombs": (bomb, "it holds 65500 x 65500 pixels, not the file's 256 x 256"),
    "hidden bombs": (hidden_bomb, "not a JPEG stream"),
}
"""What is done to a file, and the error (a pattern) that it gives; "" where it still reads."""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_one_clear_line(tmp_path: Path, name: str, usual_memory: float) -> None:
    """Within the time and the memory of an ordinary slide; every failure is a `SlideError` of one line."""
    harm, expected = HOSTILE[name]
    path = small_slide(tmp_path / "a.tif")
    harm(path)
    told, memory = attempt(path)
    errors = [line for line in told if line != "ok"]
    assert all("\n" not in line and re.search(expected, line) for line in errors), errors
    assert bool(errors) == bool(expected)
    assert memory < usual_memory + MEMORY_MB


def outcomes_of_spoiling(path: Path, spans: list[tuple[int, int]]) -> dict[str, int]:
    """How many of 150 copies with one to three random bytes within the spans read, and how many are refused."""
    done = subprocess.run(
        [sys.executable, "-c", SPOIL],
        input=json.dumps([str(path), spans]),
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes: dict[str, int] = json.loads(done.stdout)
    return outcomes


@pytest.mark.parametrize("reader", ["OpenSlide", "tifffile"])
def test_headers_of_random_bytes_are_refused_or_read(tmp_path: Path, reader: str) -> None:
    """No crash and no other exception, whatever stands in the tags, or in the XML that one of them holds."""
    path, image = tmp_path / "a.tif", tissue_pixels(700, 600, margin=0)
    if reader == "OpenSlide":
        write_slide(path, image)
        pages = [page_of(path, i) for i in range(3)]
    else:
        planes = np.ascontiguousarray(image.transpose(2, 0, 1))
        metadata = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        options = {"photometric": "minisblack", "tile": (256, 256), "bigtiff": True, "ome": True}
        tifffile.imwrite(path, planes.astype(np.uint16) * 257, metadata=metadata, **options)
        pages = [page_of(path, 0)]
    spans = [(0, 16), *((page.offset, page.offset + 8 + 20 * len(page.tags) + 8) for page in pages)]
    if reader == "tifffile":
        description = pages[0].tags["ImageDescription"]
        spans.append((description.valueoffset, description.valueoffset + description.count))
    outcomes = outcomes_of_spoiling(path, spans)
    assert min(outcomes.values()) > 10


@pytest.mark.realdata
def test_dicom_headers_of_random_bytes_are_refused_or_read(tmp_path: Path, shared_data: Path) -> None:
    """The same for the elements of a DICOM file."""
    path = tmp_path / "a.dcm"
    path.write_bytes((shared_data / "slides/multi_frame_jpeg_camelyon_challenge_image.dcm").read_bytes())
    outcomes = outcomes_of_spoiling(path, [(128, 2700)])
    assert min(outcomes.values()) > 10


def test_what_is_whole_of_a_damaged_slide_reads(tmp_path: Path) -> None:
    """A tile that runs into the next one, or a chain of pages behind the slide's, changes no pixel."""
    intact = open_slide(small_slide(tmp_path / "a.tif")).read_level(0, Box(0, 0, 1024, 768))
    for harm in (overlapping_counts, endless_chain, own_child):
        path = small_slide(tmp_path / "b.tif")
        harm(path)
        np.testing.assert_array_equal(open_slide(path).read_level(0, Box(0, 0, 1024, 768)), intact)


def test_a_byte_count_beyond_reason_is_not_allocated(tmp_path: Path) -> None:
    """Nor is a tile read whose claim lies inside a large file: noise compresses to little more than itself."""
    path = small_slide(tmp_path / "a.tif")
    os.truncate(path, 2**33)  # sparse
    huge_count(path)
    slide = open_slide(path)
    with pytest.raises(SlideError, match=r"tile \(0, 0\) claims 2147483647 bytes at \d+, which cannot be"):
        slide.read_level(0, Box(0, 0, 10, 10))
    assert slide.read_level(0, Box(256, 0, 10, 10)).shape == (10, 10, 3)


@pytest.mark.parametrize("name", ["with space.tif", "new\nline.tif", "Schnitt é 组织.tif", "#?%41&;'\".tif", "-v.tif"])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    """Spaces, newlines and letters of any script, in the file's name and its folder's."""
    path = write_slide(tmp_path / name.removesuffix(".tif") / name, tissue_pixels(600, 500))
    assert set(attempt(path)[0]) == {"ok"}
    assert open_slide(path).direct(0)
