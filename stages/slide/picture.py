"""Which of a TIFF's pictures is the slide, and which of its planes: what tifffile finds in a file, as one RGB pyramid.

A file may hold several pictures (series), and each of them channels, focal planes and points in time, stored as pages
of their own. Read is the largest picture; of focal planes the middle one; of time the first. Whatever was chosen is
said, and what is no colour picture is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from stages.geometry import Mpp
from stages.slide.axes import choose_pages
from stages.slide.facts import MAX_TILE_PIXELS, SlideError
from stages.slide.ome import read_ome
from stages.slide.overlaps import more_doubt
from stages.slide.planes import READ, PlaneTiles
from stages.slide.samples import Samples, read_samples
from stages.slide.tiff import MAX_PAGES, TiffTiles, describe_cut, open_tiff_file, quiet
from stages.slide.tiles import TileGrid
from stages.slide.units import micrometres

VENDORS = {"ome": "ome-tiff", "imagej": "imagej", "generic": "tiff", "uniform": "tiff", "shaped": "tiff"}
"""Names of the kinds of series that are read; scanners' own have rules that OpenSlide knows."""
ASSOCIATED = ("label", "macro", "thumbnail", "overview")
_SAME_SHAPE = 0.02
"""How far a level's sides may be off one factor, beside the pixel that rounding takes."""
DIM = 50_000
"""Brightest value of 16 bits below which glass is no white, and it is said."""
COMPARED = 2
"""Tiles that are decoded both ways before the faster is used."""
LOOKED_AT = 16
"""Tiles in which the brightest value, or any opacity, is looked for."""
_MISSING = "planes of it are missing, or in files that are not beside it: write them into one file"
_RETILE = "convert it to a tiled pyramid, such as `vips tiffsave in.tif out.tif --tile --pyramid --compression jpeg`"


@dataclass(frozen=True, slots=True)
class Picture:
    """A slide in a TIFF.

    Attributes:
        vendor: name of the format.
        levels: its tiles, finest first, as they are stored.
        orientation: TIFF's, of all levels.
        mpp: µm per level-0 pixel as stored; None where nobody says.
        tag: the same by its own resolution tags, where they say it.
        objective_power: where the file says it.
        description: what else the file says of it.
        associated: names of the label, macro and thumbnail images.
        transparent: whether a share of the background shows through it.
        warnings: what was chosen, and what was left out.
    """

    vendor: str
    levels: tuple[TileGrid, ...]
    orientation: int
    mpp: Mpp | None
    tag: Mpp | None
    objective_power: str | None
    description: str
    associated: tuple[str, ...]
    transparent: bool
    warnings: tuple[str, ...]


def read_picture(path: Path) -> Picture:
    """The slide that a TIFF holds.

    Raises:
        SlideError: it holds none that can be shown in its colours, or one that cannot be read piece by piece.
        tifffile.TiffFileError, ValueError, ...: whatever tifffile makes of damage.
    """
    with quiet(), open_tiff_file(path) as tiff:
        for number, _ in enumerate(tiff.pages):
            if number == MAX_PAGES:
                raise SlideError(f"it has more than {MAX_PAGES} pages: save the slide as a file of its own")
        try:
            found = _choose(path, tiff)
        finally:
            for page in tiff.pages:  # tuples of millions, in a cycle of references that only the collector would find
                for one in (page, *(page.pages or ())):
                    with contextlib.suppress(AttributeError):
                        one.dataoffsets = one.databytecounts = ()
    return found


