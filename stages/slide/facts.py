"""What a slide says of itself: levels, true micrometres per pixel, bounds, fingerprint; or why it cannot be used."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stages.geometry import Box, Mpp, Raster, level_raster
from stages.passing import UnreadableError, patiently
from stages.place import NotLocalError, Place, local
from stages.slide.companions import companions, fingerprint_of, state_of
from stages.slide.levels import Levels
from stages.slide.resolution import MOST_APART, MPP_REMEDY, check_mpp, description_in, doubt_mpp, read_mpp
from stages.slide.revision import Revision, digest_of

if TYPE_CHECKING:
    import openslide

MAX_SIDE = 2**22
MAX_PIXELS = 2**40
MAX_TILES = 2**24
MAX_TILE_PIXELS = 2**26
"""Limits beyond which a slide's own claims are taken for damage: about a hundred times the largest scans made."""


class SlideError(Exception):
    """This slide cannot be used; the message says why and what to do. Other slides are unaffected."""


@contextmanager
def unreadable() -> Iterator[None]:
    """A `SlideError` for each `UnreadableError`: of a slide, or a function that decorates it."""
    try:
        yield
    except (UnreadableError, NotLocalError) as exc:
        raise SlideError(str(exc)) from exc


@dataclass(frozen=True, slots=True)
class Page:
    """What one picture of a TIFF file says of itself.

    Attributes:
        size: (width, height) in its pixels.
        tile: (width, height) of its tiles; None where it is stored in strips.
        mpp: µm per pixel by its own resolution tags; None where they say none.
        most_bytes: of its largest tile or strip, as it claims.
        missing: how many of the tiles that its sizes make are not in its list of tiles; below 0, it lists more.
        overlap: (row, column) of a tile that lies in part upon another in the file, see `find_overlap`.
        torn: whether another picture is to follow, and there is none.
    """

    size: tuple[int, int]
    tile: tuple[int, int] | None
    mpp: Mpp | None
    most_bytes: int
    missing: int = 0
    overlap: tuple[int, int] | None = None
    torn: bool = False


@dataclass(frozen=True, slots=True)
class SlideFacts:
    """What a slide is, read once when it is opened; plain values that pickle.

    Attributes:
        path: the file (or pyramid folder, or the URL of one).
        vendor: format name as OpenSlide gives it.
        levels: every level placed on the level-0 frame, finest first.
        tile_sizes: (width, height) of each level's own tiles, in pixels of that level.
        mpp: µm per level-0 pixel, or None; then ``mpp_problem`` says why and names the remedy.
        mpp_source: "file", "override" or "none".
        bounds: the scanned part, level-0 pixels, inside the slide.
        background: RGB of what was never scanned.
        objective_power: as the file claims it, for display only.
        associated: names of the label, macro and thumbnail images.
        fingerprint: hash of the file's size and samples of its content; independent of name and modification time.
        file_bytes: size on disk, companion files included.
        origin: level-0 point that QuPath counts from: the corner of the bounds as the file states them, which may lie
            left of or above the slide.
        mpp_doubt: what in the file contradicts its resolution, and the remedy; None where nothing does or ``mpp`` was
            given.
        warnings: what else is wrong with it, as levels that were left out and bounds that were cut, or was chosen in
            reading it.
        revision: the state of its files when it was opened.
    """

    path: Place
    vendor: str
    levels: tuple[Raster, ...]
    tile_sizes: tuple[tuple[int, int], ...]
    mpp: Mpp | None
    mpp_source: str
    mpp_problem: str | None
    bounds: Box
    background: tuple[int, int, int]
    objective_power: str | None
    associated: tuple[str, ...]
    fingerprint: str
    file_bytes: int
    origin: tuple[int, int] = (0, 0)
    mpp_doubt: str | None = None
    warnings: tuple[str, ...] = ()
    revision: Revision | None = None

    @property
    def content(self) -> str:
        """What is kept of it goes by: the fingerprint, and beyond that, where it looks at samples only, the digest of
        every byte or else the state of the files. The same slide may have several, other bytes never the same."""
        told = self.revision and (self.revision.digest or self.revision.written)
        return hashlib.sha256(f"{self.fingerprint} {told}".encode()).hexdigest() if told else self.fingerprint

    def with_digest(self) -> SlideFacts:
        """The same facts with the digest of every byte, which is read for it."""
        if self.revision is None or self.revision.digest is not None:
            return self
        digest = digest_of(self.path, self.revision.names, self.revision.touched)
        return replace(self, revision=replace(self.revision, digest=digest))

    def unchanged(self, recorded: Revision | None) -> bool:
        """Whether every byte is as it was when a slide of this fingerprint was in a state that was recorded, as far as
        that can be known: by both digests where this has one, else by the state of the files; where only that is
        another and a digest was recorded, every byte is read."""
        now = self.revision
        if now is None or recorded is None:
            return now is None or (now.written is None and now.digest is None)
        if now.digest is None and now.written == recorded.written:
            return True
        if now.digest is None and recorded.digest is not None:
            now = self.with_digest().revision
        return now is not None and now.digest is not None and now.digest == recorded.digest

    @property
    def file(self) -> Path:
        """The file, of slides that are read from one."""
        return local(self.path, "whole-slide files are read from disks")

    @property
    def doubts(self) -> tuple[str, ...]:
        """All that is to be said beside any result of this slide."""
        return (*([self.mpp_doubt] if self.mpp_doubt else []), *self.warnings)

    def refuse_doubt(self) -> None:
        """A `SlideError` where something in the file contradicts its resolution: what ``--strict`` asks for."""
        if self.mpp_doubt is not None:
            raise SlideError(self.mpp_doubt)

    def require_mpp(self) -> Mpp:
        """The true µm/px, or a `SlideError` that says what is wrong with it and what to do."""
        if self.mpp is None:
            raise SlideError(self.mpp_problem or f"resolution unknown: {MPP_REMEDY}")
        return self.mpp


