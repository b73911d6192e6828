"""Open any whole-slide image: levels, true micrometres per pixel, bounds, fingerprint, reads.

`Slide` is the small protocol that every later stage reads pixels through. `open_slide` gives it for whatever OpenSlide
opens; `stages.pyramids` gives it for the OME-Zarr pyramids that we write ourselves.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import openslide
from numpy.typing import NDArray

from stages.geometry import Box, Mpp, Raster, level_raster
from stages.tiff import TiffTiles, find_level_tiles
from stages.tiles import TileGrid

PLAUSIBLE_MPP = (0.05, 50.0)
"""µm/px: an oil-immersion scan at its finest, a thumbnail of a whole section at its coarsest."""
MAX_SIDE = 2**22
MAX_PIXELS = 2**40
MAX_TILE_PIXELS = 2**26
"""Limits beyond which a slide's own claims are taken for damage: about a hundred times the largest scans made."""

REGION_SIDE = 256
"""Level pixels along a side of the regions that OpenSlide is asked for where it interpolates."""

MPP_REMEDY = "give the true value with --mpp or in an 'mpp' column of the cohort table"


class SlideError(Exception):
    """This slide cannot be used; the message says why and what to do. Other slides are unaffected."""


@dataclass(frozen=True, slots=True)
class SlideFacts:
    """What a slide is, read once when it is opened; plain values that pickle.

    Attributes:
        path: the file (or pyramid folder).
        vendor: format name as OpenSlide gives it.
        levels: every level placed on the level-0 frame, finest first.
        tile_sizes: (width, height) of each level's own tiles, in pixels of that level.
        mpp: µm per level-0 pixel, or None; then ``mpp_problem`` says why and names the remedy.
        mpp_source: "file", "override" or "none".
        bounds: the scanned part, level-0 pixels.
        background: RGB of what was never scanned.
        objective_power: as the file claims it, for display only.
        associated: names of the label, macro and thumbnail images.
        fingerprint: hash of the file's size and samples of its content; independent of name and modification time.
        file_bytes: size on disk, companion files included.
    """

    path: Path
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

    def require_mpp(self) -> Mpp:
        """The true µm/px, or a `SlideError` that says what is wrong with it and what to do."""
        if self.mpp is None:
            raise SlideError(self.mpp_problem or f"resolution unknown: {MPP_REMEDY}")
        return self.mpp


class Slide(Protocol):
    """Pixels of one slide, level by level. Implementations pickle by path and open handles once per process."""

    facts: SlideFacts

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """RGB (height, width, 3) of ``box``, which lies inside the level and is in that level's pixels.

        Raises:
            SlideError: the region cannot be read.
        """
        ...

    def tile_bytes(self, level: int) -> NDArray[np.int64]:
        """Compressed bytes of each of the level's tiles, (tile rows, tile columns); estimated if the file hides it."""
        ...

    def direct(self, level: int) -> bool:
        """Whether reads of this level decode the slide's own tiles, so that `tile_bytes` are exact."""
        ...