def _choose(path: Path, tiff: tifffile.TiffFile) -> Picture:
    series = [s for s in tiff.series if "X" in s.axes and "Y" in s.axes]
    if not series:
        raise SlideError("a TIFF without a picture")
    chosen = max(series, key=_area)
    if chosen.kind not in VENDORS:
        raise SlideError(
            describe_cut(path)
            or f"a TIFF of the kind {chosen.kind!r} that OpenSlide does not read, or that is damaged: copy it again, "
            "or export it as OME-TIFF"
        )
    if any(page is not None and page.parent is not tiff for page in chosen.pages):
        raise SlideError("parts of its picture are in other files: gather them in one file, such as with bfconvert")
    images = read_ome(tiff.ome_metadata or "") if chosen.kind == "ome" else []
    ome = images[series.index(chosen)] if len(images) == len(series) else None
    warnings: list[str] = []
    associated = _others(chosen, series, warnings)
    pages = choose_pages(chosen, ome, warnings)  # those of the plane that is read: one, or one for each colour
    first: Any = chosen.levels[0].pages[pages[0]]
    if first is None:
        raise SlideError(_MISSING)
    first = first.aspage()
    samples = read_samples(first, bits=ome.bits if ome else None, channels=len(pages))
    if len(pages) == 1 and ome is not None and "S" not in chosen.axes and samples.colours == 3:
        raise SlideError("its OME-XML and its pages disagree on what its colours are: save it again")
    levels, orientation = _levels(path, _stored(tiff, chosen, pages), samples, warnings)
    transparent = any(isinstance(grid, PlaneTiles) and grid.samples.alpha > 0 for grid in levels)
    tag = _mpp(tiff, first)
    return Picture(
        vendor=VENDORS[chosen.kind],
        levels=levels,
        orientation=orientation,
        mpp=(ome.mpp if ome and ome.mpp else None) or tag,
        tag=tag,
        objective_power=ome.objective_power if ome else None,
        description="" if images else first.description,
        associated=associated,
        transparent=transparent,
        warnings=tuple(warnings),
    )


def _area(series: Any) -> int:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    return int(sizes["X"] * sizes["Y"])


def _others(chosen: Any, series: Sequence[Any], warnings: list[str]) -> tuple[str, ...]:
    """Names of the label and the like; other pictures are told of."""
    names = [(s, s.name.strip().casefold()) for s in series if s is not chosen]
    associated = {word for _, name in names for word in ASSOCIATED if word in name}
    left = [name for _, name in names if not any(word in name for word in ASSOCIATED)]
    if left:
        sizes = dict(zip(chosen.axes, chosen.shape, strict=True))
        called = f" ({chosen.name!r})" if chosen.name.strip() else ""
        warnings.append(
            f"of the {len(left) + 1} pictures in the file the largest{called} is read, {sizes['X']} x {sizes['Y']} px"
        )
    return tuple(sorted(associated))


def _stored(tiff: tifffile.TiffFile, chosen: Any, pages: Sequence[int]) -> list[list[Any]]:
    """Pages of every level: those of its picture, or the reduced ones that follow a picture of one page and level."""
    stored = []
    for level in chosen.levels:
        if len(level.pages) != len(chosen.pages) or any(level.pages[i] is None for i in pages):
            raise SlideError(_MISSING)
        stored.append([level.pages[i].aspage() for i in pages])
    if chosen.kind == "ome" and len(chosen.pages) == len(stored) == 1:  # libvips, with OME-XML for a description
        first = stored[0][0]
        reduced = [page.aspage() for page in tiff.pages if page.index > first.index and page.aspage().is_reduced]
        stored += [[page] for page in reduced if _colours(page) == _colours(first) and _same_shape(first, page)]
        stored.sort(key=lambda planes: -planes[0].imagewidth)
    return stored


def _levels(
    path: Path, stored: Sequence[Sequence[Any]], samples: Samples, warnings: list[str]
) -> tuple[tuple[TileGrid, ...], int]:
    """Tiles of every level, of which each is a page, or one for each colour; and how all of them are turned."""
    first = stored[0][0]
    turned = {int(planes[0].tags.valueof("Orientation", 1)) for planes in stored}
    if len(turned) > 1 or not turned <= set(range(1, 9)):
        raise SlideError(f"its levels are turned differently (tag Orientation: {sorted(turned)}): write it again")
    kept, used = [], []
    for number, planes in enumerate(stored):
        page = planes[0]
        if _colours(page) != _colours(first) or not _same_shape(first, page):
            warnings.append(
                f"a picture of {page.imagewidth} x {page.imagelength} px is no level of {first.imagewidth} x "
                f"{first.imagelength} px: left out"
            )
            continue
        _check_page(page, number, samples.pixel_bytes)
        kept.append(PlaneTiles(path, planes, samples))
        if kept[-1].more > 0:
            warnings.append(more_doubt(number, kept[-1].more))
        if doubt := kept[-1].overlap_doubt(number):
            warnings.append(doubt)
        used.append(planes)
    if samples.highest is None:
        seen = (int(values[..., : samples.colours].max(initial=0)) for values in _looked_at(kept[-1]))
        brightest = max(seen, default=0)
        samples = samples.scaled(brightest)
        if brightest < DIM:
            warnings.append(f"its samples have 16 bits; white is taken for 65535, the brightest seen is {brightest}")
    transparency = slice(samples.colours, samples.colours + 1)
    if samples.alpha and not any(values[..., transparency].any() for values in _looked_at(kept[-1])):
        warnings.append("its transparency is complete wherever it was looked at, so it is left aside")
        samples = replace(samples, alpha=0)
    for grid in kept:
        grid.samples = samples
    return tuple(_own_jpeg(path, *pair) for pair in zip(used, kept, strict=True)), turned.pop()


