"""DICOM frames decoded directly are what OpenSlide shows, and what is not plainly tiled is left to it."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
import pydicom
import pytest
from dicom_files import SERIES, write_dicom
from makers import MEMORY_MB, attempt, tissue_pixels
from pydicom.encaps import generate_frames

from stages.geometry import Box
from stages.slide.dicom import find_dicom_tiles
from stages.slide.facts import SlideError
from stages.slide.files import open_slide

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


@pytest.mark.realdata
def test_frames_equal_openslide(scan: Path) -> None:
    """Any box, the last row and column of tiles included; what they cost is the frames' own bytes."""
    assert_equals_openslide(scan)
    sizes = [size for _, size in frames_of(scan.read_bytes())]
    np.testing.assert_array_equal(open_slide(scan).tile_bytes(0), np.reshape(sizes, (3, 5)))


@pytest.mark.realdata
def test_the_table_of_offsets_is_used(scan: Path) -> None:
    """The same pixels where the file says where its frames are."""
    data = scan.read_bytes()
    frames = frames_of(data)
    table = np.array([at - frames[0][0] for at, _ in frames], "<u4").tobytes()
    replaced(scan, PIXELS + NO_TABLE, PIXELS + ITEM + struct.pack("<I", len(table)) + table)
    assert_equals_openslide(scan)


@pytest.mark.realdata
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


@pytest.mark.realdata
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_not_plain_is_left_to_openslide(scan: Path, variant: str) -> None:
    """Other organisations and damaged files have no tiles; none is an error here."""
    VARIANTS[variant](scan)
    assert find_dicom_tiles(scan, [SIZE]) == [None]


@pytest.mark.realdata
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


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
def test_every_table_of_offsets_leads_to_the_same_frames(tmp_path: Path, table: str) -> None:
    """At every level, each a file of its own: the pixels that OpenSlide shows, and the bytes that the frames have."""
    image = tissue_pixels(900, 700, margin=0)
    path = write_dicom(tmp_path / table, image, table=table)
    slide = open_slide(path)
    assert [(level.width, level.height) for level in slide.facts.levels] == [(900, 700), (450, 350)]
    with openslide.OpenSlide(path) as handle:
        for i, level in enumerate(slide.facts.levels):
            assert slide.direct(i)
            shown = np.asarray(handle.read_region((0, 0), i, (level.width, level.height)))[..., :3]
            np.testing.assert_array_equal(slide.read_level(i, Box(0, 0, level.width, level.height)), shown)
            file = pydicom.dcmread(path.with_name(f"{i}.dcm"))
            frames = list(generate_frames(file.PixelData, number_of_frames=file.NumberOfFrames))
            assert slide.tile_bytes(i).ravel().tolist() == [len(frame) for frame in frames]


def test_an_extended_table_is_believed_before_the_frames(tmp_path: Path) -> None:
    """It alone says where they are: what lies between them is of no matter."""
    path = write_dicom(tmp_path / "a", tissue_pixels(600, 500, margin=0), levels=1, table="extended")
    (before,) = find_dicom_tiles(path, [(600, 500)])
    assert before is not None
    frame, data = before.stored(1, 2), path.read_bytes()
    last = data.rindex(ITEM)
    path.write_bytes(data[:last] + b"xxxx" + data[last + 4 :])
    (after,) = find_dicom_tiles(path, [(600, 500)])
    assert after is not None
    assert after.stored(1, 2) == frame


def test_levels_are_of_one_series(tmp_path: Path) -> None:
    """A file beside the slide whose size is a level's is none where it is of another slide."""
    path = write_dicom(tmp_path / "a", tissue_pixels(600, 500, margin=0))
    assert None not in find_dicom_tiles(path, [(600, 500), (300, 250)])
    replaced(path.with_name("1.dcm"), element(0x0020000E, b"UI", SERIES.encode() + b"\0"), b"")
    assert find_dicom_tiles(path, [(600, 500), (300, 250)])[1] is None


def meta(syntax: bytes = b"1.2.840.10008.1.2.4.50") -> bytes:
    """The beginning of a DICOM file."""
    return bytes(128) + b"DICM" + element(0x00020010, b"UI", syntax + bytes(len(syntax) % 2))


