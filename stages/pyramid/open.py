"""Open the pixels of any slide to read them, be it a whole-slide file or a pyramid, or the bag in its place; nothing
that writes is loaded."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.bags.bag import READ_SUFFIXES
from stages.geometry import Box
from stages.place import Place, Url, place, refusal_of
from stages.pyramid.layout import LevelLayout
from stages.pyramid.record import REMEDY, Kept, has_record, read_record
from stages.pyramid.shards import ShardTiles
from stages.slide.facts import SlideError, SlideFacts, override_mpp, unreadable
from stages.slide.protocol import Slide
from stages.slide.revision import revision_of
from stages.slide.tiles import DamagedTilesError


class ZarrSlide(Slide):
    """A pyramid that `cache_pyramid` wrote: the slide's pixels without the slide.

    Attributes:
        layouts: of its levels.
        kept: whether its finest levels hold all of the slide or the surroundings of its tissue; what is not there reads
            as background.
    """

    def __init__(self, facts: SlideFacts, layouts: Sequence[LevelLayout], kept: Kept) -> None:
        self.facts, self.layouts, self.kept = facts, tuple(layouts), kept
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._pid = -1
        self._tiles: tuple[ShardTiles, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {"facts": self.facts, "layouts": self.layouts, "kept": self.kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.facts, self.layouts, self.kept = state["facts"], state["layouts"], state["kept"]
        self._reset()

    def tiles(self, level: int) -> ShardTiles:
        """See `Slide.tiles`: a pyramid's chunks."""
        with self._lock:
            if self._pid != os.getpid():
                self._tiles, self._pid = tuple(ShardTiles(layout) for layout in self.layouts), os.getpid()
            return self._tiles[level]

    @unreadable()
    def read_boxes(
        self, level: int, boxes: Sequence[Box], *, out: Sequence[NDArray[np.uint8]] | None = None
    ) -> list[NDArray[np.uint8]]:
        """See `Slide.read_boxes`."""
        try:
            return self.tiles(level).read_many(boxes, blank=self.facts.background, out=out)
        except DamagedTilesError as exc:
            box = boxes[exc.boxes[0]]
            raise SlideError(f"cannot read the pyramid's level {level} at ({box.x}, {box.y}): {exc}; {REMEDY}") from exc

    @unreadable()
    def tile_bytes(self, level: int) -> NDArray[np.int64]:
        """See `Slide.tile_bytes`: exact, from the shards' own indices."""
        try:
            return self.tiles(level).byte_counts
        except (OSError, ValueError) as exc:
            raise SlideError(f"cannot read the pyramid's level {level}: it {exc}; {REMEDY}") from exc

    def direct(self, level: int) -> bool:
        """See `Slide.direct`: always, a pyramid's chunks are its tiles."""
        return True


@unreadable()
def open_pyramid(path: str | PathLike[str] | Place, *, mpp: float | None = None) -> Slide:
    """Open the pixels of a slide: a whole-slide file, the pyramid that `cache_pyramid` made of one, any OME-Zarr image;
    or a bag, which stands for its slide and has features in place of pixels.

    Args:
        path: the file, or the folder of the pyramid or image, or its URL: in a store of objects only OME-Zarr is read.
        mpp: µm per level-0 pixel that replaces the file's own.

    Raises:
        SlideError: missing, not a slide, damaged, or an OME-Zarr image that cannot be read as RGB of 8 bits.
    """
    where = place(path)
    if isinstance(where, Url):
        if (why := refusal_of(where)) is not None:
            raise SlideError(why)
    elif not where.is_dir():
        if where.name.lower().endswith((".ozx", ".zarr.zip")):
            raise SlideError("a zipped OME-Zarr: unpack it into a folder and name that")
        if where.name.lower().endswith((*READ_SUFFIXES, ".pt")):
            from stages.bags.bag_slide import open_bag  # h5py: for bags only

            return open_bag(where, mpp=mpp)
        from stages.slide.files import open_slide  # a pyramid needs neither OpenSlide nor tifffile

        return open_slide(where, mpp=mpp)
    if not has_record(where):
        from stages.pyramid.foreign import open_foreign  # a pyramid of ours needs no zarr

        slide = open_foreign(where)
        slide.facts = override_mpp(slide.facts, mpp)
        return slide
    revision = None if isinstance(where, Url) else revision_of(where)
    record = read_record(where)
    facts = replace(override_mpp(record.facts, mpp), revision=revision)
    return ZarrSlide(facts, record.layouts, record.kept)
