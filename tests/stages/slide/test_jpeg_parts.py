"""Parts of tiles decoded together: the pixels of whole tiles, and an error wherever a whole tile is one."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from makers import tissue_pixels, write_slide
from numpy.typing import NDArray
from PIL import Image

from stages.geometry import Box
from stages.slide import jpeg, jpeg_parts
from stages.slide.files import open_slide
from stages.slide.jpeg_parts import Parts, is_installed
from stages.slide.tiles import DamagedTilesError, Place, TileGrid

pytestmark = pytest.mark.skipif(
    not is_installed(), reason="not compiled: install a C compiler and libjpeg-turbo's headers, then pip install -e ."
)

SIZES = ((256, 256), (240, 240), (131, 77))
NOISE = np.random.default_rng(0)
ODD = ("Gray", "progressive", "quarters")
"""Kinds of streams that are decoded whole."""


def streams() -> dict[str, tuple[bytes, jpeg.Colour, tuple[int, int]]]:
    """Every kind that a slide may hold, of every size."""
    found: dict[str, tuple[bytes, jpeg.Colour, tuple[int, int]]] = {}
    for width, height in SIZES:
        image = tissue_pixels(256, 256, margin=0)[:height, :width].copy()
        image[::3, ::5] = NOISE.integers(0, 256, image[::3, ::5].shape)  # so that neighbours' colours differ
        for sampling in ("444", "422", "420", "440", "411", "Gray"):
            space, pixels = ("GRAY", image[..., :1].copy()) if sampling == "Gray" else ("RGB", image)
            stream = simplejpeg.encode_jpeg(pixels, 80, space, sampling)
            found[f"{sampling} {width} x {height}"] = stream, "ycbcr", (width, height)
        for options in ({"restart_marker_blocks": 3}, {"restart_marker_rows": 1}, {"progressive": True}):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=85, subsampling="4:2:0", **options)
            found[f"{options} {width} x {height}"] = file.getvalue(), "ycbcr", (width, height)
        found[f"RGB {width} x {height}"] = simplejpeg.encode_jpeg(image, 70, "RGB", "444"), "rgb", (width, height)
    return found


STREAMS = streams()


class StreamTiles(TileGrid):
    """Streams in memory, some of them missing."""

    def __init__(self, tile: tuple[int, int], streams: Mapping[Place, bytes], prefix: bytes) -> None:
        self.tile, self._streams, self.prefix = tile, streams, prefix
        rows, columns = (max(place[axis] for place in streams) + 1 for axis in (0, 1))
        self.size = (columns * tile[0] - tile[0] // 3, rows * tile[1] - tile[1] // 3)
        self.byte_counts = np.zeros((rows, columns), np.int64)
        for place, stream in streams.items():
            self.byte_counts[place] = len(stream)

    def stored(self, row: int, column: int) -> bytes:
        return self._streams[row, column]

    def decode(self, data: bytes, row: int, column: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        return jpeg.decode(data, self.prefix, self.tile, into=into)


def spans(size: tuple[int, int], rng: np.random.Generator, count: int = 20) -> list[Box]:
    """In the middle and at every border, their edges everywhere between the borders of blocks; and some at random."""
    fixed = [
        [
            (0, 1),
            (0, side),
            (0, side // 3),
            (side // 2, side // 2 + 9),
            (side // 3 + at, side // 3 + 20),
            (side - 5, side),
        ]
        for side, at in ((size[0], 1), (size[1], 2))
    ]
    some = [Box(a, c, b - a, d - c) for (a, b), (c, d) in itertools.product(*fixed)]
    for _ in range(count):
        (left, right), (top, bottom) = (sorted(rng.choice(side + 1, 2, replace=False)) for side in size)
        some.append(Box(int(left), int(top), int(right - left), int(bottom - top)))
    return some


def plainly(read: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a read gives where nothing was compiled."""
    with monkeypatch.context() as without:
        without.setattr(jpeg_parts, "_library", lambda: None)
        return read()


