"""TIFFs that OpenSlide cannot show as they are: read through tifffile, tile by tile, and turned upright."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.geometry import Box, Mpp, level_raster
from stages.passing import UnreadableError, patiently
from stages.slide.companions import fingerprint_of, state_of
from stages.slide.facts import (
    MAX_PIXELS,
    MAX_SIDE,
    MAX_TILES,
    SlideError,
    SlideFacts,
    keep_levels,
    override_mpp,
    unreadable,
)
from stages.slide.kinds import first_bytes
from stages.slide.levels import find_levels
from stages.slide.picture import Picture, read_picture
from stages.slide.protocol import Slide
from stages.slide.resolution import check_mpp, doubt_mpp, unknown_mpp
from stages.slide.tiles import WHITE, DamagedTilesError, TileGrid, box_arrays


@dataclass(frozen=True, slots=True)
class Turn:
    """How stored pixels are turned upright: first mirrored along the diagonal, then left to right, then upside down."""

    diagonal: bool
    across: bool
    down: bool

    def box(self, box: Box, size: tuple[int, int]) -> Box:
        """Where a box of the upright level, which is of a size (width, height), is stored."""
        x = size[0] - box.x - box.width if self.across else box.x
        y = size[1] - box.y - box.height if self.down else box.y
        return Box(y, x, box.height, box.width) if self.diagonal else Box(x, y, box.width, box.height)

    def array(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Pixels (height, width, ...) or tiles upright."""
        upright = stored.swapaxes(0, 1) if self.diagonal else stored
        return upright[:: -1 if self.down else 1, :: -1 if self.across else 1]

    def pair(self, pair: tuple[Any, Any]) -> tuple[Any, Any]:
        """(along x, along y) of what is stored, upright."""
        return (pair[1], pair[0]) if self.diagonal else pair


TURNS = {
    1: Turn(False, False, False),
    2: Turn(False, True, False),
    3: Turn(False, True, True),
    4: Turn(False, False, True),
    5: Turn(True, False, False),
    6: Turn(True, True, False),
    7: Turn(True, True, True),
    8: Turn(True, False, True),
}
"""By TIFF's tag Orientation (TIFF 6.0, section 8)."""


class TifffileSlide(Slide):
    """A TIFF as tifffile reads it."""

    def __init__(self, facts: SlideFacts, orientation: int, numbers: Sequence[int]) -> None:
        # numbers: each level's in the picture, where some of its levels are left out
        self.facts, self._turn, self._numbers = facts, TURNS[orientation], tuple(numbers)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._pid = -1
        self._grids: tuple[TileGrid, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {"facts": self.facts, "turn": self._turn, "numbers": self._numbers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.facts, self._turn, self._numbers = state["facts"], state["turn"], state["numbers"]
        self._reset()

    def _level(self, level: int) -> TileGrid:
        with self._lock:
            if self._pid != os.getpid():
                first_bytes(self.facts.file)  # says why it cannot be read, where it cannot
                if fingerprint_of(self.facts.file, {}) != self.facts.fingerprint:
                    raise SlideError("the file is no longer the one that was opened: start again with the new one")
                self._grids, self._pid = find_picture(self.facts.file).levels, os.getpid()
            return self._grids[self._numbers[level]]

    @unreadable()
    def tiles(self, level: int) -> TileGrid | None:
        """See `Slide.tiles`: none where they lie on their side."""
        return self._level(level) if self._turn == TURNS[1] else None

    @unreadable()
    def read_boxes(
        self, level: int, boxes: Sequence[Box], *, out: Sequence[NDArray[np.uint8]] | None = None
    ) -> list[NDArray[np.uint8]]:
        """See `Slide.read_boxes`."""
        raster, grid = self.facts.levels[level], self._level(level)
        targets = box_arrays(boxes) if out is None else list(out)
        stored = [self._turn.box(box, (raster.width, raster.height)) for box in boxes]
        upright = self._turn == TURNS[1]
        try:
            found = grid.read_many(stored, blank=self.facts.background, out=targets if upright else None)
        except DamagedTilesError as exc:
            box = boxes[exc.boxes[0]]
            raise SlideError(
                f"cannot read level {level} at ({box.x}, {box.y}): {exc}; the file is damaged: copy it again"
            ) from exc
        if not upright:
            for target, pixels in zip(targets, found, strict=True):
                target[:] = self._turn.array(pixels)
        return targets

    @unreadable()
    def tile_bytes(self, level: int) -> NDArray[np.int64]:
        """See `Slide.tile_bytes`; of turned tiles up to one off, where the last is not whole."""
        return self._turn.array(self._level(level).byte_counts)

    def direct(self, level: int) -> bool:
        """See `Slide.direct`: where the slide is stored upright."""
        return self._turn == TURNS[1]


def find_picture(path: Path) -> Picture:
    """`read_picture`, whose every failure is the slide's.

    Raises:
        SlideError: as it does; or the file is damaged.
    """
    try:
        return read_picture(path)
    except (SlideError, UnreadableError):
        raise
    except Exception as exc:  # tifffile's own types, and whatever damage makes of values
        raise SlideError(f"cannot be opened: {exc}; the file is damaged: copy or write it again") from exc


def open_tiff(path: Path, *, mpp: float | None = None) -> TifffileSlide:
    """Open a TIFF through tifffile.

    Args:
        path: the file.
        mpp: µm per level-0 pixel that replaces the file's own.

    Raises:
        SlideError: it holds no colour picture, is damaged, or claims absurd dimensions.
    """
    revision = state_of(path, {}, ())
    picture = find_picture(path)
    turn = TURNS[picture.orientation]
    for number, grid in enumerate(picture.levels):
        (width, height), count = grid.size, grid.byte_counts.size
        if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS or count > MAX_TILES:
            raise SlideError(
                f"level {number} claims {width} x {height} pixels in {count} tiles: refused, the file is damaged or "
                "hostile"
            )
    sizes = [turn.pair(grid.size) for grid in picture.levels]
    tiles = [turn.pair(grid.tile) for grid in picture.levels]
    true = Mpp(*turn.pair((picture.mpp.x, picture.mpp.y))) if picture.mpp else None
    problem = check_mpp(true.x, true.y) if true else unknown_mpp(picture.description, None)
    doubt = None
    if true and not problem:
        doubt = doubt_mpp(true, power=picture.objective_power, description=picture.description, tag=picture.tag)
    facts = SlideFacts(
        path=path,
        vendor=picture.vendor,
        levels=tuple(level_raster(sizes[0], size) for size in sizes),
        tile_sizes=tuple((min(w, size[0]), min(h, size[1])) for (w, h), size in zip(tiles, sizes, strict=True)),
        mpp=None if problem else true,
        mpp_source="file" if true else "none",
        mpp_problem=problem,
        bounds=Box(0, 0, *sizes[0]),
        background=WHITE,
        objective_power=picture.objective_power,
        associated=picture.associated,
        fingerprint=fingerprint_of(path, {}),
        file_bytes=patiently(path.stat).st_size,
        mpp_doubt=doubt,
        warnings=picture.warnings,
        revision=revision,
    )

    def read(level: int, box: Box) -> NDArray[np.uint8] | None:
        try:
            (stored,) = picture.levels[level].read_many([turn.box(box, sizes[level])], blank=WHITE)
        except DamagedTilesError:
            return None
        return np.ascontiguousarray(turn.array(stored))

    levels = find_levels(sizes, facts.tile_sizes, read)
    return TifffileSlide(override_mpp(keep_levels(facts, levels), mpp), picture.orientation, levels.numbers)