def _own_jpeg(path: Path, planes: Sequence[Any], grid: PlaneTiles) -> TileGrid:
    """The same tiles as streams that can be copied, or decoded smaller, where they are JPEG and decode to the same."""
    page, *others = planes
    plain = page.is_tiled and page.samplesperpixel == 3 and page.planarconfig == tifffile.PLANARCONFIG.CONTIG
    if others or not plain or page.compression != tifffile.COMPRESSION.JPEG:
        return grid
    tiles = TiffTiles(path, page)
    agreed = 0
    for index in np.argsort(-grid.byte_counts.ravel(), kind="stable")[:LOOKED_AT]:
        place = divmod(int(index), grid.byte_counts.shape[1])
        with contextlib.suppress(OSError, ValueError):  # a damaged tile says nothing of how intact ones decode
            ours, theirs = tiles.pixels(*place), grid.pixels(*place)
            if ours is None or theirs is None or not np.array_equal(ours, theirs):
                return grid
            agreed += 1
        if agreed == COMPARED:
            return tiles
    return tiles if agreed else grid


def _looked_at(grid: PlaneTiles) -> Iterator[Any]:
    """Samples of some tiles from all over a level; those that do not decode are left to whoever reads them."""
    filled = [divmod(int(i), grid.byte_counts.shape[1]) for i in grid.byte_counts.ravel().nonzero()[0]]
    for place in filled[:: max(1, len(filled) // LOOKED_AT)]:
        with contextlib.suppress(OSError, ValueError):
            yield grid.samples_of(grid.stored(*place), *place)


def _check_page(page: Any, number: int, pixel_bytes: int) -> None:
    """Refuse what cannot be read piece by piece, or by this machine."""
    width, height = PlaneTiles.tile_of(page)
    if width * height * pixel_bytes > 6 * MAX_TILE_PIXELS or width * height > MAX_TILE_PIXELS:
        what = "tiles" if page.is_tiled else "one strip" if height >= page.imagelength else "strips"
        raise SlideError(
            f"level {number} is stored in {what} of {width} x {height} px, which must be decoded whole: {_RETILE}"
        )
    name = getattr(page.compression, "name", page.compression)
    if page.compression not in READ:
        raise SlideError(f"Unsupported TIFF compression: {name}; {_RETILE}")
    if page.compression != tifffile.COMPRESSION.NONE:
        try:
            tifffile.TIFF.DECOMPRESSORS[page.compression]
        except Exception as exc:  # of tifffile, or of imagecodecs where it was built without
            raise SlideError(
                f"Unsupported TIFF compression: {name} cannot be decoded here; pip install --upgrade imagecodecs, or "
                f"{_RETILE}"
            ) from exc


def _colours(page: Any) -> tuple[Any, ...]:
    return page.dtype, page.photometric, page.samplesperpixel, page.extrasamples


def _same_shape(first: Any, page: Any) -> bool:
    across, down = first.imagewidth / page.imagewidth, first.imagelength / page.imagelength
    rounding = 1 / page.imagewidth + 1 / page.imagelength
    return bool(across >= 1 and down >= 1 and abs(across / down - 1) <= _SAME_SHAPE + rounding)


def _mpp(tiff: tifffile.TiffFile, page: Any) -> Mpp | None:
    """By the page's resolution tags, which ImageJ counts in a unit of its own."""
    unit: float | None = None
    if tiff.is_imagej:
        unit = micrometres(str((tiff.imagej_metadata or {}).get("unit", "pixel")).replace("\\u00B5", "µ"))
    else:
        unit = {2: 25400.0, 3: 10000.0}.get(int(page.tags.valueof("ResolutionUnit", 2)))
    sides = []
    for name in ("XResolution", "YResolution"):
        value = page.tags.valueof(name)
        if unit is None or not isinstance(value, tuple) or not all(value):
            return None
        sides.append(unit * value[1] / value[0])
    return Mpp(*sides)