def outcome(grid: TileGrid, boxes: Sequence[Box]) -> tuple[list[NDArray[np.uint8]] | None, dict[Place, str]]:
    """What reading boxes gives, or of which tiles it says what."""
    try:
        return grid.read_many(boxes), {}
    except DamagedTilesError as exc:
        return None, exc.damage


@pytest.mark.parametrize("name", STREAMS)
def test_a_part_is_the_whole_tiles(name: str) -> None:
    """Bit by bit, also where colours are smoothed across the part's border; nothing is written beside it."""
    stream, colour, size = STREAMS[name]
    before = jpeg.prefix(None, colour)
    whole = jpeg.decode(stream, before, size)
    for part in spans(size, NOISE):
        memory = np.full((part.height + 2, part.width + 2, 3), 77, np.uint8)
        target, box = memory[1:-1, 1:-1], part.moved(3 * size[0], 5 * size[1])
        (done,) = Parts(before, size, [box], [target]).decode([((5, 3), stream)], [[0]])
        assert done == (not any(kind in name for kind in ODD))
        if done:
            np.testing.assert_array_equal(target, whole[part.slices], err_msg=f"{part}")
            target[:] = 77
        assert (memory == 77).all()


@pytest.mark.parametrize("seed", range(8))
def test_boxes_over_many_tiles_are_what_whole_tiles_make_them(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several boxes on a tile, several tiles under a box, blank tiles, and kinds of tiles that are decoded whole."""
    rng = np.random.default_rng(seed)
    size, colour = ((240, 240), (256, 256), (131, 77))[seed % 3], "ycbcr"
    names = [name for name, (_, own, its) in STREAMS.items() if (own, its) == (colour, size)]
    tiles = {place: STREAMS[names[rng.integers(len(names))]][0] for place in itertools.product(range(4), range(5))}
    del tiles[1, 1], tiles[3, 0]
    grid, decoded = StreamTiles(size, tiles, jpeg.prefix(None, colour)), []
    boxes = [box for box in spans(grid.size, rng) if rng.random() < 0.5]
    expected = plainly(lambda: grid.read_many(boxes, blank=(9, 8, 7)), monkeypatch)
    plain = StreamTiles.decode
    monkeypatch.setattr(StreamTiles, "decode", lambda *asked: decoded.append(asked[2:4]) or plain(*asked))
    for own, other in zip(grid.read_many(boxes, blank=(9, 8, 7)), expected, strict=True):
        np.testing.assert_array_equal(own, other)
    odd = {tiles[place] for place in tiles} & {s for name, (s, *_) in STREAMS.items() if any(k in name for k in ODD)}
    assert {tiles[place] for place in decoded} == odd


def test_memory_of_another_form_is_filled_as_well() -> None:
    """Parts of larger arrays, line by line; and what lies otherwise in memory, tile by tile."""
    stream, colour, size = STREAMS["420 256 x 256"]
    grid = StreamTiles(size, dict.fromkeys(itertools.product(range(2), range(2)), stream), jpeg.prefix(None, colour))
    box = Box(100, 90, 200, 180)
    expected = grid.read(box)
    cut, turned = np.zeros((300, 300, 3), np.uint8)[7:187, 9:209], np.zeros((200, 180, 3), np.uint8).transpose(1, 0, 2)
    backwards = np.zeros((180, 200, 3), np.uint8)[::-1]
    for target in (cut, turned, backwards):
        grid.read_many([box], out=[target])
        np.testing.assert_array_equal(target, expected)


def test_tables_that_a_file_keeps_once_are_used() -> None:
    """As in a TIFF: the stream has none of its own."""
    stream, _, size = STREAMS["420 256 x 256"]
    scan = stream.index(b"\xff\xda")
    tables, frame, at = b"", b"", 2
    while at < scan:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if stream[at + 1] in (0xDB, 0xC4):
            tables += stream[at:end]
        elif stream[at + 1] == 0xC0:
            frame = stream[at:end]
        at = end
    bare, before = b"\xff\xd8" + frame + stream[scan:], jpeg.prefix(b"\xff\xd8" + tables + b"\xff\xd9", "ycbcr")
    whole, part = jpeg.decode(bare, before, size), Box(100, 90, 60, 50)
    target = np.zeros((50, 60, 3), np.uint8)
    both = Parts(before, size, [part], [target]).decode([((0, 0), stream), ((0, 0), bare)], [[], [0]])
    assert both == [True, True]
    np.testing.assert_array_equal(target, whole[part.slices])
    # the tables of one tile are not the next one's
    assert Parts(jpeg.prefix(None, "ycbcr"), size, [part], [target]).decode(
        [((0, 0), stream), ((0, 0), bare)], [[], [0]]
    ) == [True, False]


@pytest.mark.parametrize("name", ["420 256 x 256", "RGB 240 x 240"])
def test_a_segment_may_hold_what_begins_a_scan(name: str) -> None:
    """A comment, say, wherever it stands before the scan."""
    stream, colour, size = STREAMS[name]
    before, part = jpeg.prefix(None, colour), Box(100, 90, 60, 50)
    whole, comment = jpeg.decode(stream, before, size), b"\xff\xfe\x00\x12\xff\xda\x00\x0c" + bytes(12)
    frame, scan = stream.index(b"\xff\xc0"), stream.index(b"\xff\xda")
    for at in (frame, scan):
        told, target = stream[:at] + comment + stream[at:], np.zeros((50, 60, 3), np.uint8)
        assert jpeg.frame_size(told) == size
        assert Parts(before, size, [part], [target]).decode([((0, 0), told)], [[0]]) == [True]
        np.testing.assert_array_equal(target, whole[part.slices])


def harmed(stream: bytes, rng: np.random.Generator, *, first: int) -> bytes:
    """With a bit flipped, bytes replaced, lost or zeroed, a sector's worth zeroed, or its end lost."""
    at, kind, some = int(rng.integers(first, len(stream))), rng.integers(6), int(rng.integers(1, 40))
    if kind == 0:
        return stream[:at] + bytes([stream[at] ^ 1 << int(rng.integers(8))]) + stream[at + 1 :]
    if kind == 1:
        return stream[:at]
    if kind == 5:
        some = 200
    middle = {2: rng.bytes(some), 3: b"", 4: bytes(some), 5: bytes(some)}[int(kind)]
    return stream[:at] + middle + stream[at + some :]


@pytest.mark.parametrize("where", ["headers", "codes", "last codes"])
@pytest.mark.parametrize(
    "name",
    ["444 240 x 240", "420 256 x 256", "RGB 240 x 240", "422 131 x 77", "{'restart_marker_blocks': 3} 256 x 256"],
)
def test_damage_is_told_of_wherever_it_lies(name: str, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part is refused where the whole tile is, in the same words, and elsewhere is its part: also below the part."""
    stream, colour, size = STREAMS[name]
    rng, refused, scan = np.random.default_rng(1), 0, stream.index(b"\xff\xda") + 14
    for _ in range(150):
        if where == "headers":
            some = harmed(stream[:scan], rng, first=0) + stream[scan:]
        else:  # libjpeg reads the last codes in another way, which tells of more
            some = harmed(stream, rng, first=scan if where == "codes" else max(scan, len(stream) - 1500))
        grid = StreamTiles(size, {(0, 0): stream, (0, 1): some, (1, 1): stream}, jpeg.prefix(None, colour))
        part = spans(size, rng)[int(rng.integers(56))].intersect(Box(0, 0, size[0] - size[0] // 3, size[1]))
        if not part.area:
            continue
        boxes = [part.moved(size[0], 0), Box(0, 0, 5, 5)]
        whole, told = plainly(lambda grid=grid, boxes=boxes: outcome(grid, boxes), monkeypatch)
        found, told_of_part = outcome(grid, boxes)
        assert told_of_part == told
        refused += bool(told)
        for own, other in zip(found or (), whole or (), strict=True):
            np.testing.assert_array_equal(own, other)
    assert refused > 50


def test_a_damaged_tile_leaves_nothing_behind() -> None:
    """Those that follow in the same call are decoded."""
    stream, colour, size = STREAMS["420 256 x 256"]
    before, rng, first = jpeg.prefix(None, colour), np.random.default_rng(2), stream.index(b"\xff\xda") + 14
    part, whole = Box(100, 90, 60, 50), jpeg.decode(stream, before, size)
    for _ in range(20):
        targets = [np.zeros((50, 60, 3), np.uint8) for _ in range(3)]
        some = [stream, stream[: int(rng.integers(0, len(stream)))], stream]
        boxes = [part.moved(i * size[0], 0) for i in range(3)]
        found = Parts(before, size, boxes, targets).decode(
            [((0, i), one) for i, one in enumerate(some)], [[0], [1], [2]]
        )
        assert found == [True, False, True]
        for target in targets[::2]:
            np.testing.assert_array_equal(target, whole[part.slices])
    assert first


def test_what_no_grid_would_ask_for_writes_nothing() -> None:
    """Boxes that are not there, boxes beside the tile, streams that are none, sizes that are no tile's."""
    stream, colour, size = STREAMS["RGB 240 x 240"]
    before, memory = jpeg.prefix(None, colour), np.full((50, 60, 3), 77, np.uint8)
    for tile, box, data, users, done in (
        (size, Box(0, 0, 60, 50), stream, [1], False),
        (size, Box(0, 0, 60, 50), stream, [-1], False),
        (size, Box(0, 0, 60, 50), b"", [0], False),
        (size, Box(0, 0, 60, 50), b"\xff\xd8\xff\xc0\xff\xff", [0], False),
        ((120, 240), Box(0, 0, 60, 50), stream, [0], False),
        ((0, 240), Box(0, 0, 60, 50), stream, [0], False),
        ((-240, 240), Box(0, 0, 60, 50), stream, [0], False),
        ((2**40, 240), Box(0, 0, 60, 50), stream, [0], False),
        (size, Box(240, 0, 60, 50), stream, [0], True),
        (size, Box(-60, -50, 60, 50), stream, [0], True),
    ):
        assert Parts(before, tile, [box], [memory]).decode([((0, 0), data)], [users]) == [done], (tile, box, users)
        assert (memory == 77).all()


def test_threads_do_not_disturb_each_other() -> None:
    """Each decodes by a state of its own."""
    stream, colour, size = STREAMS["420 256 x 256"]
    tiles = dict.fromkeys(itertools.product(range(6), range(6)), stream) | {(2, 2): stream[:3000]}
    grid, rng = StreamTiles(size, tiles, jpeg.prefix(None, colour)), np.random.default_rng(3)
    boxes = [box for box in spans(grid.size, rng) if box.area < 10**5]
    expected = [outcome(grid, [box]) for box in boxes]
    with ThreadPoolExecutor(8) as pool:
        for (own, said), (other, told) in zip(
            pool.map(lambda box: outcome(grid, [box]), 5 * boxes), 5 * expected, strict=True
        ):
            assert said == told
            assert (own is None) == (other is None)
            if own is not None and other is not None:
                np.testing.assert_array_equal(own[0], other[0])


def test_a_slide_is_read_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the same pixels as without."""
    path = write_slide(
        tmp_path / "a.tif", tissue_pixels(1100, 900, margin=0.05), photometric="ycbcr", subsampling=(2, 2)
    )
    slide, decode, done = open_slide(path), Parts.decode, list[bool]()

    def noted(self: Parts, *asked: Any) -> list[bool]:
        found = decode(self, *asked)
        done.extend(found)
        return found

    slide.read_level(0, Box(0, 0, 10, 10))  # which also compares some tiles with OpenSlide's
    monkeypatch.setattr(Parts, "decode", noted)
    boxes = [Box(10, 20, 700, 600), Box(500, 300, 256, 256), Box(844, 644, 256, 256)]
    read = slide.read_boxes(0, boxes)
    assert len(done) >= 9
    assert all(done)
    for own, other in zip(read, plainly(lambda: slide.read_boxes(0, boxes), monkeypatch), strict=True):
        np.testing.assert_array_equal(own, other)
