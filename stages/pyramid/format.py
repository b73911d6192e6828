"""How a pyramid is stored: what its format answers for, whatever it holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stages.pyramid.layout import LevelLayout
from stages.pyramid.plan import Plan
from stages.slide.facts import SlideFacts

Progress = Callable[[int, int, int], None]
"""Called with (pixels of the slide that are done, pixels in all, bytes written by this run)."""


class Format(Protocol):
    """How a pyramid is stored.

    Attributes:
        name: of the format; what one began, another does not go on with.
    """

    name: str

    def start(self, plan: Plan) -> None:
        """Make the folders and the arrays' metadata, or find them there."""
        ...

    def is_whole(self, layout: LevelLayout, row: int, column: int, wanted: Sequence[bool]) -> bool:
        """Whether an earlier run stored a shard's wanted chunks, and they are undamaged."""
        ...

    def encode(self, pixels: NDArray[np.uint8]) -> bytes:
        """A chunk (height, width, 3) as it is stored."""
        ...

    def write(self, layout: LevelLayout, row: int, column: int, chunks: Sequence[bytes | None]) -> int:
        """Store a shard's chunks and return their bytes; into a folder that is gone nothing is written."""
        ...

    def finish(self, plan: Plan, source: SlideFacts) -> None:
        """Write what makes the folder a pyramid."""
        ...


class FolderFormat(Format, Protocol):
    """How it is stored in a folder."""

    def is_ours(self, folder: Path) -> bool:
        """Whether a folder was made by this format, and may be replaced."""
        ...