def deflated(size: int) -> bytes:
    """So many zero bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return b"".join(packer.compress(bytes(2**24)) for _ in range(size // 2**24)) + packer.flush()


UNDEFINED = b"\xff\xff\xff\xff"
SEQUENCE = b"\x08\x00\x40\x11SQ\0\0" + UNDEFINED
HOSTILE: dict[str, Callable[[], bytes]] = {
    "items without number": lambda: meta() + SEQUENCE + (ITEM + bytes(4)) * 2_000_000,
    "elements without number": lambda: meta() + element(0x00090010, b"CS", b"") * 2_000_000,
    "elements of an item without number": lambda: (
        meta() + SEQUENCE + ITEM + UNDEFINED + b"".join(element(0x00090000 + i, b"CS", b"") for i in range(2**16)) * 20
    ),
    "sequences in sequences": lambda: meta() + (SEQUENCE + ITEM + UNDEFINED) * 100_000,
    "a value of 4 GB": lambda: meta() + b"\x02\x00\x02\x01OB\0\0\xf0\xff\xff\xff" + bytes(1000),
    "a value without end": lambda: meta() + b"\x09\x00\x10\x00OB\0\0" + UNDEFINED + bytes(2**25),
    "a deflated bomb": lambda: meta(b"1.2.840.10008.1.2.1.99") + deflated(2**27),
}
"""Files that may lie beside a slide."""


@pytest.fixture(scope="module")
def usual_memory(tmp_path_factory: pytest.TempPathFactory) -> float:
    told, memory = attempt(write_dicom(tmp_path_factory.mktemp("usual"), tissue_pixels(600, 500)))
    assert set(told) == {"ok"}
    return memory


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_beside_a_slide_do_no_harm(tmp_path: Path, name: str, usual_memory: float) -> None:
    """The slide reads from its own frames, in an ordinary slide's time and memory."""
    path = write_dicom(tmp_path / "a", tissue_pixels(600, 500))
    path.with_name("beside.dcm").write_bytes(HOSTILE[name]())
    told, memory = attempt(path)
    assert set(told) == {"ok"}
    assert memory < usual_memory + MEMORY_MB


ODD: dict[str, Callable[[], bytes]] = {
    "implicit types": lambda: meta() + struct.pack("<HHI", 0x0008, 0x0060, 2) + b"SM",
    "an unknown alphabet": lambda: meta() + element(0x00080005, b"CS", b"KLINGON ") + element(0x00480006, b"UL", b"x"),
}
"""Files that pydicom warns of."""


@pytest.mark.parametrize("name", ODD)
def test_warnings_of_files_beside_a_slide_are_kept_to_ourselves(tmp_path: Path, name: str) -> None:
    """They are of no concern to who opens the slide, and an error where warnings are errors."""
    path = write_dicom(tmp_path / "a", tissue_pixels(600, 500))
    path.with_name("beside.dcm").write_bytes(ODD[name]())
    with pytest.warns(UserWarning, match="VR|encoding"):
        pydicom.dcmread(path.with_name("beside.dcm"))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert None not in find_dicom_tiles(path, [(600, 500), (300, 250)])
    assert not told


def with_table(path: Path, length: int) -> None:
    """State that the basic table of offsets has so many bytes."""
    at = path.read_bytes().index(PIXELS) + len(PIXELS) + len(ITEM)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(struct.pack("<I", length))


@pytest.mark.parametrize("length", [2**32 - 4, 8, 7])
def test_a_table_that_cannot_be_is_not_read(tmp_path: Path, length: int, usual_memory: float) -> None:
    """Nothing of its length is allocated, even where the file is as long; the slide is left to OpenSlide."""
    path = write_dicom(tmp_path / "a", tissue_pixels(600, 500), levels=1)
    with_table(path, length)
    os.truncate(path, 2**33)  # sparse
    _, memory = attempt(path)
    assert memory < usual_memory + MEMORY_MB
    assert find_dicom_tiles(path, [(600, 500)]) == [None]


def test_a_series_is_one_slide_by_whichever_of_its_files(tmp_path: Path) -> None:
    """The same fingerprint and size; another level-0 file of the same size and name makes another slide."""
    finest = write_dicom(tmp_path / "a", tissue_pixels(*SIZE, margin=0))
    files = sorted(finest.parent.iterdir())
    (finest.parent / "notes.dcm").write_text("none of it")
    facts = [open_slide(file).facts for file in files]
    assert len({(fact.fingerprint, fact.file_bytes) for fact in facts}) == 1
    assert facts[0].file_bytes == sum(file.stat().st_size for file in files)
    content = bytearray(finest.read_bytes())
    content[len(content) // 2] ^= 1
    finest.write_bytes(content)
    assert {open_slide(file).facts.fingerprint for file in files}.isdisjoint({facts[0].fingerprint})