class OpenSlideSlide:
    """A whole-slide file: its own JPEG tiles where they can be decoded directly and verified, else OpenSlide."""

    def __init__(self, facts: SlideFacts) -> None:
        self.facts = facts
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._pid = -1
        self._handle: openslide.OpenSlide | None = None
        self._tiles: tuple[TiffTiles | None, ...] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"facts": self.facts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.facts = state["facts"]
        self._reset()

    def _open(self) -> openslide.OpenSlide:
        """This process's handle: handles do not survive a fork, and a new process must not share its parent's."""
        with self._lock:
            if self._pid != os.getpid() or self._handle is None:
                self._handle, self._pid = _open_handle(self.facts.path), os.getpid()
            return self._handle

    def _level_tiles(self, level: int) -> TiffTiles | None:
        if self._tiles is None:
            found = find_level_tiles(self.facts.path, [(r.width, r.height) for r in self.facts.levels])
            self._tiles = tuple(
                tiles if tiles is not None and self._verified(i, tiles) else None for i, tiles in enumerate(found)
            )
        return self._tiles[level]

    def _verified(self, level: int, tiles: TileGrid) -> bool:
        """Whether some tiles decode to what OpenSlide shows: exactly where it does not interpolate."""
        sizes = tiles.byte_counts.ravel()
        filled = np.flatnonzero(sizes)
        if len(filled) < len(sizes) and level and self.facts.vendor == "aperio":
            return False  # in this format a missing tile is not blank: the finer level shows through
        if not len(filled):
            return True
        by_size = filled[np.argsort(sizes[filled], kind="stable")]
        whole = self._whole(level)
        for index in {by_size[-1], by_size[len(by_size) // 2], filled[-1]}:  # rich in detail, typical, far corner
            box = tiles.box(*divmod(int(index), tiles.byte_counts.shape[1]))
            try:
                ours, theirs = tiles.read(box), self._read_openslide(level, box)
            except (SlideError, OSError, ValueError):
                return False
            difference = np.abs(ours.astype(np.int16) - theirs)
            # off whole downsamples OpenSlide interpolates between pixels, so only a likeness can be asked for
            if (difference.max() > 0) if whole else (difference.mean() > 12):
                return False
        return True

    def _whole(self, level: int) -> bool:
        """Whether OpenSlide can be asked for exact pixels of this level: it addresses them in whole level-0 pixels."""
        return float(self._open().level_downsamples[level]).is_integer()

    def _read_openslide(self, level: int, box: Box) -> NDArray[np.uint8]:
        if self._whole(level):
            return self._read_region(level, box)
        # Its pixels then depend on where a region starts, so regions start on a grid: what is read is what is there,
        # however it is asked for.
        raster, side, out = self.facts.levels[level], REGION_SIDE, np.empty((box.height, box.width, 3), np.uint8)
        for y in range(box.y // side * side, box.y + box.height, side):
            for x in range(box.x // side * side, box.x + box.width, side):
                region = Box(x, y, side, side).intersect(Box(0, 0, raster.width, raster.height))
                part = region.intersect(box)
                pixels = self._read_region(level, region)[part.y - y :, part.x - x :][: part.height, : part.width]
                out[part.y - box.y :, part.x - box.x :][: part.height, : part.width] = pixels
        return out

    def _read_region(self, level: int, box: Box) -> NDArray[np.uint8]:
        handle = self._open()
        downsample = handle.level_downsamples[level]
        location = (round(box.x * downsample), round(box.y * downsample))
        try:
            rgba = np.asarray(handle.read_region(location, level, (box.width, box.height)))
        except openslide.OpenSlideError as exc:
            with self._lock:  # OpenSlide's errors latch: this handle answers nothing else from now on
                self._handle = None
            raise SlideError(
                f"cannot read level {level} at ({box.x}, {box.y}): {exc}; the file is damaged: copy or scan it again"
            ) from exc
        return _on_background(rgba, self.facts.background)

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """See `Slide.read_level`."""
        tiles = self._level_tiles(level)
        if tiles is None:
            return self._read_openslide(level, box)
        try:
            return tiles.read(box, blank=self.facts.background)
        except (OSError, ValueError) as exc:
            raise SlideError(
                f"cannot read level {level} at ({box.x}, {box.y}): {exc}; the file is damaged or gone: copy it again"
            ) from exc

    def tile_bytes(self, level: int) -> NDArray[np.int64]:
        """See `Slide.tile_bytes`."""
        tiles = self._level_tiles(level)
        if tiles is not None:
            return tiles.byte_counts
        raster, (width, height) = self.facts.levels[level], self.facts.tile_sizes[level]
        pixels = sum(r.width * r.height for r in self.facts.levels)
        shape = (-(-raster.height // height), -(-raster.width // width))
        return np.full(shape, max(1, round(self.facts.file_bytes * width * height / pixels)), np.int64)

    def direct(self, level: int) -> bool:
        """See `Slide.direct`."""
        return self._level_tiles(level) is not None


def _on_background(rgba: NDArray[np.uint8], background: tuple[int, int, int]) -> NDArray[np.uint8]:
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    # openslide-python has already undone the premultiplication
    mixed = rgba[..., :3] * (alpha / 255.0) + np.array(background) * (1 - alpha / 255.0)
    return np.rint(mixed).astype(np.uint8)


def _open_handle(path: Path) -> openslide.OpenSlide:
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError as exc:
        raise SlideError("not a whole-slide image that OpenSlide knows, or its companion files are missing") from exc
    except openslide.OpenSlideError as exc:
        raise SlideError(f"cannot be opened: {exc}") from exc


def open_slide(path: Path | str, *, mpp: float | None = None) -> OpenSlideSlide:
    """Open a whole-slide file and read what it says of itself.

    Args:
        path: the slide file.
        mpp: µm per level-0 pixel that replaces the file's own.

    Raises:
        SlideError: missing, not a slide, damaged, or claiming absurd dimensions.
    """
    path = Path(path)
    if not path.exists():
        raise SlideError("no such file: check the path, or the cohort table's folder")
    with _open_handle(path) as handle:
        sizes = [(int(w), int(h)) for w, h in handle.level_dimensions]
        properties = dict(handle.properties)
        associated = tuple(sorted(handle.associated_images))
    _refuse_absurd(sizes, properties)
    levels = tuple(level_raster(sizes[0], size) for size in sizes)
    true_mpp, source, problem = _mpp_of(properties)
    files = _files_of(path)
    facts = SlideFacts(
        path=path,
        vendor=properties.get("openslide.vendor", "unknown"),
        levels=levels,
        tile_sizes=tuple(_tile_size(properties, i, size) for i, size in enumerate(sizes)),
        mpp=true_mpp,
        mpp_source=source,
        mpp_problem=problem,
        bounds=_bounds(properties, sizes[0]),
        background=_background(properties),
        objective_power=properties.get("openslide.objective-power"),
        associated=associated,
        fingerprint=_fingerprint(path, files, properties.get("openslide.quickhash-1", "")),
        file_bytes=sum(size for _, size in files),
    )
    return OpenSlideSlide(override_mpp(facts, mpp))


def override_mpp(facts: SlideFacts, mpp: float | None) -> SlideFacts:
    """The same facts with the file's µm/px replaced by ``mpp``, or untouched where that is None."""
    if mpp is None:
        return facts
    problem = check_mpp(mpp, mpp)
    return replace(facts, mpp=None if problem else Mpp(mpp, mpp), mpp_source="override", mpp_problem=problem)


def check_mpp(x: float, y: float) -> str | None:
    """What is wrong with a resolution in µm/px, or None."""
    low, high = PLAUSIBLE_MPP
    if all(math.isfinite(v) and low <= v <= high for v in (x, y)) and 0.5 <= x / y <= 2:
        return None
    return f"implausible resolution {x:.4g} x {y:.4g} µm/px (expected {low} to {high}): {MPP_REMEDY}"


def _mpp_of(properties: dict[str, str]) -> tuple[Mpp | None, str, str | None]:
    try:
        x, y = (float(properties[f"openslide.mpp-{axis}"]) for axis in "xy")
    except (KeyError, ValueError):
        return None, "none", f"the file does not say its resolution: {MPP_REMEDY}"
    problem = check_mpp(x, y)
    return (None if problem else Mpp(x, y), "file", problem)


def _refuse_absurd(sizes: list[tuple[int, int]], properties: dict[str, str]) -> None:
    for i, (width, height) in enumerate(sizes):
        if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
            raise SlideError(f"level {i} claims {width} x {height} pixels: refused, the file is damaged or hostile")
        tile_width, tile_height = _claimed_tile_size(properties, i)
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


def _bounds(properties: dict[str, str], size: tuple[int, int]) -> Box:
    whole = Box(0, 0, *size)
    try:
        x, y, width, height = (int(properties[f"openslide.bounds-{k}"]) for k in ("x", "y", "width", "height"))
    except (KeyError, ValueError):
        return whole
    box = whole.intersect(Box(x, y, width, height))
    return box if box.area else whole


def _background(properties: dict[str, str]) -> tuple[int, int, int]:
    colour = properties.get("openslide.background-color", "FFFFFF")
    return int(colour[0:2], 16), int(colour[2:4], 16), int(colour[4:6], 16)


def _files_of(path: Path) -> list[tuple[str, int]]:
    """(name, bytes) of the slide file and of the companion folder that MRXS keeps beside it."""
    files = [(path.name if path.with_suffix("").is_dir() else "", path.stat().st_size)]
    if path.suffix.lower() == ".mrxs":
        folder = path.with_suffix("")
        files += [(f.name, f.stat().st_size) for f in sorted(folder.iterdir())] if folder.is_dir() else []
    return files


def _fingerprint(path: Path, files: list[tuple[str, int]], quickhash: str) -> str:
    """SHA-256 over sizes, OpenSlide's quick hash and samples of the content: cheap however large the file is."""
    digest = hashlib.sha256(repr((files, quickhash)).encode())
    size = path.stat().st_size
    with path.open("rb") as file:
        for offset in sorted({0, *(int(size * k / 16) for k in range(1, 16)), max(0, size - 65536)}):
            file.seek(offset)
            digest.update(file.read(65536))
    return digest.hexdigest()
