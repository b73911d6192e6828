"""Whole-slide files as slides: everything that OpenSlide opens, read from its own tiles where that is the same; and
TIFFs that it does not open, or shows otherwise than they are."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openslide
from numpy.typing import NDArray

from stages.disk import Version, open_regular, reading, refuse_changed, version_of
from stages.geometry import Box
from stages.passing import PASSING, TOO_MANY_FILES, UnreadableError, patiently
from stages.slide.beyond import beyond_openslide, misread
from stages.slide.companions import fingerprint_of
from stages.slide.facts import Page, SlideError, SlideFacts, keep_levels, override_mpp, read_facts, unreadable
from stages.slide.kinds import first_bytes, is_tiff, says, why_no_slide, why_unopened
from stages.slide.levels import Levels, find_levels
from stages.slide.overlaps import more_doubt, overlap_doubt
from stages.slide.protocol import Slide
from stages.slide.tiff import TiffTiles, find_level_tiles, read_pages, stored_bytes
from stages.slide.tiles import HUGE, DamagedTilesError, box_arrays

if TYPE_CHECKING:
    from stages.slide.tifffile_slide import TifffileSlide

REGION_SIDE = 256
"""Level pixels along a side of the regions that OpenSlide is asked for where it interpolates."""

PLAIN_TIFF = ("aperio", "generic-tiff", "trestle")
"""Formats whose levels are simply pages, with resolution tags of their own."""

VOUCHED = ("hamamatsu", "mirax")
"""Formats whose levels are not compared: each is said to be one by the scanner, with its lens (NDPI), or is built by
OpenSlide from one index (MRXS). Their tiles are slow to decode, and comparing would make opening ten times as slow."""

TORN = "its list of pictures breaks off after {}, so that levels may be missing: the file is damaged: copy it again"

DECODED_BYTES = 2**26
"""Of decoded tiles that OpenSlide keeps, of all slides together: some 250 tiles of 256 x 256 pixels."""
COMPARED = 3
"""Tiles of a level that are compared with OpenSlide before its own are used."""
COMPARED_SIDE = 2048
"""Pixels along a side of the part of a huge tile that is."""


class OpenSlideSlide(Slide):
    """A whole-slide file: its own JPEG tiles where they can be decoded directly and verified, else OpenSlide."""

    def __init__(
        self, facts: SlideFacts, numbers: Sequence[int] | None = None, *, opened: Version | None = None
    ) -> None:
        # opened: what the file was before it was opened
        self.facts, self._opened = facts, version_of(facts.file.stat()) if opened is None else opened
        # each level's number in the file, where some of its levels are left out
        self._numbers = tuple(range(len(facts.levels)) if numbers is None else numbers)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._pid = -1
        self._handle: openslide.OpenSlide | None = None
        self._downsamples: tuple[float, ...] = ()
        self._grids: list[TiffTiles | None] | None = None
        self._verdicts: dict[int, bool | None] = {}
        self._counts: dict[int, NDArray[np.int64] | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"facts": self.facts, "numbers": self._numbers, "opened": self._opened}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.facts, self._numbers, self._opened = state["facts"], state["numbers"], state["opened"]
        self._reset()

    def _open(self) -> openslide.OpenSlide:
        """This process's handle: handles do not survive a fork, and a new process must not share its parent's."""
        with self._lock:
            if self._pid != os.getpid() or self._handle is None:
                try:
                    handle = _open_handle(self.facts.file)
                except SlideError:
                    self._refuse_changed()
                    raise
                if fingerprint_of(self.facts.file, dict(handle.properties)) != self.facts.fingerprint:
                    handle.close()
                    raise SlideError("the file is no longer the one that was opened: start again with the new one")
                self._handle, self._pid, self._downsamples = handle, os.getpid(), handle.level_downsamples
            return self._handle

    def _refuse_changed(self) -> None:
        """Name the true cause where the file is not what it was when it was opened."""
        path = self.facts.file
        with reading(path):
            try:
                refuse_changed(patiently(path.stat), self._opened)
            except FileNotFoundError as exc:
                raise SlideError("the file was removed while it was read: restore it") from exc

    @unreadable()
    def tiles(self, level: int) -> TiffTiles | None:
        """See `Slide.tiles`."""
        with self._lock:
            if self._grids is None:
                self._grids = self._find_tiles([(r.width, r.height) for r in self.facts.levels])
            tiles, same = self._grids[level], self._verdict(level)
            if tiles is None or same is False:
                return None
            if same is None and not any(
                other is not None and other.jpeg == tiles.jpeg and self._verdict(i)
                for i, other in enumerate(self._grids)
            ):
                return None
            return tiles

    def _find_tiles(self, sizes: Sequence[tuple[int, int]]) -> list[TiffTiles | None]:
        if self.facts.vendor != "dicom":
            return find_level_tiles(self.facts.file, sizes)
        from stages.slide.dicom import find_dicom_tiles  # pydicom is as much as all of this room: for its files only

        return find_dicom_tiles(self.facts.file, sizes)

    def _verdict(self, level: int) -> bool | None:
        """`_verified`, found out once; False where there are no tiles."""
        if level not in self._verdicts:
            assert self._grids is not None
            tiles = self._grids[level]
            self._verdicts[level] = tiles is not None and self._verified(level, tiles)
        return self._verdicts[level]

    def _verified(self, level: int, tiles: TiffTiles) -> bool | None:
        """Whether some tiles decode to what OpenSlide shows: exactly where it does not interpolate.

        A damaged tile says nothing of how intact ones decode, so others stand in for it; were it left to OpenSlide, it
        would be shown as if it were whole. Where most are refused it is the encoding, and OpenSlide's business: None.
        """
        sizes = tiles.byte_counts.ravel()
        filled = np.flatnonzero(sizes)
        if len(filled) < len(sizes) and level and self.facts.vendor == "aperio":
            return False  # in this format a missing tile is not blank: the finer level shows through
        if not len(filled):
            return True
        by_size = filled[np.argsort(sizes[filled], kind="stable")]
        whole, agreed, refused = self._whole(level), 0, 0
        # rich in detail, typical, far corner; then what stands in for them
        spread = [by_size[round(share * (len(by_size) - 1))] for share in (1, 0.5, 0.75, 0.25, 0.9, 0.4, 0.6, 0)]
        for index in dict.fromkeys([*spread[:2], filled[-1], *spread[2:]]):
            row, column = divmod(int(index), tiles.byte_counts.shape[1])
            if tiles.is_cropped(row, column):
                continue
            box = _middle(tiles.box(row, column))
            try:
                tiles.stored(row, column)  # first: OpenSlide would allocate whatever the file claims
                theirs = self._read_openslide(level, box)
            except (SlideError, OSError, ValueError):
                continue
            try:
                ours = tiles.read(box)
            except ValueError:
                refused += 1
                continue
            difference = np.abs(ours.astype(np.int16) - theirs)
            # off whole downsamples OpenSlide interpolates between pixels, so only a likeness can be asked for
            if (difference.max() > 0) if whole else (difference.mean() > 12):
                return False
            agreed += 1
            if agreed == COMPARED:
                break
        return True if agreed and agreed >= refused else None

    def _whole(self, level: int) -> bool:
        """Whether OpenSlide can be asked for exact pixels of this level: it addresses them in whole level-0 pixels."""
        self._open()
        return float(self._downsamples[self._numbers[level]]).is_integer()

    def _read_openslide(self, level: int, box: Box, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        out = np.empty((box.height, box.width, 3), np.uint8) if out is None else out
        if self._whole(level):
            self._read_region(level, box, out)
            return out
        # Its pixels then depend on where a region starts, so regions start on a grid: what is read is what is there,
        # however it is asked for.
        raster, side = self.facts.levels[level], REGION_SIDE
        for y in range(box.y // side * side, box.y + box.height, side):
            for x in range(box.x // side * side, box.x + box.width, side):
                region = Box(x, y, side, side).intersect(Box(0, 0, raster.width, raster.height))
                part, pixels = region.intersect(box), np.empty((region.height, region.width, 3), np.uint8)
                self._read_region(level, region, pixels)
                out[part.moved(-box.x, -box.y).slices] = pixels[part.moved(-x, -y).slices]
        return out

    def _read_region(self, level: int, box: Box, out: NDArray[np.uint8]) -> None:
        # a DICOM handle that failed must not be closed while another thread reads or opens: the process would crash;
        # and of huge tiles, one at a time is decoded
        alone = self.facts.vendor == "dicom" or math.prod(self.facts.tile_sizes[level]) > HUGE
        with self._lock if alone else contextlib.nullcontext():
            self._read_region_now(level, box, out)

    def _read_region_now(self, level: int, box: Box, out: NDArray[np.uint8]) -> None:
        try:
            self._read_once(level, box, out)
            self._refuse_changed()  # it opens the file by its name again and again, whatever that is by then
            return
        except openslide.OpenSlideError:
            self._refuse_changed()  # its own reads are not patient, and do not say what the disk answered: ours do
        try:
            self._read_once(level, box, out)
        except openslide.OpenSlideError as exc:
            words = f"cannot read level {level} at ({box.x}, {box.y}): {exc}"
            if says(str(exc), *PASSING):
                raise UnreadableError(f"{words}; the disk failed: try again later", passing=True) from exc
            if says(str(exc), *TOO_MANY_FILES):
                raise UnreadableError(f"{words}: raise the limit (ulimit -n)", passing=True) from exc
            raise SlideError(f"{words}; the file is damaged: copy or scan it again") from exc

    def _read_once(self, level: int, box: Box, out: NDArray[np.uint8]) -> None:
        handle, number = self._open(), self._numbers[level]
        try:
            rgba = _region(handle, number, self._downsamples[number], box)
        except openslide.OpenSlideError:
            with self._lock:  # OpenSlide's errors latch: this handle answers nothing else from now on
                self._handle = None
                if self.facts.vendor == "dicom":
                    handle.close()
            raise
        _put_on_background(rgba, self.facts.background, out)

    @unreadable()
    def read_boxes(
        self, level: int, boxes: Sequence[Box], *, out: Sequence[NDArray[np.uint8]] | None = None
    ) -> list[NDArray[np.uint8]]:
        """See `Slide.read_boxes`."""
        tiles = self.tiles(level)
        if tiles is None:
            targets = box_arrays(boxes) if out is None else list(out)
            for box, target in zip(boxes, targets, strict=True):
                self._read_openslide(level, box, target)
            return targets
        try:
            return tiles.read_many(boxes, blank=self.facts.background, out=out)
        except DamagedTilesError as exc:
            box = boxes[exc.boxes[0]]
            raise SlideError(
                f"cannot read level {level} at ({box.x}, {box.y}): {exc}; the file is damaged: copy it again"
            ) from exc

    @unreadable()
    def tile_bytes(self, level: int) -> NDArray[np.int64]:
        """See `Slide.tile_bytes`."""
        tiles = self.tiles(level)
        if tiles is not None:
            return tiles.byte_counts
        if self.facts.vendor == "generic-tiff":  # of the others OpenSlide shows a missing tile by the finer level's
            if level not in self._counts:
                self._counts[level] = stored_bytes(
                    self.facts.file, (self.facts.levels[level].width, self.facts.levels[level].height)
                )
            if (counts := self._counts[level]) is not None:
                return counts
        raster, (width, height) = self.facts.levels[level], self.facts.tile_sizes[level]
        pixels = sum(r.width * r.height for r in self.facts.levels)
        shape = (-(-raster.height // height), -(-raster.width // width))
        return np.full(shape, max(1, round(self.facts.file_bytes * width * height / pixels)), np.int64)

    def direct(self, level: int) -> bool:
        """See `Slide.direct`."""
        return self.tiles(level) is not None


def _middle(box: Box) -> Box:
    """The middle of a tile, of at most `COMPARED_SIDE` pixels along a side."""
    width, height = min(box.width, COMPARED_SIDE), min(box.height, COMPARED_SIDE)
    return Box(box.x + (box.width - width) // 2, box.y + (box.height - height) // 2, width, height)


def _region(handle: openslide.OpenSlide, number: int, downsample: float, box: Box) -> NDArray[np.uint8]:
    """RGBA of a box of a level, in the level's pixels; OpenSlide asks for its corner in level-0 ones."""
    location = (round(box.x * downsample), round(box.y * downsample))
    return np.asarray(handle.read_region(location, number, (box.width, box.height)))


