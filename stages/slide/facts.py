"""What a slide says of itself: levels, true micrometres per pixel, bounds, fingerprint; or why it cannot be used."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stages.geometry import Box, Mpp, Raster, level_raster

if TYPE_CHECKING:
    import openslide

PLAUSIBLE_MPP = (0.05, 50.0)
"""µm/px: an oil-immersion scan at its finest, a thumbnail of a whole section at its coarsest."""
MAX_SIDE = 2**22
MAX_PIXELS = 2**40
MAX_TILES = 2**24
MAX_TILE_PIXELS = 2**26
"""Limits beyond which a slide's own claims are taken for damage: about a hundred times the largest scans made."""

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
        warnings: what else is wrong with it, or was chosen in reading it.
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
    warnings: tuple[str, ...] = ()

    def require_mpp(self) -> Mpp:
        """The true µm/px, or a `SlideError` that says what is wrong with it and what to do."""
        if self.mpp is None:
            raise SlideError(self.mpp_problem or f"resolution unknown: {MPP_REMEDY}")
        return self.mpp


def read_facts(path: Path, handle: openslide.OpenSlide) -> SlideFacts:
    """What an open slide file says of itself.

    Raises:
        SlideError: it claims absurd dimensions.
    """
    sizes = [(int(w), int(h)) for w, h in handle.level_dimensions]
    properties = dict(handle.properties)
    associated = tuple(sorted(handle.associated_images))
    _refuse_absurd(sizes, properties)
    levels = tuple(level_raster(sizes[0], size) for size in sizes)
    true_mpp, source, problem = _mpp_of(properties)
    return SlideFacts(
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
        fingerprint=fingerprint_of(path, properties),
        file_bytes=sum(size for _, size in _files_of(path)),
    )


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
        tile_width, tile_height = _tile_size(properties, i, (width, height))
        if -(-width // tile_width) * -(-height // tile_height) > MAX_TILES:
            raise SlideError(f"level {i} claims more than {MAX_TILES} tiles: refused, the file is damaged or hostile")
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


def fingerprint_of(path: Path, properties: dict[str, str]) -> str:
    """SHA-256 over sizes, OpenSlide's quick hash and samples of the content: cheap however large the file is."""
    quickhash = properties.get("openslide.quickhash-1", "")
    digest = hashlib.sha256(repr((_files_of(path), quickhash)).encode())
    size = path.stat().st_size
    with path.open("rb") as file:
        for offset in sorted({0, *(int(size * k / 16) for k in range(1, 16)), max(0, size - 65536)}):
            file.seek(offset)
            digest.update(file.read(65536))
    return digest.hexdigest()