def read_facts(path: Path, handle: openslide.OpenSlide, pages: Sequence[Page] = ()) -> SlideFacts:
    """What an open slide file says of itself; its levels are those that the file claims.

    Args:
        path: the file.
        handle: of it.
        pages: the pictures in it, where it is a TIFF.

    Raises:
        SlideError: it claims absurd dimensions, or holds a larger picture than its level 0.
    """
    sizes = [(int(w), int(h)) for w, h in handle.level_dimensions]
    properties = dict(handle.properties)
    associated = tuple(sorted(handle.associated_images))
    _refuse_absurd(sizes, properties)
    if properties.get("openslide.vendor") == "generic-tiff":
        _refuse_larger(sizes[0], pages)
    levels = tuple(level_raster(sizes[0], size) for size in sizes)
    own = _own_resolution(sizes[0], pages)
    true_mpp, source, problem = read_mpp(properties, own)
    bounds, origin, cut = _bounds(properties, sizes[0])
    files, power = companions(path, properties), properties.get("openslide.objective-power")
    revision = state_of(path, properties, files)  # before anything is read that it tells the state of
    return SlideFacts(
        path=path,
        vendor=properties.get("openslide.vendor", "unknown"),
        levels=levels,
        tile_sizes=tuple(_tile_size(properties, i, size) for i, size in enumerate(sizes)),
        mpp=true_mpp,
        mpp_source=source,
        mpp_problem=problem,
        bounds=bounds,
        background=_background(properties),
        objective_power=power,
        associated=associated,
        fingerprint=fingerprint_of(path, properties, files),
        file_bytes=sum(patiently(file.stat).st_size for file in (path, *files)),
        origin=origin,
        mpp_doubt=None
        if true_mpp is None
        else doubt_mpp(true_mpp, power=power, description=description_in(properties), tag=own),
        warnings=() if cut is None else (cut,),
        revision=revision,
    )


def keep_levels(facts: SlideFacts, levels: Levels) -> SlideFacts:
    """The same facts without the levels that are none, which become warnings."""
    return replace(
        facts,
        levels=levels.rasters,
        tile_sizes=tuple(facts.tile_sizes[number] for number in levels.numbers),
        warnings=(*facts.warnings, *levels.left_out),
    )


def override_mpp(facts: SlideFacts, mpp: float | None) -> SlideFacts:
    """The same facts with the file's µm/px replaced by ``mpp``, or untouched where that is None."""
    if mpp is None:
        return facts
    problem = check_mpp(mpp, mpp)
    true = None if problem else Mpp(mpp, mpp)
    warnings, own = facts.warnings, facts.mpp
    if own is not None and not math.isclose(own.x, own.y, rel_tol=0.02):
        warnings += (f"its pixels are {own} µm by the file; the given {mpp:g} µm/px takes them for square ones",)
    elif (
        own is not None
        and true is not None
        and facts.mpp_doubt is None
        and not 1 / MOST_APART < mpp / own.x < MOST_APART
    ):
        warnings += (f"the file says {own} µm/px; the given {mpp:g} µm/px is taken",)
    return replace(facts, mpp=true, mpp_source="override", mpp_problem=problem, mpp_doubt=None, warnings=warnings)