def _put_on_background(
    rgba: NDArray[np.uint8], background: tuple[int, int, int], out: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Fill ``out`` (height, width, 3), and return it."""
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        for channel in range(3):  # so that numpy loops along the row, not over three channels
            out[..., channel] = rgba[..., channel]
        return out
    # openslide-python has already undone the premultiplication
    mixed = rgba[..., :3] * (alpha / 255.0) + np.array(background) * (1 - alpha / 255.0)
    out[:] = np.rint(mixed).astype(np.uint8)
    return out


@functools.cache
def _decoded(pid: int) -> openslide.OpenSlideCache:
    """What OpenSlide keeps of the tiles of all slides of a process: alone, each slide would keep 32 MB."""
    return openslide.OpenSlideCache(DECODED_BYTES)


def _open_handle(path: Path) -> openslide.OpenSlide:
    handle = _opened(path)
    handle.set_cache(_decoded(os.getpid()))
    return handle


def _opened(path: Path) -> openslide.OpenSlide:
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideError:
        _refuse_unreadable(path)  # its own reads are not patient: once these pass, another try may
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError as exc:
        raise SlideError(why_no_slide(path)) from exc
    except openslide.OpenSlideError as exc:
        raise SlideError(f"cannot be opened: {why_unopened(path, str(exc))}") from exc


def _refuse_unreadable(path: Path) -> None:
    """Name the true cause where a slide's file, or the folder that an MRXS keeps its pixels in, may not be read."""
    first_bytes(path)
    beside = path.with_suffix("")
    if path.suffix.lower() == ".mrxs" and beside.is_dir():
        with reading(beside):
            for file in sorted(beside.iterdir()):
                with reading(file), contextlib.suppress(IsADirectoryError), open_regular(file) as opened:
                    opened.read(1)


@unreadable()
def open_slide(path: Path | str, *, mpp: float | None = None) -> OpenSlideSlide | TifffileSlide:
    """Open a whole-slide file and read what it says of itself.

    Args:
        path: the slide file.
        mpp: µm per level-0 pixel that replaces the file's own.

    Raises:
        SlideError: missing, not a slide, damaged, or claiming absurd dimensions.
    """
    path = Path(path)
    first_bytes(path)
    with reading(path):
        before = version_of(patiently(path.stat))
    try:
        handle = _open_handle(path)
    except SlideError:
        if is_tiff(path) and beyond_openslide(path):
            return _open_tiff(path, mpp=mpp)
        raise
    with handle:
        if handle.properties.get("openslide.vendor") == "generic-tiff" and misread(path):
            return _open_tiff(path, mpp=mpp)
        plain = handle.properties.get("openslide.vendor") in PLAIN_TIFF
        facts = read_facts(path, handle, pages := read_pages(path) if plain else ())
        if any(page.torn for page in pages):
            facts = replace(facts, warnings=(*facts.warnings, TORN.format(len(pages))))
        levels, doubts = _find_levels(facts, handle, pages)
        facts = replace(facts, warnings=(*facts.warnings, *doubts))
    return OpenSlideSlide(override_mpp(keep_levels(facts, levels), mpp), levels.numbers, opened=before)


def _open_tiff(path: Path, *, mpp: float | None) -> TifffileSlide:
    from stages.slide.tifffile_slide import open_tiff  # few slides need it

    return open_tiff(path, mpp=mpp)


def _find_levels(
    facts: SlideFacts, handle: openslide.OpenSlide, pages: Sequence[Page]
) -> tuple[Levels, tuple[str, ...]]:
    """Which of a file's levels are some, compared as OpenSlide shows them; and what is to be said of their tiles."""
    if facts.vendor in VOUCHED:
        return Levels(tuple(range(len(facts.levels))), facts.levels, ()), ()
    sizes = [(level.width, level.height) for level in facts.levels]
    own = [[page for page in pages if page.size == size and page.tile is not None] for size in sizes]
    for number, found in enumerate(own):
        if len(found) == 1 and found[0].missing > 0:
            raise SlideError(
                f"level {number} lists {found[0].missing} tiles less than its sizes make: the file is damaged: "
                "copy it again"
            )
    first, *_ = told = [found[0].mpp if len(found) == 1 else None for found in own]
    # writers that put level 0's tag on every level say nothing by it
    factors = [None if first is None or mpp is None or mpp == first else mpp.x / first.x for mpp in told]
    # OpenSlide allocates what a file claims of a tile: noise compresses to a little more than itself
    sane = [
        all(p.tile and p.most_bytes <= 6 * math.prod(p.tile) + 2**16 for p in found)
        and (bool(found) or facts.vendor not in PLAIN_TIFF)
        for found in own
    ]
    broken = False

    def read(level: int, box: Box) -> NDArray[np.uint8] | None:
        nonlocal broken
        if broken or not sane[level]:
            return None
        try:
            rgba = _region(handle, level, handle.level_downsamples[level], box)
            return _put_on_background(rgba, facts.background, np.empty((box.height, box.width, 3), np.uint8))
        except openslide.OpenSlideError:
            broken = True  # its errors latch
            return None

    levels = find_levels(sizes, facts.tile_sizes, read, factors=factors, bounds=facts.bounds)
    doubts: list[str | None] = []
    for level, number in enumerate(levels.numbers):
        if len(own[number]) == 1 and own[number][0].missing < 0:
            doubts.append(more_doubt(level, -own[number][0].missing))
        place = own[number][0].overlap if len(own[number]) == 1 else None
        if place is not None:
            (row, column), (width, height), (right, bottom) = place, facts.tile_sizes[number], sizes[number]
            tile = Box(column * width, row * height, width, height).intersect(Box(0, 0, right, bottom))
            doubts.append(overlap_doubt(level, place, read(number, tile)))
    return levels, tuple(doubt for doubt in doubts if doubt is not None)
