"""Decode a part of a JPEG stream, where a TurboJPEG 3 is installed: what of it nobody asked for is unpacked, no more.

Huffman codes follow each other, so all of them are read, to the stream's end: what is damaged is told of wherever it
lies. Only what makes pixels of them is left out, left and right of the part and above it. (TurboJPEG can also stop
below it; then damage there, and what shows only at the end, would pass.)

`stages.slide.jpeg` decodes whole tiles without any of this, to the same pixels, and is what answers for damage.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.geometry import Box

WORTH = 0.85
"""Of a tile's pixels, beyond which decoding all of it is as quick."""

_BLOCK = 8
_DECOMPRESS, _STOP_ON_WARNING, _RGB = 1, 0, 0  # TJINIT, TJPARAM and TJPF, as turbojpeg.h numbers them


class _Region(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("x", "y", "width", "height")]


def decode_part(
    stream: bytes, size: tuple[int, int], unit: tuple[int, int], part: Box, into: NDArray[np.uint8]
) -> bool:
    """Put the RGB of a part of a tile where it belongs, and leave something or nothing in the rest.

    Args:
        stream: a whole one of one scan, its colours marked.
        size: (width, height) of the tile.
        unit: (width, height) of what the stream is a sequence of, in pixels: blocks of 8 x 8 of all its components.
        part: inside the tile, in its pixels.
        into: contiguous memory of the whole tile, (height, width, 3).

    Returns:
        whether it was done: not without a TurboJPEG 3, nor where little would be saved, nor where anything is wrong.
    """
    (width, height), library = size, _library()
    # colours at half width are smoothed between neighbours, which a part's border hides: a unit more is decoded
    across, down = (side if side > _BLOCK else 0 for side in unit)
    left, top = max(0, part.x // unit[0] * unit[0] - across), max(0, part.y - down)
    right = min(width, part.x + part.width + across)
    if library is None or (right - left) * (height - top) > WORTH * width * height:
        return False
    handle = _handle(library)
    corner = into.ctypes.data + top * into.strides[0] + left * into.strides[1]
    region = _Region(left, top, right - left, height - top)
    failed = (
        library.tj3DecompressHeader(handle, stream, len(stream))
        or library.tj3SetCroppingRegion(handle, region)
        or library.tj3Decompress8(handle, stream, len(stream), corner, into.strides[0], _RGB)
    )
    if failed:
        del _of_thread.decoder  # after an error in the headers it would refuse every stream
    return not failed


def can_crop() -> bool:
    """Whether there is a library for it."""
    return _library() is not None


@functools.cache
def _library() -> Any:
    """A TurboJPEG that can crop: that of the package `turbojpeg`, or the system's."""
    for place in _places():
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(place)
            library.tj3Init.restype = ctypes.c_void_p
            library.tj3Destroy.argtypes = [ctypes.c_void_p]
            library.tj3Set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
            stream: list[Any] = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
            library.tj3DecompressHeader.argtypes = stream
            library.tj3SetCroppingRegion.argtypes = [ctypes.c_void_p, _Region]
            library.tj3Decompress8.argtypes = [*stream, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
            return library
    return None


def _places() -> Iterator[str]:
    package = importlib.util.find_spec("turbojpeg")
    if package is not None and package.origin is not None and not package.origin.endswith(".py"):
        yield package.origin  # a module of compiled code, which brings the library: its names are found through it
    yield from ("libturbojpeg.so.0", "libturbojpeg.0.dylib")


class _Decoder:
    """TurboJPEG's own state; a thread has one."""

    def __init__(self, library: Any) -> None:
        self.handle, self._destroy = library.tj3Init(_DECOMPRESS), library.tj3Destroy
        library.tj3Set(self.handle, _STOP_ON_WARNING, 1)

    def __del__(self) -> None:
        self._destroy(self.handle)


_of_thread = threading.local()


def _handle(library: Any) -> Any:
    if not hasattr(_of_thread, "decoder"):
        _of_thread.decoder = _Decoder(library)
    return _of_thread.decoder.handle
