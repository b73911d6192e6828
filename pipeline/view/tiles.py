"""Tiles of a run's slides as JPEG, read when they are asked for; what is kept of them is bounded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from pipeline.view.frame import Frame
from stages.geometry import Raster
from stages.slide.protocol import Slide
from stages.slide.render import render
from stages.slide.standalone import stored_jpeg

KEPT_BYTES = 2**24
"""Of encoded tiles that are kept: some 400, many screens full; browsers keep more."""
OPEN_SLIDES = 4
"""Slides that are open at a time."""
QUALITY = 90
"""Of a tile as JPEG: what the eye cannot tell from the slide's own."""

_T = TypeVar("_T")


class Recent(Generic[_T]):
    """What was used last, up to a bound; safe to use from several threads.

    Args:
        most: bound on the sum of ``size`` over what is kept.
        size: of one value.
    """

    def __init__(self, most: int, size: Callable[[_T], int]) -> None:
        self._most, self._size = most, size
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, _T] = OrderedDict()
        self._sum = 0

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """The value that is kept under ``key``, else what ``make`` gives, which is kept from then on."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        value = make()
        with self._lock:
            if key not in self._kept:  # else another thread was faster
                self._kept[key] = value
                self._sum += self._size(value)
            while self._sum > self._most and len(self._kept) > 1:
                self._sum -= self._size(self._kept.popitem(last=False)[1])
        return value

    @property
    def held(self) -> int:
        """The sum of sizes of what is kept."""
        return self._sum


class Tiles:
    """Tiles of several slides.

    Args:
        opened: opens the slide of a number; raises `SlideError` where it cannot be shown.
    """

    def __init__(self, opened: Callable[[int], Slide]) -> None:
        self._opened = opened
        self._opening = threading.Lock()
        self._slides: Recent[Slide] = Recent(OPEN_SLIDES, lambda slide: 1)
        self._tiles: Recent[bytes] = Recent(KEPT_BYTES, len)

    def slide(self, number: int) -> Slide:
        """A slide, opened once for as long as it is in use.

        Raises:
            SlideError: it cannot be shown.
        """
        with self._opening:
            return self._slides.get(number, lambda: self._opened(number))

    def tile(self, number: int, frame: Frame, zoom: int, column: int, row: int) -> bytes | None:
        """A tile of a slide as JPEG, the slide's own where it is just that; None where it holds nothing of it.

        Raises:
            SlideError: the slide cannot be read there.
        """
        raster = frame.tile(zoom, column, row)
        if raster is None:
            return None
        slide = self.slide(number)
        key = (number, slide.facts.fingerprint, zoom, column, row)
        return self._tiles.get(key, lambda: stored_jpeg(slide, raster) or jpeg(render(slide, raster, quick=True)))

    def region(self, number: int, raster: Raster) -> bytes:
        """A raster of a slide as JPEG; not kept.

        Raises:
            SlideError: the slide cannot be read there.
        """
        return jpeg(render(self.slide(number), raster))

    @property
    def held(self) -> int:
        """Bytes of the tiles that are kept."""
        return self._tiles.held


def jpeg(rgb: NDArray[np.uint8]) -> bytes:
    """RGB (H, W, 3) as JPEG."""
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(rgb), level=QUALITY, subsampling="420"))
