"""What every later stage reads pixels through: a whole-slide file, a pyramid and a cache of chunks are slides alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stages.geometry import Box
from stages.slide.facts import SlideFacts
from stages.slide.tiles import TileGrid


class Slide(Protocol):
    """Pixels of one slide, level by level. Implementations pickle by path and open handles once per process."""

    facts: SlideFacts

    def read_boxes(
        self, level: int, boxes: Sequence[Box], *, out: Sequence[NDArray[np.uint8]] | None = None
    ) -> list[NDArray[np.uint8]]:
        """RGB (height, width, 3) of each box, read together: a tile that several of them touch is decoded once.

        Args:
            level: index in ``facts.levels``.
            boxes: inside the level and in its pixels.
            out: arrays to fill, one for each box; new ones by default.

        Raises:
            SlideError: a region cannot be read; caused by `DamagedTilesError` where it is known which.
        """
        ...

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """RGB (height, width, 3) of one box; see `read_boxes`."""
        return self.read_boxes(level, [box])[0]

    def tile_bytes(self, level: int) -> NDArray[np.int64]:
        """Compressed bytes of each of the level's tiles, (tile rows, tile columns); estimated if the file hides it."""
        ...

    def tiles(self, level: int) -> TileGrid | None:
        """The level's own compressed tiles, where its reads decode them and nothing else; else None."""
        return None

    def direct(self, level: int) -> bool:
        """Whether reads of this level decode the slide's own tiles, so that `tile_bytes` are exact."""
        ...

    def __repr__(self) -> str:
        from stages.slide.card import in_a_line

        return f"<{type(self).__name__} {self.facts.path.name!r}: {in_a_line(self.facts)}>"

    def _repr_html_(self) -> str:
        """See `stages.slide.card.card`."""
        from stages.slide.card import card

        return card(self.facts, self.read_level)