def _refuse_absurd(sizes: list[tuple[int, int]], properties: dict[str, str]) -> None:
    for i, (width, height) in enumerate(sizes):
        if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
            raise SlideError(f"level {i} claims {width} x {height} pixels: refused, the file is damaged or hostile")
        tile_width, tile_height = _tile_size(properties, i, (width, height))
        if -(-width // tile_width) * -(-height // tile_height) > MAX_TILES:
            raise SlideError(f"level {i} claims more than {MAX_TILES} tiles: refused, the file is damaged or hostile")
        tile_width, tile_height = _claimed_tile_size(properties, i)
        if max(tile_width, tile_height) > MAX_SIDE:
            raise SlideError(
                f"level {i} claims tiles of {tile_width} x {tile_height} pixels: refused, the file is damaged"
            )
        if tile_width * tile_height > MAX_TILE_PIXELS:
            raise SlideError(
                f"level {i} has tiles of {tile_width} x {tile_height} pixels, each of which must be decoded whole: "
                "convert it to a tiled pyramid (256 to 1024 px tiles)"
            )


def _claimed_tile_size(properties: dict[str, str], level: int) -> tuple[int, int]:
    """The level's tile size; formats that hide it are counted in the 256-px squares that they are read by."""
    width, height = (int(properties.get(f"openslide.level[{level}].tile-{side}", 256)) for side in ("width", "height"))
    return width, height


def _tile_size(properties: dict[str, str], level: int, size: tuple[int, int]) -> tuple[int, int]:
    width, height = _claimed_tile_size(properties, level)
    return max(1, min(width, size[0])), max(1, min(height, size[1]))


def _own_resolution(size: tuple[int, int], pages: Sequence[Page]) -> Mpp | None:
    """By the resolution tags of the one page that is level 0; None where no page is, or several are."""
    same = [page for page in pages if page.size == size and page.tile is not None]
    return same[0].mpp if len(same) == 1 else None


def _refuse_larger(size: tuple[int, int], pages: Sequence[Page]) -> None:
    """A TIFF whose first picture is not its finest, which OpenSlide takes for a smaller slide."""
    largest = max(pages, key=lambda page: page.size[0] * page.size[1], default=None)
    if largest is not None and largest.size[0] * largest.size[1] > 1.01 * size[0] * size[1]:
        raise SlideError(
            f"it holds a picture of {largest.size[0]} x {largest.size[1]} px, larger than the {size[0]} x {size[1]} px "
            "that are read as its level 0: write it again with the finest level first, tiled, and the others marked as "
            "reduced (vips tiffsave --tile --pyramid)"
        )


def _bounds(properties: dict[str, str], size: tuple[int, int]) -> tuple[Box, tuple[int, int], str | None]:
    """The scanned part inside the slide, the corner that QuPath counts from, and what is wrong with what is stated."""
    whole = Box(0, 0, *size)
    stated = [properties.get(f"openslide.bounds-{key}") for key in ("x", "y", "width", "height")]
    if all(value is None for value in stated):
        return whole, (0, 0), None
    words = "x, y, width, height: " + ", ".join(str(value) for value in stated)
    try:
        x, y, width, height = (int(str(value)) for value in stated)
    except ValueError:
        return whole, (0, 0), f"its bounds ({words}) are no numbers: they count as the whole slide"
    box = whole.intersect(Box(x, y, width, height))
    if not box.area or x < -size[0] or y < -size[1]:
        return (
            whole,
            (0, 0),
            f"its bounds ({words}) lie outside of it: they count as the whole slide",
        )
    if box == Box(x, y, width, height):
        return box, (x, y), None
    return (
        box,
        (x, y),
        f"its bounds ({words}) reach beyond it: of them {box.width} x {box.height} px at ({box.x}, {box.y}) are read",
    )


def _background(properties: dict[str, str]) -> tuple[int, int, int]:
    colour = properties.get("openslide.background-color", "FFFFFF")
    return int(colour[0:2], 16), int(colour[2:4], 16), int(colour[4:6], 16)
