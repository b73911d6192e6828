"""A part of a tile decoded alone: the pixels of the whole tile, and an error wherever the whole tile is one."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pytest
import simplejpeg
from makers import tissue_pixels
from numpy.typing import NDArray
from PIL import Image

from stages.geometry import Box
from stages.slide import cropping, jpeg

pytestmark = pytest.mark.skipif(not cropping.can_crop(), reason="no TurboJPEG 3: pip install turbojpeg")

SIZES = ((256, 256), (240, 240), (131, 77))
NOISE = np.random.default_rng(0)


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


def parts(size: tuple[int, int]) -> list[Box]:
    """In the middle and at every border, their edges everywhere between the borders of blocks."""
    width, height = size
    spans = [
        [(0, 1), (0, side // 3), (side // 2 - 3, side // 2 + 9), (side // 3 + at, side // 3 + 20), (side - 5, side)]
        for side, at in ((width, 1), (height, 2))
    ]
    some = [Box(a, c, b - a, d - c) for (a, b), (c, d) in itertools.product(*spans)]
    for _ in range(20):
        (left, right), (top, bottom) = (sorted(NOISE.choice(side + 1, 2, replace=False)) for side in size)
        some.append(Box(int(left), int(top), int(right - left), int(bottom - top)))
    return some


@pytest.mark.parametrize("name", STREAMS)
def test_a_part_is_the_whole_tiles(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit by bit, also where colours are smoothed across the part's border; nothing is written beyond the tile."""
    stream, colour, size = STREAMS[name]
    before, done = jpeg.prefix(None, colour), []
    monkeypatch.setattr(jpeg, "decode_part", lambda *asked: done.append(cropping.decode_part(*asked)) or done[-1])
    whole = jpeg.decode(stream, before, size)
    for part in parts(size):
        memory = np.full((size[1] + 2, size[0], 3), 77, np.uint8)
        into = memory[1:-1]
        found = jpeg.decode(stream, before, size, into=into, part=part)
        np.testing.assert_array_equal(found[part.slices], whole[part.slices], err_msg=f"{part}")
        assert (memory[[0, -1]] == 77).all()
    assert any(done) == ("progressive" not in name)


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
    found = jpeg.decode(bare, before, size, into=np.zeros_like(whole), part=part)
    np.testing.assert_array_equal(found[part.slices], whole[part.slices])
    assert not found[:, 240:].any()  # it was not decoded


@pytest.mark.parametrize("name", ["420 256 x 256", "RGB 240 x 240"])
def test_a_segment_may_hold_what_begins_a_scan(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment, say, wherever it stands before the scan."""
    stream, colour, size = STREAMS[name]
    before, done, part = jpeg.prefix(None, colour), [], Box(100, 90, 60, 50)
    monkeypatch.setattr(jpeg, "decode_part", lambda *asked: done.append(cropping.decode_part(*asked)) or done[-1])
    whole, comment = jpeg.decode(stream, before, size), b"\xff\xfe\x00\x12\xff\xda\x00\x0c" + bytes(12)
    frame, scan = stream.index(b"\xff\xc0"), stream.index(b"\xff\xda")
    for at in (frame, scan):
        told = stream[:at] + comment + stream[at:]
        assert jpeg.frame_size(told) == size
        found = jpeg.decode(told, before, size, into=np.zeros_like(whole), part=part)
        np.testing.assert_array_equal(found[part.slices], whole[part.slices])
    assert done == [True, True]


def harmed(stream: bytes, rng: np.random.Generator) -> bytes:
    """With a bit flipped, bytes replaced, or its end lost: anywhere after the headers."""
    at = int(rng.integers(stream.index(b"\xff\xda") + 14, len(stream)))
    kind = rng.integers(4)
    if kind == 0:
        return stream[:at] + bytes([stream[at] ^ 1 << int(rng.integers(8))]) + stream[at + 1 :]
    if kind == 1:
        return stream[:at]
    some = int(rng.integers(1, 40))
    return stream[:at] + (rng.bytes(some) if kind == 2 else b"") + stream[at + some :]


def decoded(*asked: Any, **options: Any) -> tuple[NDArray[np.uint8] | None, str]:
    """What `jpeg.decode` gives, or says."""
    try:
        return jpeg.decode(*asked, **options), ""
    except jpeg.JpegError as exc:
        return None, str(exc)


@pytest.mark.parametrize("name", ["444 240 x 240", "420 256 x 256", "RGB 240 x 240", "422 131 x 77"])
def test_damage_is_told_of_wherever_it_lies(name: str) -> None:
    """A part is refused where the whole tile is, in the same words, and elsewhere is its part: also below the part."""
    stream, colour, size = STREAMS[name]
    before, rng, refused = jpeg.prefix(None, colour), np.random.default_rng(1), 0
    for _ in range(150):
        damaged, part = harmed(stream, rng), parts(size)[int(rng.integers(45))]
        into = np.empty((size[1], size[0], 3), np.uint8)
        whole, said = decoded(damaged, before, size)
        found, said_of_part = decoded(damaged, before, size, into=into, part=part)
        assert said_of_part == said
        if whole is None or found is None:
            refused += 1
        else:
            np.testing.assert_array_equal(found[part.slices], whole[part.slices])
    assert refused > 50


def test_a_tile_whose_headers_are_damaged_does_not_keep_others_from_being_cropped() -> None:
    """TurboJPEG's own state is lost with it: each part that its thread asks for would be decoded whole from then on."""
    stream, colour, size = STREAMS["420 256 x 256"]
    before, part, scan = jpeg.prefix(None, colour), Box(100, 90, 60, 50), stream.index(b"\xff\xda")
    damaged = stream[: scan + 5] + b"\x09" + stream[scan + 6 :]  # a scan of a component that the frame has not

    def cropped(stream: bytes) -> bool:
        into = np.empty((size[1], size[0], 3), np.uint8)
        return cropping.decode_part(before + stream[2:], size, (16, 16), part, into)

    assert [cropped(one) for one in (stream, damaged, stream)] == [True, False, True]
