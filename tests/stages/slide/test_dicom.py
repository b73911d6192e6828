"""DICOM frames decoded directly are what OpenSlide shows, and what is not plainly tiled is left to it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
import pytest

from stages.geometry import Box
from stages.slide.dicom import find_dicom_tiles
from stages.slide.facts import SlideError
from stages.slide.files import open_slide

pytestmark = pytest.mark.realdata

SIZE = (1152, 700)
PIXELS = b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff"
ITEM = b"\xfe\xff\x00\xe0"
NO_TABLE = ITEM + bytes(4)


@pytest.fixture
def scan(shared_data: Path, tmp_path: Path) -> Path:
    """A copy of the real slide in a folder of its own."""
    path = tmp_path / "slide.dcm"
    path.write_bytes((shared_data / "slides/multi_frame_jpeg_camelyon_challenge_image.dcm").read_bytes())
    return path


def frames_of(data: bytes) -> list[tuple[int, int]]:
    """(offset of the item, bytes of the frame) of each frame."""
    at, found = data.index(PIXELS) + len(PIXELS) + len(NO_TABLE), []
    while data[at : at + 4] == ITEM:
        (length,) = struct.unpack("<I", data[at + 4 : at + 8])
        found.append((at, length))
        at += 8 + length
    return found


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def replaced(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))


def assert_equals_openslide(path: Path) -> None:
    slide = open_slide(path)
    assert slide.direct(0)
    rng = np.random.default_rng(0)
    with openslide.OpenSlide(path) as handle:
        for _ in range(20):
            x, y = int(rng.integers(SIZE[0])), int(rng.integers(SIZE[1]))
            box = Box(x, y, int(rng.integers(1, SIZE[0] - x + 1)), int(rng.integers(1, SIZE[1] - y + 1)))
            shown = np.asarray(handle.read_region((x, y), 0, (box.width, box.height)))[..., :3]
            np.testing.assert_array_equal(slide.read_level(0, box), shown)


def test_frames_equal_openslide(scan: Path) -> None:
    """Any box, the last row and column of tiles included; what they cost is the frames' own bytes."""
    assert_equals_openslide(scan)
    sizes = [size for _, size in frames_of(scan.read_bytes())]
    np.testing.assert_array_equal(open_slide(scan).tile_bytes(0), np.reshape(sizes, (3, 5)))


def test_the_table_of_offsets_is_used(scan: Path) -> None:
    """The same pixels where the file says where its frames are."""
    data = scan.read_bytes()
    frames = frames_of(data)
    table = np.array([at - frames[0][0] for at, _ in frames], "<u4").tobytes()
    replaced(scan, PIXELS + NO_TABLE, PIXELS + ITEM + struct.pack("<I", len(table)) + table)
    assert_equals_openslide(scan)


def test_files_beside_it_are_not_its_levels(scan: Path) -> None:
    """Other files, broken ones and folders do no harm; between two files of that size in a series none is guessed."""
    (scan.parent / "notes.txt").write_text("no DICOM")
    (scan.parent / "cut.dcm").write_bytes(scan.read_bytes()[:700])
    (scan.parent / "folder").mkdir()
    (tiles,) = find_dicom_tiles(scan, [SIZE])
    assert tiles is not None
    assert find_dicom_tiles(scan, [(1, 1)]) == [None]
    (scan.parent / "again.dcm").write_bytes(scan.read_bytes())
    assert find_dicom_tiles(scan, [SIZE]) == [None]


VARIANTS: dict[str, Callable[[Path], None]] = {
    "sparse": lambda path: replaced(
        path, element(0x00209311, b"CS", b"TILED_FULL"), element(0x00209311, b"CS", b"TILED_SPARSE")
    ),
    "another transfer syntax": lambda path: replaced(path, b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.90"),
    "frames missing": lambda path: replaced(path, element(0x00280008, b"IS", b"15"), element(0x00280008, b"IS", b"14")),
    "cut among the frames": lambda path: path.write_bytes(path.read_bytes()[:20_000]) and None,
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:900]) and None,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_not_plain_is_left_to_openslide(scan: Path, variant: str) -> None:
    """Other organisations and damaged files have no tiles; none is an error here."""
    VARIANTS[variant](scan)
    assert find_dicom_tiles(scan, [SIZE]) == [None]


def test_a_damaged_frame_is_a_slide_error(scan: Path) -> None:
    data = bytearray(scan.read_bytes())
    at, size = frames_of(bytes(data))[1]
    data[at + size // 2 : at + size // 2 + 600] = bytes(600)
    scan.write_bytes(data)
    slide = open_slide(scan)
    assert slide.direct(0)
    with pytest.raises(SlideError, match=r"tile \(0, 1\) does not decode"):
        slide.read_level(0, Box(300, 0, 10, 10))
    assert slide.read_level(0, Box(600, 0, 10, 10)).shape == (10, 10, 3)
